"""Finds photos and masks by patterns such as ``photos/*.JPEG`` and ``labels/*_L.png``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rss_env.datasets.files import is_file, is_folder, scan
from rss_env.datasets.layout import IMAGE_SUFFIXES, check_one_photo
from rss_env.datasets.pairs import Pairs
from rss_env.errors import DatasetError, OptionError

DEEP = "**/*"  # an id that may lead through sub-folders


@dataclass(frozen=True)
class Pattern:
    """A path in which ``*`` stands for the id, ``**/*`` for an id with sub-folders, and ``{split}`` for the split.

    Attributes:
        name: of the option, for errors.
        text: the pattern.
    """

    name: str
    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or self.text.replace(DEEP, "*", 1).count("*") != 1:
            raise OptionError(
                f'{self.name} must be a pattern with one * that stands for the id, such as "photos/*.jpg" or, with '
                f'sub-folders, "photos/**/*.jpg"; got {self.text!r}.'
            )
        if self.text.count("{split}") > 1 or "{split}" in Path(self.text).name:
            raise OptionError(f"{self.name} may hold {{split}} once, as the name of a folder or part of it; got "
                f"{self.text!r}.")  # fmt: skip

    @property
    def deep(self) -> bool:
        """Whether an id may lead through sub-folders."""
        return DEEP in self.text

    @property
    def has_split(self) -> bool:
        """Whether the path says the split."""
        return "{split}" in self.text

    def path(self, base: Path, split: str, image_id: str) -> Path:
        """Where a file is that the pattern stands for."""
        return base / self.text.replace("{split}", split).replace(DEEP if self.deep else "*", image_id)

    def find(self, base: Path) -> Iterator[tuple[str, str, Path]]:
        """The split (empty if the pattern has none), the id and the path of every file, sorted by path.

        A suffix is found in any case. Without one, these are all photos. Links to folders are not followed.

        Raises:
            DatasetError: a folder cannot be listed.
        """
        fixed = []  # leading folders that are the same for every file
        parts = self.text.split("/")
        while len(parts) > 1 and not ("*" in parts[0] or "{split}" in parts[0]):
            fixed.append(parts.pop(0))
        start, rest = base / "/".join([*fixed, ""]), "/".join(parts)
        expression = self._expression(rest)
        for path in sorted(_below(start, None if self.deep else len(parts))):
            match = expression.fullmatch(path.relative_to(start).as_posix())
            if match:
                yield match.groupdict().get("split", ""), match["id"], path

    def _expression(self, text: str) -> re.Pattern[str]:
        stem, dot, suffix = text.rpartition(".")
        if not dot or "*" in suffix or "/" in suffix:  # there is none
            stem, suffix = text, "|".join(known[1:] for known in IMAGE_SUFFIXES)
        else:
            suffix = re.escape(suffix)
        escaped = re.escape(stem).replace(re.escape("{split}"), "(?P<split>[^/]+)")
        star = re.escape(DEEP if self.deep else "*")
        return re.compile(escaped.replace(star, f"(?P<id>{'.+' if self.deep else '[^/]+'})") + rf"\.(?i:{suffix})")


def match_patterns(base: Path, images: Pattern, masks: Pattern | None) -> Pairs:
    """Every photo that one pattern finds, with the mask of the same id that the other one finds.

    What the masks' pattern finds is no photo, so ``*.png`` and ``*_mask.png`` may be in one folder.

    Args:
        base: the folder that patterns start from.
        images: of photos. With ``{split}`` in it ids start with the split.
        masks: of their masks; None if there are none.

    Raises:
        OptionError: the masks have ``{split}`` and the photos have not.
        DatasetError: no photo is found, or no mask; two photos have one id; a folder cannot be listed.
    """
    if masks is not None and masks.has_split and not images.has_split:
        raise OptionError(f"masks={masks.text!r} has {{split}}, so images must have it too, got {images.text!r}.")
    found = {} if masks is None else {(split, image_id): path for split, image_id, path in masks.find(base)}
    if masks is not None and not found:
        raise DatasetError(f"masks={masks.text!r} finds no mask in {base}: {_what_is_in(base, masks)}.")
    labels = set(found.values())
    photos = [photo for photo in images.find(base) if photo[2] not in labels]
    if not photos:
        raise DatasetError(f"images={images.text!r} finds no photo in {base}: {_what_is_in(base, images)}.")
    ids = [f"{split}/{image_id}" if images.has_split else image_id for split, image_id, _ in photos]
    check_one_photo(base / images.text, ids)
    mask_paths: list[Path] = []
    if masks is not None:
        for split, image_id, _ in photos:
            known = found.get((split if masks.has_split else "", image_id))
            mask_paths.append(known or masks.path(base, split, image_id))
        if labels.isdisjoint(mask_paths):
            raise DatasetError(
                f"No mask has the id of a photo: images={images.text!r} finds {photos[0][2]}, whose id is "
                f"{photos[0][1]!r}, and masks={masks.text!r} finds {next(iter(found.values()))}, whose id is "
                f"{next(iter(found))[1]!r}. The * must stand for what the two names share."
            )
    return Pairs(
        tuple(ids),
        tuple(path for _, _, path in photos),
        tuple(mask_paths),
        tuple(split for split, _, _ in photos) if images.has_split else (),
        f"photos {images.text}" + (f", masks {masks.text}" if masks is not None else ""),
    )


def _what_is_in(base: Path, pattern: Pattern) -> str:
    """What lies where a pattern looks, for an error."""
    place = base
    for part in pattern.text.split("/")[:-1]:
        if "*" in part or "{split}" in part or not (place / part).is_dir():
            break
        place = place / part
    if not place.is_dir():
        return f"{place} {'is not a folder' if place.exists() else 'does not exist'}"
    names = sorted(entry.name + "/" * is_folder(entry) for entry in scan(place))
    return (
        f"{place} holds {', '.join(names[:5])}{' …' if len(names) > 5 else ''}" if names else f"{place} holds nothing"
    )


def _below(folder: Path, depth: int | None) -> Iterator[Path]:
    """Every file at a depth below a folder, 1 for those in it; None for every depth."""
    for entry in scan(folder):
        if entry.is_dir(follow_symlinks=False):
            if depth is None or depth > 1:
                yield from _below(folder / entry.name, None if depth is None else depth - 1)
        elif depth in (None, 1) and is_file(entry):
            yield folder / entry.name
