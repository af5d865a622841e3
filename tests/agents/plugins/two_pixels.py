"""Images of two pixels and three classes: few enough label maps to form every expectation exactly, in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch

from agents.ops import policy_gradient

CLASSES, PIXELS = 3, 2
MAPS = torch.tensor(list(itertools.product(range(CLASSES), repeat=PIXELS)), dtype=torch.uint8)[:, None]  # (9, 1, 2)


def draw_problem(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (1, C, 1, 2) of one image, and an arbitrary score of each of its label maps, (9,)."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(1, CLASSES, 1, PIXELS))), torch.from_numpy(rng.random(len(MAPS)))


def look_up(label_maps: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """The score of every label map: (..., 1, 2) -> (...)."""
    return scores[CLASSES * label_maps[..., 0, 0].long() + label_maps[..., 0, 1].long()]


def map_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """π(a) of the nine label maps: the product of the pixels' probabilities."""
    p = logits.softmax(dim=1)[0, :, 0]  # (C, 2)
    return (p[:, None, 0] * p[None, :, 1]).flatten()


def expected_score_gradient(logits: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """∇E[R] of independent pixels, (1, C, 1, 2)."""
    logits = logits.detach().requires_grad_()
    return torch.autograd.grad((map_probabilities(logits) * scores).sum(), logits)[0]


def enumerate_sets(probabilities: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Every way to draw outcomes of these probabilities ``size`` times: their numbers (M, size), probabilities (M,)."""
    chosen = torch.cartesian_prod(*[torch.arange(len(probabilities))] * size).view(-1, size)
    return chosen, probabilities[chosen].prod(dim=1)


def expected_step(
    logits: torch.Tensor, label_maps: torch.Tensor, advantages: torch.Tensor, probabilities: torch.Tensor
) -> torch.Tensor:
    """The expectation of the policy gradient's estimate for one image, (1, C, 1, 2).

    Args:
        logits: (1, C, 1, 2).
        label_maps: uint8 (M, K, 1, 2): every set of K label maps that can be drawn.
        advantages: (M, K, 1, 1) or (M, K, 1, 2).
        probabilities: (M,), of each set.
    """
    logits = logits.detach().requires_grad_()
    # The loss is a mean over the sets and pixels: with weighted advantages it is an expectation.
    weights = probabilities * len(probabilities) * PIXELS
    copies = logits.expand(len(probabilities), -1, -1, -1)
    loss, _ = policy_gradient(copies, label_maps, advantages * weights[:, None, None, None])
    return torch.autograd.grad(-loss, logits)[0]


def asymmetry(field: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor) -> float:
    """|J − Jᵀ| / |J| of the Jacobian of a field of the logits, by central differences: 0 if it is a gradient."""
    step = 1e-5
    moves = step * torch.eye(logits.numel(), dtype=logits.dtype).view(-1, *logits.shape)
    rows = [(field(logits + move) - field(logits - move)).flatten() / (2 * step) for move in moves]
    jacobian = torch.stack(rows)
    return ((jacobian - jacobian.T).norm() / jacobian.norm()).item()
