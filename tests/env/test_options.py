"""A wrong argument is an error that lists the valid ones."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rss_env import SegmentationEnv, SegmentationVectorEnv
from rss_env.errors import DatasetError, InvalidAction, OptionError
from tests.extras import needs_torch, tensor

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
        ({"order": "shuffled"}, "Unknown order 'shuffled'; valid: random, sequential, epochs"),
        ({"augment": "rotate"}, "Unknown augment 'rotate'; valid: none, flip"),
        ({"augment": None}, "Unknown augment None; valid: none, flip"),
        ({"resize": "squash"}, "'squash'; valid: pad, crop, stretch"),
        ({"render_mode": "human"}, "Unknown render_mode 'human'; valid: None, rgb_array"),
        ({"split": "dev"}, "'dev' of Shapes; valid: train, val, test"),
        ({"dataset": "MNIST"}, "Unknown data set 'MNIST'; valid: Shapes, "),
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
    with pytest.raises(OptionError, match="Unknown order 'shuffled'; valid: random, sequential, epochs"):
        gym.make("RSS-Shapes-ImageReward-v0", order="shuffled")
    with pytest.raises(OptionError, match="Unknown order 'shuffled'; valid: random, sequential, epochs"):
        gym.make_vec("RSS-Shapes-ImageReward-v0", num_envs=2, order="shuffled")


@every_kind
@pytest.mark.parametrize("value", ["False", "True", "", 0, 1, 1.0, None, [], [False], np.array([False])])
def test_a_flag_is_a_bool_and_nothing_that_python_takes_for_one(kind: Any, value: Any):
    with pytest.raises(OptionError, match="expose_target must be True or False, got "):
        kind(expose_target=value, **SMALL)


@every_kind
def test_numpy_bools_are_bools(kind: Any):
    for value in (True, False):
        env = kind(expose_target=np.bool_(value), **SMALL)
        assert env.metadata["expose_target"] is value
        assert ("target" in env.reset(seed=0)[1]) is value


@every_kind
@pytest.mark.parametrize("name", ["colour", "frameskip", "dataset_options", "task_options", "render_modes"])
def test_an_unknown_argument_is_an_error_in_pythons_own_words_that_lists_the_valid_ones(kind: Any, name: str):
    with pytest.raises(TypeError) as caught:
        kind(**SMALL | {name: 1})
    said = str(caught.value)
    assert said.startswith(f"{kind.__name__}.__init__() got an unexpected keyword argument {name!r}; valid: dataset, ")
    valid = said.rstrip(".").split("; valid: ")[1].split(", ")
    assert {"root", "expose_target", "samples_per_image", "num_classes", "dataset_seed"} <= set(valid)
    assert ("num_envs" in valid) == (kind is SegmentationVectorEnv)
    assert len(set(valid)) == len(valid)
    assert isinstance(caught.value, OptionError)  # so that a command line prints one line


@every_kind
def test_the_arguments_that_the_error_lists_are_all_taken(kind: Any):
    with pytest.raises(TypeError) as caught:
        kind(colour=1)
    for name in str(caught.value).rstrip(".").split("; valid: ")[1].split(", "):
        with pytest.raises((OptionError, DatasetError)) as other:
            kind(**SMALL | {name: object()})
        assert "unexpected keyword argument" not in str(other.value)
        assert name in str(other.value).replace("data set", "dataset").replace("reward level", "level")


@needs_torch
def test_a_torch_environment_lists_its_own_arguments_too():
    with pytest.raises(TypeError, match=r"valid: dataset, level, device, num_envs, .*cache, .*num_images\.$"):
        gym.make_vec("RSS-Shapes-ImageReward-v0", device="cpu", colour=1)


@every_kind
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"order": np.array(["random", "x"])}, "Unknown order array"),
        ({"reward": np.array(["mean_iou", "x"])}, "Unknown image-level reward array"),
        ({"level": np.array(["image", "pixel"])}, "Unknown reward level array"),
        ({"dataset": ["Shapes"]}, "Unknown data set ['Shapes']; valid: Shapes, "),
        ({"split": ["train"]}, "split must be a string, got ['train']."),
        ({"resize": None}, "resize must be a string, got None."),
        ({"root": 5}, "root must be the path of a folder, got 5."),
        ({"image_size": (True, 48)}, "image_size must be two positive integers (H, W), got (True, 48)"),
        ({"image_size": (40.0, 48.0)}, "image_size must be two positive integers (H, W), got (40.0, 48.0)"),
        ({"image_size": {40: 1, 48: 2}}, "image_size must be two positive integers (H, W), got {40: 1, 48: 2}"),
        ({"image_size": {40, 48}}, "image_size must be two positive integers (H, W), got {"),
        ({"image_size": "48"}, "image_size must be two positive integers (H, W), got '48'"),
        ({"image_size": float("nan")}, "image_size must be two positive integers (H, W), got nan"),
        ({"num_classes": [3]}, "num_classes must be a number, a bool or a string, got [3]."),
    ],
)
def test_a_value_of_another_type_is_an_error_that_names_the_argument(kind: Any, wrong: dict, message: str):
    with pytest.raises(OptionError, match=re.escape(message)):
        kind(**SMALL | wrong)


@every_kind
def test_image_sizes_may_be_lists_and_arrays(kind: Any):
    for size in ([40, 48], np.array([40, 48]), (np.int64(40), np.uint8(48))):
        assert kind(**SMALL | {"image_size": size}).reset(seed=0)[0].shape[-3:] == (40, 48, 3)


@every_kind
@pytest.mark.parametrize("options", [3, 0, "", "index", ["index"], [], [("index", 1)], np.array([1]), float("nan")])
def test_reset_options_are_a_dict(kind: Any, options: Any):
    env = kind(**SMALL)
    with pytest.raises(OptionError, match=r"reset\(options=...\) needs a dict of index, episode"):
        env.reset(seed=0, options=options)


@needs_torch
def test_reset_options_are_a_dict_on_a_device_too():
    with pytest.raises(OptionError, match="needs a dict of index, episode, images, reset_mask, got 3"):
        gym.make_vec("RSS-Shapes-ImageReward-v0", device="cpu", **SMALL).reset(options=3)


@every_kind
@pytest.mark.parametrize("options", [{3: 1, "a": 2}, {None: 1}, {("index",): 1}])
def test_names_of_reset_options_are_strings(kind: Any, options: Any):
    with pytest.raises(OptionError, match=r"Unknown reset option .*; valid: index, episode"):
        kind(**SMALL).reset(options=options)


@every_kind
@pytest.mark.parametrize(
    "action",
    [
        lambda: [[1], [2, 3]],
        lambda: tensor(np.zeros((40, 48), np.float32)).requires_grad_(),
        lambda: tensor(np.zeros(2)).bfloat16(),
    ],
    ids=["ragged", "with gradient", "bfloat16"],
)
def test_what_numpy_makes_no_array_of_is_an_invalid_action(kind: Any, action: Any):
    env, action = kind(**SMALL), action()
    env.reset(seed=0)
    with pytest.raises(InvalidAction, match="A label map must have an integer dtype"):
        env.step(action)
    assert env.reward_queries == 0


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
