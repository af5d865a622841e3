"""One PPO update of Stable-Baselines3: its own policy against the dense one, and what an image-wide ratio does.

    python -m benchmarks.sb3_update

For every image size: seconds of one update (SB3's ``train``: one epoch over all label maps in one minibatch) with SB3's
own policy on the flat MultiDiscrete, with ``agents.networks.sb3_policy.DensePolicy``, and of only its network,
forward and backward, which no update can beat. For the dense policy, with a ratio of the whole label map and with one a
pixel: clip fraction and approximate KL divergence of the second of two epochs, when the policy has moved by one step.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from stable_baselines3 import PPO

from agents.networks.sb3_policy import DensePolicy, PixelRolloutBuffer
from agents.training.arguments import check_numbers
from agents.training.command import run_command
from benchmarks.results_file import RESULTS, Table, add_rows, check_writable, provenance, read_last_device
from benchmarks.speed.timing import median_seconds
from rss_env.integrations.sb3 import SegmentationVecEnv

KEY = ("pixels", "label_maps", "device")


@dataclass
class UpdateArguments:
    """Measure one PPO update."""

    sides: tuple[int, ...] = (16, 32, 64)
    """sides of the square images in pixels; SB3's CnnPolicy takes them from 36 on, below it is its MlpPolicy"""
    label_maps: tuple[int, ...] = (4, 8, 16)
    """label maps of an update"""
    repeats: int = 5
    """updates timed; the median counts"""
    learning_rate: float = 3e-4
    """of Adam"""
    out: str = str(RESULTS / "sb3_update.csv")
    """results file"""


def make_model(side: int, label_maps: int, policy: str, epochs: int, learning_rate: float) -> PPO:
    """PPO with one minibatch an epoch; ``policy`` is stock, image or pixel."""
    torch.manual_seed(0)
    envs = SegmentationVecEnv("RSS-Shapes-ImageReward-v0", label_maps, image_size=(side, side))
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
        batch_size=label_maps,
        n_epochs=epochs,
        learning_rate=learning_rate,
        seed=0,
        **options,
    )


def update_seconds(args: UpdateArguments, side: int, label_maps: int, policy: str) -> float:
    """Median seconds of ``train`` with one epoch."""
    model = make_model(side, label_maps, policy, epochs=1, learning_rate=0.0)  # the same update again and again
    model.learn(label_maps)  # fills the buffer
    return median_seconds(model.train, args.repeats)


def network_seconds(args: UpdateArguments, side: int, label_maps: int) -> float:
    """Median seconds of the dense policy's network, forward and backward."""
    policy = make_model(side, label_maps, "image", epochs=1, learning_rate=0.0).policy
    assert isinstance(policy, DensePolicy)
    network = policy.network
    images = torch.zeros((label_maps, side, side, 3), dtype=torch.uint8)
    return median_seconds(lambda: network(images).sum().backward(), args.repeats)


def drift(args: UpdateArguments, side: int, label_maps: int, policy: str) -> tuple[float, float]:
    """Clip fraction and approximate KL divergence of the second epoch."""
    model = make_model(side, label_maps, policy, epochs=2, learning_rate=args.learning_rate)
    model.learn(label_maps)
    logged = model.logger.name_to_value
    # The first epoch's are 0; SB3 logs the mean over both for the clip fraction and the last epoch's for the KL.
    return 2 * logged["train/clip_fraction"], logged["train/approx_kl"]


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(UpdateArguments, prog="python -m benchmarks.sb3_update")
    check_numbers(args, {"sides": 1, "label_maps": 1, "repeats": 1}, ["learning_rate"])
    check_writable(Path(args.out))
    rows = []
    for side, label_maps in itertools.product(args.sides, args.label_maps):
        size = side, label_maps
        stock, dense = (update_seconds(args, *size, policy) for policy in ("stock", "image"))
        network = network_seconds(args, *size)
        (image_clip, image_kl), (pixel_clip, pixel_kl) = (drift(args, *size, policy) for policy in ("image", "pixel"))
        rows.append(
            {
                "pixels": side * side,
                "label_maps": label_maps,
                "stock_policy": "CnnPolicy" if side >= 36 else "MlpPolicy",
                "stock_seconds": round(stock, 4),
                "dense_seconds": round(dense, 4),
                "network_seconds": round(network, 4),
                "speedup": round(stock / dense, 2),
                "image_ratio_clip_fraction": round(image_clip, 4),
                "image_ratio_approx_kl": round(image_kl, 5),
                "pixel_ratio_clip_fraction": round(pixel_clip, 6),
                "pixel_ratio_approx_kl": round(pixel_kl, 7),
                **provenance(),
            }
        )
        print(
            f"{side * side:>6} pixels, {label_maps:>2} label maps: stock {1e3 * stock:8.1f} ms,"
            f" dense {1e3 * dense:8.1f} ms (only its network {1e3 * network:.1f} ms), {stock / dense:5.1f}×;"
            f" clipped {image_clip:.0%} (whole label map) {pixel_clip:.1%} (pixel);"
            f" approx. KL {image_kl:.3g}, {pixel_kl:.3g}"
        )
    add_rows(Path(args.out), rows, KEY)


def update_table() -> Table:
    """Time of a PPO update and what the ratio does, by the number of pixels."""
    lines = [
        [
            "pixels",
            "label maps",
            "stock, ms",
            "dense, ms",
            "its network, ms",
            "faster",
            "clipped, image ratio",
            "clipped, pixel ratio",
            "KL, image ratio",
            "KL, pixel ratio",
        ]
    ]
    for row in read_last_device(RESULTS / "sb3_update.csv"):
        times = [f"{1e3 * float(row[name]):,.0f}" for name in ("stock_seconds", "dense_seconds", "network_seconds")]
        clipped = [f"{float(row[f'{kind}_ratio_clip_fraction']):.1%}" for kind in ("image", "pixel")]
        divergence = [f"{float(row[f'{kind}_ratio_approx_kl']):.2g}" for kind in ("image", "pixel")]
        size = [f"{int(row['pixels']):,}", row["label_maps"]]
        lines.append([*size, *times, f"{float(row['speedup']):.1f}×", *clipped, *divergence])
    return lines


if __name__ == "__main__":
    run_command(main)
