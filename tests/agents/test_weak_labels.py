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
from agents.weak_labels import WeakLabels, image_tags, pool
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


def test_pooling_lies_between_mean_and_maximum_and_tends_to_them() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, largest = pool(logits, "mean", 1.0), pool(logits, "max", 1.0)
    torch.testing.assert_close(mean, logits.mean(dim=(2, 3)))
    torch.testing.assert_close(largest, logits.amax(dim=(2, 3)))
    smooth = pool(logits, "log_sum_exp", 4.0)
    expected = [[math.log(np.exp(4 * plane).mean()) / 4 for plane in image] for image in logits.numpy()]
    np.testing.assert_allclose(smooth.numpy(), expected)
    assert ((mean < smooth) & (smooth < largest)).all()
    torch.testing.assert_close(pool(logits, "log_sum_exp", 1e-6), mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(pool(logits, "log_sum_exp", 1e4), largest, atol=1e-3, rtol=0)


def earn(target: torch.Tensor, score: float) -> Feedback:
    """Feedback on label maps (B, 1, H, W) whatever they are, with the targets (B, H, W) of the images."""
    batch = len(target)
    scores = torch.full((batch, 1), score)
    return Feedback(target[:, None], scores, None, list(range(batch)), [False] * batch, {"target": target})


def test_it_learns_from_the_tags_only_and_logs_the_scores() -> None:
    target = torch.tensor([[[0, 0, 2]], [[1, 255, 1]]], dtype=torch.uint8)
    logits = torch.randn(2, 4, 1, 3, generator=torch.Generator().manual_seed(0))
    algorithm = WeakLabels(pooling="max")
    lesson = algorithm.observe(logits, earn(target, 0.25))
    assert lesson.tags.tolist() == [[1, 0, 1, 0], [0, 1, 0, 0]]
    loss, metrics = algorithm.loss(logits, lesson, 0.0)
    p = logits.double().amax(dim=(2, 3)).sigmoid().numpy()
    tags = lesson.tags.numpy()
    assert loss.item() == pytest.approx(-np.log(np.where(tags == 1, p, 1 - p)).mean(), rel=1e-5)
    assert float(metrics["train/tag_accuracy"]) == ((p > 0.5) == (tags == 1)).mean()
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


@pytest.mark.parametrize("pooling", ["log_sum_exp", "max", "mean"])
def test_it_trains_and_its_own_label_maps_are_the_only_ones_scored(pooling: Any, tmp_path: Path) -> None:
    result = train(
        "RSS-Shapes-ImageReward-v0",
        WeakLabels(pooling=pooling),
        network_options={"width": 8},
        image_size=(16, 16),
        env_kwargs={"num_images": 8},
        steps=3,
        batch_size=2,
        run_dir=str(tmp_path / "run"),
        progress=False,
    )
    assert (result.step, result.finished, result.reward_queries) == (3, True, 3 * 2)
