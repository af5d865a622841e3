"""The files of one split of a photo data set, and what the values in its masks mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from rss_env.datasets.dataset import IGNORE_INDEX

Colour = tuple[int, int, int]  # red, green, blue


@dataclass(frozen=True, eq=False)
class Colours:
    """Which colours of RGB masks stand for which classes.

    Attributes:
        file: where they are written down, or would be.
        classes: (r, g, b) -> class, or 255 for a colour that is ignored; empty if nobody has said it.
        ambiguous: two classes that have one colour, so that label maps can be painted but no RGB mask can be read.
    """

    file: Path
    classes: Mapping[Colour, int] = field(default_factory=dict)
    ambiguous: tuple[int, int] | None = None

    @cached_property
    def table(self) -> np.ndarray:
        """uint16 (2**24,): colour r + 256 g + 65536 b -> its class plus 1 (256: ignored), 0 for an unknown colour.

        Pages of zeros that are only read take no memory.
        """
        table: np.ndarray = np.zeros(1 << 24, np.uint16)
        for (red, green, blue), label in self.classes.items():
            table[red | green << 8 | blue << 16] = label + 1
        return table


@dataclass(frozen=True, eq=False)
class PhotoSource:
    """The files of one split and how to read their masks.

    Attributes:
        name: registry name of the data set.
        split: name of the split.
        ids: n names, one per image.
        images: n paths of photos.
        masks: n paths of label maps (grey values or palette indices are the classes, or colours stand for them); empty
            if there are none.
        class_names: C names.
        palette: uint8 (C, 3), the colours of the classes.
        relabel: mask value -> class (or 255, ignored) for the values that differ; the others stay.
        colours: how RGB masks are read; None where masks hold numbers only.
        found: where the files were found, in a few words; empty where the name of the data set says it.
    """

    name: str
    split: str
    ids: tuple[str, ...]
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    class_names: tuple[str, ...]
    palette: np.ndarray
    relabel: dict[int, int] = field(default_factory=dict)
    colours: Colours | None = None
    found: str = ""

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return len(self.class_names)

    def files(self) -> tuple[Path, ...]:
        """Every file whose bytes decide the decoded arrays."""
        return self.images + self.masks


def ignore_zero(num_classes: int) -> dict[int, int]:
    """The relabelling of masks in which 0 is no class and the C classes are 1..C."""
    return {0: IGNORE_INDEX} | {value: value - 1 for value in range(1, num_classes + 1)}


def bit_palette(count: int = 256) -> np.ndarray:
    """PASCAL VOC's colour map, uint8 (count, 3): bit j of a class number sets a high bit of one channel."""
    labels: np.ndarray = np.arange(count)
    colours = np.zeros((count, 3), np.uint8)
    for shift in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> channel) & 1) << (7 - shift)).astype(np.uint8)
        labels = labels >> 3
    return colours
