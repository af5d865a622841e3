from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

import rss_env  # noqa: F401  (registers the ids)
from rss_env.spaces import batched_space, label_map_space

SHAPES = [(4, 6), (3, 4, 6), (1, 1, 1)]


def pair(shape: tuple[int, ...], number: int | None) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """Our space and Gymnasium's, of one image or of several."""
    ours, theirs = label_map_space(shape, 5), spaces.MultiDiscrete(np.full(shape, 5))
    return (ours, theirs) if number is None else (batched_space(ours, number), batch_space(theirs, number))


@pytest.mark.parametrize("number", [None, 1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_spaces_are_those_of_gymnasium(shape: tuple[int, ...], number: int | None) -> None:
    ours, theirs = pair(shape, number)
    assert ours == theirs
    assert theirs == ours
    assert type(ours) is type(theirs)
    assert repr(ours) == repr(theirs)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    ours.seed(7)
    theirs.seed(7)
    sample = ours.sample()
    np.testing.assert_array_equal(sample, theirs.sample())
    assert sample.flags.writeable
    for probe in (sample, np.full(ours.shape, 4), np.full(ours.shape, 5), np.full(ours.shape, -1), sample[..., :0]):
        assert ours.contains(probe) == theirs.contains(probe)
    assert ours != pair((*shape[:-1], shape[-1] + 1), number)[0]


@pytest.mark.parametrize("number", [None, 3])
def test_copies_and_pickles_are_equal_to_the_space(number: int | None) -> None:
    ours, theirs = pair((3, 4, 6), number)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert other == ours == theirs
        assert ours.contains(other.sample())


def test_bounds_take_no_memory_whatever_the_size() -> None:
    box = batched_space(label_map_space((64, 512, 512), 150), 16)
    for bounds in (box.low, box.high, box.bounded_below, box.bounded_above):
        assert bounds.shape == (16, 64, 512, 512)
        assert set(bounds.strides) == {0}
    assert box.high.flat[0] == 149


@pytest.mark.parametrize("samples", [None, 4])
def test_the_environments_have_these_spaces(samples: int | None) -> None:
    options: dict[str, Any] = {"image_size": (16, 24), "num_classes": 4, "samples_per_image": samples}
    env = gym.make("RSS-Shapes-ImageReward-v0", **options)
    envs = gym.make_vec("RSS-Shapes-ImageReward-v0", num_envs=3, **options)
    assert env.action_space == envs.single_action_space
    assert envs.action_space == batch_space(env.action_space, 3)
    assert set(envs.action_space.low.strides) == {0}  # type: ignore[attr-defined]
