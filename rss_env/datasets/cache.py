"""The decoded cache: photos and label maps, decoded and resized once into memory-mapped uint8 arrays.

A cache entry is a folder ``KEY/`` with ``images.npy``, ``targets.npy`` (if there are masks) and ``meta.json``. KEY is a
hash of the bytes of every file that went in and of every option that shaped the result, so a stale entry is never read.
An entry is built in a temporary folder and appears by one rename: it is there whole or not at all, also with two
builders at once.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
import tokenize
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from rss_env.datasets.dataset import SegmentationDataset
from rss_env.datasets.decode import decode_pair
from rss_env.datasets.photos import PhotoSource
from rss_env.errors import DatasetError

FORMAT_VERSION = 1
STALE = 24 * 60 * 60  # seconds after which a temporary folder counts as left by a killed process
ZEROS = bytes(1 << 20)

log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Folder of the cache: ``$RSS_CACHE_DIR``, else ``$XDG_CACHE_HOME/rss_env``, else ``~/.cache/rss_env``."""
    if chosen := os.environ.get("RSS_CACHE_DIR"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "rss_env"


def load_cached(source: PhotoSource, image_size: tuple[int, int], resize: str) -> SegmentationDataset:
    """Opens the cached arrays of a data set; builds them first if they are missing or damaged.

    Args:
        source: which files make up the split.
        image_size: (H, W) of the decoded arrays, in pixels.
        resize: ``"pad"``, ``"crop"`` or ``"stretch"``.

    Returns:
        The data set, its arrays memory-mapped read-only.

    Raises:
        DatasetError: a file is unreadable or wrong (it is named), or the cache folder cannot be written.
    """
    key = _hash(
        [FORMAT_VERSION, content_digest(source.files()), image_size, resize, source.num_classes, source.relabel]
    )
    folder = cache_dir() / f"{source.name.lower()}-{source.split.replace('/', '-')}-{key[:32]}"
    names = ("images", "targets") if source.masks else ("images",)
    arrays = _open(folder, names)
    if arrays is None:
        _build(folder, source, image_size, resize, names)
        arrays = _open(folder, names)
        if arrays is None:
            raise DatasetError(
                f"The cache entry {folder} is not readable right after it was written; is the disk sound?"
            )
    return SegmentationDataset(
        name=source.name,
        split=source.split,
        images=arrays["images"],
        targets=arrays.get("targets"),
        ids=source.ids,
        class_names=source.class_names,
        palette=source.palette,
    )


def content_digest(files: Iterable[Path]) -> str:
    """SHA-256 over the bytes of the files, in order.

    Reading every byte of a large data set at each start would be slow, so the digest is remembered under a key made of
    the files' paths, sizes and modification and change times: any write to a file changes that key.

    Raises:
        DatasetError: a file cannot be read.
    """
    paths = list(files)
    stats = [_stat(path) for path in paths]
    memo = cache_dir() / "digests" / _hash(stats)[:32]
    try:
        remembered = memo.read_text()
        if re.fullmatch("[0-9a-f]{64}", remembered):
            return remembered
    except (OSError, UnicodeDecodeError):
        pass
    log.info("Reading %d files to see whether they are cached.", len(paths))
    with ThreadPoolExecutor() as pool:
        digest = hashlib.sha256(b"".join(pool.map(_file_digest, paths))).hexdigest()
    # Failing to remember a digest only costs time, and a cache that cannot be written may already hold the entry.
    with contextlib.suppress(DatasetError), _writing_to(memo.parent):
        handle, temporary = tempfile.mkstemp(dir=memo.parent)
        with os.fdopen(handle, "w") as file:
            file.write(digest)
        Path(temporary).chmod(0o644)  # like the entries: other users may read a shared cache
        Path(temporary).replace(memo)
    return digest


def _stat(path: Path) -> tuple[str, int, int, int]:
    """Values that change whenever the file does."""
    with _reading(path):
        found = path.stat()
        return str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _file_digest(path: Path) -> bytes:
    with _reading(path):
        return hashlib.sha256(path.read_bytes()).digest()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatasetError(f"Cannot read {path}: {error.strerror}.") from error


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _open(folder: Path, names: tuple[str, ...]) -> dict[str, np.ndarray] | None:
    """The arrays of an entry by name, or None if it is missing, truncated or in another format."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        arrays = {}
        for name in names:
            path = folder / f"{name}.npy"
            if meta["version"] != FORMAT_VERSION or path.stat().st_size != meta[f"{name}_bytes"]:
                return None
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if array.dtype != np.uint8 or list(array.shape) != meta[f"{name}_shape"]:
                return None
            if array.offset + array.nbytes != meta[f"{name}_bytes"]:
                return None
            arrays[name] = array
    # The last three: what NumPy's parser of a header raises on a damaged one.
    except (OSError, ValueError, KeyError, TypeError, SyntaxError, OverflowError, tokenize.TokenError):
        return None
    return arrays


def _build(folder: Path, source: PhotoSource, image_size: tuple[int, int], resize: str, names: tuple[str, ...]) -> None:
    count, (height, width) = len(source.ids), image_size
    with _writing_to(folder.parent):
        _remove_stale(folder.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            shapes = {"images": (count, height, width, 3), "targets": (count, height, width)}
            arrays = {
                name: np.lib.format.open_memmap(temporary / f"{name}.npy", "w+", np.uint8, shape)
                for name, shape in shapes.items()
                if name in names
            }
            size = sum(array.nbytes for array in arrays.values()) / 1e6
            what = f"{source.name} {source.split}"
            log.info("Decoding %d images of %s into %s (%.1f MB), once.", count, what, folder, size)
            for array in arrays.values():
                _reserve(array)

            def decode(i: int) -> None:
                image, target = decode_pair(source, i, image_size, resize)
                arrays["images"][i] = image
                if target is not None:
                    arrays["targets"][i] = target

            with ThreadPoolExecutor() as pool:
                for _ in pool.map(decode, range(count)):
                    pass
            meta: dict[str, object] = {"version": FORMAT_VERSION, "resize": resize}
            for name, array in arrays.items():
                array.flush()
                meta[f"{name}_shape"] = list(array.shape)
                meta[f"{name}_bytes"] = (temporary / f"{name}.npy").stat().st_size
            (temporary / "meta.json").write_text(json.dumps(meta))
            temporary.chmod(0o755)
            _publish(temporary, folder, names)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _reserve(array: np.memmap) -> None:
    """Allocates the blocks of a new file now: on a full disk, writing a mapped page later would kill the process."""
    with Path(str(array.filename)).open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
                return
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # which say that the file system cannot
                    raise
        file.seek(array.offset)
        while file.tell() < size:
            file.write(ZEROS[: size - file.tell()])


def _remove_stale(folder: Path) -> None:
    """Removes what processes that were killed while building an entry left behind."""
    for path in folder.glob(".*-*-*"):
        if re.fullmatch(r"\.[a-z0-9]+-.*-[0-9a-f]{32}-\w{8}", path.name):
            with contextlib.suppress(OSError):  # another process may remove it at the same time
                if time.time() - max(p.stat().st_mtime for p in (path, *path.iterdir())) > STALE:
                    shutil.rmtree(path, ignore_errors=True)


def _publish(temporary: Path, folder: Path, names: tuple[str, ...]) -> None:
    """Renames a finished entry into place; one that another process finished first is kept, a damaged one replaced."""
    try:
        temporary.rename(folder)
    except OSError:
        if _open(folder, names) is not None:
            return
        # File by file: every builder of an entry writes the same bytes, so two of them may do this at once.
        for file in temporary.iterdir():
            file.replace(folder / file.name)


@contextlib.contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    """Creates a folder and turns a failed write below it into an error that says what to do."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except DatasetError:
        raise
    except OSError as error:
        raise DatasetError(
            f"Cannot write the decoded cache under {folder}: {error}. "
            "Free some space there, or set RSS_CACHE_DIR to a writable folder."
        ) from error
