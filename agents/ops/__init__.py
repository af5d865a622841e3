"""The agent's hot path: drawing label maps, counting what a belief expects of them, and crediting classes.

Every operation exists in plain torch for any device (``torch_ops``), compiled by Numba for the CPU (``numba_ops``,
where Numba is installed: ``pip install 'rss-env[fast]'``) and as Triton kernels for CUDA devices (``triton_ops``, where
Triton is installed, as it is with torch for CUDA). ``RSS_OPS=torch|numba|triton`` chooses one by hand where it can run;
all draw the same label maps from the same seed, and their sums agree, to rounding.

Shapes: B images, K samples per image, M label maps of any of the images, C classes, H×W pixels. Nothing of shape
(B, K, C, H, W) is ever stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from . import library
from .dispatch import backend
from .philox import offset_tensor, seed_tensor, uniforms

__all__ = [
    "centred_features",
    "class_credit",
    "nearest_centres",
    "policy_gradient",
    "region_counts",
    "sample_label_maps",
    "soft_counts",
    "uniforms",
]


def sample_label_maps(
    logits: torch.Tensor,
    samples: int,
    seed: int | torch.Tensor,
    *,
    temperature: float = 1.0,
    cell: int = 1,
    offset: Sequence[int] | torch.Tensor = (0, 0),
) -> torch.Tensor:
    """Draws K label maps per image; a pixel's class is the inverse of its cumulative distribution at a uniform number.

    The numbers are those of ``uniforms``, the same to the last bit in every implementation. So the label maps are the
    same as well, but for pixels whose number is within rounding, about 1e-6, of a boundary between two classes.

    Args:
        logits: (B, C, H, W) in any memory format, of any floating dtype; half precision is computed with in float32.
            ``-inf`` is a class that is not to be drawn. C is 2 to 255.
        samples: K.
        seed: 0 to 2⁶³ − 1, or an int64 tensor of one on the device of the logits, which nothing then waits for.
            The same seed gives the same label maps; take another one for every call.
        temperature: what the logits are divided by, above 0.
        cell: side in pixels of the cells whose pixels share one uniform number (``agents.plugins.psr``); 1: every pixel
            has its own.
        offset: rows and columns by which the grid of cells is shifted up and left, modulo ``cell``; or an int64 tensor
            of the two.

    Returns:
        uint8 (B, K, H, W), values 0..C-1; a class of probability 0 is never drawn.

    Raises:
        ValueError: a seed, temperature or cell out of range.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"A temperature is positive and finite, got {temperature}.")
    device = logits.device
    key, shift = seed_tensor(seed, device), offset_tensor(offset, cell, device)
    return library.sample_label_maps(logits.detach(), samples, key, temperature, cell, shift)


def soft_counts(
    probabilities: torch.Tensor, label_maps: torch.Tensor, image: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What class probabilities expect of label maps: right pixels and pixels of every class.

    Args:
        probabilities: float32 (B, C, H, W).
        label_maps: uint8 (M, H, W), values 0..C-1.
        image: int64 (M,), the image, 0..B-1, that each label map belongs to.

    Returns:
        Two float32 (M, C): Σ_i [a_i = c] p_i(c), the expected number of right pixels of each class, and
        Σ_i [a_i = c], the number of its pixels.
    """
    return library.soft_counts(probabilities.detach(), label_maps, image)


def class_credit(label_maps: torch.Tensor, image: torch.Tensor, weights: torch.Tensor, batch: int) -> torch.Tensor:
    """Sums a weight per label map and class into the pixels where the label map has the class.

    Args:
        label_maps: uint8 (M, H, W), values 0..C-1.
        image: int64 (M,), the image, 0..B-1, that each label map belongs to.
        weights: float32 (M, C).
        batch: B.

    Returns:
        float32 (B, C, H, W), Σ weights[m, c] over the label maps m of image b that have class c at the pixel.
    """
    return library.class_credit(label_maps, image, weights.detach(), batch)


def policy_gradient(
    logits: torch.Tensor, label_maps: torch.Tensor, advantages: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The policy-gradient loss of K label maps an image, and the policy's entropy; both can be differentiated.

    One pass over the logits gives the values and one the gradient, −(1/(B·N)) (credit_c − p_c Σ credit) of the loss
    for N = H·W pixels and credit_c = (1/K) Σ_k Aᵏ [aᵏ = c]; kept in between are the logits and the credit.

    Args:
        logits: (B, C, H, W) in any memory format, of any floating dtype; half precision is computed with in float32.
        label_maps: uint8 (B, K, H, W), values 0..C-1; C is 2 to 255.
        advantages: float32, (B, K, 1, 1) for one number a label map or (B, K, H, W) for one a pixel; no gradient
            flows into it.

    Returns:
        Two scalars, float64 for float64 logits, else float32: the loss −(1/K) Σ_k Aᵏ log p(aᵏ), and the policy's
        entropy in nats, 0 to log C. Both are means over images and pixels.
    """
    loss, entropy, _ = library.policy_gradient(logits, label_maps, advantages.detach())
    return loss, entropy


def nearest_centres(
    points: torch.Tensor, cell: torch.Tensor, centres: torch.Tensor, used: torch.Tensor
) -> torch.Tensor:
    """The nearest centre of each point among those of its own cell of a grid and of the eight cells around it.

    Args:
        points: float32 (B, P, F).
        cell: int64 (B, P, 2), row and column of each point's cell.
        centres: float32 (B, rows, columns, F).
        used: bool (B, rows, columns), the centres that there are; around every point there is at least one.

    Returns:
        int64 (B, P), row · columns + column of the nearest by Euclidean distance, the first of equals.
    """
    return backend(points).nearest_centres(points, cell, centres, used)


def region_counts(label_maps: torch.Tensor, regions: torch.Tensor, number: int, num_classes: int) -> torch.Tensor:
    """Pixels of each class in the regions of images.

    Args:
        label_maps: uint8 (B, M, H, W), values 0..C-1, M of each image.
        regions: int64 (B, H, W), the region, 0..S-1, of each pixel.
        number: S.
        num_classes: C.

    Returns:
        float32 (B, M, C, S).
    """
    return backend(torch.empty(0, device=label_maps.device)).region_counts(label_maps, regions, number, num_classes)


def centred_features(
    counts: torch.Tensor,
    per_right: torch.Tensor,
    per_target: torch.Tensor,
    sizes: torch.Tensor,
    chances: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """What each region adds to the expected scores of label maps if it is of a class, less its mean over the classes.

    With f = counts · per_right + sizes · per_target it is weights · (f − Σ_c chances f), M label maps for each image.

    Args:
        counts: float32 (B, M, C, S), pixels of each class that label maps give to the regions.
        per_right: float32 (B, M, C), derivative of the scores with respect to right pixels of each class.
        per_target: float32 (B, M, C), to those of the target.
        sizes: float32 (B, 1, S), of the regions in pixels.
        chances: float32 (B, C, S), of the classes of the regions, which sum to 1.
        weights: float32 (B, C, S), that the result is multiplied by; None: 1.

    Returns:
        float32 (B, M, C, S).
    """
    return backend(counts).centred_features(counts, per_right, per_target, sizes, chances, weights)
