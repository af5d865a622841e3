"""Which files make up one split of a photo data set, before anything is decoded."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Collection, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

import numpy as np

from rss_env.datasets.dataset import IGNORE_INDEX, check_split
from rss_env.errors import DatasetError, DatasetNotFoundError

MUST_EXIST = ContextVar("MUST_EXIST", default=True)  # False: locating a split passes over missing photos and masks
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True, eq=False)
class PhotoSource:
    """The files of one split and how to read their masks.

    Attributes:
        name: registry name of the data set.
        split: name of the split.
        ids: n names, one an image.
        images: n paths of photos.
        masks: n paths of 8-bit label maps (grey values or palette indices are the classes); empty if there are none.
        class_names: C names.
        palette: uint8 (C, 3), the colours of the classes.
        relabel: mask value -> class (or 255, ignored) for the values that differ; the others stay.
    """

    name: str
    split: str
    ids: tuple[str, ...]
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    class_names: tuple[str, ...]
    palette: np.ndarray
    relabel: dict[int, int] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return len(self.class_names)

    def files(self) -> tuple[Path, ...]:
        """Every file whose bytes decide the decoded arrays."""
        return self.images + self.masks


def pair_files(
    dataset: str,
    ids: list[str],
    image_dir: Path,
    mask_dir: Path,
    *,
    image_ending: str = "",
    mask_ending: str = ".png",
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Paths of the photo and the mask of each id; see ``find_images`` and ``find_masks``."""
    images = find_images(dataset, ids, image_dir, image_ending)
    return images, find_masks(dataset, ids, images, mask_dir, mask_ending)


def find_images(dataset: str, ids: list[str], folder: Path, ending: str = "") -> tuple[Path, ...]:
    """Path of the photo of each id.

    Args:
        dataset: name of the data set, for errors.
        ids: one an image, possibly with sub-folders.
        folder: where the photos are.
        ending: what follows the id in a photo's name, before the suffix.

    Raises:
        DatasetError: a photo is missing (the first is named, the others are counted).
    """
    listed: dict[str, dict[str, str]] = {}  # sub-folder -> name without suffix -> name of the photo
    images = []
    for image_id in ids:
        place, _, stem = f"{image_id}{ending}".rpartition("/")
        if place not in listed:
            listed[place] = _photos_in(folder / place)
        name = listed[place].get(stem)
        images.append(Path(folder, place, name) if name else None)
    missing = [i for i, image in zip(ids, images, strict=True) if image is None]
    if missing and MUST_EXIST.get():
        name = f"{folder / missing[0]}{ending}{{{','.join(IMAGE_SUFFIXES)}}}"
        raise DatasetError(f"{dataset}: no image {name}{_and_more(missing)}, but the split lists it.")
    return tuple(image or folder / f"{i}{ending}{IMAGE_SUFFIXES[0]}" for i, image in zip(ids, images, strict=True))


def find_masks(
    dataset: str, ids: list[str], images: tuple[Path, ...], folder: Path, ending: str = ".png"
) -> tuple[Path, ...]:
    """Path of the mask of each id.

    Args:
        dataset: name of the data set, for errors.
        ids: one an image, possibly with sub-folders.
        images: the photo of each id, for errors.
        folder: where the masks are.
        ending: what follows the id in a mask's name, suffix included.

    Raises:
        DatasetError: a mask is missing (the first is named, the others are counted).
    """
    listed: dict[str, dict[str, str]] = {}  # sub-folder -> name with its suffix in small letters -> name of the mask
    masks, unmasked = [], []
    for image_id, image in zip(ids, images, strict=True):
        place, _, expected = f"{image_id}{ending}".rpartition("/")
        if place not in listed:
            listed[place] = _masks_in(folder / place)
        mask = Path(folder, place, listed[place].get(expected, expected))
        if expected not in listed[place]:
            unmasked.append((image, mask))
        masks.append(mask)
    if unmasked and MUST_EXIST.get():
        image, mask = unmasked[0]
        raise DatasetError(f"{dataset}: image {image} has no mask: expected {mask}{_and_more(unmasked)}.")
    return tuple(masks)


def _photos_in(folder: Path) -> dict[str, str]:
    """The photos of one folder by their names without suffix, which may be of any case; of two the commoner format."""
    photos = [(stem, suffix) for stem, suffix in _files_in(folder) if suffix.lower() in IMAGE_SUFFIXES]
    photos.sort(key=lambda photo: (-IMAGE_SUFFIXES.index(photo[1].lower()), photo[1]))
    return {stem: stem + suffix for stem, suffix in photos}


def _masks_in(folder: Path) -> dict[str, str]:
    """The files of one folder by their names with the suffix in small letters; of two the one that is spelt so."""
    return {stem + suffix.lower(): stem + suffix for stem, suffix in sorted(_files_in(folder))}


def _files_in(folder: Path) -> list[tuple[str, str]]:
    """The names of the files in one folder, each as (stem, suffix)."""
    names = [PurePath(entry.name) for entry in _scan(folder) if entry.is_file()]
    return [(name.stem, name.suffix) for name in names]


