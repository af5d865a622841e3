"""The single environment: its episode, its reset options, its rewards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from sklearn.metrics import accuracy_score, jaccard_score

from rss_env import SegmentationEnv
from rss_env.datasets import IGNORE_INDEX
from rss_env.errors import OptionError
from tests.trees import dataset_kwargs

HEIGHT, WIDTH, IMAGES = 40, 48, 16
MAP = (HEIGHT, WIDTH)


def make(level: str = "image", **options: Any) -> SegmentationEnv:
    return SegmentationEnv("Shapes", level, image_size=MAP, num_images=IMAGES, **options)


def with_borders(folder: Any, level: str, **options: Any) -> SegmentationEnv:
    """An environment whose targets have ignored pixels."""
    return SegmentationEnv("VOC", level, image_size=MAP, expose_target=True, **dataset_kwargs("VOC", folder), **options)


def random_map(env: SegmentationEnv, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, env.action_space.nvec)


def shown(env: SegmentationEnv, episodes: int, **reset: Any) -> list[int]:
    """The indices of the next episodes' images."""
    first = env.reset(**reset)[1]["index"]
    return [first] + [env.reset()[1]["index"] for _ in range(episodes - 1)]


def test_an_episode_ends_with_its_only_step():
    env = make()
    image, info = env.reset(seed=0)
    assert (image.shape, image.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    assert info == {"index": info["index"]}
    assert type(info["index"]) is int
    last, reward, terminated, truncated, step_info = env.step(random_map(env))
    assert terminated is True
    assert truncated is False
    assert type(reward) is float
    assert step_info == info
    np.testing.assert_array_equal(last, image)


def test_the_observation_is_the_image_that_info_names():
    env = make(split="val")
    for seed in range(5):
        image, info = env.reset(seed=seed)
        np.testing.assert_array_equal(image, env._task.dataset.images[info["index"]])


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_observations_are_the_callers_own(augment: str):
    env = make(augment=augment)
    for _ in range(4):
        first, _ = env.reset()
        before = first.copy()
        last = env.step(random_map(env))[0]
        np.testing.assert_array_equal(last, first)
        assert not np.shares_memory(first, last)
        assert not np.shares_memory(first, env._task.dataset.images)
        assert not np.shares_memory(last, env._task.dataset.images)
        last[:] = 0
        np.testing.assert_array_equal(first, before)


def test_exposed_targets_are_the_callers_own():
    env = make(expose_target=True)
    _, info = env.reset(seed=0)
    kept = info["target"].copy()
    info["target"][:] = 0
    step_info = env.step(random_map(env))[4]
    np.testing.assert_array_equal(step_info["target"], kept)
    np.testing.assert_array_equal(kept, env._task.dataset.targets[info["index"]])


def test_stepping_before_the_first_reset_is_an_error():
    env = make()
    with pytest.raises(ResetNeeded, match=r"call reset\(\) before each step\(\)"):
        env.step(random_map(env))


def test_stepping_after_the_end_is_an_error_until_the_next_reset():
    env = make()
    env.reset(seed=0)
    env.step(random_map(env))
    for _ in range(2):
        with pytest.raises(ResetNeeded, match=r"call reset\(\) before each step\(\)"):
            env.step(random_map(env))
    assert env.reward_queries == 1
    env.reset()
    env.step(random_map(env))
    assert env.reward_queries == 2


# Rewards


def test_the_image_reward_is_the_mean_iou_of_the_counted_pixels(tmp_path: Any):
    env = with_borders(tmp_path, "image")
    for seed in range(5):
        _, info = env.reset(seed=seed)
        label_map = random_map(env, seed)
        counted = info["target"] != IGNORE_INDEX
        assert not counted.all()
        expected = jaccard_score(info["target"][counted], label_map[counted], average="macro")
        assert env.step(label_map)[1] == pytest.approx(expected, rel=1e-12)


def test_pixel_accuracy_may_be_the_image_reward(tmp_path: Any):
    env = with_borders(tmp_path, "image", reward="pixel_accuracy")
    _, info = env.reset(seed=0)
    label_map = random_map(env)
    counted = info["target"] != IGNORE_INDEX
    _, reward, _, _, info = env.step(label_map)
    assert reward == accuracy_score(info["target"][counted], label_map[counted])
    assert "pixel_reward" not in info


def test_the_pixel_reward_is_1_where_the_class_is_right_and_0_elsewhere(tmp_path: Any):
    env = with_borders(tmp_path, "pixel")
    for seed in range(5):
        _, info = env.reset(seed=seed)
        target = info["target"]
        label_map = np.where(np.random.default_rng(seed).random(MAP) < 0.5, target, random_map(env, seed)) % 21
        _, reward, _, _, info = env.step(label_map)
        pixels = info["pixel_reward"]
        assert (pixels.shape, pixels.dtype) == (MAP, np.float32)
        np.testing.assert_array_equal(pixels, (label_map == target).astype(np.float32))
        counted = target != IGNORE_INDEX
        assert not pixels[~counted].any()
        assert 0.25 < reward < 1
        assert reward == pixels[counted].mean(dtype=np.float64)


@pytest.mark.parametrize("level", ["image", "pixel"])
@pytest.mark.parametrize("samples", [1, 3])
def test_k_samples_score_as_k_single_label_maps(level: str, samples: int, tmp_path: Any):
    many = with_borders(tmp_path, level, samples_per_image=samples)
    one = with_borders(tmp_path, level)
    assert many.action_space.shape == (samples, *MAP)
    assert many.action_space.nvec.tolist() == np.full((samples, *MAP), 21).tolist()
    many.reset(seed=4)
    maps = random_map(many)
    _, reward, _, _, info = many.step(maps)
    expected, pixels = [], []
    for label_map in maps:
        one.reset(seed=4)
        _, score, _, _, single = one.step(label_map)
        expected.append(score)
        pixels.append(single.get("pixel_reward"))
    assert (info["scores"].shape, info["scores"].dtype) == ((samples,), np.float64)
    assert info["scores"].tolist() == expected
    assert reward == info["scores"].mean()
    assert ("pixel_reward" in info) == (level == "pixel")
    if level == "pixel":
        assert info["pixel_reward"].dtype == np.float32
        np.testing.assert_array_equal(info["pixel_reward"], np.stack(pixels))


def test_details_are_the_callers_own():
    env = make("pixel", samples_per_image=2)
    env.reset(seed=0)
    maps = random_map(env)
    info = env.step(maps)[4]
    kept = {key: info[key].copy() for key in ("scores", "pixel_reward")}
    env.reset(seed=0)
    env.step(1 - np.minimum(maps, 1))
    for key, value in kept.items():
        np.testing.assert_array_equal(info[key], value)


@pytest.mark.parametrize(("samples", "per_step"), [(None, 1), (1, 1), (5, 5)])
def test_reward_queries_count_the_label_maps_scored(samples: int | None, per_step: int):
    env = make(samples_per_image=samples)
    assert env.reward_queries == 0
    for step in range(1, 4):
        env.reset(seed=0)
        env.step(random_map(env))
        assert env.reward_queries == step * per_step


def test_the_action_is_not_changed_by_the_step():
    env = make()
    env.reset(seed=0)
    action = random_map(env).astype(np.uint8)
    before = action.copy()
    env.step(action)
    np.testing.assert_array_equal(action, before)


# Which image


def test_sequential_order_starts_at_0_and_wraps():
    assert shown(make(order="sequential"), 2 * IMAGES + 3) == [*range(IMAGES), *range(IMAGES), 0, 1, 2]


def test_a_seed_starts_the_sequential_order_anew():
    env = make(order="sequential")
    shown(env, 5)
    assert shown(env, 3, seed=7) == [0, 1, 2]


def test_the_same_seed_shows_the_same_images():
    assert shown(make(), 40, seed=5) == shown(make(), 40, seed=5)
    env = make()
    shown(env, 7)
    assert shown(env, 40, seed=5) == shown(make(), 40, seed=5)


def test_different_seeds_show_different_images():
    orders = {tuple(shown(make(), 40, seed=seed)) for seed in range(20)}
    assert len(orders) == 20


def test_without_a_seed_two_environments_differ():
    # 40 independent draws out of 16 images agree by chance with probability 16**-40
    assert shown(make(), 40) != shown(make(), 40)


def test_the_order_goes_on_when_reset_again_without_a_seed():
    env = make()
    whole = shown(env, 6, seed=2)
    again = make()
    first = again.reset(seed=2)[1]["index"]
    again.step(random_map(again))
    assert [first, *shown(again, 5)] == whole


def test_scores_and_actions_do_not_change_the_order():
    left, right = make(), make()
    orders: list[list[int]] = [[], []]
    for order, env in zip(orders, (left, right), strict=True):
        env.reset(seed=3)
        for step in range(10):
            if env is right or step % 3:
                env.step(random_map(env, seed=step + 100 * (env is right)))
            order.append(env.reset()[1]["index"])
    assert orders[0] == orders[1]


@pytest.mark.parametrize("order", ["random", "sequential"])
def test_the_index_option_shows_that_image_and_the_order_goes_on_afterwards(order: str):
    plain = shown(make(order=order), 6, seed=1)
    env = make(order=order)
    seen = [env.reset(seed=1)[1]["index"], env.reset()[1]["index"]]
    for index in (0, IMAGES - 1, np.int64(7), np.array(3, np.uint8)):
        image, info = env.reset(options={"index": index})
        assert info["index"] == index
        assert type(info["index"]) is int
        np.testing.assert_array_equal(image, env._task.dataset.images[int(index)])
    seen += [env.reset()[1]["index"] for _ in range(4)]
    assert seen == plain


def test_a_seed_together_with_the_index_option_starts_the_order_anew():
    env = make()
    shown(env, 3, seed=9)
    assert env.reset(seed=1, options={"index": 4})[1]["index"] == 4
    assert shown(env, 5) == shown(make(), 5, seed=1)


@pytest.mark.parametrize("order", ["random", "sequential"])
@pytest.mark.parametrize("start", [0, 1, 17, np.int64(25)])
def test_jumping_to_an_episode_is_the_same_as_getting_there_step_by_step(order: str, start: int):
    env = make(order=order, augment="flip")
    env.reset(seed=6)
    walked = [env.reset(seed=6), *(env.reset() for _ in range(29))]
    jumped = [env.reset(options={"episode": start}), *(env.reset() for _ in range(29 - int(start)))]
    assert len(jumped) == 30 - int(start)
    for (image, info), (image_again, info_again) in zip(walked[int(start) :], jumped, strict=True):
        assert info == info_again
        np.testing.assert_array_equal(image, image_again)
    fresh, info = make(order=order, augment="flip").reset(seed=6, options={"episode": start})
    assert info == walked[int(start)][1]
    np.testing.assert_array_equal(fresh, walked[int(start)][0])


@pytest.mark.parametrize("order", ["random", "sequential", "epochs"])
def test_only_some_images_are_shown_until_a_seed_or_another_number(order: str):
    env = make(order=order)

    def shown() -> set[int]:
        return {env.reset()[1]["index"] for _ in range(200)}

    env.reset(seed=1)
    assert shown() == set(range(IMAGES))
    assert env.reset(options={"images": np.int64(4)})[1]["index"] in (0, 4, 8, 12)
    assert shown() == {0, 4, 8, 12}
    assert env.reset(options={"index": 3})[1]["index"] == 3
    assert shown() == {0, 4, 8, 12}
    env.reset(options={"images": 5})
    assert shown() == {0, 2, 4, 8, 12}
    env.reset(seed=2, options={"images": 2})
    assert shown() == {0, 8}
    env.reset(seed=2)
    assert shown() == set(range(IMAGES))


def test_very_late_episodes_exist():
    env = make(order="sequential")
    assert env.reset(options={"episode": 2**63 - 1})[1]["index"] == (2**63 - 1) % IMAGES
    assert env.reset()[1]["index"] == 2**63 % IMAGES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": -1}, r"needs integers from 0 to 15, got -1"),
        ({"index": IMAGES}, r"needs integers from 0 to 15, got 16"),
        ({"index": 2**70}, r"needs integers from 0 to 15"),
        ({"index": 1.0}, r"needs integers from 0 to 15, got 1\.0"),
        ({"index": True}, r"needs integers from 0 to 15, got True"),
        ({"index": "1"}, r"needs integers from 0 to 15, got '1'"),
        ({"index": None}, r"needs integers from 0 to 15, got None"),
        ({"index": [1]}, r"needs one integer, got \[1\]"),
        ({"index": []}, r"'index'"),
        ({"episode": -1}, r"'episode': t.* needs an integer from 0 to 2\*\*63 - 1, got -1"),
        ({"episode": 2**63}, r"'episode': t.* needs an integer from 0"),
        ({"episode": 0.0}, r"'episode': t.* got 0\.0"),
        ({"episode": True}, r"'episode': t.* got True"),
        ({"episode": [0]}, r"'episode': t.* got \[0\]"),
        ({"images": 0}, r"'images': n.* needs an integer from 1 to 16, got 0"),
        ({"images": IMAGES + 1}, r"'images': n.* needs an integer from 1 to 16, got 17"),
        ({"images": 2.0}, r"'images': n.* got 2\.0"),
        ({"images": True}, r"'images': n.* got True"),
        ({"images": None}, r"'images': n.* got None"),
        ({"idx": 0}, r"Unknown reset option 'idx'; valid: index, episode, images"),
        ({"reset_mask": np.array([True])}, r"Unknown reset option 'reset_mask'; valid: index, episode, images"),
    ],
)
def test_a_wrong_reset_option_is_an_error_that_changes_nothing(options: dict, message: str):
    env, twin = make(), make()
    image, _ = env.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(OptionError, match=message):
        env.reset(seed=1, options=options)
    assert env.np_random_seed == 0
    last, reward, *_ = env.step(random_map(env))
    np.testing.assert_array_equal(last, image)
    assert reward == twin.step(random_map(env))[1]
    assert shown(env, 10) == shown(twin, 10)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True, float("nan"), [1]])
