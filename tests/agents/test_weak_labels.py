"""The lower bound that sees which classes an image has."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.training import Feedback, train
from agents.weak_labels import WeakLabels, image_tags, tag_loss
from rss_env.errors import OptionError


@given(st.integers(2, 255), st.integers(0, 2**32 - 1))
def test_tags_are_the_classes_that_occur_and_ignored_pixels_are_none(classes: int, seed: int) -> None:
    targets = np.random.default_rng(seed).integers(0, classes, (3, 2, 4))
    targets[0, 0, :] = 255
    tags = image_tags(torch.from_numpy(targets), classes).numpy()
    for b in range(3):
        present = set(targets[b].ravel().tolist()) - {255}
        assert set(np.flatnonzero(tags[b]).tolist()) == present
    assert tags.shape == (3, classes)


def by_hand(logits: np.ndarray, tags: np.ndarray, r: float) -> float:
    """The loss from its definition, pixel by pixel; logits (B, C, N)."""
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    outside, somewhere = [], []
    for b in range(len(p)):
        has = [c for c in range(p.shape[1]) if tags[b, c]]
        if has:
            outside.append(np.mean([-math.log(sum(p[b, c, i] for c in has)) for i in range(p.shape[2])]))
        somewhere += [-math.log(np.mean([p[b, c, i] ** r for i in range(p.shape[2])]) ** (1 / r)) for c in has]
    return (np.mean(outside) if outside else 0.0) + (np.mean(somewhere) if somewhere else 0.0)


@given(st.lists(st.booleans(), min_size=6, max_size=6), st.floats(0.5, 8), st.integers(0, 2**31))
def test_the_loss_is_minus_the_log_likelihood_of_the_tags(tags: list[bool], sharpness: float, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 2, (2, 3, 2, 4))
    told = np.array(tags, float).reshape(2, 3)
    found = tag_loss(torch.from_numpy(logits), torch.from_numpy(told), sharpness)
    assert found.item() == pytest.approx(by_hand(logits.reshape(2, 3, 8), told, sharpness), abs=1e-9)


def test_label_maps_that_have_the_classes_of_the_tags_cost_little_and_others_much() -> None:
    tags = torch.tensor([[1.0, 0.0, 1.0]])

    def loss(label_map: list[int]) -> float:
        logits = 50 * torch.nn.functional.one_hot(torch.tensor([[label_map]]), 3).permute(0, 3, 1, 2).float()
        return tag_loss(logits, tags, 4.0).item()

    one_of_four = math.log(4) / 4  # a class of one pixel: -log of (1/4)^(1/4), and half of the mean over two tags
    full = -math.log(3 / 4) / 4
    assert loss([0, 0, 0, 2]) == pytest.approx((one_of_four + full) / 2, abs=1e-5)
    assert loss([0, 0, 2, 2]) < 1
    assert loss([0, 0, 0, 0]) > 10  # a class is missing
    assert loss([0, 1, 2, 2]) > 10  # a pixel has a class that the image lacks


def test_its_gradient_is_finite_where_all_pixels_are_ignored_or_certain() -> None:
    logits = torch.tensor([100.0, 0, 0]).view(1, 3, 1, 1).repeat(2, 1, 2, 2).requires_grad_()
    tag_loss(logits, torch.tensor([[0.0, 0, 0], [0, 1, 0]]), 4.0).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[0] == 0).all()
    assert (logits.grad[1, 1] < 0).all()


def earn(target: torch.Tensor, score: float) -> Feedback:
    """Feedback on label maps (B, 1, H, W) whatever they are, with the targets (B, H, W) of the images."""
    batch = len(target)
    scores = torch.full((batch, 1), score)
    return Feedback(target[:, None], scores, None, list(range(batch)), [False] * batch, {"target": target})


def test_it_learns_from_the_tags_only_and_logs_the_scores() -> None:
    target = torch.tensor([[[0, 0, 2]], [[1, 255, 1]]], dtype=torch.uint8)
    logits = torch.randn(2, 4, 1, 3, generator=torch.Generator().manual_seed(0))
    algorithm = WeakLabels(sharpness=2.0)
    lesson = algorithm.observe(logits, earn(target, 0.25))
    assert lesson.tags.tolist() == [[1, 0, 1, 0], [0, 1, 0, 0]]
    loss, metrics = algorithm.loss(logits, lesson, 0.0)
    assert loss.item() == pytest.approx(by_hand(logits.double().flatten(2).numpy(), lesson.tags.numpy(), 2), rel=1e-5)
    found = [[float(c in drawn) for c in range(4)] for drawn in logits.argmax(dim=1).flatten(1).tolist()]
    assert float(metrics["train/tag_accuracy"]) == (np.array(found) == lesson.tags.numpy()).mean()
    assert metrics["reward/mean"] == 0.25

    moved = algorithm.observe(logits, earn(target.flip(2), 0.75))  # the same tags, other places and scores
    other, metrics = algorithm.loss(logits, moved, 0.0)
    assert torch.equal(other, loss)
    assert metrics["reward/mean"] == 0.75


@pytest.mark.parametrize("arguments", [{"sharpness": 0.0}, {"learning_rate": float("inf")}], ids=str)
def test_arguments_that_are_out_of_range_are_rejected(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(OptionError, match=f"{name} must be positive, got"):
        WeakLabels(**arguments)


def test_it_trains_and_its_own_label_maps_are_the_only_ones_scored(tmp_path: Path) -> None:
    result = train(
        "RSS-Shapes-ImageReward-v0",
        WeakLabels(),
        network_options={"width": 8},
        image_size=(16, 16),
        env_kwargs={"num_images": 8},
        steps=3,
        batch_size=2,
        run_dir=str(tmp_path / "run"),
        progress=False,
    )
    assert (result.step, result.finished, result.reward_queries) == (3, True, 3 * 2)
