"""The runner of training commands: every run has its own process and run folder and is resumed where it stopped.

A suite calls ``run_all``, the place for an executor other than threads; each of its runs calls ``train`` and then
``read_curve``.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from agents.training.run_folder import RunFolder
from benchmarks.memory import PeakMemory
from benchmarks.processes import Processes
from benchmarks.results_file import locked
from rss_env.evaluation import METRICS

POLL = 1.0  # seconds between looks at the runs of other processes

Run = TypeVar("Run")
Result = TypeVar("Result")


class RunFailed(RuntimeError):
    """A training command stopped with an error; the message holds its exit code and the reason that it gave."""


def run_all(
    runs: Iterable[Run],
    folder: Callable[[Run], Path],
    is_done: Callable[[Run], bool],
    work: Callable[[Run, Processes], Result],
    finished: Callable[[Run, Result | None], None],
    parallel: int,
) -> None:
    """Does the work of every run, a few at once, and shares it with other processes that use the same run folders.

    A run is claimed by the lock of its run folder. A run that another process has claimed is left to it. At the end
    such runs are waited for, and done here if the results lack them when they are free, because that process was ended.
    An error or Ctrl-C cancels the runs that wait, and ends those that are running, with time for a last checkpoint.

    Args:
        runs: what the functions are called with, most of them in threads.
        folder: the run folder of a run.
        is_done: whether the results hold a run, which another process may have added.
        work: does a run and gives its result; it starts its processes in the ``Processes`` that it gets.
        finished: adds a result to the results, one at a time; None if another process did the run.
        parallel: runs at once.
    """
    processes, one_at_a_time = Processes(), threading.Lock()

    def do(run: Run) -> bool:
        """Does a run unless another process has claimed it; gives whether the results hold it now."""
        with locked(folder(run), wait=False) as claimed:
            if not claimed:
                return False
            result = None if is_done(run) else work(run, processes)
            if processes.stopped:  # and what the work gave may come from that
                raise KeyboardInterrupt
            with one_at_a_time:
                finished(run, result)
            return True

    left = list(runs)
    announced = False
    with ThreadPoolExecutor(parallel) as pool:
        try:
            while left:
                jobs = {pool.submit(do, run): run for run in left}
                left = [jobs[job] for job in as_completed(jobs) if not job.result()]
                if left and not announced:
                    tqdm.write(f"Other processes are doing {len(left)} of the runs; waiting for them.", file=sys.stderr)
                    announced = True
                time.sleep(POLL if left else 0.0)
        except BaseException:  # Ctrl-C, a failed run, or results that cannot be written
            pool.shutdown(wait=False, cancel_futures=True)
            processes.stop()
            raise


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
