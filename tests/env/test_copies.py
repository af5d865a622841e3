"""A copy of an environment, in this process or another, goes on exactly as the original does, and shares its images."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from rss_env import SegmentationEnv, SegmentationVectorEnv
from tests.trees import dataset_kwargs

HOWS = {"deepcopy": copy.deepcopy, "pickle": lambda env: pickle.loads(pickle.dumps(env))}
every_how = pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
KINDS = {"single": SegmentationEnv, "vector": lambda *a, **k: SegmentationVectorEnv(*a, num_envs=3, **k)}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
every_set = pytest.mark.parametrize("name", ["Shapes", "VOC"])


def trace(env: Any, steps: int) -> list:
    """What the next steps give for actions that are the same every time."""
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(steps):
        outcomes.append(env.step(rng.integers(0, 5, env.action_space.shape)))
        if env.render_mode is not None:
            outcomes.append(env.render())
        outcomes.append(env.reset())
    return outcomes


@every_how
@every_kind
@every_set
def test_a_copy_continues_identically(how: Callable, kind: Callable, name: str, tmp_path: Path):
    env = kind(
        name,
        "pixel",
        image_size=(40, 48),
        augment="flip",
        samples_per_image=2,
        expose_target=True,
        render_mode="rgb_array",
        **dataset_kwargs(name, tmp_path),
    )
    env.reset(seed=5)
    trace(env, steps=3)
    twin = how(env)
    assert twin.reward_queries == env.reward_queries > 0
    assert data_equivalence(trace(twin, steps=6), trace(env, steps=6), exact=True)
    assert twin.reward_queries == env.reward_queries


@every_how
@every_kind
def test_a_copy_and_the_original_do_not_disturb_each_other(how: Callable, kind: Callable):
    env, alone = (kind(image_size=(40, 48), num_images=6) for _ in range(2))
    env.reset(seed=5)
    alone.reset(seed=5)
    twin = how(env)
    trace(twin, steps=4)
    twin.reset(seed=9)
    assert data_equivalence(trace(env, steps=6), trace(alone, steps=6), exact=True)


@every_how
@every_kind
def test_a_copy_before_the_first_reset_continues_identically(how: Callable, kind: Callable):
    env = kind(image_size=(40, 48), num_images=6)
    twin = how(env)
    env.reset(seed=1)
    twin.reset(seed=1)
    assert data_equivalence(trace(twin, steps=3), trace(env, steps=3), exact=True)


@every_how
def test_a_copy_survives_gymnasiums_wrappers(how: Callable):
    env = gym.make("RSS-Shapes-ImageReward-v0", image_size=(40, 48), num_images=6, render_mode="rgb_array")
    env.reset(seed=1)
    twin = how(env)
    assert data_equivalence(trace(twin, steps=3), trace(env, steps=3), exact=True)


@every_kind
@every_set
def test_a_pickle_holds_no_image(kind: Callable, name: str, tmp_path: Path):
    env = kind(name, image_size=(8, 8), **dataset_kwargs(name, tmp_path))
    env.reset(seed=0)
    data = env._task.dataset
    sent = pickle.dumps(env)
    assert data.images[0].tobytes() not in sent
    assert data.targets.tobytes() not in sent


def test_the_size_of_a_pickle_does_not_depend_on_the_number_of_images():
    sizes = set()
    for count in (1, 1000):
        env = SegmentationEnv(image_size=(8, 8), num_images=count, dataset_seed=0)
        env.reset(seed=0)
        sizes.add(len(pickle.dumps(env)))
    assert max(sizes) - min(sizes) < 100


@every_kind
@every_set
def test_a_deep_copy_shares_the_images(kind: Callable, name: str, tmp_path: Path):
    env = kind(name, image_size=(40, 48), **dataset_kwargs(name, tmp_path))
    twin = copy.deepcopy(env)
    assert twin._task.dataset.images is env._task.dataset.images
    assert np.shares_memory(twin._task.final_images(np.array([0]), np.array([False]))[0], env._task.dataset.images)


@every_how
@every_set
def test_final_observations_of_a_copy_are_read_only(how: Callable, name: str, tmp_path: Path):
    envs = how(SegmentationVectorEnv(name, num_envs=2, image_size=(40, 48), **dataset_kwargs(name, tmp_path)))
    envs.reset(seed=0)
    infos = envs.step(np.zeros((2, 40, 48), int))[4]
    for image in infos["final_obs"]:
        with pytest.raises(ValueError, match="read-only"):
            image[:] = 0


# Other processes

every_start = pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
ignore_fork = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # where threads are running


def send(env: Any, start: str) -> tuple[list, Any, int]:
    """What the next steps give in another process; whether its images are mapped from a file; its reward queries."""
    with ProcessPoolExecutor(1, multiprocessing.get_context(start)) as pool:
        return pool.submit(_go_on, env).result()


def _go_on(env: Any) -> tuple[list, Any, int]:
    return trace(env, steps=4), getattr(env._task.dataset.images, "filename", None), env.reward_queries


@ignore_fork
@every_start
@every_kind
def test_a_copy_in_another_process_continues_identically(start: str, kind: Callable, tmp_path: Path):
    env = kind("VOC", "pixel", image_size=(40, 48), augment="flip", **dataset_kwargs("VOC", tmp_path))
    env.reset(seed=5)
    trace(env, steps=3)
    outcomes, mapped, queries = send(env, start)
    assert data_equivalence(outcomes, trace(env, steps=4), exact=True)
    assert mapped == env._task.dataset.images.filename is not None
    assert queries == env.reward_queries


@ignore_fork
@every_start
def test_photos_in_an_async_vector_env_are_those_of_the_native_one(start: str, tmp_path: Path):
    kwargs = {"image_size": (40, 48), "augment": "flip", **dataset_kwargs("Folder", tmp_path)}
    env_id = "RSS-Folder-PixelReward-v0"
    native = gym.make_vec(env_id, num_envs=2, **kwargs)
    workers = gym.make_vec(
        env_id,
        num_envs=2,
        vectorization_mode="async",
        vector_kwargs={"context": start, "autoreset_mode": AutoresetMode.SAME_STEP},
        **kwargs,
    )
    try:
        assert isinstance(workers.unwrapped, AsyncVectorEnv)
        (images, _), (expected, _) = workers.reset(seed=4), native.reset(seed=4)
        np.testing.assert_array_equal(images, expected)
        rng = np.random.default_rng(0)
        for _ in range(6):
            actions = rng.integers(0, 4, (2, 40, 48))
            images, rewards, *_, infos = workers.step(actions)
            expected, expected_rewards, *_, expected_infos = native.step(actions)
            np.testing.assert_array_equal(images, expected)
            np.testing.assert_array_equal(rewards, expected_rewards)
            for key in ("index", "pixel_reward"):
                np.testing.assert_array_equal(infos["final_info"][key], expected_infos["final_info"][key])
    finally:
        workers.close()
