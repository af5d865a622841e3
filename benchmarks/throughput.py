"""How fast the vector environment is, against Gymnasium's SyncVectorEnv of the same environment and against the floor.

    python -m benchmarks.throughput

The floor is the work no implementation can leave out: one copy of the observations and one pass over the label maps.
The contenders take turns within one run, and each number is the median over the rounds; only their ratios mean
something on a busy machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from gymnasium.vector import AutoresetMode

import rss_env  # noqa: F401  (registers the ids)
from agents.arguments import run_command
from benchmarks.results_file import RESULTS, provenance, write_rows

ENV_ID = "RSS-Shapes-ImageReward-v0"


@dataclass
class ThroughputArguments:
    """Measure episodes per second of the vector environment."""

    num_envs: int = 64
    """environments stepped at once"""
    image_size: tuple[int, int] = (64, 64)
    """height and width of the images in pixels"""
    reward: str = "mean_iou"
    """reward to compute"""
    rounds: int = 15
    """rounds, in each of which every contender takes its turn"""
    steps: int = 10
    """steps a turn"""
    out: str = str(RESULTS / "throughput.csv")
    """results file"""


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(ThroughputArguments, prog="python -m benchmarks.throughput")
    options: dict[str, Any] = {"image_size": args.image_size, "reward": args.reward}
    native = gym.make_vec(ENV_ID, args.num_envs, **options)
    sync = gym.make_vec(
        ENV_ID,
        args.num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **options,
    )
    native.action_space.seed(0)
    actions = native.action_space.sample()  # int64, as an agent that samples from the space would give them
    small = actions.astype(np.uint8)  # as an agent that cares for memory would
    observations, _ = native.reset(seed=0)
    sync.reset(seed=0)

    def floor(label_maps: np.ndarray) -> None:
        observations.copy()
        label_maps.max()

    contenders: dict[str, Callable[[], Any]] = {
        "floor, int64 label maps": lambda: floor(actions),
        "SegmentationVectorEnv, int64 label maps": lambda: native.step(actions),
        "floor, uint8 label maps": lambda: floor(small),
        "SegmentationVectorEnv, uint8 label maps": lambda: native.step(small),
        "SyncVectorEnv, int64 label maps": lambda: sync.step(actions),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(args.rounds):
        for name, step in contenders.items():
            step()  # warm the caches that the others cooled
            began = time.perf_counter()
            for _ in range(args.steps):
                step()
            seconds[name].append((time.perf_counter() - began) / args.steps)
    median = {name: statistics.median(values) for name, values in seconds.items()}

    height, width = args.image_size
    print(f"{ENV_ID}, {args.num_envs} environments, {height}×{width}, {args.reward}\n")
    print(f"{'':<42}{'ms a step':>10}{'episodes/s':>12}{'of its floor':>14}{'of Sync':>9}")
    rows = []
    for name, value in median.items():
        floor_name = "floor, " + name.split(", ")[1]
        row = {
            "contender": name,
            "num_envs": args.num_envs,
            "image_size": f"{height}x{width}",
            "reward": args.reward,
            "ms_per_step": round(value * 1e3, 4),
            "episodes_per_second": round(args.num_envs / value),
            "times_floor": round(value / median[floor_name], 2),
            "speedup_over_sync": round(median["SyncVectorEnv, int64 label maps"] / value, 2),
        }
        rows.append(row | provenance())
        print(
            f"{name:<42}{row['ms_per_step']:>10.3f}{row['episodes_per_second']:>12,}"
            f"{row['times_floor']:>13.1f}×{row['speedup_over_sync']:>8.1f}×"
        )
    write_rows(Path(args.out), rows)


if __name__ == "__main__":
    run_command(main)
