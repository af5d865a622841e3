"""How likely answers are under a belief: the policy's probabilities, read as in docs/likelihood.md.

The belief says of every pixel with which probability a label map is right there. A rater sees how much of a label map
is right, and answers by it more or less reliably:

- **Better, worse, same.** Bradley and Terry (1952): label map a wins with probability A / (A + B + T). Its strength A
  is the share that the belief expects to be right of the pixels where a and b differ, to the power of the rater's
  ``sharpness``; T = ``ties`` · √(A B) is Davidson's (1970) for "same", plus the share where neither is right, to the
  same power. So with a sharpness of 1, log P of one differing pixel is cross-entropy's log p.
- **Rankings** are the pairs in them, each weighted 2 / K.
- **Stars** are intervals of a score (an ordered logit; McCullagh, 1980): the logit of the expected share of right
  pixels, plus logistic noise of scale ``blur``, lies between the cuts of the stars, ⅛, ⅜, ⅝ and ⅞. What a rater's own
  formula adds to that is one number, a ``shift``, which is learned.

With probability ``lapse`` an answer is any of the possible ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch.nn import functional as F

from .answers import STARS, Answer

TINY = 1e-4  # share of the pixels


@dataclass(frozen=True)
class RaterModel:
    """How raters are taken to answer.

    Attributes:
        lapse: probability of an answer that says nothing.
        sharpness: how well small differences are seen, > 0; 1: Bradley and Terry's own.
        ties: how often "same" is said of label maps that are as good as each other, ≥ 0; 1: as often as either.
        blur: scale of the noise of the logit of a score before it becomes stars, > 0.
    """

    lapse: float = 0.1
    sharpness: float = 2.0
    ties: float = 0.3
    blur: float = 0.5


def right(probabilities: torch.Tensor, label_maps: torch.Tensor) -> torch.Tensor:
    """Probability that a label map is right at each pixel; (C, H, W), integers (K, H, W) -> (K, H, W)."""
    return probabilities.gather(0, label_maps.long())


def pair_probabilities(
    right: torch.Tensor, label_maps: torch.Tensor, part: torch.Tensor | None, model: RaterModel
) -> torch.Tensor | None:
    """Probabilities that the first of two label maps is called better, that the second is, and that neither.

    Args:
        right: (2, H, W), of ``right``.
        label_maps: (2, H, W).
        part: bool (H, W), the pixels that count; None: all.
        model: of the rater.

    Returns:
        (3,); None where the label maps do not differ, so that nothing can be learned.
    """
    differ = label_maps[0] != label_maps[1]
    if part is not None:
        differ = differ & part
    if not differ.any():
        return None
    shares = right[:, differ].mean(dim=1)  # (2,)
    neither = (1 - shares.sum()).clamp(min=0.0)
    a, b = shares.clamp(min=TINY) ** model.sharpness
    strengths = torch.stack([a, b, model.ties * (a * b).sqrt() + neither**model.sharpness])
    return (1 - model.lapse) * strengths / strengths.sum() + model.lapse / 3


def stars_log_likelihood(
    share: torch.Tensor, stars: torch.Tensor, shift: torch.Tensor | float, model: RaterModel
) -> torch.Tensor:
    """Log-likelihood of stars.

    Args:
        share: (K,), expected share of right pixels of each label map.
        stars: integers (K,), 1 to 5.
        shift: of the rater; positive gives more stars.
        model: of the rater.

    Returns:
        (K,).
    """
    inner = torch.arange(1, STARS, dtype=share.dtype, device=share.device).sub(0.5).div(STARS - 1).logit()
    end = inner.new_tensor([torch.inf])
    cuts = torch.cat([-end, inner, end])
    place = (share.clamp(TINY, 1 - TINY).logit() + shift)[:, None]
    below = torch.sigmoid((cuts - place) / model.blur)  # (K, 6)
    inside = below.diff(dim=1).gather(1, stars[:, None] - 1)[:, 0]
    return torch.log((1 - model.lapse) * inside + model.lapse / STARS)


def log_likelihood(
    probabilities: torch.Tensor, answer: Answer, shift: torch.Tensor | float, model: RaterModel
) -> torch.Tensor:
    """Log-likelihood of one answer; 0 of a skip.

    Args:
        probabilities: float (C, H, W), the belief about the image of the question.
        answer: to it.
        shift: of the rater.
        model: of the rater.
    """
    question = answer.question
    device = probabilities.device
    label_maps = torch.from_numpy(question.label_maps).to(device)
    part = None if question.part is None else torch.from_numpy(question.part).to(device)
    chances = right(probabilities, label_maps)
    if "stars" in answer.answer:
        rated = [k for k, stars in enumerate(answer.answer["stars"]) if stars is not None]
        stars = torch.tensor([answer.answer["stars"][k] for k in rated], device=device)
        shares = (chances.flatten(1) if part is None else chances[:, part])[rated].mean(dim=1)
        return stars_log_likelihood(shares, stars, shift, model).sum()
    total = probabilities.new_zeros(())
    for outcome, i, j in outcomes(answer.answer):
        chance = pair_probabilities(chances[[i, j]], label_maps[[i, j]], part, model)
        if chance is not None:
            total = total + chance[outcome].log() * (2 / len(label_maps))
    return total


def outcomes(answer: Any) -> list[tuple[int, int, int]]:
    """Every pair i < j of label maps of an order, with 0 where i is the better one, 1 where j is, 2 for the same."""
    groups: Sequence[Sequence[int]] = answer.get("order", ())
    place = {k: number for number, group in enumerate(groups) for k in group}
    return [
        (0 if place[i] < place[j] else 1 if place[j] < place[i] else 2, i, j) for i, j in combinations(sorted(place), 2)
    ]


def expected_answer(probabilities: torch.Tensor, answer: Answer, model: RaterModel) -> bool | None:
    """Whether the belief would have answered as the rater did; None of a skip, and of what cannot be compared.

    Of stars and rankings: whether most pairs of label maps are in the same order, or for the stars of a single label
    map, whether they are the likeliest.
    """
    question = answer.question
    label_maps = torch.from_numpy(question.label_maps)
    part = None if question.part is None else torch.from_numpy(question.part)
    chances = right(probabilities, label_maps)
    if "stars" in answer.answer:
        (rated, *more) = [k for k, stars in enumerate(answer.answer["stars"]) if stars is not None]
        if not more:
            share = (chances[rated] if part is None else chances[rated][part]).mean()
            every = torch.arange(1, STARS + 1)
            best = stars_log_likelihood(share.expand(STARS), every, 0.0, model).argmax()
            return int(best) + 1 == answer.answer["stars"][rated]
        compared = [
            (0 if a > b else 1 if b > a else 2, i, j)
            for (i, a), (j, b) in combinations([(k, answer.answer["stars"][k]) for k in (rated, *more)], 2)
        ]
    else:
        compared = outcomes(answer.answer)
    same = [
        int(chance.argmax()) == outcome
        for outcome, i, j in compared
        if (chance := pair_probabilities(chances[[i, j]], label_maps[[i, j]], part, model)) is not None
    ]
    return 2 * sum(same) > len(same) if same else None


def shift_penalty(shift: torch.Tensor) -> torch.Tensor:
    """Prior of the raters' shifts, Gaussian of deviation 1: minus its logarithm."""
    return F.mse_loss(shift, torch.zeros_like(shift), reduction="sum") / 2
