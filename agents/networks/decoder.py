"""The decoder that turns the features of a pretrained encoder into logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from rss_env.errors import OptionError

from .unet import block


class Decoder(nn.Module):
    """The upward half of a U-Net; any sizes work.

    Args:
        channels: of the encoder's features, finest first, two levels or more.
        num_classes: C.
        width: channels of the finest level, a multiple of 8; the coarser ones have twice, then four times as many.

    Raises:
        OptionError: the width is no multiple of 8, or there are too few levels.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, width: int) -> None:
        if isinstance(width, bool) or not isinstance(width, int) or width < 8 or width % 8:
            raise OptionError(f"The width of the decoder must be a multiple of 8, got {width!r}.")
        if len(channels) < 2:
            raise OptionError(f"The decoder needs features at two scales at least, got {len(channels)}.")
        super().__init__()
        levels = len(channels) - 1
        outputs = [width * factor for factor in (1, 2, 2, *[4] * levels)][:levels]
        inputs = [*outputs[1:], channels[-1]]
        self.up = nn.ModuleList(block(inputs[i] + channels[i], outputs[i]) for i in reversed(range(levels)))
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Features (B, channels[i], h_i, w_i), finest first, and the size of the image -> logits (B, C, H, W)."""
        x = features[-1]
        for up, skip in zip(self.up, reversed(features[:-1]), strict=True):
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = up(torch.cat([x, skip], dim=1))
        return F.interpolate(self.head(x), size=size, mode="bilinear", align_corners=False)
