"""A callable as the reward, with and without masks."""

from __future__ import annotations

import copy
import functools
import pickle
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
from rss_env.rewards import batched
from tests.extras import ON_TORCH, is_installed, needs_torch, tensor, tensors
from tests.rewards import own
from tests.trees import tiny_folder

SMALL: dict[str, Any] = {"image_size": (8, 10), "num_classes": 3, "num_images": 8}
KINDS = [pytest.param({}, id="numpy"), ON_TORCH]


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
        np.complex64(1),
        [1.0],
        np.ones(1),
        np.ones(2),
        *tensors(np.ones(2), np.ones(1), np.array(1 + 0j)),
        float("nan"),
        float("-inf"),
        np.float32("nan"),
        10**400,
    ],
)
def test_what_is_no_finite_number_is_refused(wrong: Any):
    env = gym.make("RSS-Shapes-ImageReward-v0", reward=lambda *_: wrong, **SMALL)
    image = env.reset(seed=0)[1]["index"]
    with pytest.raises(
        OptionError,
        match=re.escape(f"must give a finite number for a label map, got {wrong!r} for image {image}, sample 0."),
    ):
        env.step(np.zeros((8, 10), int))


def test_it_may_give_any_finite_number_also_below_0_and_above_1():
    for number in (-3, 7.5, np.float32(2), True):
        env = gym.make("RSS-Shapes-ImageReward-v0", reward=lambda *_, number=number: number, **SMALL)
        env.reset(seed=0)
        assert env.step(np.zeros((8, 10), int))[1] == float(number)


def test_the_image_and_the_sample_of_a_wrong_score_are_named():
    def judge(image: np.ndarray, label_map: np.ndarray, target: np.ndarray) -> float:
        return float("nan") if label_map[0, 0] == 2 else 0.5

    envs = gym.make_vec("RSS-Shapes-ImageReward-v0", 3, reward=judge, samples_per_image=4, **SMALL)
    shown = envs.reset(seed=0)[1]["index"]
    label_maps = np.zeros((3, 4, 8, 10), np.uint8)
    label_maps[1:, 2, 0, 0] = 2
    with pytest.raises(OptionError, match=f"got nan for image {shown[1]}, sample 2"):
        envs.step(label_maps)


def test_at_pixel_level_it_is_refused():
    for reward in (brightness, "tests.rewards.own:agreement"):
        with pytest.raises(OptionError, match="A callable reward gives one score a label map, so it needs an image"):
            gym.make("RSS-Shapes-PixelReward-v0", reward=reward, **SMALL)


# By name, and with options


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_of_ones_own_is_found_by_its_name(kind: dict[str, Any]):
    by_name, itself = (
        gym.make_vec("RSS-Shapes-ImageReward-v0", 2, reward=reward, **SMALL, **kind)
        for reward in ("tests.rewards.own:judge", own.agreement)
    )
    for envs in (by_name, itself):
        envs.reset(seed=0)
    label_maps = np.random.default_rng(0).integers(0, 3, (2, 8, 10))
    assert by_name.step(label_maps)[1].min() > 0
    assert by_name.metadata["reward"] is None
    for envs in (by_name, itself):
        envs.reset(seed=0)
    assert by_name.step(label_maps)[1].tolist() == itself.step(label_maps)[1].tolist()


def test_by_name_it_can_be_written_as_json_and_pickled():
    options = {"scale": 3, "shift": 0.5}
    env = gym.make("RSS-Shapes-ImageReward-v0", reward="tests.rewards.own:agreement", reward_options=options, **SMALL)
    assert env.spec is not None
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    rewards = set()
    for one in (env, again, pickle.loads(pickle.dumps(env)), copy.deepcopy(env)):
        one.reset(seed=0)
        rewards.add(one.step(np.zeros((8, 10), int))[1])
    assert len(rewards) == 1
    assert rewards.pop() > 0.5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere_at_all:judge", "The reward 'nowhere_at_all:judge' cannot be imported: No module named 'nowhere_at_"),
        ("tests.rewards.own:nobody", "The reward 'tests.rewards.own:nobody': module tests.rewards.own has no 'nobody'"),
        ("tests.rewards.own:number", "The reward 'tests.rewards.own:number' must be callable, got int"),
        ("tests.rewards.own:Agreement", "The reward tests.rewards.own:Agreement is a class: pass an object of it"),
        ("tests.rewards.own:", "A reward of your own is named as module:function, got 'tests.rewards.own:'"),
        (":judge", "A reward of your own is named as module:function, got ':judge'"),
        (".own:judge", "A reward of your own is named as module:function, got '.own:judge'"),
    ],
)
def test_a_name_that_leads_nowhere_says_where_it_ends(name: str, said: str):
    with pytest.raises(OptionError, match=re.escape(said)):
        gym.make("RSS-Shapes-ImageReward-v0", reward=name, **SMALL)


