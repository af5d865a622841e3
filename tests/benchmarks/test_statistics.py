from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from benchmarks.statistics import (
    bootstrap_interval,
    interquartile_mean,
    mean,
    median,
    normalise,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)
from rss_env.errors import OptionError
from tests.benchmarks.atari_100k import HUMAN, IRIS, RANDOM

GRID = st.integers(-3, 3).map(float)  # ties are frequent


def matrices(runs: int, tasks: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(float, (runs, tasks), elements=GRID)


# Published values -----------------------------------------------------------------------------------------------------


def test_the_published_aggregates_of_a_published_set_of_scores() -> None:
    scores = normalise(IRIS, zero=RANDOM, one=HUMAN)  # 5 runs of 26 games
    found = [mean(scores), median(scores), interquartile_mean(scores), optimality_gap(scores)]
    assert np.round(found, 3).tolist() == [1.046, 0.289, 0.501, 0.512]


def test_the_values_that_rliable_is_tested_with() -> None:
    x, y = np.array([[1, 2], [2, 2], [1, 1], [2, 1]]), np.array([[1, 1], [2, 2], [3, 3]])
    for statistic in (median, mean, interquartile_mean):
        assert statistic(x) == 1.5
        assert statistic(y) == 2
    assert probability_of_improvement(x, y) == pytest.approx(1 / 3)


# Point estimates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5], 0.5),
        ([0.0, 1.0, 2.0], 1.0),  # fewer than four: the plain mean
        ([100.0, 1.0, 2.0, -100.0], 1.5),
        ([0.0, 1.0, 2.0, 3.0, 100.0], 2.0),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 1000.0], 4.5),  # two left out at each end
        ([[1.0, 2.0, 1000.0, 4.0], [5.0, -1000.0, 7.0, 3.0]], 22 / 6 - 1 / 6),  # of 2, 3, 4, 5
    ],
)
def test_the_interquartile_mean_of_known_values(values: list[Any], expected: float) -> None:
    assert interquartile_mean(values) == pytest.approx(expected)


def test_median_and_gap_of_known_values() -> None:
    scores = [[0.0, 0.5, 3.0], [0.4, 0.7, 1.0]]  # means of the tasks: 0.2, 0.6, 2
    assert median(scores) == pytest.approx(0.6)
    assert optimality_gap(scores) == pytest.approx(1 - (0.0 + 0.5 + 1 + 0.4 + 0.7 + 1) / 6)  # 3 counts as 1
    assert optimality_gap(scores, target=4) == pytest.approx(4 - np.mean(scores))


@settings(max_examples=50)
@given(st.data(), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4))
def test_probability_of_improvement_is_mann_whitney_on_every_task(
    data: st.DataObject, n: int, m: int, tasks: int
) -> None:
    x, y = data.draw(matrices(n, tasks)), data.draw(matrices(m, tasks))
    found = probability_of_improvement(x, y)
    expected = stats.mannwhitneyu(x, y, axis=0, method="asymptotic").statistic / (n * m)
    assert found == pytest.approx(expected.mean())
    assert found + probability_of_improvement(y, x) == pytest.approx(1)
    assert probability_of_improvement(x, x) == pytest.approx(0.5)


@settings(max_examples=50)
@given(st.data(), st.integers(1, 5), st.integers(1, 4))
def test_a_profile_is_one_minus_the_empirical_distribution(data: st.DataObject, runs: int, tasks: int) -> None:
    scores, thresholds = data.draw(matrices(runs, tasks)), np.linspace(-4, 4, 33)
    expected = 1 - stats.ecdf(scores.ravel()).cdf.evaluate(thresholds)
    np.testing.assert_allclose(performance_profile(scores, thresholds), expected, atol=1e-12)


@settings(max_examples=25)
@given(st.data(), st.integers(1, 5), st.integers(1, 4))
def test_a_stack_of_matrices_gives_what_each_gives(data: st.DataObject, runs: int, tasks: int) -> None:
    stack = data.draw(arrays(float, (3, runs, tasks), elements=GRID))
    for statistic in (interquartile_mean, mean, median, optimality_gap):
        np.testing.assert_allclose(statistic(stack), [statistic(each) for each in stack], atol=1e-12)
    profiles = performance_profile(stack, [0.0, 1.0])
    np.testing.assert_array_equal(profiles, [performance_profile(each, [0.0, 1.0]) for each in stack])
    improved = probability_of_improvement(stack, stack[::-1])
    each = [probability_of_improvement(x, y) for x, y in zip(stack, stack[::-1], strict=True)]
    np.testing.assert_allclose(improved, each, atol=1e-12)


# Normalising ----------------------------------------------------------------------------------------------------------


def test_normalised_scores_are_zero_and_one_where_they_should_be_and_go_beyond() -> None:
    found = normalise([[0.2, 0.1], [0.8, 0.5], [1.0, 0.0]], zero=[0.2, 0.1], one=[0.8, 0.5])
    np.testing.assert_allclose(found, [[0, 0], [1, 1], [4 / 3, -0.25]])
    assert normalise(0.5, 0.0, 2.0) == 0.25


