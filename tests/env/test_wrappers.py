"""Wrappers that change the form of the action."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from rss_env import SegmentationEnv
from rss_env.errors import OptionError
from rss_env.wrappers import CoarseAction, FlattenAction
from rss_env.wrappers import vector as twins
from tests.extras import ON_TORCH, tensor

MAP = (40, 48)
SMALL = {"image_size": MAP, "num_images": 8}


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
def test_samples_of_the_flat_space_are_label_maps(seed: int):
    flat = FlattenAction(_ENV)
    flat.action_space.seed(seed)
    assert flat.action(flat.action_space.sample()) in _ENV.action_space


_ENV = make(2)


def test_the_space_keeps_its_dtype():
    assert FlattenAction(make(None)).action_space.dtype == make(None).action_space.dtype == np.int64


@pytest.mark.parametrize("shape", [(1919,), MAP, (1, 1920)])
def test_a_flat_action_of_another_shape_is_refused(shape: tuple[int, ...]):
    flat, many = FlattenAction(make(None)), twins.FlattenAction(gym.make_vec("RSS-Shapes-ImageReward-v0", 2, **SMALL))
    flat.reset(seed=0)
    with pytest.raises(gym.error.InvalidAction, match=r"Expected flat label maps of shape \(1920,\), got "):
        flat.step(np.zeros(shape, int))
    many.reset(seed=0)
    with pytest.raises(gym.error.InvalidAction, match=r"Expected flat label maps of shape \(2, 1920\), got "):
        many.step(np.zeros((2, *shape) if shape != (1, 1920) else (1920, 2), int))


def test_only_a_multidiscrete_action_space_can_be_flattened():
    with pytest.raises(TypeError, match="needs a MultiDiscrete action space, got Discrete"):
        FlattenAction(gym.make("CartPole-v1"))


# CoarseAction


def upsampled(coarse: np.ndarray, cell: int) -> np.ndarray:
    """Pixel by pixel."""
    fine = np.empty((*coarse.shape[:-2], *MAP), coarse.dtype)
    for y, x in np.ndindex(MAP):
        fine[..., y, x] = coarse[..., y // cell, x // cell]
    return fine


@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("cell", [1, 2, 7, 40, 48, 100, 10**9])
def test_a_coarse_action_scores_as_the_label_map_it_stands_for(samples: int | None, cell: int):
    env, wrapped = make(samples), CoarseAction(make(samples), cell)
    height, width = -(-MAP[0] // cell), -(-MAP[1] // cell)
    shape = (height, width) if samples is None else (samples, height, width)
    assert wrapped.action_space == spaces.MultiDiscrete(np.full(shape, 5))
    action = np.random.default_rng(cell).integers(0, 5, shape)
    env.reset(seed=0)
    wrapped.reset(seed=0)
    assert wrapped.step(action)[1] == env.step(upsampled(action, cell))[1]


def test_wrong_coarse_actions_and_cells_are_refused():
    wrapped = CoarseAction(make(None), 4)
    wrapped.reset(seed=0)
    with pytest.raises(gym.error.InvalidAction, match=r"coarse label maps of shape \(10, 12\), got \(40, 48\)"):
        wrapped.step(np.zeros(MAP, int))
    for cell in (0, -1, 2.0, True, None):
        with pytest.raises(OptionError, match="cell must be an integer of at least 1"):
            CoarseAction(make(None), cell)
    with pytest.raises(TypeError, match=r"needs a MultiDiscrete action space of \(..., H, W\), got Discrete"):
        CoarseAction(gym.make("CartPole-v1"), 2)
    with pytest.raises(TypeError, match="needs a MultiDiscrete"):
        CoarseAction(FlattenAction(make(None)), 2)


@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("options", [{}, ON_TORCH])
def test_the_vector_twins_do_the_same(samples: int | None, options: dict[str, Any]):
    arguments = {"image_size": MAP, "num_images": 8, "samples_per_image": samples}
    envs = gym.make_vec("RSS-Shapes-ImageReward-v0", 2, **arguments)
    inner = gym.make_vec("RSS-Shapes-ImageReward-v0", 2, **arguments, **options)
    wrapped = twins.FlattenAction(twins.CoarseAction(inner, 7))
    length = 6 * 7 * (samples or 1)
    assert wrapped.single_action_space == spaces.MultiDiscrete(np.full(length, 5))
    assert wrapped.action_space.shape == (2, length)
    actions = np.random.default_rng(0).integers(0, 5, (2, length))
    coarse = actions.reshape(2, 6, 7) if samples is None else actions.reshape(2, samples, 6, 7)
    envs.reset(seed=0)
    wrapped.reset(seed=0)
    expected = envs.step(upsampled(coarse, 7))[1]
    given = tensor(actions) if options else actions
    np.testing.assert_array_equal(np.asarray(wrapped.step(given)[1]), expected)
    wrong = twins.CoarseAction(inner, 7)
    with pytest.raises(gym.error.InvalidAction, match="Expected coarse label maps of shape"):
        wrong.step(np.zeros((2, 3, 3), int))


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_wrapped_actions_are_made_again_from_json_and_checked():
    env = FlattenAction(CoarseAction(gym.make("RSS-Shapes-ImageReward-v0", image_size=MAP, num_images=8), 7))
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.action_space == env.action_space == spaces.MultiDiscrete(np.full(42, 5))
    check_env(again, skip_render_check=True)
