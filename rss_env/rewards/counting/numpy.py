"""Counting with nothing but NumPy."""

from __future__ import annotations

import numpy as np

from rss_env.datasets.dataset import IGNORE_INDEX


def count_labels(
    maps: np.ndarray, truth: np.ndarray, num_classes: int, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Intersections and predictions of every class, in one pass.

    Each pixel gets one of 2C + 1 codes: its class if the label map is right there, C + its class if it is wrong, 2C if
    the target ignores it. One histogram of the codes of each label map then holds both counts.

    Args:
        maps: unsigned integers (B, K, pixels), values 0..C-1.
        truth: uint8 (B, pixels), values 0..C-1 or 255 (ignored); with ``rows``, (n, pixels).
        num_classes: C.
        rows: int64 (B,), which row of ``truth`` belongs to each image; None: the one of the same number.

    Returns:
        Two int64 (B, K, C).
    """
    batch, samples, pixels = maps.shape
    truth = (truth if rows is None else truth[rows])[:, None]
    code_type = np.uint8 if 2 * num_classes < 256 else np.uint16
    code = maps + np.multiply(maps != truth, num_classes, dtype=code_type)  # (B, K, pixels)
    ignored = truth == IGNORE_INDEX
    if ignored.any():
        np.copyto(code, code_type(2 * num_classes), where=ignored)
    codes = histogram(code.reshape(batch * samples, pixels), 2 * num_classes + 1)
    codes = codes.reshape(batch, samples, -1)[..., : 2 * num_classes]
    right, wrong = codes[..., :num_classes], codes[..., num_classes:]
    return right, right + wrong


def count_classes(rows: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels of every class: uint8 (n, pixels), values 0..C-1 or 255 (not counted) -> int64 (n, C)."""
    return histogram(np.minimum(rows, num_classes), num_classes + 1)[:, :num_classes]


def narrow(maps: np.ndarray, num_classes: int) -> np.ndarray | None:
    """Integers of any shape as uint8; None if one of them is outside 0..C-1."""
    unsigned_type = f"{maps.dtype.str[0]}u{maps.dtype.itemsize}"  # of the same byte order
    unsigned = np.ascontiguousarray(maps).view(unsigned_type)  # a negative label becomes a huge one
    if unsigned.size and unsigned.max() >= num_classes:
        return None
    return unsigned.astype(np.uint8, copy=False)


def histogram(values: np.ndarray, bins: int) -> np.ndarray:
    """Counts the values of each row.

    Where the square of ``bins`` is small next to a row, two values are counted at a time as one of bins² pairs: half as
    many increments, whose latency is what a histogram costs.

    Args:
        values: unsigned integers (n, pixels), each below ``bins``.
        bins: number of bins.

    Returns:
        int64 (n, bins).
    """
    pixels = values.shape[1]
    if pixels % 2 == 0 and 8 * bins * bins <= pixels and bins * bins < 1 << 16:
        pair_type = np.uint8 if bins * bins <= 256 else np.uint16
        half = pixels // 2
        pairs = np.multiply(values[:, :half], bins, dtype=pair_type, casting="unsafe") + values[:, half:]
        counts = _bincount_rows(pairs, bins * bins).reshape(-1, bins, bins)
        return counts.sum(axis=1) + counts.sum(axis=2)
    return _bincount_rows(values, bins)


def _bincount_rows(values: np.ndarray, bins: int) -> np.ndarray:
    rows = len(values)
    places = values.astype(np.intp)
    places += np.arange(rows, dtype=np.intp)[:, None] * bins
    return np.bincount(places.ravel(), minlength=rows * bins).reshape(rows, bins)
