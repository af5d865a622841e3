"""The baseline of the operations of ``agents.ops``: the same in a few lines of batched torch, without a loop.

Shapes: logits and probabilities (B, C, H, W), label maps uint8 (B, K, H, W), weights (B, K, C), advantages
(B, K, 1, 1).
"""

from __future__ import annotations

import torch


def sample_label_maps(logits: torch.Tensor, samples: int) -> torch.Tensor:
    """K draws a pixel with ``torch.multinomial``, as ``torch.distributions.Categorical`` makes them."""
    batch, classes, height, width = logits.shape
    rows = logits.softmax(dim=1).permute(0, 2, 3, 1).reshape(-1, classes)
    drawn = torch.multinomial(rows, samples, replacement=True).to(torch.uint8)
    return drawn.view(batch, height, width, samples).permute(0, 3, 1, 2).contiguous()


def soft_counts(probabilities: torch.Tensor, label_maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Expected right pixels and pixels of every class, each (B, K, C)."""
    labels = label_maps.long().flatten(2)  # (B, K, H·W)
    chosen = probabilities.flatten(2).gather(1, labels)
    zeros = chosen.new_zeros((*labels.shape[:2], probabilities.shape[1]))
    return zeros.scatter_add(2, labels, chosen), zeros.scatter_add(2, labels, torch.ones_like(chosen))


def class_credit(label_maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The weight of every label map and class, summed where the label map has the class: (B, C, H, W)."""
    labels = label_maps.long().flatten(2)
    out = weights.new_zeros((len(labels), weights.shape[2], labels.shape[2]))
    return out.scatter_add(1, labels, weights.gather(2, labels)).unflatten(2, label_maps.shape[2:])


def policy_gradient(
    logits: torch.Tensor, label_maps: torch.Tensor, advantages: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and entropy, with a log-probability for every sample."""
    log_p = logits.log_softmax(dim=1)
    chosen = log_p.gather(1, label_maps.long())  # (B, K, H, W)
    entropy = -(log_p.exp() * log_p).sum(dim=1).mean()
    return -(advantages * chosen).mean(), entropy
