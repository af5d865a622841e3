"""How many bits the label maps of a task hold, how many its scores can tell, and which of the two a training lacks.

    python -m benchmarks.information
    python -m benchmarks.information --camvid ../shared/data/camvid --voc ../shared/data/voc_animals

A network is trained briefly by cross-entropy on every other image of the training split, and what the label maps of the
images between hold is measured. Label maps are drawn for these, at the agent's temperature, from what is known at the
start, the classes' shares, and from that network. The spread of their scores says how much one can tell
(``benchmarks.bits``).
``docs/information.md`` has the tables and what is a bound and what is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import tyro

from agents.networks.checkpoints import load_policy, predict_logits
from agents.ops import sample_label_maps
from agents.training.arguments import check_numbers
from agents.training.command import run_command
from benchmarks import bits
from benchmarks.processes import Processes
from benchmarks.results_file import RESULTS, Row, Table, add_rows, check_writable, provenance, read_rows, results_of
from benchmarks.training_runs import train
from rss_env.datasets import SegmentationDataset, load_dataset
from rss_env.rewards import score_images
from rss_env.rewards.counting import count_labels

TEMPERATURE = 2.0  # of the default agent's draws
STARS, NOISE = 5, 0.05
KEY = ("data", "image_size", "belief", "cell")
FILE = RESULTS / "information.csv"


@dataclass(frozen=True)
class Data:
    """A data set at one size.

    Attributes:
        name: in results.
        dataset: name in the registry.
        env_id: that a network is trained through.
        image_size: height and width in pixels.
        split: that agents train on.
        folder: name of the argument that says where it is; empty for a procedural one.
    """

    name: str
    dataset: str
    env_id: str
    image_size: tuple[int, int]
    split: str = "train"
    folder: str = ""

    @property
    def size(self) -> str:
        """Height and width as in results."""
        return "x".join(map(str, self.image_size))


DATA = (
    Data("shapes", "Shapes", "RSS-Shapes-ImageReward-v0", (32, 32)),
    Data("shapes", "Shapes", "RSS-Shapes-ImageReward-v0", (64, 64)),
    Data("camvid", "Folder", "RSS-Folder-ImageReward-v0", (72, 96), folder="camvid"),
    Data("voc", "VOC", "RSS-VOC-ImageReward-v0", (112, 112), "trainaug", folder="voc"),
)


@dataclass(frozen=True)
class Training:
    """Committed runs of one agent, and what their scores were.

    Attributes:
        data: name of the data.
        image_size: as in results.
        feedback: ``"mean IoU"``, ``"pixel accuracy"``, ``"noise"`` or ``"stars"``.
        file: results file.
        rows: columns that pick the agent's runs.
        bound: columns that pick cross-entropy's.
        bound_file: results file of those, if another.
    """

    data: str
    image_size: str
    feedback: str
    file: str
    rows: dict[str, str]
    bound: dict[str, str] = field(default_factory=lambda: {"method": "cross_entropy"})
    bound_file: str = ""


def _convergence(data: str, size: str, feedback: str, file: str, method: str, samples: int) -> Training:
    same = {"dataset": data, "level": "image", "image_size": size}
    rows = same | {"method": method, "samples_per_image": str(samples)}
    bound_file = file if file in ("headline", "ablation") else "headline"
    return Training(data, size, feedback, file, rows, same | {"method": "cross_entropy"}, bound_file)


TRAININGS = (
    *(_convergence("camvid", "72x96", "mean IoU", "queries", "replay", samples) for samples in (2, 4, 8, 16)),
    _convergence("camvid", "72x96", "mean IoU", "headline", "replay", 32),
    _convergence("camvid", "72x96", "noise", "feedback", "replay_noise", 32),
    _convergence("camvid", "72x96", "stars", "feedback", "replay_stars", 32),
    _convergence("shapes", "32x32", "mean IoU", "ablation", "replay", 16),
    _convergence("shapes", "64x64", "mean IoU", "headline", "replay", 32),
    _convergence("shapes", "64x64", "pixel accuracy", "headline", "replay_accuracy", 32),
    Training(
        "voc",
        "112x112",
        "mean IoU",
        "pretrained",
        {"algorithm": "likelihood", "encoder": "fine-tuned"},
        {"algorithm": "cross-entropy", "encoder": "fine-tuned"},
        "pretrained",
    ),
)


@dataclass
class InformationArguments:
    """Measure what label maps hold and what scores can tell."""

    camvid: str | None = None
    """folder of CamVid, in the layout of Folder; left out without it"""
    voc: str | None = None
    """folder of photos in the layout of PASCAL VOC with the split trainaug; left out without it"""
    shapes: bool = True
    """whether Shapes is measured"""
    steps: int = 150
    """optimiser steps of the network that draws"""
    images: int = 64
    """images that label maps are drawn for"""
    draws: int = 128
    """label maps an image"""
    cells: tuple[int, ...] = (1, 4, 8, 16, 36)
    """sides of the cells that share one draw, in pixels; those above half of the shorter side are left out"""
    run_dir: str = "runs/information"
    """folder for the run folders"""
    out: str = str(FILE)
    """results file"""


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(InformationArguments, prog="python -m benchmarks.information")
    check_numbers(args, {"steps": 1, "images": 2, "draws": 2, "cells": 1})
    out = Path(args.out)
    check_writable(out)
    measured = []
    for data in DATA:
        root = getattr(args, data.folder) if data.folder else None
        if root is None and (data.folder or not args.shapes):
            print(f"{data.name} {data.size} is left out.")
            continue
        if root is not None:  # a missing data set is reported before the first training
            load_dataset(data.dataset, root=root, split=data.split, image_size=data.image_size)
        measured.append((data, root))
    for data, root in measured:
        rows = measure(data, root, args)
        add_rows(out, [row | provenance(torch.device("cpu")) for row in rows], KEY)
    for make in (needed_table, query_table, tasks_table):
        print(*(" | ".join(line) for line in make(out)), sep="\n", end="\n\n")


def measure(data: Data, root: str | None, args: InformationArguments) -> list[dict[str, Any]]:
    """The rows of one data set: what its label maps hold, and the spread of scores for every belief and cell."""
    folder = Path(args.run_dir) / f"{data.name}-{data.size}-{args.steps}"
    if not (folder / "checkpoints" / f"step-{args.steps:08d}").is_dir():
        train(_command(data, root, args.steps), folder, Processes())
    device = torch.device("cpu")
    network, _ = load_policy(folder, device)
    seen, held_out = (
        load_dataset(data.dataset, root=root, split=f"{data.split}[{part}]", image_size=data.image_size)
        for part in ("::2", "1::2")
    )
    holds, shares = held_bits(seen, held_out)
    images = held_out.images[:: max(1, len(held_out) // args.images)][: args.images]
    targets = _targets(held_out)[:: max(1, len(held_out) // args.images)][: args.images]
    classes = held_out.num_classes
    beliefs = {
        "shares of the classes": torch.from_numpy(np.log(shares))
        .float()
        .view(1, -1, 1, 1)
        .expand(len(targets), -1, *data.image_size),
        f"network, {args.steps} steps": torch.cat(
            [
                predict_logits(network, np.array(part), device)
                for part in np.array_split(images, math.ceil(len(images) / 16))
            ]
        ),
    }
    rows = []
    for belief, logits in beliefs.items():
        for cell in args.cells:
            if cell <= min(data.image_size) // 2:
                rows.append(
                    {"data": data.name, "image_size": data.size, "belief": belief, "cell": cell, "classes": classes}
                    | {"images": len(seen) + len(held_out)}
                    | {name: f"{value:.7g}" for name, value in holds.items()}
                    | {"belief_bits": f"{fmean(cross_entropy_bits(logits, targets)):.7g}"}
                    | spread_of(logits.contiguous(), np.array(targets), classes, args.draws, cell)
                )
    return rows


def _command(data: Data, root: str | None, steps: int) -> list[str]:
    """The training of the network that draws."""
    words = ["agents.supervised", "--env-id", data.env_id, "--image-size", *map(str, data.image_size)]
    words += ["--split", f"{data.split}[::2]", "--steps", str(steps), "--seed", "1", "--eval-every", "0"]
    return [*words, "--checkpoint-every", str(steps), *(["--root", root] if root else [])]


def _targets(data: SegmentationDataset) -> np.ndarray:
    assert data.targets is not None
    return data.targets


def held_bits(seen: SegmentationDataset, held_out: SegmentationDataset) -> tuple[dict[str, float], np.ndarray]:
    """Mean bits of a held-out label map by several descriptions, and the classes' shares on the other images."""
    classes, targets = seen.num_classes, np.array(_targets(held_out))
    shares = bits.frequencies(_targets(seen), classes)
    coded = bits.NeighbourCode(np.array(_targets(seen)), classes).bits(targets)
    holds = {
        "pixels": float((targets < classes).sum() / len(targets)),
        "marginal_bits": float(bits.marginal_bits(targets, shares).mean()),
        "deflate_bits": fmean(bits.deflate_bits(target) for target in targets),
        "neighbour_bits": float(coded.mean()),
        "neighbour_bits_error": float(coded.std(ddof=1) / math.sqrt(len(coded))),
        "size_bits": size_bits(targets, classes),
    }
    return holds, shares


