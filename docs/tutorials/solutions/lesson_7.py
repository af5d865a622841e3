"""Lesson 7: Bayes' rule for noisy scores."""

import numpy as np


def solution(log_prior, predicted, scores, std):
    """Adds logarithms, and takes the largest off before the exponential."""
    log_posterior = log_prior - ((scores - predicted) ** 2).sum(axis=1) / (2 * std**2)
    posterior = np.exp(log_posterior - log_posterior.max())
    return posterior / posterior.sum()


def products(log_prior, predicted, scores, std):
    """Multiplies the likelihoods of all scores: 10,000 factors underflow to 0, and 0 / 0 is no number."""
    with np.errstate(all="ignore"):
        posterior = np.exp(log_prior) * np.exp(-((scores - predicted) ** 2) / (2 * std**2)).prod(axis=1)
        return posterior / posterior.sum()


def no_prior(log_prior, predicted, scores, std):
    """Forgets the prior."""
    return solution(np.zeros_like(log_prior), predicted, scores, std)


def mean_of_scores(log_prior, predicted, scores, std):
    """Takes the mean over the scores instead of their sum: a hundred scores then say no more than one."""
    log_posterior = log_prior - ((scores - predicted) ** 2).mean(axis=1) / (2 * std**2)
    posterior = np.exp(log_posterior - log_posterior.max())
    return posterior / posterior.sum()


def deviation_for_variance(log_prior, predicted, scores, std):
    """Divides by the standard deviation where the variance belongs."""
    return solution(log_prior, predicted, scores, std**0.5)


WRONG = [products, no_prior, mean_of_scores, deviation_for_variance]
