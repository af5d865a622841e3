"""Learning from scores whose formula the agent does not know.

    python -m benchmarks.unknown_formula --camvid ../shared/data/camvid
    python -m benchmarks.unknown_formula --camvid ../shared/data/camvid --device cuda --parallel 8

``agents.likelihood``, in regions or pixel by pixel, gets each score of ``benchmarks.opaque_scores`` as a function of
which it knows nothing. Compared with the same agent that gets the score by its name, so knows the formula (a rating:
five stars of the mean IoU; the boundary F1, of which no formula is known, and the cubed mean IoU: the mean IoU): mIoU
of the final policy on the validation split, and the score itself there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import numpy as np
import torch
import tyro

from agents.networks.checkpoints import load_policy, predict_label_maps
from agents.training.arguments import check_numbers
from agents.training.command import run_command
from benchmarks import opaque_scores
from benchmarks.comparison import Case, run_cases
from benchmarks.convergence.suites import PIXELS
from benchmarks.results_file import RESULTS, Table, read_rows
from rss_env.errors import OptionError
from rss_env.evaluation import evaluate

AGENTS = {"regions": "agents.likelihood", "pixels": PIXELS}
REFERENCES = {  # agents that know the formula: flags, and the scores that they are the reference of
    "mean_iou by name": ([], ("mean_iou", "cubed_mean_iou", "boundary_f1")),
    "weighted_mean_iou by name": (["--reward-options", "WEIGHTS"], ("weighted_mean_iou",)),
    "five stars of mean_iou by name": (["--wrap", "stars:5"], ("rating",)),
}
SCORES = ("mean_iou", "weighted_mean_iou", "cubed_mean_iou", "rating", "boundary_f1")
CLASSES = {"shapes": 5, "camvid": 11}


@dataclass
class UnknownFormulaArguments:
    """Compare scores of unknown formula with one whose formula the agent knows."""

    camvid: str | None = None
    """folder of CamVid, with images/, masks/, splits/ and classes.json"""
    datasets: tuple[Literal["shapes", "camvid"], ...] = ("shapes", "camvid")
    """data sets to run on"""
    agents: tuple[Literal["regions", "pixels"], ...] = ("regions",)
    """whether pixels of similar colour share what scores say, or every pixel is judged by itself"""
    seeds: tuple[int, ...] = (1, 2, 3)
    """seeds to run"""
    samples_per_image: int = 32
    """label maps an image (K)"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where it runs"""
    parallel: int = 2
    """runs at once"""
    run_dir: str = "runs/unknown_formula"
    """folder for the run folders"""
    out: str = str(RESULTS / "unknown_formula.csv")
    """results file"""


def environment(dataset: str, camvid: str | None) -> tuple[str, dict[str, Any], int]:
    """Id and arguments of the environment, and the steps that it is trained for."""
    if dataset == "shapes":
        return "RSS-Shapes-ImageReward-v0", {"image_size": (32, 32)}, 600
    if camvid is None:
        raise OptionError("Give the folder of CamVid with --camvid.")
    return "RSS-Folder-ImageReward-v0", {"root": camvid, "image_size": (72, 96)}, 1000


def cases(args: UnknownFormulaArguments) -> list[Case]:
    """The runs: agent × data set × score × seed, with the known formulas first."""
    made = []
    for seed in args.seeds:
        for dataset in args.datasets:
            env_id, options, steps = environment(dataset, args.camvid)
            for agent, score in product(args.agents, (*REFERENCES, *SCORES)):
                words = [*AGENTS[agent].split(), "--env-id", env_id]
                words += ["--samples-per-image", str(args.samples_per_image)]
                words += ["--image-size", *map(str, options["image_size"]), "--steps", str(steps), "--seed", str(seed)]
                words += ["--root", options["root"]] if "root" in options else []
                words += ["--eval-every", "0", "--checkpoint-every", str(steps), "--device", args.device]
                if score in SCORES:
                    words += ["--reward", f"benchmarks.opaque_scores:{score}"]
                    words += ["--reward-options", json.dumps({"num_classes": CLASSES[dataset]})]
                else:
                    weights = json.dumps({"class_weights": opaque_scores.WEIGHTS[: CLASSES[dataset]]})
                    words += [weights if word == "WEIGHTS" else word for word in REFERENCES[score][0]]
                columns = {
                    "agent": agent,
                    "dataset": dataset,
                    "score": score,
                    "samples_per_image": str(args.samples_per_image),
                }
                made.append(Case(columns | {"steps": str(steps), "seed": str(seed)}, words))
    return made


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(UnknownFormulaArguments, prog="python -m benchmarks.unknown_formula")
    check_numbers(args, {"samples_per_image": 2, "parallel": 1, "seeds": 0})

    def measure(case: Case, folder: Path) -> dict[str, Any]:
        """MIoU of the policy, and its mean score by every formula."""
        network, _ = load_policy(folder, torch.device("cpu"))
        dataset = case.columns["dataset"]
        env_id, options, _ = environment(dataset, args.camvid)

        def predict(images: np.ndarray) -> np.ndarray:
            return predict_label_maps(network, images, torch.device("cpu"))

        row: dict[str, Any] = {}
        for name in SCORES:
            judged = {"reward": getattr(opaque_scores, name), "reward_options": {"num_classes": CLASSES[dataset]}}
            result = evaluate(predict, env_id, score=True, **options, **judged)
            row["val_miou"] = round(result.metrics["miou"], 5)
            row[f"val_{name}"] = round(result.metrics["score"], 5)
        return row

    run_cases(cases(args), Path(args.out), Path(args.run_dir), args.parallel, measure)
    for line in unknown_formula_table(Path(args.out)):
        print("  ".join(f"{cell:>20}" for cell in line))


def unknown_formula_table(file: Path = RESULTS / "unknown_formula.csv") -> Table:
    """MIoU and the score itself, each as a share of what the agent that knows the formula reaches."""
    groups: dict[tuple[str, str, str], list[dict[str, str]]] = defaultdict(list)
    for row in read_rows(file, ["agent", "dataset", "score"]):
        groups[row["agent"], row["dataset"], row["score"]].append(row)
    lines = [["agent", "data", "score", "seeds", "mIoU", "of the known", "the score itself", "of the known"]]
    for (agent, dataset, score), rows in sorted(groups.items(), key=lambda it: (*it[0][:2], it[0][2] in SCORES)):
        miou = [float(row["val_miou"]) for row in rows]
        cells = [
            agent,
            dataset,
            score.replace("_", " "),
            str(len(rows)),
            f"{mean(miou):.3f} ({min(miou):.3f}–{max(miou):.3f})",
        ]
        reference = [name for name, (_, scores) in REFERENCES.items() if score in scores]
        known = groups[agent, dataset, reference[0]] if reference else []
        if score not in SCORES or not known:
            lines.append([*cells, "", "", ""])
            continue
        bound = mean(float(row["val_miou"]) for row in known)
        own, its = (mean(float(row[f"val_{score}"]) for row in of) for of in (rows, known))
        least = 1.0 if score == "rating" else 0.0
        share = (own - least) / (its - least)
        lines.append([*cells, f"{mean(miou) / bound:.0%}", f"{own:.3f}", f"{share:.0%}"])
    return lines


if __name__ == "__main__":
    run_command(main)