def size_bits(targets: np.ndarray, classes: int) -> float:
    """Bound on what the numbers of pixels of every class tell of a target."""
    sizes = np.stack([np.bincount(target.ravel(), minlength=256)[:classes] for target in targets])
    return sum(bits.exact_visit_bits(1, v) for v in sizes.astype(float).var(axis=0))


def cross_entropy_bits(logits: torch.Tensor, targets: np.ndarray) -> list[float]:
    """Bits of each target under a belief whose pixels are independent; logits (n, C, H, W), targets uint8 (n, H, W)."""
    labels = torch.from_numpy(np.array(targets)).long()
    loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=bits.IGNORED, reduction="none")
    found: list[float] = (loss.double().sum(dim=(1, 2)) / math.log(2)).tolist()
    return found


def spread_of(logits: torch.Tensor, targets: np.ndarray, classes: int, draws: int, cell: int) -> dict[str, str]:
    """How the scores of label maps that are drawn for one image differ, and their means between images.

    Args:
        logits: (n, C, H, W).
        targets: uint8 (n, H, W).
        classes: C.
        draws: label maps an image.
        cell: side in pixels of the cells that share one draw; every image has a grid of its own.
    """
    right, scores = [], []
    generator = np.random.default_rng(0)
    for number, target in enumerate(targets):
        maps = sample_label_maps(
            logits[number : number + 1],
            draws,
            int(generator.integers(2**62)),
            temperature=TEMPERATURE,
            cell=cell,
            offset=tuple(int(each) for each in generator.integers(cell, size=2)),
        ).numpy()
        right.append(count_labels(maps, target[None], classes).intersection[0])
        scores.append(score_images("mean_iou", maps, target[None], classes)[0])
    by_class, score = np.stack(right).astype(float), np.stack(scores)  # (n, draws, C), (n, draws)
    present = np.stack([np.bincount(target.ravel(), minlength=256)[:classes] > 0 for target in targets])
    answers = [star_entropy(each) for each in np.round(score * (STARS - 1)).astype(int)]
    decoded, decoded_level = 0.0, 0.0  # of an image: classes that its target lacks have no right pixels
    for c in np.flatnonzero(present.any(axis=0)):
        v, w = within_and_between(by_class[present[:, c], :, c])
        decoded += present[:, c].mean() * bits.exact_visit_bits(1, v)
        decoded_level += present[:, c].mean() * bits.level_bits(1, v + bits.LATTICE, w)
    (count_v, count_w), (score_v, score_w) = within_and_between(by_class.sum(axis=2)), within_and_between(score)
    alike = [np.unique(each, return_counts=True)[1] for each in score]
    values = {
        "accuracy": float(by_class.sum() / draws / (targets < classes).sum()),
        "count_variance": count_v,
        "count_level": count_w,
        "score_variance": score_v,
        "score_level": score_w,
        "decoded_bits": decoded,
        "decoded_level_bits": decoded_level,
        "classes_present": float(present.sum(axis=1).mean()),
        "star_entropy": fmean(answers),
        "ties": fmean(float((n * (n - 1)).sum()) / (draws * (draws - 1)) for n in alike),
    }
    return {name: f"{value:.7g}" for name, value in values.items()}


