"""Counts against plain loops and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.metrics import confusion_matrix

from rss_env.rewards import Counts, count_classes, count_labels
from rss_env.rewards.counting.numpy import histogram
from tests.rewards.cases import Case, cases, random_case


def counts_by_loops(case: Case) -> Counts:
    """One pixel at a time."""
    batch, samples = case.label_maps.shape[:2]
    intersection = np.zeros((batch, samples, case.classes), np.int64)
    predicted = np.zeros_like(intersection)
    target = np.zeros((batch, 1, case.classes), np.int64)
    for b, y, x in np.ndindex(case.targets.shape):
        truth = case.targets[b, y, x]
        if truth == 255:
            continue
        target[b, 0, truth] += 1
        for k in range(samples):
            guess = case.label_maps[b, k, y, x]
            predicted[b, k, guess] += 1
            intersection[b, k, guess] += guess == truth
    return Counts(intersection, predicted, target)


def assert_equal_counts(counts: Counts, expected: Counts) -> None:
    for name in Counts._fields:
        ours, theirs = getattr(counts, name), getattr(expected, name)
        assert ours.dtype.kind == "i"
        assert ours.dtype.itemsize == 8
        np.testing.assert_array_equal(ours, theirs)


def counts_of(case: Case) -> Counts:
    return count_labels(case.label_maps, case.targets, case.classes)


@given(cases)
@settings(max_examples=150)
def test_counts_are_those_of_plain_loops(case: Case):
    assert_equal_counts(counts_of(case), counts_by_loops(case))


@pytest.mark.parametrize("ignored", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("size", [(40, 48), (41, 43), (96, 128)])
@pytest.mark.parametrize("classes", [2, 3, 7, 8, 9, 21, 126, 127, 128, 129, 254, 255])
def test_large_maps_are_counted_as_scikit_learn_does(classes: int, size: tuple[int, int], ignored: float):
    case = random_case(classes, (2, 2, *size), classes, ignored, "uint8")
    counts = counts_of(case)
    for b, k in np.ndindex(2, 2):
        counted = case.targets[b] != 255
        matrix = np.zeros((classes, classes), int)
        if counted.any():
            matrix = confusion_matrix(case.targets[b][counted], case.label_maps[b, k][counted], labels=range(classes))
        np.testing.assert_array_equal(counts.intersection[b, k], np.diag(matrix))
        np.testing.assert_array_equal(counts.predicted[b, k], matrix.sum(axis=0))
        np.testing.assert_array_equal(counts.target[b, 0], matrix.sum(axis=1))


@given(cases)
def test_counts_add_up_to_the_counted_pixels(case: Case):
    counts = counts_of(case)
    counted = (case.targets != 255).sum(axis=(1, 2))
    np.testing.assert_array_equal(counts.target.sum(axis=-1), counted[:, None])
    samples = case.label_maps.shape[1]
    np.testing.assert_array_equal(counts.predicted.sum(axis=-1), np.repeat(counted[:, None], samples, axis=1))
    assert (counts.intersection >= 0).all()
    assert (counts.intersection <= np.minimum(counts.predicted, counts.target)).all()


@given(cases)
def test_known_target_counts_change_nothing(case: Case):
    known = count_classes(case.targets, case.classes)
    np.testing.assert_array_equal(known, counts_by_loops(case).target[:, 0])
    assert_equal_counts(count_labels(case.label_maps, case.targets, case.classes, known), counts_of(case))


@given(cases)
def test_counting_leaves_its_arguments_alone(case: Case):
    label_maps, targets = case.label_maps.copy(), case.targets.copy()
    counts_of(case)
    np.testing.assert_array_equal(case.label_maps, label_maps)
    np.testing.assert_array_equal(case.targets, targets)


def test_counts_stay_exact_where_float32_would_not():
    side = 4100  # 16,810,000 pixels, above 2**24
    label_maps = np.zeros((1, 1, side, side), np.uint8)
    label_maps[..., 0, 0] = 1
    counts = count_labels(label_maps, np.zeros((1, side, side), np.uint8), 2)
    assert counts.intersection.tolist() == [[[side * side - 1, 0]]]
    assert counts.predicted.tolist() == [[[side * side - 1, 1]]]
    assert counts.target.tolist() == [[[side * side, 0]]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("pixels", [1, 2, 31, 32, 71, 72, 200, 1800, 2047, 2048, 2049, 2312, 5000])
@pytest.mark.parametrize("bins", [1, 2, 3, 5, 15, 16, 17, 25, 255, 256, 511])
def test_a_histogram_is_numpys_bincount_of_each_row(bins: int, pixels: int, dtype: Any):
    values = np.random.default_rng(0).integers(0, min(bins, np.iinfo(dtype).max + 1), (3, pixels)).astype(dtype)
    values[0] = values.max()  # one bin takes a whole row
    counts = histogram(values, bins)
    np.testing.assert_array_equal(counts, np.stack([np.bincount(row, minlength=bins) for row in values]))
