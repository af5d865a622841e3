"""Looks at paths that users give and at what lies there; what fails is one line of ``DatasetError`` with the path."""

from __future__ import annotations

import os
import reprlib
import stat
from pathlib import Path

from rss_env.errors import DatasetError

SHORT = reprlib.Repr()
SHORT.maxstring = 200


def root_path(root: str | Path) -> Path:
    """A root as a path, whether it exists or not; ``~`` and ``~name`` at its start are home folders.

    Raises:
        DatasetError: it is no path, names the home of an unknown user, is too long, or leads through a folder that may
            not be entered.
    """
    try:
        path = Path(root).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # RuntimeError: no such home; ValueError: a NUL
        reason = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        shown = SHORT.repr(str(root) if isinstance(root, os.PathLike) else root)
        raise DatasetError(f"root={shown} is not a path that can be used: {reason}.") from error
    return path


def scan(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, none if it does not exist: one system call for many names, not one for each."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise DatasetError(f"Cannot list the folder {folder}: {_reason(error)}.") from error


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file, or a link that leads to one; False too for a link that leads to itself."""
    try:
        return entry.is_file()
    except OSError:
        return False


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link that leads to one; False too for a link that leads to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def check_file(path: Path) -> None:
    """Raises ``DatasetError`` unless a path leads to a file: to open a named pipe would wait for its writer."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise DatasetError(f"Cannot read {path}: {_reason(error)}.") from error
    if not stat.S_ISREG(mode):
        raise DatasetError(f"Cannot read {path}: it is not a file.")


def has_file(path: Path) -> bool:
    """Whether an optional file is there; ``DatasetError`` if something else is."""
    if os.path.lexists(path):
        check_file(path)
        return True
    return False


def has_folder(path: Path) -> bool:
    """Whether an optional folder is there; ``DatasetError`` if something else is."""
    if os.path.lexists(path) and not path.is_dir():
        raise DatasetError(f"{path} is not a folder.")
    return path.is_dir()


def read_text(path: Path, encoding: str) -> str:
    """The text of a file.

    Raises:
        DatasetError: it is not a file, cannot be read, or is not text in this encoding.
    """
    check_file(path)
    try:
        return path.read_text(encoding=encoding)
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"Cannot read {path}: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
