"""The likelihood of scores by autograd with one-hot tensors, and problems to try it on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def draw_problem(
    seed: int, size: tuple[int, int, int, int], classes: int, samples: int, dtype: torch.dtype = torch.float64
) -> dict[str, Any]:
    """Arguments of ``score_evidence``: a belief, the label maps of some visits and any scores."""
    batch, earlier, height, width = size
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(2 * rng.normal(size=(batch, classes, height, width))).to(dtype)
    label_maps = rng.integers(0, classes, (batch + earlier, samples, height, width)).astype(np.uint8)
    return {
        "probabilities": logits.softmax(dim=1),
        "label_maps": torch.from_numpy(label_maps),
        "scores": torch.from_numpy(rng.random((batch + earlier, samples))).to(dtype),
        "image": torch.from_numpy(np.concatenate([np.arange(batch), rng.integers(0, batch, earlier)])),
        "fresh": batch,
    }


def predict(name: str, probabilities: torch.Tensor, label_map: torch.Tensor) -> torch.Tensor:
    """The expected score of a label map (H, W) with a one-hot tensor; ``probabilities`` are (C, H, W)."""
    one_hot = (label_map[None] == torch.arange(len(probabilities))[:, None, None]).double()
    right, chosen, true = ((one_hot * probabilities).sum((1, 2)), one_hot.sum((1, 2)), probabilities.sum((1, 2)))
    if name == "pixel_accuracy":
        return right.sum() / one_hot.sum()
    if name == "frequency_weighted_iou":
        return (true.detach() * right / (chosen + true - right)).sum() / true.sum().detach()
    values = right / (chosen + true - right) if name == "mean_iou" else 2 * right / (chosen + true)
    present = torch.where(chosen > 0, 1.0, 1 - (-true.detach()).exp())  # the weights count as constants
    return (present * values).sum() / present.sum()


def log_likelihood(name: str, problem: dict[str, Any], probabilities: torch.Tensor) -> torch.Tensor:
    """−½ Σ A²: the Gaussian log-likelihood of the scores but for the variance, visit by visit."""
    total = torch.zeros((), dtype=torch.float64)
    for maps, scores, image in zip(problem["label_maps"], problem["scores"], problem["image"], strict=True):
        residuals = torch.stack(
            [
                score.double() - predict(name, probabilities[image], label_map)
                for label_map, score in zip(maps, scores, strict=True)
            ]
        )
        total = total - (residuals - residuals.mean()).square().sum() / 2
    return total
