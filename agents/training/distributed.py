"""The processes of a job: one, or several that ``torchrun`` started and that share every update.

    torchrun --nproc-per-node=2 -m agents.rss --env-id RSS-Shapes-ImageReward-v0 …

``--batch-size`` is the number of images of the whole update: each process shows its share of them, the images are those
that one process would show, gradients are averaged by ``DistributedDataParallel``, advantages share one scale
(``plugins.sync_an``), and only process 0 writes the run folder and evaluates. A process that dies ends the job, and so
does a launcher that dies.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from ..errors import JobError

TIMEOUT = timedelta(minutes=30)  # process 0 evaluates while the others wait
GRACE = 20.0  # seconds that a process whose launcher is gone has for a last checkpoint
Value = TypeVar("Value")


class Job:
    """The processes that train together; without ``torchrun`` only this process.

    Attributes:
        rank: number of this process, 0..size-1.
        size: number of processes.
    """

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))

    def start(self, device: torch.device) -> torch.device:
        """Connects the processes: with NCCL on CUDA devices, of which each gets its own, else with Gloo."""
        if self.size == 1:
            return device
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(device)
        if "TORCHELASTIC_RUN_ID" in os.environ:
            threading.Thread(None, _end_with, args=[os.getppid()], daemon=True).start()
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
        return device

    @property
    def is_main(self) -> bool:
        """Whether this is process 0, which writes."""
        return self.rank == 0

    def on_main(self, function: Callable[[], Value]) -> Value | None:
        """Runs a function in process 0 while the others wait.

        Returns:
            What it returned, in process 0; None in the others.

        Raises:
            JobError: in the other processes, if it raised in process 0.
        """
        if self.size == 1:
            return function()
        failed: list[Any] = [None]
        value, error = None, None
        if self.is_main:
            try:
                value = function()
            except BaseException as raised:
                error, failed = raised, [f"{type(raised).__name__}: {raised}"]
        distributed.broadcast_object_list(failed)
        if error is not None:
            raise error
        if failed[0] is not None:
            raise JobError(f"process 0 failed: {failed[0]}")
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; every process must ask."""
        if self.size == 1:
            return flag
        answer = torch.tensor([float(flag)], device=self._device())
        distributed.all_reduce(answer, op=distributed.ReduceOp.MAX)
        return bool(answer)

    def sum(self, number: float) -> float:
        """Sum over the processes; every process must ask."""
        if self.size == 1:
            return number
        total = torch.tensor([number], dtype=torch.float64, device=self._device())
        distributed.all_reduce(total)
        return float(total)

    def broadcast(self, value: Value) -> Value:
        """The value of process 0; every process must ask."""
        if self.size == 1:
            return value
        values: list[Any] = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, by rank; every process must ask."""
        return gather_over_processes(value)

    def mean(self, metrics: dict[str, float]) -> dict[str, float]:
        """Mean of every metric over the processes, which all must have the same ones."""
        if self.size == 1:
            return metrics
        values = torch.tensor([metrics[name] for name in sorted(metrics)], dtype=torch.float64, device=self._device())
        distributed.all_reduce(values)
        return dict(zip(sorted(metrics), (values / self.size).tolist(), strict=True))

    def close(self) -> None:
        """Disconnects the processes."""
        if self.size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()

    def _device(self) -> torch.device:
        return torch.device("cuda") if distributed.get_backend() == "nccl" else torch.device("cpu")


def _end_with(launcher: int) -> None:
    """Ends this process when its launcher is gone: who waits for the others at the start would wait half an hour."""
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)  # as if it were asked to stop: the step at hand ends with a checkpoint
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)  # it waits for something that does not come


def mean_over_processes(values: Sequence[torch.Tensor]) -> Any:
    """Mean over a list and the processes of the job: of numbers a number, of tensors lists as ``tolist`` gives them."""
    mean = torch.stack(list(values)).mean(dim=0)
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(mean)
        mean /= distributed.get_world_size()
    return mean.tolist()


def gather_over_processes(value: Value) -> list[Value]:
    """The values of all processes of the job, by rank."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, value)
    return gathered


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether an error of ``torch.distributed`` means that another process is gone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return False
    said = str(error).lower()
    return isinstance(error, distributed.DistError) or any(
        word in said for word in ("gloo", "nccl", "connection", "timed out", "peer")
    )
