"""The default network: a small fully convolutional U-Net."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from rss_env.errors import OptionError


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3×3 convolutions, each followed by group normalisation and ReLU; (B, inputs, h, w) -> (B, outputs, h, w)."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.GroupNorm(8, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """A U-Net (Ronneberger et al., 2015) with three down-samplings; any image size works.

    Args:
        num_classes: C.
        width: channels of the first level, a multiple of 8; the four levels have width × (1, 2, 4, 4) channels.

    Raises:
        OptionError: the width is no multiple of 8.
    """

    def __init__(self, num_classes: int, width: int = 16) -> None:
        if width < 8 or width % 8:
            raise OptionError(f"The width of the U-Net must be a multiple of 8, got {width}.")
        super().__init__()
        channels = (width, 2 * width, 4 * width, 4 * width)
        self.down = nn.ModuleList(block(i, o) for i, o in zip((3, *channels), channels, strict=False))
        self.up = nn.ModuleList(block(channels[i + 1] + channels[i], channels[i]) for i in reversed(range(3)))
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images, uint8 (B, H, W, 3) -> logits, float (B, C, H, W): the contract of ``agents.networks``."""
        x = images.permute(0, 3, 1, 2).to(self.head.weight.dtype) / 127.5 - 1.0  # (B, 3, H, W)
        skips = []
        for level, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2, ceil_mode=True) if level else x)
            skips.append(x)
        for up, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = up(torch.cat([x, skip], dim=1))
        return self.head(x)
