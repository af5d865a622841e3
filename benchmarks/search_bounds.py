"""The search for the strongest bound: losses on pixel labels, learning rates and numbers of labelled images.

Scores are searched as widely: ``RSS`` is one of the methods, so that the rates of both sides are chosen alike.

    python -m benchmarks.search_bounds
    python -m benchmarks.search_bounds --tasks camvid --camvid ../shared/data/camvid --seeds 1 2 3
    python -m benchmarks.search_bounds --splits '[:64]' '[:256]' --methods cross-entropy --learning-rates 2e-3

Images, steps and batch are those of the leaderboard's runs. What is best on the validation split
is chosen; no test split is looked at. Runs that the results file holds are not run again.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import tyro

from agents.training.arguments import check_numbers
from agents.training.command import run_command
from benchmarks.comparison import Case, run_cases
from benchmarks.leaderboard.own_entries import command_of
from benchmarks.results_file import RESULTS, Table, read_rows
from benchmarks.tasks import Setting, find_tasks
from benchmarks.training_runs import read_curve
from rss_env.errors import OptionError

LOSSES = {
    "cross-entropy": [],
    "lovasz": ["--loss", "lovasz"],
    "lovasz + cross-entropy": ["--loss", "lovasz", "--cross-entropy-share", "0.5"],
    "soft IoU": ["--loss", "soft_iou"],
    "soft IoU + cross-entropy": ["--loss", "soft_iou", "--cross-entropy-share", "0.5"],
}
METHODS = (*LOSSES, "RSS")
RSS_FACTOR = 2  # agents.likelihood learns in regions at twice its --learning-rate


@dataclass
class SearchArguments:
    """Compare losses and learning rates."""

    methods: tuple[str, ...] = METHODS
    """losses on pixel labels, and RSS, which learns from scores"""
    learning_rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3, 4e-3)
    """peaks of the one-cycle schedule"""
    splits: tuple[str, ...] = ("",)
    """labelled images, as a slice of the task's, such as [:64] and [::8]; default: all"""
    seeds: tuple[int, ...] = (1,)
    """seeds to run"""
    tasks: tuple[str, ...] = ("shapes-32",)
    """tasks of the leaderboard"""
    camvid: str | None = None
    """folder of CamVid, for the tasks camvid and camvid-sequences"""
    voc: str | None = None
    """folder of PASCAL VOC 2012 with the split trainaug, for the task voc"""
    parallel: int = 1
    """runs at once, one thread each"""
    run_dir: str = "runs/search_bounds"
    """folder for the run folders"""
    out: str = str(RESULTS / "records" / "search_bounds.csv")
    """results file"""


def case_of(setting: Setting, method: str, peak: float, labelled: str, seed: int) -> Case:
    """One run: that of cross-entropy or RSS in the leaderboard, but for the loss, the learning rate and the images."""
    entry = method if method == "RSS" else "cross-entropy"
    words = command_of(entry, setting, seed)
    split = setting.task.train_split + labelled
    columns = {
        "data": setting.task.name,
        "method": method,
        "labelled": split,
        "learning_rate": f"{peak:g}",
        "seed": str(seed),
        "image_size": "x".join(map(str, setting.task.image_size)),
        "steps": words[words.index("--steps") + 1],
    }
    for flag in ("--split", "--learning-rate"):
        if flag in words:
            place = words.index(flag)
            del words[place : place + 2]
    rate = peak / RSS_FACTOR if entry == "RSS" else peak
    return Case(columns, [*words, "--split", split, "--learning-rate", f"{rate:g}", *LOSSES.get(method, [])])


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """How good the run ended on the validation split at the last step."""
    last = read_curve(folder)[-1]
    return {name: last[name] for name in ("val_miou", "val_pixel_accuracy")}


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(SearchArguments, prog="python -m benchmarks.search_bounds")
    check_numbers(args, {"seeds": 0, "parallel": 1, "learning_rates": 0})
    unknown = [method for method in args.methods if method not in METHODS]
    if unknown or not args.methods or not args.splits:
        raise OptionError(f"methods must be some of {', '.join(METHODS)}, got {', '.join(unknown) or 'none'}.")
    tasks, left_out = find_tasks(args.tasks, args.camvid, args.voc)
    print(*left_out, sep="\n", end="\n" if left_out else "")
    cases = [
        case_of(Setting(task), method, rate, split, seed)
        for seed in args.seeds
        for task in tasks
        for split in args.splits
        for method in args.methods
        for rate in args.learning_rates
    ]
    run_cases(cases, Path(args.out), Path(args.run_dir), args.parallel, measure)
    for line in bounds_table(Path(args.out)):
        print("  ".join(f"{cell:>24}" for cell in line))


def bounds_table(file: Path = RESULTS / "records" / "search_bounds.csv") -> Table:
    """Mean validation mIoU over the seeds: a line for a method and labelled images, a column for a learning rate."""
    groups: dict[tuple[str, ...], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read_rows(file, ["data", "steps", "method", "labelled", "learning_rate", "seed", "val_miou"]):
        key = row["data"], row["steps"], row["labelled"], row["method"]
        groups[key][float(row["learning_rate"])].append(float(row["val_miou"]))
    rates = sorted({rate for found in groups.values() for rate in found})
    lines = [["data", "steps", "labelled", "method", "seeds", *(f"{rate:g}" for rate in rates)]]
    for group, found in groups.items():
        seeds = sorted({len(values) for values in found.values()})
        means = [f"{mean(found[rate]):.3f}" if rate in found else "" for rate in rates]
        lines.append([*group, "–".join(map(str, seeds)), *means])
    return lines


if __name__ == "__main__":
    run_command(main)
