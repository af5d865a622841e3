from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.statistics import bootstrap_interval, interquartile_mean


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([0.5], 0.5),
        ([0.0, 1.0, 2.0], 1.0),  # fewer than four: the plain mean
        ([100.0, 1.0, 2.0, -100.0], 1.5),
        ([0.0, 1.0, 2.0, 3.0, 100.0], 2.0),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 1000.0], 4.5),  # two left out at each end
    ],
)
def test_the_interquartile_mean_of_known_values(values: list[float], mean: float) -> None:
    assert interquartile_mean(values) == pytest.approx(mean)


@settings(max_examples=50)
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


def test_one_value_is_its_own_interval() -> None:
    assert bootstrap_interval([0.25]) == (0.25, 0.25)