def star_entropy(stars: np.ndarray) -> float:
    """Estimate of the entropy in bits that stars were drawn from, with Miller and Madow's correction."""
    counts = np.bincount(stars)
    return bits.entropy(counts) + (np.count_nonzero(counts) - 1) / (2 * math.log(2) * len(stars))


def within_and_between(values: np.ndarray) -> tuple[float, float]:
    """Variance of the numbers of one image, and of their expectation between images.

    Args:
        values: (n, draws), the draws of an image being independent.
    """
    within = values.var(axis=1, ddof=1).mean()
    between = values.mean(axis=1).var(ddof=1) - within / values.shape[1] if len(values) > 1 else 0.0
    return float(within), max(0.0, float(between))


# Tables ---------------------------------------------------------------------------------------------------------------


def needed_table(file: Path = FILE) -> Table:
    """What label maps hold, a line for each data set and size."""
    lines = [["data", "size", "images", "counted pixels", "classes"]]
    lines[0] += ["independent pixels", "Deflate", "neighbours", "network"]
    for rows in _by_data(file):
        row, drawn = rows[0], next(row for row in rows if row["belief"].startswith("network"))
        coded = f"{float(row['neighbour_bits']):,.0f} ± {float(row['neighbour_bits_error']):,.0f}"
        lines.append(
            [row["data"], row["image_size"], row["images"], f"{float(row['pixels']):,.0f}", row["classes"]]
            + [f"{float(row[name]):,.0f}" for name in ("marginal_bits", "deflate_bits")]
            + [coded, f"{float(drawn['belief_bits']):,.0f}"]
        )
    return lines


