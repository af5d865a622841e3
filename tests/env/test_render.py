"""What an environment's picture shows before and after the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import AddRenderObservation, RenderCollection

from rss_env import SegmentationEnv, SegmentationVectorEnv
from rss_env.datasets import IGNORE_INDEX
from rss_env.rendering import BLANK, IGNORED_COLOUR, RIGHT, WRONG
from tests.trees import dataset_kwargs

MAP = (40, 48)
SCALE = 5  # the smallest whole factor that makes 48 columns at least 240
GAP = 12  # between panels and around them; the titles take 18 rows more


def panels(frame: np.ndarray) -> list[np.ndarray]:
    """The panels of a picture at the size of the image, the white gaps between them checked and left out."""
    row = frame[GAP + 18 : GAP + 18 + MAP[0] * SCALE]
    count, rest = divmod(row.shape[1] - GAP, MAP[1] * SCALE + GAP)
    assert rest == 0
    parts = []
    for i in range(count):
        gap, enlarged = np.split(row[:, i * (MAP[1] * SCALE + GAP) :][:, : MAP[1] * SCALE + GAP], [GAP], axis=1)
        assert (gap == 255).all()
        parts.append(enlarged[::SCALE, ::SCALE])
        np.testing.assert_array_equal(parts[-1].repeat(SCALE, axis=0).repeat(SCALE, axis=1), enlarged)
    return parts


def coloured(labels: np.ndarray, palette: Sequence) -> np.ndarray:
    """Pixel by pixel, as slowly and plainly as can be."""
    picture = np.empty((*labels.shape, 3), np.uint8)
    for y, x in np.ndindex(labels.shape):
        picture[y, x] = IGNORED_COLOUR if labels[y, x] == IGNORE_INDEX else palette[labels[y, x]]
    return picture


def make(kind: Any = SegmentationEnv, **options: Any) -> Any:
    return kind("Shapes", image_size=MAP, num_images=8, render_mode="rgb_array", **options)


def test_the_label_map_is_blank_before_the_step_and_the_pictures_size_never_changes():
    env = make()
    image, _ = env.reset(seed=0)
    before = env.render()
    assert before.dtype == np.uint8
    shown, blank = panels(before)
    np.testing.assert_array_equal(shown, image)
    assert (blank == BLANK).all()

    label_map = np.random.default_rng(0).integers(0, 5, MAP)
    env.step(label_map)
    after = env.render()
    assert after.shape == before.shape
    shown, drawn = panels(after)
    np.testing.assert_array_equal(shown, image)
    np.testing.assert_array_equal(drawn, coloured(label_map, env.metadata["palette"]))

    env.reset()
    assert (panels(env.render())[1] == BLANK).all()


def test_an_exposed_target_is_the_third_panel_and_the_fourth_tells_right_from_wrong(tmp_path: Any):
    env = SegmentationEnv(
        "VOC", image_size=MAP, render_mode="rgb_array", expose_target=True, **dataset_kwargs("VOC", tmp_path)
    )
    image, info = env.reset(seed=0)
    assert (info["target"] == IGNORE_INDEX).any()
    frames = [env.render()]
    label_map = np.where(np.arange(MAP[1]) < 20, info["target"] % 21, 20)
    env.step(label_map)
    frames.append(env.render())
    assert frames[0].shape == frames[1].shape
    scored = []
    for frame in frames:
        shown, _, target, right = panels(frame)
        np.testing.assert_array_equal(shown, image)
        np.testing.assert_array_equal(target, coloured(info["target"], env.metadata["palette"]))
        scored.append(right)
    assert (scored[0] == BLANK).all()
    expected = np.where(label_map == info["target"], 1, 0).astype(np.uint8)
    expected[info["target"] == IGNORE_INDEX] = IGNORE_INDEX
    assert set(np.unique(expected)) == {0, 1, IGNORE_INDEX}
    np.testing.assert_array_equal(scored[1], coloured(expected, np.array([WRONG, RIGHT], np.uint8)))


def test_at_pixel_level_the_pixel_reward_is_the_last_panel_without_the_target():
    for samples in (None, 3):
        env = make(level="pixel", samples_per_image=samples)
        env.reset(seed=0)
        before = env.render()
        assert (panels(before)[2] == BLANK).all()
        info = env.step(np.random.default_rng(0).integers(0, 5, env.action_space.shape))[4]
        after = env.render()
        assert after.shape == before.shape
        _, _, scored = panels(after)
        reward = info["pixel_reward"] if samples is None else info["pixel_reward"][0]
        np.testing.assert_array_equal(scored, coloured(reward.astype(np.uint8), np.array([WRONG, RIGHT], np.uint8)))
        env.reset()
        assert (panels(env.render())[2] == BLANK).all()


def test_pixel_rewards_above_1_are_drawn():
    env = make(level="pixel", reward_options={"class_weights": [1, 9, 1, 1, 1]}, expose_target=True)
    _, info = env.reset(seed=0)
    reward = env.step(info["target"])[4]["pixel_reward"]
    assert reward.max() > 1
    assert (panels(env.render())[3][reward == reward.max()] == RIGHT).all()


def test_flipped_episodes_are_drawn_flipped():
    env = make(augment="flip", expose_target=True)
    seen = set()
    for seed in range(64):
        image, info = env.reset(seed=seed)
        seen.add(np.array_equal(image, env._task.dataset.images[info["index"]]))
        shown, _, target, _ = panels(env.render())
        np.testing.assert_array_equal(shown, image)
        np.testing.assert_array_equal(target, coloured(info["target"], env.metadata["palette"]))
    assert seen == {True, False}


def test_of_k_samples_the_first_is_drawn():
    env = make(samples_per_image=3)
    env.reset(seed=0)
    maps = np.random.default_rng(0).integers(0, 5, (3, *MAP))
    env.step(maps)
    np.testing.assert_array_equal(panels(env.render())[1], coloured(maps[0], env.metadata["palette"]))


def test_the_picture_keeps_the_label_map_that_was_scored():
    env = make()
    env.reset(seed=0)
    label_map = np.ones(MAP, np.uint8)
    env.step(label_map)
    label_map[:] = 2
    assert (panels(env.render())[1] == env.metadata["palette"][1]).all()

    envs = make(SegmentationVectorEnv, num_envs=2)
    envs.reset(seed=0)
    label_maps = np.ones((2, *MAP), np.uint8)
    envs.step(label_maps)
    label_maps[:] = 2
    for frame in envs.render():
        assert (panels(frame)[1] == env.metadata["palette"][1]).all()


def test_rendering_changes_nothing():
    plain, drawn = make(), make()
    action = np.zeros(MAP, int)
    for env in (plain, drawn):
        env.reset(seed=0)
    for _ in range(5):
        drawn.render()
        assert plain.step(action)[1] == drawn.step(action)[1]
        drawn.render()
        (left, _), (right, _) = plain.reset(), drawn.reset()
        np.testing.assert_array_equal(left, right)


def test_rendering_without_a_render_mode_warns_and_gives_nothing():
    env = SegmentationEnv(image_size=MAP, num_images=4)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode='rgb_array'"):
        assert env.render() is None
    envs = SegmentationVectorEnv(num_envs=2, image_size=MAP, num_images=4)
    envs.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode='rgb_array'"):
        assert envs.render() is None


def test_gymnasium_renders_an_environment_made_by_id():
    env = gym.make("RSS-Shapes-PixelReward-v0", image_size=MAP, num_images=4, render_mode="rgb_array")
    env.reset(seed=0)
    assert len(panels(env.render())) == 3
    assert env.metadata["render_modes"] == ["rgb_array"]


def test_gymnasium_collects_frames_of_one_size_over_episodes_of_different_images(tmp_path: Any):
    options = dataset_kwargs("VOC", tmp_path) | {"image_size": MAP, "expose_target": True, "render_mode": "rgb_array"}
    env = RenderCollection(gym.make("RSS-VOC-ImageReward-v0", **options))
    for seed in range(6):
        env.reset(seed=seed)
        env.step(env.action_space.sample())
    frames = env.render()
    assert isinstance(frames, list)
    assert len(frames) == 2  # one before and one after the step of the last episode
    env = RenderCollection(gym.make("RSS-VOC-ImageReward-v0", **options), reset_clean=False)
    for seed in range(6):
        env.reset(seed=seed)
        env.step(env.action_space.sample())
    frames = env.render()
    assert isinstance(frames, list)
    assert len(frames) == 12
    (shape,) = {frame.shape for frame in frames}
    assert shape[0] % 2 == shape[1] % 2 == 0  # video codecs want even sides


def test_a_frame_can_be_the_observation():
    env = AddRenderObservation(make())
    assert env.observation_space.contains(env.reset(seed=0)[0])
    assert env.observation_space.contains(env.step(np.zeros(MAP, int))[0])


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
@pytest.mark.parametrize(
    "options", [{"augment": "flip", "expose_target": True}, {"level": "pixel"}], ids=["target", "pixel level"]
)
def test_the_vector_envs_pictures_are_those_of_the_single_env(mode: str, options: dict[str, Any]):
    envs = make(SegmentationVectorEnv, num_envs=3, autoreset_mode=mode, **options)
    singles = [make(**options) for _ in range(3)]
    envs.reset(seed=0)
    for b, env in enumerate(singles):
        env.reset(seed=b)
    rng = np.random.default_rng(0)
    for _ in range(4):
        if mode != "SameStep":  # there the picture stays on the episode that has ended, until the next reset or step
            _assert_same_pictures(envs, singles)
        maps = rng.integers(0, 5, (3, *MAP))
        envs.step(maps)
        for env, label_map in zip(singles, maps, strict=True):
            env.step(label_map)
        _assert_same_pictures(envs, singles)
        if mode == "NextStep":
            envs.step(maps)
        elif mode == "Disabled":
            envs.reset()
        for env in singles:
            env.reset()
    if mode == "SameStep":
        envs.reset()
        for env in singles:  # the reset skips the episode that the last step had begun
            env.reset()
    _assert_same_pictures(envs, singles)


def test_a_partial_reset_blanks_only_its_own_pictures():
    envs = make(SegmentationVectorEnv, num_envs=2, autoreset_mode="Disabled")
    envs.reset(seed=0)
    envs.step(np.ones((2, *MAP), int))
    images, _ = envs.reset(options={"reset_mask": np.array([False, True])})
    frames = [panels(frame) for frame in envs.render()]
    palette = envs.metadata["palette"]
    assert (frames[0][1] == palette[1]).all()
    assert (frames[1][1] == BLANK).all()
    for frame, image in zip(frames, images, strict=True):
        np.testing.assert_array_equal(frame[0], image)


def _assert_same_pictures(envs: SegmentationVectorEnv, singles: list[SegmentationEnv]) -> None:
    frames = envs.render()
    assert isinstance(frames, tuple)
    for frame, env in zip(frames, singles, strict=True):
        np.testing.assert_array_equal(frame, env.render())
