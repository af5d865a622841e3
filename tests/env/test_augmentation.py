"""Crops, scales and flips: what is shown is what ``info`` says of the stored image, in every kind of environment."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from rss_env import SegmentationEnv, SegmentationVectorEnv
from rss_env.augmentation import PADDING, Augmentation, read_augment
from rss_env.datasets import load_dataset
from rss_env.episodes import EpisodeStream
from rss_env.errors import OptionError
from rss_env.evaluation import evaluate
from rss_env.rewards import REWARDS
from tests.env.test_episodes import assert_uniform
from tests.env.test_vector_agreement import assert_same, random_maps

STORED, CROP = (20, 24), (12, 10)
SMALL: dict[str, Any] = {"image_size": STORED, "num_images": 5}
DATA = load_dataset("Shapes", **SMALL)
AUGMENTS = ("crop", "flip,crop", "flip,crop,scale")
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


def make(augment: str = "flip,crop", crop_size: tuple[int, int] = CROP, **options: Any) -> SegmentationEnv:
    return SegmentationEnv(**SMALL | {"augment": augment, "crop_size": crop_size, **options})


def part_of(stored: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    """The part of a stored image or target that ``info`` names."""
    top, left, height, width = info["crop"]
    return stored[top : top + height, left : left + width][:, :: -1 if info.get("flipped", False) else 1]


def resampled(stored: np.ndarray, info: dict[str, Any], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The scaled part of a stored image or target as SciPy gives it, float64, and where it lies in the image."""
    top, left, height, width = info["crop"]
    y = np.floor(256 * (top + (np.arange(size[0]) + 0.5) * height / size[0])) / 256 - 0.5
    x = np.floor(256 * (left + (np.arange(size[1]) + 0.5) * width / size[1])) / 256 - 0.5
    y, x = np.meshgrid(y, x[:: -1 if info["flipped"] else 1], indexing="ij")
    inside = (y >= -0.5) & (y < stored.shape[0] - 0.5) & (x >= -0.5) & (x < stored.shape[1] - 0.5)
    if stored.ndim == 2:
        rows, columns = (np.floor(axis + 0.5).astype(int).clip(0, None) for axis in (y, x))
        return stored[np.minimum(rows, stored.shape[0] - 1), np.minimum(columns, stored.shape[1] - 1)], inside
    channels = [map_coordinates(stored[..., c].astype(float), (y, x), order=1, mode="nearest") for c in range(3)]
    return np.stack(channels, -1), inside


@given(augment=st.sampled_from(AUGMENTS[:2]), seed=st.integers(0, 2**40), crop=sizes)
@settings(max_examples=40)
def test_the_crop_shown_is_that_part_of_the_stored_image_and_target(augment: str, seed: int, crop: tuple[int, int]):
    env = make(augment, crop, expose_target=True)
    image, info = env.reset(seed=seed)
    assert image.shape == (*crop, 3)
    assert info["crop"].dtype == np.int64
    np.testing.assert_array_equal(image, part_of(DATA.images[info["index"]], info))
    np.testing.assert_array_equal(info["target"], part_of(DATA.targets[info["index"]], info))
    last, reward, *_, after = env.step(np.minimum(info["target"], 4))
    assert reward == 1
    np.testing.assert_array_equal(last, image)
    np.testing.assert_array_equal(after["crop"], info["crop"])


@given(seed=st.integers(0, 2**40), crop=sizes, low=st.floats(1 / 16, 16), share=st.floats(0, 1))
@settings(max_examples=60)
def test_a_scaled_crop_is_the_interpolated_image_and_the_nearest_target(
    seed: int, crop: tuple[int, int], low: float, share: float
):
    high = low * (16 / low) ** share
    env = make("flip,scale,crop", crop, scale_range=(low, high), expose_target=True)
    image, info = env.reset(seed=seed)
    factor = np.array(crop) / info["crop"][2:]
    assert factor[0] == factor[1]
    assert low * (1 - factor[0] / 500) <= factor[0] <= high * (1 + factor[0] / 500)  # in steps of 1/256 pixel
    expected, inside = resampled(DATA.images[info["index"]], info, crop)
    np.testing.assert_allclose(image[inside], expected[inside], rtol=0, atol=0.5 + 1e-9)
    np.testing.assert_array_equal(image[~inside], np.broadcast_to(PADDING, (*crop, 3))[~inside])
    labels, _ = resampled(DATA.targets[info["index"]], info, crop)
    np.testing.assert_array_equal(info["target"], np.where(inside, labels, 255))


