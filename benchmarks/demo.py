"""The demo: learn to segment geometric figures from one number per label map, in about four minutes on two CPU cores.

    python -m benchmarks.demo

Trains ``agents.likelihood`` and, on the same network, images and number of steps, the cross-entropy upper bound; prints
a table of data-set mIoU on held-out images, and writes ``demo.png`` (images, targets, the agent's label maps) and
``summary.json``.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from PIL import Image

from agents.errors import RunFolderError
from agents.likelihood import Likelihood
from agents.networks.checkpoints import load_policy, predict_label_maps
from agents.supervised import Supervised
from agents.training.arguments import check_numbers, choose_device
from agents.training.command import run_command
from agents.training.loop import train
from benchmarks.picture_grid import draw_picture_grid
from rss_env.evaluation import evaluate
from rss_env.rendering import colourise

ENV_ID = "RSS-Shapes-ImageReward-v0"


@dataclass
class DemoArguments:
    """Learn to segment geometric figures from one number per label map."""

    steps: int = 500
    """optimiser steps of both agents"""
    image_size: tuple[int, int] = (48, 48)
    """height and width of the images in pixels"""
    difficulty: str = "easy"
    """difficulty of the Shapes data set"""
    batch_size: int = 16
    """images a step"""
    samples_per_image: int = 32
    """label maps scored for each image"""
    seed: int = 1
    """seed of everything"""
    run_dir: str = "runs/demo"
    """folder for the results; replaces those of an earlier demo"""
    pictures: int = 8
    """images in the picture"""
    progress: bool = True
    """show progress bars"""


def main() -> int:
    """Runs the command line."""
    args = tyro.cli(DemoArguments, prog="python -m benchmarks.demo")
    check_numbers(args, {"steps": 1, "batch_size": 1, "samples_per_image": 2, "seed": 0, "pictures": 1})
    began = time.perf_counter()
    folder = Path(args.run_dir)
    try:
        for name in ("rss", "supervised"):
            shutil.rmtree(folder / name, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"Cannot write the run folder {folder}: {error}.") from error
    shared: dict[str, Any] = {
        "image_size": args.image_size,
        "env_kwargs": {"difficulty": args.difficulty},
        "steps": args.steps,
        "batch_size": args.batch_size,
        "seed": args.seed,
        "eval_every": max(1, args.steps // 6),
        "progress": args.progress,
    }

    print(f"{ENV_ID}, {args.image_size[0]}×{args.image_size[1]} pixels, 5 classes, {args.steps} steps each")
    print(f"\nAgent: {args.samples_per_image} label maps an image, one score each")
    agent = Likelihood(samples_per_image=args.samples_per_image)
    rss = train(ENV_ID, agent, run_dir=str(folder / "rss"), **shared)
    if not rss.finished:
        return stopped()
    print("\nUpper bound: cross-entropy on the hidden targets")
    supervised = train(ENV_ID, Supervised(), run_dir=str(folder / "supervised"), **shared)
    if not supervised.finished:
        return stopped()

    assert rss.evaluation is not None
    assert supervised.evaluation is not None
    options: dict[str, Any] = {"image_size": args.image_size, "difficulty": args.difficulty}
    rng = np.random.default_rng(args.seed)
    classes = len(rss.evaluation.per_class_iou)
    random = evaluate(lambda x: rng.integers(0, classes, x.shape[:3]), ENV_ID, **options)
    background = evaluate(lambda x: np.zeros(x.shape[:3], np.uint8), ENV_ID, **options)
    summary = {
        "random": random.miou,
        "background": background.miou,
        "rss": rss.evaluation.miou,
        "supervised": supervised.evaluation.miou,
        "seconds": round(time.perf_counter() - began, 1),
        "reward_queries": rss.reward_queries,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    draw_picture(rss.checkpoint, args, options).save(folder / "demo.png")

    labels = {
        "random": "random label maps",
        "background": "all background",
        "rss": "agent, one number per label map",
        "supervised": "cross-entropy on pixel labels",
    }
    print(f"\n{'held-out images':<34} mIoU")
    for name, label in labels.items():
        print(f"{label:<34} {summary[name]:.3f}")
    print(f"\n{rss.reward_queries:,} reward queries, {summary['seconds']:.0f} s")
    print(f"images, targets, label maps: {folder / 'demo.png'}")
    return 0


def stopped() -> int:
    """Says what an interrupted demo leaves; returns the exit code of Ctrl-C."""
    print("\nStopped before the end: no summary and no picture were written. The next demo starts from the beginning.")
    return 130


def draw_picture(checkpoint: Path, args: DemoArguments, options: dict[str, Any]) -> Image.Image:
    """A grid of held-out images, their targets and the agent's label maps."""
    device = choose_device("cpu")
    policy, _ = load_policy(checkpoint, device)
    envs = gym.make_vec(ENV_ID, args.pictures, split="val", order="sequential", expose_target=True, **options)
    images, infos = envs.reset(seed=0)
    palette = np.array(envs.metadata["palette"], np.uint8)
    label_maps = predict_label_maps(policy, images, device)
    shown = {"image": images, "target": colourise(infos["target"], palette), "agent": colourise(label_maps, palette)}
    return draw_picture_grid(shown, side=160)


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    run_command(main)
