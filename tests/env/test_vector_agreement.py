"""The native vector env gives what Gymnasium's own vector envs give over the single env, bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from rss_env import SegmentationEnv, SegmentationVectorEnv
from tests.trees import dataset_kwargs

MAP = (40, 48)
MODES = [mode.value for mode in AutoresetMode]


def pair(num_envs: int, mode: str, dataset: str = "Shapes", **options: Any) -> tuple[Any, Any]:
    """The native vector env and Gymnasium's."""
    options = {"dataset": dataset, "image_size": MAP, **options}
    native = SegmentationVectorEnv(num_envs=num_envs, autoreset_mode=mode, **options)
    reference = SyncVectorEnv([lambda: SegmentationEnv(**options)] * num_envs, autoreset_mode=mode)
    return native, reference


def random_maps(rng: np.random.Generator, envs: Any) -> np.ndarray:
    return rng.integers(0, envs.unwrapped.single_action_space.nvec.flat[0], envs.action_space.shape)


def assert_same_infos(native: dict[str, Any], reference: dict[str, Any]) -> None:
    """The same keys; under ``_key`` the same mask, and where it is True the same values."""
    assert native.keys() == reference.keys()
    for key, value in native.items():
        other = reference[key]
        assert type(value) is type(other)
        if key.startswith("_"):
            assert value.dtype == other.dtype == bool
            np.testing.assert_array_equal(value, other)
        elif isinstance(value, dict):
            assert_same_infos(value, other)
        else:
            assert (value.dtype, value.shape) == (other.dtype, other.shape)
            for b in np.flatnonzero(native[f"_{key}"]):
                np.testing.assert_array_equal(value[b], other[b])