@pytest.mark.parametrize("name", ["agreement", "agreement_of_all", "agreement_in_threads", "agreement_of_tasks"])
@pytest.mark.parametrize("kind", KINDS)
def test_reward_options_are_keyword_arguments_of_the_callable(name: str, kind: dict[str, Any]):
    options = {"scale": 0.5, "shift": -2}
    envs = gym.make_vec(
        "RSS-Shapes-ImageReward-v0",
        2,
        reward=f"tests.rewards.own:{name}",
        reward_options=options,
        expose_target=True,
        **SMALL,
        **kind,
    )
    _, infos = envs.reset(seed=0)
    right = np.asarray(infos["target"] == 0).reshape(2, -1).mean(1)
    rewards = np.asarray(envs.step(np.zeros((2, 8, 10), np.uint8))[1])
    np.testing.assert_allclose(rewards, 0.5 * right - 2, rtol=0, atol=1e-7)
    assert envs.metadata["reward_options"] == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"classes": "union"}, "got an unexpected keyword argument 'classes'; its options: scale, shift."),
        ({"target": 3}, "argument 'target'; its options: scale, shift."),
        ([1], "reward_options must be a dict of the callable's own options, got [1]."),
    ],
)
@pytest.mark.parametrize("name", ["agreement", "agreement_of_all", "agreement_in_threads", "agreement_of_tasks"])
def test_options_that_it_does_not_take_are_named_when_the_environment_is_made(name: str, options: Any, said: str):
    with pytest.raises(OptionError, match=re.escape(said)):
        gym.make("RSS-Shapes-ImageReward-v0", reward=getattr(own, name), reward_options=options, **SMALL)


def test_a_callable_of_other_arguments_is_refused_when_the_environment_is_made():
    said = "is called as (image, label_map, target, **reward_options): too many positional arguments; its options: none"
    with pytest.raises(OptionError, match=re.escape(said)):
        gym.make("RSS-Shapes-ImageReward-v0", reward=lambda image, label_map: 0.5, **SMALL)


# Batched


class Batched:
    batched = True

    def __init__(self, given: Any = None) -> None:
        self.given = given
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, images: Any, label_maps: Any, targets: Any) -> Any:
        self.calls.append((images, label_maps, targets))
        return (label_maps == 0).sum((2, 3)) if self.given is None else self.given


@pytest.mark.parametrize("kind", KINDS)
def test_a_batched_callable_is_called_once_a_step_with_all_that_is_shown(kind: dict[str, Any]):
    judge = Batched()
    envs = gym.make_vec(
        "RSS-Shapes-ImageReward-v0",
        3,
        reward=judge,
        samples_per_image=4,
        augment="flip",
        expose_target=True,
        **SMALL,
        **kind,
    )
    images, infos = envs.reset(seed=0)
    label_maps = np.random.default_rng(0).integers(0, 3, (3, 4, 8, 10)).astype(np.uint8)
    _, rewards, _, _, ended = envs.step(label_maps)
    ((seen, scored, targets),) = envs.unwrapped._task.judge.judge.calls
    assert type(seen) is type(scored) is type(targets) is type(images)
    np.testing.assert_array_equal(seen, images)
    np.testing.assert_array_equal(scored, label_maps)
    np.testing.assert_array_equal(targets, infos["target"])
    expected = (label_maps == 0).sum((2, 3))
    np.testing.assert_array_equal(ended["final_info"]["scores"], expected)
    np.testing.assert_allclose(rewards, expected.mean(1))


