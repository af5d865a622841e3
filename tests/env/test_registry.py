"""What holds for every registered id; a new one is tested by being registered."""

from __future__ import annotations

import copy
import functools
import json
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, VectorEnv

import rss_env
from rss_env import rendering
from rss_env.datasets import IGNORE_INDEX, load_dataset
from rss_env.wrappers import CoarseAction, FeedbackReward, FlattenAction, Stars
from rss_env.wrappers import vector as twins
from tests.extras import is_installed
from tests.trees import dataset_kwargs

SIZE = [40, 48]  # a list, as JSON gives it

every_id = pytest.mark.parametrize("env_id", rss_env.ENV_IDS)
WORLDS = [env_id for env_id in rss_env.ENV_IDS if "OutcomeReward" in env_id]  # tests/worlds says what else holds there
every_id_with_targets = pytest.mark.parametrize("env_id", [name for name in rss_env.ENV_IDS if name not in WORLDS])


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """(env_id) -> the arguments that make it from a tiny data set."""
    trees: dict[str, dict] = {}

    def of(env_id: str) -> dict[str, Any]:
        name = gym.spec(env_id).kwargs["dataset"]
        if name not in trees:
            trees[name] = dataset_kwargs(name, tmp_path_factory.mktemp(name))
        return {"image_size": SIZE, **trees[name]}

    return of


def random_maps(env: Any, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, env.action_space.nvec, dtype=np.int64)


