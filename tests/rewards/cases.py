"""Label maps and targets to score."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st


class Case(NamedTuple):
    """Attributes: label maps (B, K, H, W), targets uint8 (B, H, W) with 255 = ignored, C."""

    label_maps: np.ndarray
    targets: np.ndarray
    classes: int


def random_case(seed: int, shape: tuple[int, int, int, int], classes: int, ignored: float, dtype: str) -> Case:
    """Maps that are right in half of the pixels; a class may be rare or absent; one image may be ignored wholly."""
    batch, _, height, width = shape
    rng = np.random.default_rng(seed)
    used = rng.integers(1, classes, endpoint=True)
    targets = rng.integers(0, used, (batch, height, width)) + rng.integers(0, classes - used, endpoint=True)
    label_maps = np.where(rng.random(shape) < 0.5, targets[:, None], rng.integers(0, classes, shape))
    targets[rng.random(targets.shape) < ignored] = 255
    if ignored:
        targets[rng.random(batch) < 0.1] = 255
    return Case(label_maps.astype(dtype), targets.astype(np.uint8), classes)


cases = st.builds(
    random_case,
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 24), st.integers(1, 24)),
    classes=st.one_of(st.integers(2, 6), st.integers(2, 255)),
    ignored=st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    dtype=st.sampled_from(["uint8", "uint8", "int16", "int64"]),
)
