"""Fetches data sets: resumed after a cut connection, verified by checksum, extracted without trust in the archive.

Each archive has one checksum and one or more addresses, which are tried in order. A server is not trusted either: it
must send ``CHUNK`` bytes in every ``PATIENCE`` seconds, from the connection on, and not much more than is expected.

Below root a download works in one hidden folder, ``.ARCHIVE.download/``, which holds what was received so far, the
archive, and what is extracted from it. A data set appears by one rename out of that folder, which is then removed.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import re
import shutil
import stat
import sys
import tarfile
import threading
import time
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlparse

from rss_env.datasets import DATASETS, DatasetEntry, find_dataset
from rss_env.datasets.files import root_path
from rss_env.datasets.info import Archive
from rss_env.datasets.layout import check_complete
from rss_env.errors import DatasetError

ATTEMPTS = 5  # in a row that bring less than the slowest speed would
ATTEMPTS_BEFORE_ANOTHER = 2  # the same where another address is left
PAUSE = 1.0  # seconds before the second attempt; each further pause is twice as long
TIMEOUT = 30.0  # seconds without a byte
PATIENCE = 60.0  # seconds without a chunk
CHUNK = 1 << 16  # bytes; the most that a lost connection costs
REDIRECTS = 10
TEMPORARY = (408, 425, 429)  # status codes below 500 for which another attempt may succeed

log = logging.getLogger(__name__)


def download(name: str, root: str | Path, *, mirror: str | None = None, progress: bool = True) -> Path:
    """Puts a data set into the layout that its environments read.

    A data set that is already there is not fetched again, and a download that was cut off resumes where it stopped,
    even in a later call. Nothing appears below ``root`` until an archive is complete, verified and extracted.

    Args:
        name: a key of ``DATASETS``, in any case, or an alias.
        root: the folder to pass to environments as ``root``; created if it does not exist.
        mirror: an address to try before the known ones; what it serves must have the same checksum.
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
    if mirror and len(entry.info.archives) > 1:
        raise DatasetError(f"{name} consists of {len(entry.info.archives)} archives, so one mirror cannot serve it.")
    base = root_path(root)
    if _missing(entry, base):
        for archive in entry.info.archives:
            if not (base / archive.provides).exists():
                fetch(archive, base, mirror=mirror, progress=progress)
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
    try:
        source = entry.find(base, next(iter(entry.info.splits)))
        check_complete(source.name, source.images, source.masks)
    except DatasetError as error:
        return error
    return None


def _workplace(archive: Archive, base: Path) -> Path:
    return base / f".{_file_name(archive.url)}.download"


def _file_name(url: str) -> str:
    return PurePosixPath(urlparse(url).path).name


