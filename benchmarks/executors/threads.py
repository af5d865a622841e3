"""Calls in threads of this process, for which they start processes of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from benchmarks.executors import Call, Value
from benchmarks.processes import Processes


class ThreadExecutor:
    """An executor of so many threads."""

    def __init__(self, parallel: int) -> None:
        self._pool = ThreadPoolExecutor(parallel)
        self._processes = Processes()

    def as_completed(self, calls: Sequence[Call[Value]]) -> Iterator[tuple[int, Value]]:
        jobs = {self._pool.submit(call, self._processes): number for number, call in enumerate(calls)}
        for job in as_completed(jobs):
            yield jobs[job], job.result()

    def cancel(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._processes.stop()
        self._pool.shutdown()
