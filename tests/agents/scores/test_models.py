"""The expected scores: equal to the true ones for a certain belief, and with the right derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.ops import soft_counts
from agents.scores.models import MODEL_OPTIONS, SCORE_MODELS, predict_scores
from rss_env.rewards import REWARDS, score_images

names = pytest.mark.parametrize("name", sorted(SCORE_MODELS))
sizes = st.tuples(*(st.integers(1, most) for most in (3, 4, 6, 7)))  # B, K, H, W


def draw_counts(
    rng: np.random.Generator, label_maps: int, classes: int, absent: float = 0.3
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Expected, predicted and target counts, float64 (M, C), that a belief and label maps of 60 pixels could have.

    ``absent`` is the probability that a label map lacks a class.
    """
    shares = rng.dirichlet(np.ones(classes), label_maps) * (rng.random((label_maps, classes)) > absent)
    predicted = np.floor(60 * shares)
    predicted[:, 0] += 60 - predicted.sum(axis=1)
    target = 60 * rng.dirichlet(np.ones(classes), label_maps)
    expected = rng.random((label_maps, classes)) * np.minimum(predicted, target)
    return torch.from_numpy(expected), torch.from_numpy(predicted), torch.from_numpy(target)


def plain_score(name: str, expected: np.ndarray, predicted: np.ndarray, target: np.ndarray) -> float:
    """The formulas of docs/likelihood.md for one label map, by a loop over the classes."""
    if name == "pixel_accuracy":
        return float(expected.sum() / predicted.sum())
    total = weights = 0.0
    for right, chosen, true in zip(expected, predicted, target, strict=True):
        iou = right / (chosen + true - right)
        present = 1.0 if chosen > 0 else 1 - np.exp(-true)
        value, weight = {
            "mean_iou": (iou, present),
            "mean_dice": (2 * right / (chosen + true), present),
            "frequency_weighted_iou": (iou, true),
        }[name]
        total += weight * value
        weights += weight
    return total / weights


def test_every_model_is_of_a_reward_of_the_environment() -> None:
    assert set(SCORE_MODELS) <= set(REWARDS)
    assert "mean_iou" in SCORE_MODELS


@names
@settings(max_examples=40)
@given(size=sizes, classes=st.integers(2, 9), sharp=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_of_a_certain_belief_the_expected_score_is_the_score(
    name: str, size: tuple[int, int, int, int], classes: int, sharp: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    batch, samples, height, width = size
    # With all classes equally likely, and with few of them in the target.
    targets = rng.integers(0, classes if sharp else rng.integers(1, classes + 1), (batch, height, width))
    label_maps = rng.integers(0, classes, size).astype(np.uint8)
    copies = rng.random(size) < 0.5
    label_maps[copies] = np.broadcast_to(targets[:, None], size)[copies]
    belief = torch.nn.functional.one_hot(torch.from_numpy(targets), classes).permute(0, 3, 1, 2).double()

    owner = torch.arange(batch).repeat_interleave(samples)
    expected, predicted = soft_counts(belief, torch.from_numpy(label_maps).flatten(0, 1), owner)
    mean = predict_scores(name, expected, predicted, belief.sum(dim=(2, 3))[owner]).mean.reshape(batch, samples)
    for b in range(batch):
        present = np.array([(targets[b] == c).any() for c in range(classes)])
        for k in range(samples):
            score = score_images(name, label_maps[b : b + 1, k : k + 1], targets[b : b + 1], classes)[0, 0]
            # A class that the label map lacks counts with 1 - exp(-pixels) in a class mean, not with 1.
            lacking = [c for c in np.flatnonzero(present) if not (label_maps[b, k] == c).any()]
            if name in ("mean_iou", "mean_dice") and lacking:
                union = present | np.isin(np.arange(classes), label_maps[b, k])
                soft = sum(1 - np.exp(-(targets[b] == c).sum()) for c in lacking)
                score *= union.sum() / (union.sum() - len(lacking) + soft)
            assert mean[b, k].item() == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize("name", MODEL_OPTIONS)
@pytest.mark.parametrize("classes", ["union", "target"])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 0.0, 3.0]])
def test_the_rewards_options_are_in_the_model(name: str, classes: str, weights: list[float] | None) -> None:
    rng = np.random.default_rng(2)
    targets, label_maps = rng.integers(0, 4, (3, 8, 9)), rng.integers(0, 4, (3, 5, 8, 9)).astype(np.uint8)
    targets[0][targets[0] == 3] = 1  # an image lacks a class
    belief = torch.nn.functional.one_hot(torch.from_numpy(targets), 4).permute(0, 3, 1, 2).double()
    owner = torch.arange(3).repeat_interleave(5)
    counts = soft_counts(belief, torch.from_numpy(label_maps).flatten(0, 1), owner)
    options = {"classes": classes, "class_weights": weights}
    mean = predict_scores(name, *counts, belief.sum(dim=(2, 3))[owner], **options).mean.reshape(3, 5)
    np.testing.assert_allclose(
        mean.numpy(), score_images(name, label_maps, targets, 4, **options), rtol=0, atol=1e-6
    )  # within exp(-pixels of the smallest class)


@names
def test_of_a_certain_belief_with_every_class_in_the_label_map_nothing_is_left_out(name: str) -> None:
    rng = np.random.default_rng(1)
    targets, label_maps = rng.integers(0, 4, (3, 8, 9)), rng.integers(0, 4, (3, 5, 8, 9)).astype(np.uint8)
    belief = torch.nn.functional.one_hot(torch.from_numpy(targets), 4).permute(0, 3, 1, 2).double()
    owner = torch.arange(3).repeat_interleave(5)
    expected, predicted = soft_counts(belief, torch.from_numpy(label_maps).flatten(0, 1), owner)
    assert (predicted > 0).all()
    mean = predict_scores(name, expected, predicted, belief.sum(dim=(2, 3))[owner]).mean.reshape(3, 5)
    np.testing.assert_allclose(mean.numpy(), score_images(name, label_maps, targets, 4), rtol=0, atol=1e-14)


