"""Reads the text files that list the images of a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath, PurePosixPath

from rss_env.datasets.dataset import check_split
from rss_env.datasets.files import has_folder, read_text, scan
from rss_env.errors import DatasetError, OptionError


def read_devkit_split(dataset: str, lists: Path, split: str) -> list[str]:
    """The ids of a split of a PASCAL devkit, whose folder ``lists`` holds a text file for each split.

    Raises:
        DatasetError: unknown split (the valid ones are listed), or a bad split file.
    """
    check_split(dataset, split, list_splits(lists))
    return read_split(lists / f"{split}.txt")


def split_folder(root: Path, splits: object, usual: str) -> Path:
    """The folder of the split files.

    Args:
        root: of the data set.
        splits: the option of that name, a path from ``root``; None for the usual place.
        usual: that place, from ``root``.

    Raises:
        OptionError: ``splits`` is not a path.
        DatasetError: there is no such folder.
    """
    if splits is None:
        return root / usual
    if not isinstance(splits, str) or not splits or "\0" in splits:
        raise OptionError(f"splits must be a path, got {splits!r}.")
    if not has_folder(root / splits):
        raise DatasetError(f"splits={splits!r}: there is no folder {root / splits}.")
    return root / splits


def list_splits(folder: Path) -> list[str]:
    """The names of the split files in a folder, sorted, without ``.txt``; none if there is no folder.

    Raises:
        DatasetError: it is not a folder, or cannot be listed.
    """
    names = [PurePath(entry.name) for entry in scan(folder)] if has_folder(folder) else []
    return sorted(name.stem for name in names if name.suffix == ".txt")


def read_split(path: Path) -> list[str]:
    """The ids that a split file lists, one per line; ``./a`` and ``a//b`` are the ids ``a`` and ``a/b``.

    Raises:
        DatasetError: the file is empty, lists an id twice, or an id would lead out of the data set's folder.
    """
    ids = {}
    for number, line in read_lines(path).items():
        place = PurePosixPath(line)
        if ".." in place.parts or place.is_absolute() or not place.parts or any(c in line for c in "\\:\0"):
            raise DatasetError(
                f"{path}, line {number}: {line!r} leads out of the data set's folder; "
                "an id is a relative path without '..', such as 'city/0001'."
            )
        ids[number] = place.as_posix()
    check_unique(path, ids)
    return list(ids.values())


def read_lines(path: Path) -> dict[int, str]:
    """The lines of a split file by their numbers from 1 on, stripped, without blank ones.

    Raises:
        DatasetError: the file cannot be read, or has no line.
    """
    text = read_text(path, "utf-8-sig")  # Windows editors put a byte-order mark first
    lines = {number: line.strip() for number, line in enumerate(text.splitlines(), 1) if line.strip()}
    if not lines:
        raise DatasetError(f"The split file {path} is empty: it lists no image.")
    return lines


def check_unique(path: Path, ids: dict[int, str]) -> None:
    """Raises ``DatasetError`` that names an id which the split file lists twice, and the lines."""
    first: dict[str, int] = {}
    twice = {number: image_id for number, image_id in ids.items() if first.setdefault(image_id, number) != number}
    if twice:
        number, image_id = next(iter(twice.items()))
        more = and_more(list(dict.fromkeys(twice.values())))
        raise DatasetError(
            f"The split file {path} lists {image_id!r} twice, in lines {first[image_id]} and {number}{more}."
        )


def and_more(items: Sequence, shown: int = 1) -> str:
    """The end of a list of which only the first few items are shown."""
    return f" (and {len(items) - shown} more)" if len(items) > shown else ""
