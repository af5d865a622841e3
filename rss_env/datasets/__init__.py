"""The data sets by name. A new one is a file with ``locate`` in this folder and a line in ``DATASETS``."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rss_env.arguments import check_data_arguments, check_size
from rss_env.datasets import ade20k, camvid, cityscapes, coco_stuff, crafter, folder, pascal_context, shapes, voc
from rss_env.datasets.cache import load_cached
from rss_env.datasets.dataset import IGNORE_INDEX, SegmentationDataset
from rss_env.datasets.decode import check_resize
from rss_env.datasets.files import SHORT
from rss_env.datasets.info import DatasetInfo
from rss_env.datasets.layout import check_complete
from rss_env.datasets.photos import PhotoSource
from rss_env.errors import DatasetError, OptionError

__all__ = ["DATASETS", "IGNORE_INDEX", "DatasetInfo", "SegmentationDataset", "find_dataset", "load_dataset"]

PART = re.compile(r"(?P<name>.+)\[(?P<part>\d*:\d*(?::\d*)?)\]")  # of a split, such as train[:64]


@dataclass(frozen=True)
class DatasetEntry:
    """How to load a data set: exactly one of ``locate`` (photos on disk) and ``generate`` (procedural) is set.

    Attributes:
        image_size: default (H, W).
        info: its card.
        locate: ``(root, split, **options)`` -> PhotoSource.
        generate: ``(split, image_size, **options)`` -> SegmentationDataset.
        levels: what its environments give the reward for: ``"image"`` and ``"pixel"``, or ``"outcome"`` alone for a
            world.
        library: what a procedural one cannot do without, an extra of the same name; None if nothing.
    """

    image_size: tuple[int, int]
    info: DatasetInfo
    locate: Callable[..., PhotoSource] | None = None
    generate: Callable[..., SegmentationDataset] | None = None
    levels: tuple[str, ...] = ("image", "pixel")
    library: str | None = None

    def find(self, root: str | Path | None, split: str, **options: Any) -> PhotoSource:
        """The files of one split, by ``locate``; what the disk refuses is a ``DatasetError`` too."""
        assert self.locate is not None
        try:
            return self.locate(root, split, **options)
        except DatasetError:
            raise
        except OSError as error:
            raise DatasetError(f"Cannot read {SHORT.repr(str(error.filename))}: {error.strerror}.") from error

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the data set's own options."""
        loader = self.locate or self.generate
        assert loader is not None
        return tuple(n for n, p in inspect.signature(loader).parameters.items() if p.kind is p.KEYWORD_ONLY)


DATASETS: dict[str, DatasetEntry] = {
    "Shapes": DatasetEntry((64, 64), shapes.INFO, generate=functools.lru_cache(maxsize=4, typed=True)(shapes.load)),
    "VOC": DatasetEntry((128, 128), voc.INFO, locate=voc.locate),
    "PascalContext": DatasetEntry((128, 128), pascal_context.INFO, locate=pascal_context.locate),
    "Cityscapes": DatasetEntry((128, 256), cityscapes.INFO, locate=cityscapes.locate),
    "ADE20K": DatasetEntry((128, 128), ade20k.INFO, locate=ade20k.locate),
    "COCOStuff": DatasetEntry((128, 128), coco_stuff.INFO, locate=coco_stuff.locate),
    "CamVid": DatasetEntry((96, 128), camvid.INFO, locate=camvid.locate),
    "Folder": DatasetEntry((128, 128), folder.INFO, locate=folder.locate),
    "Crafter": DatasetEntry(
        (56, 72),
        crafter.INFO,
        generate=functools.lru_cache(maxsize=4, typed=True)(crafter.load),
        levels=("outcome",),
        library="crafter",
    ),
}


def find_dataset(word: str) -> str:
    """The registry name for a name in any case or an alias such as ``voc2012``.

    Raises:
        OptionError: there is no such data set; the message lists the names.
    """
    for name, entry in DATASETS.items():
        if word.lower() in (name.lower(), *entry.info.aliases):
            return name
    raise OptionError(f"Unknown data set {word!r}; valid: {', '.join(DATASETS)}.")


def load_dataset(
    name: str,
    *,
    root: str | Path | None = None,
    split: str = "train",
    image_size: tuple[int, int] | None = None,
    resize: str = "pad",
    **options: Any,
) -> SegmentationDataset:
    """Loads one split of a data set at one image size.

    Args:
        name: a key of ``DATASETS``.
        root: folder of the data set; procedural data sets take none. ``~`` at its start is the user's home folder and
            ``~name`` that of another user, as in a shell; variables such as ``$HOME`` are not replaced.
        split: name of the split, or part of it as Python slices: ``"train[:64]"`` its first 64 images, ``"train[::8]"``
            every eighth.
        image_size: (H, W) in pixels; None for the data set's default.
        resize: how photos reach that size: ``"pad"`` (keep proportions, ignored border), ``"crop"`` (keep proportions,
            cut the centre) or ``"stretch"``.
        **options: the data set's own options.

    Returns:
        The data set; photos come memory-mapped from the decoded cache.

    Raises:
        OptionError: an unknown name, ``resize``, size or option; the message lists the valid ones.
        DatasetError: the data set is missing, incomplete or corrupt.

    Example:
        >>> data = load_dataset("Shapes", split="val", image_size=(32, 48), num_classes=3)
        >>> data.images.shape, data.targets.shape, data.class_names
        ((128, 32, 48, 3), (128, 32, 48), ('background', 'disk', 'square'))
    """
    if name not in DATASETS:
        raise OptionError(f"Unknown data set {name!r}; valid: {', '.join(DATASETS)}.")
    check_data_arguments(root, split, resize, image_size, options)
    entry = DATASETS[name]
    check_resize(resize)
    size = check_size("image_size", entry.image_size if image_size is None else image_size)
    unknown = sorted(set(options) - set(entry.options))
    if unknown:
        valid = ", ".join(entry.options) or "(none)"
        raise OptionError(f"Unknown option {unknown[0]!r} for data set {name}; its own options: {valid}.")
    whole = PART.fullmatch(split)
    if whole is not None:
        data = load_dataset(name, root=root, split=whole["name"], image_size=size, resize=resize, **options)
        data = part_of(data, split, whole["part"])
    elif entry.generate is not None:
        if root is not None:
            raise DatasetError(f"{name} is procedural and takes no root, got root={str(root)!r}.")
        data = entry.generate(split, size, **options)
    else:
        source = entry.find(root, split, **options)
        check_complete(source.name, source.images, source.masks)
        data = load_cached(source, size, resize)
    recipe = functools.partial(load_dataset, name, root=root, split=split, image_size=size, resize=resize, **options)
    return dataclasses.replace(data, recipe=recipe)


def part_of(data: SegmentationDataset, split: str, part: str) -> SegmentationDataset:
    """Some images of a split.

    Args:
        data: the whole split.
        split: what the part is called.
        part: ``start:stop`` or ``start:stop:step``, each a number or empty.

    Raises:
        DatasetError: there is no image in it.
    """
    start, stop, step = (int(word) if word else None for word in (part + ":").split(":")[:3])
    chosen = slice(start, stop, step)
    if step == 0 or not data.ids[chosen]:
        raise DatasetError(f"{split!r} holds no image: the split of {data.name} has {len(data):,}.")
    targets = None if data.targets is None else data.targets[chosen]
    return dataclasses.replace(data, split=split, images=data.images[chosen], targets=targets, ids=data.ids[chosen])
