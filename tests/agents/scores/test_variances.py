"""The variances that scores are made of: learned from residuals drawn from known ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from agents.scores import variances
from agents.scores.posterior import _statistics
from agents.scores.variances import Variances

TRUE = np.array([0.02, 0.9, 0.3, 0.15])  # two divisions, the error and the offset
FIRST = [2.0, 2.0, 0.03, 0.03]
SCORES, VISITS = 12, 4


def draw_parts(rng: np.random.Generator, images: int) -> np.ndarray:
    """Covariances (4, images, M, M): two of few numbers that scores have in common, a diagonal, one of visits."""
    factors = [rng.normal(size=(images, SCORES, rank)) / rank**0.5 for rank in (8, 3)]
    divisions = [factor @ factor.transpose(0, 2, 1) for factor in factors]
    visit = np.arange(SCORES) // (SCORES // VISITS)
    same = np.broadcast_to(visit[:, None] == visit, (images, SCORES, SCORES))
    return np.stack([*divisions, np.broadcast_to(np.eye(SCORES), same.shape), same])


def draw_residuals(rng: np.random.Generator, parts: np.ndarray, values: np.ndarray) -> np.ndarray:
    covariance = np.einsum("j,jbmn->bmn", values, parts)
    return np.stack([rng.multivariate_normal(np.zeros(SCORES), matrix) for matrix in covariance])


def statistics_of(parts: np.ndarray, residuals: np.ndarray, values: np.ndarray) -> list[list[float]]:
    """rᵀK⁻¹(vG)K⁻¹r and tr K⁻¹(vG), in plain loops."""
    sums = np.zeros((2, len(values)))
    for b, residual in enumerate(residuals):
        inverse = np.linalg.inv(np.einsum("j,jmn->mn", values, parts[:, b]))
        for j, value in enumerate(values):
            part = value * parts[j, b]
            sums[:, j] += residual @ inverse @ part @ inverse @ residual, np.trace(inverse @ part)
    return sums.tolist()


def cost(parts: np.ndarray, residuals: np.ndarray, values: np.ndarray) -> float:
    """Twice the negative log-likelihood, without its constant."""
    covariance = np.einsum("j,jbmn->bmn", values, parts)
    solved = np.linalg.solve(covariance, residuals[:, :, None])[:, :, 0]
    return float(np.linalg.slogdet(covariance)[1].sum() + (residuals * solved).sum())


@pytest.mark.parametrize("prior", [0.0, 3.0, 100.0])
def test_no_whole_step_makes_the_residuals_and_the_prior_less_likely(
    prior: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variances, "MEMORY", 0.0)
    monkeypatch.setattr(variances, "RATE", 0.5)
    monkeypatch.setattr(variances, "PRIOR", prior)
    rng = np.random.default_rng(0)
    parts = draw_parts(rng, 20)
    residuals = draw_residuals(rng, parts, TRUE)
    learned = Variances()
    first = np.array(learned.start(FIRST))
    costs = []
    for _ in range(30):
        values = np.array(learned.start(FIRST))
        costs.append(cost(parts, residuals, values) + prior * (values / first + first / values).sum())
        learned.observe(statistics_of(parts, residuals, values))
    assert (np.diff(costs) <= 1e-9).all()
    assert costs[0] - costs[-1] > 1
    scale = 1 + 1e-4 * np.array([1, -1, 1, -1])  # and it ends where no other value near is better
    for moved in (values * scale, values / scale, values * scale[0], values / scale[0]):
        assert cost(parts, residuals, moved) + prior * (moved / first + first / moved).sum() >= costs[-1] - 1e-3


def test_few_scores_leave_them_near_the_start_and_many_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variances, "PRIOR", 50.0)
    rng = np.random.default_rng(5)
    ends = []
    for images in (1, 60):
        learned = Variances()
        for _ in range(200):
            values = np.array(learned.start(FIRST))
            parts = draw_parts(rng, images)
            learned.observe(statistics_of(parts, draw_residuals(rng, parts, TRUE), values))
        ends.append(np.abs(np.log(np.array(learned.values)[1:] / TRUE[1:])).mean())
    start = np.abs(np.log(np.array(Variances().start(FIRST))[1:] / TRUE[1:])).mean()
    assert ends[1] < 0.25 * start < ends[0] < start


def test_over_many_images_they_come_to_the_true_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variances, "PRIOR", 0.0)
    rng = np.random.default_rng(1)
    learned, last = Variances(), []
    for step in range(600):
        values = np.array(learned.start(FIRST))
        parts = draw_parts(rng, 8)
        learned.observe(statistics_of(parts, draw_residuals(rng, parts, TRUE), values))
        if step >= 400:
            last.append(learned.values)
    np.testing.assert_allclose(np.mean(last, axis=0)[1:], TRUE[1:], rtol=0.12)
    assert np.mean(last, axis=0)[0] < 0.06  # next to the diagonal there is hardly anything to see of it


def test_the_unit_of_the_residuals_and_of_the_parts_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    parts = draw_parts(rng, 5)
    residuals = draw_residuals(rng, parts, TRUE)
    one, other = Variances(), Variances()
    one.observe(statistics_of(parts, residuals, np.array(one.start(FIRST))))
    other.observe(statistics_of(100 * parts, 10 * residuals, np.array(other.start(FIRST))))
    np.testing.assert_allclose(one.values, other.values)


def test_what_is_not_expected_at_all_stays_and_nothing_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variances, "PRIOR", 1e-9)
    learned = Variances()
    learned.start(FIRST)
    for _ in range(400):
        learned.observe([[0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    assert learned.values == pytest.approx([variances.LEAST, *FIRST[1:]])
    before = list(learned.values)
    learned.observe([[1e9, -1e9, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]])  # of rounding
    change = np.array(learned.values) / before
    assert (change <= variances.MOST**variances.RATE + 1e-9).all()
    assert (change >= variances.MOST**-variances.RATE - 1e-9).all()


def test_another_start_starts_anew() -> None:
    learned = Variances()
    learned.start(FIRST)
    learned.observe([[2000.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    assert learned.start(FIRST)[0] > FIRST[0]
    assert learned.start([0.1, 0.1, 0.1, 0.1]) == [0.1, 0.1, 0.1, 0.1]
    assert learned.start(FIRST) == FIRST


def test_a_checkpoint_continues_it() -> None:
    one, other = Variances(), Variances()
    one.start(FIRST)
    seen = [[2.0, 1.0, 0.5, 1.0], [1.0, 1.0, 1.0, 1.0]]
    one.observe(seen)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for learned in (one, other):
        learned.observe(seen)
    assert other.values == one.values


@pytest.mark.parametrize("tells_level", [False, True])
def test_the_statistics_are_those_of_plain_loops(tells_level: bool) -> None:
    rng = np.random.default_rng(3)
    parts = draw_parts(rng, 3)
    residuals = draw_residuals(rng, parts, TRUE)
    scaled = torch.from_numpy(TRUE[:, None, None, None] * parts)
    factor = torch.linalg.cholesky(scaled.sum(dim=0))
    weights = torch.cholesky_solve(torch.from_numpy(residuals)[..., None], factor)
    there = torch.ones(3, SCORES, 1, dtype=torch.bool)
    found = _statistics(list(scaled), weights, factor, there, tells_level)
    expected = torch.tensor(statistics_of(parts, residuals, TRUE)).double()
    if not tells_level:
        expected[:, -1] = 0.0
    torch.testing.assert_close(found, expected)


def test_scores_that_only_fill_up_and_images_without_an_end_count_nothing() -> None:
    rng = np.random.default_rng(4)
    parts = torch.from_numpy(TRUE[:, None, None, None] * draw_parts(rng, 2))
    residual = torch.from_numpy(rng.normal(size=(2, SCORES, 1)))
    there = torch.ones(2, SCORES, 1, dtype=torch.bool)
    there[0, 9:] = False
    parts[:, 0, 9:] *= 0.0
    parts[:, 0, :, 9:] *= 0.0
    residual[0, 9:] = 0.0
    matrix = parts.sum(dim=0)
    matrix[0, 9:, 9:] = torch.eye(3)
    factor = torch.linalg.cholesky(matrix)
    weights = torch.cholesky_solve(residual, factor)
    weights[1] = parts[:, 1] = factor[1] = torch.nan
    found = _statistics(list(parts), weights, factor, there, True)
    expected = _statistics(list(parts[:, :1, :9, :9]), weights[:1, :9], factor[:1, :9, :9], there[:1, :9], True)
    assert expected.isfinite().all()
    torch.testing.assert_close(found, expected)
