"""``rss-env convert``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from tqdm import tqdm

from rss_env.cli.sources import find_sources
from rss_env.datasets.convert import convert_dataset
from rss_env.errors import OptionError


def convert(
    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID|ROOT|MANIFEST")],
    target: Annotated[Path, tyro.conf.Positional],
    /,
    *,
    root: str = "data",
    env_kwargs: str = "{}",
) -> int:
    """Writes a data set into a new folder in the layout of Folder: images/, masks/, splits/ and classes.json.

    Photos are copied as they are; masks, RGB ones too, become PNG files of class numbers. The source is only read.

    Args:
        what: id of an environment, name of a data set, a folder whose layout is detected, or a manifest
        target: folder to write, which must not be there or be empty
        root: folder of the data set, for an ID
        env_kwargs: the data set's own options as JSON, such as '{"images": "photos/*.JPEG", "masks": "labels/*_L.png"}'
    """
    sources = find_sources(what, root, env_kwargs)
    if len(sources) > 1:
        names = ", ".join(source.dataset for source in sources)
        raise OptionError(f"{what} holds several data sets: write one of {names} instead, with --root {what}.")
    (source,) = sources

    def progress(photos: Any, count: int) -> Any:
        return tqdm(photos, f"Writing {target}", count, unit="image", disable=not sys.stderr.isatty(), leave=False)

    written = convert_dataset(source.dataset, source.root, target, progress=progress, **source.options)
    splits = ", ".join(f"{split} {count:,}" for split, count in written.splits.items())
    print(
        f"{target}: {written.images:,} images, {written.masks:,} masks, {len(written.class_names)} classes; {splits}. "
        f"Check it with: rss-env check {target}"
    )
    return 0
