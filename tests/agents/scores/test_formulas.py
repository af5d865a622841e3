"""A formula that is fitted to scores: it follows their scale, their bend and their rounding, and nothing else."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.scores.formulas import BASES, MOST_VALUES, SEEN, KnownFormula, Seen, UnknownFormula, formula_of


def visits(seed: int, number: int = 8, samples: int = 32, explained: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of visits of different level, and predictions that explain a share of their variance; float64 (V, K)."""
    generator = torch.Generator().manual_seed(seed)
    level, seen, unseen = (
        torch.randn(number, k, dtype=torch.float64, generator=generator) for k in (1, samples, samples)
    )
    return 0.3 + 0.1 * level + 0.01 * (explained**0.5 * seen + (1 - explained) ** 0.5 * unseen), seen


def learn(formula: UnknownFormula, updates: int, explained: float = 0.5, bend=lambda scores: scores) -> UnknownFormula:
    for seed in range(updates):
        scores, mean = visits(seed, explained=explained)
        formula.learn([Seen(bend(scores), mean * formula.slope * explained**0.5)])
    return formula


def test_the_formula_of_a_reward_is_known_by_its_name_without_options() -> None:
    for reward in ("mean_iou", "pixel_accuracy"):
        formula, said = formula_of(reward, {}, 5, 3)
        assert isinstance(formula, KnownFormula)
        assert said is None
        assert formula.rounding == pytest.approx(1 / 192)
    for reward, options in (("pixel_accuracy", {"class_weights": [1, 2, 3]}), ("boundary_f1", {}), (None, {})):
        formula, said = formula_of(reward, options, 0, 3)
        assert isinstance(formula, UnknownFormula)
        assert said


