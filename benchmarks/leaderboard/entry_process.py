"""The process of an entry: runs its file and reports everything that goes wrong to the judge.

    python -m benchmarks.leaderboard.entry_process DESCRIPTOR FILE FACTS     started by the judge

What the entry prints, and the traceback of what it raises, is in the log of the run.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
import traceback
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import rss_env.datasets.shapes
import rss_env.task
from benchmarks.leaderboard.trial import BudgetSpent, Trial, TrialEnded
from rss_env.datasets import DATASETS


def run_entry(pipe: Connection, path: Path, facts: dict[str, Any]) -> None:
    """Runs an entry's file in this process.

    Args:
        pipe: connection to the judge.
        path: the file.
        facts: arguments of ``Trial``.
    """
    trial = Trial(pipe, facts)
    close_the_wall(trial)
    pipe.send(("ready", None))
    message: tuple[str, str | None] = ("done", None)
    try:
        load_train(path)(trial)
    except (BudgetSpent, TrialEnded):
        pass
    except BaseException as error:  # sys.exit too: an entry that leaves early has failed
        traceback.print_exc()
        message = ("raised", describe(error, path))
    try:
        pipe.send(message)
    except OSError:  # the judge has ended the trial
        sys.exit(1)


def load_train(path: Path) -> Callable[[Trial], Any]:
    """Imports an entry's file, which may import its neighbours, and returns its function ``train``."""
    sys.argv = [str(path)]
    sys.path.append(str(path.parent))
    loader = SourceFileLoader("entry", str(path))
    spec = importlib.util.spec_from_loader("entry", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["entry"] = module  # where dataclasses and pickle look for it
    loader.exec_module(module)
    train = getattr(module, "train", None)
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


def close_the_wall(trial: Trial) -> None:
    """Makes every way of this package to a data set end the trial: an entry has no business with one."""

    def forbid(*args: Any, **kwargs: Any) -> Any:
        trial.ask("forbidden", "a data set of its own")

    for name, entry in DATASETS.items():
        DATASETS[name] = dataclasses.replace(entry, locate=None, generate=forbid)
    rss_env.datasets.load_dataset = rss_env.task.load_dataset = forbid
    rss_env.datasets.shapes.load = rss_env.datasets.shapes.draw_scene = forbid
    rss_env.task.SegmentationTask.__init__ = forbid  # type: ignore[method-assign]


if __name__ == "__main__":
    descriptor, file, facts = sys.argv[1:]
    run_entry(Connection(int(descriptor)), Path(file), json.loads(facts))
