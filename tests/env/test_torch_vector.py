"""The vector env on a torch device gives what the NumPy one gives, bit by bit, as tensors of their own."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import InvalidAction
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

import rss_env
from rss_env.errors import OptionError
from rss_env.rewards import LEVELS, REWARDS
from rss_env.torch_vector import TorchSegmentationVectorEnv
from tests.env.torch_pair import MAP, PATHS, assert_same, on_path, pair, random_maps, run_alike, tensors
from tests.trees import dataset_kwargs

MODES = [mode.value for mode in AutoresetMode]


@pytest.fixture(params=PATHS, scope="module", autouse=True)
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test here is done on both paths."""
    with on_path(request.param) as path:
        yield path


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """(data set) -> the arguments that load a tiny tree of it."""
    trees: dict[str, dict] = {}

    def of(dataset: str) -> dict[str, Any]:
        if dataset not in trees:
            trees[dataset] = dataset_kwargs(dataset, tmp_path_factory.mktemp(dataset))
        return trees[dataset]

    return of


# Agreement with NumPy

# Every pair of values of two arguments is in at least one row.
COVERING = [
    dict(zip(("autoreset_mode", "samples_per_image", "augment", "expose_target", "order"), row, strict=True))
    for row in (
        ("SameStep", None, "none", False, "random"),
        ("SameStep", 3, "flip", True, "sequential"),
        ("NextStep", None, "flip", True, "random"),
        ("NextStep", 3, "none", False, "sequential"),
        ("Disabled", None, "none", True, "sequential"),
        ("Disabled", 3, "flip", False, "random"),
        ("SameStep", None, "flip", False, "sequential"),
        ("SameStep", 3, "none", True, "random"),
    )
]


def test_the_covering_rows_cover():
    for one, two in itertools.combinations(COVERING[0], 2):
        values = [{row[name] for row in COVERING} for name in (one, two)]
        assert {(row[one], row[two]) for row in COVERING} == set(itertools.product(*values))


@pytest.mark.parametrize("env_id", rss_env.ENV_IDS)
def test_every_id_agrees_with_numpy(env_id: str, options: Callable):
    for chosen in COVERING:
        given = {"num_envs": 3, "image_size": MAP, **options(gym.spec(env_id).kwargs["dataset"]), **chosen}
        envs, twin = gym.make_vec(env_id, device="cpu", **given), gym.make_vec(env_id, **given)
        assert type(envs.unwrapped) is TorchSegmentationVectorEnv
        for space in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
            assert getattr(envs, space) == getattr(twin, space)
        assert envs.metadata == twin.metadata | {"device": "cpu"}
        run_alike(envs.unwrapped, twin.unwrapped)  # type: ignore[arg-type]


EVERY_OPTION = {"class_weights": [1.0, 2.5, 0.5, 0.0, 3.0], "classes": "target", "tolerance": 2.0}
REWARD_LEVELS = [(name, level) for name in REWARDS for level in LEVELS if REWARDS[name].has_level(level)]


