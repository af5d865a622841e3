"""Which label maps are scored where scores are rounded: against sampling, and against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from agents.ops import sample_label_maps
from agents.scores.formulas import KnownFormula
from agents.scores.models import predict_scores
from agents.scores.queries import level_uncertainty, most_uncertain
from agents.scores.rounding import star_levels


@pytest.mark.parametrize(("mean", "spread", "stars"), [(0.1, 0.05, 5), (0.4, 0.2, 5), (0.5, 0.3, 2), (0.9, 0.1, 11)])
def test_a_level_is_as_uncertain_as_the_entropy_of_rounded_draws(mean: float, spread: float, stars: int) -> None:
    draws = np.random.default_rng(0).normal(mean, spread, 200_000)
    shares = np.unique(np.clip(np.round(draws * (stars - 1)), 0, stars - 1), return_counts=True)[1] / len(draws)
    got = level_uncertainty(torch.tensor([mean]), spread, star_levels(stars))
    assert got.item() == pytest.approx(-(shares * np.log2(shares)).sum(), abs=0.01)


def test_a_score_in_the_middle_between_two_levels_tells_a_bit_and_one_far_from_it_nothing() -> None:
    means = torch.tensor([0.125, 0.375, 0.25, -5.0, 5.0, 0.0])
    assert level_uncertainty(means, 0.001, star_levels(5)).tolist() == pytest.approx([1, 1, 0, 0, 0, 0], abs=1e-6)
    assert level_uncertainty(torch.tensor([0.5]), 1e6, star_levels(2)).item() == pytest.approx(1.0)
    # With many levels for the spread the middle is not the most uncertain place.
    ends = level_uncertainty(torch.tensor([0.05, 0.2]), 0.1, star_levels(11))
    assert ends.tolist() == pytest.approx([1.55, 2.07], abs=0.01)


def test_the_label_maps_are_kept_whose_expected_scores_lie_nearest_to_a_middle() -> None:
    generator = torch.Generator().manual_seed(0)
    belief = (3 * torch.randn(3, 4, 6, 8, generator=generator)).softmax(dim=1)
    drawn = sample_label_maps(belief.log(), 40, 1, temperature=2.0, cell=3)
    chosen, bits = most_uncertain(belief, drawn, 5, KnownFormula("mean_iou", 5), 0.02)
    middles = np.array([0.125, 0.375, 0.625, 0.875])
    for b in range(3):
        means = []
        for label_map in drawn[b]:
            of_class = [label_map == c for c in range(4)]
            counts = (
                torch.stack([(belief[b, c] * where).sum() for c, where in enumerate(of_class)]),
                torch.stack([where.sum() for where in of_class]).float(),
                belief[b].sum(dim=(1, 2)),
            )
            means.append(predict_scores("mean_iou", *(count[None] for count in counts)).mean.item())
        distance = np.abs(np.array(means)[:, None] - middles).min(axis=1)
        kept = np.sort(np.argsort(distance)[:5])
        assert torch.equal(chosen[b], drawn[b, kept])
        assert not np.array_equal(kept, np.arange(5))
        # Two levels at most are likely where the spread is this small, so that it is the entropy of a coin.
        heads = [0.5 * math.erfc(distance[k] / 0.02 / math.sqrt(2)) for k in kept]
        assert bits[b].item() == pytest.approx(
            np.mean([-h * math.log2(h) - (1 - h) * math.log2(1 - h) for h in heads]), abs=1e-3
        )
