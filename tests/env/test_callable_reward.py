"""A callable as the reward, with and without masks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import rss_env  # noqa: F401  (registers the ids)
from rss_env.errors import OptionError
from tests.extras import is_installed, needs_torch, tensor, tensors
from tests.trees import tiny_folder

SMALL: dict[str, Any] = {"image_size": (8, 10), "num_classes": 3, "num_images": 8}


def brightness(image: np.ndarray, label_map: np.ndarray, target: np.ndarray | None) -> float:
    """Depends on everything it is given, arrays or tensors."""
    image, label_map, target = (None if a is None else np.asarray(a) for a in (image, label_map, target))
    assert image.shape == (*label_map.shape, 3)
    known = 0.0 if target is None else float((label_map == target).mean())
    return float(image.mean()) / 1000 + float(label_map[0, :3].sum()) / 10 + known


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_it_is_given_the_image_shown_the_label_map_and_the_target(augment: str):
    given: list[tuple] = []

    def judge(image: np.ndarray, label_map: np.ndarray, target: np.ndarray) -> float:
        given.append((image.copy(), label_map.copy(), target.copy()))
        return 0.25

    env = gym.make("RSS-Shapes-ImageReward-v0", reward=judge, augment=augment, expose_target=True, **SMALL)
    for seed in range(8):
        image, info = env.reset(seed=seed)
        label_map = np.random.default_rng(seed).integers(0, 3, (8, 10))
        assert env.step(label_map)[1] == 0.25
        for seen, shown in zip(given[-1], (image, label_map, info["target"]), strict=True):
            np.testing.assert_array_equal(seen, shown)
    assert len(given) == env.unwrapped.reward_queries == 8


def test_every_sample_is_scored_by_itself_and_all_kinds_of_environments_agree():
    options = {"reward": brightness, "samples_per_image": 4, "augment": "flip", **SMALL}
    env = gym.make("RSS-Shapes-ImageReward-v0", **options)
    native = gym.make_vec("RSS-Shapes-ImageReward-v0", 2, **options)
    processes = gym.make_vec(
        "RSS-Shapes-ImageReward-v0",
        2,
        vectorization_mode="async",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **options,
    )
    actions = np.random.default_rng(0).integers(0, 3, (2, 4, 8, 10))
    for envs in (native, processes):
        envs.reset(seed=5)
    _, rewards, _, _, infos = native.step(actions)
    assert len(set(infos["final_info"]["scores"].ravel().tolist())) == 8
    for b in range(2):
        env.reset(seed=5 + b)
        _, reward, _, _, info = env.step(actions[b])
        assert reward == rewards[b]
        np.testing.assert_array_equal(info["scores"], infos["final_info"]["scores"][b])
    np.testing.assert_array_equal(processes.step(actions)[1], rewards)
    processes.close()
    if is_installed("torch"):
        on_torch = gym.make_vec("RSS-Shapes-ImageReward-v0", 2, device="cpu", **options)
        on_torch.reset(seed=5)
        np.testing.assert_array_equal(on_torch.step(actions)[1].numpy(), rewards)


@needs_torch
def test_in_a_torch_environment_it_is_given_tensors():
    kinds = []

    def judge(*given: Any) -> Any:
        kinds.extend(type(one) for one in given)
        return given[1].float().mean()

    envs = gym.make_vec("RSS-Shapes-ImageReward-v0", 2, device="cpu", reward=judge, **SMALL)
    envs.reset(seed=0)
    label_maps = tensor(np.ones((2, 8, 10), np.uint8))
    assert envs.step(label_maps)[1].tolist() == [1.0, 1.0]
    assert set(kinds) == {type(label_maps)}


def test_without_masks_the_target_is_none(tmp_path: Path):
    shutil.rmtree(tiny_folder(tmp_path, 3) / "masks")
    targets = []

    def judge(image: np.ndarray, label_map: np.ndarray, target: np.ndarray | None) -> float:
        targets.append(target)
        return brightness(image, label_map, target)

    options = {"root": tmp_path, "split": "all", "num_classes": 4, "image_size": (8, 10)}
    env = gym.make("RSS-Folder-ImageReward-v0", reward=judge, render_mode="rgb_array", **options)
    image, _ = env.reset(seed=0)
    reward = env.step(np.ones((8, 10), int))[1]
    assert reward == brightness(image, np.ones((8, 10)), None)
    assert targets == [None]
    assert env.render().dtype == np.uint8


def test_without_masks_all_kinds_of_environments_agree(tmp_path: Path):
    shutil.rmtree(tiny_folder(tmp_path, 4) / "masks")
    options = {"root": tmp_path, "split": "all", "num_classes": 4, "image_size": (8, 10), "reward": brightness}
    kinds: list[dict[str, Any]] = [
        {},
        *([{"device": "cpu"}] if is_installed("torch") else []),
        {"vectorization_mode": "async", "vector_kwargs": {"autoreset_mode": AutoresetMode.SAME_STEP}},
    ]
    actions = np.random.default_rng(0).integers(0, 4, (2, 8, 10))
    rewards = []
    for kind in kinds:
        envs = gym.make_vec("RSS-Folder-ImageReward-v0", 2, augment="flip", **options, **kind)
        envs.reset(seed=3)
        rewards.append(np.asarray(envs.step(actions)[1]).tolist())
        envs.close()
    assert all(other == rewards[0] for other in rewards[1:])
    env = gym.make("RSS-Folder-ImageReward-v0", augment="flip", **options)
    for seed, action, reward in zip((3, 4), actions, rewards[0], strict=True):
        image, _ = env.reset(seed=seed)
        assert env.step(action)[1] == reward == brightness(image, action, None)


def test_it_cannot_be_written_as_json():
    env = gym.make("RSS-Shapes-ImageReward-v0", reward=brightness, **SMALL)
    assert env.spec is not None
    with pytest.raises(TypeError, match="function is not JSON serializable"):
        env.spec.to_json()


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "good",
        "7",
        b"7",
        1j,
        [1.0],
        np.ones(2),
        *tensors(np.ones(2)),
        float("nan"),
        float("-inf"),
        np.float32("nan"),
        10**400,
    ],
)
def test_what_is_no_finite_number_is_refused(wrong: Any):
    env = gym.make("RSS-Shapes-ImageReward-v0", reward=lambda *_: wrong, **SMALL)
    env.reset(seed=0)
    with pytest.raises(
        OptionError, match=re.escape(f"must give a finite number for a label map, got {wrong!r}."[:200])
    ):
        env.step(np.zeros((8, 10), int))


def test_it_may_give_any_finite_number_also_below_0_and_above_1():
    for number in (-3, 7.5, np.float32(2), True):
        env = gym.make("RSS-Shapes-ImageReward-v0", reward=lambda *_, number=number: number, **SMALL)
        env.reset(seed=0)
        assert env.step(np.zeros((8, 10), int))[1] == float(number)


def test_at_pixel_level_and_with_options_it_is_refused():
    with pytest.raises(OptionError, match="A callable reward gives one score a label map, so it needs an image"):
        gym.make("RSS-Shapes-PixelReward-v0", reward=brightness, **SMALL)
    with pytest.raises(OptionError, match="reward_options are for rewards by name; a callable takes none"):
        gym.make("RSS-Shapes-ImageReward-v0", reward=brightness, reward_options={"classes": "union"}, **SMALL)
