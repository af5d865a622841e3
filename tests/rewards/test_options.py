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
from tests.extras import tensors

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
        ("mean_dice", {"class_weights": "123"}, "got '123'"),
        ("mean_dice", {"class_weights": ["1", "2", "3"]}, "got ['1', '2', '3']"),
        ("mean_dice", {"class_weights": {0: 1, 1: 2, 2: 3}}, "got {0: 1, 1: 2, 2: 3}"),
        ("mean_dice", {"class_weights": {1, 2, 3}}, "got {1, 2, 3}"),
        ("mean_dice", {"class_weights": [1, 2, True]}, "got [1, 2, True]"),
        ("mean_dice", {"class_weights": [[1], [2], [3]]}, "got [[1], [2], [3]]"),
        ("mean_dice", {"class_weights": np.ones((3, 1))}, "class_weights must be 3 finite numbers"),
        ("mean_dice", {"class_weights": np.float64(3)}, "class_weights must be 3 finite numbers"),
        ("mean_dice", {"class_weights": [1, 10**400, 1]}, "class_weights must be 3 finite numbers"),
        ("mean_dice", {"class_weights": 3}, "got 3"),
        ("boundary_f1", {"tolerance": -1}, "tolerance must be a number of pixels of at least 0, or None, got -1."),
        ("boundary_f1", {"tolerance": True}, "got True"),
        ("boundary_f1", {"tolerance": "2"}, "got '2'"),
        ("boundary_f1", {"tolerance": float("nan")}, "got nan"),
        ("boundary_f1", {"tolerance": float("inf")}, "got inf"),
        ("boundary_f1", {"tolerance": 10**400}, "tolerance must be a number of pixels of at least 0"),
        ("mean_iou", {"classes": ["union"]}, "classes must be one of 'union', 'target', got ['union']."),
        ("mean_iou", {"classes": np.array(["union", "target"])}, "classes must be one of 'union', 'target', got array"),
        ("mean_iou", {2: 3, "x": 1}, "Unknown option 2 of reward 'mean_iou'; its options: classes, class_weights."),
        ("mean_iou", ["classes"], "reward_options must be a dict of the reward's own options, got ['classes']."),
    ],
)
def test_a_wrong_option_is_an_error_that_says_what_is_right(name: str, options: Any, message: str):
    with pytest.raises(OptionError, match=re.escape(message)):
        REWARDS[name].bind(3, options)
    for make in (gym.make, gym.make_vec):
        with pytest.raises(OptionError, match=re.escape(message)):
            make("RSS-Shapes-ImageReward-v0", reward=name, reward_options=options, **SMALL)


VALUES: dict[str, list] = {
    "classes": ["target", "union"],
    "class_weights": [[0.5, 2.0, 1.0], None],
    "tolerance": [2.5, 0, None],
}
EACH_OPTION = [
    (name, {key: value}) for name, reward in REWARDS.items() for key in reward.options for value in VALUES[key]
]


@pytest.mark.parametrize(("name", "options"), [*((name, None) for name in REWARDS), *EACH_OPTION])
def test_options_reach_the_environment_through_a_spec_in_json(name: str, options: dict[str, Any] | None):
    given = {"reward": name, "reward_options": options, "augment": "flip", "samples_per_image": 2, **SMALL}
    spec = gym.make("RSS-Shapes-ImageReward-v0", expose_target=True, **given).spec
    assert spec is not None
    env = gym.make(EnvSpec.from_json(spec.to_json()))
    envs = gym.make_vec("RSS-Shapes-ImageReward-v0", num_envs=4, **given)
    label_maps = np.random.default_rng(0).integers(0, 3, (4, 2, 16, 16))
    envs.reset(seed=0)
    scores = envs.step(label_maps)[-1]["final_info"]["scores"]
    for seed in range(4):
        _, info = env.reset(seed=seed)
        expected = score_images(name, label_maps[seed : seed + 1], info["target"][None], 3, **options or {})
        np.testing.assert_array_equal(env.step(label_maps[seed])[-1]["scores"], expected[0])
        np.testing.assert_array_equal(scores[seed], expected[0])


@pytest.mark.parametrize(("name", "key"), sorted({(name, *options) for name, options in EACH_OPTION}))
def test_every_option_changes_some_score(name: str, key: str):
    rng = np.random.default_rng(0)
    targets = np.sort(rng.integers(0, 2, (1, 8, 9)))
    label_maps = np.where(rng.random((1, 4, 8, 9)) < 0.7, targets[:, None], rng.integers(0, 3, (1, 4, 8, 9)))
    changed = score_images(name, label_maps, targets, 3, **{key: VALUES[key][0]})
    assert (changed != score_images(name, label_maps, targets, 3)).any()


def test_numbers_of_numpy_and_torch_are_numbers():
    maps, target = np.array([[[[0, 1, 2, 2, 1, 1]]]]), np.array([[[0, 0, 1, 2, 2, 0]]])
    weights = [0.5, 2.0, 1.0]
    expected = score_images("boundary_f1", maps, target, 3, class_weights=weights, tolerance=2)
    for given in (
        tuple(weights),
        np.array(weights, np.float32),
        *tensors(np.array(weights)),
        [np.float32(w) for w in weights],
    ):
        for tolerance in (np.int64(2), np.float32(2)):
            found = score_images("boundary_f1", maps, target, 3, class_weights=given, tolerance=tolerance)
            np.testing.assert_array_equal(found, expected)


def test_weights_reach_the_pixel_level_whose_mean_is_the_reward():
    options = {"class_weights": [0.2, 5.0, 1.0]}
    env = gym.make("RSS-Shapes-PixelReward-v0", reward_options=options, **SMALL)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.zeros((16, 16), int))
    assert info["pixel_reward"].mean() == pytest.approx(reward, rel=1e-6)
    plain = gym.make("RSS-Shapes-PixelReward-v0", **SMALL)
    plain.reset(seed=0)
    assert plain.step(np.zeros((16, 16), int))[1] > reward  # the background weighs little
