"""Means over neighbours of similar colour."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.networks.colour_refinement import SHARPNESS, colour_weights, refine


def by_hand(probabilities: np.ndarray, image: np.ndarray, dilations: list[int], iterations: int) -> np.ndarray:
    """The refinement from its definition, pixel by pixel: (C, H, W), (H, W, 3) -> (C, H, W)."""
    height, width, _ = image.shape
    for _ in range(iterations):
        refined = np.zeros_like(probabilities)
        for y in range(height):
            for x in range(width):
                shifts = [(d * i, d * j) for d in dilations for i in (-1, 0, 1) for j in (-1, 0, 1)]
                places = [(min(max(y + i, 0), height - 1), min(max(x + j, 0), width - 1)) for i, j in shifts]
                deviation = np.maximum(np.std([image[place] for place in places], axis=0, ddof=1), 1e-3)
                around = [place for place, shift in zip(places, shifts, strict=True) if shift != (0, 0)]
                weights = [
                    math.exp(-SHARPNESS * np.mean(np.abs(image[place] - image[y, x]) / deviation)) for place in around
                ]
                means = sum(w * probabilities[:, i, j] for w, (i, j) in zip(weights, around, strict=True))
                refined[:, y, x] = means / sum(weights)
        probabilities = refined
    return probabilities


@settings(max_examples=10)
@given(st.sampled_from([[1], [2], [1, 3]]), st.integers(1, 2), st.integers(0, 2**31))
def test_it_is_the_weighted_mean_of_the_neighbours(dilations: list[int], iterations: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    p = rng.dirichlet([1, 1, 1], (2, 4, 5)).transpose(0, 3, 1, 2)
    found = refine(torch.from_numpy(p), torch.from_numpy(images), dilations=dilations, iterations=iterations).numpy()
    for b in range(2):
        np.testing.assert_allclose(found[b], by_hand(p[b], images[b].astype(float), dilations, iterations), atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_probabilities_spread_within_a_colour_and_stop_at_its_edge() -> None:
    images = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    images[:, :, 4:] = 200
    p = torch.full((1, 1, 8, 8), 0.5)
    p[:, :, 3, 1] = 1.0
    refined = refine(p, images, dilations=(1,), iterations=20)
    assert (refined[..., :4] > 0.5).all()
    assert torch.allclose(refined[..., 4:], torch.full((8, 4), 0.5), atol=1e-3)


def test_neighbours_of_one_colour_count_alike() -> None:
    weights = colour_weights(torch.full((1, 3, 3, 3), 7, dtype=torch.uint8), (1, 2))
    assert torch.equal(weights, torch.full((1, 16, 3, 3), 1 / 16))
