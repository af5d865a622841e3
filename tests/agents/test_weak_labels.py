"""The lower bound that sees which classes an image has."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.weak_labels import WeakLabelsArguments, image_tags, pool, train_weak_labels


@settings(deadline=None)
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


@pytest.mark.parametrize("pooling", ["log_sum_exp", "max", "mean"])
def test_it_trains_without_asking_for_a_score(pooling: str, tmp_path: Path) -> None:
    arguments = WeakLabelsArguments(
        image_size=(16, 16),
        env_kwargs='{"num_images": 8}',
        steps=3,
        batch_size=2,
        width=8,
        pooling=pooling,  # type: ignore[arg-type]
        run_dir=str(tmp_path / "run"),
        progress=False,
    )
    result = train_weak_labels(arguments)
    assert (result.step, result.finished, result.reward_queries) == (3, True, 0)
