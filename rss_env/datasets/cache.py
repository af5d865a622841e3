"""The decoded cache: images and label maps, decoded or drawn once into memory-mapped uint8 arrays.

A cache entry is a folder ``KEY/`` with ``images.npy``, ``targets.npy`` (if there are masks) and ``meta.json``. KEY is a
hash of the bytes of every file that went in and of every option that shaped the result, so a stale entry is never read.
An entry is built in a temporary folder and appears by one rename: it is there whole or not at all, also with two
builders at once. Its description holds the SHA-256 of each array, and the size and modification time of its file: where
one of these differs, the whole array is hashed, and the entry is built again unless the hash is the same.
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
import sys
import tempfile
import time
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from rss_env.datasets.dataset import SegmentationDataset
from rss_env.datasets.decode import decode_pair
from rss_env.datasets.photos import PhotoSource
from rss_env.errors import DatasetError

FORMAT_VERSION = 2
STALE = 24 * 60 * 60  # seconds after which a temporary folder counts as left by a killed process
ZEROS = bytes(1 << 20)
PATIENCE = 1.0  # seconds before a progress bar appears
# What the parsers of JSON and of an array's header raise on a damaged one, apart from ValueError.
PARSER_ERRORS = (EOFError, RecursionError, SyntaxError, OverflowError, tokenize.TokenError)
NAME_LENGTH = 40  # characters of a split in the name of an entry; file systems allow 255 bytes in all

log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Folder of the cache: ``$RSS_CACHE_DIR``, else ``$XDG_CACHE_HOME/rss_env``, else ``~/.cache/rss_env``.

    Raises:
        DatasetError: it is below the home folder of a user who has none.
    """
    try:
        if chosen := os.environ.get("RSS_CACHE_DIR"):
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "rss_env"
    except RuntimeError as error:
        raise DatasetError(
            f"The decoded cache has no place: {str(error).rstrip('.')}. Set RSS_CACHE_DIR to a writable folder."
        ) from error


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
    ingredients: dict[str, Any] = {
        "photos": len(source.images),
        "masks": len(source.masks),
        "content": content_digest(source.files()),
        "resize": resize,
        "num_classes": source.num_classes,
        "relabel": sorted(source.relabel.items()),
    }
    if source.colours is not None and source.colours.classes:  # a key that the entries of before have not
        ingredients["colours"] = sorted(source.colours.classes.items())
    images, targets = cached_pairs(
        f"{source.name} {source.split}",
        ingredients,
        lambda index: decode_pair(source, index, image_size, resize),
        len(source.ids),
        image_size,
        with_targets=bool(source.masks),
    )
    return SegmentationDataset(
        name=source.name,
        split=source.split,
        images=images,
        targets=targets,
        ids=source.ids,
        class_names=source.class_names,
        palette=source.palette,
    )