@pytest.mark.parametrize(("reward", "level"), REWARD_LEVELS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("with_options", [False, True])
def test_every_reward_agrees_with_numpy(reward: str, level: str, mode: str, with_options: bool):
    own = {name: EVERY_OPTION[name] for name in REWARDS[reward].options} if with_options else None
    run_alike(
        *pair(
            level=level, reward=reward, reward_options=own, autoreset_mode=mode, samples_per_image=2, expose_target=True
        )
    )


seeds = st.one_of(
    st.none(),
    st.integers(0, 2**40),
    st.lists(st.one_of(st.none(), st.integers(0, 99)), min_size=3, max_size=3),
    st.lists(st.integers(0, 99), min_size=3, max_size=3).map(np.array),
)
chosen_images = st.one_of(
    st.integers(0, 5),
    st.integers(0, 5).map(np.asarray),
    st.lists(st.integers(0, 5), min_size=3, max_size=3).map(np.array),
)
masks = st.lists(st.booleans(), min_size=3, max_size=3).filter(any).map(np.array)


def as_tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


@given(
    mode=st.sampled_from(MODES),
    order=st.sampled_from(["random", "sequential"]),
    calls=st.lists(
        st.one_of(
            st.just(None),
            st.tuples(
                seeds,
                st.fixed_dictionaries(
                    {},
                    optional={"index": chosen_images, "episode": st.integers(0, 2**40), "images": st.integers(1, 3)},
                ),
                masks,
            ),
        ),
        max_size=8,
    ),
)
@settings(max_examples=40)
def test_any_row_of_resets_and_steps_agrees_with_numpy(mode: str, order: str, calls: list):
    envs, twin = pair(autoreset_mode=mode, order=order, augment="flip", expose_target=True)
    assert_same(envs.reset(seed=1), twin.reset(seed=1))
    for number, call in enumerate(calls):
        if call is not None:
            seed, chosen, mask = call
            if mode == "Disabled":
                chosen = chosen | {"reset_mask": mask}
            in_tensors = {key: as_tensor(value) for key, value in chosen.items()}
            assert_same(
                envs.reset(seed=as_tensor(seed), options=in_tensors or None), twin.reset(seed=seed, options=chosen)
            )
        else:
            maps = random_maps(twin, number)
            assert_same(envs.step(torch.from_numpy(maps)), twin.step(maps))
            if mode == "Disabled":
                assert_same(envs.reset(), twin.reset())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"index": torch.tensor([0, 6, 1])}, "needs integers from 0 to 5"),
        ({"index": torch.tensor([0.0, 1.0, 2.0])}, "needs integers from 0 to 5"),
        ({"index": torch.tensor([0, 1])}, "needs one integer or 3"),
        ({"reset_mask": torch.tensor([1, 0, 1])}, r"needs a bool array of shape \(3,\) with a True in it"),
        ({"reset_mask": torch.zeros(3, dtype=torch.bool)}, r"needs a bool array of shape \(3,\) with a True in it"),
    ],
)
def test_a_wrong_reset_option_in_a_tensor_is_the_error_it_is_in_numpy(given: dict, message: str):
    envs, _ = pair(autoreset_mode="Disabled")
    with pytest.raises(OptionError, match=message):
        envs.reset(options=given)


def test_the_episode_may_be_a_tensor_of_one_number():
    envs, twin = pair()
    assert_same(
        envs.reset(seed=torch.tensor(7), options={"episode": torch.tensor(30)}),
        twin.reset(seed=7, options={"episode": 30}),
    )


@pytest.mark.parametrize("samples", [None, 2])
@pytest.mark.parametrize("level", LEVELS)
def test_pictures_are_those_of_the_numpy_env(level: str, samples: int | None):
    envs, twin = pair(level=level, samples_per_image=samples, expose_target=True, render_mode="rgb_array")
    envs.reset(seed=0)
    twin.reset(seed=0)
    for seed in range(2):
        np.testing.assert_array_equal(envs.render(), twin.render())
        maps = torch.from_numpy(random_maps(twin, seed)).to(torch.uint8)
        envs.step(maps)
        twin.step(maps.numpy().copy())
        maps.zero_()  # pictures show what was given, not what became of it
    np.testing.assert_array_equal(envs.render(), twin.render())


