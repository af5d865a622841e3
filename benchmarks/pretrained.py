"""Learning from scores with a pretrained network, on photos of animals.

    python -m benchmarks.pretrained --root ../shared/data/voc_animals
    python -m benchmarks.pretrained --root ../shared/data/voc_animals --device cuda --parallel 6
    python -m benchmarks.pretrained --root ../shared/data/voc_animals --image-size 96 96 --batch-size 8 \
        --encoders frozen --algorithms cross-entropy regions --seeds 1 \
        --out benchmarks/results/pretrained_few_visits.csv

Cross-entropy, the likelihood of pixels and in regions, and RSS train a U-Net on a pretrained EfficientNet-Lite0
(``--network efficientnet_lite0``), its encoder frozen or fine-tuned, through ``RSS-VOC-ImageReward-v0``, from the split
``trainaug`` to ``val``. Reported: mIoU over all 21 classes and over those seven that the photos show often. The folder
is one in the layout of PASCAL VOC, such as a selection of its photos of animals.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import tyro

from agents.evaluate import EvaluateArguments, evaluate_checkpoint
from agents.training.arguments import check_numbers
from agents.training.command import run_command
from benchmarks.comparison import Case, run_cases
from benchmarks.convergence.suites import PIXELS
from benchmarks.results_file import RESULTS, Table, read_rows

OFTEN = ("background", "cat", "cow", "dog", "horse", "person", "sheep")
ALGORITHMS = {
    "cross-entropy": "agents.supervised",
    "likelihood": PIXELS,
    "regions": "agents.likelihood",
    "rss": "agents.rss",
}


@dataclass
class PretrainedArguments:
    """Compare algorithms on a pretrained network."""

    root: str = "data"
    """folder of the photos, with VOCdevkit/VOC2012"""
    image_size: tuple[int, int] = (112, 112)
    """height and width of the images in pixels"""
    steps: int = 1500
    """optimiser steps"""
    batch_size: int = 16
    """images a step"""
    samples_per_image: int = 32
    """label maps an image (K) of the algorithms that learn from scores"""
    seeds: tuple[int, ...] = (1, 2, 3)
    """seeds to run"""
    algorithms: tuple[str, ...] = tuple(ALGORITHMS)
    """algorithms to run"""
    encoders: tuple[Literal["frozen", "fine-tuned"], ...] = ("frozen", "fine-tuned")
    """whether the encoder learns"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where it runs"""
    parallel: int = 2
    """runs at once"""
    run_dir: str = "runs/pretrained"
    """folder for the run folders"""
    out: str = str(RESULTS / "pretrained.csv")
    """results file"""


def cases(args: PretrainedArguments) -> list[Case]:
    """The runs: algorithm × encoder × seed."""
    size = tuple(map(str, args.image_size))
    made = []
    for seed in args.seeds:
        for encoder in args.encoders:
            for algorithm in args.algorithms:
                samples = 1 if algorithm == "cross-entropy" else args.samples_per_image
                columns = {
                    "algorithm": algorithm,
                    "encoder": encoder,
                    "samples_per_image": str(samples),
                    "image_size": "x".join(size),
                    "steps": str(args.steps),
                    "batch_size": str(args.batch_size),
                    "seed": str(seed),
                }
                words = [*ALGORITHMS[algorithm].split(), "--env-id", "RSS-VOC-ImageReward-v0", "--root", args.root]
                words += ["--split", "trainaug", "--image-size", *size, "--augment", "flip"]
                words += ["--network", "efficientnet_lite0"]
                words += ["--network-options", json.dumps({"frozen": encoder == "frozen"})]
                words += ["--steps", str(args.steps), "--batch-size", str(args.batch_size), "--seed", str(seed)]
                words += ["--eval-every", "0", "--checkpoint-every", str(args.steps), "--device", args.device]
                if algorithm != "cross-entropy":
                    words += ["--samples-per-image", str(samples)]
                if algorithm in ("likelihood", "regions"):
                    words += ["--replay-megabytes", "6000"]
                made.append(Case(columns, words))
    return made


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(PretrainedArguments, prog="python -m benchmarks.pretrained")
    check_numbers(args, {"steps": 1, "batch_size": 1, "samples_per_image": 2, "parallel": 1, "seeds": 0})

    def measure(case: Case, folder: Path) -> dict[str, Any]:
        result = evaluate_checkpoint(EvaluateArguments(str(folder), device=args.device))
        ious = [result.per_class_iou[name] or 0.0 for name in OFTEN]
        numbers = result.metrics | {"miou_of_seven": mean(ious)}
        return {f"val_{name}": round(value, 5) for name, value in numbers.items()}

    run_cases(cases(args), Path(args.out), Path(args.run_dir), args.parallel, measure)
    for line in pretrained_table(Path(args.out)):
        print("  ".join(f"{cell:>16}" for cell in line))


def pretrained_table(file: Path = RESULTS / "pretrained.csv") -> Table:
    """Mean and range over the seeds, and the share of cross-entropy's."""
    groups: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in read_rows(file, ["algorithm"]):
        groups[row["encoder"], row["algorithm"]].append(row)

    def of(encoder: str, algorithm: str, column: str) -> list[float]:
        return [float(row[column]) for row in groups[encoder, algorithm]]

    columns = {"val_miou": "mIoU, 21 classes", "val_miou_of_seven": "mIoU, 7 classes"}
    lines = [
        [
            "encoder",
            "algorithm",
            "seeds",
            *(x for name in columns.values() for x in (name, "of CE")),
            "queries",
            "seconds",
        ]
    ]
    for encoder, algorithm in sorted(
        groups, key=lambda group: (group[0] != "frozen", list(ALGORITHMS).index(group[1]))
    ):
        numbers = []
        for column in columns:
            values, bound = of(encoder, algorithm, column), of(encoder, "cross-entropy", column)
            numbers.append(f"{mean(values):.3f} ({min(values):.3f}–{max(values):.3f})")
            numbers.append(f"{mean(values) / mean(bound):.0%}" if bound else "")
        queries = 0 if algorithm == "cross-entropy" else round(mean(of(encoder, algorithm, "reward_queries")))
        seconds = mean(of(encoder, algorithm, "seconds"))
        lines.append(
            [encoder, algorithm, str(len(groups[encoder, algorithm])), *numbers, f"{queries:,}", f"{seconds:.0f}"]
        )
    return lines


if __name__ == "__main__":
    run_command(main)
