"""Checks of arguments, shared by environments, wrappers and evaluation; each error names the argument.

They ask for the type that is meant, because Python's own conversions say yes to too much: ``bool("False")`` is True,
``int(2.7)`` is 2, and a string is a sequence.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from rss_env.errors import OptionError, UnknownArgumentError


def is_count(value: Any, least: int = 1) -> bool:
    """Whether ``value`` is an integer, no bool, from ``least`` to 2**63 - 1."""
    return is_integer(value) and least <= int(value) < 1 << 63


def is_integer(value: Any) -> bool:
    """Whether ``value`` is an integer of Python or NumPy, and no bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite real number of Python or NumPy, and no bool."""
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return real and math.isfinite(value)


def check_flag(name: str, value: Any) -> bool:
    """``value`` as a bool.

    Raises:
        OptionError: it is neither Python's nor NumPy's True or False.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise OptionError(f"{name} must be True or False, got {value!r}.")
    return bool(value)


def check_choice(what: str, value: Any, valid: Iterable[str]) -> None:
    """Raises ``OptionError`` that lists the valid strings if ``value`` is not one of them."""
    valid = tuple(valid)
    if not isinstance(value, str) or value not in valid:
        raise OptionError(f"Unknown {what} {value!r}; valid: {', '.join(valid)}.")


def check_data_arguments(root: Any, split: Any, resize: Any, image_size: Any, options: dict[str, Any]) -> None:
    """Raises ``OptionError`` if an argument that says which images are meant is of a type that it cannot have.

    Which values there are the data set knows.
    """
    if root is not None and not isinstance(root, (str, os.PathLike)):
        raise OptionError(f"root must be the path of a folder, got {root!r}.")
    for name, value in (("split", split), ("resize", resize)):
        if not isinstance(value, str):
            raise OptionError(f"{name} must be a string, got {value!r}.")
    if image_size is not None:
        check_size("image_size", image_size)
    for name, value in options.items():
        if not isinstance(value, (str, int, float, np.generic, type(None))):
            raise OptionError(f"{name} must be a number, a bool or a string, got {value!r}.")


def check_size(name: str, size: Any) -> tuple[int, int]:
    """``size`` as two Python integers.

    Raises:
        OptionError: it is no height and width.
    """
    sides = size.tolist() if isinstance(size, np.ndarray) else size
    if not isinstance(sides, Sequence) or len(sides) != 2 or not all(map(is_count, sides)):
        raise OptionError(f"{name} must be two positive integers (H, W), got {size!r}.")
    return int(sides[0]), int(sides[1])


def check_seed(seed: Any) -> int | None:
    """``seed`` as a Python integer; None stays None.

    Raises:
        OptionError: it is no integer of at least 0.
    """
    if seed is None:
        return None
    if not is_integer(seed) or seed < 0:
        raise OptionError(f"seed must be None or an integer of at least 0, got {seed!r}.")
    return int(seed)


def refuse_unknown(function: Callable[..., Any], given: Iterable[str], valid: Iterable[str]) -> None:
    """Raises ``UnknownArgumentError`` for the first given name that is not valid, in the words that Python has for it.

    Libraries look for these words: TorchRL tries arguments and takes back those that are not known.
    """
    valid = tuple(valid)
    for name in given:
        if name not in valid:
            raise UnknownArgumentError(
                f"{function.__qualname__}() got an unexpected keyword argument {name!r}; valid: {', '.join(valid)}."
            )


def keywords(*functions: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the arguments of functions or methods, each once."""
    taken = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = [p for function in functions for p in inspect.signature(function).parameters.values()]
    return tuple(dict.fromkeys(p.name for p in parameters if p.kind in taken and p.name != "self"))