def test_a_factor_of_1_shows_the_stored_pixels_when_it_meets_them():
    env = make("crop,scale", STORED, scale_range=(1, 1), expose_target=True)
    image, info = env.reset(seed=0)
    assert info["crop"].tolist() == [0.0, 0.0, *STORED]
    np.testing.assert_array_equal(image, DATA.images[info["index"]])
    np.testing.assert_array_equal(info["target"], DATA.targets[info["index"]])


@pytest.mark.parametrize(("scale", "bounds"), [(0.5, (-1, 0)), (2.0, (0, 1))])
def test_a_scaled_image_lies_anywhere_in_its_crop_or_the_crop_anywhere_in_it(scale: float, bounds: tuple[int, int]):
    augmentation = Augmentation("crop,scale", (8, 8), (8, 8), (scale, scale))
    bits = np.random.default_rng(0).integers(0, 2**64, 4000, dtype=np.uint64)
    crops = augmentation.draw(np.zeros(4000, np.int64), np.zeros(4000, bool), bits).crops
    room = abs(8 - 8 / scale)
    for places in crops.T[:2]:
        assert (bounds[0] * room <= places).all()
        assert (places <= bounds[1] * room).all()
        assert_uniform(np.histogram(places, 10, (bounds[0] * room, bounds[1] * room + 1e-9))[0])


def test_the_logarithm_of_the_factor_is_uniform_and_has_nothing_to_do_with_the_place():
    augmentation = Augmentation("crop,scale", (64, 64), (64, 64))
    bits = np.random.default_rng(1).integers(0, 2**64, 20_000, dtype=np.uint64)
    top, left, side, _ = augmentation.draw(np.zeros(20_000, np.int64), np.zeros(20_000, bool), bits).crops.T
    logarithm, room = np.log2(64 / side), 64 - side
    assert_uniform(np.histogram(logarithm, 8, (-1.0001, 1.0001))[0])
    for part in (logarithm < -0.2, logarithm > 0.2):  # where there is room for several places
        columns = [
            values[part] for values in (logarithm, top / np.where(room, room, 1), left / np.where(room, room, 1))
        ]
        bounds = [(columns[0].min(), columns[0].max() + 1e-9), (0, 1 + 1e-9), (0, 1 + 1e-9)]
        assert_uniform(np.histogramdd(columns, (2, 4, 4), bounds)[0].ravel())


def test_every_crop_of_every_image_is_equally_likely_flipped_or_not():
    augmentation, stream = Augmentation("flip,crop", (4, 5), (3, 3)), EpisodeStream("random", 3, num_envs=100)
    stream.restart(np.arange(100, dtype=np.uint64))
    counts = np.zeros((3, 2, 2, 3), int)
    for _ in range(200):
        view = augmentation.draw(*stream.draw())
        np.add.at(counts, (view.indices, view.flipped.astype(int), view.crops[:, 0], view.crops[:, 1]), 1)
    assert_uniform(counts.ravel())


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
def test_the_vector_environment_agrees_with_single_ones(augment: str, mode: str):
    options = {"augment": augment, "crop_size": CROP, "expose_target": True, "samples_per_image": 2, **SMALL}
    native = SegmentationVectorEnv(num_envs=3, autoreset_mode=mode, **options)
    reference = SyncVectorEnv([lambda: SegmentationEnv(**options)] * 3, autoreset_mode=mode)
    assert native.metadata == reference.metadata
    rng = np.random.default_rng(0)
    assert_same(native.reset(seed=4), reference.reset(seed=4))
    for call in ({"index": 2}, {"episode": 7}, None, None):
        actions = random_maps(rng, native)
        assert_same(native.step(actions), reference.step(actions))
        if mode == "Disabled" or call is not None:
            assert_same(native.reset(options=call), reference.reset(options=call))


@pytest.mark.parametrize("reward", list(REWARDS))
def test_a_crop_is_scored_as_an_image_of_its_own(reward: str):
    env = make("flip,crop", reward=reward, expose_target=True)
    score = env._task.reward
    for seed in range(4):
        _, info = env.reset(seed=seed)
        label_map = np.random.default_rng(seed).integers(0, 5, CROP).astype(np.uint8)
        got = env.step(label_map)[1]
        whole = SegmentationEnv(**SMALL | {"image_size": CROP}, reward=reward)._task
        counted = whole._grade_against(label_map[None, None], info["target"][None], None)[0]
        assert got == counted[0, 0], score


