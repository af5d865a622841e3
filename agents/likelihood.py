"""The likelihood of observed scores: what is maximised in place of the expected reward.

The gradient of an expected reward vanishes where learning is needed: for one pixel whose true class has probability p
it is p(1 − p), against the 1 − p of cross-entropy, which maximises the log-likelihood of what was observed. Scores are
observations as well. So the policy's probabilities are read as a belief about the hidden target, the belief predicts
the score of every label map that was tried (``agents.score_models``), and the belief is moved to where the observed
scores are more likely. Maths: docs/likelihood.md. This is our own; it is not in the paper's abstract.

Image level, Gaussian: with the residuals r_k = R_k − μ_k(p), each compared with the other samples of its visit (the K
label maps of one image that were scored together) to give the advantage A_k = r_k − r̄, and one variance σ² for all,
that of the update's new residuals,

    ∇ log-likelihood = Σ_k A_k / σ² · ∇μ_k(p).

Pixel level, exact: if class c earned a reward at pixel i, log p_i(c); if the classes tried there all earned none, the
logarithm of one minus their probabilities.

It is a regression, so it does not matter how the label maps were drawn: they may be hotter than the policy, tied in
cells, or old. Earlier visits of an image are replayed with no new query and no further forward pass.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from agents.ops import class_credit, soft_counts
from agents.score_models import predict_scores

IGNORED_SHARE = 0.05  # prior probability that a pixel earns nothing whatever its label, as ignored ones do


class Evidence(NamedTuple):
    """What scores say about a belief.

    Attributes:
        direction: float32 (B, C, H, W); the sum of its product with the probabilities, divided by the variance of the
            residuals, has the gradient of the log-likelihood.
        advantages: float32 (V, K), the centred residuals of every visit, 0 in a visit whose scores are all equal; the
            variance is that of the fresh ones.
        explained: share of the variance of the fresh scores, within their visits, that the belief predicted.
        offset: mean residual of the fresh scores.
        variance: of the fresh residuals within their visits, with what rounding leaves open.
    """

    direction: torch.Tensor
    advantages: torch.Tensor
    explained: torch.Tensor
    offset: torch.Tensor
    variance: torch.Tensor


def score_evidence(
    probabilities: torch.Tensor,
    label_maps: torch.Tensor,
    scores: torch.Tensor,
    image: torch.Tensor,
    fresh: int,
    score_model: str,
    stars: int = 0,
    spread: float = 1.0,
) -> Evidence:
    """Gradient of the log-likelihood of scores with respect to the belief, but for the variance.

    Args:
        probabilities: float32 (B, C, H, W), the belief; no gradient flows into it.
        label_maps: uint8 (V, K, H, W), of V visits.
        scores: float32 (V, K).
        image: int64 (V,), the image, 0..B-1, of each visit; the first ``fresh`` visits are those of this step.
        fresh: number of visits of this step.
        score_model: key in ``agents.score_models.SCORE_MODELS``.
        stars: levels that the scores were rounded to; 0: they were not.
        spread: standard deviation of residuals before rounding.
    """
    visits, samples, height, width = label_maps.shape
    maps, owner = label_maps.reshape(-1, height, width), image.repeat_interleave(samples)
    probabilities = probabilities.detach()
    expected, predicted = soft_counts(probabilities, maps, owner)
    target = probabilities.sum(dim=(2, 3))  # (B, C)
    prediction = predict_scores(score_model, expected, predicted, target[owner])

    mean = prediction.mean.view(visits, samples)
    exact, undecided = before_rounding(scores, mean, spread, stars) if stars else (scores, torch.zeros_like(scores))
    residual = exact - mean
    offset = residual.mean(dim=1, keepdim=True)  # of no use: the error of the soft counts, common to the visit
    # Equal scores compare nothing: the environment rounds them, or counts no pixel. What is left of the residuals is
    # the prediction's own spread, and following it would only flatten the belief.
    informative = scores.amax(dim=1, keepdim=True) > scores.amin(dim=1, keepdim=True)
    advantages = torch.where(informative, residual - offset, 0.0)
    weight = advantages.reshape(-1, 1)  # (V·K, 1)

    direction = class_credit(maps, owner, weight * prediction.per_right, len(probabilities))
    everywhere = torch.zeros_like(target).index_add_(0, owner, weight * prediction.per_target)
    direction += everywhere[:, :, None, None]

    varied = scores[:fresh] - scores[:fresh].mean(dim=1, keepdim=True)
    total = varied.square().sum()
    explained = torch.where(total > 0, 1 - advantages[:fresh].square().sum() / total.clamp(min=1e-30), 0.0)
    variance = ((residual - offset).square() + undecided)[:fresh].mean()
    return Evidence(direction, advantages, explained, offset[:fresh].mean(), variance)


def before_rounding(
    scores: torch.Tensor, mean: torch.Tensor, spread: float, stars: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What scores may have been before they were rounded to levels 0, 1 / (stars − 1), …, 1.

    A score was Gaussian around its prediction, and rounding tells in which interval it lies: mean and variance of the
    Gaussian cut off there. The interval of the lowest level has no lower end, that of the highest no upper one.

    Args:
        scores: float32, any shape, the rounded ones.
        mean: the predictions, same shape.
        spread: standard deviation of the Gaussian.
        stars: number of levels, at least 2.

    Returns:
        Mean and variance, float32, shape of ``scores``.
    """
    half = 0.5 / (stars - 1)
    level, mean = scores.double(), mean.double()
    low = ((level - half - mean) / spread).masked_fill(level < half, -math.inf)
    high = ((level + half - mean) / spread).masked_fill(level > 1 - half, math.inf)
    flip = low > 0  # the interval is mirrored to where its probability is not the difference of two numbers near 1
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    mass = (torch.special.log_ndtr(high).exp() - torch.special.log_ndtr(low).exp()).clamp(min=1e-300)
    density = [torch.exp(-0.5 * edge.square()) / math.sqrt(2 * math.pi) for edge in (low, high)]
    shift = (density[0] - density[1]) / mass
    edges = [edge.masked_fill(edge.isinf(), 0.0) * value for edge, value in zip((low, high), density, strict=True)]
    remaining = (1 + (edges[0] - edges[1]) / mass - shift.square()).clamp(0, 1)
    # Far out in a tail the Gaussian falls so fast that all of it lies at the nearer edge.
    far = high < -30
    shift, remaining = torch.where(far, high, shift), remaining.masked_fill(far, 0.0)
    value = mean + spread * torch.where(flip, -shift, shift)
    return value.to(scores.dtype), (spread**2 * remaining).to(scores.dtype)


def success_loss(log_probabilities: torch.Tensor, known: torch.Tensor, excluded: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of pixel-level rewards, the mean over all pixels.

    Args:
        log_probabilities: float32 (B, C, H, W), of the belief.
        known: uint8 (B, H, W), the class that earned a reward at each pixel; 255 where none has.
        excluded: bool (B, C, H, W), the classes that were tried at a pixel and earned nothing.

    Returns:
        Scalar. A pixel may be ignored by the environment and then earns nothing whatever its label; this has the prior
        probability ``IGNORED_SHARE``, so that the loss is bounded where every class was tried in vain.
    """
    found = known != 255
    right = log_probabilities.gather(1, known.clamp(max=log_probabilities.shape[1] - 1).long()[:, None])[:, 0]
    in_vain = (log_probabilities.exp() * excluded).sum(dim=1)
    nothing = torch.log1p(-(1 - IGNORED_SHARE) * in_vain.clamp(max=1.0))
    return -torch.where(found, right, nothing).mean()
