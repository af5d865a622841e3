"""Folder: your own photos and label maps.

Layout below ``root``::

    images/ID.jpg           or .jpeg .png .bmp .webp .tif .tiff; sub-folders are part of the ID
    masks/ID.png            8-bit greyscale or palette PNG, 0..C-1 are classes, 255 is ignored; or RGB, in the
                            colours of "palette" in classes.json
    splits/SPLIT.txt        optional, one ID per line
    classes.json            optional: {"classes": [names], "ignore_label": 255, "palette": [[r, g, b], ...],
                            "ignore_colours": [[r, g, b], ...]} or [names]

Other names are told by the options ``images`` and ``masks``, lists of files by ``manifest``.

Without ``masks/`` the photos have no targets: then the reward must be a callable, and ``classes.json`` or
``num_classes=`` must give the number of classes.

Without ``splits/`` an image belongs to ``val`` if the SHA-256 of its ID is divisible by 5, else to ``train``; the split
``all`` is every image. Without ``classes.json`` pass ``num_classes=``, or the number of classes is one more than the
largest label in any mask.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from rss_env.datasets.dataset import IGNORE_INDEX, MAX_CLASSES, check_split
from rss_env.datasets.decode import read_mask
from rss_env.datasets.files import has_file, has_folder, read_text, root_path
from rss_env.datasets.huggingface import read_huggingface
from rss_env.datasets.info import DatasetInfo, as_palette, is_colour
from rss_env.datasets.layout import (
    check_complete,
    files_below,
    find_images,
    find_masks,
    list_photos,
    need_root,
    not_found,
)
from rss_env.datasets.manifest import read_manifest
from rss_env.datasets.pairs import Pairs
from rss_env.datasets.patterns import Pattern, match_patterns
from rss_env.datasets.photos import Colour, Colours, PhotoSource, bit_palette
from rss_env.datasets.split_files import and_more, list_splits, read_split, split_folder
from rss_env.errors import DatasetError, EmptySplitError, OptionError

LAYOUT = """\
  images/ID.jpg (or .jpeg .png .bmp .webp .tif .tiff)
  masks/ID.png (may be left out where the reward is a callable)
  splits/{train,val,test}.txt (optional)
  classes.json (optional)"""

INFO = DatasetInfo(
    title="Your own photos and label maps",
    layout=LAYOUT,
    licence="That of your photos.",
    ignore='255, the "ignore_label" of classes.json, and in RGB masks its "ignore_colours"',
    steps="Put your photos and label maps into the layout above, or say with images= and masks= what they are called; "
    "rss-env check FOLDER finds that out, and lists every problem with them.",
)


def locate(
    root: str | Path | None,
    split: str,
    *,
    num_classes: int | None = None,
    classes: str | None = None,
    images: str | None = None,
    masks: str | None = None,
    manifest: str | None = None,
    huggingface: str | None = None,
    splits: str | None = None,
) -> PhotoSource:
    """Finds the files of one split.

    Args:
        root: the folder that holds ``images/`` and, unless the photos have no targets, ``masks/``; with ``manifest`` or
            ``huggingface`` the folder that their paths start from, or None.
        split: a file in ``splits/``, a split that ``images``, the manifest or the library names, or ``"all"``; where
            nothing names splits: ``"train"``, ``"val"`` or ``"all"``.
        num_classes: number of classes C, 2 to 255, where there is no ``classes.json``.
        classes: path of the file that is ``classes.json`` by default, from ``root``.
        images: pattern of the photos, such as ``"photos/*.JPEG"``: ``*`` is the ID, ``**/*`` one with sub-folders, and
            ``{split}`` the name of a folder that says the split; with ``manifest`` or ``huggingface`` the name of the
            photos' column, by default ``"image"``.
        masks: the same for the masks, such as ``"labels/*_L.png"``; the column is by default ``"mask"``.
        manifest: path of a file of JSON lines or a ``.csv`` with the columns image, mask and split, of which the last
            two may be left out; paths in it start from its own folder.
        huggingface: name of a data set of the library ``datasets``, or the path of one on disk.
        splits: folder of the split files where it is not ``splits/``, from ``root``.

    Raises:
        DatasetNotFoundError: the layout is not below ``root``.
        DatasetError: unknown or empty split, a bad ``classes.json`` or manifest, a pattern that finds nothing, or masks
            in which the classes cannot be counted.
        OptionError: options that do not go together, or a pattern without ``*``.
    """
    if splits is not None and (root is None or manifest or huggingface):
        raise OptionError(
            "splits goes with root=, not with manifest= or huggingface=, which say the splits themselves."
        )
    pairs = _find_pairs(root, images, masks, manifest, huggingface)
    described = class_file(root, classes, manifest)
    lists = None if root is None or manifest or huggingface else split_folder(root_path(root), splits, "splits")
    every_mask: Iterable[Path]
    if pairs is not None:
        found, every_mask = pairs.found, pairs.masks
        ids, photos, labels = _choose(pairs, lists, split)
    else:
        base = need_root("Folder", root, INFO)
        if not (base / "images").is_dir():
            raise not_found("Folder", base / "images", base, INFO)
        ids = _split_ids(lists, split, lambda: list_photos("Folder", split, base / "images"), str(base / "images"))
        photos = find_images(ids, base / "images")
        labels = find_masks(ids, base / "masks") if has_folder(base / "masks") else ()
        found = "photos images/" + ", masks masks/" * bool(labels)
        every_mask = files_below(base / "masks", [".png"])
    if pairs is None or not pairs.splits:
        found += ", splits/" if lists is not None and list_splits(lists) else ", splits by a hash of the names"
    if num_classes is None and not has_file(described):
        check_complete("Folder", photos, labels)  # before every mask is decoded
        if not labels:
            raise DatasetError(
                f"Folder: {described.parent} has no masks/, so the classes cannot be counted in them. Put the masks "
                "there or name them with masks=, or, if the reward is a callable that needs none, pass num_classes= or "
                f"write {described}."
            )
        num_classes = _count_classes(sorted(every_mask), Colours(described))
    names, palette, relabel, colours = read_classes(described, num_classes)
    return PhotoSource("Folder", split, tuple(ids), photos, labels, names, palette, relabel, colours, found)


def class_file(root: str | Path | None, classes: str | None = None, manifest: str | None = None) -> Path:
    """Where the classes are described: ``classes.json`` next to the manifest or in ``root``, unless it is named."""
    base = Path() if root is None else root_path(root)
    if classes is not None:
        path = base / _text("classes", classes)
        if not has_file(path):
            raise DatasetError(f"classes={classes!r}: there is no file {path}.")
        return path
    return (base if manifest is None else (base / _text("manifest", manifest)).parent) / "classes.json"


def split_names(root: str | Path | None, **options: str | None) -> list[str]:
    """The splits that there are, without ``"all"``: the usual ones first.

    Args:
        root: as for ``locate``.
        **options: ``images``, ``masks``, ``manifest`` and ``huggingface`` as for ``locate``.

    Raises:
        DatasetError: see ``locate``.
    """
    pairs = _find_pairs(root, **options)
    found = list(dict.fromkeys(pairs.splits)) if pairs is not None else []
    if not found and root is not None and not (options.get("manifest") or options.get("huggingface")):
        found = list_splits(root_path(root) / "splits")
    usual = ["train", "val", "test"]
    return [*(s for s in usual if s in found), *(s for s in found if s not in usual)] or ["train", "val"]


def _find_pairs(
    root: str | Path | None,
    images: str | None = None,
    masks: str | None = None,
    manifest: str | None = None,
    huggingface: str | None = None,
) -> Pairs | None:
    """What patterns, a manifest or a library list; None if none of them is asked for."""
    if manifest is not None and huggingface is not None:
        raise OptionError("manifest and huggingface are two sources: give one of them.")
    columns = {"images": images or "image", "masks": masks or "mask"}
    base = Path() if root is None else root_path(root)
    if manifest is not None:
        return read_manifest(base / _text("manifest", manifest), **columns)
    if huggingface is not None:
        return read_huggingface(_text("huggingface", huggingface), base, **columns)
    if images is None and masks is None:
        return None
    base = need_root("Folder", root, INFO)
    photos = Pattern("images", "images/**/*" if images is None else images)
    if masks is None:
        return match_patterns(base, photos, Pattern("masks", "masks/**/*.png") if has_folder(base / "masks") else None)
    return match_patterns(base, photos, Pattern("masks", masks))


