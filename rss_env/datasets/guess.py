"""Guesses by which patterns the photos and masks below a folder can be found."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from PIL import Image

from rss_env.datasets.files import is_folder, scan
from rss_env.datasets.layout import IMAGE_SUFFIXES, files_below
from rss_env.datasets.patterns import DEEP

SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")
LOSSLESS = (".png", ".bmp", ".tif", ".tiff")
ENDING = re.compile(r"[_\-. ][A-Za-z][\w\-. ]*$")
MOST_GROUPS = 12  # that are looked at
MOST_COLOURS = 256  # of a picture that may be a label map


@dataclass(eq=False)
class Group:
    """Pictures that one pattern finds.

    Attributes:
        folder: below the root, ``{split}`` in it where it names a split.
        suffix: of their names.
        deep: whether they are in its sub-folders.
        stems: name without suffix, after the splits' names -> a file.
    """

    folder: str
    suffix: str
    deep: bool
    stems: dict[tuple[str, str], Path] = field(default_factory=dict)

    def pattern(self, ending: str = "") -> str:
        """The pattern that finds them."""
        return PurePosixPath(self.folder, f"{DEEP if self.deep else '*'}{ending}{self.suffix}").as_posix()

    def endings(self) -> Iterator[str]:
        """What all names may end in, such as ``"_L"``, and nothing; the longest first."""
        names = [stem for _, stem in self.stems]
        shared = min(names, key=len)
        while not all(name.endswith(shared) for name in names):
            shared = shared[1:]
        for start in range(len(shared)):
            if ENDING.match(shared[start:]):
                yield shared[start:]
        yield ""


def find_pictures(root: Path) -> list[Group]:
    """The pictures below a folder, in groups that a pattern finds, the largest first."""
    files = sorted(files_below(root, IMAGE_SUFFIXES))
    flat = _group(root, files, deep=False)
    return flat if len(flat) <= 4 else _group(root, files, deep=True)


def guess_patterns(groups: list[Group]) -> dict[str, str]:
    """The options ``images`` and ``masks`` of a Folder by which pictures can be found; only one if there are no masks.

    Photos and masks have the same names, apart from what all names end in; masks are of a lossless format and hold few
    colours. Nothing if there are no pictures, or if it is not clear which are the photos.
    """
    if len(groups) > MOST_GROUPS:
        return {}
    masks = [group for group in groups if group.suffix.lower() in LOSSLESS and _is_label_map(group)]
    photos = [group for group in groups if group not in masks]
    best, patterns = 0.5, {}
    for photo in photos:
        for mask in masks:
            for end in photo.endings():
                ids = {(split, stem.removesuffix(end)) for split, stem in photo.stems}
                for mask_end in mask.endings():
                    shared = ids & {(split, stem.removesuffix(mask_end)) for split, stem in mask.stems}
                    share = len(shared) / max(len(ids), len(mask.stems))
                    if share > best:
                        best, patterns = share, {"images": photo.pattern(end), "masks": mask.pattern(mask_end)}
    if patterns:
        return patterns
    return {"images": photos[0].pattern()} if len(photos) == 1 else {}


def _group(root: Path, files: list[Path], deep: bool) -> list[Group]:
    groups: dict[tuple[str, str], Group] = {}
    folders = defaultdict(set)
    for file in files:
        parts = list(file.relative_to(root).parts[:-1])
        named = [part for part in parts if part.lower() in SPLITS]
        if named:
            parts[parts.index(named[-1])] = "{split}"
        keep = parts if not deep else parts[: max(1, parts.index("{split}") + 1 if named else 1)]
        key = "/".join(keep), file.suffix
        group = groups.setdefault(key, Group(key[0], file.suffix, False))
        folders[key].add("/".join(parts))
        stem = "/".join([*parts[len(keep) :], file.stem])
        group.stems[named[-1] if named else "", stem] = file
    for key, group in groups.items():
        group.deep = folders[key] != {group.folder}
    return sorted(
        [part for group in groups.values() for part in _parted(group)],
        key=lambda group: (-len(group.stems), group.folder),
    )


def _parted(group: Group) -> list[Group]:
    """Photos and masks of one folder and suffix apart: half of the names end in something that the others do not."""
    if group.suffix.lower() in LOSSLESS:
        endings = Counter(match.group() for _, stem in group.stems for match in [ENDING.search(stem)] if match)
        for ending, count in endings.items():
            masks = {key: path for key, path in group.stems.items() if key[1].endswith(ending)}
            if 2 * count == 2 * len(masks) == len(group.stems) and _is_label_map(replace(group, stems=masks)):
                rest = {key: path for key, path in group.stems.items() if key not in masks}
                return [replace(group, stems=rest), replace(group, stems=masks)]
    return [group]


def _is_label_map(group: Group) -> bool:
    """Whether the first picture of a group may be a label map, by its colours."""
    try:
        with Image.open(next(iter(group.stems.values()))) as picture:
            if picture.width * picture.height > (Image.MAX_IMAGE_PIXELS or 1 << 30):
                return False
            return picture.mode in ("1", "P") or picture.convert("RGBA").getcolors(MOST_COLOURS) is not None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def what_is_in(root: Path, groups: list[Group]) -> str:
    """What a folder holds, in one line."""
    if groups:
        shown = ", ".join(f"{group.pattern()} ({len(group.stems):,})" for group in groups[:6])
        return f"{shown}{f' and {len(groups) - 6} more kinds of pictures' if len(groups) > 6 else ''}"
    names = sorted(entry.name + "/" * is_folder(entry) for entry in scan(root))
    if not names:
        return "nothing"
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{', '.join(names[:8])}{more}, but no picture ({', '.join(IMAGE_SUFFIXES)})"
