"""Where the time of one step of the vector environment goes.

    python -m benchmarks.throughput_stages

Each stage is timed inside real steps, so with the caches as a step leaves them; the clock itself costs about 0.1 µs a
stage. The floors (``benchmarks.speed.floors``) are measured between the steps, in the same state.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
import tyro

import rss_env.task
from agents.training.arguments import check_numbers
from agents.training.command import run_command
from benchmarks.results_file import RESULTS, Table, add_rows, check_writable, provenance, read_last_device
from benchmarks.speed.floors import floors

STAGES = {
    "check_label_maps": "check of the label maps, to uint8",
    "count_labels": "count of intersections and predictions",
    "image_score": "mean IoU from the counts",
    "draw": "which images come next",
    "final_images": "views of the final observations",
    "images": "gather of the next observations",
}
KEY = ("stage", "num_envs", "image_size", "label_maps", "device")


@dataclass
class StageArguments:
    """Time the stages of a step of the vector environment."""

    num_envs: int = 64
    """environments stepped at once"""
    image_size: int = 64
    """height and width of the square images in pixels"""
    steps: int = 2000
    """steps to time"""
    out: str = str(RESULTS / "throughput_stages.csv")
    """results file"""


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(StageArguments, prog="python -m benchmarks.throughput_stages")
    check_numbers(args, {"num_envs": 1, "image_size": 1, "steps": 1})
    check_writable(Path(args.out))
    size = (args.image_size, args.image_size)
    envs = gym.make_vec("RSS-Shapes-ImageReward-v0", args.num_envs, image_size=size)
    base: Any = envs.unwrapped
    images = base._task.dataset.images
    observations, _ = envs.reset(seed=0)
    envs.action_space.seed(0)
    actions = envs.action_space.sample()
    rows: list[dict[str, Any]] = []
    for dtype in ("int64", "uint8"):
        label_maps = actions.astype(dtype)
        least = floors(images, observations, label_maps)
        for _ in range(100):
            envs.step(label_maps)
        times: dict[str, list[float]] = defaultdict(list)
        for step in range(args.steps):
            _add(times["whole step"], lambda: envs.step(label_maps))  # noqa: B023
            if step % 4 == 0:
                for name, floor in least.items():
                    _add(times[name], floor)
        with _Clock(base) as clock:
            for _ in range(args.steps):
                envs.step(label_maps)
        micro = {name: statistics.median(values) * 1e6 for name, values in times.items()}
        stages = {title: statistics.median(clock.times[name]) * 1e6 for name, title in STAGES.items()}
        rest = {"everything else": micro["whole step"] - sum(stages.values())}
        for name, value in (stages | rest | micro).items():
            share = value / micro["whole step"]
            shape = {"num_envs": args.num_envs, "image_size": args.image_size, "label_maps": dtype}
            rows.append({"stage": name, **shape, "microseconds": round(value, 1), "share": round(share, 3)})
            print(f"{dtype:<8}{name:<42}{value:>9.1f} µs{share:>7.0%}")
    measured = provenance(torch.device("cpu"))
    add_rows(Path(args.out), [row | measured for row in rows], KEY)


def _add(times: list[float], work: Callable[[], Any]) -> None:
    began = time.perf_counter()
    work()
    times.append(time.perf_counter() - began)


class _Clock:
    """Times the functions that a step calls while it is open."""

    def __init__(self, base: Any) -> None:
        self.times: dict[str, list[float]] = defaultdict(list)
        task = base._task
        self.places = [(task, name) for name in ("check_label_maps", "final_images", "images")]
        self.places += [(rss_env.task, "count_labels"), (base._stream, "draw")]
        self.reward_holder = task

    def __enter__(self) -> _Clock:
        self.before = [(place, name, getattr(place, name)) for place, name in self.places]
        for place, name, function in self.before:
            setattr(place, name, self._timed(name, function))
        self.reward = self.reward_holder.reward
        timed = self._timed("image_score", self.reward.formula)
        self.reward_holder.reward = dataclasses.replace(self.reward, formula=timed)
        return self

    def __exit__(self, *_: object) -> None:
        for place, name, function in self.before:
            setattr(place, name, function)
        self.reward_holder.reward = self.reward

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = function(*args, **kwargs)
            self.times[name].append(time.perf_counter() - began)
            return result

        return call


def stages_table() -> Table:
    """Microseconds of each stage of a step, by the dtype of the label maps."""
    rows = read_last_device(RESULTS / "throughput_stages.csv")
    dtypes = list(dict.fromkeys(row["label_maps"] for row in rows))
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        cells[row["stage"]][row["label_maps"]] = f"{float(row['microseconds']):.0f} ({float(row['share']):.0%})"
    return [["µs a step", *dtypes], *([stage, *(times[d] for d in dtypes)] for stage, times in cells.items())]


if __name__ == "__main__":
    run_command(main)
