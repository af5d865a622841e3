"""Validates the files of a data set, not its cache: every problem with every file, and what the masks hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rss_env.datasets import DATASETS, load_dataset
from rss_env.datasets.dataset import IGNORE_INDEX, MAX_CLASSES
from rss_env.datasets.decode import ColourError, read_image, read_mask
from rss_env.datasets.files import has_file
from rss_env.datasets.folder import class_file, split_names
from rss_env.datasets.layout import IMAGE_SUFFIXES, check_complete
from rss_env.datasets.photos import Colour, PhotoSource
from rss_env.errors import DatasetError, DatasetNotFoundError, UnknownSplitError


@dataclass(frozen=True)
class Finding:
    """What is wrong with one file.

    Attributes:
        kind: ``"problem"`` (the data set cannot be used like this) or ``"warning"``.
        file: path of the file, or of the split's folder.
        message: says what is wrong and names the file.
        alike: the same for findings that differ only in files and numbers.
    """

    kind: Literal["problem", "warning"]
    file: str
    message: str
    alike: str = field(default="", compare=False)


@dataclass
class SplitReport:
    """What one split holds.

    Attributes:
        split: its name.
        images: number of images.
        masks: number of masks that were read without a problem.
        sizes: (H, W) of the photos -> how many of them.
        pixels: int64 (C,), pixels of each class in the masks at their own size.
        ignored: pixels that are ignored.
        images_with: int64 (C,), masks in which each class occurs.
        findings: problems and warnings by file, in the order of the split.
        colours: colours of RGB masks that stand for no class -> pixels and masks.
    """

    split: str
    images: int
    masks: int
    sizes: Counter[tuple[int, int]]
    pixels: np.ndarray
    ignored: int
    images_with: np.ndarray
    findings: list[Finding]
    colours: dict[Colour, tuple[int, int]] = field(default_factory=dict)


@dataclass
class DatasetReport:
    """What a data set's folder holds.

    Attributes:
        dataset: registry name.
        root: folder that was read; None for a procedural data set.
        class_names: C names.
        splits: one report each.
        absent: official splits that are not there.
        found: where the files were found, in a few words; empty where the name of the data set says it.
        class_file: where the classes are described or, if that file is missing, would be; of a Folder.
    """

    dataset: str
    root: str | None
    class_names: tuple[str, ...]
    splits: list[SplitReport]
    absent: list[str]
    found: str = ""
    class_file: Path | None = None

    @property
    def findings(self) -> list[Finding]:
        """Problems and warnings of all splits, each once."""
        return list(dict.fromkeys(finding for split in self.splits for finding in split.findings))

    @property
    def clean(self) -> bool:
        """Whether there is no problem; warnings do not count."""
        return all(finding.kind != "problem" for finding in self.findings)


@dataclass
class _Decoded:
    """What is kept of one pair: the size of the photo, and how many pixels have each label that occurs."""

    size: tuple[int, int] | None = None
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    findings: list[Finding] = field(default_factory=list)
    colours: dict[Colour, int] = field(default_factory=dict)


def official_splits(name: str, root: str | Path | None, **options: Any) -> list[str]:
    """Names of a data set's splits, whether they are on disk or not; of a Folder those that it has."""
    official = list(DATASETS[name].info.splits)
    if official or name != "Folder":
        return official
    try:
        return split_names(root, **_sources(options))
    except (DatasetError, OSError):  # which the loader raises again
        return ["train", "val"]


def _sources(options: dict[str, Any]) -> dict[str, Any]:
    """Those options of a Folder that say where its files are."""
    return {name: value for name, value in options.items() if name not in ("num_classes", "classes")}


def locate_splits(
    name: str, root: str | Path | None, splits: Iterable[str], **options: Any
) -> dict[str, PhotoSource | DatasetError]:
    """The files of each split that is below ``root``, missing photos and masks too, without decoding any.

    Args:
        name: a key of ``DATASETS``, not of a procedural data set.
        root: folder of the data set.
        splits: names of the splits to look for.
        **options: the data set's own options.

    Returns:
        split -> its files, or the error that keeps them from being listed; no entry for a split that is not there.
    """
    if name == "Folder" and "num_classes" not in options and not _has_classes(root, options):
        options = {"num_classes": MAX_CLASSES, **options}  # else every mask would be decoded to count the classes
    found: dict[str, PhotoSource | DatasetError] = {}
    for split in splits:
        try:
            found[split] = DATASETS[name].find(root, split, **options)
        except (DatasetNotFoundError, UnknownSplitError):
            continue
        except DatasetError as error:
            found[split] = error
    return found


def _has_classes(root: str | Path | None, options: dict[str, Any]) -> bool:
    """Whether a file describes the classes of a Folder, or will be refused by the loader."""
    try:
        return has_file(class_file(root, options.get("classes"), options.get("manifest")))
    except DatasetError:
        return True


