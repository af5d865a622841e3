"""``rss-env download``."""

from __future__ import annotations

from typing import Annotated

import tyro

from rss_env.datasets import DATASETS, find_dataset
from rss_env.errors import OptionError


def download(
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")],
    /,
    *,
    root: str = "data",
    mirror: str | None = None,
    progress: bool = True,
) -> int:
    """Fetches a data set into the layout that its environments read; says what to do if that takes a login.

    Args:
        name: name of the data set, such as voc2012
        root: folder for the data set
        mirror: address of the archive to try before the known ones; the checksum must be the same
        progress: show a progress bar
    """
    dataset = find_dataset(name)
    if DATASETS[dataset].locate is None:
        raise OptionError(f"{dataset} is procedural: there is nothing to download.")
    from rss_env.datasets.download import download as fetch  # pooch is slow to import, and only this command needs it

    home = fetch(dataset, root, mirror=mirror, progress=progress)
    print(f"{dataset} is in {home}. Check it with: rss-env check {dataset} --root {root}")
    return 0
