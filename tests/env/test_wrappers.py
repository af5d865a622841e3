"""Wrappers that change the form of the action."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from rss_env import SegmentationEnv
from rss_env.wrappers import FlattenAction

MAP = (40, 48)


def make(samples: int | None) -> SegmentationEnv:
    return SegmentationEnv(image_size=MAP, num_images=8, samples_per_image=samples)


@pytest.mark.parametrize(("samples", "length"), [(None, 1920), (3, 5760)])
def test_a_flat_action_scores_as_the_label_map_it_is_row_by_row(samples: int | None, length: int):
    env, flat = make(samples), FlattenAction(make(samples))
    assert flat.action_space == spaces.MultiDiscrete(np.full(length, 5))
    assert flat.observation_space == env.observation_space
    action = np.random.default_rng(0).integers(0, 5, length)
    env.reset(seed=0)
    flat.reset(seed=0)
    reward = flat.step(action)[1]
    assert reward == env.step(action.reshape(env.action_space.shape))[1]
    assert 0 < reward < 1


@given(st.integers(0, 2**31))
@settings(deadline=None)
def test_samples_of_the_flat_space_are_label_maps(seed: int):
    flat = FlattenAction(_ENV)
    flat.action_space.seed(seed)
    assert flat.action(flat.action_space.sample()) in _ENV.action_space


_ENV = make(2)


def test_the_space_keeps_its_dtype():
    assert FlattenAction(make(None)).action_space.dtype == make(None).action_space.dtype == np.int64


def test_only_a_multidiscrete_action_space_can_be_flattened():
    with pytest.raises(TypeError, match="needs a MultiDiscrete action space, got Discrete"):
        FlattenAction(gym.make("CartPole-v1"))
