"""Pictures of images and label maps, as uint8 RGB arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from rss_env.datasets.dataset import IGNORE_INDEX, World
from rss_env.errors import OptionError
from rss_env.legend import (
    IGNORED_COLOUR,
    INK,
    ClassLegend,
    draw_entry,
    entry_width,
    font_of,
    row_height,
    text_width,
)

BLANK = 40  # placeholder grey
MIN_SIDE = 240  # images whose longer side is shorter are enlarged by a whole factor, to be seen
MIN_TEXT = 12  # height of the text in pixels; larger below large images
# The ends of the colour scale differ in brightness too, for people who do not see the colours.
WRONG, RIGHT = (190, 60, 0), (90, 210, 180)


def check_render_mode(render_mode: str | None, valid: list[str]) -> None:
    """Raises ``OptionError`` that lists the valid modes if ``render_mode`` is neither None nor among them."""
    if render_mode is not None and not (isinstance(render_mode, str) and render_mode in valid):
        raise OptionError(f"Unknown render_mode {render_mode!r}; valid: None, {', '.join(valid)}.")


def colourise(label_map: np.ndarray, palette: ArrayLike) -> np.ndarray:
    """Colours a label map.

    Args:
        label_map: uint8 (..., H, W), classes or 255.
        palette: the colour of each class, 0..255 (C, 3); an array or ``metadata["palette"]``.

    Returns:
        uint8 (..., H, W, 3).
    """
    table = np.zeros((256, 3), np.uint8)
    colours = np.asarray(palette, np.uint8)
    table[: len(colours)] = colours
    table[IGNORE_INDEX] = IGNORED_COLOUR
    return table[label_map]


def overlay(image: np.ndarray, label_map: np.ndarray, palette: ArrayLike, opacity: float = 0.5) -> np.ndarray:
    """Blends a coloured label map over its image.

    Args:
        image: uint8 (H, W, 3).
        label_map: uint8 (H, W).
        palette: the colour of each class, 0..255 (C, 3); an array or ``metadata["palette"]``.
        opacity: of the label map, 0..1.

    Returns:
        uint8 (H, W, 3).
    """
    blend = (1 - opacity) * image + opacity * colourise(label_map, palette)
    return np.round(blend).astype(np.uint8)


def panels(
    image: np.ndarray,
    label_map: np.ndarray | None,
    target: np.ndarray | None,
    palette: ArrayLike,
    class_names: Sequence[str],
    *,
    level: str = "image",
    pixel_reward: np.ndarray | None = None,
    outcome: Callable[[int], np.ndarray | None] | None = None,
) -> np.ndarray:
    """Image | label map | target | pixel reward | plans and outcome side by side under their titles, above a legend.

    The target's panel is there if there is a target. The last panel is there at pixel level, as a colour scale from
    0 to 1 (wider where rewards are outside), and at image level with a target, as right and wrong. Panels without
    content yet are grey. The size of the picture depends only on the image's size, the class names, the level and
    whether there is a target, so that the pictures of an environment make a video.

    Args:
        image: uint8 (H, W, 3).
        label_map: uint8 (H, W), or None before the step.
        target: uint8 (H, W), or None if it is hidden.
        palette: the colour of each class, 0..255 (C, 3); an array or ``metadata["palette"]``.
        class_names: C names.
        level: ``"image"`` or ``"pixel"``.
        pixel_reward: float (H, W) at pixel level after the step, else None; NaN is drawn grey.
        outcome: in a world, the scale of the panels -> the panel that shows what came of the label map, uint8
            (scale · H, scale · W, 3), or None before the step; else None.

    Returns:
        uint8 (height, width, 3), both even; an image whose longer side has less than 240 pixels is enlarged by the
        smallest whole factor that gives it as many.
    """
    scale = -(-MIN_SIDE // max(image.shape[:2]))
    size = max(MIN_TEXT, scale * max(image.shape[:2]) // 40)
    blank = np.full_like(image, BLANK)
    parts = {"image": image, "label map": blank if label_map is None else colourise(label_map, palette)}
    if target is not None:
        parts["target"] = colourise(target, palette)
    low, high = _limits(pixel_reward)
    if level == "pixel":
        parts["pixel reward"] = blank if pixel_reward is None else _shade(pixel_reward, low, high)
    elif target is not None:
        parts["right or wrong"] = (
            blank if label_map is None else colourise((label_map == target).astype(np.uint8), _RIGHT_OR_WRONG)
        )
    *_, last = parts
    if label_map is not None and target is not None:
        parts[last] = np.where((target == IGNORE_INDEX)[..., None], np.array(IGNORED_COLOUR, np.uint8), parts[last])

    enlarged = {title: part.repeat(scale, axis=0).repeat(scale, axis=1) for title, part in parts.items()}
    if outcome is not None:
        shown = outcome(scale)
        enlarged["plans and outcome"] = blank.repeat(scale, axis=0).repeat(scale, axis=1) if shown is None else shown

    widths = [max(scale * image.shape[1], text_width(title, size)) for title in enlarged]
    legend = ClassLegend(class_names, palette, target is not None, size, sum(widths) + size * (len(enlarged) - 1))
    scored = level == "pixel" or target is not None
    scored_width = _scored_width(size) if scored else 0
    below = size + row_height(size) + scale * image.shape[0] + size // 2
    height = below + legend.height + row_height(size) * scored + size // 2
    width = max(legend.width, scored_width) + 2 * size
    canvas = Image.new("RGB", (width + width % 2, height + height % 2), "white")  # video codecs want even sides
    draw = ImageDraw.Draw(canvas)
    x = size
    for (title, panel), cell in zip(enlarged.items(), widths, strict=True):
        draw.text((x, size), title, INK, font_of(size), anchor="lt")
        canvas.paste(Image.fromarray(panel), (x, size + row_height(size)))
        x += cell + size
    if level == "pixel":
        _draw_scale(draw, (size, below), size, low, high)
    elif scored:
        _draw_right_or_wrong(draw, (size, below), size)
    legend.draw(canvas, (size, below + row_height(size) * scored), *(m for m in (label_map, target) if m is not None))
    return np.asarray(canvas)


def outcome_panel(
    world: World | None, image: np.ndarray, label_map: np.ndarray | None, target: np.ndarray | None
) -> Callable[[int], np.ndarray | None] | None:
    """What ``panels`` takes as ``outcome``; None where there is no world.

    Args:
        world: that of the data set.
        image: uint8 (H, W, 3).
        label_map: uint8 (H, W), or None before the step.
        target: uint8 (H, W); None without a world.
    """
    if world is None or target is None:
        return None
    return lambda scale: None if label_map is None else world.draw(image, label_map, target, scale)


_RIGHT_OR_WRONG = np.array([WRONG, RIGHT], np.uint8)


def _limits(pixel_reward: np.ndarray | None) -> tuple[float, float]:
    """What the ends of the colour scale stand for: 0 and 1, or what goes beyond them."""
    finite = np.zeros(0) if pixel_reward is None else pixel_reward[np.isfinite(pixel_reward)]
    return float(finite.min(initial=0.0)), float(finite.max(initial=1.0))


def _shade(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colours of rewards on the scale from low to high, uint8 (..., 3); NaN is grey."""
    share = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)[..., None]
    known = np.nan_to_num(share)
    colours = np.round((1 - known) * np.array(WRONG) + known * np.array(RIGHT))
    return np.where(np.isnan(share), BLANK, colours).astype(np.uint8)


def _scored_width(size: int) -> int:
    """Width that the last row of the legend may take, in pixels."""
    numbers = 2 * text_width("-1.23e+123", size) + 10 * size
    return max(numbers, entry_width("wrong", size) + entry_width("right", size))


def _draw_scale(draw: ImageDraw.ImageDraw, place: tuple[int, int], size: int, low: float, high: float) -> None:
    """A bar of the scale's colours between the numbers that its ends stand for."""
    (x, y), length = place, 8 * size
    draw.text((x, y + size // 2), f"{low:.3g}", INK, font_of(size), anchor="lm")
    x += text_width(f"{low:.3g}", size) + size // 2
    for step, colour in enumerate(_shade(np.linspace(0, 1, length), 0, 1).tolist()):
        draw.line((x + step, y, x + step, y + size - 1), fill=tuple(colour))
    draw.text((x + length + size // 2, y + size // 2), f"{high:.3g}", INK, font_of(size), anchor="lm")


def _draw_right_or_wrong(draw: ImageDraw.ImageDraw, place: tuple[int, int], size: int) -> None:
    draw_entry(draw, place, "right", RIGHT, size)
    draw_entry(draw, (place[0] + entry_width("right", size), place[1]), "wrong", WRONG, size)
