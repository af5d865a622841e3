"""What each class at each pixel earned: the weights of the policy-gradient loss."""

from __future__ import annotations

import torch


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
    batch, samples, height, width = label_maps.shape
    out = torch.zeros((batch, num_classes, height, width), dtype=advantages.dtype, device=label_maps.device)
    per_pixel = advantages.expand(label_maps.shape)
    for k in range(samples):
        out.scatter_add_(1, label_maps[:, k : k + 1].long(), per_pixel[:, k : k + 1])
    return out / samples