@pytest.mark.parametrize("one", [0.3, 0.2, np.nan])
def test_a_task_without_a_scale_is_refused(one: float) -> None:
    with pytest.raises(OptionError, match="not on task 1"):
        normalise([[0.5, 0.5]], zero=[0.1, 0.3], one=[0.9, one])


@pytest.mark.parametrize("scores", [[], [np.nan, 1.0], [[np.inf]]])
def test_scores_that_are_none_or_not_finite_are_refused(scores: Any) -> None:
    with pytest.raises(OptionError, match="finite"):
        interquartile_mean(scores)
    with pytest.raises(OptionError, match="finite"):
        bootstrap_interval(scores)


def test_other_tasks_are_no_comparison() -> None:
    with pytest.raises(OptionError, match="got 2 and 3"):
        probability_of_improvement(np.zeros((2, 2)), np.zeros((2, 3)))


# The bootstrap --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.95, 0.9, 0.8, 0.6])
def test_the_interval_of_three_runs_is_that_of_all_27_resamples(confidence: float) -> None:
    values = [0.1, 0.45, 0.9]
    means = sorted(np.mean(each) for each in itertools.product(values, repeat=3))
    tail = (1 - confidence) / 2  # none of these tails is near a step of the distribution, k / 27
    expected = np.quantile(means, [tail, 1 - tail], method="inverted_cdf")
    assert bootstrap_interval(values, confidence=confidence) == pytest.approx(tuple(expected))


def test_every_task_is_resampled_by_itself_and_all_resamples_are_equally_likely() -> None:
    scores = np.array([[0.0, 2.0], [1.0, 3.0]])  # 2 runs of 2 tasks
    seen: Counter[tuple[float, ...]] = Counter()

    def statistic(resamples: np.ndarray) -> np.ndarray:
        seen.update(map(tuple, resamples.reshape(len(resamples), -1)))
        return resamples.mean((1, 2))

    bootstrap_interval(scores, statistic=statistic, resamples=16_000)
    assert set(seen) == {(a, b, c, d) for a, b, c, d in itertools.product((0, 1), (2, 3), (0, 1), (2, 3))}
    assert stats.chisquare(list(seen.values())).pvalue > 1e-3  # deterministic: the seed is fixed


@pytest.mark.parametrize("statistic", [interquartile_mean, mean, optimality_gap])
def test_the_interval_agrees_with_scipy(statistic: Callable[[Any], Any]) -> None:
    scores = np.random.default_rng(3).normal(0.5, 0.3, (5, 4))
    # SciPy resamples each of its samples by itself: as the stratified bootstrap does with tasks.
    oracle = stats.bootstrap(
        scores.T,  # a sample a task
        lambda *tasks, axis: statistic(np.stack(tasks, -1)),  # tasks: (resamples, runs)
        n_resamples=20_000,
        method="percentile",
        vectorized=True,
        batch=20_000,
    )
    found = bootstrap_interval(scores, statistic=statistic, resamples=20_000)
    width = oracle.confidence_interval.high - oracle.confidence_interval.low
    assert found == pytest.approx(tuple(oracle.confidence_interval), abs=0.03 * width)


def test_two_algorithms_are_resampled_independently() -> None:
    x = np.array([[0.0], [2.0]])
    low, high = bootstrap_interval(x, [1.0], statistic=probability_of_improvement)
    assert (low, high) == (0, 1)  # a quarter of the resamples of X are (0, 0), a quarter (2, 2)
    low, high = bootstrap_interval(x, x, statistic=probability_of_improvement)
    assert (low, high) == (0, 1)  # X (0, 0) against Y (2, 2), 1 in 16: drawn together it would always be one half


def test_a_profile_has_a_band_around_it() -> None:
    thresholds = np.linspace(-0.5, 1.5, 21)
    scores = np.random.default_rng(0).uniform(size=(5, 6))
    low, high = bootstrap_interval(scores, statistic=lambda each: performance_profile(each, thresholds))
    profile = performance_profile(scores, thresholds)
    assert low.shape == high.shape == profile.shape
    assert (low <= profile).all()
    assert (profile <= high).all()
    assert (low < high).sum() > 5
    assert (low[0], high[-1]) == (1, 0)


@settings(max_examples=25)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12))
def test_the_interval_lies_within_the_values_and_holds_no_less_than_nothing(values: list[float]) -> None:
    low, high = bootstrap_interval(values, resamples=200)
    slack = 1e-9
    assert min(values) - slack <= low <= high <= max(values) + slack


def test_the_interval_is_the_same_every_time_and_narrows_with_more_seeds() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.normal(size=8), rng.normal(size=200)
    assert bootstrap_interval(few) == bootstrap_interval(few)
    widths = [high - low for low, high in map(bootstrap_interval, (few, many))]
    assert widths[1] < widths[0] / 2


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    # 200 samples of 30 standard normal values: of 95 % intervals about 190 hold 0. Percentile intervals are a little
    # narrow at this size; fewer than 170 would happen by chance less than once in 10^7 at a coverage of 93 %.
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.normal(size=30), resamples=300)
        held += low <= 0 <= high
    assert 170 <= held <= 199


def test_one_run_is_its_own_interval() -> None:
    assert bootstrap_interval([0.25]) == (0.25, 0.25)
    assert bootstrap_interval([[0.25, 0.75]]) == (0.5, 0.5)
