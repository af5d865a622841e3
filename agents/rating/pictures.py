"""What a rater sees of label maps, as PNG files: colours with patterns, outlines, and photos under predictions."""

from __future__ import annotations

import colorsys
import io

import numpy as np
from PIL import Image

# Colours that people who confuse red and green can tell apart (Okabe and Ito), after a grey for the first class.
COLOURS = np.array(
    [
        (110, 110, 110),
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
        (240, 228, 66),
        (0, 114, 178),
        (213, 94, 0),
        (204, 121, 167),
    ],
    np.uint8,
)
FIRST_ALPHA = 110  # of the first class, most often the background, through which the photo is seen better
PERIOD = 8  # pixels from one line of a pattern to the next
PATTERNS = (
    lambda y, x: np.zeros(np.broadcast_shapes(y.shape, x.shape), bool),
    lambda y, x: (x + y) % PERIOD < 2,
    lambda y, x: (x - y) % PERIOD < 2,
    lambda y, x: (y % PERIOD < 2) | (x < 0),
    lambda y, x: (x % PERIOD < 2) | (y < 0),
    lambda y, x: (x % PERIOD < 3) & (y % PERIOD < 3),
    lambda y, x: ((x + y) % PERIOD < 2) | ((x - y) % PERIOD < 2),
)
MARK = (255, 214, 10)  # of the part that is asked about


def colours_of(num_classes: int) -> np.ndarray:
    """Colours of C classes, uint8 (C, 3), all different."""
    if num_classes <= len(COLOURS):
        return COLOURS[:num_classes].copy()
    hues = (np.arange(num_classes) * 0.618034) % 1  # far from each other for whatever number
    return np.array([[round(255 * v) for v in colorsys.hsv_to_rgb(hue, 0.8, 0.9)] for hue in hues], np.uint8)


def overlay(label_map: np.ndarray, palette: np.ndarray, scale: int) -> bytes:
    """A label map in the colours and patterns of its classes, to be laid over its photo."""
    large = label_map.repeat(scale, 0).repeat(scale, 1)
    y, x = np.ogrid[: large.shape[0], : large.shape[1]]
    picture = np.dstack([palette[large], np.full(large.shape, 255, np.uint8)])
    picture[large == 0, 3] = FIRST_ALPHA
    for number in np.unique(large).tolist():
        lines = (large == number) & PATTERNS[number % len(PATTERNS)](y, x)
        picture[lines, :3] = palette[number] // 3
    return png(picture)


def outline(label_map: np.ndarray, scale: int) -> bytes:
    """The borders between classes as a white line in a black one, on nothing."""
    return png(_line(label_map, scale, (255, 255, 255), 1, 1))


def mark(part: np.ndarray, scale: int) -> bytes:
    """The border of a part, broad and yellow in black; what lies outside is darkened a little."""
    picture = _line(part.astype(np.uint8), scale, MARK, 2, 2)
    outside = ~part.repeat(scale, 0).repeat(scale, 1)
    picture[outside & (picture[..., 3] == 0)] = (0, 0, 0, 70)
    return png(picture)


def swatch(number: int, palette: np.ndarray) -> bytes:
    """Colour and pattern of a class, for the legend."""
    return overlay(np.full((3, 5), number, np.uint8), palette, PERIOD)


def _line(values: np.ndarray, scale: int, colour: tuple[int, int, int], inner: int, outer: int) -> np.ndarray:
    large = values.repeat(scale, 0).repeat(scale, 1)
    edge = np.zeros(large.shape, bool)
    edge[1:] |= large[1:] != large[:-1]
    edge[:, 1:] |= large[:, 1:] != large[:, :-1]
    picture = np.zeros((*large.shape, 4), np.uint8)
    picture[_grown(edge, inner + outer)] = (0, 0, 0, 255)
    picture[_grown(edge, inner - 1)] = (*colour, 255)
    return picture


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask with all pixels around it, in a square."""
    for axis in (0, 1):
        wide = mask.copy()
        for step in range(1, pixels + 1):
            ahead, behind = [slice(None)] * 2, [slice(None)] * 2
            ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
            wide[tuple(ahead)] |= mask[tuple(behind)]
            wide[tuple(behind)] |= mask[tuple(ahead)]
        mask = wide
    return mask


def png(picture: np.ndarray) -> bytes:
    """A PNG file of uint8 (H, W), (H, W, 3) or (H, W, 4)."""
    written = io.BytesIO()
    Image.fromarray(picture).save(written, "PNG", compress_level=3)
    return written.getvalue()


def jpeg(picture: np.ndarray) -> bytes:
    """A JPEG file of uint8 (H, W, 3)."""
    written = io.BytesIO()
    Image.fromarray(picture).save(written, "JPEG", quality=90)
    return written.getvalue()


def predicted(photo: np.ndarray, label_map: np.ndarray, palette: np.ndarray, scale: int) -> bytes:
    """A photo under a label map, half of it to be seen through, with the borders between classes, as JPEG."""
    over = Image.open(io.BytesIO(overlay(label_map, palette, scale)))
    over.putalpha(over.getchannel("A").point(lambda alpha: alpha * 6 // 10))
    line = Image.open(io.BytesIO(outline(label_map, scale)))
    picture = Image.fromarray(photo).convert("RGBA")
    return jpeg(np.asarray(Image.alpha_composite(Image.alpha_composite(picture, over), line).convert("RGB")))
