"""Lesson 9: the bootstrap interval of a paired difference."""

import numpy as np


def solution(a, b, level, rng, resamples=1000):
    """Percentiles of the means of resampled differences."""
    difference = np.asarray(a) - np.asarray(b)
    chosen = rng.integers(len(difference), size=(resamples, len(difference)))
    return tuple(np.quantile(difference[chosen].mean(axis=1), [(1 - level) / 2, (1 + level) / 2]))


def unpaired(a, b, level, rng):
    """Resamples the two algorithms each by itself: the luck of a seed no longer drops out."""
    n = len(a)
    means = a[rng.integers(n, size=(1000, n))].mean(axis=1) - b[rng.integers(n, size=(1000, n))].mean(axis=1)
    return tuple(np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))


def of_single_seeds(a, b, level, rng):
    """Where single seeds lie, and not where their mean does: it does not shrink."""
    return tuple(np.quantile(a - b, [(1 - level) / 2, (1 + level) / 2]))


def one_sided(a, b, level, rng):
    """Leaves out 5 % on each side instead of in all."""
    difference = a - b
    means = difference[rng.integers(len(a), size=(1000, len(a)))].mean(axis=1)
    return tuple(np.quantile(means, [1 - level, level]))


def one_standard_error(a, b, level, rng):
    """Mean ± standard error holds in two of three studies, whatever the level."""
    difference = a - b
    error = difference.std(ddof=1) / len(difference) ** 0.5
    return difference.mean() - error, difference.mean() + error


WRONG = [unpaired, of_single_seeds, one_sided, one_standard_error]
