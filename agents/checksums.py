"""Checksums of the files of a checkpoint, in the format of sha256sum: ``sha256sum -c SHA256SUMS`` checks them too.

A file is checked before anything in it is parsed, so that damage on a disk or on the way ends in an error that names
the file, never in other numbers.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .errors import CheckpointError, DamagedCheckpointError

CHECKSUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
BLOCK = 1 << 20  # bytes


def add_checksums(files: Sequence[Path]) -> None:
    """Appends the checksums of files of one folder to its SHA256SUMS, which is on the disk when this returns."""
    lines = [f"{checksum}  {file.name}\n" for file, checksum in zip(files, _hash(files), strict=True)]
    path = files[0].parent / CHECKSUMS
    with path.open("a", encoding="utf-8", newline="\n") as sums:
        sums.writelines(lines)
    sync(path)


def sync(path: Path) -> None:
    """Waits until a file, or the list of the files in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_file(file: Path, required: bool = True) -> None:
    """Compares a file with its checksum in the SHA256SUMS next to it.

    Args:
        file: the file.
        required: False: a file without a SHA256SUMS next to it passes.

    Raises:
        DamagedCheckpointError: the file or its checksum is missing, or they do not fit together.
        CheckpointError: it cannot be read.
    """
    if not required and not (file.parent / CHECKSUMS).exists():
        return
    try:
        _check([file], _read_checksums(file.parent))
    except DamagedCheckpointError as error:
        raise DamagedCheckpointError(f"{error} Restore a copy of it, or use another checkpoint.") from None


def check_folder(folder: Path, needed: Iterable[str]) -> None:
    """Compares all files that the SHA256SUMS of a folder lists with their checksums.

    Args:
        folder: a checkpoint.
        needed: names of files that must be among them.

    Raises:
        DamagedCheckpointError: a file or a checksum is missing, or they do not fit together.
        CheckpointError: a file cannot be read.
    """
    checksums = _read_checksums(folder)
    unlisted = {file.name for file in folder.glob("*.pt")}  # what would be read without a checksum
    _check([folder / name for name in sorted({*checksums, *needed, *unlisted})], checksums)


def _read_checksums(folder: Path) -> dict[str, str]:
    """The checksums that the SHA256SUMS of a folder lists, by file name."""
    path = folder / CHECKSUMS
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError:
        raise DamagedCheckpointError(f"{path} is missing, so the checkpoint cannot be checked.") from None
    except UnicodeDecodeError:
        lines = [""]
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}.") from error
    found = [LINE.fullmatch(line) for line in lines]
    if not all(found):
        raise DamagedCheckpointError(f"{path} is damaged: it is no list of checksums.")
    return {match[2]: match[1] for match in found if match}


def _check(files: Sequence[Path], checksums: dict[str, str]) -> None:
    for file in files:
        if not file.is_file():
            raise DamagedCheckpointError(f"{file} is missing.")
        if file.name not in checksums:
            raise DamagedCheckpointError(f"{file} is not listed in the {CHECKSUMS} next to it.")
    for file, checksum in zip(files, _hash(files), strict=True):
        if checksum != checksums[file.name]:
            raise DamagedCheckpointError(f"{file} is damaged: it does not fit its checksum in {CHECKSUMS}.")


def _hash(files: Sequence[Path]) -> list[str]:
    """SHA-256 of each file in hexadecimal digits; several at once, as hashing leaves other threads free to run."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_hash_file, files))


def _hash_file(file: Path) -> str:
    checksum = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while block := opened.read(BLOCK):
                checksum.update(block)
    except OSError as error:
        raise CheckpointError(f"Cannot read {file}: {error.strerror}.") from error
    return checksum.hexdigest()
