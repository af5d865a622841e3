"""What there is to know about a data set apart from its files: names, terms of use, origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rss_env.errors import DatasetError


def split_names(text: str) -> tuple[str, ...]:
    """The names in a text that has a comma between any two; a name is on one line.

    Example:
        >>> split_names("road, traffic light")
        ('road', 'traffic light')
    """
    return tuple(name.strip() for name in text.split(","))


def as_palette(colours: Any, count: int, what: str) -> np.ndarray:
    """A palette, uint8 (C, 3), from C colours of three integers each; nothing is rounded, cut or parsed.

    Args:
        colours: the colours of the classes, as lists, tuples or an array.
        count: C, the number of classes.
        what: names the palette in errors.

    Raises:
        DatasetError: there are not C colours, or one is not three integers of 0..255 (it is named).
    """
    listed = isinstance(colours, (list, tuple)) or (isinstance(colours, np.ndarray) and colours.ndim > 0)
    if not listed or len(colours) != count:
        got = f"{len(colours)}" if listed else f"{colours!r}"
        raise DatasetError(f"{what} must be {count} colours, one per class, got {got}.")
    for number, colour in enumerate(colours):
        if not is_colour(colour):
            got = colour.tolist() if isinstance(colour, np.ndarray) else colour
            raise DatasetError(f"{what}: the colour of class {number} must be three integers of 0..255, got {got!r}.")
    return np.array(colours, np.uint8)


def is_colour(colour: Any) -> bool:
    """Whether it is three integers of 0..255, in a list, tuple or array."""
    sequence = isinstance(colour, (list, tuple, np.ndarray)) and len(colour) == 3
    return sequence and all(_is_byte(value) for value in colour)


def _is_byte(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 <= int(value) <= 255


@dataclass(frozen=True)
class Archive:
    """One file that ``rss-env download`` fetches.

    Attributes:
        url: its public address.
        mirrors: further addresses of the same file, tried in order where ``url`` does not serve it.
        checksum: ``"md5:…"``, ``"sha1:…"`` or ``"sha256:…"`` of the whole file.
        gigabytes: size in 10⁹ bytes, roughly; a server that sends half as much again is cut off.
        provides: folder that is moved below root, as the archive names it.
    """

    url: str
    checksum: str
    gigabytes: float
    provides: str
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class DatasetInfo:
    """The card of a data set.

    Attributes:
        title: full name.
        homepage: its own page; empty if it has none.
        citation: the publication to cite; empty if there is none.
        licence: the terms of use.
        layout: what the loader looks for below root, one path per line; empty for a procedural data set.
        class_names: C names; empty where the user's files or options decide.
        palette: uint8 (C, 3), the colour of each class; None where the user decides. Other forms of C times three
            integers of 0..255 are converted.
        splits: official split -> number of images; empty where the user decides.
        ignore: which stored labels are ignored.
        archives: what ``rss-env download`` fetches; empty if it can fetch nothing.
        steps: how to get it manually; empty for a procedural data set.
        aliases: other names that the command line accepts, in lower case.
    """

    title: str
    homepage: str = ""
    citation: str = ""
    licence: str = ""
    layout: str = ""
    class_names: tuple[str, ...] = ()
    palette: np.ndarray | None = None
    splits: Mapping[str, int] = field(default_factory=dict)
    ignore: str = ""
    archives: tuple[Archive, ...] = ()
    steps: str = ""
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.palette is not None:
            palette = as_palette(self.palette, len(self.class_names), f"The palette of {self.title!r}")
            object.__setattr__(self, "palette", palette)
