"""The process of an entry: runs its file and reports everything that goes wrong to the judge.

    python -m benchmarks.leaderboard.entry_process DESCRIPTOR DESCRIPTOR FILE FACTS     started by the judge

There are two sockets: one for training, and one for what follows. On the second the judge says that training is over,
also to an entry that is late and does not listen, and then sends the test images.

What the entry prints, and the traceback of what it raises, is in the log of the run.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import rss_env.datasets
import rss_env.task
from benchmarks.leaderboard.messages import HEAD, Channel
from benchmarks.leaderboard.trial import BudgetSpent, Trial, TrialEnded

NAME = "entry"  # of the entry's module, whatever its file is called
FILE = "RSS_LEADERBOARD_ENTRY"  # variable of the environment: that file, for the processes that the entry starts


class EntryFinder:
    """Makes a file importable as the module ``entry``; pickles name the functions of an entry by it.

    Args:
        path: the entry's file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the import system asks every finder."""
        if name != NAME:
            return None
        return spec_from_file_location(NAME, self.path, loader=SourceFileLoader(NAME, str(self.path)))


class Curfew:
    """Ends the training of an entry when the judge says so, wherever its main thread is.

    Args:
        stream: to the judge, whose first message this is.
    """

    def __init__(self, stream: Channel) -> None:
        self.stream = stream
        self.training = True
        signal.signal(signal.SIGUSR1, self._interrupt)
        self._waiting = threading.Thread(target=self._wait, daemon=True)
        self._waiting.start()

    def wait(self) -> None:
        """Returns when the judge has spoken; training has ended."""
        self.training = False
        self._waiting.join()

    def _wait(self) -> None:
        with suppress(ConnectionError):
            self.stream.receive()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def _interrupt(self, *_: object) -> None:
        if self.training:
            self.training = False
            raise TrialEnded("The judge has ended the training.")


def run_entry(stream: socket.socket, after: socket.socket, path: Path, facts: dict[str, Any]) -> None:
    """Runs an entry's file in this process.

    Args:
        stream: socket to the judge.
        after: socket to the judge for what follows the training.
        path: the file.
        facts: arguments of ``Trial``.
    """
    trial, answers = Trial(stream, facts), Channel(after)
    close_the_wall(lambda what: trial.ask("forbidden", what))
    trial.tell("ready")
    curfew = Curfew(answers)
    message: tuple[str, str | None] = ("done", None)
    try:
        load_train(path)(trial)
    except (BudgetSpent, TrialEnded):
        pass
    except BaseException as error:  # sys.exit too: an entry that leaves early has failed
        message = said_of(error, path)
    if curfew.training:  # else the judge has spoken first and does not listen
        with suppress(TrialEnded):
            trial.tell(*message)
    curfew.wait()
    try:
        trial.answer_tests(answers)
    except BaseException as error:
        with suppress(ConnectionError):
            answers.send(*said_of(error, path))


def said_of(error: BaseException, path: Path) -> tuple[str, str]:
    """The message about an error, whose traceback is printed."""
    traceback.print_exception(error)
    return "raised", describe(error, path)[: HEAD // 16]


def load_train(path: Path) -> Callable[[Trial], Any]:
    """Imports an entry's file, which may import its neighbours, and returns its function ``train``."""
    sys.argv = [str(path)]
    os.environ[FILE] = str(path)
    sys.path.append(str(path.parent))
    sys.meta_path.insert(0, EntryFinder(path))
    train = getattr(importlib.import_module(NAME), "train", None)
    if not callable(train):
        raise AttributeError(f"{path.name} has no function train(trial).")
    return train


def describe(error: BaseException, path: Path) -> str:
    """One line: what was raised and the last line of the entry's file on the way there."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({Path(error.filename or path).name}, line {error.lineno})"
    said = traceback.format_exception_only(error)[-1].strip()  # works for an error that cannot be printed
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{said} ({path.name}, line {lines[-1]})" if lines else said


def close_the_wall(refuse: Callable[[str], Any]) -> None:
    """Closes every way of this package to a data set: an entry has no business with one.

    Args:
        refuse: called with what was tried.
    """
    data = rss_env.datasets.__name__

    def forbid(*args: Any, **kwargs: Any) -> Any:
        refuse("a data set of its own")
        raise PermissionError("An entry may not open a data set.")

    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == rss_env.__name__]
    for module in modules:
        for name, value in list(vars(module).items()):
            if inspect.isfunction(value) and (value.__module__ or "").startswith(data):
                setattr(module, name, forbid)
    for name, entry in rss_env.datasets.DATASETS.items():
        rss_env.datasets.DATASETS[name] = dataclasses.replace(entry, locate=None, generate=forbid)
    rss_env.task.SegmentationTask.__init__ = forbid  # type: ignore[method-assign]
    rss_env.task.SegmentationTask.check_names = forbid  # type: ignore[method-assign]

    folder = str(Path(rss_env.datasets.__file__).parent) + os.sep

    def audit(event: str, arguments: Sequence[Any]) -> None:
        """Sees the code of a module before it is run again; Python has no way to remove it."""
        if event == "exec" and getattr(arguments[0], "co_filename", "").startswith(folder):
            forbid()

    sys.addaudithook(audit)


if __name__ == "__main__":
    *descriptors, file, facts = sys.argv[1:]
    first, second = (socket.socket(fileno=int(descriptor)) for descriptor in descriptors)
    run_entry(first, second, Path(file), json.loads(facts))
elif __name__ == "__mp_main__":  # a worker that the entry spawned; it has the entry's sys.path

    def refuse_quietly(what: str) -> None:
        """The judge hears of it as an error of the worker."""

    sys.meta_path.insert(0, EntryFinder(Path(os.environ[FILE])))
    close_the_wall(refuse_quietly)
