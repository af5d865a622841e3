"""What takes long to make and all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest


def once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Path]) -> Path:
    """What ``make`` puts into a folder, made by one of the processes that share a run of the suite."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    note = shared / f"{name}.txt"
    with filelock.FileLock(shared / f"{name}.lock"):
        if not note.exists():
            folder = shared / name
            folder.mkdir()
            note.write_text(str(make(folder)))
    return Path(note.read_text())
