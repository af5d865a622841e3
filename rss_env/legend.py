"""The legend of a picture: names next to their colours, in a space that depends only on the class names."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from rss_env.datasets.dataset import IGNORE_INDEX

MAX_ROWS = 6  # a data set whose names take more shows those of the picture's own classes
INK, PALE, OUTLINE = (32, 32, 32), (176, 176, 176), (128, 128, 128)
IGNORED_COLOUR = (224, 224, 192)  # VOC's colour of its borders


@functools.cache
def font_of(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font at a height in pixels: the same on every machine."""
    return ImageFont.load_default(size)


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: int) -> int:
    """Width of one line of text in pixels."""
    return int(np.ceil(font_of(size).getlength(text)))


def row_height(size: int) -> int:
    """Distance between two lines of text of this size, in pixels."""
    return size + size // 2


def entry_width(name: str, size: int) -> int:
    """Width of a colour square, a name and the space up to the next entry, in pixels."""
    return size + size // 2 + text_width(name, size) + size


def draw_entry(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], name: str, colour: Sequence[int], size: int, strong: bool = True
) -> None:
    """Draws a colour square and a name at (x, y), the upper left corner; ``strong=False`` in pale grey."""
    x, y = place
    draw.rectangle((x, y, x + size - 1, y + size - 1), fill=tuple(colour), outline=OUTLINE if strong else PALE)
    draw.text((x + size + size // 2, y + size // 2), name, INK if strong else PALE, font_of(size), anchor="lm")


class ClassLegend:
    """Where the names of the classes go.

    All names are listed, those of absent classes in pale grey, if they fit into ``MAX_ROWS`` rows. Otherwise the same
    rows list only the classes of the picture, and where even these are too many the most frequent and how many more.

    Args:
        class_names: C names; an empty one is replaced by its number, line breaks become spaces.
        palette: the colour of each class, 0..255 (C, 3).
        ignorable: whether ignored pixels can be seen, which then have an entry of their own.
        size: height of the text in pixels.
        width: least width of the legend in pixels; it grows to hold the longest name.
    """

    def __init__(self, class_names: Sequence[str], palette: ArrayLike, ignorable: bool, size: int, width: int) -> None:
        self.names = [" ".join(name.split()) or f"class {c}" for c, name in enumerate(class_names)]
        self.colours = [tuple(colour) for colour in np.asarray(palette, np.uint8).tolist()]
        self.size = size
        every = [*self.names, *["ignored"] * ignorable]
        self.width = max(width, *(entry_width(name, size) for name in (*every, _more(len(self.names)))))
        rows = self._places(every)[-1][1] + 1
        self.lists_all = rows <= MAX_ROWS
        self.height = min(rows, MAX_ROWS) * row_height(size)

    def draw(self, canvas: Image.Image, corner: tuple[int, int], *label_maps: np.ndarray) -> None:
        """Draws the legend of some label maps, integers (H, W), with its upper left corner at (x, y)."""
        counts = sum((np.bincount(m.ravel(), minlength=256) for m in label_maps), np.zeros(256, np.int64))
        present = [c for c in range(len(self.names)) if counts[c]]
        shown = list(range(len(self.names))) if self.lists_all else self._choose(present, counts)
        entries = [(self.names[c], self.colours[c], bool(counts[c])) for c in shown]
        if counts[IGNORE_INDEX]:
            entries.append(("ignored", IGNORED_COLOUR, True))
        draw = ImageDraw.Draw(canvas)
        for entry, (x, row) in zip(entries, self._places([name for name, *_ in entries]), strict=True):
            place = corner[0] + x, corner[1] + row * row_height(self.size)
            draw_entry(draw, place, entry[0], entry[1], self.size, entry[2])
        hidden = 0 if self.lists_all else len(present) - len(shown)
        if hidden:
            x, row = self._places([*(name for name, *_ in entries), _more(hidden)])[-1]
            place = corner[0] + x, corner[1] + row * row_height(self.size) + self.size // 2
            draw.text(place, _more(hidden), INK, font_of(self.size), anchor="lm")

    def _choose(self, present: list[int], counts: np.ndarray) -> list[int]:
        """As many of the classes as there is room for, the most frequent ones, in order."""
        frequent = sorted(present, key=lambda c: (-counts[c], c))
        ignored = ["ignored"] * bool(counts[IGNORE_INDEX])
        room = MAX_ROWS * self.width - np.cumsum([0, *(entry_width(self.names[c], self.size) for c in frequent)])
        for kept in range(np.count_nonzero(room >= 0) - 1, -1, -1):
            shown = sorted(frequent[:kept])
            more = [_more(len(present) - kept)] * (kept < len(present))
            places = self._places([*(self.names[c] for c in shown), *ignored, *more])
            if not places or places[-1][1] < MAX_ROWS:
                return shown
        return []

    def _places(self, names: Sequence[str]) -> list[tuple[int, int]]:
        """(x, row) of each entry, one after the other from left to right and row to row."""
        places, x, row = [], 0, 0
        for name in names:
            needed = entry_width(name, self.size)
            if x and x + needed > self.width:
                x, row = 0, row + 1
            places.append((x, row))
            x += needed
        return places


def _more(count: int) -> str:
    return f"+ {count} more"