def complete_splits(name: str, root: str | Path) -> dict[str, PhotoSource | DatasetError]:
    """As ``locate_splits`` for every split of a data set, but a photo or a mask that is missing is an error too."""
    found = locate_splits(name, root, official_splits(name, root))
    for split, source in found.items():
        if isinstance(source, PhotoSource):
            try:
                check_complete(name, source.images, source.masks)
            except DatasetError as error:
                found[split] = error
    return found


def find_layouts(root: str | Path) -> list[str]:
    """Names of the data sets whose layout is below a folder; ``"Folder"``, the plainest, only if it is the only one."""
    photos = [name for name, entry in DATASETS.items() if entry.locate is not None]
    found = [name for name in photos if locate_splits(name, root, official_splits(name, root))]
    return [name for name in found if name != "Folder"] or found


def check_dataset(
    name: str,
    root: str | Path | None,
    splits: Sequence[str] | None = None,
    *,
    progress: Callable[[Iterator[_Decoded], int], Iterable[_Decoded]] | None = None,
    **options: Any,
) -> DatasetReport:
    """Reads every file of a data set and reports everything that is wrong.

    Args:
        name: a key of ``DATASETS``.
        root: folder of the data set; procedural ones take none.
        splits: names of the splits; None for all official ones that are there.
        progress: wraps (iterator over the pairs, their number), as tqdm does.
        **options: the data set's own options.

    Raises:
        DatasetNotFoundError: the layout is not below ``root``.
        DatasetError: one of ``splits`` is unknown or cannot be listed.

    Example:
        >>> report = check_dataset("Shapes", None, ["val"])
        >>> report.splits[0].images, report.clean
        (128, True)
    """
    wanted = official_splits(name, root, **options) if splits is None else list(dict.fromkeys(splits))
    if DATASETS[name].generate is not None:
        return _check_procedural(name, wanted, options)
    sources = locate_splits(name, root, wanted, **options)
    unlisted = [split for split in wanted if not isinstance(sources.get(split), PhotoSource)]
    if unlisted and (splits is not None or not sources):
        DATASETS[name].find(root, unlisted[0], **options)  # raises, and says why
    listed = [source for source in sources.values() if isinstance(source, PhotoSource)]
    pairs = {pair: source for source in listed for pair in _pairs(source)}
    with ThreadPoolExecutor() as pool:
        results: Iterable[_Decoded] = pool.map(_decode, pairs, pairs.values())
        if progress is not None:
            results = progress(iter(results), len(pairs))
        decoded = dict(zip(pairs, results, strict=True))
    names = _class_names(listed[0], decoded.values()) if listed else ()
    reports = [_summarise(split, source, decoded, len(names), str(root)) for split, source in sources.items()]
    report = DatasetReport(name, str(root), names, reports, [split for split in wanted if split not in sources])
    if name == "Folder":
        report.found = listed[0].found if listed else ""
        report.class_file = class_file(root, options.get("classes"), options.get("manifest"))
    if listed and not any(source.masks for source in listed):
        reports[0].findings.append(_without_masks(report, listed[0].num_classes == MAX_CLASSES))
    elif report.clean and listed and listed[0].num_classes == MAX_CLASSES:
        try:  # the loader counts the classes in every mask, those of other splits too
            DATASETS[name].find(root, listed[0].split, **options)
        except DatasetError as error:
            reports[0].findings.append(Finding("problem", str(root), str(error)))
    return report


def _without_masks(report: DatasetReport, unknown: bool) -> Finding:
    """What photos without masks still need."""
    message = "no masks: the reward must be a callable that needs no target"
    if unknown:
        message += f", and num_classes= or {report.class_file} must say how many classes there are"
    return Finding("warning", str(report.root), message + ".")


def _pairs(source: PhotoSource) -> list[tuple[Path, Path | None]]:
    return list(zip(source.images, source.masks or [None] * len(source.images), strict=True))


