"""Checks of label maps and targets that come from outside an environment, which checks its own."""

from __future__ import annotations

import sys

import numpy as np

from rss_env.datasets.dataset import IGNORE_INDEX
from rss_env.errors import OptionError
from rss_env.rewards.arrays import Array
from rss_env.rewards.counts import narrow


def check_scored(label_maps: Array, targets: Array, num_classes: int) -> tuple[Array, Array]:
    """What the rewards take: label maps, uint8 (B, K, H, W), and targets, uint8 (B, H, W), of one kind.

    The values of tensors on an accelerator are not looked at: the host would have to wait for them.

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
    """Where an array of integers is: in NumPy, or on a torch device; "" if it is none."""
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
