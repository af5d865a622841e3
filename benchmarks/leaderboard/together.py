"""The leaderboard's entries over several tasks at once, by the statistics of ``benchmarks.statistics``.

Scores on test are normalised: 0 is what random label maps have on a task, 1 cross-entropy on pixel labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.leaderboard.judge import succeeded
from benchmarks.results_file import Row, Table
from benchmarks.score_plots import draw_intervals, draw_profiles
from benchmarks.statistics import (
    bootstrap_interval,
    interquartile_mean,
    normalise,
    optimality_gap,
    probability_of_improvement,
)
from benchmarks.tasks import REVISITED, TASKS

TASKS_TOGETHER = ("shapes-32", "camvid", "camvid-sequences")  # in the track revisited, with the small budget
ZERO, ONE = "random", "cross-entropy"
FEWEST = 3  # seeds on every task


def scores_together(rows: Sequence[Row], tasks: Sequence[str] = TASKS_TOGETHER) -> dict[str, np.ndarray]:
    """Normalised test scores, (seeds, tasks), of every entry that was tested on all tasks with the same seeds.

    As many seeds are taken as the fewest of an entry on one of the tasks, the lowest, and ``FEWEST`` at least; the
    entries with the highest interquartile mean come first. Empty if a task has no random label maps or no
    cross-entropy.
    """
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        metric = f"test_{TASKS[row['task']].metric}" if row["task"] in tasks else ""
        wanted = row["final"] == "1" and (row["track"], row["budget"]) == (REVISITED, "small")
        if metric and wanted and succeeded(row["status"]) and row.get(metric):
            found[row["entry"]][row["task"]][int(row["seed"])] = float(row[metric])
    if any(not found[name][task] for name in (ZERO, ONE) for task in tasks):
        return {}
    zero, one = ([float(np.mean(list(found[name][task].values()))) for task in tasks] for name in (ZERO, ONE))
    scores = {}
    for entry, of_tasks in found.items():
        seeds = sorted(set.intersection(*(set(of_tasks[task]) for task in tasks)))
        if len(seeds) >= FEWEST:
            scores[entry] = normalise([[of_tasks[task][seed] for task in tasks] for seed in seeds], zero, one)
    return dict(sorted(scores.items(), key=lambda item: -float(interquartile_mean(item[1]))))


def together_table(rows: Sequence[Row], bounds: Sequence[str], tasks: Sequence[str] = TASKS_TOGETHER) -> Table:
    """A line for every entry: interquartile mean and optimality gap with intervals, and how often the best is better.

    Args:
        rows: of a results file.
        bounds: entries that take no place.
        tasks: that are counted together.
    """
    scores = scores_together(rows, tasks)
    best = next((entry for entry in scores if entry not in bounds), "")
    lines = [["", "entry", "seeds", "interquartile mean", "optimality gap", f"probability that {best} is better"]]
    place = 0
    for entry, matrix in scores.items():
        place += entry not in bounds
        better = "" if entry == best else f"{float(probability_of_improvement(scores[best], matrix)):.2f}"
        cells = []
        for statistic in (interquartile_mean, optimality_gap):
            low, high = bootstrap_interval(matrix, statistic=statistic)
            middle, low, high = (round(float(value), 3) + 0.0 for value in (statistic(matrix), low, high))  # no -0.0
            cells.append(f"{middle:.3f} ({low:.3f}–{high:.3f})")
        lines.append(["bound" if entry in bounds else str(place), entry, str(len(matrix)), *cells, better])
    return lines if best else []


def draw_together(rows: Sequence[Row], path: Path, tasks: Sequence[str] = TASKS_TOGETHER) -> list[Path]:
    """Draws intervals of the aggregates, and performance profiles, next to a results file; none without scores."""
    scores = scores_together(rows, tasks)
    if not scores:
        return []
    return [
        draw_intervals(scores, path.with_suffix(".intervals.png")),
        draw_profiles(scores, path.with_suffix(".profiles.png")),
    ]
