"""Checks of the rewards' own options: (value, C) -> the value as the rewards take it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from rss_env.errors import OptionError
from rss_env.rewards.classes import CLASSES


def check_classes(value: Any, num_classes: int) -> str:
    """One of ``CLASSES``."""
    if not isinstance(value, str) or value not in CLASSES:
        raise OptionError(f"classes must be one of {', '.join(map(repr, CLASSES))}, got {value!r}.")
    return value


def check_class_weights(value: Any, num_classes: int) -> tuple[float, ...] | None:
    """C finite numbers of at least 0, not all of them 0; None stays None.

    They come back times a power of two that brings the largest to [0.5, 1): no score changes by it, and no sum of
    weights overflows or loses digits near 0.
    """
    if value is None:
        return None
    given = value.tolist() if hasattr(value, "tolist") else value  # an array or a tensor
    weights = [_as_number(weight) for weight in given] if isinstance(given, Sequence) else []
    if len(weights) != num_classes or not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise OptionError(
            f"class_weights must be {num_classes} finite numbers of at least 0, one a class and not all of them 0, "
            f"got {value!r}."
        )
    exponent = math.frexp(max(weights))[1]
    return tuple(math.ldexp(weight, -exponent) for weight in weights)


def check_tolerance(value: Any, num_classes: int) -> float | None:
    """A distance in pixels, at least 0; None stays None."""
    if value is None:
        return None
    tolerance = _as_number(value)
    if not 0 <= tolerance < math.inf:
        raise OptionError(f"tolerance must be a number of pixels of at least 0, or None, got {value!r}.")
    return tolerance


def _as_number(value: Any) -> float:
    """The number as a float, NaN if it is none (a bool and a text are none) or too large."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


OPTION_CHECKS = {"classes": check_classes, "class_weights": check_class_weights, "tolerance": check_tolerance}
