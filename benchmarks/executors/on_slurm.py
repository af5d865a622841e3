"""Calls as the jobs of a SLURM array, through submitit."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError

from benchmarks.executors import Call, Value, WorkerLost
from benchmarks.executors.node import OnNode
from benchmarks.processes import ROOT
from rss_env.errors import OptionError

POLL = 1.0  # seconds between looks at the files of the jobs
TRIES = 10  # of a call whose job ends without a result
JOB = {"name": "rss", "cpus_per_task": 1, "timeout_min": 240, "slurm_max_num_timeout": 100}


class Requeued(OnNode[Value]):
    """A call that is queued again when its job is preempted or its time is up."""

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called by submitit before the job ends; what it gives is what the job does next."""
        self.stop()
        return submitit.helpers.DelayedSubmission(Requeued(self.call, self.folder))


class SlurmExecutor:
    """Submits an array, so many of whose jobs run at once; jobs outlive the process that submitted them.

    The option ``cluster`` may be ``"local"``: the same on this machine, without SLURM.
    """

    def __init__(self, parallel: int, options: Mapping[str, Any], folder: Path) -> None:
        settings = JOB | {"slurm_array_parallelism": parallel} | dict(options)
        cluster = settings.pop("cluster", "slurm")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        try:
            self._executor = submitit.AutoExecutor(
                folder, cluster=cluster, slurm_max_num_timeout=settings.pop("slurm_max_num_timeout")
            )
            self._executor.update_parameters(**settings)
        except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:  # submitit asserts types
            raise OptionError(f"--engine slurm: {error}") from error
        self._most = parallel if cluster == "local" else None  # SLURM itself keeps to it
        self._jobs: dict[submitit.Job[Any], int] = {}

    def as_completed(self, calls: Sequence[Call[Value]]) -> Iterator[tuple[int, Value]]:
        waiting, lost = deque(range(len(calls))), Counter[int]()
        while waiting or self._jobs:
            room = len(waiting) if self._most is None else min(len(waiting), self._most - len(self._jobs))
            self._submit([waiting.popleft() for _ in range(room)], calls)
            for job in [job for job in self._jobs if job.done()]:
                number = self._jobs.pop(job)
                try:
                    value = job.result()
                except FailedJobError as error:
                    raise WorkerLost(f"--engine slurm: a job failed: {said(error)}") from error
                except UncompletedJobError as error:  # it was killed, or its machine is gone
                    lost[number] += 1
                    if lost[number] == TRIES:
                        raise WorkerLost(f"--engine slurm: {TRIES} jobs of a run were lost: {said(error)}") from error
                    waiting.append(number)
                else:
                    yield number, value
            time.sleep(POLL if self._jobs else 0.0)

    def cancel(self) -> None:
        for job in self._jobs:
            job.cancel(check=False)
        self._jobs.clear()

    def _submit(self, numbers: Sequence[int], calls: Sequence[Call[Any]]) -> None:
        """Submits these calls, as an array where they are several."""
        if not numbers:
            return
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(Requeued(calls[number])) for number in numbers]
        except (FailedSubmissionError, subprocess.CalledProcessError) as error:
            raise OptionError(f"--engine slurm: {said(error)}") from error
        self._jobs |= dict(zip(jobs, numbers, strict=True))


def said(error: Exception) -> str:
    """The last line of an error that holds what a job printed."""
    return str(error).strip().rpartition("\n")[2]
