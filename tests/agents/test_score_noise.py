"""How noisy scores are is measured, and the cells follow."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import rss_env  # noqa: F401  registers the ids
from agents.rss import RSS, RSSArguments
from agents.score_noise import EVERY, ScoreNoise, score_twice, scored_twice
from rss_env.wrappers.vector import NoisyReward, StarReward

LONGEST = 24


def observe(
    meter: ScoreNoise, noise: float, factor: float, updates: int, rng: np.random.Generator | None = None
) -> list[int]:
    """Sides that a meter asks for while scores have noise of a variance and a variance of their own, factor·s²."""
    sides = []
    for update in range(updates):
        sides.append(meter.side(LONGEST))
        variance, seen = noise + factor * sides[-1] ** 2, noise
        if rng is not None:  # of 8 images with 32 samples, of which 8 pairs are scored twice
            variance, seen = variance * rng.chisquare(248) / 248, noise * rng.chisquare(8) / 8
        meter.observe(variance, sides[-1], seen if update % EVERY == 0 else None, variance)
    return sides


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
    assert ScoreNoise(stars).rounding == pytest.approx(np.mean(error**2), rel=0.02)
    assert ScoreNoise(stars).side(LONGEST) == LONGEST  # it is known from the start


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


def test_it_resumes() -> None:
    one, other = ScoreNoise(5), ScoreNoise(5)
    observe(one, 1e-3, 1e-5, 13)
    other.load_state_dict(one.state_dict())
    assert observe(other, 2e-3, 3e-5, 30) == observe(one, 2e-3, 3e-5, 30)
    assert vars(one) == vars(other)


def play(updates: int, level: str = "Image", noise: float = 0.0, **arguments: Any) -> tuple[RSS, list[Any]]:
    """Updates of the algorithm with a uniform policy, and the feedback that it got."""
    algorithm, generator = RSS(RSSArguments(samples_per_image=4, **arguments)), torch.Generator().manual_seed(0)
    envs: Any = gym.make_vec(
        f"RSS-Shapes-{level}Reward-v0", num_envs=4, image_size=(16, 20), samples_per_image=4, num_classes=5
    )
    if noise:
        envs = NoisyReward(envs, noise)
    if algorithm.args.reward_stars:
        envs = StarReward(envs, algorithm.args.reward_stars)
    _, infos = envs.reset(seed=0)
    logits = torch.zeros(4, 5, 16, 20)
    played = []
    for _ in range(updates):
        collected = algorithm.collect(logits, envs, infos, 0.0, generator)
        infos = collected.infos
        algorithm.prepare([collected.feedback])
        algorithm.loss(logits, collected.feedback, 0.0)
        played.append(collected.feedback)
    return algorithm, played


def same(feedback: Any) -> bool:
    """Whether the first label map of every image is its last one."""
    return bool((feedback.label_maps[:, 0] == feedback.label_maps[:, -1]).all())


def test_exact_scores_keep_their_pixels_apart_and_some_are_scored_twice() -> None:
    algorithm, played = play(2 * EVERY + 1)
    assert [feedback.twice for feedback in played] == [u % EVERY == 0 for u in range(2 * EVERY + 1)]
    assert [same(feedback) for feedback in played] == [feedback.twice for feedback in played]
    assert {feedback.cell for feedback in played} == {1}
    assert algorithm.noise.noise == 0


def test_noisy_scores_make_the_cells_grow() -> None:
    algorithm, played = play(10 * EVERY, noise=0.05)
    assert played[0].cell == 1
    assert played[-1].cell >= 4
    # From 40 pairs: a standard deviation of 22 % in the variance; a fixed seed.
    assert math.sqrt(algorithm.noise.noise) == pytest.approx(0.05, rel=0.5)


def test_few_stars_need_the_coarsest_cells_from_the_start() -> None:
    _, played = play(2, reward_stars=5)
    first, second = (feedback.cell for feedback in played)
    assert first == 8  # half of the shorter side
    assert second >= 4  # measured


@pytest.mark.parametrize(
    ("level", "arguments"),
    [("Pixel", {}), ("Image", {"cells": (2,)}), ("Image", {"objective": "reinforce"})],
)
def test_other_ways_leave_the_draws_alone(level: str, arguments: dict[str, Any]) -> None:
    _, played = play(EVERY + 1, level, **arguments)
    assert not any(feedback.twice or same(feedback) for feedback in played)
    assert {feedback.cell for feedback in played} == {2 if "cells" in arguments else 1}
