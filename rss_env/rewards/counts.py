"""Exact integer counts of how label maps meet their targets: all that the image-level scores are made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rss_env.datasets.dataset import IGNORE_INDEX


class Counts(NamedTuple):
    """Pixel counts of every label map and class; ignored pixels are in none of them.

    Attributes:
        intersection: int64 (B, K, C), pixels where label map and target both are the class.
        predicted: int64 (B, K, C), pixels where the label map is the class.
        target: int64 (B, 1, C), pixels where the target is the class.
    """

    intersection: np.ndarray
    predicted: np.ndarray
    target: np.ndarray


def count_labels(
    label_maps: np.ndarray, targets: np.ndarray, num_classes: int, target_counts: np.ndarray | None = None
) -> Counts:
    """Counts intersections, predictions and targets of every class in one pass over the label maps.

    Each pixel gets one of 2C + 1 codes: its class if the label map is right there, C + its class if it is wrong, 2C if
    the target ignores it. One histogram of the codes per label map then holds both counts.

    Args:
        label_maps: uint8 (B, K, H, W), values 0..C-1.
        targets: uint8 (B, H, W), values 0..C-1 or 255 (ignored).
        num_classes: C, 2 to 255.
        target_counts: int64 (B, C), what ``count_targets`` gives for the targets, if it is known already.
    """
    batch, samples, height, width = label_maps.shape
    pixels = height * width
    maps = label_maps.reshape(batch, samples, pixels)
    truth = targets.reshape(batch, 1, pixels)
    code_type = np.uint8 if 2 * num_classes < 256 else np.uint16
    code = maps + np.multiply(maps != truth, num_classes, dtype=code_type)  # (B, K, H·W)
    ignored = truth == IGNORE_INDEX
    if ignored.any():
        np.copyto(code, code_type(2 * num_classes), where=ignored)
    codes = histogram(code.reshape(batch * samples, pixels), 2 * num_classes + 1)
    codes = codes.reshape(batch, samples, -1)[..., : 2 * num_classes]
    intersection = codes[..., :num_classes]
    if target_counts is None:
        target_counts = count_targets(targets, num_classes)
    return Counts(intersection, intersection + codes[..., num_classes:], target_counts[:, None])


def count_targets(targets: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels of every class.

    Args:
        targets: uint8 (B, H, W), values 0..C-1 or 255 (ignored).
        num_classes: C.

    Returns:
        int64 (B, C).
    """
    flat = np.minimum(targets, num_classes).reshape(len(targets), -1)
    return histogram(flat, num_classes + 1)[:, :num_classes]


def histogram(values: np.ndarray, bins: int) -> np.ndarray:
    """Counts the values of each row.

    Where the square of ``bins`` is small beside a row, two values are counted at a time as one of bins² pairs: half as
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
