"""The spaces of label maps. Every label has the same bounds, so they are stored once and not once a pixel.

Gymnasium's own arrays of bounds take 16 bytes a label in ``MultiDiscrete`` and 18 in a batched ``Box``: 16 images of
512×512 with 64 label maps each would need 5 GB of them.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.lib.stride_tricks import as_strided


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


def _everywhere(bound: Any, shape: tuple[int, ...]) -> np.ndarray:
    """One number seen as an array; writable, because torch warns of arrays that are not."""
    return as_strided(bound, shape, (0,) * len(shape))