def _decode(pair: tuple[Path, Path | None], source: PhotoSource) -> _Decoded:
    """Reads a photo and its mask; a problem with one does not hide a problem with the other."""
    image_path, mask_path = pair
    found = _Decoded()

    def report(
        path: Path, message: str, kind: Literal["problem", "warning"] = "problem", alike: str | None = None
    ) -> None:
        if alike is None:
            alike = message.replace(str(image_path), "").replace(str(mask_path), "")
            alike = re.sub(r"\d+(, \d+|[,.×]\d+)*", "#", alike)
        found.findings.append(Finding(kind, str(path), message, alike))

    if not image_path.exists():
        others = [suffix for suffix in IMAGE_SUFFIXES if suffix != image_path.suffix]
        there = [suffix for suffix in others if image_path.with_suffix(suffix).exists()]
        hint = f"one that ends in {there[0]} is there" if there else f"and so is one that ends in {', '.join(others)}"
        report(image_path, f"{image_path} is missing ({hint}), but the split lists it.")
    else:
        try:
            image = read_image(image_path)
            found.size = image.height, image.width
        except DatasetError as error:
            report(image_path, str(error))
    if mask_path is None:
        return found
    if not mask_path.exists():
        there = [suffix for suffix in IMAGE_SUFFIXES if mask_path.with_suffix(suffix).exists()]
        hint = f" One that ends in {there[0]} is there; masks are PNG files." if there else ""
        report(mask_path, f"{mask_path} is missing, the mask of {image_path}.{hint}")
        return found
    try:
        mask = read_mask(mask_path, source.colours)
    except ColourError as error:
        found.colours = error.counts or {}
        message = str(error)
        if error.counts and source.colours is not None and not source.colours.classes:
            message = (
                f"{mask_path} holds colours (RGB, {len(error.counts)} of them), and no palette says their classes."
            )
        report(mask_path, message, alike="colours" if error.counts else "many colours")
        return found
    except DatasetError as error:
        report(mask_path, str(error))
        return found
    if found.size not in (None, (mask.height, mask.width)):
        assert found.size is not None
        report(
            mask_path,
            f"{mask_path} is {mask.width}×{mask.height} pixels, but its image {image_path} is "
            f"{found.size[1]}×{found.size[0]}.",
        )
    values = np.bincount(np.frombuffer(mask.tobytes(), np.uint8), minlength=256)
    pixels = np.zeros(256, np.int64)
    np.add.at(pixels, [source.relabel.get(value, value) for value in range(256)], values)
    stored = [v for v in np.flatnonzero(values).tolist() if _outside(source.relabel.get(v, v), source.num_classes)]
    if stored:
        report(
            mask_path,
            f"{mask_path} holds {', '.join(map(str, stored))} in {values[stored].sum()} pixels, which is no class of "
            f"{source.name}'s {source.num_classes} and not ignored.",
        )
    elif pixels[IGNORE_INDEX] == pixels.sum():
        report(mask_path, f"{mask_path} has no pixel that counts: all are ignored.", "warning")
    found.labels = np.flatnonzero(pixels).astype(np.uint8)
    found.counts = pixels[found.labels]
    return found


def _outside(label: int, num_classes: int) -> bool:
    return label >= num_classes and label != IGNORE_INDEX


def _class_names(source: PhotoSource, decoded: Iterable[_Decoded]) -> tuple[str, ...]:
    """The names of the classes; for a Folder that does not say how many, up to the largest label in its masks."""
    if source.name != "Folder" or source.num_classes < MAX_CLASSES:
        return source.class_names
    largest = max((int(one.labels[one.labels != IGNORE_INDEX].max(initial=0)) for one in decoded), default=0)
    return source.class_names[: max(2, largest + 1)]


def _summarise(
    split: str,
    source: PhotoSource | DatasetError,
    decoded: dict[tuple[Path, Path | None], _Decoded],
    num_classes: int,
    root: str,
) -> SplitReport:
    if isinstance(source, DatasetError):
        nothing: np.ndarray = np.zeros(num_classes, np.int64)
        return SplitReport(split, 0, 0, Counter(), nothing, 0, nothing, [Finding("problem", root, str(source))])
    parts = [decoded[pair] for pair in _pairs(source)]
    pixels, images_with = np.zeros(256, np.int64), np.zeros(256, np.int64)
    colours: dict[Colour, tuple[int, int]] = {}
    for part in parts:
        pixels[part.labels] += part.counts
        images_with[part.labels] += 1
        for colour, count in part.colours.items():
            before = colours.get(colour, (0, 0))
            colours[colour] = before[0] + count, before[1] + 1
    sizes = Counter(part.size for part in parts if part.size is not None)
    findings = [finding for part in parts for finding in part.findings]
    ignored = int(pixels[IGNORE_INDEX])
    masks = sum(bool(part.labels.size) for part in parts)
    return SplitReport(
        split, len(parts), masks, sizes, pixels[:num_classes], ignored, images_with[:num_classes], findings, colours
    )


def _check_procedural(name: str, splits: Sequence[str], options: dict[str, Any]) -> DatasetReport:
    """Generates the splits and counts what they hold."""
    reports: list[SplitReport] = []
    names: tuple[str, ...] = ()
    for split in splits:
        data = load_dataset(name, split=split, **options)
        assert data.targets is not None
        counts = np.stack([np.bincount(target.ravel(), minlength=256) for target in data.targets])
        pixels, images_with = counts.sum(0), (counts > 0).sum(0)
        sizes = Counter({data.image_size: len(data)})
        ignored, num_classes, names = int(pixels[IGNORE_INDEX]), data.num_classes, data.class_names
        reports.append(
            SplitReport(
                split, len(data), len(data), sizes, pixels[:num_classes], ignored, images_with[:num_classes], []
            )
        )
    return DatasetReport(name, None, names, reports, [])
