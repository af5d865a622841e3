"""Fetches data sets: resumed after a cut connection, verified by checksum, extracted without trust in the archive.

Below root a download works in one hidden folder, ``.ARCHIVE.download/``, which holds what was received so far, the
archive, and what is extracted from it. A data set appears by one rename out of that folder, which is then removed.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import stat
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from rss_env.datasets import DATASETS, DatasetEntry, find_dataset
from rss_env.datasets.info import Archive
from rss_env.datasets.layout import check_complete
from rss_env.errors import DatasetError

ATTEMPTS = 5  # in a row without a new byte
PAUSE = 1.0  # seconds before the second attempt; each further pause is twice as long
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 16  # bytes; the most that a lost connection costs
TEMPORARY = (408, 425, 429)  # status codes below 500 for which another attempt may succeed


def download(name: str, root: str | Path, *, progress: bool = True) -> Path:
    """Puts a data set into the layout that its environments read.

    A data set that is already there is not fetched again, and a download that was cut off resumes where it stopped,
    even in a later call. Nothing appears below ``root`` until an archive is complete, verified and extracted.

    Args:
        name: a key of ``DATASETS``, in any case, or an alias.
        root: the folder to pass to environments as ``root``; created if it does not exist.
        progress: show a progress bar on stderr.

    Returns:
        The folder ``root``.

    Raises:
        OptionError: an unknown name; the message lists the valid ones.
        DatasetError: nothing can be fetched (the message says what to do instead), the server or the disk fails, the
            checksum is wrong, the archive holds what it must not, or what lies below ``root`` is incomplete.
        ModuleNotFoundError: pooch, requests or tqdm is not installed: ``pip install 'rss-env[cli]'``.
    """
    name = find_dataset(name)
    entry = DATASETS[name]
    if entry.locate is None:
        raise DatasetError(f"{name} is procedural: there is nothing to download.")
    if not entry.info.archives:
        raise DatasetError(f"{name} cannot be downloaded automatically. {entry.info.licence}\n{entry.info.steps}")
    base = Path(root).expanduser()
    if _missing(entry, base):
        for archive in entry.info.archives:
            if not (base / archive.provides).exists():
                fetch(archive, base, progress=progress)
    if error := _missing(entry, base):
        there = ", ".join(str(base / archive.provides) for archive in entry.info.archives)
        raise DatasetError(
            f"{there} does not hold the whole of {name}: {error}\nMove it away or choose another root, and call again."
        ) from error
    for archive in entry.info.archives:
        shutil.rmtree(_workplace(archive, base), ignore_errors=True)  # of a process that was killed at the very end
    return base


def _missing(entry: DatasetEntry, base: Path) -> DatasetError | None:
    """What the loader says of the data set's first split below ``base``; None if every photo and mask is there."""
    assert entry.locate is not None
    try:
        source = entry.locate(base, next(iter(entry.info.splits)))
        check_complete(source.name, source.images, source.masks)
    except DatasetError as error:
        return error
    return None


def _workplace(archive: Archive, base: Path) -> Path:
    return base / f".{_file_name(archive.url)}.download"


def _file_name(url: str) -> str:
    return PurePosixPath(urlparse(url).path).name


def fetch(archive: Archive, base: Path, *, progress: bool = True) -> None:
    """Downloads one archive and moves the folder that it provides below ``base``.

    Raises:
        DatasetError: see ``download``.
        ModuleNotFoundError: see ``download``.
    """
    try:
        import pooch  # noqa: F401
        import requests  # noqa: F401
        import tqdm  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Downloads need {error.name}: pip install 'rss-env[cli]'", name=error.name
        ) from error

    workplace = _workplace(archive, base)
    with _disk(base):
        workplace.mkdir(parents=True, exist_ok=True)
        with _alone_in(workplace):
            try:
                extract(_retrieve(archive, workplace, progress), archive.provides, base)
                shutil.rmtree(workplace)
            finally:
                with suppress(OSError):
                    workplace.rmdir()  # nothing was received


def _retrieve(archive: Archive, workplace: Path, progress: bool) -> Path:
    """The archive, complete and verified, in the folder ``workplace``."""
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    name = _file_name(archive.url)
    downloader = ResumingDownloader(workplace / f"{name}.part", progress=progress)
    try:
        return Path(pooch.retrieve(archive.url, archive.checksum, fname=name, path=workplace, downloader=downloader))
    except DatasetError:
        raise
    except ValueError as error:  # how pooch reports a wrong checksum; it has removed the file
        raise DatasetError(
            f"{archive.url} is not the file that was expected: {error} It was removed; try again, and if that does "
            "not help, the file on the server has changed."
        ) from error


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keeps a second process out of an unfinished download, where the system can; the lock ends with its process."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks: then the checksum shows if two have written
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DatasetError(f"Another process is downloading into {folder}; wait until it has ended.") from error
        yield
    finally:
        os.close(handle)


