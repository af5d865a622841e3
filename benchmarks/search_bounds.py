"""The search for the strongest bound: losses on pixel labels, learning rates and numbers of labelled images.

    python -m benchmarks.search_bounds
    python -m benchmarks.search_bounds --camvid ../shared/data/camvid --seeds 1 2 3
    python -m benchmarks.search_bounds --splits 'train[:64]' 'train[:256]' --losses cross-entropy --learning-rates 2e-3

Images, steps and batch are those of the leaderboard's runs of cross-entropy. What is best on the validation split
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
from benchmarks.leaderboard.arenas import Arena, arenas
from benchmarks.results_file import RESULTS, Table, read_rows
from benchmarks.training_runs import read_curve
from rss_env.errors import OptionError

LOSSES = {
    "cross-entropy": [],
    "lovasz": ["--loss", "lovasz"],
    "lovasz + cross-entropy": ["--loss", "lovasz", "--cross-entropy-share", "0.5"],
    "soft IoU": ["--loss", "soft_iou"],
    "soft IoU + cross-entropy": ["--loss", "soft_iou", "--cross-entropy-share", "0.5"],
}
BATCH = 8  # images a step
QUERIES_A_STEP = 8 * BATCH  # of the entry with the most steps, which cross-entropy takes as well


@dataclass
class SearchArguments:
    """Compare losses on pixel labels."""

    losses: tuple[str, ...] = tuple(LOSSES)
    """losses to run"""
    learning_rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    """peaks of the one-cycle schedule"""
    splits: tuple[str, ...] = ("train",)
    """labelled images, such as train and train[:64]"""
    seeds: tuple[int, ...] = (1,)
    """seeds to run"""
    camvid: str | None = None
    """folder of CamVid, which then is run instead of the procedural environment"""
    parallel: int = 1
    """runs at once, one thread each"""
    run_dir: str = "runs/search_bounds"
    """folder for the run folders"""
    out: str = str(RESULTS / "records" / "search_bounds.csv")
    """results file"""


def case_of(arena: Arena, loss: str, learning_rate: float, split: str, seed: int) -> Case:
    """One run."""
    steps = arena.budget // QUERIES_A_STEP
    size = tuple(map(str, arena.image_size))
    columns = {
        "data": arena.name,
        "loss": loss,
        "labelled": split,
        "learning_rate": f"{learning_rate:g}",
        "seed": str(seed),
        "image_size": "x".join(size),
        "steps": str(steps),
    }
    words = ["agents.supervised", "--env-id", arena.env_id, "--image-size", *size, "--split", split]
    if arena.options.get("root"):
        words += ["--root", arena.options["root"]]
    words += ["--steps", str(steps), "--batch-size", str(BATCH), "--seed", str(seed), "--eval-every", "0"]
    words += ["--learning-rate", f"{learning_rate:g}", *LOSSES[loss]]
    return Case(columns, words)


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """How good the run ended on the validation split at the last step."""
    last = read_curve(folder)[-1]
    return {name: last[name] for name in ("val_miou", "val_pixel_accuracy")}


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(SearchArguments, prog="python -m benchmarks.search_bounds")
    check_numbers(args, {"seeds": 0, "parallel": 1, "learning_rates": 0})
    unknown = [loss for loss in args.losses if loss not in LOSSES]
    if unknown or not args.losses or not args.splits:
        raise OptionError(f"losses must be some of {', '.join(LOSSES)}, got {', '.join(unknown) or 'none'}.")
    arena = arenas(args.camvid)[-1]
    cases = [
        case_of(arena, loss, rate, split, seed)
        for seed in args.seeds
        for split in args.splits
        for loss in args.losses
        for rate in args.learning_rates
    ]
    run_cases(cases, Path(args.out), Path(args.run_dir), args.parallel, measure)
    for line in bounds_table(Path(args.out)):
        print("  ".join(f"{cell:>24}" for cell in line))


def bounds_table(file: Path = RESULTS / "records" / "search_bounds.csv") -> Table:
    """Mean validation mIoU over the seeds: a line for a loss and labelled images, a column for a learning rate."""
    groups: dict[tuple[str, str, str], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read_rows(file, ["data", "loss", "labelled", "learning_rate", "seed", "val_miou"]):
        group = row["data"], row["labelled"], row["loss"]
        groups[group][float(row["learning_rate"])].append(float(row["val_miou"]))
    rates = sorted({rate for found in groups.values() for rate in found})
    lines = [["data", "labelled", "loss", "seeds", *(f"{rate:g}" for rate in rates)]]
    for group, found in groups.items():
        seeds = sorted({len(values) for values in found.values()})
        means = [f"{mean(found[rate]):.3f}" if rate in found else "" for rate in rates]
        lines.append([*group, "–".join(map(str, seeds)), *means])
    return lines


if __name__ == "__main__":
    run_command(main)
