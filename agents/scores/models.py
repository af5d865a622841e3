"""What a belief about the hidden target expects of a label map's score.

The belief is the policy itself: p_i(c) is the probability that pixel i of the target is of class c. Every score that is
made of counts has an expected counterpart in which the counts are soft:

    expected    Σ_i [a_i = c] p_i(c)    right pixels of class c
    predicted   Σ_i [a_i = c]           pixels of class c in the label map
    target      Σ_i p_i(c)              pixels of class c in the target

``SCORE_MODELS`` holds, by the name of the environment's reward, functions of these three, each (M, C), and of the
reward's own options, that give the expected score (M,). They are ratios of expected counts, not expectations of ratios:
what that leaves out is nearly the same for all samples of an image, and ``scores.evidence`` compares samples of one
image only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

TINY = 1e-6  # pixels


class Prediction(NamedTuple):
    """Expected scores and how they depend on the belief.

    Attributes:
        mean: (M,), the expected score of each label map.
        per_right: (M, C), its derivative with respect to the expected right pixels of each class.
        per_target: (M, C), its derivative with respect to the expected target pixels of each class.
    """

    mean: torch.Tensor
    per_right: torch.Tensor
    per_target: torch.Tensor


def soft_mean_iou(
    expected: torch.Tensor, predicted: torch.Tensor, target: torch.Tensor, **options: Any
) -> torch.Tensor:
    """Mean of expected / (predicted + target − expected) over the classes in the label map or the target."""
    return _class_mean(expected / (predicted + target - expected).clamp(min=TINY), predicted, target, **options)


def soft_mean_dice(
    expected: torch.Tensor, predicted: torch.Tensor, target: torch.Tensor, **options: Any
) -> torch.Tensor:
    """Mean of 2·expected / (predicted + target) over the classes in the label map or the target."""
    return _class_mean(2 * expected / (predicted + target).clamp(min=TINY), predicted, target, **options)


def soft_frequency_weighted_iou(expected: torch.Tensor, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """IoU of every class weighted by its share of the target, which is taken as it is."""
    iou = expected / (predicted + target - expected).clamp(min=TINY)
    weight = target.detach()  # a belief that may trade the weights grows the classes that it has right
    return (weight * iou).sum(dim=1) / weight.sum(dim=1)


def soft_accuracy(expected: torch.Tensor, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Expected share of right pixels."""
    return expected.sum(dim=1) / predicted.sum(dim=1)


SCORE_MODELS: dict[str, Callable[..., torch.Tensor]] = {
    "mean_iou": soft_mean_iou,
    "mean_dice": soft_mean_dice,
    "frequency_weighted_iou": soft_frequency_weighted_iou,
    "pixel_accuracy": soft_accuracy,
}


MODEL_OPTIONS = {"mean_iou": ("classes", "class_weights"), "mean_dice": ("classes", "class_weights")}
"""The rewards' options that the models know."""


def predict_scores(
    name: str, expected: torch.Tensor, predicted: torch.Tensor, target: torch.Tensor, **options: Any
) -> Prediction:
    """Expected scores of M label maps and their derivatives.

    Args:
        name: key of ``SCORE_MODELS``.
        expected: (M, C), see the module.
        predicted: (M, C).
        target: (M, C), of each label map's image.
        **options: of the reward, those of ``MODEL_OPTIONS``.
    """
    expected, target = expected.detach().requires_grad_(), target.detach().requires_grad_()
    with torch.enable_grad():
        mean = SCORE_MODELS[name](expected, predicted, target, **options)
        # Label maps do not touch each other's counts, so one backward pass of the sum gives every derivative.
        per_right, per_target = torch.autograd.grad(mean.sum(), (expected, target), allow_unused=True)
    if per_target is None:
        per_target = torch.zeros_like(target)
    return Prediction(mean.detach(), per_right, per_target)


def _class_mean(
    values: torch.Tensor,
    predicted: torch.Tensor,
    target: torch.Tensor,
    classes: str = "union",
    class_weights: Sequence[float] | None = None,
) -> torch.Tensor:
    """Mean over classes, each weighing the probability that it is in the label map or the target, or in the target.

    For a class that the label map lacks, the probability that no pixel of the target has it is Π(1 − p) ≈ exp(−Σp).
    """
    weight = 1 - torch.exp(-target.detach())
    if classes == "union":
        weight = torch.where(predicted > 0, 1.0, weight)
    if class_weights is not None:
        weight = weight * weight.new_tensor(class_weights)
    return (weight * values).sum(dim=1) / weight.sum(dim=1).clamp(min=TINY)
