"""Agents × environments × seeds under fixed budgets of reward queries; anyone can add an entry.

    python -m benchmarks.leaderboard --camvid ../shared/data/camvid
    python -m benchmarks.leaderboard --entry my_agent.py                # yours beside those that were run before

An entry is a file with a function ``train(trial)`` (``benchmarks.trial``; ``benchmarks/entries/template.py`` is one to
start from) or one of this project's own training commands. Every run that the results file does not hold yet is run, a
few at once. An entry that raises, takes too long, returns label maps of a wrong shape or asks for targets gets a row
that says so, and the others go on. At the end: learning curves, and a report as Markdown and as one HTML file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from stable_baselines3 import A2C, PPO
from tqdm import tqdm

from agents import sb3
from agents.arguments import run_command
from agents.policy import load_policy, predict_label_maps
from agents.run_folder import RunFolder
from benchmarks import leaderboard_report
from benchmarks.convergence import read_curve
from benchmarks.judge import SHOWN, Arena, Judge, Verdict
from benchmarks.results_file import RESULTS, device_name, provenance, read_rows, write_rows
from benchmarks.suites import GRADIENT, METHODS
from rss_env.errors import OptionError

ENTRIES = Path(__file__).parent / "entries"
FILES = {"random": "random_labels.py", "one class": "constant.py", "PPO template": "template.py"}
BATCH = 8  # images a step of the commands
COMMANDS: dict[str, tuple[str, int]] = {
    # name: (module and its arguments, K); the budget decides the number of steps
    "cross-entropy": ("agents.supervised", 8),  # as many steps as the entry with the most of them
    "image tags": ("agents.weak_labels", 8),
    "RSS": ("agents.rss", 32),
    "RSS, K = 8": ("agents.rss", 8),
    "leave-one-out": (f"agents.rss {GRADIENT}", 32),
    "REINFORCE, one baseline sample": (f"agents.rss {METHODS['leave_one_out']}", 2),
    "SB3 PPO, dense, pixel ratio": ("agents.sb3 --algo ppo --ratio pixel", 16),
    "SB3 PPO, dense, image ratio": ("agents.sb3 --algo ppo --ratio image", 16),
    "SB3 A2C, dense": ("agents.sb3 --algo a2c", 16),
}
SEES_NO_SCORE = {"cross-entropy", "image tags"}  # bounds: pixel labels, image tags


@dataclass
class LeaderboardArguments:
    """Rank agents by the mIoU that a budget of reward queries buys."""

    entry: tuple[str, ...] = ()
    """files with a function train(trial), run beside the project's own entries"""
    only: tuple[str, ...] = ()
    """names of entries to run; default: all"""
    camvid: str | None = None
    """folder of CamVid; default: only the procedural environment"""
    seeds: tuple[int, ...] = (1, 2, 3)
    """seeds to run"""
    seconds: float = 900.0
    """training time of a run"""
    parallel: int = 2
    """runs at once, one thread each"""
    run_dir: str = "runs/leaderboard"
    """folder for the run folders of the commands"""
    out: str = str(RESULTS / "leaderboard.csv")
    """results file; the report goes beside it"""


def arenas(camvid: str | None) -> list[Arena]:
    """The environments and their budgets, which docs/environments.md tells as well."""
    shapes = Arena("shapes", "RSS-Shapes-ImageReward-v0", (32, 32), 32_000)
    photos = Arena("camvid", "RSS-Folder-ImageReward-v0", (48, 64), 64_000, {"root": camvid})
    return [shapes, photos] if camvid else [shapes]


