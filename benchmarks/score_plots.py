"""Plots of ``benchmarks.statistics``: intervals of aggregate scores, and performance profiles with bands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.results_file import replacing
from benchmarks.statistics import (
    bootstrap_interval,
    interquartile_mean,
    mean,
    median,
    optimality_gap,
    performance_profile,
)

AGGREGATES = {
    "median": median,
    "interquartile mean": interquartile_mean,
    "mean": mean,
    "optimality gap (less is better)": optimality_gap,
}


def colours_of(names: Mapping[str, Any]) -> dict[str, Any]:
    """A colour for every name, in their order; of up to ten names no two are alike."""
    few, many = plt.get_cmap("tab10"), plt.get_cmap("viridis")
    return {name: few(i) if len(names) <= 10 else many(0.85 * i / len(names)) for i, name in enumerate(names)}


def draw_intervals(scores: Mapping[str, np.ndarray], path: Path) -> Path:
    """Draws median, interquartile mean, mean and optimality gap of several algorithms with 95 % bootstrap intervals.

    Args:
        scores: normalised scores (runs, tasks) of each algorithm.
        path: PNG file to write.
    """
    figure, axes = plt.subplots(
        1, len(AGGREGATES), figsize=(11, 0.42 * len(scores) + 1.0), sharey=True, layout="constrained"
    )
    colours = colours_of(scores)
    for axis, (title, statistic) in zip(axes, AGGREGATES.items(), strict=True):
        for place, (name, matrix) in enumerate(scores.items()):
            low, high = bootstrap_interval(matrix, statistic=statistic)
            middle = float(statistic(matrix))
            axis.barh(place, high - low, left=low, height=0.6, color=colours[name], alpha=0.75)
            axis.plot([middle] * 2, [place - 0.3, place + 0.3], color=colours[name], linewidth=3)
            axis.text(high, place, f"  {round(middle, 2) + 0.0:.2f}", va="center", fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.grid(axis="x", alpha=0.3)
        axis.use_sticky_edges = False  # room for the numbers, though bars would have none
        axis.margins(x=0.3)
    axes[0].set_yticks(range(len(scores)), list(scores), fontsize=9)
    axes[0].invert_yaxis()
    return _save(figure, path)


def draw_profiles(scores: Mapping[str, np.ndarray], path: Path) -> Path:
    """Draws for each algorithm the share of its runs above each score, and its pointwise 95 % bootstrap band.

    Args:
        scores: normalised scores (runs, tasks) of each algorithm.
        path: PNG file to write.
    """
    least, most = (f([f(matrix) for matrix in scores.values()]) for f in (np.min, np.max))
    thresholds = np.linspace(min(0.0, least) - 0.02, max(1.0, most), 101)  # from where all runs are above
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, colour in colours_of(scores).items():
        matrix = scores[name]
        axis.step(thresholds, performance_profile(matrix, thresholds), where="post", color=colour, label=name)
        band = bootstrap_interval(matrix, statistic=lambda drawn: performance_profile(drawn, thresholds))
        axis.fill_between(thresholds, *band, step="post", color=colour, alpha=0.15, linewidth=0)
    axis.set_xlabel("normalised score τ: 0 without looking at the image, 1 cross-entropy")
    axis.set_ylabel("share of runs above τ")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    with replacing(path) as file:
        figure.savefig(file, dpi=110)
    plt.close(figure)
    return path
