"""The few array operations in which NumPy and torch differ, so that every score is written once for both.

Scores come out bit for bit the same on every device: counts are exact integers, IEEE division rounds the same
everywhere, and ``tree_sum`` fixes the order of the additions.
"""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any

import numpy as np

Array = Any
"""A NumPy array or a torch tensor; in one call all are of one kind and on one device."""


def namespace(array: Array) -> ModuleType:
    """The module whose functions fit an array: numpy or torch. Never imports torch."""
    return np if isinstance(array, np.ndarray) else sys.modules["torch"]


def as_float64(array: Array) -> Array:
    """The array as float64."""
    return array.astype(np.float64) if isinstance(array, np.ndarray) else array.double()


def as_float32(array: Array) -> Array:
    """The array as float32."""
    return array.astype(np.float32) if isinstance(array, np.ndarray) else array.float()


def lookup(table: Array, indices: Array) -> Array:
    """``table[indices]`` for integers of any type; torch would take uint8 ones for a mask."""
    return table[indices if isinstance(indices, np.ndarray) else indices.long()]


def tree_sum(values: Array) -> Array:
    """Sum over the last axis, (..., n) -> (...), by adding the second half to the first until one is left.

    ``sum`` of either library adds in an order of its own choice, which changes the last bits of the result.
    """
    while values.shape[-1] > 1:
        half = values.shape[-1] // 2
        pairs = values[..., :half] + values[..., half : 2 * half]
        if values.shape[-1] % 2:
            pairs[..., 0] += values[..., -1]
        values = pairs
    return values[..., 0]


def ratio(part: Array, whole: Array) -> Array:
    """``part / whole`` of counts as float64, 0 where ``whole`` is 0 (``part`` then is 0 too)."""
    return as_float64(part) / (whole + (whole == 0))


def quotient(part: Array, whole: Array) -> Array:
    """``part / whole`` of non-negative float64 numbers, 0 where ``whole`` is 0."""
    nothing = whole <= 0
    return part / (whole + nothing) * ~nothing


def constants(values: tuple[float, ...], like: Array) -> Array:
    """float64 (n,) numbers of the kind and on the device of ``like``; made once."""
    if isinstance(like, np.ndarray):
        return np.array(values, np.float64)
    return _tensor(values, like.device)


@functools.lru_cache(maxsize=64)
def _tensor(values: tuple[float, ...], device: Any) -> Array:
    torch = sys.modules["torch"]
    return torch.tensor(values, dtype=torch.float64, device=device)