class ResumingDownloader:
    """A pooch downloader that keeps what it has in a ``.part`` file and asks the server for the rest.

    Args:
        part: where unfinished downloads are kept, from one call to the next too.
        progress: show a progress bar on stderr.
    """

    def __init__(self, part: Path, *, progress: bool) -> None:
        self.part = part
        self.progress = progress

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Downloads ``url`` to ``output_file``; a failed connection is retried."""
        import requests

        failures, most = 0, self._size()
        while True:
            try:
                self._go_on(url)
                break
            except requests.RequestException as error:
                failures = 1 if self._size() > most else failures + 1
                most = max(most, self._size())
                status = 500 if error.response is None else error.response.status_code
                if failures >= ATTEMPTS or (status < 500 and status not in TEMPORARY):
                    kept = f" {self.part} is kept; the next call resumes from there." if self._size() else ""
                    raise DatasetError(f"Cannot download {url}: {error}.{kept}") from error
                time.sleep(PAUSE * 2 ** (failures - 1))
        shutil.move(self.part, output_file)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _go_on(self, url: str) -> None:
        import requests
        from tqdm import tqdm

        have = self._size()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            sent = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", ""))
            if answer.status_code == 416 and have:  # nothing is left to send, or the file on the server is shorter
                if sent and sent[2] == str(have):
                    return
                self.part.unlink()
                return self._go_on(url)
            answer.raise_for_status()
            answer.raw.enforce_content_length = False  # a short answer is to be kept; the length is checked below
            resumed = answer.status_code == 206
            if resumed and not (sent and sent[1] == str(have)):
                self.part.unlink(missing_ok=True)
                raise requests.ConnectionError(f"the server sent other bytes than the ones from {have:,} on")
            have = have if resumed else 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length is not None else None
            with (
                self.part.open("ab" if resumed else "wb") as file,
                tqdm(
                    desc=_file_name(url),
                    total=total,
                    initial=have,
                    unit="B",
                    unit_scale=True,
                    disable=not self.progress,
                ) as bar,
            ):
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                    have += len(chunk)
                    bar.update(len(chunk))
        if total is not None and have < total:
            raise requests.ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")


def extract(path: Path, provides: str, base: Path) -> None:
    """Extracts a tar or zip archive into a folder next to it and moves one folder of it into place by a rename.

    Args:
        path: the archive, on the same file system as ``base``.
        provides: the folder of the archive that is wanted, such as ``"VOCdevkit/VOC2012"``.
        base: below it the folder appears under the same name.

    Raises:
        DatasetError: a member would be written outside, or is a link or a device (nothing is extracted then); the
            archive is damaged, or does not hold the folder.
    """
    temporary = path.with_name(f"{path.name}.extracting")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed here
    try:
        temporary.mkdir()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    kind = stat.S_IFMT(member.external_attr >> 16)
                    _check(path, member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
                archive.extractall(temporary)
        else:
            with tarfile.open(path) as tar:
                for entry in tar:
                    _check(path, entry.name, entry.isreg() or entry.isdir())
                if hasattr(tarfile, "data_filter"):  # it also drops owners and special permission bits
                    tar.extractall(temporary, filter="data")
                else:
                    tar.extractall(temporary)
        if not (temporary / provides).is_dir():
            raise DatasetError(f"{path} does not hold the folder {provides}.")
        (base / provides).parent.mkdir(parents=True, exist_ok=True)
        (temporary / provides).rename(base / provides)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # the last: encrypted
        raise DatasetError(f"Cannot extract {path}: {error}. Is it damaged, or no archive at all?") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check(path: Path, name: str, ordinary: bool) -> None:
    place = PurePosixPath(name.replace("\\", "/"))
    if not ordinary:
        raise DatasetError(f"{path} is refused, and nothing of it was extracted: {name!r} is a link or a device.")
    if place.is_absolute() or ".." in place.parts or ":" in name or "\0" in name:
        raise DatasetError(f"{path} is refused, and nothing of it was extracted: {name!r} leads out of its folder.")


@contextmanager
def _disk(base: Path) -> Iterator[None]:
    """Turns errors of the disk into errors that say what to do."""
    try:
        yield
    except DatasetError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "Free some space there and call again" if full else "Choose a folder that can be written"
        raise DatasetError(f"Cannot write to {base}: {error}. {advice}.") from error
