"""Finds the data that a person means by a word on the command line."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rss_env.cli.ids import check_env_kwargs, dataset_root, parse_env_kwargs, resolve
from rss_env.datasets import DATASETS, manifest
from rss_env.datasets.check import find_layouts, locate_splits
from rss_env.datasets.files import root_path
from rss_env.datasets.guess import find_pictures, guess_patterns, what_is_in
from rss_env.datasets.photos import PhotoSource
from rss_env.errors import DatasetNotFoundError, OptionError

PLACES = {"images", "masks", "manifest", "huggingface"}  # options of Folder that say where its files are
SAVED = ("dataset_dict.json", "state.json")  # what the library datasets saves


@dataclass(frozen=True)
class Source:
    """A data set in a folder.

    Attributes:
        dataset: registry name.
        root: its folder; None for a procedural data set.
        options: its own options.
        guessed: whether some of them were guessed from the names of the files.
        unpaired: the pictures that were found, where names do not say which are masks.
    """

    dataset: str
    root: str | None
    options: dict[str, Any] = field(default_factory=dict)
    guessed: bool = False
    unpaired: str = ""

    def words(self) -> str:
        """The arguments that other commands take for it."""
        return f"--root {shlex.quote(self.root or '')} --env-kwargs {shlex.quote(json.dumps(self.options))}"


def find_sources(what: str, root: str, env_kwargs: str) -> list[Source]:
    """The data sets meant by a word: a name, a folder or a manifest. A name wins over a folder (write ``./name``).

    Args:
        what: the word.
        root: folder of the data set, for a name.
        env_kwargs: the data set's own options, as JSON.

    Raises:
        OptionError: the word means nothing, or an option is not the data set's.
        DatasetNotFoundError: a folder without anything that is known.
    """
    try:
        dataset, _ = resolve(what)
    except OptionError as error:
        path = root_path(what)
        if path.is_file():
            return [_manifest(path, env_kwargs)]
        if not path.is_dir():
            raise OptionError(
                f"There is no folder {what}." if "/" in what else f"{error} There is no such folder either."
            ) from None
        return _in_folder(path, env_kwargs)
    return [Source(dataset, dataset_root(dataset, root), _checked(parse_env_kwargs(env_kwargs), dataset))]


def _has_a_pair(path: Path, options: dict[str, Any]) -> bool:
    """Whether a folder with ``images/`` has ``masks/`` with a mask of any photo, or an error to be told."""
    source = locate_splits("Folder", path, ["all"], **_checked(options, "Folder")).get("all")
    return not isinstance(source, PhotoSource) or any(mask.exists() for mask in source.masks)


def _checked(options: dict[str, Any], dataset: str) -> dict[str, Any]:
    check_env_kwargs(options, DATASETS[dataset].options)
    return options


def _manifest(path: Path, env_kwargs: str) -> Source:
    if path.suffix.lower() not in manifest.SUFFIXES:
        raise OptionError(f"{path} is no folder, and a manifest ends in {', '.join(manifest.SUFFIXES)}.")
    return Source(
        "Folder", str(path.parent), {"manifest": path.name, **_checked(parse_env_kwargs(env_kwargs), "Folder")}
    )


def _in_folder(path: Path, env_kwargs: str) -> list[Source]:
    folder, given = str(path), parse_env_kwargs(env_kwargs)
    if not given.keys() & {"manifest", "huggingface"} and any((path / name).is_file() for name in SAVED):
        given = {"huggingface": ".", **given}
    named = bool(given.keys() & PLACES)
    found = ["Folder"] if named else find_layouts(path)
    if named or (found and (found != ["Folder"] or _has_a_pair(path, given))):
        return [Source(dataset, folder, _checked(given, dataset)) for dataset in found]
    groups = find_pictures(path)
    guess = guess_patterns(groups)
    unpaired = "" if "masks" in guess or len(groups) < 2 else what_is_in(path, groups)
    if found and "masks" not in guess:
        return [Source("Folder", folder, _checked(given, "Folder"), unpaired=unpaired)]
    if guess:
        return [Source("Folder", folder, {**guess, **_checked(given, "Folder")}, guessed=True, unpaired=unpaired)]
    layouts = "\n".join(f"{n}:\n{e.info.layout}" for n, e in DATASETS.items() if e.locate is not None)
    raise DatasetNotFoundError(
        f"{path} holds no data set in a known layout. It holds {what_is_in(path, groups)}.\n"
        'Photos and masks of other names: --env-kwargs \'{"images": "photos/*.jpg", "masks": "labels/*_L.png"}\', '
        f"where * is what the two names share.\nThe known layouts are\n{layouts}"
    )
