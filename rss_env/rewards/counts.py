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


def count_labels(label_maps: np.ndarray, targets: np.ndarray, num_classes: int) -> Counts:
    """Counts intersections, predictions and targets of every class in one pass over the label maps.

    Each pixel gets one of 2C + 1 codes: its class if the label map is right there, C + its class if it is wrong, 2C if
    the target ignores it. One histogram of the codes per label map then holds both counts.

    Args:
        label_maps: uint8 (B, K, H, W), values 0..C-1.
        targets: uint8 (B, H, W), values 0..C-1 or 255 (ignored).
        num_classes: C, 2 to 255.
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
    counted = np.minimum(truth, num_classes).reshape(batch, pixels)
    target = histogram(counted, num_classes + 1)[:, None, :num_classes]
    return Counts(intersection, intersection + codes[..., num_classes:], target)


def histogram(values: np.ndarray, bins: int) -> np.ndarray:
    """Counts the values of each row.

    Args:
        values: unsigned integers (n, pixels), each below ``bins``.
        bins: number of bins.

    Returns:
        int64 (n, bins).
    """
    rows = len(values)
    offsets = np.arange(rows, dtype=np.intp)[:, None] * bins
    flat = np.add(values, offsets, dtype=np.intp)
    return np.bincount(flat.ravel(), minlength=rows * bins).reshape(rows, bins)