def files_below(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Every file below a folder with one of the suffixes, in whatever case, broken symbolic links too.

    Symbolic links to folders are not followed.

    Raises:
        DatasetError: a folder cannot be listed.
    """
    for entry in _scan(folder):
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(path, suffixes)
        elif path.suffix.lower() in suffixes and not entry.is_dir():
            yield path


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, nothing if it does not exist: one system call for many names, not one for each."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DatasetError(f"Cannot list the folder {folder}: {error.strerror}.") from error


def list_photos(dataset: str, split: str, folder: Path) -> list[str]:
    """Every photo below a folder, as sorted names without suffix, relative to it.

    Raises:
        DatasetError: there is none, or two share a name, or a folder cannot be listed.
    """
    photos = files_below(folder, IMAGE_SUFFIXES)
    names = sorted(p.relative_to(folder).with_suffix("").as_posix() for p in photos)
    check_one_photo(folder, names)
    if not names:
        raise DatasetError(f"{dataset}'s split {split!r} is empty: no image in {folder}.")
    return names


def read_lines(path: Path) -> list[str]:
    """The lines of a split file, stripped, blank ones left out.

    Raises:
        DatasetError: the file cannot be read, or has no line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors put a byte-order mark first
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"Cannot read the split file {path}: {error}.") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DatasetError(f"The split file {path} is empty: it lists no image.")
    return lines


def read_split(path: Path) -> list[str]:
    """The ids that a split file lists, one a line.

    Raises:
        DatasetError: the file is empty, lists an id twice, or an id would lead out of the data set's folder.
    """
    ids = read_lines(path)
    for number, image_id in enumerate(ids, 1):
        outside = ".." in PurePosixPath(image_id).parts or image_id.startswith("/")
        if outside or any(character in image_id for character in "\\:\0"):
            raise DatasetError(
                f"{path}, entry {number}: {image_id!r} leads out of the data set's folder; "
                "an id is a relative path without '..', such as 'city/0001'."
            )
    check_unique(path, ids)
    return ids


def check_unique(path: Path, ids: list[str]) -> None:
    """Raises ``DatasetError`` that names an id the split file lists twice."""
    twice = [image_id for image_id, count in Counter(ids).items() if count > 1]
    if twice:
        raise DatasetError(f"The split file {path} lists {twice[0]!r} twice{_and_more(twice)}.")


def check_one_photo(folder: Path, ids: list[str]) -> None:
    """Raises ``DatasetError`` that names an id which two photos of a folder share, such as ``a.jpg`` and ``a.png``."""
    shared = [image_id for image_id, count in Counter(ids).items() if count > 1]
    if shared:
        raise DatasetError(
            f"{folder} holds more than one photo called {shared[0]!r}{_and_more(shared)}; "
            "an id is the name without its suffix, so keep one photo of each name."
        )


def not_found(dataset: str, looked_for: Path, root: Path, layout: str) -> DatasetNotFoundError:
    """An error that names the layout a data set needs and what the folder holds instead."""
    if not root.exists():
        found = f"{root} does not exist"
    elif not root.is_dir():
        found = f"{root} is not a folder"
    else:
        names = sorted(p.name + "/" * p.is_dir() for p in root.iterdir())
        found = f"{root} holds {', '.join(names[:12]) + _and_more(names, 12) if names else 'nothing'}"
    return DatasetNotFoundError(
        f"{dataset} was not found: looked for {looked_for}, but {found}.\n"
        f"Expected below root:\n{layout}\nPass root=<folder> that holds this layout.{_how_to_get(dataset, root)}"
    )


def find_home(dataset: str, root: str | Path | None, outer: tuple[str, ...], marker: str, layout: str) -> Path:
    """The folder that holds a data set, with or without the outer folders its archive brings.

    Args:
        dataset: name of the data set, for errors.
        root: as the user gave it.
        outer: paths below ``root`` to try, the full one first; ``""`` is ``root`` itself.
        marker: a folder that must be there.
        layout: what to show where nothing is found.

    Raises:
        DatasetNotFoundError: no root was given, or ``marker`` is in none of the places.
    """
    base = need_root(dataset, root, layout)
    home = next((base / path for path in outer if (base / path / marker).is_dir()), None)
    if home is None:
        raise not_found(dataset, base / outer[0] / marker, base, layout)
    return home


def read_devkit_split(dataset: str, lists: Path, split: str) -> list[str]:
    """The ids of a split of a PASCAL devkit, whose folder ``lists`` holds a text file for each split.

    Raises:
        DatasetError: unknown split (the valid ones are listed), or a bad split file.
    """
    check_split(dataset, split, sorted(p.stem for p in lists.glob("*.txt")))
    return read_split(lists / f"{split}.txt")


def ignore_zero(num_classes: int) -> dict[int, int]:
    """The relabelling of masks in which 0 is no class and the C classes are 1..C."""
    return {0: IGNORE_INDEX} | {value: value - 1 for value in range(1, num_classes + 1)}


def need_root(dataset: str, root: str | Path | None, layout: str) -> Path:
    """The root folder as a path; an error that shows the layout where none was given."""
    if root is None:
        raise DatasetNotFoundError(
            f"{dataset} reads photos from disk and needs root=<folder>, for example "
            f'gym.make("RSS-{dataset}-ImageReward-v0", root="data").\nExpected below root:\n{layout}'
            f"{_how_to_get(dataset, 'data')}"
        )
    return Path(root).expanduser()


def _how_to_get(dataset: str, root: str | Path) -> str:
    """The command that fetches a data set, or else tells how to get it; nothing for the user's own photos."""
    from rss_env.datasets import DATASETS  # the registry imports this file

    info = DATASETS[dataset].info
    if info.archives:
        return f"\nTo get it: rss-env download {dataset} --root {shlex.quote(str(root))}"
    return f"\nHow to get it: rss-env info {dataset}" if info.homepage else ""


def _and_more(items: list, shown: int = 1) -> str:
    return f" (and {len(items) - shown} more)" if len(items) > shown else ""


def bit_palette(count: int = 256) -> np.ndarray:
    """PASCAL VOC's colour map, uint8 (count, 3): bit j of a class number sets a high bit of one channel."""
    labels: np.ndarray = np.arange(count)
    colours = np.zeros((count, 3), np.uint8)
    for shift in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> channel) & 1) << (7 - shift)).astype(np.uint8)
        labels = labels >> 3
    return colours
