"""Counting with torch on any device: nothing waits for the device, and the result is exact and deterministic."""

from __future__ import annotations

import torch

from rss_env.datasets.dataset import IGNORE_INDEX

CHUNK = 1 << 26
"""Pixels counted at once: the int64 bin numbers that ``scatter_add_`` needs take eight bytes each."""


def count_labels(maps: torch.Tensor, truth: torch.Tensor, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Intersections and predictions of every class.

    Args:
        maps: integers (B, K, pixels), values 0..C-1.
        truth: uint8 (B, pixels), values 0..C-1 or 255 (ignored).
        num_classes: C.

    Returns:
        Two int64 (B, K, C).
    """
    batch, samples, pixels = maps.shape
    codes = maps.new_zeros((batch, samples, 2 * num_classes + 1), dtype=torch.int64)
    step = max(1, CHUNK // max(1, batch * pixels))
    for first in range(0, samples, step):
        part = maps[:, first : first + step].long()
        code = part + num_classes * (part != truth[:, None])
        code = torch.where(truth[:, None] == IGNORE_INDEX, 2 * num_classes, code)
        codes[:, first : first + step] = _histogram(code, 2 * num_classes + 1)
    right, wrong = codes[..., :num_classes], codes[..., num_classes : 2 * num_classes]
    return right, right + wrong


def count_classes(rows: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Pixels of every class: uint8 (n, pixels), values 0..C-1 or 255 (not counted) -> int64 (n, C)."""
    step = max(1, CHUNK // max(1, rows.shape[1]))
    parts = [_histogram(part.long().clamp(max=num_classes), num_classes + 1) for part in rows.split(step)]
    return torch.cat(parts)[:, :num_classes]


def _histogram(values: torch.Tensor, bins: int) -> torch.Tensor:
    """Counts along the last axis: int64 (..., pixels), each below ``bins`` -> int64 (..., bins)."""
    counts = values.new_zeros((*values.shape[:-1], bins))
    return counts.scatter_add_(-1, values, torch.ones_like(values))