def command_of(name: str, arena: Arena, seed: int, folder: Path) -> list[str]:
    """The command that trains one of the project's own entries within the budget."""
    words, samples = COMMANDS[name]
    module, *further = words.split()
    command = [sys.executable, "-m", module, "--run-dir", str(folder), "--no-progress", "--env-id", arena.env_id]
    command += ["--image-size", *map(str, arena.image_size), "--seed", str(seed)]
    if arena.options.get("root"):
        command += ["--root", arena.options["root"]]
    if module == "agents.sb3":
        command += ["--reward-queries", str(arena.budget), "--samples-per-image", str(samples)]
    else:
        steps = arena.budget // (BATCH * samples)
        command += ["--steps", str(steps), "--batch-size", str(BATCH), "--eval-every", str(max(1, steps // 5))]
        command += ["--log-every", "1"]
        if name not in SEES_NO_SCORE:
            command += ["--samples-per-image", str(samples)]
    return command + further


def run_command_entry(name: str, arena: Arena, seed: int, args: LeaderboardArguments) -> Verdict:
    """Trains one of the project's own entries in a process of its own."""
    folder = Path(args.run_dir) / f"{name}-{arena.name}-{seed}".replace(" ", "_").replace(",", "")
    command = command_of(name, arena, seed, folder)
    if (folder / "config.json").exists():
        if "agents.sb3" in command:  # SB3 saves models, not runs: begin anew
            shutil.rmtree(folder)
        else:
            command += ["--resume"]
    verdict = Verdict()
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=2 * args.seconds,
        )
    except subprocess.TimeoutExpired:
        verdict.status = f"over its time of {args.seconds:.0f} s"
        return verdict
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        verdict.status = f"stopped with exit code {done.returncode}: {lines[-1] if lines else ''}"
        return verdict
    verdict.curve = [{name: value for name, value in point.items() if name != "step"} for point in read_curve(folder)]
    verdict.queries, verdict.seconds = int(verdict.curve[-1]["reward_queries"]), verdict.curve[-1]["seconds"]
    scores = [row["reward/mean"] for row in RunFolder(folder).read_metrics() if "reward/mean" in row]
    verdict.mean_score = sum(scores) / len(scores) if scores else None
    verdict.label_maps = last_label_maps(folder, arena)
    return verdict


def last_label_maps(folder: Path, arena: Arena) -> np.ndarray:
    """Label maps of the first validation images by a command's last policy."""
    envs = gym.make_vec(arena.env_id, num_envs=SHOWN, split="val", order="sequential", **arena.env_options)
    images, _ = envs.reset()
    if (folder / "model.zip").exists():
        algorithm = A2C if json.loads((folder / "config.json").read_text())["algo"] == "a2c" else PPO
        return sb3.predict_label_maps(algorithm.load(folder / "model.zip"), images)
    device = torch.device("cpu")
    return predict_label_maps(load_policy(folder, device)[0], images, device)


def rows_of(verdict: Verdict, name: str, arena: Arena, seed: int, measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one run: one a report, the last one marked, or a single one that says what went wrong."""
    about = {"entry": name, "environment": arena.name, "budget": arena.budget, "seed": seed}
    mean = "" if verdict.mean_score is None else round(verdict.mean_score, 5)
    nothing = {"reward_queries": verdict.queries, "seconds": round(verdict.seconds, 2)}
    points = verdict.curve if verdict.status == "ok" else [nothing | {"val_miou": "", "val_pixel_accuracy": ""}]
    status = " ".join(verdict.status.split())[:300]
    return [
        about | {"status": status, "final": int(point is points[-1]), "mean_score": mean} | dict(point) | dict(measured)
        for point in points
    ]


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(LeaderboardArguments, prog="python -m benchmarks.leaderboard")
    files = {name: ENTRIES / file for name, file in FILES.items()}
    for given in args.entry:
        path = Path(given)
        if not path.is_file():
            raise OptionError(f"--entry {given}: there is no such file.")
        if path.resolve() not in [file.resolve() for file in files.values()]:
            files[path.stem] = path
    names = [*files, *COMMANDS]
    unknown = [name for name in args.only if name not in names]
    if unknown:
        raise OptionError(f"Unknown entry {unknown[0]!r}; valid: {', '.join(names)}.")
    chosen = [name for name in names if not args.only or name in args.only]
    out = Path(args.out)
    rows: list[Mapping[str, Any]] = list(read_rows(out))
    held = {(row["entry"], row["environment"], int(row["seed"])) for row in rows}
    wanted = [(name, arena, seed) for seed in args.seeds for arena in arenas(args.camvid) for name in chosen]
    missing = [run for run in wanted if (run[0], run[1].name, run[2]) not in held]
    measured = provenance() | {"device": device_name(threads=1)}
    writing = threading.Lock()

    def run(name: str, arena: Arena, seed: int) -> None:
        if name in files:
            verdict = Judge(files[name], arena, seed, args.seconds).run()
        else:
            verdict = run_command_entry(name, arena, seed, args)
        if verdict.label_maps is not None:
            file = leaderboard_report.label_maps_file(Path(args.run_dir), name, arena.name, seed)
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, verdict.label_maps)
        with writing:
            rows.extend(rows_of(verdict, name, arena, seed, measured))
            write_rows(out, rows)
            if verdict.status != "ok":
                tqdm.write(f"{name}, {arena.name}, seed {seed}: {verdict.status}")

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ThreadPoolExecutor(args.parallel) as pool, tqdm(total=len(missing), unit="run") as bar:
        jobs = [pool.submit(run, *one) for one in missing]
        try:
            for job in as_completed(jobs):
                job.result()
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    print(leaderboard_report.write(out, Path(args.run_dir)).read_text())


if __name__ == "__main__":
    run_command(main)
