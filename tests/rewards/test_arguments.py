"""What may be scored outside an environment, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from rss_env.errors import OptionError
from rss_env.rewards import score_images, score_pixels
from rss_env.rewards.counting import numba as count_numba

MAPS, TARGETS = np.zeros((2, 3, 4, 5), np.uint8), np.zeros((2, 4, 5), np.uint8)
NEITHER = "Label maps and targets must be NumPy arrays, or torch tensors on one device, of integers; got "
SHAPES = "Label maps must have shape (B, K, H, W) and targets (B, H, W), with at least one of each; got "


def spoiled(array: np.ndarray, value: int) -> np.ndarray:
    wrong = array.astype(np.int64)
    wrong[1, 2, 3] = value
    return wrong


@pytest.mark.parametrize("score", [score_images, score_pixels])
@pytest.mark.parametrize(
    ("label_maps", "targets", "classes", "message"),
    [
        *((MAPS, TARGETS, c, f"num_classes must be an integer from 2 to 255, got {c!r}") for c in (1, 256, 3.0, None)),
        (MAPS, TARGETS, True, "num_classes must be an integer from 2 to 255, got True"),
        (MAPS.tolist(), TARGETS, 3, f"{NEITHER}list and ndarray uint8"),
        (MAPS.astype(np.float32), TARGETS, 3, f"{NEITHER}ndarray float32"),
        (MAPS, TARGETS.astype(bool), 3, NEITHER),
        (torch.from_numpy(MAPS), TARGETS, 3, f"{NEITHER}Tensor torch.uint8 cpu and ndarray uint8"),
        (torch.from_numpy(MAPS).half(), torch.from_numpy(TARGETS), 3, f"{NEITHER}Tensor torch.float16 cpu and "),
        (torch.from_numpy(MAPS), torch.from_numpy(TARGETS).bool(), 3, NEITHER),
        (MAPS[0], TARGETS, 3, f"{SHAPES}(3, 4, 5) and (2, 4, 5)."),
        (MAPS, TARGETS[:1], 3, f"{SHAPES}(2, 3, 4, 5) and (1, 4, 5)."),
        (MAPS, TARGETS[..., None], 3, SHAPES),
        (MAPS, TARGETS[:, :, :4], 3, SHAPES),
        (MAPS[:, :0], TARGETS, 3, SHAPES),
        (MAPS[:0], TARGETS[:0], 3, SHAPES),
        (MAPS[..., :0], TARGETS[..., :0], 3, SHAPES),
        (spoiled(MAPS, 3), TARGETS, 3, "A label map holds classes 0..2, got values from 0 to 3."),
        (spoiled(MAPS, 255), TARGETS, 3, "A label map holds classes 0..2, got values from 0 to 255."),
        (spoiled(MAPS, -1), TARGETS, 3, "A label map holds classes 0..2, got values from -1 to 0."),
        (spoiled(MAPS, 256), TARGETS, 3, "A label map holds classes 0..2, got values from 0 to 256."),
        (MAPS, spoiled(TARGETS, 3), 3, "A target holds classes 0..2, and 255 where it is ignored; got 3."),
        (MAPS, spoiled(TARGETS, 254), 254, "A target holds classes 0..253, and 255 where it is ignored; got 254."),
        (MAPS, spoiled(TARGETS, -1), 3, "A target holds classes 0..2, and 255 where it is ignored; got -1."),
        (MAPS, spoiled(TARGETS, 511), 3, "A target holds classes 0..2, and 255 where it is ignored; got 511."),
    ],
)
def test_what_cannot_be_scored_is_an_error_that_says_what_can(
    score: Any, label_maps: Any, targets: Any, classes: Any, message: str
):
    with pytest.raises(OptionError, match=re.escape(message)):
        score("pixel_accuracy", label_maps, targets, classes)
    if all(isinstance(array, np.ndarray) for array in (label_maps, targets)):
        with pytest.raises(OptionError, match=re.escape(message.partition("got")[0])):
            score("pixel_accuracy", torch.from_numpy(label_maps), torch.from_numpy(targets), classes)


@pytest.mark.parametrize("label_type", ["i1", "u1", ">i2", "u2", "i4", "i8", "u8"])
@pytest.mark.parametrize("target_type", ["u1", "<i2", "i8"])
@pytest.mark.parametrize("name", ["boundary_f1", "pixel_accuracy"])
def test_integers_of_any_type_score_alike(name: str, label_type: str, target_type: str):
    rng = np.random.default_rng(0)
    label_maps, targets = rng.integers(0, 100, (2, 3, 6, 7)), rng.integers(0, 100, (2, 6, 7))
    label_maps[:, :, ::2] = targets[:, None, ::2]
    targets[:, 0] = 255
    expected = score_images(name, label_maps.astype(np.uint8), targets.astype(np.uint8), 100)
    assert expected.all()
    typed = label_maps.astype(label_type), targets.astype(target_type)
    np.testing.assert_array_equal(score_images(name, *typed, 100), expected)
    if ">" not in label_type:
        tensors = (torch.from_numpy(array) for array in typed)
        np.testing.assert_array_equal(score_images(name, *tensors, 100).numpy(), expected)


@pytest.mark.parametrize("pixels", [5, 64, 70])
def test_compiled_counting_never_writes_outside_its_counts(pixels: int):
    maps, truth = np.zeros((1, 3, pixels), np.uint8), np.zeros((1, pixels), np.uint8)
    maps[0, 0] = 5  # three classes: this would be class 2 of the next label map
    intersection, predicted = count_numba.count_labels(maps, truth, 3)
    assert predicted.tolist() == intersection.tolist() == [[[0, 0, 0], [pixels, 0, 0], [pixels, 0, 0]]]
