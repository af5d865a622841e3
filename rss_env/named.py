"""Callables by name, ``module:function``, as a command line, a spec or a run folder gives them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from rss_env.errors import OptionError


def find_callable(what: str, name: str) -> Callable[..., Any]:
    """The callable called ``"module:function"``.

    Args:
        what: what it is for, such as ``"reward"``; errors say so.
        name: of the callable; there may be dots on both sides.

    Raises:
        OptionError: there is no such module, it has no such attribute, or that cannot be called.
    """
    module, _, place = name.partition(":")
    if not module or not place or module.startswith("."):
        raise OptionError(f"A {what} of your own is named as module:function, got {name!r}.")
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise OptionError(f"The {what} {name!r} cannot be imported: {error}.") from None
    try:
        for attribute in place.split("."):
            found = getattr(found, attribute)
    except AttributeError:
        hint = "It was in the script that was run: put it in a file of its own." if module == "__main__" else ""
        raise OptionError(f"The {what} {name!r}: module {module} has no {place!r}. {hint}".rstrip()) from None
    if not callable(found):
        raise OptionError(f"The {what} {name!r} must be callable, got {type(found).__name__}.")
    return found


def name_of(given: Callable[..., Any]) -> str:
    """``module:function`` of a callable, as far as it has a name; of an object, that of its class."""
    module = getattr(given, "__module__", None) or type(given).__module__
    return f"{module}:{getattr(given, '__qualname__', None) or type(given).__qualname__}"


def importable_name(what: str, given: Callable[..., Any]) -> str:
    """The name under which ``find_callable`` finds a callable again.

    Raises:
        OptionError: it finds none, or another one.
    """
    name = name_of(given)
    try:
        found = find_callable(what, name)
    except OptionError:
        found = None
    if found is not given:
        raise OptionError(
            f"A {what} is given by its name, or by a callable that can be imported again: a function at the top of a "
            f"module. Got {given!r}."
        )
    return name
