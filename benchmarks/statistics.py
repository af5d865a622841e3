"""What is said about several seeds: the interquartile mean and its bootstrap interval (Agarwal et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def interquartile_mean(values: Sequence[float] | np.ndarray, axis: int | None = None) -> float | np.ndarray:
    """Mean of the middle half: a quarter of the values, rounded down, is left out at each end.

    With fewer than four values nothing is left out.
    """
    return stats.trim_mean(np.asarray(values, float), 0.25, axis=axis)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, confidence: float = 0.95, resamples: int = 2000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the interquartile mean; the same for the same values.

    Args:
        values: one number a seed.
        confidence: probability that the interval aims at; with three seeds it is too narrow by far, and says no more
            than how much the seeds differ.
        resamples: draws with replacement.

    Returns:
        Lower and upper end; both the value itself if there is only one.
    """
    array = np.asarray(values, float)
    if len(array) < 2:
        return float(array[0]), float(array[0])
    draws = np.random.default_rng(0).choice(array, (resamples, len(array)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(interquartile_mean(draws, axis=1), [tail, 1 - tail])
    return float(low), float(high)
