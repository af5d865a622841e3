"""Folder: your own photos and label maps.

Layout below ``root``::

    images/ID.jpg           or .jpeg .png .bmp .webp .tif .tiff; sub-folders are part of the ID
    masks/ID.png            8-bit greyscale or palette PNG, 0..C-1 are classes, 255 is ignored
    splits/SPLIT.txt        optional, one ID per line
    classes.json            optional: {"classes": [names], "ignore_label": 255, "palette": [[r, g, b], ...]} or [names]

Without ``masks/`` the photos have no targets: then the reward must be a callable, and ``classes.json`` or
``num_classes=`` must give the number of classes.

Without ``splits/`` an image belongs to ``val`` if the SHA-256 of its ID is divisible by 5, else to ``train``; the split
``all`` is every image. Without ``classes.json`` pass ``num_classes=``, or the number of classes is one more than the
largest label in any mask.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from rss_env.datasets.dataset import IGNORE_INDEX, MAX_CLASSES, check_split
from rss_env.datasets.decode import read_mask
from rss_env.datasets.files import has_file, has_folder, read_text
from rss_env.datasets.info import DatasetInfo, as_palette
from rss_env.datasets.layout import (
    check_complete,
    files_below,
    find_images,
    find_masks,
    list_photos,
    need_root,
    not_found,
)
from rss_env.datasets.photos import PhotoSource, bit_palette
from rss_env.datasets.split_files import list_splits, read_split
from rss_env.errors import DatasetError

LAYOUT = """\
  images/ID.jpg (or .jpeg .png .bmp .webp .tif .tiff)
  masks/ID.png (may be left out where the reward is a callable)
  splits/{train,val,test}.txt (optional)
  classes.json (optional)"""

INFO = DatasetInfo(
    title="Your own photos and label maps",
    layout=LAYOUT,
    licence="That of your photos.",
    ignore='255, and the "ignore_label" of classes.json',
    steps="Put your photos and label maps into the layout above; rss-env check lists every problem with them.",
)


def locate(root: str | Path | None, split: str, *, num_classes: int | None = None) -> PhotoSource:
    """Finds the files of one split.

    Args:
        root: the folder that holds ``images/`` and, unless the photos have no targets, ``masks/``.
        split: a file in ``splits/``, or ``"all"``; without ``splits/``: ``"train"``, ``"val"`` or ``"all"``.
        num_classes: number of classes C, 2 to 255, where there is no ``classes.json``.

    Raises:
        DatasetNotFoundError: the layout is not below ``root``.
        DatasetError: unknown or empty split, a bad ``classes.json``, or masks in which the classes cannot be counted.
    """
    base = need_root("Folder", root, INFO)
    if not (base / "images").is_dir():
        raise not_found("Folder", base / "images", base, INFO)
    ids = _split_ids(base, split)
    images = find_images(ids, base / "images")
    masks = find_masks(ids, base / "masks") if has_folder(base / "masks") else ()
    if num_classes is None and not has_file(base / "classes.json"):
        check_complete("Folder", images, masks)  # before every mask is decoded
        num_classes = _count_classes(base)
    names, palette, relabel = _classes(base, num_classes)
    return PhotoSource("Folder", split, tuple(ids), images, masks, names, palette, relabel)


def _split_ids(base: Path, split: str) -> list[str]:
    lists = base / "splits"
    found = list_splits(lists)
    rules: dict[str, Callable[[str], bool]] = {"all": lambda image_id: True}
    if not found:
        rules |= {"train": lambda image_id: not _in_val(image_id), "val": _in_val}
    check_split("Folder", split, [*found, *(rule for rule in rules if rule not in found)])
    if split in found:
        return read_split(lists / f"{split}.txt")
    every = list_photos("Folder", split, base / "images")
    ids = [image_id for image_id in every if rules[split](image_id)]
    if not ids:
        raise DatasetError(f"Folder: split {split!r} is empty; {base / 'images'} holds {len(every)} images.")
    return ids


def _in_val(image_id: str) -> bool:
    return int.from_bytes(hashlib.sha256(image_id.encode(errors="surrogateescape")).digest(), "big") % 5 == 0


def _classes(base: Path, num_classes: int | None) -> tuple[tuple[str, ...], np.ndarray, dict[int, int]]:
    """Class names, palette and relabelling."""
    path = base / "classes.json"
    if not has_file(path):
        assert num_classes is not None
        _check_count(num_classes, "num_classes")
        return tuple(f"class {c}" for c in range(num_classes)), bit_palette(num_classes), {}
    try:
        stored: Any = json.loads(read_text(path, "utf-8"))
    except DatasetError:
        raise
    except (ValueError, RecursionError) as error:  # the latter: brackets nested thousands deep
        raise DatasetError(f"Cannot read {path}: {error}.") from error
    described = stored if isinstance(stored, dict) else {"classes": stored}
    names, ignored = described.get("classes"), described.get("ignore_label", IGNORE_INDEX)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DatasetError(f'{path} must be a list of class names, or an object with such a list under "classes".')
    _check_count(len(names), str(path))
    if num_classes is not None and num_classes != len(names):
        raise DatasetError(f"num_classes={num_classes}, but {path} names {len(names)} classes.")
    if not isinstance(ignored, int) or not 0 <= ignored <= 255 or ignored < len(names):
        raise DatasetError(f'{path}: "ignore_label" must be an integer from {len(names)} to 255, got {ignored!r}.')
    palette = bit_palette(len(names))
    if "palette" in described:
        palette = as_palette(described["palette"], len(names), f'{path}: "palette"')
    return tuple(names), palette, {} if ignored == IGNORE_INDEX else {ignored: IGNORE_INDEX}


def _count_classes(base: Path) -> int:
    if not (base / "masks").is_dir():
        raise DatasetError(
            f"Folder: {base} has no masks/, so the classes cannot be counted in them. Put the masks there, or, if the "
            f"reward is a callable that needs none, pass num_classes= or write {base / 'classes.json'}."
        )

    def largest(path: Path) -> int:
        labels = np.asarray(read_mask(path))
        return int(labels.max(initial=0, where=labels != IGNORE_INDEX))

    with ThreadPoolExecutor() as pool:
        return max(1, *pool.map(largest, sorted(files_below(base / "masks", [".png"]))), 1) + 1


def _check_count(count: int, where: str) -> None:
    if not isinstance(count, (int, np.integer)) or not 2 <= count <= MAX_CLASSES:
        raise DatasetError(f"{where}: 2 to {MAX_CLASSES} classes are possible, got {count!r}.")
