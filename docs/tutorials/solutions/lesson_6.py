"""Lesson 6: mutual information of target and answer."""

import numpy as np


def entropy(p):
    """In bits, over the last axis; 0 log 0 is 0."""
    return -(p * np.log2(np.where(p > 0, p, 1))).sum(axis=-1)


def solution(prior, answers):
    """Entropy of the answer, less what is left of it when the target is known."""
    return float(entropy(prior @ answers) - prior @ entropy(answers))


def entropy_of_the_answer(prior, answers):
    """Takes the judge's own chance for information."""
    return float(entropy(prior @ answers))


def nats(prior, answers):
    """Natural logarithms: nats, and no bits."""
    return solution(prior, answers) * np.log(2)


def uniform_prior(prior, answers):
    """Forgets that some targets are likelier than others."""
    return solution(np.full(len(prior), 1 / len(prior)), answers)


def zeros_are_not_allowed(prior, answers):
    """0 · log 0 is no number for a computer."""
    with np.errstate(all="ignore"):
        overall = prior @ answers
        return float((prior[:, None] * answers * np.log2(answers / overall)).sum())


WRONG = [entropy_of_the_answer, nats, uniform_prior, zeros_are_not_allowed]
