"""A grid of pictures: a label and pictures of one size in each row, every pixel an even block of colour."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

MARGIN, HEADING, LABEL = 8, 22, 150  # pixels: between pictures, above the columns, left of the rows


def draw_picture_grid(rows: Mapping[str, Sequence[np.ndarray]], side: int, headings: Sequence[str] = ()) -> Image.Image:
    """Draws the rows from top to bottom.

    Args:
        rows: pictures, uint8 (H, W, 3) of one size, by the label of their row; rows may differ in length.
        side: a picture is enlarged until this is its longer side, in pixels.
        headings: of the columns; may be none.
    """
    first = next(iter(rows.values()))[0]
    height, width = first.shape[:2]
    scale = side / max(height, width)
    cell = (round(width * scale), round(height * scale))
    step = (cell[0] + MARGIN, cell[1] + MARGIN)
    top = HEADING if headings else MARGIN
    columns = max(map(len, rows.values()))
    canvas = Image.new("RGB", (LABEL + columns * step[0], top + len(rows) * step[1]), "white")
    draw = ImageDraw.Draw(canvas)
    for place, heading in enumerate(headings):
        centre = (LABEL + place * step[0] + cell[0] // 2, top // 2)
        draw.text(centre, heading, fill="black", anchor="mm", font_size=13)
    for line, (label, pictures) in enumerate(rows.items()):
        middle = (MARGIN, top + line * step[1] + cell[1] // 2)
        draw.text(middle, textwrap.fill(label, 20), fill="black", anchor="lm", font_size=13)
        for place, picture in enumerate(pictures):
            enlarged = Image.fromarray(picture).resize(cell, Image.Resampling.NEAREST)
            canvas.paste(enlarged, (LABEL + place * step[0], top + line * step[1]))
    return canvas
