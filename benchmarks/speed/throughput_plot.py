"""The plot of ``benchmarks.throughput``: episodes a second against the number of environments.

python -m benchmarks.speed.throughput_plot
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import tyro

from agents.training.command import run_command
from benchmarks.results_file import RESULTS, read_last_device, replacing, results_of

STYLES = {
    "floor": ("0.6", ":"),
    "gather floor": ("0.3", "--"),
    "SegmentationVectorEnv": ("tab:blue", "-"),
    "SegmentationVectorEnv, uint8": ("tab:cyan", "-"),
    "TorchSegmentationVectorEnv, uint8": ("tab:orange", "-"),
    "SyncVectorEnv": ("tab:red", "-"),
    "AsyncVectorEnv": ("tab:purple", "-"),
}


def plot(results: Path = RESULTS / "throughput.csv") -> Path:
    """Draws a results file into a PNG next to it.

    Args:
        results: a CSV file of ``benchmarks.throughput``.
    """
    curves: dict[tuple[str, str], dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    results_of(results, "benchmarks.throughput", ("num_envs", "episodes_per_second", "level", "contender"))
    rows = read_last_device(results)
    for row in rows:
        point = int(row["num_envs"]), float(row["episodes_per_second"])
        curves[row["level"], row["image_size"]][row["contender"]].append(point)
    levels = list(dict.fromkeys(level for level, _ in curves))
    sides = list(dict.fromkeys(side for _, side in curves))
    figure, axes = plt.subplots(
        len(levels), len(sides), figsize=(4 * len(sides), 3.4 * len(levels) + 0.8), sharex=True, squeeze=False
    )
    for (level, side), contenders in curves.items():
        axis = axes[levels.index(level)][sides.index(side)]
        for name, points in contenders.items():
            colour, line = STYLES[name]
            axis.loglog(*zip(*points, strict=True), color=colour, linestyle=line, marker=".", label=name)
        axis.set_title(f"{level} level, {side}×{side} pixels", fontsize=10)
        axis.grid(True, which="major", alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("environments")
    for row_axes in axes:
        row_axes[0].set_ylabel("episodes a second")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, fontsize=9, frameon=False)
    figure.suptitle(f"Shapes, {rows[0]['device']}", fontsize=10)
    figure.tight_layout(rect=(0, 0.6 / figure.get_size_inches()[1], 1, 1))
    path = results.with_suffix(".png")
    with replacing(path) as file:
        figure.savefig(file, dpi=110)
    plt.close(figure)
    return path


if __name__ == "__main__":
    run_command(lambda: print(tyro.cli(plot, prog="python -m benchmarks.speed.throughput_plot")))