@pytest.mark.parametrize("augment", AUGMENTS)
def test_seeds_and_episodes_give_the_same_crops_again(augment: str):
    env, jumped = make(augment), make(augment)
    shown = [env.reset(seed=3 if t == 0 else None) for t in range(6)]
    jumped.reset(seed=3)
    for t in (4, 0, 5, 1):
        image, info = jumped.reset(options={"episode": t})
        np.testing.assert_array_equal(image, shown[t][0])
        np.testing.assert_array_equal(info["crop"], shown[t][1]["crop"])
    assert len({tuple(info["crop"]) for _, info in shown}) > 3


@pytest.mark.parametrize("augment", AUGMENTS)
def test_an_image_asked_for_by_index_is_shown_in_its_middle(augment: str):
    env = make(augment)
    env.reset(seed=0)
    image, info = env.reset(options={"index": 3})
    assert info["crop"].tolist() == [4, 7, *CROP]
    assert not info.get("flipped", False)
    np.testing.assert_array_equal(image, DATA.images[3, 4:16, 7:17])


def test_crops_leave_the_order_of_images_and_flips_as_it_is():
    plain, cropped = make("flip", None), make("flip,crop")  # type: ignore[arg-type]
    for seed in range(20):
        (_, before), (_, after) = plain.reset(seed=seed), cropped.reset(seed=seed)
        assert (before["index"], before["flipped"]) == (after["index"], after["flipped"])


@pytest.mark.parametrize("augment", AUGMENTS)
def test_the_environments_pass_gymnasiums_check(augment: str):
    env = gym.make("RSS-Shapes-ImageReward-v0", augment=augment, crop_size=CROP, **SMALL)
    check_env(env.unwrapped, skip_render_check=True)
    assert env.action_space.shape == CROP
    assert env.metadata["image_size"] == STORED
    assert env.metadata["crop_size"] == CROP
    assert env.metadata["augment"] == read_augment(augment)


def test_a_picture_of_a_crop_has_its_target():
    env = make("flip,crop", crop_size=(16, 20), render_mode="rgb_array", expose_target=True)
    env.reset(seed=0)
    env.step(np.zeros((16, 20), int))
    assert env.render() is not None


def test_evaluation_shows_whole_images():
    sizes = set()

    def predict(images: np.ndarray) -> np.ndarray:
        sizes.add(images.shape[1:3])
        return np.zeros(images.shape[:3], np.uint8)

    options = {"augment": "flip,crop", "crop_size": CROP}
    result = evaluate(predict, "RSS-Shapes-ImageReward-v0", **SMALL | options)
    assert result == evaluate(predict, "RSS-Shapes-ImageReward-v0", **SMALL)
    assert sizes == {STORED}


@pytest.mark.parametrize("given", ["flip,crop", "crop, flip", ("flip", "crop"), ["crop", "flip"]])
def test_a_combination_may_be_written_in_several_ways(given: Any):
    assert read_augment(given) == ("flip", "crop")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"augment": "none,flip"}, "Unknown augment 'none,flip'; valid: none, flip, crop, scale and combinations such"),
        ({"augment": ("flip", 1)}, "Unknown augment ('flip', 1); valid: "),
        ({"augment": "flip,flip"}, "Unknown augment 'flip,flip'; valid: "),
        ({"augment": "crop"}, "augment='crop' needs crop_size=(H, W), the size of what is shown."),
        ({"augment": "flip,scale"}, "augment='scale' needs 'crop' as well, as scaled images have no common size."),
        ({"crop_size": (8, 8)}, "crop_size=(8, 8) is for augment='crop'; leave it out, or add 'crop' to augment."),
        ({"augment": "crop", "crop_size": (21, 8)}, "crop_size (21, 8) must fit into the image_size, (20, 24)."),
        ({"augment": "crop", "crop_size": (8, 25)}, "crop_size (8, 25) must fit into the image_size, (20, 24)."),
        *(
            ({"augment": "crop", "crop_size": size}, f"crop_size must be two positive integers (H, W), got {size!r}.")
            for size in ((0, 8), (8,), 8, "8,8", (8.0, 8))
        ),
        *(
            ({"scale_range": size}, "scale_range must be two factors, the least and the greatest, from 1/16 to 16, got")
            for size in ((2, 1), (0, 1), (1, 17), (1,), 1.0, "12", (float("nan"), 1), (True, 2), None)
        ),
    ],
)
@pytest.mark.parametrize("kind", [SegmentationEnv, SegmentationVectorEnv])
def test_what_does_not_fit_together_is_one_clear_line(kind: Any, wrong: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=re.escape(message)) as caught:
        kind(**SMALL | wrong)
    assert "\n" not in str(caught.value)
