"""Checks of label maps and targets that come from outside an environment, which checks its own."""

from __future__ import annotations

import sys

import numpy as np

from rss_env.datasets.dataset import IGNORE_INDEX
from rss_env.errors import OptionError
from rss_env.rewards.arrays import Array
from rss_env.rewards.counts import narrow


def check_scored(label_maps: Array, targets: Array, num_classes: int) -> tuple[Array, Array]:
    """What rewards take: label maps, uint8 (B, K, H, W), and targets, uint8 (B, H, W), of one kind.

    The values of tensors on an accelerator are not looked at: the host would have to wait for them.

    Raises:
        OptionError: C is not in 2..255, the arrays are not of one kind, shapes do not fit or hold nothing, a dtype is
            not integer, or a value is outside 0..C-1 (in targets: and not 255).
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, (int, np.integer)) or not 2 <= num_classes <= 255:
        raise OptionError(f"num_classes must be an integer from 2 to 255, got {num_classes!r}.")
    if _kind(label_maps) is None or _kind(label_maps) != _kind(targets):
        raise OptionError(
            "Label maps and targets must both be NumPy arrays or both torch tensors, of integers, got "
            f"{_describe(label_maps)} and {_describe(targets)}."
        )
    batch, _, *size = shape = tuple(label_maps.shape) if label_maps.ndim == 4 else (0,) * 4
    if 0 in shape or tuple(targets.shape) != (batch, *size):
        raise OptionError(
            "Expected label maps of shape (B, K, H, W) and targets of shape (B, H, W), each size at least 1, got "
            f"{tuple(label_maps.shape)} and {tuple(targets.shape)}."
        )
    if isinstance(label_maps, np.ndarray):
        return _check_labels(label_maps, num_classes), _check_targets(targets, num_classes)
    torch = sys.modules["torch"]
    if label_maps.is_cpu:
        label_maps = torch.from_numpy(_check_labels(label_maps.numpy(), num_classes))
        return label_maps, torch.from_numpy(_check_targets(targets.numpy(), num_classes))
    return label_maps.to(torch.uint8), targets.to(torch.uint8)


def _kind(array: Array) -> str | None:
    """"NumPy" or the torch device of an array of integers, else None."""
    if isinstance(array, np.ndarray):
        return "NumPy" if array.dtype.kind in "iu" else None
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(array, torch.Tensor):
        return None
    whole = not (array.is_floating_point() or array.is_complex() or array.dtype == torch.bool)
    return str(array.device) if whole else None


def _describe(array: Array) -> str:
    where = f" on {array.device}" if hasattr(array, "is_cpu") else ""
    return f"{type(array).__name__} of {array.dtype}{where}" if hasattr(array, "dtype") else type(array).__name__


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
            f"A target holds classes 0..{num_classes - 1} and {IGNORE_INDEX} where it is ignored, got {wrong[0]}."
        )
    return targets.astype(np.uint8, copy=False)