def _choose(pairs: Pairs, lists: Path | None, split: str) -> tuple[list[str], tuple[Path, ...], tuple[Path, ...]]:
    """The ids, photos and masks of one split."""
    if pairs.splits:
        check_split("Folder", split, [*dict.fromkeys(pairs.splits), "all"])
        rows = pairs.rows(split)
    else:
        place = {image_id: row for row, image_id in enumerate(pairs.ids)}
        ids = _split_ids(lists, split, lambda: list(pairs.ids), pairs.found)
        missing = [image_id for image_id in ids if image_id not in place]
        if missing:
            raise DatasetError(
                f"{lists}/{split}.txt lists {missing[0]!r}{and_more(missing)}, but no photo has that id: {pairs.found}."
            )
        rows = [place[image_id] for image_id in ids]
    masks = tuple(pairs.masks[row] for row in rows) if pairs.masks else ()
    return [pairs.ids[row] for row in rows], tuple(pairs.images[row] for row in rows), masks


def _split_ids(lists: Path | None, split: str, list_ids: Callable[[], list[str]], where: str) -> list[str]:
    """The ids of a split of which a file in the folder ``lists`` or, where there is none, a hash decides."""
    found = list_splits(lists) if lists is not None else []
    rules: dict[str, Callable[[str], bool]] = {"all": lambda image_id: True}
    if not found:
        rules |= {"train": lambda image_id: not _in_val(image_id), "val": _in_val}
    check_split("Folder", split, [*found, *(rule for rule in rules if rule not in found)])
    if lists is not None and split in found:
        return read_split(lists / f"{split}.txt")
    every = list_ids()
    ids = [image_id for image_id in every if rules[split](image_id)]
    if not ids:
        raise EmptySplitError(
            f"Folder: split {split!r} is empty; {where} holds {len(every)} images, and without split files a hash of "
            "the name decides. With few images say which are train and which val, such as in splits/val.txt."
        )
    return ids


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise OptionError(f"{name} must be a path, got {value!r}.")
    return value