@names
@settings(max_examples=40)
@given(label_maps=st.integers(1, 6), classes=st.integers(2, 12), seed=st.integers(0, 2**32 - 1))
def test_the_expected_score_is_that_of_the_formula(name: str, label_maps: int, classes: int, seed: int) -> None:
    counts = draw_counts(np.random.default_rng(seed), label_maps, classes)
    mean = predict_scores(name, *counts).mean
    assert mean.shape == (label_maps,)
    plain = [plain_score(name, *(count[m].numpy() for count in counts)) for m in range(label_maps)]
    np.testing.assert_allclose(mean.numpy(), plain, rtol=0, atol=1e-12)
    assert (mean >= 0).all()
    assert (mean <= 1 + 1e-12).all()


@names
@settings(max_examples=30)
@given(classes=st.integers(2, 6), seed=st.integers(0, 2**32 - 1))
def test_the_derivatives_are_those_of_finite_differences(name: str, classes: int, seed: int) -> None:
    expected, predicted, target = draw_counts(np.random.default_rng(seed), 3, classes)
    target = target + 0.5  # away from 0, where a difference quotient is coarse
    prediction = predict_scores(name, expected, predicted, target)
    assert prediction.per_right.shape == prediction.per_target.shape == (3, classes)

    def score(m: int, right: np.ndarray, true: np.ndarray) -> float:
        """The formula, with the classes' weights of the belief as it is: they count as constants."""
        if name == "pixel_accuracy":
            return plain_score(name, right, predicted[m].numpy(), true)
        weight = np.where(predicted[m] > 0, 1.0, 1 - np.exp(-target[m].numpy()))
        if name == "frequency_weighted_iou":
            weight = target[m].numpy()
        chosen = predicted[m].numpy()
        value = 2 * right / (chosen + true) if name == "mean_dice" else right / (chosen + true - right)
        return float((weight * value).sum() / weight.sum())

    step = 1e-5
    for m, c in np.ndindex(3, classes):
        shift = step * np.eye(classes)[c]
        right, true = expected[m].numpy(), target[m].numpy()
        per_right = (score(m, right + shift, true) - score(m, right - shift, true)) / (2 * step)
        per_target = (score(m, right, true + shift) - score(m, right, true - shift)) / (2 * step)
        assert prediction.per_right[m, c].item() == pytest.approx(per_right, abs=1e-8)
        assert prediction.per_target[m, c].item() == pytest.approx(per_target, abs=1e-8)


@names
def test_a_class_that_neither_the_label_map_nor_the_belief_has_changes_nothing(name: str) -> None:
    counts = draw_counts(np.random.default_rng(4), 5, 4)
    without = predict_scores(name, *counts)
    columns = [0, 1, 4, 2, 3]  # a fifth class in the middle
    padded = [torch.cat([count, torch.zeros(5, 1, dtype=torch.float64)], dim=1)[:, columns] for count in counts]
    prediction = predict_scores(name, *padded)
    torch.testing.assert_close(prediction.mean, without.mean, rtol=0, atol=1e-15)
    others = [0, 1, 3, 4]
    torch.testing.assert_close(prediction.per_right[:, others], without.per_right, rtol=0, atol=1e-15)
    torch.testing.assert_close(prediction.per_target[:, others], without.per_target, rtol=0, atol=1e-15)
    for derivative in prediction[1:]:
        assert derivative[:, 2].isfinite().all()


@names
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tiny", [0.0, 1e-45, 1e-30, 1e-9])
def test_probabilities_of_almost_nothing_give_finite_numbers(name: str, dtype: torch.dtype, tiny: float) -> None:
    belief = torch.full((1, 3, 4, 5), tiny, dtype=dtype)
    belief[:, 1] = 1
    label_maps = torch.zeros(3, 4, 5, dtype=torch.uint8)
    label_maps[1], label_maps[2, 0] = 2, 1  # all of class 0, all of class 2, some right pixels
    owner = torch.zeros(3, dtype=torch.long)
    expected, predicted = soft_counts(belief, label_maps, owner)
    prediction = predict_scores(name, expected, predicted, belief.sum(dim=(2, 3))[owner])
    assert all(part.isfinite().all() for part in prediction)
    assert prediction.mean.tolist()[:2] == pytest.approx([0, 0], abs=1e-8)
    assert prediction.mean[2] > 0.05


@names
def test_a_prediction_needs_no_gradient_and_leaves_the_counts_as_they_are(name: str) -> None:
    counts = draw_counts(np.random.default_rng(0), 3, 4)
    before = [count.clone() for count in counts]
    with torch.no_grad():
        prediction = predict_scores(name, *counts)
    assert not any(part.requires_grad for part in (*prediction, *counts))
    assert all(torch.equal(count, old) for count, old in zip(counts, before, strict=True))


def test_expected_accuracy_rises_by_one_share_for_each_expected_right_pixel() -> None:
    expected, predicted, target = draw_counts(np.random.default_rng(2), 3, 4)
    prediction = predict_scores("pixel_accuracy", expected, predicted, target)
    assert torch.equal(prediction.per_target, torch.zeros(3, 4, dtype=torch.float64))
    torch.testing.assert_close(prediction.per_right, torch.full((3, 4), 1 / 60, dtype=torch.float64))
