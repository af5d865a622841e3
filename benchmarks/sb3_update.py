"""One PPO update of Stable-Baselines3: its own policy against the dense one, and what an image-wide ratio does.

    python -m benchmarks.sb3_update

For every image size: seconds of one update (SB3's ``train``: one epoch over all label maps in one minibatch) with SB3's
own policy on the flat MultiDiscrete and with ``agents.sb3_policy.DensePolicy``; and, for the dense policy, with a ratio
of the whole label map and with one a pixel, clip fraction and approximate KL divergence of the second of two epochs,
when the policy has moved by one step at the same learning rate.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from stable_baselines3 import PPO

from agents.arguments import run_command
from agents.sb3_policy import DensePolicy, PixelRolloutBuffer
from benchmarks.results_file import RESULTS, provenance, write_rows
from rss_env.integrations.sb3 import SegmentationVecEnv


@dataclass
class UpdateArguments:
    """Measure one PPO update."""

    sides: tuple[int, ...] = (16, 32, 64)
    """sides of the square images in pixels; SB3's CnnPolicy takes them from 36 on, below it is its MlpPolicy"""
    num_envs: int = 16
    """label maps of an update"""
    repeats: int = 5
    """updates timed; the median counts"""
    learning_rate: float = 3e-4
    """of Adam"""
    out: str = str(RESULTS / "sb3_update.csv")
    """results file"""


def make_model(args: UpdateArguments, side: int, policy: str, epochs: int, learning_rate: float) -> PPO:
    """PPO with one minibatch an epoch; ``policy`` is stock, image or pixel."""
    torch.manual_seed(0)
    envs = SegmentationVecEnv("RSS-Shapes-ImageReward-v0", args.num_envs, image_size=(side, side))
    options: dict[str, Any] = {"policy": "MlpPolicy"}
    if policy != "stock":
        options = {"policy": DensePolicy, "policy_kwargs": {"pixel_ratio": policy == "pixel"}}
    elif side >= 36:
        options = {"policy": "CnnPolicy"}
    if policy == "pixel":
        options["rollout_buffer_class"] = PixelRolloutBuffer
    return PPO(
        env=envs,
        n_steps=1,
        batch_size=args.num_envs,
        n_epochs=epochs,
        learning_rate=learning_rate,
        seed=0,
        **options,
    )


def update_seconds(args: UpdateArguments, side: int, policy: str) -> float:
    """Median seconds of ``train`` with one epoch."""
    model = make_model(args, side, policy, epochs=1, learning_rate=0.0)  # the same update again and again
    model.learn(args.num_envs)  # fills the buffer, and warms up
    times = []
    for _ in range(args.repeats):
        began = time.perf_counter()
        model.train()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def drift(args: UpdateArguments, side: int, policy: str) -> tuple[float, float]:
    """Clip fraction and approximate KL divergence of the second epoch."""
    model = make_model(args, side, policy, epochs=2, learning_rate=args.learning_rate)
    model.learn(args.num_envs)
    logged = model.logger.name_to_value
    # The first epoch's are 0; SB3 logs the mean over both for the clip fraction and the last epoch's for the KL.
    return 2 * logged["train/clip_fraction"], logged["train/approx_kl"]


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(UpdateArguments, prog="python -m benchmarks.sb3_update")
    rows = []
    for side in args.sides:
        stock, dense = (update_seconds(args, side, policy) for policy in ("stock", "image"))
        (image_clip, image_kl), (pixel_clip, pixel_kl) = (drift(args, side, policy) for policy in ("image", "pixel"))
        rows.append(
            {
                "pixels": side * side,
                "label_maps": args.num_envs,
                "stock_policy": "CnnPolicy" if side >= 36 else "MlpPolicy",
                "stock_seconds": round(stock, 4),
                "dense_seconds": round(dense, 4),
                "speedup": round(stock / dense, 2),
                "image_ratio_clip_fraction": round(image_clip, 4),
                "image_ratio_approx_kl": round(image_kl, 5),
                "pixel_ratio_clip_fraction": round(pixel_clip, 6),
                "pixel_ratio_approx_kl": round(pixel_kl, 7),
                **provenance(),
            }
        )
        print(
            f"{side * side:>6} pixels: stock {1e3 * stock:8.1f} ms, dense {1e3 * dense:8.1f} ms, {stock / dense:5.1f}×;"
            f" clipped {image_clip:.0%} (whole label map) {pixel_clip:.2%} (pixel);"
            f" approx. KL {image_kl:.3g}, {pixel_kl:.3g}"
        )
    write_rows(Path(args.out), rows)


if __name__ == "__main__":
    run_command(main)
