"""What an executor adds to the time of the runs, and what a writer of a large results file waits.

    python -m benchmarks.executor_scaling --engines local ray                          # in a Ray cluster
    python -m benchmarks.executor_scaling --engines slurm --engine-options '{"cluster": "local"}'
    python -m benchmarks.executor_scaling --engines                                    # the results file only

Identical short runs, each a process that waits for a second: what a run takes beyond that second is the engine's, on
whatever machine. Then rows are added to a results file of 10,000 rows, by one process and by several at once.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from agents.training.arguments import JsonObject, check_numbers, check_object
from agents.training.command import run_command
from benchmarks.executors import Engine, make_executor
from benchmarks.processes import Processes
from benchmarks.results_file import RESULTS, Table, add_rows, check_writable, provenance, results_of
from benchmarks.training_runs import run_all

OUT = RESULTS / "executors.csv"
KEY = ["what", "engine", "at_once", "count", "device"]


@dataclass
class ScalingArguments:
    """Measure what executors and a shared results file cost."""

    engines: tuple[Engine, ...] = ("local",)
    """engines to measure; each must be there"""
    engine_options: JsonObject = field(default_factory=dict)
    """of ray and slurm, as of the other benchmarks"""
    workers: tuple[int, ...] = (1, 2)
    """runs at once"""
    runs: int = 8
    """runs of a measurement"""
    rows: int = 10_000
    """rows of the results file"""
    writers: tuple[int, ...] = (1, 4)
    """processes that write at once"""
    adds: int = 20
    """times that each of them adds ten rows"""
    out: str = str(OUT)
    """results file"""


@dataclass(frozen=True)
class Waiting:
    """Runs that wait.

    Attributes:
        folder_of_all: of their run folders.
        seconds: that each waits.
    """

    folder_of_all: Path
    seconds: float = 1.0

    def folder(self, run: int) -> Path:
        """The run folder of a run."""
        return self.folder_of_all / str(run)

    def is_done(self, run: int) -> bool:
        """No results are kept."""
        return False

    def work(self, run: int, processes: Processes) -> float:
        """Waits in a process; gives the seconds from its start to its end."""
        began = time.perf_counter()
        process = processes.start("timeit", ["-n1", "-r1", f"__import__('time').sleep({self.seconds})"], self.log(run))
        process.wait()
        processes.end(process)
        return time.perf_counter() - began

    def log(self, run: int) -> Path:
        """What the process prints."""
        return self.folder_of_all / "logs" / f"{run}.txt"


def measure_engine(engine: Engine, at_once: int, runs: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds of so many runs, and what each of them took beyond its work."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        waiting, took = Waiting(Path(folder)), list[float]()

        def finished(run: int, seconds: float | None) -> None:
            if seconds is not None:
                took.append(seconds)

        began = time.perf_counter()
        executor = make_executor(engine, at_once, options, Path(folder))
        ready = time.perf_counter()
        run_all(range(runs), waiting.folder, waiting.is_done, waiting.work, finished, at_once, executor)
        seconds = time.perf_counter() - ready
    overhead = (seconds * at_once - sum(took)) / runs
    return {
        "what": "runs of 1 s",
        "engine": engine,
        "at_once": at_once,
        "count": runs,
        "start_seconds": round(ready - began, 2),
        "seconds": round(seconds, 2),
        "overhead_milliseconds": round(1e3 * overhead),
        "cpu_milliseconds": "",
    }


def write(path: Path, writer: int, adds: int) -> None:
    """Adds ten rows so often, as the curve of a run."""
    for number in range(adds):
        rows = [made_up_row(f"writer {writer}", number, step) for step in range(10)]
        add_rows(path, rows, ["method", "seed"])


def made_up_row(method: str, seed: int, step: int) -> dict[str, Any]:
    """A row as long as those of ``benchmarks.convergence``."""
    where = {"device": "some processor, 1 threads", "torch": "2.9.0", "commit": "0123456", "date": "2000-01-01"}
    return {"method": method, "seed": seed, "step": step, "val_miou": 0.12345, "val_pixel_accuracy": 0.12345} | where


def measure_writers(writers: int, adds: int, rows: int) -> dict[str, Any]:
    """What adding rows to a file of so many rows takes when so many processes do it at once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        add_rows(path, [made_up_row("held", row // 10, row % 10) for row in range(rows)], ["method", "seed"])
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=write, args=(path, writer, adds)) for writer in range(writers)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        seconds = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        size = path.stat().st_size
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "what": f"add 10 rows to {rows:,} ({size >> 10:,} KiB)",
        "at_once": writers,
        "count": writers * adds,
        "seconds": round(seconds, 2),
        "overhead_milliseconds": round(1e3 * seconds / (writers * adds)),
        "cpu_milliseconds": round(1e3 * cpu / (writers * adds)),
    }


def scaling_table() -> Table:
    """The committed measurements."""
    rows = results_of(OUT, "benchmarks.executor_scaling", KEY)
    head = ["", "engine", "at once", "runs or writes", "seconds", "ms beyond the work", "ms of CPU"]
    names = ("what", "engine", "at_once", "count", "seconds", "overhead_milliseconds", "cpu_milliseconds")
    return [head, *([row[name] for name in names] for row in rows)]


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(ScalingArguments, prog="python -m benchmarks.executor_scaling")
    check_numbers(args, {"workers": 1, "runs": 1, "rows": 1, "writers": 1, "adds": 1})
    check_object("engine_options", args.engine_options)
    out = Path(args.out)
    check_writable(out)
    empty = {"engine": "", "start_seconds": ""}
    measured = [
        measure_engine(engine, at_once, args.runs, {} if engine == "local" else args.engine_options)
        for engine in args.engines
        for at_once in args.workers
    ]
    measured += [empty | measure_writers(writers, args.adds, args.rows) for writers in args.writers]
    add_rows(out, [row | provenance() for row in measured], KEY)
    for row in measured:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    run_command(main)
