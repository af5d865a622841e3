"""A wrong argument is an error that lists the valid ones."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rss_env import SegmentationEnv, SegmentationVectorEnv
from rss_env.errors import DatasetError, OptionError

KINDS = {"single": SegmentationEnv, "vector": SegmentationVectorEnv}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
SMALL: dict[str, Any] = {"image_size": (40, 48), "num_images": 4}


@every_kind
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"level": "patch"}, "Unknown reward level 'patch'; valid: image, pixel"),
        ({"level": None}, "Unknown reward level None; valid: image, pixel"),
        ({"reward": "dice"}, "Unknown image-level reward 'dice'; valid: mean_iou, frequency_weighted_iou, mean_dice, "),
        ({"level": "pixel", "reward": "mean_iou"}, "Unknown pixel-level reward 'mean_iou'; valid: pixel_accuracy"),
        ({"order": "shuffled"}, "Unknown order 'shuffled'; valid: random, sequential"),
        ({"augment": "rotate"}, "Unknown augment 'rotate'; valid: none, flip"),
        ({"augment": None}, "Unknown augment None; valid: none, flip"),
        ({"resize": "squash"}, "'squash'; valid: pad, crop, stretch"),
        ({"render_mode": "human"}, "Unknown render_mode 'human'; valid: None, rgb_array"),
        ({"split": "dev"}, "'dev' of Shapes; valid: train, val, test"),
        ({"dataset": "MNIST"}, "Unknown data set 'MNIST'; valid: Shapes, "),
        ({"colour": "grey"}, "Unknown option 'colour' for data set Shapes; its own options: num_classes, "),
        ({"image_size": (40,)}, "image_size must be two positive integers (H, W), got (40,)"),
        ({"image_size": (40, 0)}, "image_size must be two positive integers (H, W), got (40, 0)"),
        ({"image_size": (40.5, 48)}, "image_size must be two positive integers (H, W), got (40.5, 48)"),
        *(
            ({"samples_per_image": k}, f"samples_per_image must be None or an integer of at least 1, got {k!r}")
            for k in (0, -1, 2.0, 2.5, True, "2", [2], float("nan"))
        ),
    ],
)
def test_an_unknown_value_is_an_error_that_lists_the_valid_ones(kind: Any, wrong: dict, message: str):
    with pytest.raises((OptionError, DatasetError), match=re.escape(message)):
        kind(**SMALL | wrong)


@pytest.mark.parametrize("num_envs", [0, -1, 2.5, 2.0, "2", None, True])
def test_the_number_of_environments_must_be_a_positive_integer(num_envs: Any):
    with pytest.raises(OptionError, match="num_envs must be an integer of at least 1, got "):
        SegmentationVectorEnv(num_envs=num_envs, **SMALL)


@pytest.mark.parametrize("mode", ["same_step", "", None, 0])
def test_an_unknown_autoreset_mode_is_an_error_that_lists_the_valid_ones(mode: Any):
    with pytest.raises(OptionError, match=r"Unknown autoreset_mode .*valid: 'NextStep', 'SameStep', 'Disabled'"):
        SegmentationVectorEnv(autoreset_mode=mode, **SMALL)


def test_errors_come_through_gym_make():
    with pytest.raises(OptionError, match="Unknown order 'shuffled'; valid: random, sequential"):
        gym.make("RSS-Shapes-ImageReward-v0", order="shuffled")
    with pytest.raises(OptionError, match="Unknown order 'shuffled'; valid: random, sequential"):
        gym.make_vec("RSS-Shapes-ImageReward-v0", num_envs=2, order="shuffled")


@every_kind
def test_numpy_integers_are_integers(kind: Any):
    env = kind(samples_per_image=np.int64(2), **SMALL)
    env.reset(seed=0)
    env.step(np.zeros(env.action_space.shape, int))
    assert env.reward_queries == 2


@every_kind
def test_the_default_rewards_are_mean_iou_and_at_pixel_level_pixel_accuracy(kind: Any):
    assert kind(level="image", **SMALL).metadata["reward"] == "mean_iou"
    assert kind(level="pixel", **SMALL).metadata["reward"] == "pixel_accuracy"
    assert kind(level="image", reward="pixel_accuracy", **SMALL).metadata["reward"] == "pixel_accuracy"


@every_kind
def test_a_callable_reward_has_no_name_in_the_metadata(kind: Any):
    metadata = kind(reward=lambda image, label_map, target: 0.5, **SMALL).metadata
    assert (metadata["reward"], metadata["reward_options"]) == (None, {})


@every_kind
def test_reward_options_in_the_metadata_are_plain_values_of_their_own(kind: Any):
    weights: list[float] = [1, 2, 1, 1, 1]
    for given in (weights, np.array(weights, np.float32)):
        env = kind(reward_options={"class_weights": given}, **SMALL)
        assert env.metadata["reward_options"] == {"class_weights": weights}
    env = kind(reward_options={"class_weights": weights}, **SMALL)
    env.metadata["reward_options"]["class_weights"][0] = 7
    assert weights == [1, 2, 1, 1, 1]
    assert "reward_options" not in type(env).metadata
