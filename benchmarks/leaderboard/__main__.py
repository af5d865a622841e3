"""Agents × environments × seeds under fixed budgets of reward queries; anyone can add an entry.

    python -m benchmarks.leaderboard --camvid ../shared/data/camvid
    python -m benchmarks.leaderboard --entry my_agent.py                # yours, next to those in the results file

An entry is a file with a function ``train(trial)`` (``benchmarks.leaderboard.trial``; start from
``benchmarks/leaderboard/entries/template.py``) or one of this project's own training commands. Every run that the
results file does not hold yet is run, a few at once. An entry that raises, takes too long, returns label maps of a
wrong shape or asks for targets gets a row that says so, and the others go on. Learning curves and a report in Markdown
follow at the end. A leaderboard that was stopped continues where it was when it is started again, and one that is
started several times at once, on machines that share the results file and the run folders, is divided among them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from tqdm import tqdm

from agents.training.command import run_command
from benchmarks.leaderboard import report
from benchmarks.leaderboard.arenas import Arena, arenas
from benchmarks.leaderboard.judge import Judge, Verdict, readable
from benchmarks.leaderboard.own_entries import COMMANDS, ENTRIES, FILES, train_entry
from benchmarks.processes import Processes
from benchmarks.results_file import (
    RESULTS,
    Row,
    add_rows,
    check_writable,
    device_name,
    locked,
    provenance,
    read_rows,
    replacing,
    update_rows,
)
from benchmarks.training_runs import log_file, run_all
from rss_env.errors import OptionError


@dataclass
class LeaderboardArguments:
    """Rank agents by the mIoU that a budget of reward queries buys."""

    entry: tuple[str, ...] = ()
    """files with a function train(trial) to run; default: the project's own entries"""
    only: tuple[str, ...] = ()
    """names of entries to run"""
    again: tuple[str, ...] = ()
    """names of entries to run again; their rows are deleted first"""
    camvid: str | None = None
    """folder of CamVid; default: only the procedural environment"""
    seeds: tuple[int, ...] = (1, 2, 3)
    """seeds to run"""
    seconds: float = 900.0
    """training time of a run"""
    parallel: int = 2
    """runs at once, one thread each"""
    run_dir: str = "runs/leaderboard"
    """folder for logs and the run folders of the commands"""
    out: str = str(RESULTS / "leaderboard.csv")
    """results file; the report goes next to it"""


@dataclass(frozen=True)
class Run:
    """One entry on one environment with one seed."""

    entry: str
    arena: Arena
    seed: int

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies the run in a results file: entry, environment and seed."""
        return self.entry, self.arena.name, str(self.seed)

    def folder(self, run_dir: str) -> Path:
        """The run folder, if the entry is a command."""
        return Path(run_dir) / report.file_name(*self.key)


def rows_of(run: Run, verdict: Verdict, measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one run: one a report, the last one marked, or a single one that says what went wrong."""
    about = {"entry": run.entry, "environment": run.arena.name, "budget": run.arena.budget, "seed": run.seed}
    mean = "" if verdict.mean_score is None else round(verdict.mean_score, 5)
    nothing = {"reward_queries": verdict.queries, "seconds": round(verdict.seconds, 2)}
    points = verdict.curve if verdict.status == "ok" else [nothing | {"val_miou": "", "val_pixel_accuracy": ""}]
    return [
        about
        | {"status": readable(verdict.status), "final": int(point is points[-1]), "mean_score": mean}
        | dict(point)
        | dict(measured)
        for point in points
    ]


def choose(args: LeaderboardArguments) -> tuple[dict[str, Path], list[str]]:
    """The files of all entries that have one, by name, and the names of the entries to run.

    Raises:
        OptionError: an entry is unknown or not there, its name is taken, or a number is out of range.
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


def read_results(out: Path) -> list[Row]:
    """The rows of a results file.

    Raises:
        OptionError: the file is not one of the leaderboard.
    """
    if out.suffix != ".csv":
        raise OptionError(f"--out must be a .csv file, got {out}; the report goes next to it.")
    return read_rows(out, report.COLUMNS)


def run_missing(args: LeaderboardArguments, files: Mapping[str, Path], missing: list[Run], out: Path) -> None:
    """Does these runs and adds their rows to the results file as they finish."""
    measured = provenance() | {"device": device_name(threads=1)}  # the code as it is when the runs start

    def work(run: Run, processes: Processes) -> Verdict:
        folder = run.folder(args.run_dir)
        if run.entry in files:
            return Judge(files[run.entry], run.arena, run.seed, args.seconds, processes, log_file(folder)).run()
        return train_entry(run.entry, run.arena, run.seed, folder, args.seconds, processes)

    def is_done(run: Run) -> bool:
        return run.key in map(report.key_of, read_rows(out))

    with tqdm(total=len(missing), unit="run", disable=not missing) as bar:

        def finished(run: Run, verdict: Verdict | None) -> None:
            bar.update()
            if verdict is None:
                return
            if verdict.label_maps is not None:
                with replacing(report.label_maps_file(Path(args.run_dir), *run.key)) as file:
                    np.save(file, verdict.label_maps)
            add_rows(out, rows_of(run, verdict, measured), report.KEY)
            if verdict.status != "ok":
                log = log_file(run.folder(args.run_dir))
                tqdm.write(f"{run.entry}, {run.arena.name}, seed {run.seed}: {verdict.status} ({log})")

        run_all(missing, lambda run: run.folder(args.run_dir), is_done, work, finished, args.parallel)


def forget(run: Run, run_dir: str, out: Path) -> None:
    """Deletes the rows and the run folder of a run; the folder only if no other process is doing the run."""
    with locked(run.folder(run_dir), wait=False) as claimed:
        if claimed:
            shutil.rmtree(run.folder(run_dir), ignore_errors=True)
        update_rows(out, lambda rows: [row for row in rows if report.key_of(row) != run.key], report.COLUMNS)


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(LeaderboardArguments, prog="python -m benchmarks.leaderboard")
    files, chosen = choose(args)
    out = Path(args.out)
    places = arenas(args.camvid)
    for arena in places:  # a missing data set is reported before the first run
        gym.make_vec(arena.env_id, num_envs=1, **arena.env_options)
    read_results(out)
    for path in (out, Path(args.run_dir) / "logs"):
        check_writable(path)
    wanted = [Run(name, arena, seed) for seed in dict.fromkeys(args.seeds) for arena in places for name in chosen]
    for run in wanted:
        if run.entry in args.again:
            forget(run, args.run_dir, out)
    done = set(map(report.key_of, read_results(out)))
    missing = [run for run in wanted if run.key not in done]
    if len(missing) < len(wanted):
        print(f"{len(wanted) - len(missing)} of {len(wanted)} runs are in {out}; --again ENTRY runs them again.")
    run_missing(args, files, missing, out)
    with locked(out):  # the last to write a report has read all rows
        text = report.write(out, Path(args.run_dir)).read_text(encoding="utf-8")
    print(text)


if __name__ == "__main__":
    run_command(main)