def query_table(file: Path = FILE, data: str = "camvid", samples: int = 32) -> Table:
    """What a query tells, by comparisons and at most, a line for each belief and cell; K samples a visit."""
    kinds = {
        "pixel accuracy": "accuracy",
        "mean IoU": "mean IoU",
        "noise": f"noise {NOISE:g}",
        "stars": f"{STARS} stars",
    }
    lines = [["drawn from", "cells", "deviation of the scores", *kinds.values(), "ties"]]
    for row in next((rows for rows in _by_data(file) if rows[0]["data"] == data), []):
        told = [[each / samples for each in visit_bits(kind, row, samples)] for kind in kinds]
        deviation, ties = math.sqrt(float(row["score_variance"])), float(row["ties"])
        cells = [f"{compared:.2g} / {at_most:.2g}" for compared, at_most in told]
        lines.append([row["belief"], row["cell"], f"{deviation:.4f}", *cells, f"{ties:.1%}"])
    return lines


def tasks_table(file: Path = FILE) -> Table:
    """What committed trainings could know of an image at most, next to what its label map holds."""
    lines = [["data", "size", "feedback", "K", "queries an image", "bits needed (pixels independent)"]]
    lines[0] += ["compared", "at most", "images' worth", "binds if compared", "binds any agent", "of CE"]
    measured = {(rows[0]["data"], rows[0]["image_size"]): rows for rows in _by_data(file)}
    for training in TRAININGS:
        rows = measured.get((training.data, training.image_size))
        if rows is None:
            continue
        runs, bounds = _final(training.file, training.rows), _final(training.bound_file, training.bound)
        share = fmean(float(run["val_miou"]) for run in runs) / fmean(float(run["val_miou"]) for run in bounds)
        samples = int(runs[0]["samples_per_image"])
        visits = int(runs[0]["reward_queries"]) / samples / int(rows[0]["images"])
        needed, told = held(rows), told_bits(training.feedback, rows, visits, samples)
        line = [training.data, training.image_size, training.feedback, str(samples), f"{visits * samples:.0f}"]
        independent = min(float(row["belief_bits"]) for row in rows)
        line += [f"{needed:,.0f} ({independent:,.0f})", *(f"{each:,.0f}" for each in told)]
        line.append(f"{int(rows[0]['images']) * min(1.0, told[0] / needed):,.0f}")
        lines.append([*line, *(what_binds(needed, each) for each in told), f"{share:.0%}"])
    return lines


