"""Image sizes for networks that do not take every one."""

from __future__ import annotations

import torch
from torch.nn import functional as F

MULTIPLE = 32  # the coarsest features of the usual encoders have 1/32 of the size


def pad(x: torch.Tensor) -> torch.Tensor:
    """Zeros at the bottom and on the right, up to a multiple of 32; (B, 3, H, W) -> (B, 3, H', W')."""
    height, width = x.shape[2:]
    return F.pad(x, (0, -width % MULTIPLE, 0, -height % MULTIPLE))
