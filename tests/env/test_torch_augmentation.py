"""Crops, scales and flips of the envs of tensors: the bits of NumPy's."""

from __future__ import annotations

import pytest

from tests.env.test_augmentation import AUGMENTS
from tests.env.torch_pair import PATHS, on_path, pair, run_alike


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize(("cache", "level"), [("device", "image"), ("host", "pixel")])
def test_tensors_have_the_bits_of_arrays(path: str, augment: str, cache: str, level: str):
    options = {"augment": augment, "crop_size": (24, 28), "expose_target": True, "samples_per_image": 2}
    with on_path(path):
        run_alike(*pair(cache=cache, level=level, **options))
