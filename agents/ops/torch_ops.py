"""The operations of ``agents.ops`` in plain torch, for any device and dtype: the reference of the compiled ones."""

from __future__ import annotations

import torch


def invert(cumulative: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Classes at which the cumulative sums (B, C, H, W) pass the draws (B, K, H, W): uint8 (B, K, H, W)."""
    label_maps = torch.zeros(uniforms.shape, dtype=torch.uint8, device=uniforms.device)
    for c in range(cumulative.shape[1] - 1):
        label_maps += uniforms >= cumulative[:, c : c + 1]
    return label_maps


def credit(label_maps: torch.Tensor, advantages: torch.Tensor, num_classes: int) -> torch.Tensor:
    """See ``agents.ops.credit``."""
    batch, samples, height, width = label_maps.shape
    out = torch.zeros((batch, num_classes, height, width), dtype=advantages.dtype, device=label_maps.device)
    per_pixel = advantages.expand(label_maps.shape)
    for k in range(samples):
        out.scatter_add_(1, label_maps[:, k : k + 1].long(), per_pixel[:, k : k + 1])
    return out / samples


def soft_counts(
    probabilities: torch.Tensor, label_maps: torch.Tensor, image: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``agents.ops.soft_counts``."""
    # In float64, because one pixel after the other is added: float32 loses a percent over two million pixels.
    shape, device = (len(label_maps), probabilities.shape[1]), probabilities.device
    expected = torch.zeros(shape, dtype=torch.float64, device=device)
    predicted = torch.zeros_like(expected)
    for m, label_map in enumerate(label_maps.flatten(1).long()):
        chosen = probabilities[image[m]].flatten(1).gather(0, label_map[None])[0].double()  # (H·W,)
        expected[m].scatter_add_(0, label_map, chosen)
        predicted[m].scatter_add_(0, label_map, torch.ones_like(chosen))
    return expected.to(probabilities.dtype), predicted.to(probabilities.dtype)


def class_credit(label_maps: torch.Tensor, image: torch.Tensor, weights: torch.Tensor, batch: int) -> torch.Tensor:
    """See ``agents.ops.class_credit``."""
    height, width = label_maps.shape[1:]
    out = weights.new_zeros((batch, weights.shape[1], height, width))
    for m, label_map in enumerate(label_maps.long()):
        out[image[m]].scatter_add_(0, label_map[None], weights[m][label_map][None])
    return out
