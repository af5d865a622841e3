"""Probabilities that follow the colours of an image.

Pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020): every pixel becomes the mean of its neighbours, weighted
by how similar their colours are, a few times over. Nothing in it is learned. Constants are those of the published code
where nothing else is said.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch.nn import functional as F

DILATIONS = (1, 2, 4, 8)  # pixels; the published ones go on to 24, for photos of 321 pixels
ITERATIONS = 5  # published: 10
SHARPNESS = 10.0  # of the weights


def refine(
    probabilities: torch.Tensor,
    images: torch.Tensor,
    *,
    dilations: Sequence[int] = DILATIONS,
    iterations: int = ITERATIONS,
) -> torch.Tensor:
    """Means over neighbours of similar colour, iterated.

    Args:
        probabilities: float (B, C, H, W).
        images: uint8 (B, H, W, 3).
        dilations: distances of the neighbours in pixels, 8 neighbours at each.
        iterations: how often the mean is taken.

    Returns:
        Float (B, C, H, W), within the range of what came in; what sums to 1 over the classes still does.
    """
    weights = colour_weights(images, dilations).to(probabilities.dtype)[:, :, None]
    for _ in range(iterations):
        refined = torch.zeros_like(probabilities)
        for weight, neighbour in zip(weights.unbind(dim=1), neighbours(probabilities, dilations), strict=True):
            refined.addcmul_(neighbour, weight)
        probabilities = refined
    return probabilities


def colour_weights(images: torch.Tensor, dilations: Sequence[int]) -> torch.Tensor:
    """How much each neighbour counts: a softmax of minus the colour's distance in local standard deviations.

    The distance is the mean over the three channels of |difference| / standard deviation, the latter over the pixel and
    its neighbours, where the pixel itself is once in the window of every dilation.

    Args:
        images: uint8 (B, H, W, 3).
        dilations: as in ``refine``.

    Returns:
        Float32 (B, N, H, W), sums to 1 over the N = 8 · dilations neighbours.
    """
    colours = images.permute(0, 3, 1, 2).float()  # (B, 3, H, W)
    centre, around = (
        colours[:, :, None],
        torch.stack(list(neighbours(colours, dilations)), dim=2),
    )  # (B, 3, 1, H, W), (B, 3, N, H, W)
    window = torch.cat([around, centre.expand(-1, -1, len(dilations), -1, -1)], dim=2)
    deviation = window.std(dim=2, keepdim=True).clamp(min=1e-3)  # 0 where the window has one colour
    distance = ((around - centre).abs() / deviation).mean(dim=1)
    return (-SHARPNESS * distance).softmax(dim=1)


def neighbours(values: torch.Tensor, dilations: Sequence[int]) -> Iterator[torch.Tensor]:
    """The 8 neighbours at each distance, the outermost pixels repeated: (B, C, H, W) -> N times (B, C, H, W)."""
    height, width = values.shape[-2:]
    for d in dilations:
        padded = F.pad(values, [d] * 4, mode="replicate")
        for y, x in itertools.product((0, d, 2 * d), repeat=2):
            if (y, x) != (d, d):
                yield padded[:, :, y : y + height, x : x + width]
