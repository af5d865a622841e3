"""The plots of ``benchmarks.convergence``: learning curves, final mIoU, and label maps over training.

python -m benchmarks.convergence.plots benchmarks/results/ablation.csv
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tyro
from PIL import Image

from agents.training.command import run_command
from benchmarks.convergence.results import Group, Groups, final_rows, read_panels, title_with_k
from benchmarks.convergence.suites import METHODS, STEPS, TITLES, Spec
from benchmarks.learning_curves import Curve, draw_learning_curves
from benchmarks.picture_grid import draw_picture_grid
from benchmarks.results_file import replacing
from benchmarks.statistics import bootstrap_interval, interquartile_mean

DATASETS = {"camvid": "CamVid", "shapes": "Shapes"}


def plot(results: Path) -> list[Path]:
    """Draws a results file into PNG files next to it.

    Args:
        results: a CSV file of ``benchmarks.convergence``.

    Returns:
        The files: learning curves, and bars of the final mIoU.
    """
    panels = {
        f"{DATASETS.get(dataset, dataset)}, {level}-level reward": groups
        for (dataset, level), groups in read_panels(results).items()
    }
    colours = colours_of(panels)
    curves = {
        panel: [Curve(title_with_k(group, groups), colours[group], rows) for group, rows in groups.items()]
        for panel, groups in panels.items()
    }
    return [
        draw_learning_curves(curves, results.with_suffix(".curves.png")),
        draw_bars(panels, colours, results.with_suffix(".bars.png")),
    ]


def colours_of(panels: dict[str, Groups]) -> dict[Group, Any]:
    """A colour for every method and K, the same in all panels; grey for cross-entropy."""
    order = list(METHODS)
    groups = {group for panel in panels.values() for group in panel}
    others = sorted((group for group in groups if group[0] != "cross_entropy"), key=lambda g: (order.index(g[0]), g[1]))
    scale = plt.get_cmap("viridis")
    return dict.fromkeys(groups, "0.35") | {
        group: scale(0.85 * (i + 0.5) / len(others)) for i, group in enumerate(others)
    }


def draw_bars(panels: dict[str, Groups], colours: dict[Group, Any], path: Path) -> Path:
    """Draws the interquartile mean of the final mIoU, and its bootstrap interval as a line."""
    most = max(len(groups) for groups in panels.values())
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(8, (0.32 * most + 0.9) * len(panels)), squeeze=False, layout="constrained"
    )
    for axis, (panel, groups) in zip(axes[:, 0], panels.items(), strict=True):
        for place, (group, rows) in enumerate(groups.items()):
            values = [float(row["val_miou"]) for row in final_rows(rows)]
            if not values:
                continue
            low, high = bootstrap_interval(values)
            middle = float(interquartile_mean(values))
            axis.barh(place, middle, color=colours[group], height=0.7)
            axis.plot([low, high], [place, place], color="black", linewidth=1.5)
            axis.text(high + 0.005, place, f"{middle:.3f}", va="center", fontsize=8)
        axis.set_yticks(range(len(groups)), [title_with_k(group, groups) for group in groups], fontsize=8)
        axis.invert_yaxis()
        axis.set_xlabel("mIoU, validation: interquartile mean and 95 % bootstrap interval over seeds", fontsize=8)
        axis.set_xlim(0, 1.08 * max(float(row["val_miou"]) for rows in groups.values() for row in rows))
        axis.set_title(panel, fontsize=10)
    with replacing(path) as file:
        figure.savefig(file, dpi=110)
    plt.close(figure)
    return path


def draw_label_maps(specs: list[Spec], run_dir: Path, path: Path, columns: int = 5, images: int = 2) -> Path | None:
    """Draws label maps of validation images over training, one row a method and one column an evaluation.

    Only procedural images are shown: pictures of photos stay in the run folders.

    Args:
        specs: runs; those on Shapes with image-level reward and the lowest seed are shown.
        run_dir: folder of the run folders.
        path: PNG file to write.
        columns: evaluations shown, at equal distances, the last one included.
        images: validation images in every cell.

    Returns:
        The file; None if no such run is there.
    """
    shown = [spec for spec in specs if (spec.dataset, spec.level) == ("shapes", "image")]
    shown = [spec for spec in shown if spec.seed == min(other.seed for other in shown)]
    files = {spec: sorted((run_dir / spec.name / "pictures").glob("val-label_maps-*.png")) for spec in shown}
    rows: dict[str, list[np.ndarray]] = {}
    headings: list[str] = []
    for spec, pictures in files.items():
        if not pictures:
            continue
        height, width = spec.image_size
        chosen = [pictures[max(0, round((i + 1) * len(pictures) / columns) - 1)] for i in range(columns)]
        arrays = [np.asarray(Image.open(file).convert("RGB"))[:, : images * width] for file in chosen]
        headings = [f"step {int(file.stem.rsplit('-', 1)[1]):,}" for file in chosen]
        rows.setdefault("images", [arrays[0][:height]])
        rows[(TITLES | STEPS)[spec.method]] = [array[height:] for array in arrays]
    if not rows:
        return None
    with replacing(path) as file:
        draw_picture_grid(rows, side=192, headings=headings).save(file)
    return path


def main(results: tyro.conf.Positional[Path]) -> None:
    """Draw the plots of a results file.

    Args:
        results: a CSV file of ``benchmarks.convergence``.
    """
    print(*plot(results), sep="\n")


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, prog="python -m benchmarks.convergence.plots"))
