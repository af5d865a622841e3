"""``rss-env check``."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import tyro
from tqdm import tqdm

from rss_env.cli.ids import dataset_root, parse_env_kwargs, resolve
from rss_env.cli.output import Json, console, print_json, print_table
from rss_env.datasets import DATASETS
from rss_env.datasets.check import DatasetReport, SplitReport, check_dataset, find_layouts
from rss_env.datasets.files import root_path
from rss_env.errors import DatasetNotFoundError, OptionError

MANY = 200  # pairs from which a progress bar is worth showing
SIZES_SHOWN = 5


def check(
    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID|ROOT")],
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
        what: id of an environment, name of a data set, or a folder whose layout is detected
        root: folder of the data set, for an ID
        split: names of the splits; default: all that are on disk
        env_kwargs: the data set's own options as JSON, such as '{"num_classes": 3}'
    """
    reports = []
    for dataset, folder in _find(what, root):
        options = parse_env_kwargs(env_kwargs, DATASETS[dataset].options)
        reports.append(check_dataset(dataset, folder, split or None, progress=_progress(dataset), **options))
    if as_json:
        print_json([_as_json(report) for report in reports])
    else:
        for report in reports:
            _print(report)
    return 0 if all(report.clean for report in reports) else 1


def _find(what: str, root: str) -> list[tuple[str, str | None]]:
    """The data sets meant, each with its folder. A name wins over a folder of that name (write ``./name``)."""
    try:
        dataset, _ = resolve(what)
        return [(dataset, dataset_root(dataset, root))]
    except OptionError as error:
        if not root_path(what).is_dir():
            raise OptionError(
                f"There is no folder {what}." if "/" in what else f"{error} There is no such folder either."
            ) from None
    folder = str(root_path(what))
    found = find_layouts(folder)
    if not found:
        layouts = "\n".join(f"{n}:\n{e.info.layout}" for n, e in DATASETS.items() if e.locate is not None)
        raise DatasetNotFoundError(f"{what} holds no data set in a known layout. Expected one of\n{layouts}")
    return [(dataset, folder) for dataset in found]


def _progress(dataset: str) -> Callable[..., Any]:
    def wrap(pairs: Any, count: int) -> Any:
        hidden = count < MANY or not sys.stderr.isatty()
        return tqdm(pairs, f"Reading {dataset}", count, unit="image", disable=hidden, leave=False)

    return wrap


def _as_json(report: DatasetReport) -> dict[str, Any]:
    return {
        "dataset": report.dataset,
        "root": report.root,
        "clean": report.clean,
        "not_on_disk": report.absent,
        "splits": [
            {
                "split": split.split,
                "images": split.images,
                "sizes": [{"size": list(size), "images": count} for size, count in split.sizes.most_common()],
                "classes": [
                    {"name": name, "pixels": int(pixels), "share": share, "images": int(images)}
                    for name, pixels, share, images in zip(
                        report.class_names, split.pixels, shares(split), split.images_with, strict=True
                    )
                ],
                "never_seen": never_seen(report, split),
                "ignored_share": ignored_share(split),
            }
            for split in report.splits
        ],
        "findings": [vars(finding) for finding in report.findings],
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


def _print(report: DatasetReport) -> None:
    out = console()
    out.print(f"{report.dataset}{'' if report.root is None else f' in {report.root}'}", style="bold")
    print_table(
        ("split", "images>", "ignored>", "classes seen>", "sizes (height×width)"),
        [
            (
                split.split,
                f"{split.images:,}",
                f"{ignored_share(split):.1%}",
                f"{np.count_nonzero(split.pixels)} of {len(report.class_names)}",
                _say_sizes(split.sizes),
            )
            for split in report.splits
        ],
    )
    if report.absent:
        out.print(f"not on disk: {', '.join(report.absent)}")
    out.print("\nShare of the pixels that count", style="bold")
    print_table(
        ("class", *(f"{split.split}>" for split in report.splits)),
        [
            (name, *(f"{share:.2%}" if share else "–" for share in row))
            for name, row in zip(report.class_names, zip(*map(shares, report.splits), strict=True), strict=True)
        ],
    )
    counts = Counter(finding.kind for finding in report.findings)
    out.print()
    for finding in report.findings:
        out.print(f"{finding.kind}: {finding.message}", style={"problem": "red", "warning": "yellow"}[finding.kind])
    out.print(
        ", ".join(f"{counts[kind]} {kind}{'s' * (counts[kind] != 1)}" for kind in ("problem", "warning")),
        style="red" if counts["problem"] else "green",
    )


def _say_sizes(sizes: Counter[tuple[int, int]]) -> str:
    shown = [f"{height}×{width} ({count:,})" for (height, width), count in sizes.most_common(SIZES_SHOWN)]
    further = len(sizes) - len(shown)
    return ", ".join(shown) + (f" and {further} more sizes" if further else "")
