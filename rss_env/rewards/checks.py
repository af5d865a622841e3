"""Checks of what a caller passes: label maps and targets from outside an environment, and the rewards' own options.

An environment checks its own label maps. An option's check takes (value, C) and gives the value as the rewards take it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from rss_env.datasets.dataset import IGNORE_INDEX
from rss_env.errors import OptionError
from rss_env.rewards.arrays import Array
from rss_env.rewards.classes import CLASSES
from rss_env.rewards.counting import narrow


def check_scored(label_maps: Array, targets: Array, num_classes: int) -> tuple[Array, Array]:
    """What the rewards take: label maps, uint8 (B, K, H, W), and targets, uint8 (B, H, W), of one kind.

    The values of tensors on an accelerator are not checked: the host would have to wait for them.

    Raises:
        OptionError: C is not in 2..255, the arrays are not of one kind or not of integers, their shapes do not fit or
            hold nothing, or a value is outside 0..C-1 (in a target: and not 255).
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, (int, np.integer)) or not 2 <= num_classes <= 255:
        raise OptionError(f"num_classes must be an integer from 2 to 255, got {num_classes!r}.")
    if "" in (_kind(label_maps), _kind(targets)) or _kind(label_maps) != _kind(targets):
        raise OptionError(
            "Label maps and targets must be NumPy arrays, or torch tensors on one device, of integers; got "
            f"{_describe(label_maps)} and {_describe(targets)}."
        )
    batch, *_, height, width = label_maps.shape if label_maps.ndim == 4 else (0,) * 4
    if 0 in label_maps.shape or targets.shape != (batch, height, width):
        raise OptionError(
            "Label maps must have shape (B, K, H, W) and targets (B, H, W), with at least one of each; got "
            f"{tuple(label_maps.shape)} and {tuple(targets.shape)}."
        )
    if isinstance(label_maps, np.ndarray):
        return _check_labels(label_maps, num_classes), _check_targets(targets, num_classes)
    torch = sys.modules["torch"]
    if not label_maps.is_cpu:
        return label_maps.to(torch.uint8), targets.to(torch.uint8)
    on_host = _check_labels(label_maps.numpy(), num_classes), _check_targets(targets.numpy(), num_classes)
    return torch.from_numpy(on_host[0]), torch.from_numpy(on_host[1])


def _kind(array: Array) -> str:
    """Where an array of integers is: in NumPy or on a torch device; "" if it is no array of integers."""
    if isinstance(array, np.ndarray):
        return "NumPy" if array.dtype.kind in "iu" else ""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(array, torch.Tensor):
        return ""
    return "" if array.is_floating_point() or array.is_complex() or array.dtype == torch.bool else str(array.device)


def _describe(array: Array) -> str:
    features = [str(getattr(array, name)) for name in ("dtype", "device") if hasattr(array, name)]
    return " ".join([type(array).__name__, *features])


def _check_labels(label_maps: np.ndarray, num_classes: int) -> np.ndarray:
    narrowed = narrow(label_maps, num_classes)
    if narrowed is None:
        raise OptionError(
            f"A label map holds classes 0..{num_classes - 1}, got values from {label_maps.min()} to {label_maps.max()}."
        )
    return narrowed


def _check_targets(targets: np.ndarray, num_classes: int) -> np.ndarray:
    wrong = targets[((targets < 0) | (targets >= num_classes)) & (targets != IGNORE_INDEX)]
    if wrong.size:
        raise OptionError(
            f"A target holds classes 0..{num_classes - 1}, and {IGNORE_INDEX} where it is ignored; got {wrong[0]}."
        )
    return targets.astype(np.uint8, copy=False)


def check_classes(value: Any, num_classes: int) -> str:
    """One of ``CLASSES``."""
    if not isinstance(value, str) or value not in CLASSES:
        raise OptionError(f"classes must be one of {', '.join(map(repr, CLASSES))}, got {value!r}.")
    return value


def check_class_weights(value: Any, num_classes: int) -> tuple[float, ...] | None:
    """C finite numbers of at least 0, not all of them 0; None stays None.

    They are scaled by a power of two that brings the largest to [0.5, 1): that changes no score, and no sum of weights
    overflows or loses digits near 0.
    """
    if value is None:
        return None
    given = value.tolist() if hasattr(value, "tolist") else value  # an array or a tensor
    weights = [_as_number(weight) for weight in given] if isinstance(given, Sequence) else []
    if len(weights) != num_classes or not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise OptionError(
            f"class_weights must be {num_classes} finite numbers of at least 0, one per class and not all of them 0, "
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
    """The value as a float, NaN if it is too large or not a number (a bool or a string)."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


OPTION_CHECKS = {"classes": check_classes, "class_weights": check_class_weights, "tolerance": check_tolerance}
