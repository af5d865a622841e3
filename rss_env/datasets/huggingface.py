"""Reads a data set of the library ``datasets`` (the extra ``hf``), which is imported only when one is asked for."""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rss_env.datasets.cache import cache_dir, writing_to
from rss_env.datasets.pairs import Pairs
from rss_env.errors import DatasetError

NAMES = {"validation": "val", "valid": "val"}  # of splits, in the words of this package
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "WEBP": ".webp", "TIFF": ".tif"}


def read_huggingface(name: str, base: Path, images: str = "image", masks: str = "mask") -> Pairs:
    """The photos of a data set of the library ``datasets``.

    Files of the user's disk are read where they are. What is stored inside the data set is written once, unchanged,
    into the folder of the decoded cache.

    Args:
        name: path of a data set on disk (saved by ``save_to_disk``, or a folder that ``load_dataset`` takes), from
            ``base``; else its name at the Hugging Face hub.
        base: folder that a path starts from.
        images: column of the photos.
        masks: column of the masks, pictures or arrays of class numbers; without it there are no masks.

    Raises:
        DatasetError: the library is not installed or cannot load the data set, or a column is missing or not filled.
    """
    rows: list[tuple[str, Path, Path | None, str]] = []
    for split, data in _load(name, base).items():
        if images not in data.column_names:
            raise DatasetError(
                f"huggingface={name!r} has no column {images!r}, but {', '.join(data.column_names)}; name that of the "
                "photos with images= and that of the masks with masks=."
            )
        if masks != "mask" and masks not in data.column_names:
            raise DatasetError(f"huggingface={name!r} has no column {masks!r}, but {', '.join(data.column_names)}.")
        columns = [column for column in (images, masks) if column in data.column_names]
        place = cache_dir() / "huggingface" / re.sub(r"\W+", "-", f"{name} {split} {data._fingerprint}").lower()
        files = [_files(data, column, place) for column in columns]
        for row, photo in enumerate(files[0]):
            mask = files[1][row] if len(files) > 1 else None
            rows.append((f"{split}/{row:06d}", photo, mask, NAMES.get(split, split)))
    if not rows:
        raise DatasetError(f"huggingface={name!r} holds no photo.")
    ids, photos, paired, splits = zip(*rows, strict=True)
    labels = tuple(mask for mask in paired if mask is not None)
    if labels and len(labels) < len(ids):
        raise DatasetError(f"huggingface={name!r}: some splits have the column {masks!r} and some have not.")
    found = f"huggingface {name}, columns {', '.join(columns)} of {', '.join(data.column_names)}"
    return Pairs(ids, photos, labels, splits if len(set(splits)) > 1 else (), found)


def _load(name: str, base: Path) -> Mapping[str, Any]:
    """The splits of a data set."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise DatasetError(f"huggingface={name!r} needs the library datasets: pip install 'rss-env[hf]'.") from error
    local = base / name
    try:
        if (local / "dataset_dict.json").exists() or (local / "state.json").exists():
            loaded = datasets.load_from_disk(str(local))
        else:
            loaded = datasets.load_dataset(str(local) if local.exists() else name)
    except Exception as error:  # whatever the library and its servers raise
        reason = " ".join(str(error).split())
        raise DatasetError(f"huggingface={name!r} cannot be loaded: {type(error).__name__}: {reason}") from error
    return loaded if isinstance(loaded, Mapping) else {"train": loaded}


def _files(data: Any, column: str, place: Path) -> list[Path]:
    """A file for each row of a column: the user's own where the data set names it, else one below ``place``."""
    feature = data.features[column]
    if hasattr(feature, "decode"):  # a feature of pictures: as the bytes that are stored
        data = data.cast_column(column, type(feature)(decode=False))
    paths = []
    with writing_to(place / column):
        written = {path.stem: path for path in (place / column).iterdir() if not path.name.startswith(".")}
        if len(written) == len(data):
            return [written[f"{row:06d}"] for row in range(len(data))]
        for row, value in enumerate(data.select_columns([column])):
            key = f"{row:06d}"
            own = _own_file(value[column])
            if own is not None:
                paths.append(own)
                continue
            if key not in written:
                written[key] = _write(place / column, key, value[column], f"column {column!r}, row {row}")
            paths.append(written[key])
    return paths


def _own_file(value: Any) -> Path | None:
    path = value.get("path") if isinstance(value, Mapping) and not value.get("bytes") else None
    return Path(path) if path else None


def _write(folder: Path, key: str, value: Any, what: str) -> Path:
    """Writes one picture, as it is stored or, from an array, as PNG, in one step."""
    if value is None:
        raise DatasetError(f"{what} is empty.")
    if isinstance(value, Mapping):
        content = value["bytes"]
        try:
            with Image.open(io.BytesIO(content)) as image:
                suffix = SUFFIXES.get(image.format or "", ".png")
        except OSError as error:
            raise DatasetError(f"{what} is no picture: {error}.") from error
    else:
        picture = value if isinstance(value, Image.Image) else Image.fromarray(_as_bytes(value, what))
        buffer, suffix = io.BytesIO(), ".png"
        picture.save(buffer, "PNG")
        content = buffer.getvalue()
    handle, temporary = tempfile.mkstemp(prefix=".", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)  # other users may share the cache
        return Path(temporary).replace(folder / f"{key}{suffix}")
    except OSError:
        Path(temporary).unlink()
        raise


def _as_bytes(value: Any, what: str) -> np.ndarray:
    try:
        numbers = np.asarray(value)
    except ValueError:  # rows of different lengths
        numbers = np.zeros(0, object)
    if numbers.ndim not in (2, 3) or numbers.dtype.kind not in "iu" or numbers.min() < 0 or numbers.max() > 255:
        raise DatasetError(f"{what} is neither a picture nor an array (H, W) of integers from 0 to 255.")
    return numbers.astype(np.uint8)
