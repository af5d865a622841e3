"""Pictures of images, label maps, targets and rewards, and their legends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rss_env.datasets import IGNORE_INDEX
from rss_env.datasets.ade20k import CLASSES as ADE20K
from rss_env.datasets.photos import bit_palette
from rss_env.errors import OptionError
from rss_env.legend import IGNORED_COLOUR, INK, OUTLINE, PALE
from rss_env.rendering import BLANK, RIGHT, WRONG, check_render_mode, colourise, overlay, panels

PALETTE = np.array([[0, 0, 0], [10, 20, 30], [250, 128, 4]], np.uint8)
NAMES = ("background", "cat", "dog")
TEXT = 12  # height of the text below images of up to 480 pixels
TOP = TEXT + TEXT * 3 // 2  # where the panels begin, below a margin and the titles


def unscaled(picture: np.ndarray, place: int, shape: tuple[int, int], scale: int) -> np.ndarray:
    """Panel number ``place`` at the size of the image, after a check that every pixel became a square."""
    height, width = shape[0] * scale, shape[1] * scale
    x = TEXT + place * (width + TEXT)
    panel = picture[TOP : TOP + height, x : x + width]
    small = panel[::scale, ::scale]
    np.testing.assert_array_equal(small.repeat(scale, axis=0).repeat(scale, axis=1), panel)
    return small


def legend_of(picture: np.ndarray, height: int) -> np.ndarray:
    """What is below panels of this height."""
    return picture[TOP + height :]


def colours_in(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.unique(picture.reshape(-1, 3), axis=0).tolist()}


def test_colours_come_from_the_palette_and_ignored_pixels_have_their_own():
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    expected = [[[0, 0, 0], [10, 20, 30]], [[250, 128, 4], list(IGNORED_COLOUR)]]
    picture = colourise(labels, PALETTE)
    assert picture.dtype == np.uint8
    assert picture.tolist() == expected
    assert colourise(labels[None, None], PALETTE).tolist() == [[expected]]


@pytest.mark.parametrize(
    ("opacity", "expected"), [(0.0, [100, 101, 255]), (1.0, [250, 128, 4]), (0.25, [138, 108, 192])]
)
def test_an_overlay_blends_by_its_opacity(opacity: float, expected: list[int]):
    image = np.full((3, 4, 3), [100, 101, 255], np.uint8)
    picture = overlay(image, np.full((3, 4), 2, np.uint8), PALETTE, opacity)
    assert (picture.shape, picture.dtype) == ((3, 4, 3), np.uint8)
    assert (picture == expected).all()


@pytest.mark.parametrize(
    ("shape", "scale"),
    [((48, 40), 5), ((9, 100), 3), ((100, 100), 3), ((64, 239), 2), ((240, 120), 1), ((100, 241), 1), ((400, 200), 1)],
)
def test_small_images_are_enlarged_by_the_smallest_whole_factor(shape: tuple[int, int], scale: int):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    labels = np.random.default_rng(1).integers(0, 3, shape, dtype=np.uint8)
    picture = panels(image, labels, None, PALETTE, NAMES)
    np.testing.assert_array_equal(unscaled(picture, 0, shape, scale), image)
    np.testing.assert_array_equal(unscaled(picture, 1, shape, scale), colourise(labels, PALETTE))
    assert scale * max(shape) >= 240 > (scale - 1) * max(shape)
    gap = picture[TOP : TOP + scale * shape[0], TEXT + scale * shape[1] :][:, :TEXT]
    assert (gap == 255).all()


def test_what_does_not_exist_yet_is_grey():
    image, target = np.zeros((240, 120, 3), np.uint8), np.full((240, 120), 1, np.uint8)
    parts = [unscaled(panels(image, None, target, PALETTE, NAMES), i, (240, 120), 1) for i in range(4)]
    assert (parts[0] == 0).all()
    assert (parts[1] == BLANK).all()
    assert (parts[2] == PALETTE[1]).all()
    assert (parts[3] == BLANK).all()
    before = panels(image, None, None, PALETTE, NAMES, level="pixel")
    assert (unscaled(before, 2, (240, 120), 1) == BLANK).all()


def test_at_image_level_a_target_shows_where_the_label_map_is_right():
    label_map = np.zeros((240, 120), np.uint8)
    target = label_map.copy()
    target[10:20], target[200:] = 2, IGNORE_INDEX
    picture = panels(np.zeros((240, 120, 3), np.uint8), label_map, target, PALETTE, NAMES)
    scored = unscaled(picture, 3, (240, 120), 1)
    assert (scored[:10] == RIGHT).all()
    assert (scored[10:20] == WRONG).all()
    assert (scored[20:200] == RIGHT).all()
    assert (scored[200:] == IGNORED_COLOUR).all()
    assert {RIGHT, WRONG, IGNORED_COLOUR} <= colours_in(legend_of(picture, 240))


def test_a_pixel_reward_is_shown_on_a_colour_scale():
    reward = np.repeat(np.array([0, 0.5, 1], np.float32), 80)[:, None].repeat(120, axis=1)
    image, label_map = np.zeros((240, 120, 3), np.uint8), np.zeros((240, 120), np.uint8)
    picture = panels(image, label_map, None, PALETTE, NAMES, level="pixel", pixel_reward=reward)
    shown = unscaled(picture, 2, (240, 120), 1)
    assert colours_in(shown) == {WRONG, (140, 135, 90), RIGHT}
    assert (shown[:80] == WRONG).all()
    assert (shown[160:] == RIGHT).all()
    assert {WRONG, RIGHT} <= colours_in(legend_of(picture, 240))

    target = np.full((240, 120), IGNORE_INDEX, np.uint8)
    picture = panels(image, label_map, target, PALETTE, NAMES, level="pixel", pixel_reward=reward)
    assert (unscaled(picture, 3, (240, 120), 1) == IGNORED_COLOUR).all()


def test_the_colour_scale_reaches_as_far_as_the_rewards():
    image, label_map = np.zeros((240, 120, 3), np.uint8), np.zeros((240, 120), np.uint8)

    def shown(values: list[float]) -> list[tuple[int, ...]]:
        reward = np.zeros((240, 120))
        reward[: len(values)] = np.array(values)[:, None]
        picture = panels(image, label_map, None, PALETTE, NAMES, level="pixel", pixel_reward=reward)
        return [tuple(row) for row in unscaled(picture, 2, (240, 120), 1)[: len(values), 0].tolist()]

    assert shown([0, 2, 4]) == [WRONG, (140, 135, 90), RIGHT]
    assert shown([-3, -1, 1]) == [WRONG, (140, 135, 90), RIGHT]
    assert shown([np.nan, np.inf, -np.inf, 1e300]) == [(BLANK,) * 3, RIGHT, WRONG, RIGHT]
    assert shown([np.nan] * 240) == [(BLANK,) * 3] * 240


def test_names_of_absent_classes_are_pale():
    image, label_map = np.zeros((240, 120, 3), np.uint8), np.full((240, 120), 1, np.uint8)
    before = legend_of(panels(image, None, None, PALETTE, NAMES), 240)
    after = legend_of(panels(image, label_map, None, PALETTE, NAMES), 240)
    assert {tuple(colour) for colour in PALETTE.tolist()} <= colours_in(before)
    assert PALE in colours_in(before)
    assert not {INK, OUTLINE} & colours_in(before)
    assert INK in colours_in(after)
    changed = (before != after).any(axis=(0, 2)).nonzero()[0]
    everything = panels(image, None, None, PALETTE, ("background", "", "dog"))
    assert changed.size  # one entry, not the whole row
    assert changed[-1] - changed[0] < everything.shape[1] / 4


def test_the_legend_holds_the_names():
    image, label_map = np.zeros((240, 120, 3), np.uint8), np.zeros((240, 120), np.uint8)
    left = panels(image, label_map, None, PALETTE, ("background", "cat", "dog"))
    right = panels(image, label_map, None, PALETTE, ("background", "cat", "dig"))
    np.testing.assert_array_equal(left[: TOP + 240], right[: TOP + 240])
    assert (left != right).any()


def test_ignored_pixels_have_an_entry_where_they_occur():
    image, label_map = np.full((240, 240, 3), 7, np.uint8), np.zeros((240, 240), np.uint8)
    target = label_map.copy()
    without = panels(image, label_map, target, PALETTE, NAMES)
    target[0] = IGNORE_INDEX
    having = panels(image, label_map, target, PALETTE, NAMES)
    assert IGNORED_COLOUR not in colours_in(legend_of(without, 240))
    assert IGNORED_COLOUR in colours_in(legend_of(having, 240))
    assert without.shape == having.shape


@pytest.mark.parametrize("num_classes", [*range(2, 80), 150, 255])
def test_every_entry_has_its_place(num_classes: int):
    names, palette = [f"class {c}" for c in range(num_classes)], bit_palette(num_classes)
    label_map = np.arange(64 * 64).reshape(64, 64) % num_classes
    target = label_map.copy()
    target[0, 0] = IGNORE_INDEX
    picture = panels(np.zeros((64, 64, 3), np.uint8), label_map, target, palette, names)
    assert (picture[-TEXT // 2 :] == 255).all()
    assert (picture[:, -TEXT:] == 255).all()


@pytest.mark.parametrize("name", ["a" * 400, "many words " * 30])
def test_long_names_are_not_cut(name: str):
    image, label_map = np.zeros((64, 64, 3), np.uint8), np.full((64, 64), 1, np.uint8)
    picture = panels(image, label_map, None, PALETTE, ("background", name, "dog"))
    longer = panels(image, label_map, None, PALETTE, ("background", name + "W", "dog"))
    assert (picture[:, -TEXT:] == 255).all()
    assert longer.shape[1] > picture.shape[1] > 1500


@pytest.mark.parametrize("names", [("", " \n", "a\nb"), ("背景", "кот", "🐕")])
def test_names_that_are_hard_to_draw_do_no_harm(names: tuple[str, ...]):
    image, label_map = np.zeros((64, 64, 3), np.uint8), np.full((64, 64), 1, np.uint8)
    assert panels(image, label_map, None, PALETTE, names).shape[2] == 3


def test_of_many_classes_those_of_the_picture_are_listed():
    palette = bit_palette(len(ADE20K))
    label_map = np.random.default_rng(0).choice(np.array([0, 7, 50, 149], np.uint8), (128, 128))
    picture = panels(np.zeros((128, 128, 3), np.uint8), label_map, None, palette, ADE20K)
    listed = colours_in(legend_of(picture, 256)) & {tuple(colour) for colour in palette[1:].tolist()}
    # Greys are shared with the outlines and the smoothed edges of the letters.
    coloured = {colour for colour in listed if len(set(colour)) > 1}
    assert coloured == {tuple(palette[c].tolist()) for c in (7, 50, 149)} - {(128, 128, 128)}
    assert PALE not in colours_in(legend_of(picture, 256))


def test_of_too_many_classes_the_most_frequent_are_listed():
    palette = bit_palette(len(ADE20K))
    frequency = np.random.default_rng(0).permutation(150) + 1
    labels = np.repeat(np.arange(150, dtype=np.uint8), frequency)
    label_map = np.concatenate([labels, np.full(128 * 128 - labels.size, 9, np.uint8)]).reshape(128, 128)
    counts = np.bincount(label_map.ravel(), minlength=150)
    picture = legend_of(panels(np.zeros((128, 128, 3), np.uint8), label_map, None, palette, ADE20K), 256)
    seen = colours_in(picture)
    coloured = [c for c in range(150) if len(set(palette[c].tolist())) > 1]
    listed = [c for c in coloured if tuple(palette[c].tolist()) in seen]
    left_out = [c for c in coloured if c not in listed]
    assert len(listed) > 20
    assert len(left_out) > 20
    assert min(counts[listed]) >= max(counts[left_out])


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    num_classes=st.sampled_from([2, 21, 150, 255]),
    level=st.sampled_from(["image", "pixel"]),
    exposed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_size_of_a_picture_does_not_depend_on_what_it_shows(
    shape: tuple[int, int], num_classes: int, level: str, exposed: bool, seed: int
):
    rng = np.random.default_rng(seed)
    palette, names = bit_palette(num_classes), tuple(f"class {c}" for c in range(num_classes))
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    sizes = set()
    for step in range(4):
        target = rng.choice(np.array([0, 1, IGNORE_INDEX], np.uint8), shape) if exposed else None
        label_map = None if step == 0 else rng.integers(0, num_classes, shape, dtype=np.uint8)
        reward = rng.normal(0, 1e6, shape) if level == "pixel" and step else None
        picture = panels(image, label_map, target, palette, names, level=level, pixel_reward=reward)
        assert picture.dtype == np.uint8
        again = panels(image, label_map, target, palette, names, level=level, pixel_reward=reward)
        np.testing.assert_array_equal(picture, again)
        sizes.add(picture.shape)
    ((height, width, _),) = sizes
    assert height % 2 == width % 2 == 0


def test_large_images_have_larger_text():
    image = np.zeros((1024, 2048, 3), np.uint8)
    small, large = panels(image[::4, ::4], None, None, PALETTE, NAMES), panels(image, None, None, PALETTE, NAMES)
    assert small.shape[0] - 256 < (large.shape[0] - 1024) / 3


def test_an_unknown_render_mode_lists_the_valid_ones():
    check_render_mode(None, ["rgb_array"])
    check_render_mode("rgb_array", ["rgb_array"])
    with pytest.raises(OptionError, match="Unknown render_mode 'ansi'; valid: None, rgb_array"):
        check_render_mode("ansi", ["rgb_array"])