def drawn_pairs(
    name: str,
    split: str,
    ingredients: Mapping[str, Any],
    draw: Callable[[int], tuple[np.ndarray, np.ndarray]],
    count: int,
    image_size: tuple[int, int],
    *,
    takes: str,
    keep: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The arrays of a procedural data set, from the cache or, where that cannot be written, drawn into memory.

    Args:
        name: of the data set.
        split: of it.
        ingredients: see ``cached_pairs``.
        draw: index -> image, uint8 (H, W, 3), and target, uint8 (H, W).
        count: n, the number of pairs.
        image_size: (H, W) in pixels.
        takes: how long it may take to draw all, for the warning.
        keep: whether to use the cache at all.

    Returns:
        Images (n, H, W, 3) and targets (n, H, W), uint8, read-only.
    """
    if keep:
        try:  # one thread: the drawing of small images holds Python's lock
            return cached_pairs(f"{name} {split}", ingredients, draw, count, image_size, threads=1)
        except DatasetError as error:
            log.warning("%s is drawn each time, which may take %s: %s", name, takes, error)
    images: np.ndarray = np.empty((count, *image_size, 3), np.uint8)
    targets: np.ndarray = np.empty((count, *image_size), np.uint8)
    for i in range(count):
        images[i], targets[i] = draw(i)
    images.flags.writeable = targets.flags.writeable = False
    return images, targets


def cached_pairs(
    name: str,
    ingredients: Mapping[str, Any],
    make_pair: Callable[[int], tuple[np.ndarray, np.ndarray | None]],
    count: int,
    image_size: tuple[int, int],
    *,
    with_targets: bool = True,
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Opens the arrays of a cache entry; makes them first if they are missing or damaged.

    Args:
        name: what is cached, such as ``"VOC train"``; part of the name of the entry.
        ingredients: everything else that decides the arrays, as JSON has it.
        make_pair: index -> image, uint8 (H, W, 3), and target, uint8 (H, W).
        count: n, the number of pairs.
        image_size: (H, W) in pixels.
        with_targets: whether there are targets.
        threads: how many threads call ``make_pair``; None for as many as ThreadPoolExecutor takes.

    Returns:
        Images (n, H, W, 3) and targets (n, H, W) or None, uint8, memory-mapped read-only.

    Raises:
        DatasetError: the cache folder cannot be written, or ``make_pair`` raises it.
    """
    shapes = {"images": (count, *image_size, 3)} | ({"targets": (count, *image_size)} if with_targets else {})
    key = _hash({"format": FORMAT_VERSION, "shapes": shapes, "ingredients": ingredients})
    words = "-".join(re.sub(r"[/\0]", "-", word)[:NAME_LENGTH] for word in name.lower().split(" ", 1))
    folder = cache_dir() / f"{words}-{key[:32]}"
    arrays = _open(folder, shapes)
    if arrays is None:
        _build(folder, name, make_pair, shapes, threads)
        arrays = _open(folder, shapes)
        if arrays is None:
            raise DatasetError(
                f"The cache entry {folder} is not readable right after it was written; is the disk sound?"
            )
    return arrays["images"], arrays.get("targets")


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
    with contextlib.suppress(DatasetError), writing_to(memo.parent):
        _replace_text(memo, digest)
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


def _open(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray] | None:
    """The arrays of an entry by name, or None if it is missing, changed or in another format."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta["version"] != FORMAT_VERSION:
            return None
        arrays, touched = {}, False
        for name, shape in shapes.items():
            path, expected = folder / f"{name}.npy", meta["arrays"][name]
            size, written = _size_and_time(path)
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if array.dtype != np.uint8 or array.shape != shape or array.offset + array.nbytes != size:
                return None
            if [size, written] != [expected["size"], expected["mtime_ns"]]:
                if hashlib.sha256(array).hexdigest() != expected["sha256"]:
                    log.warning("%s is not what was written there; the entry is built again.", path)
                    return None
                expected["size"], expected["mtime_ns"], touched = size, written, True
            arrays[name] = array
    except (OSError, ValueError, KeyError, TypeError, *PARSER_ERRORS):
        return None
    if touched:  # copied, say: so that it need not be hashed each time
        with contextlib.suppress(OSError):
            _replace_text(folder / "meta.json", json.dumps(meta))
    return arrays


def _size_and_time(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _replace_text(path: Path, text: str) -> None:
    """Writes a small file in one step, readable by other users, who may share the cache."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _build(
    folder: Path,
    name: str,
    make_pair: Callable[[int], tuple[np.ndarray, np.ndarray | None]],
    shapes: Mapping[str, tuple[int, ...]],
    threads: int | None,
) -> None:
    count = shapes["images"][0]
    with writing_to(folder.parent):
        _remove_stale(folder.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            arrays = {
                array: np.lib.format.open_memmap(temporary / f"{array}.npy", "w+", np.uint8, shape)
                for array, shape in shapes.items()
            }
            size = sum(array.nbytes for array in arrays.values()) / 1e6
            log.info("Writing %d images of %s into %s (%.1f MB), once.", count, name, folder, size)
            for array in arrays.values():
                _reserve(array)

            def make(i: int) -> None:
                image, target = make_pair(i)
                arrays["images"][i] = image
                if target is not None:
                    arrays["targets"][i] = target

            with ThreadPoolExecutor(threads) as pool:
                for _ in _with_progress(pool.map(make, range(count)), count, f"{name}, once"):
                    pass
            for array in arrays.values():
                array.flush()
            described = {}
            for array_name, array in arrays.items():
                size_and_time = _size_and_time(temporary / f"{array_name}.npy")
                described[array_name] = {
                    "sha256": hashlib.sha256(array).hexdigest(),
                    **dict(zip(("size", "mtime_ns"), size_and_time, strict=True)),
                }
            (temporary / "meta.json").write_text(json.dumps({"version": FORMAT_VERSION, "arrays": described}))
            temporary.chmod(0o755)
            _publish(temporary, folder, shapes)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _with_progress(items: Iterator[None], count: int, name: str) -> Iterable[None]:
    """Shows on a terminal how far the work is, where it takes longer than a moment and tqdm is installed."""
    if sys.stderr is None or not sys.stderr.isatty():
        return items
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return items
    return tqdm(items, name, count, unit="image", delay=PATIENCE, leave=False)


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


def _publish(temporary: Path, folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Renames a finished entry into place; one that another process finished first is kept, a damaged one replaced."""
    try:
        temporary.rename(folder)
    except OSError:
        if _open(folder, shapes) is not None:
            return
        # File by file: every builder of an entry writes the same bytes, so two of them may do this at once.
        for file in temporary.iterdir():
            file.replace(folder / file.name)


@contextlib.contextmanager
def writing_to(folder: Path) -> Iterator[None]:
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