def fetch(archive: Archive, base: Path, *, mirror: str | None = None, progress: bool = True) -> None:
    """Downloads one archive and moves the folder that it provides below ``base``; arguments as for ``download``.

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
        if workplace.is_symlink():  # what it leads to is not below root
            raise DatasetError(f"{workplace} is a link; remove it and call again.")
        workplace.mkdir(parents=True, exist_ok=True)
        with _alone_in(workplace):
            try:
                extract(_retrieve(archive, workplace, mirror, progress), archive.provides, base)
                shutil.rmtree(workplace)
            finally:
                with suppress(OSError):
                    workplace.rmdir()  # nothing was received


def _retrieve(archive: Archive, workplace: Path, mirror: str | None, progress: bool) -> Path:
    """The archive, complete and verified, in the folder ``workplace``, from the first address that serves it."""
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    name = _file_name(archive.url)
    part = workplace / f"{name}.part"
    for path in (part, workplace / name):
        _remove_unless_plain(path)
    addresses = list(dict.fromkeys((*([mirror] if mirror else []), archive.url, *archive.mirrors)))
    failures = []
    for number, url in enumerate(addresses, 1):
        downloader = ResumingDownloader(
            part,
            progress=progress,
            attempts=ATTEMPTS if number == len(addresses) else ATTEMPTS_BEFORE_ANOTHER,
            most=int(1.5e9 * archive.gigabytes) + 100_000_000,
        )
        for resumed in (part.exists(), False):
            try:
                return Path(pooch.retrieve(url, archive.checksum, fname=name, path=workplace, downloader=downloader))
            except DatasetError as error:
                failure = error
            except ValueError as error:  # how pooch reports a wrong checksum; it has removed the file
                failure = DatasetError(
                    f"{url} is not the file that was expected: {error} It was removed; try again, and if that does "
                    "not help, the file on the server has changed."
                )
                if resumed:  # the wrong bytes may be those that were there before: once more from the start
                    continue
            break
        failures.append(failure)
        if number < len(addresses):
            log.warning("%s Trying %s.", failure, addresses[number])
    if len(failures) == 1:
        raise failures[0]
    tried = "\n".join(f"  {failure}" for failure in failures)
    raise DatasetError(f"None of {len(addresses)} addresses served {name}:\n{tried}")


def _remove_unless_plain(path: Path) -> None:
    """Removes what is not a file of its own: writing to a link, of either kind, would write somewhere else."""
    with suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) and (not stat.S_ISREG(found.st_mode) or found.st_nlink > 1):
            path.unlink()


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
        attempts: how many attempts in a row may bring less than the slowest speed would.
        most: bytes that the file may have.
    """

    def __init__(self, part: Path, *, progress: bool, attempts: int, most: int) -> None:
        self.part = part
        self.progress = progress
        self.attempts = attempts
        self.most = most

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Downloads ``url`` to ``output_file``; a failed connection is retried."""
        import requests

        failures, best, since = 0, self._size(), time.monotonic()
        while True:
            try:
                self._go_on(url)
                break
            except requests.RequestException as error:
                fast = self._size() - best > (time.monotonic() - since) * CHUNK / PATIENCE
                failures = 1 if fast else failures + 1
                best, since = max(best, self._size()), time.monotonic()
                status = 500 if error.response is None else error.response.status_code
                hopeless = isinstance(error, ValueError) or (status < 500 and status not in TEMPORARY)
                if failures >= self.attempts or hopeless:  # ValueError: what is no address
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
        with _ask(url, headers) as (answer, chunks):
            sent = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", ""))
            if answer.status_code == 416 and have:  # nothing is left to send, or the file on the server is shorter
                if sent and sent[2] == str(have):
                    return
                self.part.unlink()
                return self._go_on(url)
            answer.raise_for_status()
            resumed = answer.status_code == 206
            if resumed and not (sent and sent[1] == str(have)):
                self.part.unlink(missing_ok=True)
                raise requests.ConnectionError(f"the server sent other bytes than the ones from {have:,} on")
            have = have if resumed else 0
            length = answer.headers.get("Content-Length", "")
            total = have + int(length) if re.fullmatch("[0-9]{1,18}", length) else None
            self._check_size(url, total or 0)
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
                for chunk in chunks:
                    have += len(chunk)
                    self._check_size(url, have)
                    file.write(chunk)
                    bar.update(len(chunk))
        if total is not None and have < total:
            raise requests.ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")

    def _check_size(self, url: str, size: int) -> None:
        if size > self.most:
            self.part.unlink(missing_ok=True)
            raise DatasetError(f"{url} is not the file that was expected: it has more than {self.most:,} bytes.")


@contextmanager
def _ask(url: str, headers: dict[str, str]) -> Generator[tuple[Any, Iterator[bytes]], None, None]:
    """Asks a server; gives its answer and the chunks of the body, each of which must come in time.

    A time limit of requests is one for each byte, and a server that sends one byte a second would hold it for days, in
    the headers already. So a thread does the waiting; one that is given up ends by itself, or with the process.
    """
    items: queue.Queue[Any] = queue.Queue(maxsize=4)
    given_up = threading.Event()
    threading.Thread(target=_receive, args=(url, headers, items, given_up), daemon=True).start()

    def next_item() -> Any:
        import requests

        try:
            item = items.get(timeout=PATIENCE)
        except queue.Empty:
            raise requests.ConnectionError(
                f"the server sent less than {CHUNK:,} bytes in {PATIENCE:g} seconds"
            ) from None
        if isinstance(item, Exception):
            raise item
        return item

    try:
        yield next_item(), iter(next_item, None)
    finally:
        given_up.set()
        with suppress(queue.Empty):
            while True:
                items.get_nowait()  # so that the thread is not held by a full queue


def _receive(url: str, headers: dict[str, str], items: queue.Queue[Any], given_up: threading.Event) -> None:
    """Puts into a queue the answer of a server, the chunks of its body, and None at its end; or what went wrong."""
    import requests

    class Session(requests.Session):
        def get_redirect_target(self, resp: Any) -> None:
            """Nothing: requests reads the whole body of an answer whose target it knows, even if told not to follow."""

    try:
        with Session() as session:
            for _ in range(REDIRECTS):
                answer = session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
                if not answer.is_redirect:
                    break
                url = urljoin(url, answer.headers["Location"])
                answer.close()
            else:
                raise requests.TooManyRedirects(f"the server redirects more than {REDIRECTS} times")
            with answer:
                answer.raw.enforce_content_length = False  # a short answer is kept; who reads it checks the length
                items.put(answer)
                for chunk in answer.iter_content(CHUNK):
                    items.put(chunk)
                    if given_up.is_set():
                        return
        items.put(None)
    except requests.RequestException as error:
        items.put(error)
    except Exception as error:  # of the libraries below requests, on what no honest server sends
        items.put(requests.ConnectionError(f"{type(error).__name__}: {error}"))


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
    _remove_unless_plain(temporary)
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
