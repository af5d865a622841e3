"""``rss-env list``."""

from __future__ import annotations

import importlib.util
from typing import Any

from rss_env.cli.ids import num_classes
from rss_env.cli.output import Json, print_json, print_table
from rss_env.datasets import DATASETS
from rss_env.datasets.check import complete_splits
from rss_env.datasets.photos import PhotoSource
from rss_env.registration import env_id


def list_ids(*, root: str = "data", as_json: Json = False) -> int:
    """The environments, and which of their data sets are on disk.

    Args:
        root: folder to look for data sets in
    """
    found = _on_disk(root)
    rows = [_describe(name, level, found[name]) for name, entry in DATASETS.items() for level in entry.levels]
    if as_json:
        print_json(rows)
        return 0
    print_table(
        ("id", "data set", "level", "classes>", "size>", "on disk"),
        [
            (
                row["id"],
                row["dataset"],
                row["level"],
                str(row["classes"] or "any"),
                "×".join(map(str, row["image_size"])),
                _say(row["on_disk"]),
            )
            for row in rows
        ],
    )
    return 0


def _on_disk(root: str) -> dict[str, str | dict[str, int | None]]:
    """Data set -> ``"always"``, or the splits found with their numbers of images, None for one that is incomplete."""
    found: dict[str, Any] = {}
    for dataset, entry in DATASETS.items():
        if entry.locate is None:
            there = entry.library is None or importlib.util.find_spec(entry.library) is not None
            found[dataset] = "always" if there else {}
            continue
        sources = complete_splits(dataset, root)
        found[dataset] = {s: len(f.images) if isinstance(f, PhotoSource) else None for s, f in sources.items()}
    return found


def _describe(dataset: str, level: str, on_disk: str | dict[str, int | None]) -> dict[str, Any]:
    return {
        "id": env_id(dataset, level),
        "dataset": dataset,
        "level": level,
        "classes": num_classes(dataset),
        "image_size": list(DATASETS[dataset].image_size),
        "on_disk": on_disk,
    }


def _say(on_disk: str | dict[str, int | None]) -> str:
    if isinstance(on_disk, str):
        return on_disk
    return ", ".join(split if count else f"{split} (incomplete)" for split, count in on_disk.items()) or "no"
