"""Reads a manifest: a file of JSON lines or a CSV that lists photos, their masks and their splits."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from rss_env.datasets.files import check_file
from rss_env.datasets.pairs import Pairs
from rss_env.errors import DatasetError

SUFFIXES = (".jsonl", ".ndjson", ".csv")


def read_manifest(path: Path, images: str = "image", masks: str = "mask") -> Pairs:
    """The photos that a manifest lists; its paths start from its own folder.

    Args:
        path: of a ``.csv`` with a line of column names, or of a file with a JSON object in every line.
        images: name of the column of photos.
        masks: name of the column of masks, which may be missing or empty in every line.

    Raises:
        DatasetError: it cannot be read, lists nothing, or a line is wrong (its number is named). The column ``split``
            and that of the masks must be filled in every line or in none.
    """
    check_file(path)
    rows: list[tuple[str, str, str]] = []
    first: dict[str, int] = {}  # photo -> its line
    first_line = 0
    for number, values in _lines(path):
        row = tuple(_value(path, number, values, name) for name in (images, masks, "split"))
        image, mask, split = row
        if not image:
            columns = ", ".join(map(str, values)) or "nothing"
            raise DatasetError(f"{path}, line {number}: no {images!r}; the line has {columns}.")
        if image in first:
            raise DatasetError(f"{path}, line {number}: the photo {image!r} is listed in line {first[image]} already.")
        if "/" in split or split in (".", ".."):
            raise DatasetError(f"{path}, line {number}: a split is a name such as 'train', got {split!r}.")
        first[image] = number
        if rows:
            for name, value, before in ((masks, mask, rows[0][1]), ("split", split, rows[0][2])):
                if bool(value) != bool(before):
                    has, lacks = (number, first_line) if value else (first_line, number)
                    raise DatasetError(f"{path}, line {lacks}: no {name!r}, which line {has} has; give all or none.")
        else:
            first_line = number
        rows.append((image, mask, split))
    if not rows:
        raise DatasetError(f"The manifest {path} lists no photo.")
    here = path.parent
    return Pairs(
        _ids([image for image, _, _ in rows]),
        tuple(here / image for image, _, _ in rows),
        tuple(here / mask for _, mask, _ in rows if mask),
        tuple(split for _, _, split in rows if split),
        f"manifest {path.name}",
    )


def _ids(images: list[str]) -> tuple[str, ...]:
    """The paths of the photos without their suffixes; with them where two would be the same."""
    ids = [PurePath(image).with_suffix("").as_posix() for image in images]
    return tuple(ids if len(set(ids)) == len(ids) else images)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number and the values of every line that is not blank, read one by one."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # Windows editors put a byte-order mark first
            if path.suffix.lower() == ".csv":
                table = csv.DictReader(file, skipinitialspace=True)
                for values in table:
                    if None in values:
                        raise DatasetError(f"{path}, line {table.line_num}: more values than the first line has names.")
                    yield table.line_num, values
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _parse(path, number, line)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.") from error


def _parse(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:  # the latter: brackets nested thousands deep
        raise DatasetError(f"{path}, line {number} is no JSON: {error}. (A table must end in .csv.)") from error
    if not isinstance(values, dict):
        raise DatasetError(f'{path}, line {number} must be an object such as {{"image": "a.jpg", "mask": "a.png"}}.')
    return values


def _value(path: Path, number: int, values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    if value is not None and (not isinstance(value, str) or "\0" in value):
        raise DatasetError(f"{path}, line {number}: {name!r} must be text, got {value!r}.")
    return value or ""
