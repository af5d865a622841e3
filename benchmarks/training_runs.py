"""The runner of training commands: every run has its own process and run folder and is resumed where it stopped.

A suite calls ``run_all`` with an executor (``benchmarks.executors``); each of its runs calls ``train`` and then
``read_curve``.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from agents.training.run_folder import RunFolder
from benchmarks.executors import Executor
from benchmarks.executors.threads import ThreadExecutor
from benchmarks.memory import PeakMemory
from benchmarks.processes import Processes
from benchmarks.results_file import locked, replacing
from rss_env.evaluation import METRICS

POLL = 1.0  # seconds between looks at the runs of other processes

Run = TypeVar("Run")
Result = TypeVar("Result")


class RunFailed(RuntimeError):
    """A training command stopped with an error; the message holds its exit code and the reason that it gave."""


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What became of a run that was given to a worker.

    Attributes:
        claimed: whether the worker had the run folder for itself; if not, another process is doing the run.
        result: of the work; None if the results held the run already.
        error: that the work raised.
    """

    claimed: bool = True
    result: Result | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class Claim(Generic[Run, Result]):
    """Does a run unless another process is doing it; what a worker gets.

    The result is in a file next to the run folder before the run folder is free for others, and goes when the results
    hold it: a result whose taker was killed is there for the next.
    """

    run: Run
    folder: Path
    is_done: Callable[[Run], bool]
    work: Callable[[Run, Processes], Result]

    def __call__(self, processes: Processes) -> Outcome[Result]:
        try:
            with locked(self.folder, wait=False) as claimed:
                if not claimed:
                    return Outcome(claimed=False)
                if self.is_done(self.run):
                    return Outcome()
                with suppress(FileNotFoundError, ValueError):  # a damaged one is none
                    return Outcome(result=json.loads(result_file(self.folder).read_text(encoding="utf-8")))
                result = self.work(self.run, processes)
                if processes.stopped:  # and what the work gave may come from that
                    raise KeyboardInterrupt
                with replacing(result_file(self.folder), lock=False) as file:
                    file.write_text(json.dumps(result), encoding="utf-8")
                return Outcome(result=result)
        except Exception as error:  # an executor may have its own way with those that leave a worker
            if processes.stopped:
                raise KeyboardInterrupt from error
            return Outcome(error=error)


def run_all(
    runs: Iterable[Run],
    folder: Callable[[Run], Path],
    is_done: Callable[[Run], bool],
    work: Callable[[Run, Processes], Result],
    finished: Callable[[Run, Result | None], None],
    parallel: int,
    executor: Executor | None = None,
) -> None:
    """Does the work of every run, a few at once, and shares it with other processes that use the same run folders.

    A run is claimed by the lock of its run folder. A run that another process has claimed is left to it. At the end
    such runs are waited for, and done here if the results lack them when they are free, because that process was ended.
    An error or Ctrl-C cancels the runs that wait, and ends those that are running, with time for a last checkpoint.

    Args:
        runs: what the functions are called with.
        folder: the run folder of a run, which every worker sees.
        is_done: whether the results hold a run, which another process may have added; called by workers.
        work: does a run and gives its result, which JSON can hold; it starts its processes in the ``Processes`` that it
            gets. Called by workers: for those in other processes runs, ``is_done`` and ``work`` can be pickled.
        finished: adds a result to the results, one at a time; None if another process did the run.
        parallel: runs at once, of threads.
        executor: of the workers; None: threads.
    """
    executor = executor or ThreadExecutor(parallel)
    left = list(runs)
    free, announced = list(left), False
    try:
        while left:
            claims = [Claim(run, folder(run), is_done, work) for run in free]
            for number, outcome in executor.as_completed(claims):
                if outcome.error is not None:
                    raise outcome.error
                if outcome.claimed:
                    finished(free[number], outcome.result)
                    result_file(claims[number].folder).unlink(missing_ok=True)
                    left.remove(free[number])
            if left and not announced:
                tqdm.write(f"Other processes are doing {len(left)} of the runs; waiting for them.", file=sys.stderr)
                announced = True
            free = []
            while left and not free:
                time.sleep(POLL)
                free = [run for run in left if is_free(folder(run))]
    except BaseException:  # Ctrl-C, a failed run, or results that cannot be written
        executor.cancel()
        raise


def result_file(folder: Path) -> Path:
    """The file for the result of a run that is not among the results yet."""
    return folder.with_name(f".{folder.name}.result.json")


def is_free(folder: Path) -> bool:
    """Whether no process has claimed a run folder."""
    with locked(folder, wait=False) as free:
        return free


def train(
    command: Sequence[str],
    folder: Path,
    processes: Processes,
    seconds: float | None = None,
    memory: PeakMemory | None = None,
) -> None:
    """Runs a training command to its end, from its last checkpoint if the run folder holds an interrupted run.

    Args:
        command: the module and its arguments, without the run folder.
        folder: run folder.
        processes: where its process starts.
        seconds: longest duration; None: no limit.
        memory: sees the most memory that it takes.

    Raises:
        RunFailed: the command stopped with an error.
        subprocess.TimeoutExpired: it took longer than ``seconds``.
    """
    module, *words = command
    words = ["--run-dir", str(folder), "--no-progress", *words]
    if (folder / "config.json").exists():
        words.append("--resume")  # which refuses other arguments
    log = log_file(folder)
    process = processes.start(module, words, log, stop_signal=signal.SIGINT)
    try:
        with nullcontext() if memory is None else memory.watching(process.pid):
            process.wait(seconds)
    finally:
        code = processes.end(process)
    if code != 0:
        output = log.read_text(errors="replace").strip()
        reason = output.partition("error: ")[2] or output.rpartition("\n")[2]
        raise RunFailed(f"stopped with exit code {code}: {reason}")


def log_file(folder: Path) -> Path:
    """The file for what the run of a run folder prints."""
    return folder.parent / "logs" / f"{folder.name}.txt"


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """The evaluations of a run, oldest first: step, reward queries, seconds, and what there is of mIoU, pixel accuracy
    and mean score.

    One whose queries are not known, as the rows before it are damaged, is left out.
    """
    curve: dict[int, dict[str, Any]] = {}
    last: dict[str, Any] = {}
    for row in RunFolder(folder).read_metrics():
        last |= row
        evaluated = {f"val_{name}": round(row[f"val/{name}"], 5) for name in METRICS if f"val/{name}" in row}
        if evaluated and "time/reward_queries" in last:
            curve[last["step"]] = {
                "step": last["step"],
                "reward_queries": int(last["time/reward_queries"]),
                "seconds": round(last["time/seconds"], 1),
                **evaluated,
            }
    return list(curve.values())
