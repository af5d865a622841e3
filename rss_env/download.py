"""Fetches data sets: resumed after a cut connection, verified by checksum, extracted without trust in the archive."""

from __future__ import annotations

import errno
import logging
import re
import shutil
import stat
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from rss_env.datasets import DATASETS
from rss_env.datasets.info import Archive
from rss_env.errors import DatasetError

ATTEMPTS = 5
PAUSE = 1.0  # seconds before the second attempt; each further pause is twice as long
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 16  # bytes; what a lost connection costs at most


def download(name: str, root: str | Path, *, progress: bool = True) -> Path:
    """Puts a data set into the layout that its environments read.

    An archive that is there already is not fetched again; a download that was cut off goes on where it stopped, also in
    another call. Nothing appears below ``root`` but ``*.part`` until an archive is complete and verified.

    Args:
        name: a key of ``DATASETS``.
        root: the folder that environments then get as ``root``; made if it is not there.
        progress: show a progress bar on stderr.

    Returns:
        The folder ``root``.

    Raises:
        DatasetError: nothing can be fetched (the message is what to do instead), the server or the disk fails, the
            checksum is wrong, or the archive holds what it must not.
        ModuleNotFoundError: pooch is not installed: ``pip install 'rss-env[cli]'``.
    """
    info = DATASETS[name].info
    if not info.archives:
        raise DatasetError(f"{name} cannot be fetched by a program. {info.licence}\n{info.steps}")
    base = Path(root).expanduser()
    for archive in info.archives:
        if not (base / archive.provides).exists():
            fetch(archive, base, progress=progress)
    return base


def fetch(archive: Archive, base: Path, *, progress: bool = True) -> None:
    """Downloads one archive and moves the folder that it provides below ``base``.

    Raises:
        DatasetError: see ``download``.
    """
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    name = Path(urlparse(archive.url).path).name
    with _disk(base):
        base.mkdir(parents=True, exist_ok=True)
        try:
            path = Path(
                pooch.retrieve(
                    archive.url,
                    known_hash=archive.checksum,
                    fname=name,
                    path=base,
                    downloader=ResumingDownloader(base / f"{name}.part", progress=progress),
                )
            )
        except ValueError as error:  # pooch's word for a wrong checksum; it has removed the file
            raise DatasetError(
                f"{archive.url} is not the file that was expected: {error} It was removed; try again, and if it stays "
                "so, the file on the server has changed."
            ) from error
        extract(path, archive.provides, base)
        path.unlink()


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
        """Downloads ``url`` to ``output_file``; a failed connection is tried again."""
        import requests

        for attempt in range(ATTEMPTS):
            try:
                self._go_on(url)
                break
            except requests.RequestException as error:
                status = getattr(error.response, "status_code", 500)
                if attempt == ATTEMPTS - 1 or 400 <= status < 500:
                    kept = f" {self.part} is kept; the next call goes on from there." if self.part.exists() else ""
                    raise DatasetError(f"Cannot download {url}: {error}.{kept}") from error
                time.sleep(PAUSE * 2**attempt)
        shutil.move(self.part, output_file)

    def _go_on(self, url: str) -> None:
        import requests
        from tqdm import tqdm

        have = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            told = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", answer.headers.get("Content-Range", ""))
            if answer.status_code == 416 and have:  # nothing is left to send, or the file on the server is shorter
                if told and int(told[2]) == have:
                    return
                self.part.unlink()
                return self._go_on(url)
            answer.raise_for_status()
            answer.raw.enforce_content_length = False  # a short answer is to be kept; the length is checked below
            resumed = answer.status_code == 206 and told is not None and told[1] is not None and int(told[1]) == have
            have = have if resumed else 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length is not None else None
            name = Path(urlparse(url).path).name
            with (
                self.part.open("ab" if resumed else "wb") as file,
                tqdm(desc=name, total=total, initial=have, unit="B", unit_scale=True, disable=not self.progress) as bar,
            ):
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                    have += len(chunk)
                    bar.update(len(chunk))
        if total is not None and have < total:
            raise requests.ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")


def extract(path: Path, provides: str, base: Path) -> None:
    """Extracts a tar or zip archive beside ``base / provides`` and moves that folder into place by one rename.

    Args:
        path: the archive.
        provides: the folder of the archive that is wanted, such as ``"VOCdevkit/VOC2012"``.
        base: below it the folder appears under the same name.

    Raises:
        DatasetError: a member would be written outside, or is a link or a device (nothing is extracted then); the
            archive is damaged, or does not hold the folder.
    """
    temporary = Path(tempfile.mkdtemp(prefix=".extracting-", dir=base))
    try:
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
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
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
    """Turns errors of the disk into ones that say what to do."""
    try:
        yield
    except DatasetError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "Free some space there and call again" if full else "Choose a folder that can be written"
        raise DatasetError(f"Cannot write to {base}: {error}. {advice}.") from error
