"""The rewards' own options: what is refused, and that they reach the environments."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

import rss_env  # noqa: F401  (registers the ids)
from rss_env.errors import OptionError
from rss_env.rewards import REWARDS, score_images

SMALL: dict[str, Any] = {"image_size": (16, 16), "num_classes": 3, "num_images": 8}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mean_iou", {"classes": "all"}, "classes must be one of 'union', 'target', got 'all'."),
        (
            "mean_iou",
            {"tolerance": 1},
            "Unknown option 'tolerance' of reward 'mean_iou'; its options: classes, ",
        ),
        (
            "frequency_weighted_iou",
            {"classes": "union"},
            "Unknown option 'classes' of reward 'frequency_weighted_iou'",
        ),
        ("frequency_weighted_iou", {"x": 1}, "its options: (none)."),
        ("pixel_accuracy", {"class_weights": [1, 2]}, "class_weights must be 3 finite numbers of at least 0"),
        ("mean_dice", {"class_weights": [1, -1, 1]}, "class_weights must be 3 finite numbers"),
        ("mean_dice", {"class_weights": [0, 0, 0]}, "not all of them 0, got [0, 0, 0]"),
        ("mean_dice", {"class_weights": [1, float("nan"), 1]}, "class_weights must be 3 finite numbers"),
        ("mean_dice", {"class_weights": [1, float("inf"), 1]}, "class_weights must be 3 finite numbers"),
        ("mean_dice", {"class_weights": "heavy"}, "got 'heavy'"),
        ("mean_dice", {"class_weights": 3}, "got 3"),
        ("boundary_f1", {"tolerance": -1}, "tolerance must be a number of pixels of at least 0, or None, got -1."),
        ("boundary_f1", {"tolerance": True}, "got True"),
        ("boundary_f1", {"tolerance": "2"}, "got '2'"),
        ("boundary_f1", {"tolerance": float("nan")}, "got nan"),
        ("mean_iou", ["classes"], "reward_options must be a dict of the reward's own options, got ['classes']."),
    ],
)
def test_a_wrong_option_is_an_error_that_says_what_is_right(name: str, options: Any, message: str):
    with pytest.raises(OptionError, match=re.escape(message)):
        REWARDS[name].bind(3, options)
    for make in (gym.make, gym.make_vec):
        with pytest.raises(OptionError, match=re.escape(message)):
            make("RSS-Shapes-ImageReward-v0", reward=name, reward_options=options, **SMALL)


@pytest.mark.parametrize(
    "options", [{"classes": "target"}, {"class_weights": [0.5, 2.0, 1.0]}, {"class_weights": None}]
)
def test_options_reach_the_environment_through_a_spec_in_json(options: dict[str, Any]):
    spec = gym.make("RSS-Shapes-ImageReward-v0", reward="mean_dice", reward_options=options, **SMALL).spec
    assert spec is not None
    env = gym.make(EnvSpec.from_json(spec.to_json()))
    exposed = gym.make("RSS-Shapes-ImageReward-v0", expose_target=True, **SMALL)
    for seed in range(5):
        env.reset(seed=seed)
        _, info = exposed.reset(seed=seed)
        label_map = np.random.default_rng(seed).integers(0, 3, (16, 16))
        target = info["target"][None]
        expected = score_images("mean_dice", label_map[None, None].astype(np.uint8), target, 3, **options)
        assert env.step(label_map)[1] == expected.item()


def test_weights_reach_the_pixel_level_whose_mean_is_the_reward():
    options = {"class_weights": [0.2, 5.0, 1.0]}
    env = gym.make("RSS-Shapes-PixelReward-v0", reward_options=options, **SMALL)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.zeros((16, 16), int))
    assert info["pixel_reward"].mean() == pytest.approx(reward, rel=1e-6)
    plain = gym.make("RSS-Shapes-PixelReward-v0", **SMALL)
    plain.reset(seed=0)
    assert plain.step(np.zeros((16, 16), int))[1] > reward  # the background weighs little