def test_a_callable_reward_gets_tensors_and_what_it_gives_is_the_reward():
    seen = []

    def judge(image: torch.Tensor, label_map: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append((image, label_map, target))
        return (label_map == target).double().mean()

    envs, twin = (
        pair(reward=judge, samples_per_image=2, augment="flip", expose_target=True, autoreset_mode="Disabled")[0],
        pair(reward="pixel_accuracy", samples_per_image=2, augment="flip", autoreset_mode="Disabled")[1],
    )
    images, infos = envs.reset(seed=0)
    twin.reset(seed=0)
    maps = random_maps(twin)
    np.testing.assert_allclose(envs.step(torch.from_numpy(maps))[1].numpy(), twin.step(maps)[1], rtol=1e-12)
    assert len(seen) == 6
    for number, parts in enumerate(seen):
        assert all(type(part) is torch.Tensor and part.dtype == torch.uint8 for part in parts)
        assert torch.equal(parts[0], images[number // 2])
        np.testing.assert_array_equal(parts[1].numpy(), maps[number // 2, number % 2])
        assert torch.equal(parts[2], infos["target"][number // 2])


# What is given out belongs to the caller


EVERYTHING: dict[str, Any] = {
    "level": "pixel", "samples_per_image": 2, "expose_target": True, "augment": "flip", "num_images": 3,
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_no_two_tensors_share_memory_nor_any_with_the_actions_or_the_data_set(mode: str):
    envs, twin = pair(autoreset_mode=mode, **EVERYTHING)
    given, taken = [], list(tensors(envs.reset(seed=0)))
    for seed in range(4):
        given.append(torch.from_numpy(random_maps(twin, seed)).to(torch.uint8))
        taken += tensors(envs.step(given[-1]))
        taken += tensors(envs.reset())
    assert len(taken) > 30
    places = [tensor.untyped_storage().data_ptr() for tensor in (*given, *taken)]
    assert len(set(places)) == len(places)
    for tensor, data in itertools.product(taken, (envs._task.dataset.images, envs._task.dataset.targets)):
        assert not np.may_share_memory(tensor.numpy(), data)


@pytest.mark.parametrize("mode", MODES)
def test_overwriting_everything_given_and_taken_changes_no_later_outcome(mode: str):
    envs, twin = pair(autoreset_mode=mode, **EVERYTHING)
    outcome = envs.reset(seed=0)
    assert_same(outcome, twin.reset(seed=0))
    for seed in range(6):
        maps = random_maps(twin, seed)
        given = torch.from_numpy(maps.copy()).to(torch.uint8)
        expected = twin.step(maps)
        for tensor in tensors(outcome):
            tensor.copy_(~tensor) if tensor.dtype == torch.bool else tensor.fill_(77)
        outcome = envs.step(given)
        given.fill_(77)
        assert_same(outcome, expected)
        if mode == "Disabled":
            for tensor in tensors(outcome):
                tensor.fill_(0)
            outcome = envs.reset()
            assert_same(outcome, twin.reset())


def test_later_calls_change_nothing_given_out_earlier():
    envs, twin = pair(**EVERYTHING)
    taken = [envs.reset(seed=0)]
    kept = [twin.reset(seed=0)]
    for seed in range(6):
        maps = random_maps(twin, seed)
        taken.append(envs.step(torch.from_numpy(maps)))  # type: ignore[arg-type]
        kept.append(twin.step(maps))  # type: ignore[arg-type]
    envs.reset(seed=1, options={"index": 2})
    assert_same(tuple(taken), tuple(kept))


def test_the_actions_are_not_changed_by_the_step():
    envs, twin = pair()
    envs.reset(seed=0)
    for dtype in (torch.uint8, torch.int64):
        maps = torch.from_numpy(random_maps(twin)).to(dtype)
        before = maps.clone()
        envs.step(maps)
        assert torch.equal(maps, before)


def test_no_global_random_state_is_used_or_changed():
    envs, twin = pair(augment="flip")
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    envs.reset(seed=3)
    envs.step(torch.from_numpy(random_maps(twin)))
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]
    torch.manual_seed(1)
    again, _ = pair(augment="flip")
    twin.reset(seed=3)
    maps = random_maps(twin)
    twin.step(maps)
    again.reset(seed=3)
    again.step(torch.from_numpy(maps))
    for seed in range(3):
        maps = random_maps(twin, seed)
        expected = twin.step(maps)
        assert_same(envs.step(torch.from_numpy(maps)), expected)
        assert_same(again.step(torch.from_numpy(maps)), expected)


# Under other settings of torch


def step_and_close(envs: Any, maps: torch.Tensor) -> None:
    envs.step(maps)
    envs.close()


def test_torchs_default_device_and_dtype_change_nothing():
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("meta"):
            for reward in REWARDS:
                run_alike(*pair(reward=reward, samples_per_image=3, augment="flip"))
            run_alike(*pair(level="pixel", reward_options={"class_weights": [1.0, 2.0, 0.5, 1.0, 0.7]}))
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(("made_inside", "stepped_inside"), [(True, False), (False, True), (True, True)])
def test_inference_mode_may_begin_and_end_at_any_time(made_inside: bool, stepped_inside: bool):
    with torch.inference_mode(made_inside):
        envs, twin = pair()
    for inside in (stepped_inside, not stepped_inside, stepped_inside):
        with torch.inference_mode(inside):
            run_alike(envs, twin)
            with pytest.raises(InvalidAction):
                step_and_close(envs, torch.full((3, *MAP), 5))