def arrays(value: Any) -> Iterator[np.ndarray]:
    """Every array anywhere in an info, object arrays taken apart."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from arrays(inner)
    elif isinstance(value, np.ndarray) and value.dtype == object:
        for inner in value:
            yield from arrays(inner)
    elif isinstance(value, np.ndarray):
        yield value


def keys(info: dict[str, Any]) -> set[str]:
    inner = (keys(value) for value in info.values() if isinstance(value, dict))
    return set(info).union(*inner)


def assert_tells_no_target(info: dict[str, Any], targets: np.ndarray) -> None:
    """``targets``, (B, H, W), of the images that the info is about."""
    told = {"index", "scores", "pixel_reward", "final_obs", "final_info"}
    assert keys(info) <= told | {f"_{key}" for key in told}
    for array in arrays(info):
        for part in (array, *array):
            for target in targets:
                assert not np.array_equal(part, target)
                assert np.ndim(part) < 2 or not np.array_equal(np.asarray(part)[..., 0], target)


def test_the_registered_ids_are_those_of_the_package():
    assert {name for name in gym.registry if name.startswith("RSS-")} == set(rss_env.ENV_IDS)
    assert len(set(rss_env.ENV_IDS)) == len(rss_env.ENV_IDS)


def test_registering_again_changes_nothing():
    before = dict(gym.registry)
    rss_env.register()
    gym.register_envs(rss_env)
    assert gym.registry == before


@every_id
def test_gymnasiums_checker_finds_no_fault(env_id: str, options: Callable):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(env_id, **options(env_id)).unwrapped)


@every_id
def test_stable_baselines3s_checker_finds_no_fault(env_id: str, options: Callable):
    checker = pytest.importorskip("stable_baselines3.common.env_checker", reason="needs Stable-Baselines3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(FlattenAction(gym.make(env_id, **options(env_id))))


@every_id
def test_nothing_truncates(env_id: str, options: Callable):
    env = gym.make(env_id, **options(env_id))
    assert env.spec is not None
    assert env.spec.max_episode_steps is None
    assert not any("TimeLimit" in str(wrapper.name) for wrapper in env.spec.additional_wrappers)
    assert "TimeLimit" not in str(env)


@every_id
def test_the_spec_round_trips_through_json(env_id: str, options: Callable):
    given = {
        **options(env_id),
        "split": "val",
        "augment": "flip",
        "order": "sequential",
        "samples_per_image": 2,
        "expose_target": True,
        "render_mode": "rgb_array",
    }
    env = gym.make(env_id, **json.loads(json.dumps(given)))
    assert env.spec is not None
    again = EnvSpec.from_json(env.spec.to_json()).make()
    assert again.spec is not None
    assert again.spec.kwargs == env.spec.kwargs
    assert again.observation_space == env.observation_space
    assert again.action_space == env.action_space
    first, second = env.reset(seed=3), again.reset(seed=3)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1]["target"], second[1]["target"])
    maps = random_maps(env)
    assert env.step(maps)[1] == again.step(maps)[1]


@every_id
def test_make_vec_gives_the_native_vector_env_that_resets_in_the_same_step(env_id: str, options: Callable):
    envs = gym.make_vec(env_id, num_envs=3, **options(env_id))
    assert type(envs.unwrapped) is rss_env.SegmentationVectorEnv
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert envs.num_envs == 3
    images, _ = envs.reset(seed=0)
    assert images in envs.observation_space
    images, rewards, terminations, truncations, infos = envs.step(envs.action_space.sample())
    assert images in envs.observation_space
    assert terminations.tolist() == [True] * 3
    assert truncations.tolist() == [False] * 3
    assert (rewards.dtype, rewards.shape) == (np.float64, (3,))
    assert infos["_final_info"].tolist() == [True] * 3


def made_in_every_form(env_id: str, **given: Any) -> Iterator[tuple[gym.Env | VectorEnv, dict[str, Any]]]:
    """The environment, single and vector, plain and wrapped, with the metadata that only this form has."""
    mode = {"autoreset_mode": AutoresetMode.SAME_STEP}
    single, many = gym.make(env_id, **given), gym.make_vec(env_id, num_envs=2, **given)
    yield single, {}
    yield gym.wrappers.RecordEpisodeStatistics(FlattenAction(single)), {}
    yield many, mode
    yield gym.wrappers.vector.RecordEpisodeStatistics(twins.FlattenAction(many)), mode
    yield gym.vector.SyncVectorEnv([functools.partial(gym.make, env_id, **given)], autoreset_mode="SameStep"), mode
    if "PixelReward" not in env_id:
        yield CoarseAction(FeedbackReward(single, Stars(3)), 2), {"reward_stars": 3}
    if not is_installed("torch"):
        return
    on_device = gym.make_vec(env_id, num_envs=2, device="cpu", **given)
    yield on_device, mode | {"device": "cpu"}
    yield gym.wrappers.vector.TransformReward(twins.CoarseAction(on_device, 2), abs), mode | {"device": "cpu"}
    if "PixelReward" not in env_id:
        stars = twins.CoarseAction(twins.FeedbackReward(on_device, Stars(3)), 2)
        yield stars, mode | {"device": "cpu", "reward_stars": 3}
        yield twins.FeedbackReward(stars, "noise:0.1"), mode | {"device": "cpu"}  # these scores are no stars any more


@every_id
def test_metadata_is_all_that_an_agent_may_know(env_id: str, options: Callable):
    given = options(env_id) | {"split": "val"}
    data = load_dataset(gym.spec(env_id).kwargs["dataset"], **given)
    level = "pixel" if "PixelReward" in env_id else "image"
    expected = {
        "render_modes": ["rgb_array"],
        "render_fps": 4,
        "class_names": data.class_names,
        "palette": tuple(map(tuple, data.palette.tolist())),
        "num_images": len(data.images),
        "image_size": data.image_size,
        "resize": "pad",
        "samples_per_image": None,
        "expose_target": False,
        "augment": (),
        "crop_size": None,
        "has_targets": env_id not in WORLDS,
        "reward_level": level,
        "reward": None if env_id in WORLDS else {"image": "mean_iou", "pixel": "pixel_accuracy"}[level],
        "reward_options": {},
    }
    for env, own in made_in_every_form(env_id, **given):
        assert env.metadata == expected | own
        for twin in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
            assert twin.metadata == env.metadata


@every_id
def test_metadata_holds_the_arguments_given(env_id: str, options: Callable):
    chosen = {"resize": "crop", "samples_per_image": 2, "expose_target": True}
    if env_id not in WORLDS:
        chosen |= {"reward": "pixel_accuracy", "reward_options": {"class_weights": None}}
    for env, _ in made_in_every_form(env_id, **options(env_id) | chosen):
        assert {key: env.metadata[key] for key in chosen} == chosen


@every_id
def test_rewards_lie_between_0_and_1(env_id: str, options: Callable):
    env = gym.make(env_id, **options(env_id))
    env.reset(seed=0)
    for seed in range(8):
        reward = env.step(random_maps(env, seed))[1]
        assert type(reward) is float
        assert 0 <= reward < 1  # 1,920 random labels are not all right
        env.reset()


@every_id_with_targets
def test_the_target_itself_scores_exactly_1(env_id: str, options: Callable):
    env = gym.make(env_id, **options(env_id), split="val", order="sequential", expose_target=True)
    for _ in range(3):
        _, info = env.reset()
        target = info["target"]
        assert (target != IGNORE_INDEX).any()
        _, reward, _, _, info = env.step(np.where(target == IGNORE_INDEX, 0, target))
        assert reward == 1.0
        np.testing.assert_array_equal(info["target"], target)


@every_id_with_targets
def test_a_label_map_of_one_class_scores_what_the_formula_says(env_id: str, options: Callable):
    env = gym.make(env_id, **options(env_id), expose_target=True)
    _, info = env.reset(seed=1)
    counted = info["target"][info["target"] != IGNORE_INDEX]
    classes, counts = np.unique(counted, return_counts=True)
    constant = int(classes[np.argmax(counts)])
    reward = env.step(np.full(env.action_space.shape, constant))[1]
    share = counts.max() / counted.size
    expected = share / len(classes) if "ImageReward" in env_id else share
    assert reward == pytest.approx(expected, rel=1e-12)


@every_id
@pytest.mark.parametrize("samples", [None, 2])
def test_the_single_env_tells_nothing_that_holds_the_target(env_id: str, samples: int | None, options: Callable):
    env = gym.make(env_id, **options(env_id), samples_per_image=samples)
    data: Any = load_dataset(gym.spec(env_id).kwargs["dataset"], **options(env_id))
    for seed in range(4):
        _, info = env.reset(seed=seed)
        targets = data.targets[[info["index"]]]
        assert set(info) == {"index"}
        assert_tells_no_target(info, targets)
        info = env.step(np.zeros(env.action_space.shape, int))[4]
        assert_tells_no_target(info, targets)


@every_id
@pytest.mark.parametrize("mode", [mode.value for mode in AutoresetMode])
def test_the_vector_env_tells_nothing_that_holds_the_target(env_id: str, mode: str, options: Callable):
    envs = gym.make_vec(env_id, num_envs=3, autoreset_mode=mode, **options(env_id))
    targets: Any = load_dataset(gym.spec(env_id).kwargs["dataset"], **options(env_id)).targets
    _, infos = envs.reset(seed=0)
    assert_tells_no_target(infos, targets)
    infos = envs.step(np.zeros(envs.action_space.shape, int))[4]
    assert_tells_no_target(infos, targets)


@every_id
def test_pictures_show_the_target_only_if_it_is_exposed(env_id: str, options: Callable):
    given = options(env_id) | {"render_mode": "rgb_array"}
    data = load_dataset(gym.spec(env_id).kwargs["dataset"], **options(env_id))
    hidden, exposed = gym.make(env_id, **given), gym.make(env_id, **given, expose_target=True)
    many = gym.make_vec(env_id, num_envs=2, **given)
    (image, _), (_, info) = hidden.reset(seed=0), exposed.reset(seed=0)
    images, infos = many.reset(seed=0)
    target = info["target"]

    def picture(index: int, image: Any, label_map: Any, shown: Any, pixel_reward: Any = None) -> np.ndarray:
        """The picture that holds these panels and no other, with the classes of the environment."""
        palette, names, level = (hidden.metadata[key] for key in ("palette", "class_names", "reward_level"))
        outcome = rendering.outcome_panel(data.world, image, label_map, data.targets[index])
        return rendering.panels(
            image, label_map, shown, palette, names, level=level, pixel_reward=pixel_reward, outcome=outcome
        )

    index, indices = info["index"], infos["index"]
    np.testing.assert_array_equal(hidden.render(), picture(index, image, None, None))
    np.testing.assert_array_equal(exposed.render(), picture(index, image, None, target))
    for frame, number, shown in zip(many.render(), indices, images, strict=True):
        np.testing.assert_array_equal(frame, picture(number, shown, None, None))
    maps = random_maps(hidden)
    scored = hidden.step(maps)[4].get("pixel_reward")
    exposed.step(maps)
    details = many.step(np.stack([maps, maps]))[4]["final_info"]
    np.testing.assert_array_equal(hidden.render(), picture(index, image, maps, None, scored))
    np.testing.assert_array_equal(exposed.render(), picture(index, image, maps, target, scored))
    rewards = details.get("pixel_reward", [None, None])
    for frame, number, shown, reward in zip(many.render(), indices, images, rewards, strict=True):
        np.testing.assert_array_equal(frame, picture(number, shown, maps, None, reward))
