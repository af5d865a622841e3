"""Counting compiled by Numba: the label maps are read once, a block of pixels at a time.

With few classes every class is compared with every pixel of a block. Labels and sums are single bytes, so the compiler
makes vector instructions of the loop over the pixels. With many classes a histogram costs less: one increment a pixel,
in four tables, so that equal neighbours do not wait for each other.
"""

from __future__ import annotations

import numpy as np

from rss_env.compiled import compiled
from rss_env.rewards.counting import numpy as count_numpy

BLOCK = 128  # pixels: a byte holds their sum, and the vectorised loop has no remainder
FEW_CLASSES = 40  # up to here comparing every class is the faster way
IGNORED = np.uint8(255)


def count_labels(
    maps: np.ndarray, truth: np.ndarray, num_classes: int, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Intersections and predictions of every class.

    Args:
        maps: unsigned integers (B, K, pixels), values 0..C-1.
        truth: uint8 (B, pixels), values 0..C-1 or 255 (ignored); with ``rows``, (n, pixels).
        num_classes: C.
        rows: int64 (B,), which row of ``truth`` belongs to each image; None: the one of the same number.

    Returns:
        Two int64 (B, K, C).
    """
    maps, truth = _bytes(maps), _bytes(truth)
    counts: np.ndarray = np.zeros((2, *maps.shape[:2], num_classes), np.int64)
    kernel = _compare_labels if num_classes <= FEW_CLASSES else _tally_labels
    kernel(maps, truth, np.arange(len(maps)) if rows is None else rows, num_classes, counts[0], counts[1])
    return counts[0], counts[1]


def count_classes(rows: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels of every class: uint8 (n, pixels), values 0..C-1 or 255 (not counted) -> int64 (n, C)."""
    counts: np.ndarray = np.zeros((len(rows), num_classes), np.int64)
    _tally_classes(_bytes(rows), num_classes, counts)
    return counts


def narrow(maps: np.ndarray, num_classes: int) -> np.ndarray | None:
    """Integers of any shape as uint8; None if one of them is outside 0..C-1. One pass for check and conversion."""
    if maps.dtype == np.uint8:  # nothing to convert, and NumPy's maximum is as fast as the memory
        return count_numpy.narrow(maps, num_classes)
    flat: np.ndarray = np.ascontiguousarray(maps, maps.dtype.newbyteorder("=")).reshape(-1)
    out: np.ndarray = np.empty(flat.shape, np.uint8)
    return None if _narrow(flat, num_classes, out) else out.reshape(maps.shape)


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.uint8)


@compiled
def _compare_labels(maps, truth, rows, num_classes, intersection, predicted):  # type: ignore[no-untyped-def]
    batch, samples, pixels = maps.shape
    whole = pixels - pixels % BLOCK
    counted = np.empty(BLOCK, np.uint8)  # the label of each pixel that is not ignored
    right = np.empty(BLOCK, np.uint8)  # the label of each pixel that is right
    for b in range(batch):
        target = truth[rows[b]]
        for k in range(samples):
            label_map = maps[b, k]
            for start in range(0, whole, BLOCK):
                for i in range(BLOCK):
                    label, wanted = label_map[start + i], target[start + i]
                    counted[i] = IGNORED if wanted == IGNORED else label
                    right[i] = label if wanted == label else IGNORED
                for number in range(num_classes):
                    label, hits, found = np.uint8(number), np.uint8(0), np.uint8(0)
                    for i in range(BLOCK):
                        hits = np.uint8(hits + (right[i] == label))
                        found = np.uint8(found + (counted[i] == label))
                    intersection[b, k, number] += hits
                    predicted[b, k, number] += found
            for i in range(whole, pixels):
                if target[i] != IGNORED and label_map[i] < num_classes:  # compiled code checks no bounds
                    predicted[b, k, label_map[i]] += 1
                    intersection[b, k, label_map[i]] += label_map[i] == target[i]


@compiled
def _tally_labels(maps, truth, rows, num_classes, intersection, predicted):  # type: ignore[no-untyped-def]
    batch, samples, pixels = maps.shape
    # In each table: right pixels from 0 on, wrong ones from 256, ignored ones from 512.
    tables = np.empty((4, 1024), np.int64)
    for b in range(batch):
        for k in range(samples):
            tables[:] = 0
            for i in range(pixels):
                label, target = maps[b, k, i], truth[rows[b], i]
                tables[i & 3, label + 256 * (label != target) + 512 * (target == IGNORED)] += 1
            for table in tables:
                for label in range(num_classes):
                    intersection[b, k, label] += table[label]
                    predicted[b, k, label] += table[label] + table[256 + label]


@compiled
def _tally_classes(rows, num_classes, counts):  # type: ignore[no-untyped-def]
    tables = np.empty((4, 256), np.int64)
    for row in range(len(rows)):
        tables[:] = 0
        for i in range(rows.shape[1]):
            tables[i & 3, rows[row, i]] += 1
        for table in tables:
            for label in range(num_classes):
                counts[row, label] += table[label]


@compiled
def _narrow(values, num_classes, out):  # type: ignore[no-untyped-def]
    outside = False
    for i in range(values.size):
        value = values[i]
        outside |= (value < 0) | (value >= num_classes)
        out[i] = np.uint8(value)
    return outside
