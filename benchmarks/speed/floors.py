"""The work that no step can leave out: one copy of the observations and one pass over the label maps."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np


def floors(images: np.ndarray, observations: np.ndarray, label_maps: np.ndarray) -> dict[str, Callable[[], Any]]:
    """The two floors, by name: *floor* copies observations from the cache, *gather floor* images in random order.

    Args:
        images: of the data set, uint8 (N, H, W, 3).
        observations: of a step, uint8 (B, H, W, 3).
        label_maps: of a step, integers (B, H, W).
    """
    order = itertools.cycle(np.random.default_rng(0).integers(len(images), size=(64, len(observations))))
    return {
        "floor": lambda: (observations.copy(), label_maps.max()),
        "gather floor": lambda: (images.take(next(order), axis=0), label_maps.max()),
    }
