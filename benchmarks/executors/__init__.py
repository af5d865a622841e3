"""Where the runs of a benchmark are done: threads of this process, a Ray cluster or a SLURM cluster."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from benchmarks.processes import Processes
from rss_env.errors import OptionError

Engine = Literal["local", "ray", "slurm"]
Value = TypeVar("Value")
Call = Callable[[Processes], Value]
"""Starts its processes in the ``Processes`` that it gets; what is to leave this machine can be pickled."""

LIBRARIES = {"ray": "ray", "slurm": "submitit"}


class Executor(Protocol):
    """Makes calls, some of them at once, and again elsewhere where a worker was lost."""

    def as_completed(self, calls: Sequence[Call[Value]]) -> Iterator[tuple[int, Value]]:
        """The number of each call and what it gave, as they come.

        Raises:
            WorkerLost: the workers of a call died time after time.
            Exception: a call raised it.
        """
        ...

    def cancel(self) -> None:
        """Ends the calls that are running, with time for a last checkpoint, and forgets those that wait."""
        ...


class WorkerLost(OptionError):
    """The workers that a call was given to died, more often than such things happen by chance."""


def make_executor(engine: Engine, parallel: int, options: Mapping[str, Any], folder: Path) -> Executor:
    """The executor of a command line.

    Args:
        engine: ``local``; ``ray``, an existing cluster: that of ``RAY_ADDRESS``, else that of this machine; or
            ``slurm``, jobs of an array.
        parallel: calls at once.
        options: ``ray``: of its tasks, such as ``num_gpus``; ``slurm``: parameters of submitit, such as
            ``slurm_partition``.
        folder: for files of the engine, where all machines see it.

    Raises:
        OptionError: a library is not installed, no cluster can be reached, or an option is not known.
    """
    library = LIBRARIES.get(engine)
    if library is not None and importlib.util.find_spec(library) is None:
        raise OptionError(f"--engine {engine} needs {library}: pip install 'rss-env[{engine}]'.")
    if engine == "ray":
        from benchmarks.executors.on_ray import RayExecutor

        return RayExecutor(parallel, options)
    if engine == "slurm":
        from benchmarks.executors.on_slurm import SlurmExecutor

        return SlurmExecutor(parallel, options, folder / "slurm")
    if options:
        raise OptionError("--engine-options are for --engine ray and slurm.")
    from benchmarks.executors.threads import ThreadExecutor

    return ThreadExecutor(parallel)
