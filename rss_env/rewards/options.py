"""Checks of the rewards' own options: (value, C) -> the value as the rewards take it."""

from __future__ import annotations

import math
from typing import Any

from rss_env.errors import OptionError
from rss_env.rewards.classes import CLASSES


def check_classes(value: Any, num_classes: int) -> str:
    """One of ``CLASSES``."""
    if value not in CLASSES:
        raise OptionError(f"classes must be one of {', '.join(map(repr, CLASSES))}, got {value!r}.")
    return value


def check_class_weights(value: Any, num_classes: int) -> tuple[float, ...] | None:
    """C finite numbers of at least 0, not all of them 0; None stays None."""
    if value is None:
        return None
    try:
        weights = tuple(float(weight) for weight in value)
    except (TypeError, ValueError):
        weights = ()
    if len(weights) != num_classes or not all(0 <= w < math.inf for w in weights) or not any(weights):
        raise OptionError(
            f"class_weights must be {num_classes} finite numbers of at least 0, one a class and not all of them 0, "
            f"got {value!r}."
        )
    return weights


def check_tolerance(value: Any, num_classes: int) -> float | None:
    """A distance in pixels, at least 0; None stays None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise OptionError(f"tolerance must be a number of pixels of at least 0, or None, got {value!r}.")
    return float(value)


OPTION_CHECKS = {"classes": check_classes, "class_weights": check_class_weights, "tolerance": check_tolerance}
