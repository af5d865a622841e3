"""Runs of a training command that counts; workers import this."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.executors import Executor
from benchmarks.processes import Processes
from benchmarks.results_file import add_rows, read_rows
from benchmarks.training_runs import run_all, train


@dataclass(frozen=True)
class Counting:
    """Runs are numbers.

    Attributes:
        root: folder of results file and run folders.
        steps: of each run, 50 a second.
    """

    root: Path
    steps: int

    @property
    def out(self) -> Path:
        return self.root / "out.csv"

    def folder(self, run: int) -> Path:
        return self.root / "runs" / str(run)

    def is_done(self, run: int) -> bool:
        return str(run) in {row["run"] for row in read_rows(self.out)}

    def work(self, run: int, processes: Processes) -> list[dict[str, Any]]:
        with (self.root / "begun.txt").open("a") as file:
            file.write(f"{run} {os.getpid()}\n")
        train(["tests.benchmarks.executors.counting", "--steps", str(self.steps)], self.folder(run), processes)
        return [{"run": run, "steps": self.steps_of(run)}]

    def finished(self, run: int, rows: list[dict[str, Any]] | None) -> None:
        if rows is not None:
            add_rows(self.out, rows, ["run"])

    def run(self, runs: int, executor: Executor) -> None:
        """Does so many runs, two at once."""
        (self.root / "runs").mkdir(exist_ok=True)
        run_all(range(runs), self.folder, self.is_done, self.work, self.finished, 2, executor)

    def steps_of(self, run: int) -> str:
        """The steps that a run has done so far, in order."""
        file = self.folder(run) / "steps.txt"
        return file.read_text() if file.exists() else ""

    def begun(self) -> list[tuple[int, int]]:
        """The runs that were begun, and the processes of their workers."""
        lines = [line.split() for line in (self.root / "begun.txt").read_text().splitlines()]
        return [(int(run), int(pid)) for run, pid in lines]

    def wait_for_steps(self, *runs: int, seconds: float = 120.0) -> None:
        """Waits until these runs have done some steps."""
        until = time.monotonic() + seconds
        while not all(self.steps_of(run) for run in runs):
            assert time.monotonic() < until, "the runs do not begin"
            time.sleep(0.02)

    def check(self, runs: int, begun_again: set[int]) -> None:
        """Every run has one row and did every step once; these runs were begun more than once."""
        steps = "".join(f"{step}\n" for step in range(1, self.steps + 1))
        rows = sorted((row["run"], row["steps"]) for row in read_rows(self.out))
        assert rows == [(str(run), steps) for run in range(runs)]
        begun = Counter(run for run, _ in self.begun())
        assert {run for run, times in begun.items() if times > 1} == begun_again
        assert {path.suffix for path in (self.root / "runs").glob(".*")} == {".lock"}, "a result was left"
