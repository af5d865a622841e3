"""How close learning from one number per label map comes to cross-entropy: same network, images and steps.

    python -m benchmarks.convergence --root ../shared/data/camvid

Runs every (method, seed) that the results file does not hold yet, a few at once, each in its own process and run folder
(an interrupted one is resumed), and appends its row: mIoU on the validation split after the last step, reward queries,
training seconds. The data set is a folder in the layout of ``RSS-Folder`` (images/, masks/, splits/, classes.json).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from tqdm import tqdm

from agents.arguments import run_command
from benchmarks import tables
from benchmarks.results_file import RESULTS, device_name, provenance, read_rows, write_rows
from rss_env.errors import OptionError

METHODS: dict[str, tuple[str, str, list[str]]] = {
    # name: (module, environment id, arguments)
    "cross_entropy": ("agents.supervised", "RSS-Folder-ImageReward-v0", []),
    "rss_image_k32": ("agents.rss", "RSS-Folder-ImageReward-v0", ["--samples-per-image", "32"]),
    "rss_image_k128": ("agents.rss", "RSS-Folder-ImageReward-v0", ["--samples-per-image", "128"]),
    "rss_pixel_k32": ("agents.rss", "RSS-Folder-PixelReward-v0", ["--samples-per-image", "32"]),
}

RUNNING: set[subprocess.Popen[str]] = set()  # the processes of the runs going on


@dataclass
class ConvergenceArguments:
    """Compare learning from scores with cross-entropy on real photos."""

    root: str
    """folder with images/, masks/, splits/ and classes.json, such as CamVid's"""
    name: str = "camvid"
    """name of the data set in the results"""
    methods: tuple[str, ...] = tuple(METHODS)
    """methods to run"""
    seeds: tuple[int, ...] = (1, 2, 3)
    """seeds to run"""
    image_size: tuple[int, int] = (72, 96)
    """height and width of the images in pixels"""
    steps: int = 1000
    """optimiser steps"""
    batch_size: int = 8
    """images a step"""
    parallel: int = 2
    """runs at once, one thread each"""
    run_dir: str = "runs/convergence"
    """folder for the run folders"""
    out: str = str(RESULTS / "convergence.csv")
    """results file; rows that it already holds are not run again"""


def run_one(args: ConvergenceArguments, method: str, seed: int, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Runs one method with one seed in a process of its own and returns its row, ``measured`` included."""
    module, env_id, extra = METHODS[method]
    folder = Path(args.run_dir) / f"{args.name}-{method}-{args.steps}-seed{seed}"
    command = [sys.executable, "-m", module, "--run-dir", str(folder), "--no-progress"]
    if (folder / "config.json").exists():
        command += ["--resume"]
    else:
        command += ["--env-id", env_id, "--root", args.root, "--seed", str(seed), *extra]
        command += ["--image-size", *map(str, args.image_size)]
        command += ["--steps", str(args.steps), "--batch-size", str(args.batch_size)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as run:
        RUNNING.add(run)
        _, said = run.communicate()
        RUNNING.discard(run)
    if run.returncode != 0:
        reason = said.split("error: ", 1)[-1].strip() or f"stopped with exit code {run.returncode}"
        raise OptionError(f"{method}, seed {seed}: {reason}")
    last: dict[str, Any] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        last |= json.loads(line)
    return {
        "dataset": args.name,
        "method": method,
        "seed": seed,
        "image_size": "x".join(map(str, args.image_size)),
        "steps": args.steps,
        "batch_size": args.batch_size,
        "val_miou": round(last["val/miou"], 5),
        "val_pixel_accuracy": round(last["val/pixel_accuracy"], 5),
        "reward_queries": int(last["time/reward_queries"]),
        "seconds": round(last["time/seconds"], 1),
        **measured,
    }


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(ConvergenceArguments, prog="python -m benchmarks.convergence")
    unknown = [method for method in args.methods if method not in METHODS]
    if unknown:
        raise OptionError(f"Unknown method {unknown[0]!r}; valid: {', '.join(METHODS)}.")
    out = Path(args.out)
    rows: list[Mapping[str, Any]] = list(read_rows(out))
    held = {(row["dataset"], row["method"], int(row["seed"]), int(row["steps"])) for row in rows}
    wanted = [(method, seed) for seed in args.seeds for method in args.methods]
    missing = [(m, s) for m, s in wanted if (args.name, m, s, args.steps) not in held]
    measured = provenance() | {"device": device_name(threads=1)}  # the code as it is when the runs start
    with ThreadPoolExecutor(args.parallel) as pool, tqdm(total=len(missing), unit="run") as bar:
        jobs = [pool.submit(run_one, args, *pair, measured) for pair in missing]
        try:
            for job in as_completed(jobs):
                rows.append(job.result())
                rows.sort(key=lambda row: (row["dataset"], int(row["steps"]), row["method"], int(row["seed"])))
                write_rows(out, rows)
                bar.update()
        except BaseException:  # Ctrl-C or a failed run: start no other, and let those that run write a checkpoint
            pool.shutdown(wait=False, cancel_futures=True)
            for run in tuple(RUNNING):
                run.send_signal(signal.SIGINT)
            raise
    lines = tables.convergence(out, args.name)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


if __name__ == "__main__":
    run_command(main)
