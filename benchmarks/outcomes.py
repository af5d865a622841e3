"""Learning to label a world from what comes of acting on the labels.

    python -m benchmarks.outcomes
    python -m benchmarks.outcomes --seeds 1 2 3 --parallel 2

``agents.rss`` and ``agents.likelihood`` train on ``RSS-Crafter-OutcomeReward-v0`` from outcomes only, and the same
network by cross-entropy on the true maps. Compared on the validation split with the true map, random label maps and the
best label map of a single class: the outcome, as a share of what the true map earns, and the IoU of every class, which
the agents never see.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal, cast

import gymnasium as gym
import numpy as np
import torch
import tyro

from agents.networks.checkpoints import load_policy, predict_label_maps
from agents.training.arguments import check_numbers
from agents.training.command import run_command
from benchmarks.comparison import Case, run_cases
from benchmarks.convergence.suites import PIXELS
from benchmarks.results_file import RESULTS, Table, add_rows, device_name, provenance, read_rows
from rss_env.datasets import load_dataset
from rss_env.evaluation import evaluate
from rss_env.worlds.crafter import CLASSES, GOALS, CrafterWorld

ENV_ID = "RSS-Crafter-OutcomeReward-v0"
METHODS = {"rss": "agents.rss", "likelihood": PIXELS, "cross-entropy": "agents.supervised"}
MERGED = {"walkable": ("grass", "sand", "path"), "hazards": ("lava", "zombie", "skeleton")}
"""Classes that mean the same, or nearly, to who acts on them."""
KEY = ("method", "samples_per_image", "steps", "seed")


@dataclass
class OutcomesArguments:
    """Compare agents that learn from outcomes with cross-entropy on the true maps."""

    methods: tuple[Literal["rss", "likelihood", "cross-entropy"], ...] = ("cross-entropy", "rss", "likelihood")
    """what is trained"""
    seeds: tuple[int, ...] = (1, 2, 3)
    """seeds to run"""
    samples_per_image: int = 16
    """label maps an image (K) of the agents that learn from outcomes"""
    steps: int = 600
    """optimiser steps"""
    batch_size: int = 16
    """images a step"""
    cells: tuple[int, ...] = (8,)
    """sides of the cells that share one draw, in pixels, from the first stage of the training to the last; cells of the
    game have 8"""
    parallel: int = 1
    """runs at once"""
    run_dir: str = "runs/outcomes"
    """folder for the run folders"""
    out: str = str(RESULTS / "outcomes.csv")
    """results file"""


def cases(args: OutcomesArguments) -> list[Case]:
    """The runs: seed × method."""
    made = []
    for seed in args.seeds:
        for method in args.methods:
            words = [*METHODS[method].split(), "--env-id", ENV_ID, "--steps", str(args.steps), "--seed", str(seed)]
            words += ["--batch-size", str(args.batch_size), "--augment", "flip"]
            words += ["--eval-every", str(max(1, args.steps // 5)), "--checkpoint-every", str(args.steps)]
            samples = ""
            if method != "cross-entropy":
                samples = str(args.samples_per_image)
                words += ["--samples-per-image", samples, "--cells", *map(str, args.cells)]
            columns = (method, samples, str(args.steps), str(seed))
            made.append(Case(dict(zip(KEY, columns, strict=True)), words))
    return made


def measure(predict: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """Outcome, mIoU and IoU of every class over the validation split, and mIoU where groups of ``MERGED`` are one."""
    result = evaluate(predict, ENV_ID, score=True, expose_target=True)
    assert result.score is not None
    assert result.miou is not None
    ious = {name: None if iou is None else round(iou, 4) for name, iou in result.per_class_iou.items()}
    return {
        "val_outcome": round(result.score, 5),
        "val_miou": round(result.miou, 5),
        "val_merged_miou": round(merged_miou(predict), 5),
        "val_class_iou": json.dumps(ious),
        "val_reached": json.dumps(reached(predict)),
    }


def reached(predict: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
    """The share of the goals of every kind on the validation split that are reached, of those that there are."""
    data = load_dataset("Crafter", split="val")
    assert data.targets is not None
    world = cast(CrafterWorld, data.world)
    results: dict[str, list[bool]] = defaultdict(list)
    for image, target in zip(data.images, data.targets, strict=True):
        for journey in world.journeys(predict(np.array(image)[None])[0], np.array(target)):
            results[CLASSES[journey.goal]].append(journey.reached)
    return {name: round(mean(results[name]), 4) for name in GOALS if name in results}


def merged_miou(predict: Callable[[np.ndarray], np.ndarray]) -> float:
    """The mIoU over the validation split where each group of ``MERGED`` is one class."""
    env = gym.make_vec(ENV_ID, num_envs=1, split="val", expose_target=True, order="sequential")
    names = env.metadata["class_names"]
    merged = np.arange(256, dtype=np.uint8)
    for group in MERGED.values():
        first, *rest = (names.index(name) for name in group)
        merged[rest] = first
    matrix: np.ndarray = np.zeros((len(names), len(names)))
    for _ in range(env.metadata["num_images"]):
        images, infos = env.reset()
        target, label_map = merged[infos["target"][0]], merged[predict(images)[0]]
        counted = target < len(names)
        np.add.at(matrix, (target[counted], label_map[counted]), 1)
    union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    return float((np.diag(matrix)[union > 0] / union[union > 0]).mean())


def references() -> dict[str, dict[str, Any]]:
    """What the true maps, random label maps and the best label map of one class come to."""
    env = gym.make_vec(ENV_ID, num_envs=1, split="val", expose_target=True, order="sequential")
    count, classes = env.metadata["num_images"], len(env.metadata["class_names"])
    shown = [(images.tobytes(), infos["target"][0]) for images, infos in (env.reset() for _ in range(count))]
    truth = {image: np.where(target == 255, 0, target) for image, target in shown}
    rng = np.random.default_rng(0)
    constant = [
        measure(lambda images, label=label: np.full(images.shape[:3], label, np.uint8))  # type: ignore[misc]
        for label in range(classes)
    ]
    return {
        "true map": measure(lambda images: np.stack([truth[image.tobytes()] for image in images])),
        "random": measure(lambda images: rng.integers(0, classes, images.shape[:3], dtype=np.uint8)),
        "best single class": max(constant, key=lambda row: row["val_outcome"]),
    }


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(OutcomesArguments, prog="python -m benchmarks.outcomes")
    check_numbers(args, {"samples_per_image": 2, "parallel": 1, "seeds": 0, "steps": 1, "batch_size": 1})
    out, key = Path(args.out), list(KEY)
    measured = provenance() | {"device": device_name(threads=1, device=torch.device("cpu"))}
    held = {row["method"] for row in read_rows(out, key)}
    if "true map" not in held:
        fixed = {"samples_per_image": "", "steps": "0", "seed": ""}
        spent = {"reward_queries": 0, "seconds": 0}
        rows = [{"method": name} | fixed | row | spent | measured for name, row in references().items()]
        add_rows(out, rows, key)

    def measure_run(case: Case, folder: Path) -> dict[str, Any]:
        network, _ = load_policy(folder, torch.device("cpu"))
        return measure(lambda images: predict_label_maps(network, images, torch.device("cpu")))

    run_cases(cases(args), out, Path(args.run_dir), args.parallel, measure_run)
    for line in outcomes_table(out):
        print("  ".join(f"{cell:>20}" for cell in line))


def outcomes_table(file: Path = RESULTS / "outcomes.csv") -> Table:
    """Outcome, its share of that of the true map, and mIoU."""
    groups: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in read_rows(file, list(KEY)):
        groups[row["method"], row["steps"]].append(row)
    best = float(groups["true map", "0"][0]["val_outcome"])
    lines = [["", "seeds", "steps", "queries", "outcome", "of the true map's", "mIoU", "mIoU, merged"]]
    for (method, steps), rows in groups.items():
        trained = method in METHODS
        learns = trained and method != "cross-entropy"
        outcome = [float(row["val_outcome"]) for row in rows]
        spread = f" ({min(outcome):.3f}–{max(outcome):.3f})" if len(rows) > 1 else ""
        lines.append(
            [
                method,
                str(len(rows)) if trained else "",
                f"{int(steps):,}" if trained else "",
                f"{mean(int(row['reward_queries']) for row in rows):,.0f}" if learns else "",
                f"{mean(outcome):.3f}{spread}",
                f"{mean(outcome) / best:.0%}",
                f"{mean(float(row['val_miou']) for row in rows):.3f}",
                f"{mean(float(row['val_merged_miou']) for row in rows):.3f}",
            ]
        )
    return lines


def class_table(file: Path = RESULTS / "outcomes.csv") -> Table:
    """The IoU of every class and the share of its goals that are reached, by method."""
    ious: dict[str, list[dict[str, float | None]]] = defaultdict(list)
    shares: dict[str, list[dict[str, float]]] = defaultdict(list)
    for row in read_rows(file, list(KEY)):
        if row["method"] in METHODS:
            ious[row["method"]].append(json.loads(row["val_class_iou"]))
            shares[row["method"]].append(json.loads(row["val_reached"]))
    lines = [["class", *(f"{method}: {what}" for what in ("IoU", "reached") for method in ious)]]
    for name in CLASSES:
        cells = [f"{mean(row[name] or 0.0 for row in rows):.2f}" for rows in ious.values()]
        cells += [f"{mean(row[name] for row in rows):.0%}" if name in rows[0] else "" for rows in shares.values()]
        lines.append([name, *cells])
    return lines


if __name__ == "__main__":
    run_command(main)
