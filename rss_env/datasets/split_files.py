"""Reads the text files that list the images of a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from rss_env.datasets.dataset import check_split
from rss_env.errors import DatasetError


def read_devkit_split(dataset: str, lists: Path, split: str) -> list[str]:
    """The ids of a split of a PASCAL devkit, whose folder ``lists`` holds a text file for each split.

    Raises:
        DatasetError: unknown split (the valid ones are listed), or a bad split file.
    """
    check_split(dataset, split, sorted(p.stem for p in lists.glob("*.txt")))
    return read_split(lists / f"{split}.txt")


def read_split(path: Path) -> list[str]:
    """The ids that a split file lists, one per line.

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


def read_lines(path: Path) -> list[str]:
    """The lines of a split file, stripped, without blank ones.

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


def check_unique(path: Path, ids: list[str]) -> None:
    """Raises ``DatasetError`` that names an id the split file lists twice."""
    twice = [image_id for image_id, count in Counter(ids).items() if count > 1]
    if twice:
        raise DatasetError(f"The split file {path} lists {twice[0]!r} twice{and_more(twice)}.")


def and_more(items: Sequence, shown: int = 1) -> str:
    """The end of a list of which only the first few items are shown."""
    return f" (and {len(items) - shown} more)" if len(items) > shown else ""
