"""Suites of runs, of a training command that counts and of one that trains; workers import this."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.training.run_folder import RunFolder
from benchmarks.executors import Executor
from benchmarks.processes import Processes
from benchmarks.results_file import add_rows, read_rows
from benchmarks.training_runs import run_all, train


@dataclass(frozen=True)
class Suite:
    """Runs are numbers.

    Attributes:
        root: folder of results file and run folders.
        steps: of each run.
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

    def words(self, run: int) -> Sequence[str]:
        """The training command, without the run folder."""
        raise NotImplementedError

    def result(self, run: int) -> str:
        """What a run has come to, or has so far; empty: nothing."""
        raise NotImplementedError

    def has_begun(self, run: int) -> bool:
        """Whether a run has done something that it need not do again."""
        raise NotImplementedError

    def work(self, run: int, processes: Processes) -> list[dict[str, Any]]:
        with (self.root / "begun.txt").open("a") as file:
            file.write(f"{run} {os.getpid()}\n")
        train(self.words(run), self.folder(run), processes)
        return [{"run": run, "result": self.result(run)}]

    def finished(self, run: int, rows: list[dict[str, Any]] | None) -> None:
        if rows is not None:
            add_rows(self.out, rows, ["run"])

    def run(self, runs: int, executor: Executor) -> None:
        """Does so many runs, two at once."""
        (self.root / "runs").mkdir(exist_ok=True)
        run_all(range(runs), self.folder, self.is_done, self.work, self.finished, 2, executor)

    def begun(self) -> list[tuple[int, int]]:
        """The runs that were begun, and the processes of their workers."""
        lines = [line.split() for line in (self.root / "begun.txt").read_text().splitlines()]
        return [(int(run), int(pid)) for run, pid in lines]

    def wait_for_steps(self, *runs: int, seconds: float = 120.0) -> None:
        """Waits until these runs have begun."""
        until = time.monotonic() + seconds
        while not all(self.has_begun(run) for run in runs):
            assert time.monotonic() < until, "the runs do not begin"
            time.sleep(0.02)

    def check(self, results: Sequence[str], begun_again: set[int]) -> None:
        """Every run has one row, with the result that is given; these runs were begun more than once."""
        rows = sorted((row["run"], row["result"]) for row in read_rows(self.out))
        assert rows == [(str(run), result) for run, result in enumerate(results)]
        begun = Counter(run for run, _ in self.begun())
        assert {run for run, times in begun.items() if times > 1} == begun_again
        assert {path.suffix for path in (self.root / "runs").glob(".*")} == {".lock"}, "a result was left"


class Counting(Suite):
    """The command counts its steps, 50 a second."""

    def words(self, run: int) -> Sequence[str]:
        return ["tests.benchmarks.executors.counting", "--steps", str(self.steps)]

    def result(self, run: int) -> str:
        """The steps that a run has done so far, in order."""
        file = self.folder(run) / "steps.txt"
        return file.read_text() if file.exists() else ""

    def has_begun(self, run: int) -> bool:
        return bool(self.result(run))

    def check_each_step(self, runs: int, begun_again: set[int]) -> None:
        """Every run did every step once."""
        self.check(["".join(f"{step}\n" for step in range(1, self.steps + 1))] * runs, begun_again)


class Training(Suite):
    """The default agent learns small images; a run's number is its seed."""

    def words(self, run: int) -> Sequence[str]:
        words = [
            "agents.likelihood",
            "--env-id",
            "RSS-Shapes-ImageReward-v0",
            "--image-size",
            "16",
            "16",
            "--batch-size",
            "2",
        ]
        words += ["--env-kwargs", '{"num_images": 32}', "--samples-per-image", "2", "--seed", str(run)]
        return [*words, *f"--steps {self.steps} --checkpoint-every 5 --eval-every {self.steps}".split()]

    def result(self, run: int) -> str:
        """The steps that were logged, in order, and the last evaluation."""
        rows = RunFolder(self.folder(run)).read_metrics()
        steps = [row["step"] for row in rows]
        return f"{steps} {[row['val/miou'] for row in rows if 'val/miou' in row]}"

    def has_begun(self, run: int) -> bool:
        return RunFolder(self.folder(run)).latest_checkpoint() is not None
