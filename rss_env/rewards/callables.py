"""A callable as the reward: a person, a simulator or a judge model that scores one label map at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rss_env.errors import OptionError
from rss_env.rewards.arrays import Array


def check_callable(level: str, options: Any) -> None:
    """Raises ``OptionError`` where a callable cannot be the reward: at pixel level, or with ``reward_options``."""
    if level != "image":
        raise OptionError(
            f"A callable reward gives one score a label map, so it needs an image-level id, not {level!r} level."
        )
    if options is not None:
        raise OptionError(f"reward_options are for rewards by name; a callable takes none, got {options!r}.")


def score_by_calling(judge: Callable[..., float], images: Array, label_maps: Array, targets: Array | None) -> Array:
    """Calls ``judge(image, label_map, target)`` for each label map.

    Args:
        judge: gets an image, uint8 (H, W, 3), a label map, uint8 (H, W), and the target, uint8 (H, W), or None where
            there are no masks; NumPy arrays or torch tensors, as the environment has them; it must not write to them.
            Returns a finite number.
        images: uint8 (B, H, W, 3).
        label_maps: uint8 (B, K, H, W).
        targets: uint8 (B, H, W) or None.

    Returns:
        float64 (B, K), of the kind and on the device of the images.

    Raises:
        OptionError: the judge returned something other than a finite number.
    """
    scores: np.ndarray = np.empty(label_maps.shape[:2], np.float64)
    for b, image in enumerate(images):
        for k, label_map in enumerate(label_maps[b]):
            given = judge(image, label_map, None if targets is None else targets[b])
            scores[b, k] = _as_number(given)
            if not math.isfinite(scores[b, k]):
                raise OptionError(f"The reward callable must give a finite number for a label map, got {given!r}.")
    if isinstance(images, np.ndarray):
        return scores
    import torch

    return torch.from_numpy(scores).to(images.device)


def _as_number(given: Any) -> float:
    """The value as a float, NaN if it is not a number; a string is not one, even if it reads like one."""
    try:
        return math.nan if isinstance(given, (str, bytes)) else float(given)
    except (TypeError, ValueError, OverflowError):
        return math.nan
