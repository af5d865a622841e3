"""What may be said about several runs on several tasks, by Agarwal et al. (NeurIPS 2021).

Scores are a matrix (runs, tasks), one run a seed; a plain list is the runs on one task. Every statistic works on the
last two axes, so that all resamples of a bootstrap are one array (resamples, runs, tasks). Scores of several tasks
compare only after ``normalise``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rss_env.errors import OptionError


def normalise(scores: ArrayLike, zero: ArrayLike, one: ArrayLike) -> np.ndarray:
    """Scores on a scale that all tasks share: (score − zero) / (one − zero).

    Args:
        scores: (runs, tasks), or (tasks,).
        zero: what needs no learning, such as random label maps: (tasks,) or one number.
        one: the yardstick, such as cross-entropy on pixel labels: (tasks,) or one number.

    Returns:
        Of the shape of ``scores``: 0 is no better than ``zero``, 1 as good as ``one``; neither is a limit.

    Raises:
        OptionError: ``one`` is not above ``zero`` on some task, so there is no scale.
    """
    low, high = np.asarray(zero, float), np.asarray(one, float)
    if not np.all(high > low):
        task = int(np.flatnonzero(~np.atleast_1d(high > low))[0])
        raise OptionError(f"one must be above zero on every task, which it is not on task {task}.")
    return (np.asarray(scores, float) - low) / (high - low)


def interquartile_mean(scores: ArrayLike) -> Any:
    """Mean of the middle half of all runs on all tasks: a quarter of the values, rounded down, is left out at each end.

    With fewer than four values nothing is left out.
    """
    return stats.trim_mean(_flat(scores), 0.25, axis=-1)


def mean(scores: ArrayLike) -> Any:
    """Mean over tasks of the mean over runs; one task far above the others carries it."""
    return _flat(scores).mean(-1)


def median(scores: ArrayLike) -> Any:
    """Median over tasks of the mean over runs; half of the tasks could be at 0 unnoticed."""
    return np.median(_matrix(scores).mean(-2), -1)


def optimality_gap(scores: ArrayLike, target: float = 1.0) -> Any:
    """How much is missing to ``target`` in the mean; what is above it on one task makes up for nothing on another."""
    return target - np.minimum(_flat(scores), target).mean(-1)


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> Any:
    """Probability that a run of X is better than one of Y on the same task, the mean over tasks; a tie counts one half.

    On each task it is the Mann-Whitney statistic U / (n·m).

    Args:
        x: (n, tasks).
        y: (m, tasks).

    Raises:
        OptionError: X and Y have different numbers of tasks.
    """
    first, second = _matrix(x)[..., :, None, :], _matrix(y)[..., None, :, :]  # (…, n, 1, tasks), (…, 1, m, tasks)
    if first.shape[-1] != second.shape[-1]:
        raise OptionError(f"x and y must have the same tasks, got {first.shape[-1]} and {second.shape[-1]}.")
    return ((first > second).mean((-3, -2)) + 0.5 * (first == second).mean((-3, -2))).mean(-1)


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """Share of all runs on all tasks whose score is above each threshold: (…, thresholds)."""
    flat = _flat(scores)
    return np.stack([(flat > threshold).mean(-1) for threshold in np.asarray(thresholds, float)], -1)


def bootstrap_interval(
    *scores: ArrayLike,
    statistic: Callable[..., Any] = interquartile_mean,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> tuple[Any, Any]:
    """Percentile interval of a statistic by the stratified bootstrap; the same for the same scores.

    Each resample draws as many runs as there are, with replacement, on every task by itself. So it says how much the
    statistic would vary with other seeds on the same tasks, not with other tasks.

    Args:
        *scores: (runs, tasks), or a list of the runs on one task; two of them for a statistic of two, such as
            ``probability_of_improvement``, whose runs are drawn independently.
        statistic: of arrays (resamples, runs, tasks); gives (resamples,), or (resamples, thresholds) for a profile.
        confidence: probability that the interval aims at. With three seeds on one task it is too narrow by far, and
            says no more than how much the seeds differ.
        resamples: how many.

    Returns:
        Lower and upper end: numbers, or arrays for a statistic that gives several; both the value itself where every
        task has one run.
    """
    rng = np.random.default_rng(0)
    drawn = []
    for matrix in map(_matrix, scores):
        runs = rng.integers(0, len(matrix), (resamples, *matrix.shape))
        drawn.append(np.take_along_axis(matrix[None], runs, 1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistic(*drawn), [tail, 1 - tail], axis=0)
    return (low, high) if low.ndim else (float(low), float(high))


def _matrix(scores: ArrayLike) -> np.ndarray:
    """(…, runs, tasks), float64; a list of numbers is one task.

    Raises:
        OptionError: there is no score, or one is not finite.
    """
    array = np.asarray(scores, float)
    if not array.size or not np.isfinite(array).all():
        raise OptionError("A statistic needs scores that are finite, and at least one of them.")
    return array[:, None] if array.ndim == 1 else array


def _flat(scores: ArrayLike) -> np.ndarray:
    """(…, runs·tasks)."""
    array = _matrix(scores)
    return array.reshape(*array.shape[:-2], -1)
