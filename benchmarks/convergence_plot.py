"""The plots of ``benchmarks.convergence``: learning curves against reward queries and seconds, and final mIoU.

python -m benchmarks.convergence_plot benchmarks/results/ablation.csv
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import tyro
from matplotlib.ticker import EngFormatter, MaxNLocator

from agents.arguments import run_command
from benchmarks.results_file import read_rows, results_of
from benchmarks.statistics import bootstrap_interval, interquartile_mean
from benchmarks.suites import METHODS, STEPS, TITLES, Spec

Row = dict[str, str]
Group = tuple[str, int]  # method, samples per image
TITLE_OF_DATASET = {"camvid": "CamVid", "shapes": "Shapes"}


def plot(results: Path) -> list[Path]:
    """Draws a results file into PNG files beside it.

    Args:
        results: a CSV file of ``benchmarks.convergence``.

    Returns:
        The files: learning curves, and bars of the final mIoU.
    """
    rows = with_references(results)
    return [_curves(rows, results.with_suffix(".curves.png")), _bars(rows, results.with_suffix(".bars.png"))]


def picture_grid(specs: list[Spec], run_dir: Path, path: Path, columns: int = 5, images: int = 2) -> Path | None:
    """Draws label maps of validation images over training, one row a method and one column an evaluation.

    Only procedural images are shown: pictures of photos stay in the run folders.

    Args:
        specs: runs; those on Shapes with image-level reward and the lowest seed are shown.
        run_dir: folder of the run folders.
        path: PNG file to write.
        columns: evaluations shown, at equal distances, the last one included.
        images: validation images shown in every cell.

    Returns:
        The file; None if no such run is there.
    """
    shown = [spec for spec in specs if (spec.dataset, spec.level) == ("shapes", "image")]
    shown = [spec for spec in shown if spec.seed == min(other.seed for other in shown)]
    files = {spec.method: sorted((run_dir / spec.name / "pictures").glob("val-label_maps-*.png")) for spec in shown}
    files = {method: pictures for method, pictures in files.items() if pictures}
    if not files:
        return None
    height, width = next(spec.image_size for spec in shown)
    figure, axes = plt.subplots(
        len(files) + 1, columns, figsize=(1.45 * columns * images, 1.5 * (len(files) + 1)), squeeze=False
    )
    for row, (method, pictures) in zip(axes[1:], files.items(), strict=True):
        chosen = [pictures[max(0, round((i + 1) * len(pictures) / columns) - 1)] for i in range(columns)]
        for axis, file in zip(row, chosen, strict=True):
            axis.imshow(plt.imread(file)[height:, : images * width], interpolation="nearest")
            axis.set_title(f"step {int(file.stem.rsplit('-', 1)[1]):,}", fontsize=7, pad=2)
        row[0].set_ylabel(textwrap.fill((TITLES | STEPS)[method], 20), fontsize=7)
    photos = plt.imread(pictures[-1])[:height, : images * width]
    axes[0][0].imshow(photos, interpolation="nearest")
    axes[0][0].set_ylabel("images", fontsize=7)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        for side in axis.spines.values():
            side.set_visible(False)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def with_references(results: Path) -> list[Row]:
    """The rows of a results file; beside partial suites those of the headline that they are compared with.

    Suites that vary K or the feedback on CamVid run neither cross-entropy nor the usual K again.
    """
    rows = results_of(results, "benchmarks.convergence", ("method", "dataset", "level", "step", "val_miou"))
    headline = results.with_name("headline.csv")
    if results.stem not in ("queries", "feedback") or not headline.exists():
        return rows
    seeds = {row["seed"] for row in rows}
    wanted = ("cross_entropy", "replay", "entropy")
    return rows + [
        row
        for row in read_rows(headline)
        if (row["dataset"], row["level"]) == ("camvid", "image") and row["method"] in wanted and row["seed"] in seeds
    ]


def panels(rows: list[Row]) -> dict[tuple[str, str], dict[Group, list[Row]]]:
    """Rows by (data set, level), then by method and K; cross-entropy, which has no reward, is in every level."""
    levels = list(dict.fromkeys((row["dataset"], row["level"]) for row in rows if row["method"] != "cross_entropy"))
    out: dict[tuple[str, str], dict[Group, list[Row]]] = {}
    for dataset, level in levels:
        groups: dict[Group, list[Row]] = defaultdict(list)
        for row in rows:
            if row["dataset"] == dataset and (row["level"] == level or row["method"] == "cross_entropy"):
                groups[row["method"], int(row["samples_per_image"])].append(row)
        order = list(METHODS)
        out[dataset, level] = dict(sorted(groups.items(), key=lambda item: (order.index(item[0][0]), item[0][1])))
    return out


def title(group: Group, among: dict[Group, list[Row]]) -> str:
    """What a curve is called; K is told where the method appears with several, or stands alone."""
    method, samples = group
    several = len({k for name, k in among if name != "cross_entropy"}) > 1
    names = TITLES | STEPS if ("leave_one_out", samples) in among else TITLES
    return names[method] + (f", K = {samples}" if samples and several else "")


def final_values(rows: list[Row]) -> list[float]:
    """MIoU after the last step, one a seed."""
    return [float(row["val_miou"]) for row in rows if row["step"] == row["steps"]]


def _colours(shown: dict[tuple[str, str], dict[Group, list[Row]]]) -> dict[Group, object]:
    """A colour for every method and K, the same in all panels."""
    groups = dict.fromkeys(group for panel in shown.values() for group in panel)
    others = sorted((list(METHODS).index(method), k) for method, k in groups if method != "cross_entropy")
    scale = plt.get_cmap("viridis")
    colours = {(list(METHODS)[n], k): scale(0.85 * (i + 0.5) / len(others)) for i, (n, k) in enumerate(others)}
    return {group: colours.get(group, "0.35") for group in groups}


def _curves(rows: list[Row], path: Path) -> Path:
    shown = panels(rows)
    figure, axes = plt.subplots(
        len(shown), 2, figsize=(11, 3.6 * len(shown) + 0.3), squeeze=False, layout="constrained"
    )
    colours = _colours(shown)
    for line, ((dataset, level), groups) in enumerate(shown.items()):
        for axis, quantity, label in zip(
            axes[line], ("reward_queries", "seconds"), ("reward queries", "seconds of training"), strict=True
        ):
            for group, members in groups.items():
                by_step: dict[int, list[Row]] = defaultdict(list)
                for row in members:
                    by_step[int(row["step"])].append(row)
                middle = [float(interquartile_mean([float(r["val_miou"]) for r in at])) for at in by_step.values()]
                if group[0] == "cross_entropy" and quantity == "reward_queries":
                    axis.axhline(middle[-1], color="0.35", linestyle="--", label=title(group, groups))
                    continue
                place = [sum(float(r[quantity]) for r in at) / len(at) for at in by_step.values()]
                style = "--" if group[0] == "cross_entropy" else "-"
                axis.plot(place, middle, style, color=colours[group], label=title(group, groups))
                spans = [bootstrap_interval([float(r["val_miou"]) for r in at]) for at in by_step.values()]
                axis.fill_between(place, *zip(*spans, strict=True), color=colours[group], alpha=0.15, linewidth=0)
            axis.set_xlabel(label)
            axis.set_ylabel("mIoU, validation")
            axis.set_ylim(bottom=0)
            axis.xaxis.set_major_locator(MaxNLocator(6))
            if quantity == "reward_queries":
                axis.xaxis.set_major_formatter(EngFormatter(sep=" "))
            axis.grid(alpha=0.3)
            axis.set_title(f"{TITLE_OF_DATASET.get(dataset, dataset)}, {level}-level reward", fontsize=10)
        axes[line][1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _bars(rows: list[Row], path: Path) -> Path:
    shown = panels(rows)
    most = max(len(groups) for groups in shown.values())
    figure, axes = plt.subplots(
        len(shown), 1, figsize=(8, (0.32 * most + 0.9) * len(shown)), squeeze=False, layout="constrained"
    )
    colours = _colours(shown)
    for axis, ((dataset, level), groups) in zip(axes[:, 0], shown.items(), strict=True):
        for place, (group, members) in enumerate(groups.items()):
            values = final_values(members)
            if not values:
                continue
            low, high = bootstrap_interval(values)
            middle = float(interquartile_mean(values))
            axis.barh(place, middle, color=colours[group], height=0.7)
            axis.plot([low, high], [place, place], color="black", linewidth=1.5)
            axis.text(high + 0.005, place, f"{middle:.3f}", va="center", fontsize=8)
        axis.set_yticks(range(len(groups)), [title(group, groups) for group in groups], fontsize=8)
        axis.invert_yaxis()
        axis.set_xlabel("mIoU, validation: interquartile mean and 95 % bootstrap interval over seeds", fontsize=8)
        axis.set_xlim(0, 1.08 * max(float(row["val_miou"]) for members in groups.values() for row in members))
        axis.set_title(f"{TITLE_OF_DATASET.get(dataset, dataset)}, {level}-level reward", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def main(results: tyro.conf.Positional[Path]) -> None:
    """Draw the plots of a results file.

    Args:
        results: a CSV file of ``benchmarks.convergence``.
    """
    for path in plot(results):
        print(path)


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, prog="python -m benchmarks.convergence_plot"))
