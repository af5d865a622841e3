"""Writes a data set in the layout of Folder: photos as they are, masks as PNG of class numbers."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from rss_env.datasets import DATASETS
from rss_env.datasets.check import locate_splits, official_splits
from rss_env.datasets.dataset import IGNORE_INDEX
from rss_env.datasets.decode import read_image, read_labels
from rss_env.datasets.files import root_path
from rss_env.datasets.layout import IMAGE_SUFFIXES, check_complete
from rss_env.datasets.photos import PhotoSource
from rss_env.errors import DatasetError, EmptySplitError, OptionError

FORBIDDEN = r"[\\\\:\x00-\x1f\x7f\x85\u2028\u2029]"  # in ids of split files


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        images: number of photos.
        masks: number of masks.
        splits: split -> number of photos.
        class_names: C names.
    """

    images: int
    masks: int
    splits: dict[str, int]
    class_names: tuple[str, ...]


def convert_dataset(
    name: str,
    root: str | Path | None,
    target: str | Path,
    *,
    progress: Callable[[Iterator[None], int], Iterable[None]] | None = None,
    **options: Any,
) -> Conversion:
    """Writes every split of a data set into a new folder; the data set itself is only read.

    The folder appears as a whole or not at all.

    Args:
        name: a key of ``DATASETS``, not of a procedural data set.
        root: folder of the data set.
        target: folder to write, which must not be there or be empty, and not lie in ``root``.
        progress: wraps (iterator over the photos, their number), as tqdm does.
        **options: the data set's own options.

    Raises:
        OptionError: ``target`` cannot be used, or the data set is procedural.
        DatasetError: the data set is not complete and sound, or the target cannot be written.
    """
    if DATASETS[name].locate is None:
        raise OptionError(f"{name} is procedural: there are no files to convert.")
    home = _check_target(target, root)
    sources = _find(name, root, options)
    first = next(iter(sources.values()))
    ids = _new_ids(sources)
    jobs = {ids[split, image_id]: (source, row) for split, source in sources.items()
        for row, image_id in enumerate(source.ids)}  # fmt: skip
    lists = {
        split: [ids[split, image_id] for image_id in source.ids]
        for split, source in sources.items()
        if (name, split) != ("Folder", "all")
    }
    masks = sum(bool(source.masks) for source, _ in jobs.values())
    home.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
    try:
        with ThreadPoolExecutor() as pool:
            written: Iterator[None] = pool.map(lambda job: _write_pair(temporary, job[0], *job[1]), jobs.items())
            for _ in written if progress is None else progress(written, len(jobs)):
                pass
        (temporary / "splits").mkdir()
        for split, listed in lists.items():
            (temporary / "splits" / f"{split}.txt").write_text("".join(f"{one}\n" for one in listed), encoding="utf-8")
        described = {"classes": list(first.class_names), "palette": first.palette.tolist()}
        (temporary / "classes.json").write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
        temporary.chmod(0o755)
        with contextlib.suppress(FileNotFoundError):
            home.rmdir()  # empty, else it was refused
        temporary.rename(home)
    except OSError as error:
        raise DatasetError(f"Cannot write {error.filename or home}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Conversion(len(jobs), masks, {split: len(listed) for split, listed in lists.items()}, first.class_names)


def _check_target(target: str | Path, root: str | Path | None) -> Path:
    home = root_path(target).resolve()
    if home.is_dir() and any(home.iterdir()):
        raise OptionError(f"{target} is not empty: name a folder that is not there yet.")
    if home.exists() and not home.is_dir():
        raise OptionError(f"{target} is a file: name a folder that is not there yet.")
    if root is not None and home.is_relative_to(root_path(root).resolve()):
        raise OptionError(f"{target} lies in {root}, which is only read: name a folder outside of it.")
    return home


def _find(name: str, root: str | Path | None, options: dict[str, Any]) -> dict[str, PhotoSource]:
    """The files of every split that is there, of a Folder those of no split too; all of them are there."""
    wanted = [*official_splits(name, root, **options), *(["all"] if name == "Folder" else [])]
    if name == "Folder":  # counts the classes, once
        everything = DATASETS[name].find(root, "all", **options)
        options = {"num_classes": everything.num_classes, **options}
    sources: dict[str, PhotoSource] = {}
    for split, source in locate_splits(name, root, dict.fromkeys(wanted), **options).items():
        if isinstance(source, DatasetError):
            if isinstance(source, EmptySplitError):
                continue
            raise source
        check_complete(name, source.images, source.masks)
        sources[split] = source
    if not sources:
        DATASETS[name].find(root, wanted[0], **options)  # raises, and says why
    return sources


def _new_ids(sources: dict[str, PhotoSource]) -> dict[tuple[str, str], str]:
    """(split, id) -> id in the new folder, such as a split file may list; with the split where photos would clash."""
    photos = {
        (split, image_id): image
        for split, source in sources.items()
        for image_id, image in zip(source.ids, source.images, strict=True)
    }
    plain = {key: _plain(key[1]) for key in photos}
    for ids in (plain, {key: f"{key[0]}/{value}" for key, value in plain.items()}):
        taken: dict[str, Path] = {}
        clashes = [key for key, new in ids.items() if taken.setdefault(new, photos[key]) != photos[key]]
        if not clashes:
            return ids
    new = ids[clashes[0]]
    raise DatasetError(f"{taken[new]} and {photos[clashes[0]]} would both become {new}: rename one of them.")


def _plain(image_id: str) -> str:
    """An id as a relative path without ``..`` and without what a split file cannot hold."""
    parts = [re.sub(FORBIDDEN, "_", part).strip() for part in PurePosixPath(image_id).parts if part not in ("/", "..")]
    return "/".join(part or "_" for part in parts)


def _write_pair(home: Path, image_id: str, source: PhotoSource, row: int) -> None:
    """Writes a photo, unchanged if its suffix says what it is, and its mask as a palette PNG."""
    photo, suffix = source.images[row], source.images[row].suffix.lower()
    image = read_image(photo)
    known = suffix in IMAGE_SUFFIXES
    place = home / "images" / f"{image_id}{suffix if known else '.png'}"
    place.parent.mkdir(parents=True, exist_ok=True)
    if known:
        shutil.copyfile(photo, place)
    else:
        image.save(place)
    if not source.masks:
        return
    mask = Image.fromarray(read_labels(source, row, image.size))
    mask.putpalette(source.palette.tobytes().ljust(3 * IGNORE_INDEX, b"\0") + b"\xff\xff\xff")
    place = home / "masks" / f"{image_id}.png"
    place.parent.mkdir(parents=True, exist_ok=True)
    mask.save(place)