def held(rows: Sequence[Row]) -> float:
    """Bits of the shortest description of a label map that was found."""
    return min(float(row[name]) for row in rows for name in ("belief_bits", "neighbour_bits", "deflate_bits"))


def told_bits(feedback: str, rows: Iterable[Row], visits: float, samples: int) -> tuple[float, float]:
    """What all visits of an image tell, by comparisons only and at most.

    That of the belief, and with imperfect scores of the cells, that tell most.
    """
    drawn = [row for row in rows if row["cell"] == "1" or feedback in ("noise", "stars")]
    once = float(drawn[0]["size_bits"]) if feedback == "mean IoU" else 0.0
    compared, at_most = (max(each) for each in zip(*(visit_bits(feedback, row, samples) for row in drawn), strict=True))
    return visits * compared, once + visits * at_most


def visit_bits(feedback: str, row: Row, samples: int) -> tuple[float, float]:
    """What one visit tells of an image whose scores are spread as in a row of the results.

    Args:
        feedback: see ``Training``.
        row: of the results.
        samples: K.

    Returns:
        What the differences between its scores tell, a mean IoU taken for one count of right pixels; and a bound on
        what the scores tell at all. For that a mean IoU is decoded: given the target's sizes of classes and the label
        map, it follows from the right pixels of every class.
    """
    score, level = float(row["score_variance"]), float(row["score_level"])
    if feedback == "noise":
        return bits.noisy_comparison_bits(samples, score, NOISE), bits.noisy_visit_bits(samples, score, NOISE, level)
    if feedback == "stars":
        star = float(row["star_entropy"])
        return samples * star, bits.answers_visit_bits(samples, star, STARS)
    count = float(row["count_variance"])
    compared = bits.exact_comparison_bits(samples, count)
    if feedback == "pixel accuracy":
        return compared, bits.exact_visit_bits(samples, count, float(row["count_level"]))
    offset = float(row["classes_present"]) * math.log2(samples) / 2  # 1 + K·x ≤ K·(1 + x)
    return compared, samples * float(row["decoded_bits"]) + float(row["decoded_level_bits"]) + offset


def what_binds(needed: float, told: float) -> str:
    """What a training lacks, by the bits that a label map holds and those that its scores tell at most.

    Information where they are fewer, inference or optimisation where they are more than three times as many, else
    visits.
    """
    if told < needed:
        return "information"
    return "inference or optimisation" if told > 3 * needed else "visits"


def _final(file: str, columns: dict[str, str]) -> list[Row]:
    """The last rows of the runs that have these columns."""
    rows = read_rows(RESULTS / f"{file}.csv", columns)
    found = [row for row in rows if all(row[name] == value for name, value in columns.items())]
    return [row for row in found if row.get("step", row["steps"]) == row["steps"]]


def _by_data(file: Path) -> list[list[Row]]:
    """The rows of each data set and size, in the order of ``DATA``."""
    rows = results_of(file, "benchmarks.information", KEY)
    groups = [[row for row in rows if (row["data"], row["image_size"]) == (each.name, each.size)] for each in DATA]
    return [group for group in groups if group]


if __name__ == "__main__":
    run_command(main)
