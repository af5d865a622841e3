"""Reads a results file of ``benchmarks.convergence``: its rows by panel and method, and the tables of final mIoU."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from benchmarks.convergence.suites import METHODS, STEPS, TITLES
from benchmarks.results_file import RESULTS, Row, Table, read_rows, results_of

Group = tuple[str, int]  # method, samples per image
Groups = dict[Group, list[Row]]


def final_table(suite: str, dataset: str, level: str) -> Callable[[], Table]:
    """The table of one data set and reward level of a suite."""
    return lambda: final_tables(RESULTS / f"{suite}.csv")[dataset, level]


def final_tables(path: Path) -> dict[tuple[str, str], Table]:
    """Final mIoU over the seeds of each method, by (data set, level)."""
    tables = {}
    for (dataset, level), groups in read_panels(path).items():
        ends = {group: final_rows(rows) for group, rows in groups.items()}
        upper = next((_mean(rows, "val_miou") for (name, _), rows in ends.items() if name == "cross_entropy"), None)
        lines = [[f"{dataset}, {level} level", "K", "seeds", "mIoU (range)", "of CE", "reward queries", "seconds"]]
        for group, rows in ends.items():
            if not rows:
                continue
            share = f"{_mean(rows, 'val_miou') / upper:.1%}" if upper else ""
            queries, seconds = f"{int(rows[0]['reward_queries']):,}", f"{_mean(rows, 'seconds'):.0f}"
            lines.append(
                [title(group, groups), str(group[1] or ""), str(len(rows)), _span(rows), share, queries, seconds]
            )
        tables[dataset, level] = lines
    return tables


def headline_table() -> Table:
    """Every data set of the headline side by side: validation mIoU by what is fed back and who learns from it."""
    methods = {
        ("pixel labels", "cross-entropy", "image"): ("cross_entropy", 0),
        ("one number a label map", "`agents.likelihood`", "image"): ("regions", 32),
        ("one number a label map", "`agents.rss`", "image"): ("entropy", 32),
        ("one number a pixel", "`agents.likelihood`", "pixel"): ("replay", 8),
    }
    panels = read_panels(RESULTS / "headline.csv")
    lines = [["feedback", "method", "K", "CamVid", "Shapes"]]
    for (feedback, method, level), group in methods.items():
        spans = [_span(final_rows(panels.get((data, level), {}).get(group, []))) for data in ("camvid", "shapes")]
        lines.append([feedback, method, str(group[1] or ""), *spans])
    return lines


def regions_table() -> Table:
    """Scores read pixel by pixel and in regions, wherever both were run: validation mIoU, and the number of seeds."""
    lines = [["data", "scores", "K", "cross-entropy", "seeds", "pixel by pixel", "seeds", "in regions", "seeds"]]
    scores = {"": "mean IoU", "_accuracy": "pixel accuracy", "_stars": "five stars of it", "_noise": "noise 0.05 on it"}
    shown = set()  # a suite shows rows of the headline as well
    for suite in ("headline", "queries", "feedback"):
        for (dataset, level), groups in read_panels(RESULTS / f"{suite}.csv").items():
            ends = {group: final_rows(rows) for group, rows in groups.items()}
            for (method, samples), rows in ends.items():
                score = method.removeprefix("regions")
                if level != "image" or not rows or score == method or (dataset, method, samples) in shown:
                    continue
                shown.add((dataset, method, samples))
                cells = []
                for other in (("cross_entropy", 0), (f"replay{score}", samples), (method, samples)):
                    cells += [_span(ends.get(other, [])), str(len(ends.get(other, []))) if ends.get(other) else ""]
                lines.append([dataset, scores[score], str(samples), *cells])
    return lines


def _span(rows: list[Row]) -> str:
    """Mean and range of the final mIoU; empty without rows."""
    values = [float(row["val_miou"]) for row in rows]
    return f"{statistics.fmean(values):.3f} ({min(values):.3f}–{max(values):.3f})" if values else ""


def read_panels(path: Path) -> dict[tuple[str, str], Groups]:
    """The rows of a results file by (data set, level), then by method and K.

    Cross-entropy, which has no reward, is in every level. Suites that vary K or the feedback on CamVid run neither
    cross-entropy nor the usual K again: their panels show the rows of the headline, read from the file next to theirs,
    or the committed one.

    Raises:
        OptionError: the file holds no results of ``benchmarks.convergence``.
    """
    rows = results_of(path, "benchmarks.convergence", ("method", "dataset", "level", "step", "val_miou"))
    if path.stem in ("queries", "feedback"):
        seeds, headline = {row["seed"] for row in rows}, path.with_name("headline.csv")
        rows += [
            row
            for row in read_rows(headline if headline.exists() else RESULTS / headline.name)
            if (row["dataset"], row["level"]) == ("camvid", "image")
            and row["method"] in ("cross_entropy", "replay", "regions", "entropy")
            and row["seed"] in seeds
        ]
    order = list(METHODS)
    panels: dict[tuple[str, str], Groups] = {}
    compared = [row for row in rows if row["method"] != "cross_entropy"] or rows
    for dataset, level in dict.fromkeys((row["dataset"], row["level"]) for row in compared):
        groups: Groups = defaultdict(list)
        for row in rows:
            if row["dataset"] == dataset and (row["level"] == level or row["method"] == "cross_entropy"):
                groups[row["method"], int(row["samples_per_image"])].append(row)
        panels[dataset, level] = dict(sorted(groups.items(), key=lambda item: (order.index(item[0][0]), item[0][1])))
    return panels


def title(group: Group, among: Groups) -> str:
    """The name of a method: only what it adds to the one before it, where that is shown with the same K."""
    method, samples = group
    return (TITLES | STEPS if ("leave_one_out", samples) in among else TITLES)[method]


def title_with_k(group: Group, among: Groups) -> str:
    """The name of a method, with its K if the methods shown have several."""
    several = len({k for name, k in among if name != "cross_entropy"}) > 1
    return title(group, among) + (f", K = {group[1]}" if group[1] and several else "")


def final_rows(rows: list[Row]) -> list[Row]:
    """The rows after the last step, one a seed."""
    return [row for row in rows if row["step"] == row["steps"]]


def _mean(rows: list[Row], column: str) -> float:
    return statistics.fmean(float(row[column]) for row in rows)
