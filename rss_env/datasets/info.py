"""What there is to know about a data set apart from its files: names, terms of use, origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


def split_names(text: str) -> tuple[str, ...]:
    """The names in a text that has a comma between any two; a name is on one line.

    Example:
        >>> split_names("road, traffic light")
        ('road', 'traffic light')
    """
    return tuple(name.strip() for name in text.split(","))


@dataclass(frozen=True)
class Archive:
    """One file that ``rss-env download`` fetches.

    Attributes:
        url: its public address.
        checksum: ``"md5:…"``, ``"sha1:…"`` or ``"sha256:…"`` of the whole file.
        gigabytes: size in 10⁹ bytes, roughly.
        provides: folder that is moved below root, as the archive names it.
    """

    url: str
    checksum: str
    gigabytes: float
    provides: str


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
        palette: uint8 (C, 3), the colour of each class; None where the user decides.
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
