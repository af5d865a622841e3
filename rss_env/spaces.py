"""The spaces of label maps, and the check that a label map is in one.

Every label has the same bounds, so they are stored once and not once a pixel. Gymnasium's own arrays of bounds take 16
bytes a label in ``MultiDiscrete`` and 18 in a batched ``Box``: 16 images of 512×512 with 64 label maps each would need
5 GB of them.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.lib.stride_tricks import as_strided

from rss_env.errors import InvalidAction
from rss_env.rewards.counting import narrow


def label_map_space(shape: tuple[int, ...], num_classes: int) -> spaces.MultiDiscrete:
    """Label maps of one image: equal to ``MultiDiscrete(np.full(shape, num_classes))``; nobody may write to its bounds.

    Args:
        shape: (H, W), or (K, H, W).
        num_classes: C.
    """
    space = spaces.MultiDiscrete(np.full((1,) * len(shape), num_classes))
    space._shape = tuple(shape)
    space.nvec, space.start = _everywhere(space.nvec, shape), _everywhere(space.start, shape)
    return space


def batched_space(space: spaces.MultiDiscrete, number: int) -> spaces.Box:
    """Label maps of several images: equal to Gymnasium's ``batch_space(space, number)``, with such bounds.

    Args:
        space: of ``label_map_space``.
        number: of images.
    """
    shape = (number, *space.shape)
    largest = int(space.nvec.flat[0]) - 1
    box = spaces.Box(0, largest, (1,) * len(shape), space.dtype.type, seed=deepcopy(space.np_random))
    box._shape = shape
    for name in ("low", "high", "bounded_below", "bounded_above"):
        setattr(box, name, _everywhere(getattr(box, name), shape))
    return box


def check_label_maps(label_maps: Any, shape: tuple[int, ...], num_classes: int) -> np.ndarray:
    """Label maps of that shape as uint8, whatever their integer dtype.

    Raises:
        InvalidAction: wrong shape, a dtype that is not integer, or a value outside 0..C-1.
    """
    maps = as_array(label_maps)
    check_form(maps.shape, maps.dtype, maps.dtype.kind in "iu", shape)
    narrowed = narrow(maps, num_classes)
    if narrowed is None:
        raise InvalidAction(
            f"A label map holds classes 0..{num_classes - 1}, got values from {maps.min()} to {maps.max()}."
        )
    return narrowed


def as_array(value: Any) -> np.ndarray:
    """``value`` as a NumPy array; one of objects, which no check of integers accepts, where NumPy can make none of it.

    NumPy refuses nested lists of different lengths, tensors that require gradients, and dtypes that it does not have.
    """
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError):
        return np.array(None)


def check_form(shape: tuple[int, ...], dtype: Any, is_integer: bool, expected: tuple[int, ...]) -> None:
    """Raises ``InvalidAction`` if an array of that shape and dtype, NumPy's or torch's, cannot be label maps."""
    if not is_integer:
        raise InvalidAction(
            f"A label map must have an integer dtype, got {dtype}. Convert class scores with "
            "argmax, or whole numbers with .astype(int) (tensors: .long())."
        )
    if tuple(shape) != expected:
        raise InvalidAction(f"Expected label maps of shape {expected}, got {tuple(shape)}.")


def _everywhere(bound: Any, shape: tuple[int, ...]) -> np.ndarray:
    """One number seen as an array; writable, because torch warns of arrays that are not."""
    return as_strided(bound, shape, (0,) * len(shape))
