"""Scores that were rounded to a few levels, such as stars: what they may have been before.

The expectation step of a Tobit regression (Tobin, 1958).
"""

from __future__ import annotations

import math

import torch


def before_rounding(
    scores: torch.Tensor, mean: torch.Tensor, spread: float, stars: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What scores may have been before they were rounded to levels 0, 1 / (stars − 1), …, 1.

    A score was Gaussian around its prediction, and rounding tells in which interval it lies: mean and variance of the
    Gaussian cut off there. The interval of the lowest level has no lower end, that of the highest no upper one.

    Args:
        scores: float32, any shape, the rounded ones.
        mean: the predictions, same shape.
        spread: standard deviation of the Gaussian.
        stars: number of levels, at least 2.

    Returns:
        Mean and variance, float32, shape of ``scores``.
    """
    half = 0.5 / (stars - 1)
    level, mean = scores.double(), mean.double()
    low = ((level - half - mean) / spread).masked_fill(level < half, -math.inf)
    high = ((level + half - mean) / spread).masked_fill(level > 1 - half, math.inf)
    flip = low > 0  # the interval is mirrored to where its probability is not the difference of two numbers near 1
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    mass = (torch.special.log_ndtr(high).exp() - torch.special.log_ndtr(low).exp()).clamp(min=1e-300)
    density = [torch.exp(-0.5 * edge.square()) / math.sqrt(2 * math.pi) for edge in (low, high)]
    shift = (density[0] - density[1]) / mass
    edges = [edge.masked_fill(edge.isinf(), 0.0) * value for edge, value in zip((low, high), density, strict=True)]
    remaining = (1 + (edges[0] - edges[1]) / mass - shift.square()).clamp(0, 1)
    # Far out in a tail the Gaussian falls so fast that all of it lies at the nearer edge.
    far = high < -30
    shift, remaining = torch.where(far, high, shift), remaining.masked_fill(far, 0.0)
    value = mean + spread * torch.where(flip, -shift, shift)
    return value.to(scores.dtype), (spread**2 * remaining).to(scores.dtype)
