"""A kind of feedback from a dict, as ``env.spec`` records it, or from text, as a command line gives it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rss_env.errors import OptionError
from rss_env.named import find_callable
from rss_env.wrappers.feedback import KINDS, Feedback


def as_feedback(given: Feedback | Mapping[str, Any] | str) -> Feedback:
    """A kind of feedback from any of its three forms.

    Args:
        given: a kind; or a dict of its name, under ``"kind"``, and its arguments; or ``"NAME:ARGUMENTS"``, where the
            arguments are separated by commas and come in order or as ``name=value``.

    Raises:
        OptionError: no such kind, or a wrong argument; the message lists the valid ones.

    Example:
        >>> as_feedback("shaping:log,epsilon=0.01") == as_feedback({"kind": "shaping", "shape": "log", "epsilon": 0.01})
        True
    """
    if isinstance(given, Feedback):
        return given
    in_order: list[Any] = []
    if isinstance(given, str):
        name, in_order, arguments = _read(given)
    elif isinstance(given, Mapping) and isinstance(given.get("kind"), str):
        name, arguments = given["kind"], {key: value for key, value in given.items() if key != "kind"}
    else:
        raise OptionError(
            "A kind of feedback is such as Stars(3), {'kind': 'stars', 'stars': 3} or 'stars:3', got "
            f"{given!r}; names: {', '.join(KINDS)}."
        )
    kind = _find(name)
    names = [field.name for field in fields(kind)]
    unknown = [key for key in arguments if key not in names[len(in_order) :]]
    if unknown or len(in_order) > len(names):
        wrong = f"takes no {unknown[0]!r} here" if unknown else f"takes no {len(in_order)} arguments"
        raise OptionError(f"Feedback {name!r} {wrong}; its arguments, in order: {', '.join(names) or '(none)'}.")
    return kind(*in_order, **arguments)


def _read(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """The name, the arguments in order and the named ones of ``"NAME:ARGUMENTS"``."""
    name, _, rest = text.partition(":")
    if name not in KINDS and rest:
        place, _, rest = rest.partition(":")
        name = f"{name}:{place}"
    words = [word.strip() for word in rest.split(",")] if rest else []
    pairs = [word.split("=", 1) for word in words if "=" in word]
    return name, [_value(word) for word in words if "=" not in word], {key: _value(value) for key, value in pairs}


def _value(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        return word  # a name, such as log


def _find(name: str) -> type[Feedback]:
    if name in KINDS:
        return KINDS[name]
    kind: Any = None
    reason = None
    if ":" in name:
        try:
            kind = find_callable("feedback", name)
        except OptionError as error:
            reason = error
    if isinstance(kind, type) and issubclass(kind, Feedback):
        return kind
    raise OptionError(
        f"Unknown kind of feedback {name!r}{f' ({reason})' if reason else ''}; valid: {', '.join(KINDS)}, or "
        "MODULE:CLASS of your own, which derives from rss_env.wrappers.Feedback."
    ) from reason
