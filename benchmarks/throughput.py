"""How fast the vector environments are, against Gymnasium's Sync- and AsyncVectorEnv and against the floor.

    python -m benchmarks.throughput

The *floor* is the work that no implementation can leave out: one copy of the observations and one pass over the label
maps. It is measured twice: with observations that are in the cache of the processor already (*floor*), and read from
the data set in the order of random episodes (*gather floor*), which is where they come from. The contenders take turns
within one run, and each number is the median over the rounds; on a busy machine only their ratios mean something.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode, VectorEnv

from agents.training.arguments import check_numbers
from agents.training.command import run_command
from benchmarks.results_file import RESULTS, Table, add_rows, check_writable, provenance, read_last_device
from benchmarks.speed.floors import floors
from benchmarks.speed.throughput_plot import plot
from rss_env.datasets import load_dataset
from rss_env.errors import OptionError

KEY = ("contender", "level", "image_size", "num_envs", "device")
MAX_PROCESSES = 64
"""AsyncVectorEnv starts one process an environment; with more processes than this only the machine is measured."""


@dataclass
class ThroughputArguments:
    """Measure episodes per second of the vector environments."""

    num_envs: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    """environments stepped at once"""
    image_size: tuple[int, ...] = (64, 128, 256)
    """height and width of the square images in pixels"""
    levels: tuple[Literal["image", "pixel"], ...] = ("image", "pixel")
    """reward levels: image (mean IoU) and pixel (pixel accuracy)"""
    rounds: int = 9
    """rounds, in each of which every contender takes its turn"""
    turn_ms: float = 20.0
    """shortest duration of a turn in milliseconds"""
    limit_s: float = 6.0
    """after this many seconds on one size and number of environments no further round begins"""
    memory: bool = True
    """also measure memory, in fresh processes"""
    out: str = str(RESULTS / "throughput.csv")
    """results file; the plot goes next to it"""


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(ThroughputArguments, prog="python -m benchmarks.throughput")
    check_numbers(args, {"num_envs": 1, "image_size": 1, "rounds": 1}, ("turn_ms", "limit_s"))
    if not args.levels:
        raise OptionError("--levels needs one of image and pixel.")
    check_writable(Path(args.out))
    rows: list[dict[str, Any]] = []
    for level, side, num_envs in itertools.product(args.levels, args.image_size, args.num_envs):
        print(f"\n{level} level, {side}×{side}, {num_envs} environments")
        print(f"{'':<42}{'ms a step':>10}{'episodes/s':>12}{'× floor':>9}{'× gather':>9}{'× Sync':>8}")
        with _contenders(level, side, num_envs) as contenders:
            medians = _measure(contenders, args)
        for name, seconds in medians.items():
            row = {
                "contender": name,
                "level": level,
                "image_size": side,
                "num_envs": num_envs,
                "ms_per_step": round(seconds * 1e3, 4),
                "episodes_per_second": round(num_envs / seconds),
                "ns_per_pixel": round(seconds * 1e9 / (num_envs * side * side), 4),
                "times_floor": round(seconds / medians["floor"], 2),
                "times_gather_floor": round(seconds / medians["gather floor"], 2),
                "speedup_over_sync": round(medians["SyncVectorEnv"] / seconds, 2),
                "kib_per_env": "",
            }
            rows.append(row)
            print(
                f"{name:<42}{row['ms_per_step']:>10.3f}{row['episodes_per_second']:>12,}{row['times_floor']:>9.1f}"
                f"{row['times_gather_floor']:>9.1f}{row['speedup_over_sync']:>8.1f}",
                flush=True,
            )
    if args.memory:
        _add_memory(rows)
    measured = provenance(torch.device("cpu"))
    add_rows(Path(args.out), [row | measured for row in rows], KEY)
    plot(Path(args.out))


@contextmanager
def _contenders(level: str, side: int, num_envs: int) -> Iterator[dict[str, Callable[[], Any]]]:
    """Name -> a function that makes one step, of environments that show the same images."""
    env_id = f"RSS-Shapes-{level.capitalize()}Reward-v0"
    options: dict[str, Any] = {"image_size": (side, side)}
    native = gym.make_vec(env_id, num_envs, **options)
    native.action_space.seed(0)
    actions = native.action_space.sample()  # int64, as an agent that samples from the space would give them
    small = actions.astype(np.uint8)  # as an agent that saves memory would
    observations, _ = native.reset(seed=0)
    images = load_dataset("Shapes", **options).images
    on_torch = gym.make_vec(env_id, num_envs, device="cpu", **options)
    on_torch.reset(seed=0)
    tensors = torch.from_numpy(small)
    classic: dict[str, Any] = {"vector_kwargs": {"autoreset_mode": AutoresetMode.SAME_STEP}, **options}
    sync = gym.make_vec(env_id, num_envs, vectorization_mode="sync", **classic)
    sync.reset(seed=0)
    contenders: dict[str, Callable[[], Any]] = {
        **floors(images, observations, actions),
        "SegmentationVectorEnv": lambda: native.step(actions),
        "SegmentationVectorEnv, uint8": lambda: native.step(small),
        "TorchSegmentationVectorEnv, uint8": lambda: on_torch.step(tensors),
        "SyncVectorEnv": lambda: sync.step(actions),
    }
    processes = None
    if num_envs <= MAX_PROCESSES:
        processes = gym.make_vec(env_id, num_envs, vectorization_mode="async", **classic)
        processes.reset(seed=0)
        contenders["AsyncVectorEnv"] = lambda: processes.step(actions)
    try:
        yield contenders
    finally:
        for envs in (native, on_torch, sync, *([] if processes is None else [processes])):
            envs.close()


def _measure(contenders: dict[str, Callable[[], Any]], args: ThroughputArguments) -> dict[str, float]:
    """Median seconds a step of each."""
    counts = {}
    for name, step in contenders.items():
        step()
        began = time.perf_counter()
        step()
        counts[name] = max(1, round(args.turn_ms / 1e3 / (time.perf_counter() - began)))
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    start = time.perf_counter()
    for _ in range(args.rounds):
        for name, step in contenders.items():
            step()  # warm the caches that the others cooled
            began = time.perf_counter()
            for _ in range(counts[name]):
                step()
            seconds[name].append((time.perf_counter() - began) / counts[name])
        if time.perf_counter() - start > args.limit_s:
            break
    return {name: statistics.median(values) for name, values in seconds.items()}


KINDS: dict[str, dict[str, Any]] = {"SegmentationVectorEnv": {}, "TorchSegmentationVectorEnv, uint8": {"device": "cpu"}}
MEMORY_SIDE, MEMORY_ENVS = 64, 64


def _add_memory(rows: list[dict[str, Any]]) -> None:
    """Fills in the memory an environment takes, at image level, 64×64 and 64 environments, where that was measured."""
    for row in rows:
        if (row["level"], row["image_size"], row["num_envs"]) != ("image", MEMORY_SIDE, MEMORY_ENVS):
            continue
        mode = {"SyncVectorEnv": "sync", "AsyncVectorEnv": "async"}.get(row["contender"])
        if mode is None and row["contender"] not in KINDS:
            continue
        few, many = (_in_fresh_process(_memory, row["contender"], mode, count) for count in (1, MEMORY_ENVS))
        row["kib_per_env"] = round((many - few) / (MEMORY_ENVS - 1) / 1024, 1)
        print(f"{row['contender']:<42}{row['kib_per_env']:>10.1f} KiB an environment")


def _in_fresh_process(function: Callable[..., int], *args: Any) -> int:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def _memory(contender: str, mode: str | None, num_envs: int) -> int:
    """Bytes of private memory that an environment and its last step's results take, processes included."""
    env_id = "RSS-Shapes-ImageReward-v0"
    options: dict[str, Any] = {"image_size": (MEMORY_SIDE, MEMORY_SIDE)}
    _step(gym.make_vec(env_id, 1, **options, **KINDS.get(contender, {})))  # the data set and imports, which are shared
    before = _private_bytes(os.getpid())
    vector_kwargs: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}
    if mode == "async":
        vector_kwargs["context"] = "fork"  # this process was spawned, and would spawn its own
    more: dict[str, Any] = (
        KINDS[contender] if mode is None else {"vectorization_mode": mode, "vector_kwargs": vector_kwargs}
    )
    envs = gym.make_vec(env_id, num_envs, **options, **more)
    held = _step(envs)
    children = [process.pid for process in multiprocessing.active_children()]
    used = _private_bytes(os.getpid()) - before + sum(_private_bytes(pid) for pid in children if pid is not None)
    del held
    envs.close()
    return used


