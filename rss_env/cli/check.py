"""``rss-env check``."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import tyro
from tqdm import tqdm

from rss_env.cli.output import Json, console, print_json, print_table
from rss_env.cli.sources import Source, find_sources
from rss_env.datasets.check import DatasetReport, Finding, SplitReport, check_dataset
from rss_env.datasets.dataset import MAX_CLASSES
from rss_env.datasets.photos import Colour

MANY = 200  # pairs from which a progress bar is worth showing
SIZES_SHOWN = 5
COLOURS_SHOWN = 40


def check(
    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID|ROOT|MANIFEST")],
    /,
    *,
    root: str = "data",
    split: tuple[str, ...] = (),
    env_kwargs: str = "{}",
    as_json: Json = False,
) -> int:
    """Reads every file of a data set and reports everything that is wrong.

    Exit code 0: no problem, 1: problems, 2: the data set is not there.

    Args:
        what: id of an environment, name of a data set, a folder whose layout is detected, or a manifest
        root: folder of the data set, for an ID
        split: names of the splits; default: all that are on disk
        env_kwargs: the data set's own options as JSON, such as '{"images": "photos/*.JPEG", "masks": "labels/*_L.png"}'
    """
    reports = []
    for source in find_sources(what, root, env_kwargs):
        progress = _progress(source.dataset)
        report = check_dataset(source.dataset, source.root, split or None, progress=progress, **source.options)
        reports.append((source, report))
    if as_json:
        print_json([_as_json(report) for _, report in reports])
    else:
        for source, report in reports:
            _print(report, source)
    return 0 if all(report.clean for _, report in reports) else 1


def _progress(dataset: str) -> Callable[..., Any]:
    def wrap(pairs: Any, count: int) -> Any:
        hidden = count < MANY or not sys.stderr.isatty()
        return tqdm(pairs, f"Reading {dataset}", count, unit="image", disable=hidden, leave=False)

    return wrap


def _as_json(report: DatasetReport) -> dict[str, Any]:
    return {
        "dataset": report.dataset,
        "root": report.root,
        "found": report.found,
        "clean": report.clean,
        "not_on_disk": report.absent,
        "splits": [
            {
                "split": split.split,
                "images": split.images,
                "masks": split.masks,
                "sizes": [{"size": list(size), "images": count} for size, count in split.sizes.most_common()],
                "classes": [
                    {"name": name, "pixels": int(pixels), "share": share, "images": int(images)}
                    for name, pixels, share, images in zip(
                        report.class_names, split.pixels, shares(split), split.images_with, strict=True
                    )
                ],
                "never_seen": never_seen(report, split),
                "ignored_share": ignored_share(split),
                "unknown_colours": [
                    {"colour": list(colour), "pixels": pixels, "masks": masks}
                    for colour, (pixels, masks) in split.colours.items()
                ],
            }
            for split in report.splits
        ],
        "findings": [
            {"kind": finding.kind, "file": finding.file, "message": finding.message} for finding in report.findings
        ],
    }


def shares(split: SplitReport) -> list[float]:
    """Share of each class among the pixels that count, 0..1."""
    return (split.pixels / max(1, split.pixels.sum())).tolist()


def ignored_share(split: SplitReport) -> float:
    """Share of ignored pixels among all, 0..1."""
    return float(split.ignored / max(1, split.ignored + split.pixels.sum()))


def never_seen(report: DatasetReport, split: SplitReport) -> list[str]:
    """Names of the classes that no mask of the split holds."""
    return [name for name, pixels in zip(report.class_names, split.pixels, strict=True) if not pixels]


def _print(report: DatasetReport, source: Source) -> None:
    out = console()
    out.print(f"{report.dataset}{'' if report.root is None else f' in {report.root}'}", style="bold")
    if report.found:
        described = "" if report.class_file is None or not report.class_file.exists() else f", {report.class_file.name}"
        out.print(f"{report.found}{described}")
    if source.guessed:
        out.print(f"These patterns are a guess. To use them: {source.words()}")
    if source.unpaired:
        out.print(f"No names of photos and masks fit together here: {source.unpaired}")
    print_table(
        ("split", "images>", "masks>", "ignored>", "classes seen>", "sizes (height×width)"),
        [
            (
                split.split,
                f"{split.images:,}",
                f"{split.masks:,}",
                f"{ignored_share(split):.1%}" if split.masks else "–",
                f"{np.count_nonzero(split.pixels)} of {len(report.class_names)}" if split.masks else "–",
                _say_sizes(split.sizes),
            )
            for split in report.splits
        ],
    )
    if report.absent:
        out.print(f"not on disk: {', '.join(report.absent)}")
    if any(split.pixels.any() for split in report.splits):
        out.print("\nPixels that count, and their share", style="bold")
        print_table(
            ("class", *(f"{split.split}>" for split in report.splits)),
            [
                (
                    name,
                    *(
                        f"{split.pixels[c]:,} ({shares(split)[c]:.2%})" if split.pixels[c] else "–"
                        for split in report.splits
                    ),
                )
                for c, name in enumerate(report.class_names)
            ],
        )
    _print_colours(report)
    out.print()
    for alike in _group(report.findings):
        first, *others = alike
        style = {"problem": "red", "warning": "yellow"}[first.kind]
        if len(others) < 2:
            for finding in alike:
                out.print(f"{finding.kind}: {finding.message}", style=style)
        else:
            out.print(
                f"{first.kind}: {first.message} And {len(others):,} more like it, such as {others[0].file}.",
                style=style,
            )
    counts = Counter(finding.kind for finding in report.findings)
    out.print(
        ", ".join(f"{counts[kind]} {kind}{'s' * (counts[kind] != 1)}" for kind in ("problem", "warning")),
        style="red" if counts["problem"] else "green",
    )


def _group(findings: list[Finding]) -> list[list[Finding]]:
    """Findings that differ only in files and numbers together."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.kind, finding.alike or finding.message), []).append(finding)
    return list(groups.values())


