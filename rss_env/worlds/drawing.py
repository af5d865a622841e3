"""Pictures of plans and of what came of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from rss_env.legend import font_of
from rss_env.worlds.planner import DIRECTIONS

INK, PAPER = (20, 20, 20), (255, 255, 255)


def draw_journeys(
    image: np.ndarray,
    ways: Sequence[tuple[int, ...]],
    visited: Sequence[Sequence[tuple[int, int]]],
    reached: Sequence[bool | None],
    colours: ArrayLike,
    cell_size: int,
    scale: int,
    text: str,
) -> np.ndarray:
    """Draws ways over an enlarged image: the plan as a thin line, where one came as a thick one.

    A way ends in a disk where its goal was reached, and in a cross where one gave up or died; in neither while one is
    on the way.

    Args:
        image: uint8 (H, W, 3).
        ways: the plan of each journey, numbers of ``DIRECTIONS``.
        visited: the cells (row, column) of each journey, the start first.
        reached: whether each journey's goal was reached; None while that is open.
        colours: 0..255 (n, 3), one a journey.
        cell_size: side of a cell in pixels of the image.
        scale: how much larger than the image the picture is.
        text: written in the lower left corner.

    Returns:
        uint8 (scale · H, scale · W, 3).
    """
    side = cell_size * scale
    canvas = Image.fromarray(image.repeat(scale, 0).repeat(scale, 1))
    draw = ImageDraw.Draw(canvas)
    width = max(side // 12, 1)
    for number, (way, cells, done) in enumerate(zip(ways, visited, reached, strict=True)):
        # Ways that share cells lie side by side.
        shift = (number - (len(ways) - 1) / 2) * 0.7 / max(len(ways), 4)
        colour = tuple(int(part) for part in np.asarray(colours)[number])
        planned = [cells[0]]
        for step in way:
            planned.append((planned[-1][0] + DIRECTIONS[step][0], planned[-1][1] + DIRECTIONS[step][1]))
        _line(draw, [_point(cell, side, shift) for cell in planned], colour, width)
        _line(draw, [_point(cell, side, shift) for cell in cells], colour, 2 * width)
        x, y = _point(planned[-1] if done else cells[-1], side, shift)
        r = 2 * width
        if done:
            draw.ellipse((x - r - 1, y - r - 1, x + r + 1, y + r + 1), colour, PAPER, max(width // 2, 1))
        elif done is not None:
            for line, thickness in ((PAPER, width + 2), (colour, width)):
                draw.line((x - r, y - r, x + r, y + r), line, thickness)
                draw.line((x - r, y + r, x + r, y - r), line, thickness)
    size = max(side // 2, 8)
    draw.text(
        (size // 3, canvas.height - size // 3), text, "white", font_of(size), "lb", stroke_width=1, stroke_fill=INK
    )
    return np.asarray(canvas)


def _point(cell: tuple[int, int], side: int, shift: float) -> tuple[float, float]:
    """The place (x, y) in a cell where a way goes through it."""
    return (cell[1] + 0.5 + shift) * side, (cell[0] + 0.5 + shift) * side


def _line(
    draw: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], colour: tuple[int, ...], width: int
) -> None:
    if len(points) > 1:
        draw.line(points, PAPER, width + 2, "curve")
        draw.line(points, colour, width, "curve")
