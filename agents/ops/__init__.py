"""The agent's hot path: drawing label maps, counting what a belief expects of them, and crediting classes.

Every operation exists in plain torch for any device (``torch_ops``), compiled by Numba for the CPU (``numba_ops``,
where Numba is installed: ``pip install 'rss-env[fast]'``) and as Triton kernels for CUDA devices (``triton_ops``, where
Triton is installed, as it is with torch for CUDA). ``RSS_OPS=torch|numba|triton`` chooses one by hand where it can run;
all draw the same label maps from the same uniform draws, and their sums agree to rounding.

Shapes: B images, K samples per image, M label maps of any of the images, C classes, H×W pixels. Nothing of shape
(B, K, C, H, W) is ever stored.
"""

from __future__ import annotations

import torch

from agents.ops import library

__all__ = ["class_credit", "credit", "policy_gradient", "sample_label_maps", "soft_counts"]


def sample_label_maps(
    probabilities: torch.Tensor,
    samples: int,
    generator: torch.Generator | None = None,
    uniforms: torch.Tensor | None = None,
) -> torch.Tensor:
    """Draws K label maps per image; a pixel's class is the inverse of its cumulative distribution at a uniform draw.

    The class is the number of cumulative probabilities that the draw reaches.

    Args:
        probabilities: float32 (B, C, H, W), non-negative, summing to 1 over C; C is 2 to 255.
        samples: K.
        generator: source of randomness, on the device of ``probabilities``.
        uniforms: float32 (B, K, H, W) in [0, 1), each uniform; changed in place. They may depend on each other, as
            those of ``agents.psr.tied_uniforms`` do. None: independent draws from ``generator``.

    Returns:
        uint8 (B, K, H, W), values 0..C-1; a class of probability 0 is never drawn.
    """
    batch, _, height, width = probabilities.shape
    if uniforms is None:
        shape = (batch, samples, height, width)
        uniforms = torch.rand(shape, generator=generator, device=probabilities.device)
    cumulative = probabilities.detach().cumsum(dim=1)  # (B, C, H, W)
    # Rounding can leave the last sum below 1: scaling the draws to it keeps the classes behind it unreachable.
    uniforms *= cumulative[:, -1:]
    return library.invert(cumulative, uniforms)


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
