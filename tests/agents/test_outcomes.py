"""Agents that learn from what comes of acting on their label maps, and cross-entropy on the true maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents import RSS, Likelihood, Supervised, train
from agents.training.run_folder import RunFolder

pytest.importorskip("crafter", reason="needs the game: pip install 'rss-env[crafter]'")
OPTIONS: dict[str, Any] = {"env_kwargs": {"num_images": 6}, "image_size": (40, 40), "batch_size": 4, "progress": False}
OPTIONS |= {"network_options": {"width": 8}, "augment": "flip"}


@pytest.mark.parametrize("algorithm", [RSS(samples_per_image=4, cells=(8,)), Likelihood(samples_per_image=4)])
def test_an_agent_is_trained_and_validated_by_outcomes(algorithm: Any, tmp_path: Path):
    result = train("RSS-Crafter-OutcomeReward-v0", algorithm, steps=3, run_dir=str(tmp_path), **OPTIONS)
    assert set(result.evaluation.metrics) == {"score"}
    assert result.reward_queries == 3 * 4 * 4 + 6
    assert not any("val/miou" in row for row in RunFolder(tmp_path).read_metrics())


def test_cross_entropy_has_the_true_maps_and_is_validated_by_outcomes(tmp_path: Path):
    result = train("RSS-Crafter-OutcomeReward-v0", Supervised(), steps=40, run_dir=str(tmp_path), **OPTIONS)
    rows = RunFolder(tmp_path).read_metrics()
    accuracies = [row["train/pixel_accuracy"] for row in rows if "train/pixel_accuracy" in row]
    assert accuracies[-1] > accuracies[0] + 0.1
    assert set(result.evaluation.metrics) == {"score"}
