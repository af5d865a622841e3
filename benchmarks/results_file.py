"""Result files: CSV rows that say what they were measured on."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import torch

from rss_env.errors import OptionError

RESULTS = Path(__file__).parent / "results"
Row = dict[str, str]
Table = list[list[str]]  # of a page: the heading, then the lines


def provenance() -> dict[str, Any]:
    """Where and with what a row was measured: device, versions, commit (with a ``+`` if files differ from it), date."""
    return {
        "device": device_name(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit(),
        "date": date.today().isoformat(),
    }


def device_name(threads: int | None = None) -> str:
    """The GPU's name, or the processor's model and the number of threads (default: what torch uses)."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {threads or torch.get_num_threads()} threads"


def commit() -> str:
    """Short hash of the checked-out commit, with a ``+`` if tracked files differ from it; ``unknown`` outside git."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + "+" * bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Replaces a CSV file with these rows; the columns are by default those of the first one."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if columns is None else columns)
        writer.writeheader()
        writer.writerows(rows)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a file next to ``path`` to write, which replaces it at the end; after an error ``path`` is as it was.

    Raises:
        OSError: the folder cannot be written; it names ``path``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.writing{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raises ``OSError`` that names ``path`` if no file can be written next to it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error


def read_rows(path: Path, columns: Iterable[str] = ()) -> list[Row]:
    """The rows of a CSV file; none if there is no file.

    Raises:
        OptionError: it is no CSV file, or lacks one of ``columns``.
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        try:
            rows = list(csv.DictReader(file))
        except (ValueError, csv.Error) as error:
            raise OptionError(f"{path} cannot be read as CSV: {error}.") from error
    lacking = [name for name in columns if rows and name not in rows[0]]
    if lacking:
        raise OptionError(f"{path} holds other results: it has no column {lacking[0]!r}.")
    return rows


def results_of(path: Path, module: str, columns: Iterable[str]) -> list[Row]:
    """The rows of a file that ``module`` wrote.

    Raises:
        OptionError: there are none, or the file holds other results.
    """
    rows = read_rows(path, columns)
    if not rows:
        raise OptionError(f"{path} holds no results yet; python -m {module} writes them.")
    return rows
