"""How noisy scores are is measured, and the cells follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.scores.formulas import KnownFormula
from agents.scores.noise import ScoreNoise, score_twice, scored_twice

LONGEST = 24


def observe(
    meter: ScoreNoise, noise: float, factor: float, updates: int, rng: np.random.Generator | None = None
) -> list[int]:
    """Sides that a meter asks for while scores have noise of a variance and a variance of their own, factor·s²."""
    sides = []
    for _ in range(updates):
        sides.append(meter.side(LONGEST))
        variance, seen = noise + factor * sides[-1] ** 2, noise
        if rng is not None:  # of 8 images with 32 samples, of which 8 pairs are scored twice
            variance, seen = variance * rng.chisquare(248) / 248, noise * rng.chisquare(8) / 8
        meter.observe(variance, sides[-1], seen if meter.due else None, variance)
        meter.tick()
    return sides


def measured(meter: ScoreNoise, noises: list[float]) -> list[int]:
    """Updates in which the noise, of one variance an update, is measured."""
    updates = []
    for update, noise in enumerate(noises):
        if meter.due:
            updates.append(update)
        meter.observe(0.1, 1, noise if meter.due else None, 0.1)
        meter.tick()
    return updates


def test_noise_that_is_not_there_is_looked_for_ever_less_and_noise_that_is_as_often_as_before() -> None:
    assert measured(ScoreNoise(), [0.0] * 1000) == [0, 16, 48, 112, 240, 496]
    assert measured(ScoreNoise(), [0.01] * 60) == [0, 8, 16, 24, 32, 40, 48, 56]
    assert measured(ScoreNoise(), [0.0] * 40 + [0.01] * 40) == [0, 16, 48, 56, 64, 72]


def test_without_noise_there_are_no_cells() -> None:
    assert observe(ScoreNoise(), 0.0, 1e-5, 40) == [1] * 40
    assert observe(ScoreNoise(), 0.0, 0.0, 5) == [1] * 5


@pytest.mark.parametrize(("noise", "side"), [(1e-6, 1), (1e-5, 1), (4e-5, 2), (1e-3, 10), (5.76e-3, 24), (1.0, 24)])
def test_the_scores_own_variance_reaches_that_of_the_noise(noise: float, side: int) -> None:
    sides = observe(ScoreNoise(), noise, 1e-5, 20)
    assert sides[0] == 1  # nothing is known yet
    assert sides[1:] == [side] * 19


@pytest.mark.parametrize("seed", range(5))
def test_it_is_found_from_noisy_measurements(seed: int) -> None:
    # Fixed seeds. The noise is known from 100 · 8 pairs in the end: its standard deviation to 2.5 %.
    meter = ScoreNoise()
    sides = observe(meter, 1e-3, 1e-5, 800, np.random.default_rng(seed))
    assert meter.noise == pytest.approx(1e-3, rel=0.15)
    assert all(side == pytest.approx(10, abs=2) for side in sides[400:])


def test_cells_shrink_when_the_scores_begin_to_differ() -> None:
    meter = ScoreNoise()
    assert observe(meter, 1e-3, 1e-5, 20)[-1] == 10
    assert observe(meter, 1e-3, 9e-5, 300)[-1] == 3


@pytest.mark.parametrize("stars", [2, 5, 11])
def test_rounding_is_noise_of_a_twelfth_of_the_squared_step(stars: int) -> None:
    scores = np.random.default_rng(0).random(100_000)
    rounded = np.round(scores * (stars - 1)) / (stars - 1)
    inside = (scores > 0.5 / (stars - 1)) & (scores < 1 - 0.5 / (stars - 1))  # the outermost levels are half as wide
    error = (rounded - scores)[inside] if stars > 2 else np.random.default_rng(1).uniform(-0.5, 0.5, 100_000)
    assert ScoreNoise(KnownFormula("mean_iou", stars).rounding).rounding == pytest.approx(np.mean(error**2), rel=0.02)
    assert ScoreNoise(KnownFormula("mean_iou", stars).rounding).side(LONGEST) == LONGEST  # it is known from the start


def test_the_difference_of_a_label_map_scored_twice_measures_the_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 0.05 * torch.randn(20_000, 4, generator=generator)
    # A relative deviation of √(2 / 20,000) = 1 %: five of them is a false alarm in two million.
    assert scored_twice(0.3 + noise).item() == pytest.approx(0.05**2, rel=0.05)
    label_maps = torch.randint(0, 5, (3, 4, 6, 7), dtype=torch.uint8, generator=generator)
    before = label_maps.clone()
    score_twice(label_maps)
    assert torch.equal(label_maps[:, :-1], before[:, :-1])
    assert torch.equal(label_maps[:, -1], before[:, 0])


def test_of_two_label_maps_an_image_only_the_first_images_are_scored_twice() -> None:
    label_maps = torch.arange(3 * 2 * 4, dtype=torch.uint8).reshape(3, 2, 2, 2)
    before = label_maps.clone()
    score_twice(label_maps)
    assert torch.equal(label_maps[0, 1], before[0, 0])
    assert torch.equal(label_maps[1:], before[1:])
    assert scored_twice(torch.tensor([[0.25, 0.5], [0.0, 1.0], [1.0, 0.0]])).item() == 0.25**2 / 2


def test_it_resumes() -> None:
    one, other = ScoreNoise(5), ScoreNoise(5)
    observe(one, 1e-3, 1e-5, 13)
    other.load_state_dict(one.state_dict())
    assert observe(other, 2e-3, 3e-5, 30) == observe(one, 2e-3, 3e-5, 30)
    assert vars(one) == vars(other)