def test_a_seed_must_be_an_integer_of_at_least_0(seed: Any):
    with pytest.raises(OptionError, match="seed must be None or an integer of at least 0, got "):
        make().reset(seed=seed)


def test_a_seed_may_have_any_number_of_digits():
    seed = 12345678901234567890123
    assert shown(make(), 20, seed=seed) == shown(make(), 20, seed=seed) != shown(make(), 20, seed=seed + 1)


# Flips


def test_flip_mirrors_image_and_target_together_in_about_half_of_the_episodes():
    env = make(augment="flip", expose_target=True)
    data = env._task.dataset
    episodes, mirrored = 400, 0
    for episode in range(episodes):
        image, info = env.reset(seed=0) if episode == 0 else env.reset()
        flipped = not np.array_equal(image, data.images[info["index"]])
        step = -1 if flipped else 1
        np.testing.assert_array_equal(image, data.images[info["index"]][:, ::step])
        np.testing.assert_array_equal(info["target"], data.targets[info["index"]][:, ::step])
        mirrored += flipped
    assert abs(mirrored - episodes / 2) < 6 * np.sqrt(episodes / 4)  # six standard deviations: 2e-9 by chance


def test_a_flipped_episode_scores_the_mirrored_target():
    env = make(augment="flip", expose_target=True)
    seen = set()
    for seed in range(64):
        image, info = env.reset(seed=seed)
        target = env._task.dataset.targets[info["index"]]
        flipped = not np.array_equal(image, env._task.dataset.images[info["index"]])
        seen.add(flipped)
        last, reward, _, _, step_info = env.step(target[:, ::-1] if flipped else target)
        assert reward == 1.0
        np.testing.assert_array_equal(last, image)
        np.testing.assert_array_equal(step_info["target"], info["target"])
    assert seen == {True, False}


def test_an_image_asked_for_by_index_is_never_flipped():
    env = make(augment="flip", expose_target=True)
    for _ in range(3):
        for index in range(IMAGES):
            image, info = env.reset(options={"index": index})
            np.testing.assert_array_equal(image, env._task.dataset.images[index])
            np.testing.assert_array_equal(info["target"], env._task.dataset.targets[index])
            env.reset()


def test_without_augmentation_nothing_is_flipped():
    env = make()
    for seed in range(32):
        image, info = env.reset(seed=seed)
        np.testing.assert_array_equal(image, env._task.dataset.images[info["index"]])
