"""Turns what a person types into an environment id or a data set."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from rss_env.datasets import DATASETS, find_dataset
from rss_env.errors import OptionError
from rss_env.registration import env_id

IDS = {env_id(name, level).lower(): (name, level) for name, entry in DATASETS.items() for level in entry.levels}


def resolve(word: str) -> tuple[str, str]:
    """(data set, level) of an id, or of the name of a data set, which means its first, image-level id.

    Raises:
        OptionError: it is neither.
    """
    if word.lower() in IDS:
        return IDS[word.lower()]
    try:
        dataset = find_dataset(word)
    except OptionError as error:
        raise OptionError(f"{word!r} is not an environment id (`rss-env list` shows them). {error}") from None
    return dataset, DATASETS[dataset].levels[0]


def dataset_root(dataset: str, root: str) -> str | None:
    """The folder to read a data set from; None for a procedural one."""
    return root if DATASETS[dataset].locate is not None else None


def num_classes(dataset: str) -> int | None:
    """C with default arguments; None where the user's files decide."""
    return len(DATASETS[dataset].info.class_names) or None


def parse_env_kwargs(text: str) -> dict[str, Any]:
    """Reads ``--env-kwargs``.

    Raises:
        OptionError: it is not a JSON object.
    """
    try:
        options = json.loads(text)
    except ValueError as error:
        raise OptionError(f"--env-kwargs must be JSON, got {text!r}: {error}.") from None
    if not isinstance(options, dict):
        raise OptionError(f"--env-kwargs must be a JSON object, got {text!r}.")
    return options


def check_env_kwargs(options: Mapping[str, Any], valid: Collection[str]) -> None:
    """Raises ``OptionError`` if ``--env-kwargs`` held an argument that is not among the valid ones."""
    unknown = sorted(set(options) - set(valid))
    if unknown:
        raise OptionError(f"--env-kwargs takes {', '.join(valid) or 'nothing here'}; got {unknown[0]!r}.")
