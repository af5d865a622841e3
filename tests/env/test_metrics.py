"""The data-set-level metrics against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from rss_env.metrics import ConfusionMatrix


def random_maps(seed: int, shape: tuple[int, int, int], classes: int, used: int, ignored: float):
    """Label maps and targets of the first ``used`` classes, a share of the pixels ignored."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, used, shape, dtype=np.uint8)
    label_maps = np.where(rng.random(shape) < 0.5, targets, rng.integers(0, used, shape)).astype(np.uint8)
    targets[rng.random(shape) < ignored] = 255
    return label_maps, targets


maps = st.builds(
    lambda seed, shape, classes, used, ignored: (
        *random_maps(seed, shape, classes, min(used, classes), ignored),
        classes,
    ),
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20)),
    classes=st.one_of(st.integers(2, 12), st.integers(2, 255)),
    used=st.integers(1, 255),
    ignored=st.sampled_from([0.0, 0.3, 0.95, 1.0]),
)


@given(maps)
@settings(max_examples=200)
def test_counts_and_scores_are_scikit_learns(case: tuple[np.ndarray, np.ndarray, int]):
    label_maps, targets, classes = case
    matrix = ConfusionMatrix(classes)
    matrix.update(label_maps, targets)
    counted = targets != 255
    truth, guess = targets[counted], label_maps[counted]
    assert matrix.counts.dtype == np.int64
    if not counted.any():
        assert matrix.counts.tolist() == np.zeros((classes, classes)).tolist()
        assert math.isnan(matrix.miou())
        assert math.isnan(matrix.pixel_accuracy())
        assert np.isnan(matrix.per_class_iou()).all()
        return
    np.testing.assert_array_equal(matrix.counts, confusion_matrix(truth, guess, labels=range(classes)))
    assert matrix.pixel_accuracy() == accuracy_score(truth, guess)
    present = np.union1d(truth, guess)
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(matrix.per_class_iou())), present)
    expected = jaccard_score(truth, guess, labels=present, average=None)
    np.testing.assert_allclose(matrix.per_class_iou()[present], expected, rtol=1e-12)
    assert matrix.miou() == pytest.approx(expected.mean(), rel=1e-12)


@given(maps, st.integers(0, 3))
def test_updates_add_up(case: tuple[np.ndarray, np.ndarray, int], cut: int):
    label_maps, targets, classes = case
    whole, parts = ConfusionMatrix(classes), ConfusionMatrix(classes)
    whole.update(label_maps, targets)
    for part in (slice(None, cut), slice(cut, None)):
        parts.update(label_maps[part], targets[part])
    np.testing.assert_array_equal(parts.counts, whole.counts)


@pytest.mark.parametrize("classes", [2, 5, 14, 15, 16, 100, 254, 255])
def test_large_maps_are_counted_exactly(classes: int):
    label_maps, targets = random_maps(0, (2, 120, 160), classes, classes, 0.1)
    matrix = ConfusionMatrix(classes)
    matrix.update(label_maps, targets)
    counted = targets != 255
    np.testing.assert_array_equal(
        matrix.counts, confusion_matrix(targets[counted], label_maps[counted], labels=range(classes))
    )


def test_rows_are_targets_and_columns_predictions():
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([[[2, 2, 0, 1]]], np.uint8), np.array([[[0, 0, 255, 1]]], np.uint8))
    assert matrix.counts.tolist() == [[0, 0, 2], [0, 1, 0], [0, 0, 0]]


def test_a_class_in_no_target_and_no_prediction_does_not_count():
    matrix = ConfusionMatrix(4)
    matrix.update(np.array([[[0, 0, 1, 1]]], np.uint8), np.array([[[0, 0, 0, 1]]], np.uint8))
    np.testing.assert_array_equal(matrix.per_class_iou(), [2 / 3, 1 / 2, np.nan, np.nan])
    assert matrix.miou() == (2 / 3 + 1 / 2) / 2
    assert matrix.pixel_accuracy() == 3 / 4


def test_a_class_that_is_only_predicted_counts_as_0():
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([[[0, 2]]], np.uint8), np.array([[[0, 0]]], np.uint8))
    np.testing.assert_array_equal(matrix.per_class_iou(), [1 / 2, np.nan, 0])
    assert matrix.miou() == 1 / 4


def test_targets_of_c_and_above_are_ignored():
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([[[0, 1, 1, 0]]], np.uint8), np.array([[[0, 2, 254, 255]]], np.uint8))
    assert matrix.counts.tolist() == [[1, 0], [0, 0]]


def test_an_update_leaves_its_arguments_alone():
    label_maps, targets = random_maps(0, (2, 9, 9), 5, 5, 0.2)
    copies = label_maps.copy(), targets.copy()
    ConfusionMatrix(5).update(label_maps, targets)
    np.testing.assert_array_equal(label_maps, copies[0])
    np.testing.assert_array_equal(targets, copies[1])


def test_wrong_shapes_and_classes_are_errors_that_count_nothing():
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=r"Label maps \(1, 2, 3\) and targets \(1, 3, 2\) differ in shape"):
        matrix.update(np.zeros((1, 2, 3), np.uint8), np.zeros((1, 3, 2), np.uint8))
    with pytest.raises(ValueError, match=r"Label maps must hold 0\.\.2, got 3"):
        matrix.update(np.full((1, 2, 3), 3, np.uint8), np.zeros((1, 2, 3), np.uint8))
    assert not matrix.counts.any()
