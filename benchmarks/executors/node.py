"""A call on another machine, which may be told at any time to stop."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Generic

from benchmarks.executors import Call, Value
from benchmarks.processes import Processes

POLL = 0.5  # seconds, after which an interruption is seen at the latest


class OnNode(Generic[Value]):
    """Makes a call in the working folder of the process that made this, on any machine that sees that folder.

    A thread makes the call, and the main thread waits for it. When that is interrupted (Ctrl-C, or the word of a
    scheduler) the processes of the call end with time for a last checkpoint, and when this process is killed they die.
    """

    def __init__(self, call: Call[Value], folder: Path | None = None) -> None:
        self.call, self.folder = call, folder or Path.cwd()

    def __call__(self) -> Value:
        os.chdir(self.folder)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what was started in the background ignores it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray blocks it, for processes of the call as well
        self._processes = Processes()
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(self.call, self._processes)
            try:
                while not wait([job], POLL).done:
                    pass
            except BaseException:
                self.stop()
                raise
            return job.result()

    def stop(self) -> None:
        """Ends the processes of the call, with time for a last checkpoint."""
        self._processes.stop()
