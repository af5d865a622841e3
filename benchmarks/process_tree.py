"""Everything that a process started, also what left its process group or session: found and ended together.

On Linux a process that leads such a tree adopts whatever in it loses its parent, so that nothing leaves the tree by a
double fork, and ``/proc`` shows who is in it. Other systems have neither; there process groups must do.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # of linux/prctl.h
PATIENCE = 5.0  # seconds that killed processes may take to be gone


def lead(work: Callable[[], None]) -> NoReturn:
    """Does the work in a child process, and ends with it and with everything that it started.

    This process adopts what loses its parent. Its exit code, or the signal that ends it, is that of the child. The end
    of its standard input ends everything; the child reads an empty one.
    """
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    leader = os.getpid()
    child = os.fork()
    if child == 0:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # this process may be killed and have no time for that
        if os.getppid() != leader:  # it was, before
            os.kill(os.getpid(), signal.SIGKILL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        work()
        sys.exit()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # sent to the group, it is for the child to answer
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # the child's: only it keeps them open

    def watch() -> None:
        os.read(0, 1)
        kill_descendants(os.getpid())
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    reaped = 0
    while reaped != child:
        reaped, status = os.waitpid(-1, 0)
    kill_descendants(os.getpid())
    end_like(os.waitstatus_to_exitcode(status))


def prctl(option: int, value: int) -> None:
    """Sets an option of this process, where there is such a thing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def end_like(code: int) -> NoReturn:
    """Ends this process with an exit code, or with a signal if the code is negative."""
    if code < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the one that crashed has left its own
        with suppress(OSError):  # SIGKILL is nobody's to choose
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def kill_descendants(pid: int) -> None:
    """Kills every process that descends from this one, itself not; where there is no ``/proc``, none."""
    until = time.monotonic() + PATIENCE
    living = True
    while living and time.monotonic() < until:
        stopped: set[int] = set()
        while new := descendants(pid).keys() - stopped:  # first nobody may start another, then all are killed
            send_each(new, signal.SIGSTOP)
            stopped |= new
        send_each(stopped, signal.SIGKILL)
        living = any(descendants(pid).values())


def descendants(pid: int) -> dict[int, bool]:
    """The processes below a process, and whether each is alive: one that only waits for its parent to notice is not."""
    children: dict[int, list[tuple[int, bool]]] = {}
    for file in Path("/proc").glob("[0-9]*/stat") if sys.platform == "linux" else ():
        with suppress(OSError):  # it has ended meanwhile
            state, parent = file.read_text(errors="replace").rpartition(")")[2].split()[:2]
            children.setdefault(int(parent), []).append((int(file.parent.name), state not in "ZX"))
    found: dict[int, bool] = {}
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo += [child for child, _ in below]
    return found


def send_each(pids: Iterable[int], number: signal.Signals) -> None:
    """Sends a signal to these processes, as far as they are there."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
