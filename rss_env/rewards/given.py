"""What a callable gave, as scores: finite numbers, or an error that names the label map."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from rss_env.errors import OptionError
from rss_env.rewards.arrays import Array


def as_score(given: Any, index: int, sample: int) -> float:
    """What was given for one label map as a number.

    Args:
        given: by the callable.
        index: number of the image in its split, for the error.
        sample: number of the label map among those of the image, for the error.

    Raises:
        OptionError: it is no finite number. A string is none, even if it reads like one.
    """
    number = _as_number(given)
    if not math.isfinite(number):
        raise OptionError(
            f"The reward callable must give a finite number for a label map, got {given!r} for image {index}, sample "
            f"{sample}."
        )
    return number


def _as_number(given: Any) -> float:
    """The value as a float, NaN if it is not a single real number."""
    shape = getattr(given, "shape", ())
    try:
        value = (
            given.item() if shape == () and hasattr(given, "item") else given
        )  # NumPy and torch would drop an imaginary part
        return math.nan if shape != () or isinstance(value, (str, bytes, complex)) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def as_scores(given: Any, images: Array, shape: Sequence[int], indices: np.ndarray) -> Array:
    """What was given for all label maps of a step, sharing no memory with it.

    Args:
        given: by the callable: an array, a tensor or nested lists.
        images: whose kind and device the scores get.
        shape: (B, K).
        indices: number of each image in its split, (B,), for the error.

    Returns:
        float64 (B, K).

    Raises:
        OptionError: another shape, or something that is no finite number.
    """
    scores = _as_float64(given, images, tuple(shape))
    on_host = scores if isinstance(scores, np.ndarray) else scores.cpu().numpy()
    for b, k in np.argwhere(~np.isfinite(on_host)):
        as_score(float(on_host[b, k]), int(indices[b]), int(k))  # raises
    return scores


def _as_float64(given: Any, images: Array, shape: tuple[int, ...]) -> Array:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(given, torch.Tensor):
        if tuple(given.shape) != shape or given.is_complex():
            raise _wrong(f"{given.dtype} {tuple(given.shape)}", shape)
        if isinstance(images, torch.Tensor):
            return given.detach().to(images.device, torch.float64, copy=True)
        return given.detach().to("cpu", torch.float64, copy=True).numpy()
    try:
        array = np.asarray(given)
    except (TypeError, ValueError):  # ragged lists
        raise _wrong(repr(given), shape) from None
    if array.shape != shape or array.dtype.kind not in "biuf":
        raise _wrong(f"{array.dtype} {array.shape}" if array.shape else repr(given), shape)
    return like(array.astype(np.float64), images)


def _wrong(came: str, shape: Sequence[int]) -> OptionError:
    return OptionError(
        "The batched reward callable must give a finite number for each label map, an array or tensor of shape (B, K) "
        f"= {tuple(shape)}; got {came}."
    )


def like(scores: np.ndarray, images: Array) -> Array:
    """Scores of the kind and on the device of the images."""
    if isinstance(images, np.ndarray):
        return scores
    return sys.modules["torch"].from_numpy(scores).to(images.device)