@pytest.mark.parametrize("name", BASES)
def test_the_prediction_is_a_multiple_of_an_expected_score(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randint(1, 20, (6, 4), generator=generator).double()
    predicted[:, 0] += 100 - predicted.sum(dim=1)
    expected = predicted * torch.rand(6, 4, dtype=torch.float64, generator=generator)
    target = predicted.flip(0)
    formula = UnknownFormula(4)
    formula.name, formula.slope = name, 0.7
    prediction, known = (of.predict(expected, predicted, target) for of in (formula, KnownFormula(name)))
    factor = 0.7 / math.sqrt(0.25 * 0.75 / 100)
    for mine, its in zip(prediction, known, strict=True):
        torch.testing.assert_close(mine, factor * its)


def test_the_slope_is_relative_to_what_the_accuracy_of_random_label_maps_deviates_by() -> None:
    right = torch.distributions.Binomial(100, torch.tensor(0.25, dtype=torch.float64)).sample((20_000, 1))
    counts = torch.cat([right, torch.zeros(20_000, 3, dtype=torch.float64)], dim=1)
    every, formula = torch.full_like(counts, 25.0), UnknownFormula(4)
    formula.name = "pixel_accuracy"
    assert formula.predict(counts, every, every).mean.std().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("name", BASES)
def test_of_rivals_the_one_is_taken_that_explains_the_scores_and_kept_once_it_is_settled(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    formula = UnknownFormula(3)

    def observe(scores_of: str) -> None:
        predicted = torch.full((16, 3), 10.0, dtype=torch.float64)
        expected = 9 * torch.rand(16, 3, dtype=torch.float64, generator=generator)
        target = torch.tensor([[2.0, 8.0, 20.0]], dtype=torch.float64).expand(16, 3)
        scores = KnownFormula(scores_of).predict(expected, predicted, target).mean.view(2, 8)
        mean = formula.predict(expected, predicted, target).mean.view(2, 8)
        rivals = {of: it.view(2, 8) for of, it in formula.rivals(expected, predicted, target).items()}
        formula.learn([Seen(scores, mean, rivals)])

    for _ in range(10):
        observe(name)
    assert formula.name == name
    again = UnknownFormula(3)
    again.load_state_dict(formula.state_dict())
    assert (again.name, again.open, again.sums) == (name, True, formula.sums)
    formula.settle()
    for _ in range(100):
        observe(next(other for other in BASES if other != name))
    assert formula.name == name


def test_a_state_of_before_there_were_rivals_goes_on_with_the_accuracy() -> None:
    state = learn(UnknownFormula(4), 5).state_dict()
    old = {name: value for name, value in state.items() if name not in ("name", "open")}
    formula = UnknownFormula(4)
    formula.load_state_dict(old | {"sums": {"squares": 2.0, "products": 1.0}})
    assert (formula.name, formula.open) == ("pixel_accuracy", False)
    assert formula.sums["products pixel_accuracy"] == 1.0
    assert formula.rivals(*[torch.ones(2, 4, dtype=torch.float64)] * 3) == {}


@settings(max_examples=15)
@given(factor=st.sampled_from([1e-4, 0.3, 7.0, 1e5]), shift=st.sampled_from([-50.0, 0.0, 3.0]))
def test_a_score_that_is_stretched_and_shifted_is_the_same_to_it(factor: float, shift: float) -> None:
    plain = learn(UnknownFormula(4), 12)
    moved = learn(UnknownFormula(4), 12, bend=lambda scores: factor * scores + shift)
    assert moved.slope == pytest.approx(plain.slope, rel=1e-4)
    scores, mean = visits(99)
    for one, other in zip(
        plain.residuals(scores, mean, 1.0), moved.residuals(factor * scores + shift, mean, 1.0), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_where_a_bent_score_is_steep_its_differences_count_less() -> None:
    formula = learn(UnknownFormula(4), 60, bend=lambda scores: torch.exp(8 * scores))
    for level in (0.2, 0.3, 0.4):
        scores = torch.exp(8 * (level + 0.01 * visits(5, 1, 4000)[1]))
        assert (scores / formula.scale(scores)).std().item() == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("explained", [0.05, 0.3, 0.9])
def test_the_slope_is_that_of_the_regression_of_scores_on_predictions(explained: float) -> None:
    formula = learn(UnknownFormula(4), 150, explained)
    # Predictions have the deviation √explained, and scores in units of theirs the same part in common: a slope of 1.
    assert formula.slope == pytest.approx(1, abs=0.1)
    for seed in range(150):  # predictions that say nothing
        scores, _ = visits(seed)
        formula.learn([Seen(scores, visits(seed + 1000)[1] * formula.slope)])
    assert formula.slope < 0.15


def test_scores_of_few_values_are_taken_as_rounded_and_others_never_again() -> None:
    formula = UnknownFormula(3)
    formula.learn([Seen(torch.full((2, 4), 3.0, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.float64))])
    assert formula.rounding == 1.0  # all the same: label maps must differ more
    stars = torch.tensor([[1.0, 2, 3, 5, 3, 3, 2, 1]], dtype=torch.float64)
    for _ in range(SEEN):
        formula.learn([Seen(stars, torch.zeros_like(stars))])
    assert formula.is_rounded
    assert formula.values == [1, 2, 3, 5]
    assert formula.rounding == pytest.approx((4 / 3) ** 2 / 12)
    mean = torch.linspace(-1, 1, 8, dtype=torch.float64)[None]
    residuals, undecided = formula.residuals(stars, mean, 1.0)
    assert (undecided > 0).all()
    assert residuals[0, 3] > 0 > residuals[0, 7]  # five stars, and one star where more were predicted

    many = torch.arange(MOST_VALUES + 1, dtype=torch.float64)[None]
    formula.learn([Seen(many, torch.zeros_like(many))])
    assert formula.values is None
    assert formula.rounding == 0.0
    for _ in range(SEEN):
        formula.learn([Seen(stars, torch.zeros_like(stars))])
    assert not formula.is_rounded
    assert not formula.residuals(stars, mean, 1.0)[1].any()


def test_scores_that_never_differ_teach_nothing() -> None:
    formula = UnknownFormula(3)
    same = torch.full((2, 4), 0.5, dtype=torch.float64)
    for _ in range(3):
        formula.learn([Seen(same, torch.randn(2, 4, dtype=torch.float64))])
    assert (formula.slope, formula.curve) == (1.0, [])
    assert torch.equal(formula.scale(same), torch.ones(2, 1, dtype=torch.float64))


def test_micro_batches_teach_what_one_batch_teaches() -> None:
    whole, parts = UnknownFormula(4), UnknownFormula(4)
    for seed in range(5):
        scores, mean = visits(seed)
        whole.learn([Seen(scores, mean * whole.slope)])
        parts.learn([Seen(scores[i : i + 2], mean[i : i + 2] * parts.slope) for i in range(0, 8, 2)])
    assert parts.slope == pytest.approx(whole.slope, rel=1e-12)
    assert parts.curve == pytest.approx(whole.curve, rel=1e-9)


def test_a_checkpoint_holds_it() -> None:
    formula, again = learn(UnknownFormula(4), 5), UnknownFormula(4)
    again.load_state_dict(json.loads(json.dumps(formula.state_dict())))
    scores, mean = visits(7)
    torch.testing.assert_close(again.residuals(scores, mean, 1.0), formula.residuals(scores, mean, 1.0), rtol=0, atol=0)
    assert learn(again, 3).slope == pytest.approx(learn(formula, 3).slope, rel=1e-12)
