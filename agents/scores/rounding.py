"""Scores that were rounded to a few levels, such as stars: what they may have been before.

The expectation step of a Tobit regression (Tobin, 1958).
"""

from __future__ import annotations

import math

import torch


def before_rounding(
    scores: torch.Tensor, mean: torch.Tensor, spread: float | torch.Tensor, levels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What scores may have been before they were rounded to the nearest of some levels.

    A score was Gaussian around its prediction, and rounding tells in which interval it lies: mean and variance of the
    Gaussian cut off there. The interval of the lowest level has no lower end, that of the highest no upper one.

    Args:
        scores: float32, any shape, the rounded ones.
        mean: the predictions, same shape.
        spread: standard deviation of the Gaussian, a number or a tensor that can be broadcast to that shape.
        levels: float64, two or more in ascending order, on the device of the scores.

    Returns:
        Mean and variance, float32, shape of ``scores``.
    """
    between, mean = (levels[1:] + levels[:-1]) / 2, mean.double()
    end = between.new_tensor([math.inf])
    place = torch.bucketize(scores.double(), between)  # of the score among the levels
    low, high = (torch.cat(ends)[place].sub(mean) / spread for ends in ([-end, between], [between, end]))
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


def star_levels(stars: int) -> torch.Tensor:
    """The levels 0, 1 / (stars − 1), …, 1, float64."""
    return torch.arange(stars, dtype=torch.float64) / (stars - 1)