def _print_colours(report: DatasetReport) -> None:
    """The colours of RGB masks that stand for no class, and how to begin if none does."""
    colours: dict[Colour, tuple[int, int]] = {}
    for split in report.splits:
        for colour, (pixels, masks) in split.colours.items():
            before = colours.get(colour, (0, 0))
            colours[colour] = before[0] + pixels, before[1] + masks
    if not colours:
        return
    out = console()
    ordered = sorted(colours, key=lambda colour: colours[colour], reverse=True)
    total = sum(pixels for pixels, _ in colours.values())
    out.print("\nColours in masks that stand for no class", style="bold")
    print_table(
        ("colour", "pixels>", "share>", "masks>"),
        [
            (
                str(list(colour)),
                f"{colours[colour][0]:,}",
                f"{colours[colour][0] / total:.2%}",
                f"{colours[colour][1]:,}",
            )
            for colour in ordered[:COLOURS_SHOWN]
        ],
    )
    if len(ordered) > COLOURS_SHOWN:
        out.print(f"and {len(ordered) - COLOURS_SHOWN:,} more")
    if report.class_file is None or report.class_file.exists():
        return
    if len(ordered) > MAX_CLASSES:
        out.print(
            f"These are more than {MAX_CLASSES} classes can have: were edges smoothed when the masks were resized?"
        )
        return
    listed = ordered if len(ordered) > 1 else [*ordered, (255 - ordered[0][0], *ordered[0][1:])]
    names = ", ".join(f'"class {c}"' for c in range(len(listed)))
    palette = ",\n             ".join(str(list(colour)) for colour in listed)
    out.print("\nTo read them, write the classes down. With your names in place of these, paste this into a shell:")
    out.print(
        f"cat > {shlex.quote(str(report.class_file))} <<'END'\n"
        f'{{"classes": [{names}],\n "palette": [{palette}],\n "ignore_colours": []}}\nEND'
    )
    out.print('A colour whose pixels should not count goes from "palette" to "ignore_colours", and its name goes.')


def _say_sizes(sizes: Counter[tuple[int, int]]) -> str:
    shown = [f"{height}×{width} ({count:,})" for (height, width), count in sizes.most_common(SIZES_SHOWN)]
    further = len(sizes) - len(shown)
    return ", ".join(shown) + (f" and {further} more sizes" if further else "")
