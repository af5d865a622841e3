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

from agents.ops import library
from agents.ops.philox import offset_tensor, seed_tensor, uniforms

__all__ = [
    "class_credit",
    "credit",
    "pair_credit",
    "pair_differences",
    "policy_gradient",
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
    floor: float = 0.0,
    stratified: bool = False,
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
        cell: side in pixels of the cells whose pixels share one uniform number (``agents.psr``); 1: every pixel has its
            own.
        offset: rows and columns by which the grid of cells is shifted up and left, modulo ``cell``; or an int64 tensor
            of the two.
        floor: f, 0 to 1: a class is drawn with probability (1 − f) p + f / C, where C counts the classes that are to
            be drawn. A policy gradient needs weights for it, p over that, pixel by pixel.
        stratified: whether the K numbers of a pixel lie one in each of K equal intervals, in random order. Every label
            map is drawn as before, but of a pixel's K draws a class of probability p gets K·p, give or take less than
            two.

    Returns:
        uint8 (B, K, H, W), values 0..C-1; a class of probability 0 is never drawn.

    Raises:
        ValueError: a seed, temperature, cell or floor out of range.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"A temperature is positive and finite, got {temperature}.")
    if not 0 <= floor <= 1:
        raise ValueError(f"A floor is a share from 0 to 1, got {floor}.")
    device = logits.device
    key, shift = seed_tensor(seed, device), offset_tensor(offset, cell, device)
    return library.sample_label_maps(logits.detach(), samples, key, temperature, cell, shift, floor, stratified)


def credit(label_maps: torch.Tensor, advantages: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Mean advantage earned by each class at each pixel, (1/K) Σ_k Aᵏ [aᵏ = c].

    With it the policy gradient of K label maps is that of one dense weighted log-likelihood,
    (1/K) Σ_k Aᵏ ∇ log π(aᵏ) = Σ_{pixels, c} credit · ∇ log p(c), so no log-probability of a single
    sample is ever formed.

    Args:
        label_maps: uint8 (B, K, H, W), values 0..C-1.
        advantages: float32, (B, K, 1, 1) for one number a label map or (B, K, H, W) for one a pixel.
        num_classes: C.

    Returns:
        float32 (B, C, H, W).
    """
    return library.credit(label_maps, advantages.detach(), num_classes)


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
        float32 (B, C, H, W), Σ_{m of image b} weights[m, c] [a_m = c].
    """
    return library.class_credit(label_maps, image, weights.detach(), batch)


def pair_differences(label_maps: torch.Tensor) -> torch.Tensor:
    """Number of pixels in which the label maps of an image differ, pair by pair.

    Args:
        label_maps: uint8 (B, K, H, W).

    Returns:
        int64 (B, K, K), symmetric, 0 on the diagonal, at most H·W.
    """
    return library.pair_differences(label_maps)


def pair_credit(label_maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sums a weight per pair of label maps into the pixels where they differ.

    Args:
        label_maps: uint8 (B, K, H, W).
        weights: float32 (B, K, K).

    Returns:
        float32 (B, K, H, W): Σ_j weights[k, j] [aᵏ ≠ aʲ] at every pixel.
    """
    return library.pair_credit(label_maps, weights.detach())


def policy_gradient(
    logits: torch.Tensor, label_maps: torch.Tensor, advantages: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The policy-gradient loss of K label maps an image, and what goes with it; all three can be differentiated.

    One pass over the logits gives the values and one the gradient, −(1/(B·N)) (credit_c − p_c Σ credit) of the loss
    for N = H·W pixels; kept in between are the logits, the label maps and the credit.

    Args:
        logits: (B, C, H, W) in any memory format, of any floating dtype; half precision is computed with in float32.
        label_maps: uint8 (B, K, H, W), values 0..C-1; C is 2 to 255.
        advantages: float32, (B, K, 1, 1) for one number a label map or (B, K, H, W) for one a pixel; no gradient
            flows into it.

    Returns:
        Three scalars, float64 for float64 logits, else float32: the loss −(1/K) Σ_k Aᵏ log p(aᵏ); the
        log-probability of the label maps, (1/K) Σ_k log p(aᵏ), at most 0; and the policy's entropy, 0 to log C. All
        are means over images and pixels, log-probability and entropy in nats a pixel.
    """
    loss, log_probability, entropy, _ = library.policy_gradient(logits, label_maps, advantages.detach())
    return loss, log_probability, entropy
