"""Ctrl-C and SIGTERM while training: the step at hand ends, a checkpoint is written, and the run can be resumed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """True once the run was asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def __bool__(self) -> bool:
        return self.requested


@contextmanager
def interruption() -> Iterator[Interruption]:
    """Lets the step at hand end, and its checkpoint be written, on Ctrl-C or SIGTERM; a second Ctrl-C stops at once."""
    flag = Interruption()

    def request(number: int, frame: FrameType | None) -> None:
        if flag.requested and number == signal.SIGINT:  # SIGTERM comes twice: from a launcher, and for want of it
            raise KeyboardInterrupt
        flag.requested = True

    try:
        before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals stay with whoever owns them
        before = {}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
