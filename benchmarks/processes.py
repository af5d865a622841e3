"""Processes of a benchmark: each ends with all that it started, and with the benchmark.

python -m benchmarks.processes MODULE WORDS…     runs python -m MODULE WORDS… until its standard input ends
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.process_tree import kill_descendants, lead

ROOT = Path(__file__).parent.parent
PATIENCE = 20.0  # seconds that a process has to write a last checkpoint


class Processes:
    """The processes that are running; used from several threads.

    Attributes:
        stopped: whether ``stop`` was called; no process starts any more.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._lock = threading.Lock()
        self._signals: dict[subprocess.Popen[bytes], signal.Signals] = {}

    def start(
        self,
        module: str,
        words: Sequence[str],
        log: Path,
        stop_signal: signal.Signals = signal.SIGKILL,
        pass_fds: Sequence[int] = (),
        folder: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Starts ``python -m module words`` on one thread, in its own process group.

        Args:
            module: runs as ``__main__``.
            words: its command line.
            log: file for what it prints.
            stop_signal: the signal that ``stop`` sends it.
            pass_fds: file descriptors that it inherits.
            folder: its working folder; None for that of this process.
            variables: further variables of its environment.

        Raises:
            OSError: the log cannot be written, or no process can be started.
            KeyboardInterrupt: ``stop`` was called.
        """
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | dict(variables or {})
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        log.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, log.open("wb") as output:
            if self.stopped:
                raise KeyboardInterrupt
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.processes", module, *words],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,  # ends when this process does, however that happens
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C reaches it only through stop()
                pass_fds=pass_fds,
            )
            self._signals[process] = stop_signal
        return process

    def end(self, process: subprocess.Popen[bytes]) -> int:
        """Kills a process and everything that it started; returns its exit code."""
        kill(process)
        code = process.wait()
        with self._lock:
            self._signals.pop(process, None)
        if process.stdin is not None:
            process.stdin.close()
        return code

    def stop(self) -> None:
        """Ends every process, with time for a last checkpoint where its signal allows one; no other starts."""
        with self._lock:
            self.stopped = True
            running = dict(self._signals)
        for process, number in running.items():
            send(process, number)
        until = time.monotonic() + PATIENCE
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
            kill(process)


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Sends a signal to a process and its process group."""
    with suppress(ProcessLookupError, PermissionError):  # nobody is left
        os.killpg(process.pid, number)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and everything that it started, whatever process group or session that made for itself."""
    if process.poll() is None:  # else it has seen to that, and its number may be another's
        kill_descendants(process.pid)
    send(process, signal.SIGKILL)


def run_module() -> None:
    """Runs the module of the command line with its words."""
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    lead(run_module)
