"""The time of a call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def median_seconds(work: Callable[[], Any], repeats: int, device: torch.device | None = None) -> float:
    """Median time of a call, after two to warm up.

    Args:
        work: the call.
        repeats: calls that are timed.
        device: waited for before and after each call, if it is a CUDA device.
    """
    times = []
    for repeat in range(repeats + 2):
        wait_for(device)
        began = time.perf_counter()
        work()
        wait_for(device)
        if repeat >= 2:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def wait_for(device: torch.device | None) -> None:
    """Returns when a CUDA device has done its work; any other has none outstanding."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize()