def _step(envs: VectorEnv) -> list[Any]:
    """The results of two steps, which a caller may hold at once."""
    envs.reset(seed=0)
    actions: np.ndarray = np.zeros(envs.action_space.shape or (), np.uint8)
    return [envs.step(actions) for _ in range(2)]


def _private_bytes(process: int) -> int:
    """Memory of a process that it shares with no other, in bytes (Linux)."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def step_table(level: str = "image", side: int = 64, num_envs: int = 64) -> Table:
    """Milliseconds a step of each contender, for one size and number of environments."""
    lines = [["", "ms a step", "episodes/s", "× floor", "× gather floor", "× SyncVectorEnv", "KiB an environment"]]
    for row in read_last_device(RESULTS / "throughput.csv"):
        if (row["level"], int(row["image_size"]), int(row["num_envs"])) != (level, side, num_envs):
            continue
        speed = f"{int(row['episodes_per_second']):,}"
        keys = ("times_floor", "times_gather_floor", "speedup_over_sync")
        factors = [f"{float(row[key]):.1f}" for key in keys]
        memory = f"{float(row['kib_per_env']):,.0f}" if row["kib_per_env"] else "–"
        lines.append([row["contender"], f"{float(row['ms_per_step']):.2f}", speed, *factors, memory])
    return lines


def growth_table(contender: str = "SegmentationVectorEnv, uint8") -> Table:
    """Nanoseconds a pixel of the vector environment, by size, reward level and number of environments."""
    rows = [row for row in read_last_device(RESULTS / "throughput.csv") if row["contender"] == contender]
    counts = list(dict.fromkeys(row["num_envs"] for row in rows))
    lines = [["", *(f"{int(count):,}" for count in counts)]]
    cells: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for row in rows:
        cells[row["level"], row["image_size"]][row["num_envs"]] = f"{float(row['ns_per_pixel']):.2f}"
    for (level, side), by_count in cells.items():
        lines.append([f"{level} level, {side}×{side}", *(by_count[count] for count in counts)])
    return lines


if __name__ == "__main__":
    run_command(main)
