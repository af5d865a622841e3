"""How much memory a process and everything below it take."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.process_tree import descendants

EVERY = 0.25  # seconds between two looks


class PeakMemory:
    """The most resident memory that a process tree had at any look; memory that two processes share counts twice.

    Attributes:
        mebibytes: the peak so far; None where there is no ``/proc``.
    """

    def __init__(self) -> None:
        self.mebibytes: float | None = None

    @contextmanager
    def watching(self, pid: int) -> Iterator[None]:
        """Looks at the tree of process ``pid`` a few times a second while this is entered."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(EVERY):
                self._look(pid)

        self._look(pid)
        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _look(self, pid: int) -> None:
        if sys.platform != "linux":
            return
        resident = sum(map(resident_bytes, (pid, *descendants(pid)))) / (1 << 20)
        self.mebibytes = max(resident, self.mebibytes or 0.0)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, by Linux's ``/proc``; 0 if there is none."""
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