def _in_val(image_id: str) -> bool:
    return int.from_bytes(hashlib.sha256(image_id.encode(errors="surrogateescape")).digest(), "big") % 5 == 0


def read_classes(path: Path, num_classes: int | None) -> tuple[tuple[str, ...], np.ndarray, dict[int, int], Colours]:
    """Class names, palette, relabelling and the classes of colours, of which a ``classes.json`` says what it likes.

    Args:
        path: of the file; where there is none, ``num_classes`` classes have no names of their own.
        num_classes: C; None if the file says it.

    Raises:
        DatasetError: the file is wrong, or names another number of classes.
    """
    if not has_file(path):
        assert num_classes is not None
        _check_count(num_classes, "num_classes")
        return tuple(f"class {c}" for c in range(num_classes)), bit_palette(num_classes), {}, Colours(path)
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
    palette, colours = bit_palette(len(names)), {}
    if "palette" in described:
        palette = as_palette(described["palette"], len(names), f'{path}: "palette"')
        colours = _classes_of_colours(path, palette, described.get("ignore_colours", []))
    elif "ignore_colours" in described:
        raise DatasetError(f'{path} has "ignore_colours" but no "palette", the colours of the classes.')
    relabel = {} if ignored == IGNORE_INDEX else {ignored: IGNORE_INDEX}
    return tuple(names), palette, relabel, Colours(path, colours, _of_one_colour(palette))


def _classes_of_colours(path: Path, palette: np.ndarray, ignored: Any) -> dict[Colour, int]:
    """Colour -> class, or 255 for one that is ignored."""
    if not isinstance(ignored, list):
        raise DatasetError(f'{path}: "ignore_colours" must be a list of colours, got {ignored!r}.')
    known: dict[Colour, int] = {}
    for label, colour in enumerate(map(tuple, palette.tolist())):
        known.setdefault(colour, label)
    for number, colour in enumerate(ignored):
        if not is_colour(colour):
            raise DatasetError(
                f'{path}: "ignore_colours": colour {number} must be three integers of 0..255, got {colour!r}.'
            )
        if known.setdefault(tuple(colour), IGNORE_INDEX) != IGNORE_INDEX:
            raise DatasetError(
                f'{path}: the colour {colour} of class {known[tuple(colour)]} is in "ignore_colours" too.'
            )
    return known


def _of_one_colour(palette: np.ndarray) -> tuple[int, int] | None:
    """The first two classes that have the same colour."""
    first: dict[Colour, int] = {}
    for label, colour in enumerate(map(tuple, palette.tolist())):
        if first.setdefault(colour, label) != label:
            return first[colour], label
    return None


def _count_classes(masks: Iterable[Path], colours: Colours) -> int:
    def largest(path: Path) -> int:
        labels = np.asarray(read_mask(path, colours))
        return int(labels.max(initial=0, where=labels != IGNORE_INDEX))

    with ThreadPoolExecutor() as pool:
        return max(1, *pool.map(largest, masks), 1) + 1


def _check_count(count: int, where: str) -> None:
    if not isinstance(count, (int, np.integer)) or not 2 <= count <= MAX_CLASSES:
        raise DatasetError(f"{where}: 2 to {MAX_CLASSES} classes are possible, got {count!r}.")
