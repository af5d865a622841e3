"""Calls as tasks of a Ray cluster that is there already."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from benchmarks.executors import Call, Value, WorkerLost
from benchmarks.executors.node import OnNode
from benchmarks.processes import PATIENCE, ROOT
from rss_env.errors import OptionError

TASK = {"num_cpus": 1, "max_retries": 10}  # a task whose worker or machine dies is begun again so often


class RayExecutor:
    """Gives the cluster so many tasks at a time; the tasks of a process that dies end with it."""

    def __init__(self, parallel: int, options: Mapping[str, Any]) -> None:
        variables = {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "RAY_kill_child_processes_on_worker_exit": "0",  # kills those only that see to the end of all others
        }
        try:
            ray.init(
                address=os.environ.get("RAY_ADDRESS", "auto"),
                runtime_env={"env_vars": variables},
                log_to_driver=False,
                logging_level="ERROR",
                ignore_reinit_error=True,
            )
        except ConnectionError as error:
            raise OptionError(
                "--engine ray finds no cluster: start one with ray start --head, or set RAY_ADDRESS."
            ) from error
        try:
            self._task = ray.remote(**TASK | dict(options))(make)
        except (TypeError, ValueError) as error:
            raise OptionError(f"--engine-options: {error}") from error
        self._parallel = parallel
        self._running: dict[Any, int] = {}

    def as_completed(self, calls: Sequence[Call[Value]]) -> Iterator[tuple[int, Value]]:
        waiting = deque(enumerate(calls))
        while waiting or self._running:
            while waiting and len(self._running) < self._parallel:
                number, call = waiting.popleft()
                self._running[self._task.remote(OnNode(call))] = number
            (reference,), _ = ray.wait(list(self._running))
            number = self._running.pop(reference)
            try:
                value = ray.get(reference)
            except RayError as error:
                raise WorkerLost(f"a task was lost for good: {str(error).strip().splitlines()[-1]}") from error
            yield number, value

    def cancel(self) -> None:
        for reference in self._running:
            ray.cancel(reference)
        if self._running:
            ray.wait(list(self._running), num_returns=len(self._running), timeout=2 * PATIENCE)
        self._running.clear()


def make(call: OnNode[Value]) -> Value:
    """Makes a call; the task."""
    return call()
