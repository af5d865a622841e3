"""What rounded scores were before, against a sum over a fine grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.scores.rounding import before_rounding, star_levels


def truncated(mean: float, spread: float, low: float, high: float) -> tuple[float, float]:
    """Mean and variance of a Gaussian between two edges, by a sum over a fine grid."""
    peak = min(max(mean, low), high)
    reach = 40 * spread / max(1.0, abs(peak - mean) / spread)  # beyond it the density is gone
    grid = np.linspace(max(low, peak - reach), min(high, peak + reach), 400_001)
    exponents = -0.5 * ((grid - mean) / spread) ** 2
    weights = np.exp(exponents - exponents.max())
    weights[[0, -1]] /= 2  # the trapezoidal rule
    expected = float((weights * grid).sum() / weights.sum())
    return expected, float((weights * (grid - expected) ** 2).sum() / weights.sum())


@pytest.mark.parametrize("spread", [0.001, 0.05, 0.3, 2.0])
@pytest.mark.parametrize("mean", [-3.0, 0.05, 0.3, 0.5, 0.9, 40.0])
@pytest.mark.parametrize("star", range(5))
def test_before_rounding_a_score_was_gaussian_within_its_interval(star: int, mean: float, spread: float) -> None:
    low, high = (star - 0.5) / 4 if star else -np.inf, (star + 0.5) / 4 if star < 4 else np.inf
    expected, variance = truncated(mean, spread, low, high)
    scores, predictions = torch.tensor([star / 4], dtype=torch.float64), torch.tensor([mean], dtype=torch.float64)
    got, undecided = before_rounding(scores, predictions, spread, star_levels(5))
    # More than 30 standard deviations away it is the edge itself, which is off by less than a thirtieth of one.
    assert got.item() == pytest.approx(expected, abs=spread / 29)
    assert undecided.item() == pytest.approx(variance, abs=2e-3 * spread**2)
    if abs(expected - mean) < 29 * spread:
        assert got.item() == pytest.approx(expected, abs=1e-5 * spread)


def test_before_rounding_is_symmetric_and_keeps_the_type() -> None:
    mean = torch.linspace(-0.2, 1.2, 57)
    star = torch.randint(0, 5, (57,), generator=torch.Generator().manual_seed(0)) / 4
    one, other = (
        before_rounding(star, mean, 0.1, star_levels(5)),
        before_rounding(1 - star, 1 - mean, 0.1, star_levels(5)),
    )
    assert one[0].dtype == one[1].dtype == torch.float32
    torch.testing.assert_close(one[0], 1 - other[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(one[1], other[1], rtol=0, atol=1e-7)
