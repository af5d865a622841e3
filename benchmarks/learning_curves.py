"""The plot of learning curves: mIoU against reward queries and against seconds, over the seeds of each method."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import EngFormatter, MaxNLocator

from benchmarks.results_file import replacing
from benchmarks.statistics import bootstrap_interval, interquartile_mean

TITLE = 60  # characters of a title in a line
QUANTITIES = {"reward_queries": "reward queries", "seconds": "seconds of training"}


@dataclass(frozen=True)
class Curve:
    """A curve over the seeds of one method.

    Attributes:
        title: in the legend.
        colour: of matplotlib.
        rows: the evaluations, oldest first, with the columns seed, reward_queries, seconds and val_miou.
    """

    title: str
    colour: Any
    rows: Sequence[Mapping[str, str]]


def draw_learning_curves(
    panels: Mapping[str, Sequence[Curve]], path: Path, names: Mapping[str, str] | None = None
) -> Path:
    """Draws one row of panels each: interquartile mean over the seeds, and its bootstrap interval as a band.

    A method without reward queries is dashed, and level where the axis counts queries.

    Args:
        panels: curves by the title of their panel.
        path: PNG file to write.
        names: what the column val_miou holds, by the title of the panel, where it is not mIoU.
    """
    figure, axes = plt.subplots(
        len(panels), len(QUANTITIES), figsize=(11, 3.6 * len(panels) + 0.3), squeeze=False, layout="constrained"
    )
    for row, (title, curves) in zip(axes, panels.items(), strict=True):
        for axis, quantity in zip(row, QUANTITIES, strict=True):
            for curve in curves:
                _draw(axis, curve, quantity)
            axis.set_xlabel(QUANTITIES[quantity])
            axis.set_ylabel(f"{(names or {}).get(title, 'mIoU')}, validation")
            axis.set_ylim(bottom=0)
            axis.xaxis.set_major_locator(MaxNLocator(6))
            if quantity == "reward_queries":
                axis.xaxis.set_major_formatter(EngFormatter(sep=" "))
            axis.grid(alpha=0.3)
            axis.set_title(textwrap.fill(title, TITLE), fontsize=10)
        if curves:
            row[-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    with replacing(path) as file:
        figure.savefig(file, dpi=110)
    plt.close(figure)
    return path


def _draw(axis: Any, curve: Curve, quantity: str) -> None:
    seeds: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in curve.rows:
        seeds[row["seed"]].append(row)
    points = list(zip(*seeds.values(), strict=False))  # the n-th evaluation of every seed
    values = [[float(row["val_miou"]) for row in point] for point in points]
    middle = [float(interquartile_mean(each)) for each in values]
    style = "-" if any(int(row["reward_queries"]) for row in points[-1]) else "--"
    if len(points) == 1 or (quantity == "reward_queries" and style == "--"):
        axis.axhline(middle[-1], color=curve.colour, linestyle="--", linewidth=1, label=curve.title)
        return
    place = [sum(float(row[quantity]) for row in point) / len(point) for point in points]
    axis.plot(place, middle, style, color=curve.colour, label=curve.title)
    spans = [bootstrap_interval(each) for each in values]
    axis.fill_between(place, *zip(*spans, strict=True), color=curve.colour, alpha=0.15, linewidth=0)
