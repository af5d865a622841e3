"""Processes of a benchmark: each leads a group of its own, which ends with it and with the benchmark.

python -m benchmarks.child MODULE WORDS…     is python -m MODULE WORDS…, ended when its standard input ends
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent
PATIENCE = 20.0  # seconds that a process has for a last checkpoint


class Children:
    """The processes that were started and not yet ended; used from several threads.

    Attributes:
        stopped: whether ``stop`` was called; no process is started any more.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._lock = threading.Lock()
        self._ending: dict[subprocess.Popen[bytes], signal.Signals] = {}

    def start(
        self,
        module: str,
        words: Sequence[str],
        log: Path | None = None,
        ending: signal.Signals = signal.SIGKILL,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Starts ``python -m module words`` on one thread, in a process group of its own.

        Args:
            module: to run as ``__main__``.
            words: its command line.
            log: file for what it prints; None: nowhere.
            ending: the signal by which ``stop`` ends it.
            pass_fds: file descriptors that it inherits.

        Raises:
            OSError: the log cannot be written, or no process can be started.
            KeyboardInterrupt: ``stop`` was called.
        """
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, Path(log or os.devnull).open("wb") as said:
            if self.stopped:
                raise KeyboardInterrupt
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.child", module, *words],
                env=environment,
                stdin=subprocess.PIPE,  # ends when this process does, however that happens
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C reaches it from here alone
                pass_fds=pass_fds,
            )
            self._ending[process] = ending
        return process

    def end(self, process: subprocess.Popen[bytes]) -> int:
        """Kills a process with all that it started, and returns its exit code."""
        kill(process, signal.SIGKILL)
        code = process.wait()
        with self._lock:
            self._ending.pop(process, None)
        if process.stdin is not None:
            process.stdin.close()
        return code

    def stop(self) -> None:
        """Ends every process, with time for a last checkpoint where its signal lets it write one; starts no other."""
        with self._lock:
            self.stopped = True
            running = dict(self._ending)
        for process, ending in running.items():
            kill(process, ending)
        until = time.monotonic() + PATIENCE
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
            kill(process, signal.SIGKILL)


def kill(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Sends a signal to a process and all that it started."""
    with suppress(ProcessLookupError, PermissionError):  # nobody is left
        os.killpg(process.pid, number)


def end_with_parent() -> None:
    """Kills this process's group when its standard input ends; what runs here sees an empty one."""
    parent = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def watch() -> None:
        os.read(parent, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
