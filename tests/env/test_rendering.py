"""Pictures of images and label maps."""

from __future__ import annotations

import numpy as np
import pytest

from rss_env.errors import OptionError
from rss_env.rendering import BLANK, IGNORED_COLOUR, check_render_mode, colourise, overlay, panels

PALETTE = np.array([[0, 0, 0], [10, 20, 30], [250, 128, 4]], np.uint8)


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


@pytest.mark.parametrize(("height", "scale"), [(8, 24), (64, 3), (100, 2), (191, 2), (192, 1), (193, 1), (400, 1)])
def test_small_pictures_are_enlarged_by_the_smallest_whole_factor(height: int, scale: int):
    image = np.random.default_rng(0).integers(0, 256, (height, 10, 3), dtype=np.uint8)
    labels = np.random.default_rng(1).integers(0, 3, (height, 10), dtype=np.uint8)
    gap = max(1, height // 32)
    picture = panels(image, labels, None, PALETTE)
    assert picture.shape == (height * scale, (20 + gap) * scale, 3)
    assert picture.shape[0] >= 192
    np.testing.assert_array_equal(picture[::scale, : 10 * scale : scale], image)
    np.testing.assert_array_equal(picture[::scale, -10 * scale :: scale], colourise(labels, PALETTE))
    assert (picture[:, 10 * scale : (10 + gap) * scale] == 255).all()


def test_without_a_label_map_its_panel_is_grey_and_the_target_comes_third():
    image = np.zeros((192, 6, 3), np.uint8)
    target = np.full((192, 6), 1, np.uint8)
    picture = panels(image, None, target, PALETTE)
    assert picture.shape == (192, 3 * 6 + 2 * 6, 3)
    assert (picture[:, :6] == 0).all()
    assert (picture[:, 6:12] == 255).all()
    assert (picture[:, 12:18] == BLANK).all()
    assert (picture[:, 18:24] == 255).all()
    assert (picture[:, 24:] == PALETTE[1]).all()


def test_an_unknown_render_mode_lists_the_valid_ones():
    check_render_mode(None, ["rgb_array"])
    check_render_mode("rgb_array", ["rgb_array"])
    with pytest.raises(OptionError, match="Unknown render_mode 'ansi'; valid: None, rgb_array"):
        check_render_mode("ansi", ["rgb_array"])
