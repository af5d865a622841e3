"""Drawing K label maps per image by the inverse of the cumulative distribution."""

from __future__ import annotations

import torch


def sample_label_maps(
    probabilities: torch.Tensor, samples: int, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Draws K independent label maps per image; every pixel is an independent categorical draw.

    A pixel's class is the number of cumulative probabilities that its uniform draw reaches, so one pass a class over
    the uint8 label maps is enough and nothing of shape (B, K, C, H, W) exists.

    Args:
        probabilities: float32 (B, C, H, W), non-negative, summing to 1 over C; C is 2 to 255.
        samples: K.
        generator: source of randomness, on the device of ``probabilities``.

    Returns:
        uint8 (B, K, H, W), values 0..C-1; a class of probability 0 is never drawn.
    """
    batch, classes, height, width = probabilities.shape
    shape = (batch, samples, height, width)
    uniform = torch.rand(shape, generator=generator, device=probabilities.device)  # [0, 1)
    cumulative = probabilities.cumsum(dim=1)  # (B, C, H, W)
    # Rounding can leave the last sum below 1: scaling the draws to it keeps the classes behind it unreachable.
    uniform *= cumulative[:, -1:]
    label_maps = torch.zeros(shape, dtype=torch.uint8, device=probabilities.device)
    for c in range(classes - 1):
        label_maps += uniform >= cumulative[:, c : c + 1]
    return label_maps