def test_a_single_environment_and_one_without_masks_take_batched_callables_too(tmp_path: Path):
    shutil.rmtree(tiny_folder(tmp_path, 3) / "masks")
    judge = Batched()
    options = {"root": tmp_path, "split": "all", "num_classes": 4, "image_size": (8, 10)}
    env = gym.make("RSS-Folder-ImageReward-v0", reward=judge, **options)
    env.reset(seed=0)
    assert env.step(np.zeros((8, 10), int))[1] == 80
    ((images, label_maps, targets),) = env.unwrapped._task.judge.judge.calls
    assert (images.shape, label_maps.shape, targets) == ((1, 8, 10, 3), (1, 1, 8, 10), None)


GRID = np.arange(6).reshape(2, 3) / 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "given",
    [GRID, GRID.tolist(), GRID.astype(np.float32), GRID > 0.5, *tensors(GRID, GRID.astype(np.float16))],
    ids=lambda given: f"{type(given).__name__}-{getattr(given, 'dtype', '')}",
)
def test_batched_scores_may_be_arrays_lists_or_tensors(given: Any, kind: dict[str, Any]):
    envs = gym.make_vec("RSS-Shapes-ImageReward-v0", 2, reward=Batched(given), samples_per_image=3, **SMALL, **kind)
    images, _ = envs.reset(seed=0)
    scores = envs.step(np.zeros((2, 3, 8, 10), np.uint8))[4]["final_info"]["scores"]
    assert type(scores) is type(images)
    assert str(scores.dtype).endswith("float64")
    assert scores.tolist() == np.asarray(given, np.float64).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_batched_scores_share_no_memory_with_what_was_given(kind: dict[str, Any]):
    buffer = np.zeros((2, 3)) if not kind else tensor(np.zeros((2, 3)))
    envs = gym.make_vec(
        "RSS-Shapes-ImageReward-v0", 2, reward=batched(lambda *_: buffer), samples_per_image=3, **SMALL, **kind
    )
    envs.reset(seed=0)
    scores = envs.step(np.zeros((2, 3, 8, 10), np.uint8))[4]["final_info"]["scores"]
    buffer += 1
    assert scores.tolist() == [[0, 0, 0], [0, 0, 0]]


NAN = np.where(np.arange(6).reshape(2, 3) == 4, np.nan, 0.5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (GRID[0], "shape (B, K) = (2, 3); got float64 (3,)."),
        (GRID.T, "shape (B, K) = (2, 3); got float64 (3, 2)."),
        (0.5, "shape (B, K) = (2, 3); got 0.5."),
        ("good", "shape (B, K) = (2, 3); got 'good'."),
        ([["a", "b", "c"]] * 2, "shape (B, K) = (2, 3); got <U1 (2, 3)."),
        ([[None] * 3] * 2, "shape (B, K) = (2, 3); got object (2, 3)."),
        ([[1], [1, 2, 3]], "shape (B, K) = (2, 3); got [[1], [1, 2, 3]]."),
        (GRID + 0j, "shape (B, K) = (2, 3); got complex128 (2, 3)."),
        *[(wrong, "shape (B, K) = (2, 3); got torch.") for wrong in tensors(GRID[0], GRID + 0j)],
        *[(wrong, "finite number for a label map, got nan for image {}, sample 1.") for wrong in (NAN, *tensors(NAN))],
        (GRID + np.inf, "finite number for a label map, got inf for image {}, sample 0."),
    ],
)
def test_batched_scores_that_are_wrong_are_refused(given: Any, said: str, kind: dict[str, Any]):
    envs = gym.make_vec("RSS-Shapes-ImageReward-v0", 2, reward=Batched(given), samples_per_image=3, **SMALL, **kind)
    _, infos = envs.reset(seed=0)
    with pytest.raises(OptionError, match=re.escape(said.format(infos["index"][int("nan" in said)]))):
        envs.step(np.zeros((2, 3, 8, 10), np.uint8))


def test_what_cannot_be_batched_is_named():
    with pytest.raises(OptionError, match="batched marks a function, or an object of a class; got <built-in function"):
        batched(max)

    @batched
    async def judge(images: Any, label_maps: Any, targets: Any) -> Any: ...

    with pytest.raises(OptionError, match="is batched, that is called once a step, so it cannot be concurrent"):
        gym.make("RSS-Shapes-ImageReward-v0", reward=judge, **SMALL)
    env = gym.make("RSS-Shapes-ImageReward-v0", reward=functools.partial(own.agreement_of_all, scale=0), **SMALL)
    env.reset(seed=0)
    assert env.step(np.zeros((8, 10), int))[1] == 0  # marked within a partial
