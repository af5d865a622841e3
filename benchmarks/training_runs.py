"""The runner of training commands: every run has its own process and run folder and is resumed where it stopped.

A suite calls ``run_all``, the place for an executor other than threads; each of its runs calls ``train`` and then
``read_curve``.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from agents.training.run_folder import RunFolder
from benchmarks.processes import Processes

Run = TypeVar("Run")
Result = TypeVar("Result")


class RunFailed(RuntimeError):
    """A training command stopped with an error; the message holds its exit code and the reason that it gave."""


def run_all(
    runs: Iterable[Run],
    work: Callable[[Run, Processes], Result],
    finished: Callable[[Run, Result], None],
    parallel: int,
) -> None:
    """Does the work of every run, a few at once.

    An error or Ctrl-C cancels the runs that wait, and ends those that are running, with time for a last checkpoint.

    Args:
        runs: what ``work`` is called with, each in a thread.
        work: does a run and gives its result; it starts its processes in the ``Processes`` that it gets.
        finished: takes each result as it comes, in the thread of the caller.
        parallel: runs at once.
    """
    processes = Processes()
    with ThreadPoolExecutor(parallel) as pool:
        jobs = {pool.submit(work, run, processes): run for run in runs}
        try:
            for job in as_completed(jobs):
                finished(jobs[job], job.result())
        except BaseException:  # Ctrl-C, a failed run, or results that cannot be written
            pool.shutdown(wait=False, cancel_futures=True)
            processes.stop()
            raise


def train(command: Sequence[str], folder: Path, processes: Processes, seconds: float | None = None) -> None:
    """Runs a training command to its end, from its last checkpoint if the run folder holds an interrupted run.

    Args:
        command: the module and its arguments, without the run folder.
        folder: run folder.
        processes: where its process starts.
        seconds: longest duration; None: no limit.

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
    """The evaluations of a run, oldest first: step, reward queries, seconds, mIoU and pixel accuracy."""
    curve: dict[int, dict[str, Any]] = {}
    last: dict[str, Any] = {}
    for row in RunFolder(folder).read_metrics():
        last |= row
        if "val/miou" in row:
            curve[last["step"]] = {
                "step": last["step"],
                "reward_queries": int(last["time/reward_queries"]),
                "seconds": round(last["time/seconds"], 1),
                "val_miou": round(last["val/miou"], 5),
                "val_pixel_accuracy": round(last["val/pixel_accuracy"], 5),
            }
    return list(curve.values())
