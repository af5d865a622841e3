"""Logits of large images from overlapping tiles, for networks or memories that cannot take the whole image."""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn


def tiled_logits(network: nn.Module, images: torch.Tensor, tile: tuple[int, int]) -> torch.Tensor:
    """The network's logits of every tile, averaged where tiles overlap.

    Args:
        network: uint8 (B, h, w, 3) -> logits (B, C, h, w).
        images: uint8 (B, H, W, 3).
        tile: (h, w); what is larger than the image is as large as it.

    Returns:
        float32 (B, C, H, W).
    """
    height, width = (min(part, side) for part, side in zip(tile, images.shape[1:3], strict=True))
    total = times = torch.zeros(())
    for top, left in itertools.product(tile_starts(images.shape[1], height), tile_starts(images.shape[2], width)):
        place = (..., slice(top, top + height), slice(left, left + width))
        logits = network(images[:, place[1], place[2]].contiguous()).float()
        if not total.ndim:
            total = logits.new_zeros(*logits.shape[:2], *images.shape[1:3])
            times = logits.new_zeros(images.shape[1:3])
        total[place] += logits
        times[place] += 1
    return total / times


def tile_starts(side: int, part: int) -> list[int]:
    """Where tiles of ``part`` pixels begin along a side: evenly spread, neighbours overlap by a third at least.

    Example:
        >>> tile_starts(100, 48), tile_starts(48, 48)
        ([0, 26, 52], [0])
    """
    steps = math.ceil((side - part) / max(1, 2 * part // 3))
    return [(side - part) * step // max(1, steps) for step in range(steps + 1)]
