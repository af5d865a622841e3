"""What image-level scores say about a belief: the gradient of their log-likelihood.

The policy's probabilities are read as a belief about the hidden target. The belief predicts the score of every label
map that was tried (``scores.models``), and it is moved to where the observed scores are more likely. Maths:
docs/likelihood.md. This is our own; it is not in the paper's abstract.

With the residuals r_k = R_k − μ_k(p), each compared with the other samples of its visit (the K label maps of one image
that were scored together) to give the advantage A_k = r_k − r̄, and one variance σ² for all, that of the update's new
residuals,

    ∇ log-likelihood = Σ_k A_k / σ² · ∇μ_k(p).

It is a regression, so it does not matter how the label maps were drawn: they may be hotter than the policy, tied in
cells, or old. Earlier visits of an image are replayed with no new query and no further forward pass.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..ops import class_credit, soft_counts
from .formulas import Formula, Seen
from .models import Prediction


class Reading(NamedTuple):
    """Scores next to what a belief expected.

    Attributes:
        prediction: of the scores of the M = V·K label maps, and its derivatives.
        residual: float64 (V, K), what the prediction left of the scores, in units of ``Formula.scale``.
        advantages: float64 (V, K), the centred residuals of every visit, 0 in a visit whose scores are all equal.
        explained: share of the variance of the fresh scores, within their visits, that the belief predicted.
        offset: mean residual of the fresh scores.
        variance: of the fresh residuals within their visits, with what rounding leaves open.
        seen: the fresh scores and their prediction, from which the formula may learn.
    """

    prediction: Prediction
    residual: torch.Tensor
    advantages: torch.Tensor
    explained: torch.Tensor
    offset: torch.Tensor
    variance: torch.Tensor
    seen: Seen


class Evidence(NamedTuple):
    """What scores say about a belief.

    Attributes:
        reading: of the scores by the belief; the variance is that of the fresh advantages.
        direction: float32 (B, C, H, W); the sum of its product with the probabilities, divided by the variance of the
            residuals, has the gradient of the log-likelihood.
    """

    reading: Reading
    direction: torch.Tensor


def read_scores(
    probabilities: torch.Tensor,
    label_maps: torch.Tensor,
    scores: torch.Tensor,
    image: torch.Tensor,
    fresh: int,
    formula: Formula,
    spread: float = 1.0,
) -> Reading:
    """Compares scores with what a belief expects of their label maps.

    Args:
        probabilities: float32 (B, C, H, W), the belief.
        label_maps: uint8 (V, K, H, W), of V visits.
        scores: float64 (V, K).
        image: int64 (V,), the image, 0..B-1, of each visit; the first ``fresh`` visits are those of this step.
        fresh: number of visits of this step.
        formula: predicts the scores; it does not learn here.
        spread: standard deviation of residuals before rounding.
    """
    visits, samples, height, width = label_maps.shape
    owner = image.repeat_interleave(samples)
    expected, predicted = soft_counts(probabilities, label_maps.reshape(-1, height, width), owner)
    target = probabilities.sum(dim=(2, 3))  # (B, C)
    prediction = formula.predict(expected, predicted, target[owner])

    mean = prediction.mean.view(visits, samples).to(scores.dtype)
    residual, undecided = formula.residuals(scores, mean, spread)
    offset = residual.mean(dim=1, keepdim=True)  # of no use: the error of the soft counts, common to the visit
    # Equal scores compare nothing: the environment rounds them, or counts no pixel. What is left of the residuals is
    # the prediction's own spread, and following it would only flatten the belief.
    informative = differ(scores)[:, None]
    advantages = torch.where(informative, residual - offset, 0.0)

    varied = torch.where(informative, scores - scores.mean(dim=1, keepdim=True), 0.0)[:fresh]
    varied = varied / formula.scale(scores[:fresh])
    total = varied.square().sum()
    explained = torch.where(total > 0, 1 - advantages[:fresh].square().sum() / total.clamp(min=1e-30), 0.0)
    variance = ((residual - offset).square() + undecided)[:fresh].mean()
    new = slice(fresh * samples)
    rivals = formula.rivals(expected[new], predicted[new], target[owner[new]])
    means = {name: of.view(fresh, samples).to(scores.dtype) for name, of in rivals.items()}
    seen = Seen(scores[:fresh], mean[:fresh], means)
    return Reading(prediction, residual, advantages, explained, offset[:fresh].mean(), variance, seen)


def differ(scores: torch.Tensor) -> torch.Tensor:
    """Whether not all scores of a visit are equal: (V, K) -> bool (V,)."""
    return scores.amax(dim=1) > scores.amin(dim=1)


def score_evidence(
    probabilities: torch.Tensor,
    label_maps: torch.Tensor,
    scores: torch.Tensor,
    image: torch.Tensor,
    fresh: int,
    formula: Formula,
    spread: float = 1.0,
) -> Evidence:
    """Gradient of the log-likelihood of scores with respect to the belief, but for the variance.

    Args: see ``read_scores``; no gradient flows into the probabilities.
    """
    probabilities = probabilities.detach()
    reading = read_scores(probabilities, label_maps, scores, image, fresh, formula, spread)
    visits, samples, height, width = label_maps.shape
    maps, owner = label_maps.reshape(-1, height, width), image.repeat_interleave(samples)
    weight = reading.advantages.to(probabilities.dtype).reshape(-1, 1)  # (V·K, 1)

    direction = class_credit(maps, owner, weight * reading.prediction.per_right, len(probabilities))
    # A plain sum in a fixed order: on CUDA devices index_add_ adds in whatever order its threads come.
    of_visit = (weight * reading.prediction.per_target).view(visits, samples, -1).sum(dim=1)  # (V, C)
    mine = image == torch.arange(len(probabilities), device=image.device)[:, None]  # (B, V)
    everywhere = torch.where(mine[:, :, None], of_visit, 0.0).sum(dim=1)  # (B, C)
    direction += everywhere[:, :, None, None]
    return Evidence(reading, direction)
