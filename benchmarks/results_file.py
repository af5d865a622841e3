"""Result files: CSV rows that say what they were measured on, written by any number of processes at once.

A file is replaced as a whole: readers never wait and never see half of it. It is read and replaced under a lock:
no writer takes back what another added.
"""

from __future__ import annotations

import csv
import errno
import io
import platform
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import date
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from agents.checksums import sync
from rss_env.errors import OptionError

RESULTS = Path(__file__).parent / "results"
Row = dict[str, str]
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
Table = list[list[str]]  # of a page: the heading, then the lines


def provenance(device: torch.device | None = None) -> dict[str, Any]:
    """Where and with what a row was measured: device, versions, commit (with a ``+`` if files differ from it), date.

    Args:
        device: what was measured; None: the GPU where there is one.
    """
    return {
        "device": device_name(device=device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit(),
        "date": date.today().isoformat(),
    }


def device_name(threads: int | None = None, device: torch.device | None = None) -> str:
    """The GPU's name, or the processor's model and the number of threads.

    Args:
        threads: None: as many as torch uses.
        device: None: the GPU where there is one.
    """
    if torch.cuda.is_available() if device is None else device.type == "cuda":
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


def add_rows(path: Path, rows: Sequence[Mapping[str, Any]], key: Sequence[str]) -> None:
    """Adds rows at the end of a CSV file; rows of the file with the key of a new one go.

    Args:
        path: results file, which other processes may write and read at the same time.
        rows: of columns that the file lacks, which it then gets, or without some that it has.
        key: columns that tell what a row is about. Rows with one key, as those of one run, are replaced together.

    Raises:
        OptionError: the file holds other results, or cannot be read as CSV.
        OSError: the file cannot be written or locked.
    """

    def of(row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in key)

    new = {of(row) for row in rows}
    update_rows(path, lambda held: [*(row for row in held if of(row) not in new), *rows], key)


def update_rows(
    path: Path, change: Callable[[list[Row]], Sequence[Mapping[str, Any]]], columns: Iterable[str] = ()
) -> None:
    """Replaces the rows of a CSV file by what ``change`` makes of them, while no other process writes.

    Args:
        path: results file.
        change: gets the rows that the file holds now.
        columns: that the file must have.

    Raises:
        OptionError: the file holds other results, or cannot be read as CSV.
        OSError: the file cannot be written or locked.
    """
    with locked(path):
        heading, held = _read(path, columns)
        rows = change(list(held))
        if list(rows) == held:
            return
        heading = list(dict.fromkeys([*heading, *(name for row in rows for name in row)]))
        with _replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, heading)
            writer.writeheader()
            writer.writerows(rows)


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Holds the lock of a file or folder against threads, processes and machines that share its file system.

    What is locked is the file ``.NAME.lock`` next to ``path``. It stays behind, for whoever opened it to wait. The lock
    itself ends with its process, however that ends.

    Args:
        path: need not exist.
        wait: for another that holds the lock.

    Yields:
        Whether the lock is held; False if another holds it and ``wait`` is False.

    Raises:
        OSError: nothing can be written next to ``path``, or its file system has no locks; it names ``path``.
    """
    place = path.resolve()
    lock = FileLock(place.with_name(f".{place.name}.lock"), poll_interval=0.01, fallback_to_soft=False)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        pass
    except OSError as error:
        reason = "its file system has no locks; choose another folder" if error.errno in NO_LOCKS else error.strerror
        raise OSError(error.errno, f"cannot write {path}: {reason}") from error
    try:
        yield lock.is_locked
    finally:
        lock.release()


@contextmanager
def replacing(path: Path, lock: bool = True) -> Iterator[Path]:
    """Gives a file next to ``path`` to write, which replaces it at the end; after an error ``path`` is as it was.

    Args:
        path: need not exist.
        lock: let other processes that replace ``path`` wait meanwhile; False where there are none.

    Raises:
        OSError: the folder cannot be written or locked; it names ``path``.
    """
    with locked(path) if lock else nullcontext(), _replacing(path) as temporary:
        yield temporary


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """``replacing`` for a caller that holds the lock of ``path``."""
    place = path.resolve()  # a link stays one
    temporary = place.with_name(f".{place.name}.writing{place.suffix}")
    try:
        temporary.unlink(missing_ok=True)  # of a writer that was killed: a living one would hold the lock
        yield temporary
        sync(temporary)
        temporary.replace(place)
        sync(place.parent)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raises ``OSError`` that names ``path`` if no file can be written and locked next to it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.resolve().parent).close()
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error
    with locked(path):
        pass


def read_rows(path: Path, columns: Iterable[str] = ()) -> list[Row]:
    """The rows of a CSV file; none if there is no file.

    Raises:
        OptionError: it is no CSV file, is cut short, or lacks one of ``columns``.
    """
    return _read(path, columns)[1]


def read_last_device(path: Path) -> list[Row]:
    """The rows of a CSV file from the device that was measured last: times of several do not compare."""
    rows = read_rows(path, ["device"])
    return [row for row in rows if row["device"] == rows[-1]["device"]]


def _read(path: Path, columns: Iterable[str]) -> tuple[list[str], list[Row]]:
    """Heading and rows of a CSV file."""
    try:
        text = path.read_bytes().decode()
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        heading, rows = list(reader.fieldnames or ()), []
        for row in reader:
            if None in row or None in row.values():
                raise csv.Error(f"line {reader.line_num} does not have the {len(heading)} cells of the heading")
            rows.append(row)
        if text and not text.endswith("\n"):
            raise csv.Error(f"line {reader.line_num} is cut short; delete it, or end it with a line break")
        if len(set(heading)) < len(heading):
            raise csv.Error("two columns have one name")
    except FileNotFoundError:
        return [], []
    except (ValueError, csv.Error) as error:
        raise OptionError(f"{path} cannot be read as CSV: {error}.") from error
    lacking = [name for name in columns if heading and name not in heading]
    if lacking:
        raise OptionError(f"{path} holds other results: it has no column {lacking[0]!r}.")
    return heading, rows


def results_of(path: Path, module: str, columns: Iterable[str]) -> list[Row]:
    """The rows of a file that ``module`` wrote.

    Raises:
        OptionError: there are none, or the file holds other results.
    """
    rows = read_rows(path, columns)
    if not rows:
        raise OptionError(f"{path} holds no results yet; python -m {module} writes them.")
    return rows
