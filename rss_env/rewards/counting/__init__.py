"""Exact integer counts of how label maps match their targets: all that most scores need.

The counting itself is done, for everything on the host, in ``numba.py`` where Numba is installed
(``pip install 'rss-env[fast]'``), else in ``numpy.py``; for tensors of a CUDA device in ``triton.py`` where Triton is
installed, as it is with torch for CUDA, else, and for those of other accelerators, in ``torch.py``.
``RSS_COUNTS=numba|numpy`` overrides this for the host, ``RSS_COUNTS=triton|torch`` for accelerators.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from types import ModuleType
from typing import NamedTuple

import numpy as np

from rss_env.errors import OptionError
from rss_env.rewards.arrays import Array

HOST, ACCELERATOR = ("numba", "numpy"), ("triton", "torch")
HINTS = {"numba": "pip install 'rss-env[fast]'", "triton": "pip install triton"}


class Counts(NamedTuple):
    """Pixel counts of every label map and class; ignored pixels are in none of them.

    Attributes:
        intersection: int64 (B, K, C), pixels where label map and target both are the class.
        predicted: int64 (B, K, C), pixels where the label map is the class.
        target: int64 (B, 1, C), pixels where the target is the class.
    """

    intersection: Array
    predicted: Array
    target: Array


def count_labels(
    label_maps: Array,
    targets: Array,
    num_classes: int,
    target_counts: Array | None = None,
    rows: np.ndarray | None = None,
) -> Counts:
    """Counts intersections, predictions and targets of every class.

    Args:
        label_maps: uint8 (B, K, H, W), values 0..C-1.
        targets: uint8 (B, H, W), values 0..C-1 or 255 (ignored); with ``rows``, (n, H, W).
        num_classes: C, 2 to 255.
        target_counts: int64 (B, C), what ``count_classes`` gives for the targets, if already known.
        rows: int64 (B,), the target of each image, read in place to save a copy; NumPy arrays only.
    """
    if target_counts is None:
        target_counts = count_classes(targets if rows is None else targets[rows], num_classes)
    maps, truth = label_maps.reshape(*label_maps.shape[:2], -1), targets.reshape(len(targets), -1)
    if isinstance(maps, np.ndarray):
        intersection, predicted = backend().count_labels(maps, truth, num_classes, rows)
        return Counts(intersection, predicted, target_counts[:, None])
    if maps.is_cpu:
        import torch

        counted = backend().count_labels(maps.numpy(), truth.numpy(), num_classes)
        intersection, predicted = (torch.from_numpy(count) for count in counted)
    else:
        intersection, predicted = backend(maps.device.type).count_labels(maps, truth, num_classes)
    return Counts(intersection, predicted, target_counts[:, None])


def count_classes(labels: Array, num_classes: int) -> Array:
    """Pixels of every class.

    Args:
        labels: uint8 (..., H, W), values 0..C-1 or 255 (not counted).
        num_classes: C.

    Returns:
        int64 (..., C).
    """
    rows = labels.reshape(-1, labels.shape[-2] * labels.shape[-1])
    if isinstance(rows, np.ndarray):
        counts = backend().count_classes(rows, num_classes)
    elif rows.is_cpu:
        import torch

        counts = torch.from_numpy(backend().count_classes(rows.numpy(), num_classes))
    else:
        counts = backend(rows.device.type).count_classes(rows, num_classes)
    return counts.reshape(*labels.shape[:-2], num_classes)


def narrow(maps: np.ndarray, num_classes: int) -> np.ndarray | None:
    """Integers of any shape and integer dtype as uint8; None if one of them is outside 0..C-1."""
    return backend().narrow(maps, num_classes)


@functools.cache
def backend(accelerator: str = "") -> ModuleType:
    """The module that counts on the host or on a type of accelerator: ``$RSS_COUNTS`` if set for it, else the fastest.

    Raises:
        OptionError: ``$RSS_COUNTS`` is unknown or not installed.
    """
    chosen = os.environ.get("RSS_COUNTS", "")
    if chosen not in ("", *HOST, *ACCELERATOR):
        raise OptionError(f"Unknown RSS_COUNTS={chosen!r}; valid: {', '.join(HOST + ACCELERATOR)}.")
    compiled, plain = ACCELERATOR if accelerator else HOST
    if chosen not in (compiled, plain):
        runs = accelerator in ("", "cuda") and importlib.util.find_spec(compiled) is not None
        chosen = compiled if runs else plain
    elif chosen == compiled and importlib.util.find_spec(compiled) is None:
        raise OptionError(f"RSS_COUNTS={chosen} needs {chosen.capitalize()}: {HINTS[chosen]}")
    return importlib.import_module(f"rss_env.rewards.counting.{chosen}")