def assert_same(native: tuple, reference: tuple) -> None:
    """The same outcome of a reset or a step."""
    assert len(native) == len(reference)
    for ours, theirs in zip(native[:-1], reference[:-1], strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert_same_infos(native[-1], reference[-1])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("level", ["image", "pixel"])
@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("augment", ["none", "flip"])
@pytest.mark.parametrize("expose", [False, True])
@pytest.mark.parametrize("dataset", ["Shapes", "VOC"])
def test_it_agrees_with_sync_vector_env(
    mode: str, level: str, samples: int | None, augment: str, expose: bool, dataset: str, tmp_path: Path
):
    native, reference = pair(
        3,
        mode,
        dataset,
        level=level,
        samples_per_image=samples,
        augment=augment,
        expose_target=expose,
        **dataset_kwargs(dataset, tmp_path),
    )
    for space in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(native, space) == getattr(reference, space)
    assert native.metadata == reference.metadata
    rng = np.random.default_rng(0)
    assert_same(native.reset(seed=11), reference.reset(seed=11))
    for step in range(7):
        actions = random_maps(rng, native)
        assert_same(native.step(actions), reference.step(actions))
        if mode == "Disabled" or step == 4:
            assert_same(native.reset(), reference.reset())
    queries = sum(env.reward_queries for env in reference.envs)
    assert native.reward_queries == queries > 0


seeds = st.one_of(st.none(), st.integers(0, 2**40), st.lists(st.integers(0, 2**40), min_size=3, max_size=3))


@given(
    mode=st.sampled_from(MODES),
    augment=st.sampled_from(["none", "flip"]),
    first=st.one_of(st.integers(0, 2**40), st.lists(st.integers(0, 2**40), min_size=3, max_size=3)),
    calls=st.lists(
        st.one_of(
            st.just(("step", None, None)),
            st.tuples(
                st.just("reset"),
                st.one_of(seeds, st.lists(st.one_of(st.none(), st.integers(0, 99)), min_size=3, max_size=3)),
                st.one_of(
                    st.none(),
                    st.fixed_dictionaries(
                        {},
                        optional={
                            "index": st.integers(0, 5),
                            "episode": st.integers(0, 2**40),
                            "images": st.integers(1, 6),
                        },
                    ),
                ),
            ),
        ),
        max_size=8,
    ),
)
@settings(max_examples=60)
def test_any_row_of_resets_and_steps_agrees(mode: str, augment: str, first: Any, calls: list):
    native, reference = pair(3, mode, augment=augment, num_images=6)
    rng = np.random.default_rng(0)
    assert_same(native.reset(seed=first), reference.reset(seed=first))
    for call, seed, options in calls:
        if call == "reset":
            assert_same(native.reset(seed=seed, options=options), reference.reset(seed=seed, options=options))
            continue
        actions = random_maps(rng, native)
        assert_same(native.step(actions), reference.step(actions))
        if mode == "Disabled":
            assert_same(native.reset(), reference.reset())


masks = st.lists(st.booleans(), min_size=3, max_size=3).filter(any)


@given(
    resets=st.lists(
        st.tuples(
            masks,
            st.one_of(seeds, st.lists(st.one_of(st.none(), st.integers(0, 99)), min_size=3, max_size=3)),
            st.fixed_dictionaries({}, optional={"index": st.integers(0, 5), "episode": st.integers(0, 99)}),
        ),
        min_size=1,
        max_size=6,
    ),
    level=st.sampled_from(["image", "pixel"]),
)
@settings(max_examples=60)
def test_resets_with_a_mask_agree(resets: list, level: str):
    native, reference = pair(3, "Disabled", level=level, augment="flip", expose_target=True, num_images=6)
    rng = np.random.default_rng(0)
    assert_same(native.reset(seed=1), reference.reset(seed=1))
    for mask, seed, options in resets:
        actions = random_maps(rng, native)
        assert_same(native.step(actions), reference.step(actions))
        for chosen in (np.array(mask), ~np.array(mask)):
            if chosen.any():
                outcomes = [
                    envs.reset(seed=seed, options={"reset_mask": chosen, **options}) for envs in (native, reference)
                ]
                assert_same(*outcomes)


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_the_same_seed_gives_the_same_episodes_in_every_autoreset_mode(augment: str):
    episodes: dict[str, list] = {}
    for mode in MODES:
        envs = SegmentationVectorEnv(num_envs=3, image_size=MAP, num_images=6, augment=augment, autoreset_mode=mode)
        action = np.zeros((3, *MAP), int)
        images, _ = envs.reset(seed=4)
        episodes[mode] = []
        for _ in range(6):
            scored = images
            images, rewards, *_ = envs.step(action)
            episodes[mode].append((scored, rewards))
            if mode == "NextStep":
                images, *_ = envs.step(action)
            elif mode == "Disabled":
                images, _ = envs.reset()
    for mode in MODES[1:]:
        for (image, reward), (other, expected) in zip(episodes[mode], episodes[MODES[0]], strict=True):
            np.testing.assert_array_equal(image, other)
            np.testing.assert_array_equal(reward, expected)


@pytest.mark.parametrize("order", ["random", "sequential"])
def test_one_environment_agrees_with_the_single_env(order: str):
    envs = SegmentationVectorEnv(num_envs=1, image_size=MAP, num_images=6, order=order)
    env = SegmentationEnv(image_size=MAP, num_images=6, order=order)
    (images, _), (image, _) = envs.reset(seed=8), env.reset(seed=8)
    for value in range(9):
        np.testing.assert_array_equal(images[0], image)
        action = np.full(MAP, value % 5)
        images, rewards, *_ = envs.step(action[None])
        assert rewards[0] == env.step(action)[1]
        image, _ = env.reset()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # of newer Pythons, where threads are running
@pytest.mark.parametrize(
    ("mode", "context"),
    [("SameStep", "spawn"), ("NextStep", "spawn"), ("SameStep", "fork"), ("SameStep", "forkserver")],
)
def test_it_agrees_with_async_vector_env(mode: str, context: str):
    kwargs = {"image_size": MAP, "num_images": 6, "augment": "flip", "samples_per_image": 2}
    native = gym.make_vec("RSS-Shapes-PixelReward-v0", num_envs=2, autoreset_mode=mode, **kwargs)
    reference = gym.make_vec(
        "RSS-Shapes-PixelReward-v0",
        num_envs=2,
        vectorization_mode="async",
        vector_kwargs={"context": context, "autoreset_mode": AutoresetMode(mode)},
        **kwargs,
    )
    try:
        assert isinstance(reference.unwrapped, AsyncVectorEnv)
        rng = np.random.default_rng(0)
        assert_same(native.reset(seed=2), reference.reset(seed=2))
        for _ in range(5):
            actions = random_maps(rng, native)
            assert_same(native.step(actions), reference.step(actions))
    finally:
        reference.close()


def test_make_vec_with_sync_agrees_with_the_native_vector_env():
    options: dict[str, Any] = {"num_envs": 2, "image_size": MAP, "num_images": 6}
    native = gym.make_vec("RSS-Shapes-ImageReward-v0", **options)
    reference = gym.make_vec(
        "RSS-Shapes-ImageReward-v0",
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **options,
    )
    assert_same(native.reset(seed=2), reference.reset(seed=2))
    actions = np.ones((2, *MAP), int)
    for _ in range(3):
        assert_same(native.step(actions), reference.step(actions))
