"""Agents × environments × seeds under fixed budgets of reward queries; anyone can add an entry.

    python -m benchmarks.leaderboard --camvid ../shared/data/camvid
    python -m benchmarks.leaderboard --entry my_agent.py                # yours beside those that were run before

An entry is a file with a function ``train(trial)`` (``benchmarks.trial``; ``benchmarks/entries/template.py`` is one to
start from) or one of this project's own training commands. Every run that the results file does not hold yet is run, a
few at once. An entry that raises, takes too long, returns label maps of a wrong shape or asks for targets gets a row
that says so, and the others go on. At the end: learning curves, and a report as Markdown and as one HTML file. A
leaderboard that was stopped goes on where it was when it is started again.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
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
from benchmarks.child import Children
from benchmarks.convergence import read_curve
from benchmarks.judge import SHOWN, Arena, Judge, Verdict
from benchmarks.results_file import (
    RESULTS,
    check_writable,
    device_name,
    provenance,
    read_rows,
    replacing,
    write_rows,
)
from benchmarks.suites import GRADIENT, METHODS
from rss_env.errors import OptionError

ENTRIES = Path(__file__).parent / "entries"
FILES = {
    "random": "random_labels.py",
    "one class": "constant.py",
    "PPO template": "template.py",
    "PPO, actor and critic": "cleanrl_ppo.py",
}
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


@dataclass
class LeaderboardArguments:
    """Rank agents by the mIoU that a budget of reward queries buys."""

    entry: tuple[str, ...] = ()
    """files with a function train(trial), to be run; default: the project's own entries"""
    only: tuple[str, ...] = ()
    """names of entries to run"""
    again: tuple[str, ...] = ()
    """names of entries whose rows are deleted first, so that they are run anew"""
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
    """The module, and its command line, that trains one of the project's own entries within the budget."""
    words, samples = COMMANDS[name]
    module, *further = words.split()
    command = [module, "--run-dir", str(folder), "--no-progress", "--env-id", arena.env_id]
    command += ["--image-size", *map(str, arena.image_size), "--seed", str(seed)]
    if arena.options.get("root"):
        command += ["--root", arena.options["root"]]
    if module == "agents.sb3":
        command += ["--reward-queries", str(arena.budget), "--samples-per-image", str(samples)]
    else:
        steps = arena.budget // (BATCH * samples)
        command += ["--steps", str(steps), "--batch-size", str(BATCH), "--eval-every", str(max(1, steps // 5))]
        command += ["--log-every", "1"]
        if name not in leaderboard_report.BOUNDS:
            command += ["--samples-per-image", str(samples)]
    return command + further


def run_command_entry(name: str, arena: Arena, seed: int, args: LeaderboardArguments, children: Children) -> Verdict:
    """Trains one of the project's own entries in a process of its own."""
    folder = run_folder(args, name, arena, seed)
    module, *words = command_of(name, arena, seed, folder)
    if module == "agents.sb3":  # SB3 saves models, not runs: begin anew
        shutil.rmtree(folder, ignore_errors=True)
    elif (folder / "config.json").exists():
        words.append("--resume")
    verdict, log = Verdict(), log_file(args, name, arena, seed)
    process = children.start(module, words, log, ending=signal.SIGINT)
    try:
        process.wait(2 * args.seconds)
    except subprocess.TimeoutExpired:
        verdict.status = f"over its time of {args.seconds:g} s"
    finally:
        code = children.end(process)
    if verdict.status != "ok":
        return verdict
    if code != 0:
        said = log.read_text(errors="replace").strip()
        reason = said.partition("error: ")[2] or said.rpartition("\n")[2]
        verdict.status = f"stopped with exit code {code}: {reason}"
        return verdict
    verdict.curve = [{name: value for name, value in point.items() if name != "step"} for point in read_curve(folder)]
    verdict.queries, verdict.seconds = int(verdict.curve[-1]["reward_queries"]), verdict.curve[-1]["seconds"]
    scores = [row["reward/mean"] for row in RunFolder(folder).read_metrics() if "reward/mean" in row]
    verdict.mean_score = sum(scores) / len(scores) if scores else None
    verdict.label_maps = last_label_maps(folder, arena)
    return verdict


def run_folder(args: LeaderboardArguments, name: str, arena: Arena, seed: int) -> Path:
    """The run folder of a command."""
    return Path(args.run_dir) / f"{name}-{arena.name}-{seed}".replace(" ", "_").replace(",", "")


def log_file(args: LeaderboardArguments, name: str, arena: Arena, seed: int) -> Path:
    """What a run printed, with the traceback of an entry that raised."""
    return Path(args.run_dir) / "logs" / f"{run_folder(args, name, arena, seed).name}.txt"


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


def choose(args: LeaderboardArguments) -> tuple[dict[str, Path], list[str]]:
    """The files of all entries that have one, by name, and the names of the entries to run.

    Raises:
        OptionError: an entry is not known or not there, its name is taken, or a number is out of range.
    """
    for name, number in (("seconds", args.seconds), ("parallel", args.parallel)):
        if not 0 < number < float("inf"):
            raise OptionError(f"--{name} must be positive and finite, got {number}.")
    if not args.seeds or min(args.seeds) < 0:
        raise OptionError(f"--seeds must be integers from 0 on, got {' '.join(map(str, args.seeds)) or 'none'}.")
    files = {name: ENTRIES / file for name, file in FILES.items()}
    given = []
    for path in map(Path, args.entry):
        if not path.is_file():
            raise OptionError(f"--entry {path}: there is no such file.")
        own = [name for name, file in files.items() if file.resolve() == path.resolve()]
        name = own[0] if own else path.stem
        if not own and name in [*files, *COMMANDS]:
            raise OptionError(f"--entry {path}: there is another entry called {name!r}; give the file another name.")
        files[name] = path
        given.append(name)
    names = [*files, *COMMANDS]
    for word in (*args.only, *args.again):
        if word not in names:
            raise OptionError(f"Unknown entry {word!r}; valid: {', '.join(map(repr, names))}.")
    wanted = {*given, *args.only, *args.again} or set(names)
    return files, [name for name in names if name in wanted]


def read_results(out: Path) -> list[dict[str, str]]:
    """The rows of a results file.

    Raises:
        OptionError: the file is not one of the leaderboard.
    """
    if out.suffix != ".csv":
        raise OptionError(f"--out must be a .csv file, got {out}; the report goes beside it.")
    return read_rows(out, leaderboard_report.COLUMNS)


def run_of(row: Mapping[str, str]) -> tuple[str, str, str]:
    """Entry, environment and seed of a row."""
    return row["entry"], row["environment"], row["seed"]


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(LeaderboardArguments, prog="python -m benchmarks.leaderboard")
    files, chosen = choose(args)
    out = Path(args.out)
    places = arenas(args.camvid)
    for arena in places:  # a missing data set is reported before the first run
        gym.make_vec(arena.env_id, num_envs=1, **arena.env_options)
    held = read_results(out)
    for path in (out, Path(args.run_dir) / "logs"):
        check_writable(path)
    wanted = [(name, arena, seed) for seed in dict.fromkeys(args.seeds) for arena in places for name in chosen]
    anew = {(name, arena.name, str(seed)) for name, arena, seed in wanted if name in args.again}
    rows = [row for row in held if run_of(row) not in anew]
    if len(rows) < len(held):
        write_rows(out, rows, list(held[0]))
    for name, arena, seed in wanted:
        if name in args.again:
            shutil.rmtree(run_folder(args, name, arena, seed), ignore_errors=True)
    done = {run_of(row) for row in rows}
    missing = [(name, arena, seed) for name, arena, seed in wanted if (name, arena.name, str(seed)) not in done]
    if len(missing) < len(wanted):
        print(f"{len(wanted) - len(missing)} of {len(wanted)} runs are in {out}; --again ENTRY runs them anew.")
    measured = provenance() | {"device": device_name(threads=1)}
    writing, children = threading.Lock(), Children()

    def run(name: str, arena: Arena, seed: int) -> None:
        if name in files:
            log = log_file(args, name, arena, seed)
            verdict = Judge(files[name], arena, seed, args.seconds, children, log).run()
        else:
            verdict = run_command_entry(name, arena, seed, args, children)
        if children.stopped:
            return
        if verdict.label_maps is not None:
            with replacing(leaderboard_report.label_maps_file(Path(args.run_dir), name, arena.name, seed)) as file:
                np.save(file, verdict.label_maps)
        with writing:
            write_rows(out, [*read_rows(out), *rows_of(verdict, name, arena, seed, measured)])
            if verdict.status != "ok":
                tqdm.write(f"{name}, {arena.name}, seed {seed}: {verdict.status} ({log_file(args, name, arena, seed)})")

    with (
        ThreadPoolExecutor(args.parallel) as pool,
        tqdm(total=len(missing), unit="run", disable=not missing) as bar,
    ):
        jobs = [pool.submit(run, *one) for one in missing]
        try:
            for job in as_completed(jobs):
                job.result()
                bar.update()
        except BaseException:  # Ctrl-C, or results that cannot be written: start no other, and end those that run
            pool.shutdown(wait=False, cancel_futures=True)
            children.stop()
            raise
    print(leaderboard_report.write(out, Path(args.run_dir)).read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_command(main)
