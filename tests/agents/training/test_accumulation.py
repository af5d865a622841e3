"""An update made of several micro-batches."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents import RSS, Likelihood, Supervised
from agents.likelihood import ImageLevel
from agents.plugins.sync_an import EPSILON
from agents.training.algorithm import Algorithm
from agents.training.arguments import TrainArguments
from agents.training.callbacks import Callbacks
from agents.training.distributed import Job
from agents.training.loop import _Trainer, micro_batch_size, train
from agents.training.run_folder import RunFolder
from rss_env.datasets import load_dataset
from rss_env.errors import OptionError

SMALL: dict[str, Any] = {
    "image_size": (16, 16),
    "network_options": {"width": 8},
    "log_every": 1,
    "progress": False,
}
DATA: dict[str, Any] = {"num_images": 8, "num_classes": 3}
SHARED: dict[str, Any] = SMALL | {"env_kwargs": DATA}


@dataclass
class Recording:
    """What an algorithm was asked, and what it made of it."""

    calls: list[str] = field(default_factory=list)
    indices: list[np.ndarray] = field(default_factory=list)
    lessons: list[Any] = field(default_factory=list)


def record(algorithm: Algorithm) -> Recording:
    """Notes the calls of an algorithm from now on."""
    recording = Recording()
    observe, synchronise, loss = algorithm.observe, algorithm.synchronise, algorithm.loss

    def observed(logits: torch.Tensor, feedback: Any) -> Any:
        recording.calls.append("observe")
        recording.indices.append(np.array(feedback.index))
        recording.lessons.append(observe(logits, feedback))
        return recording.lessons[-1]

    def synchronised(lessons: Sequence[Any]) -> None:
        assert list(lessons) == recording.lessons[-len(lessons) :]
        recording.calls.append("synchronise")
        synchronise(lessons)

    def lost(logits: torch.Tensor, lesson: Any, progress: float) -> Any:
        recording.calls.append(f"loss of {next(i for i, one in enumerate(recording.lessons) if one is lesson)}")
        return loss(logits, lesson, progress)

    algorithm.observe, algorithm.synchronise, algorithm.loss = observed, synchronised, lost  # type: ignore[method-assign]
    return recording


def make_update(
    algorithm: Algorithm, run_dir: Path, **arguments: Any
) -> tuple[Recording, torch.nn.Module, list[torch.Tensor]]:
    """One update of the training loop: what was called, the policy before it, and the gradients it stepped along."""
    run = TrainArguments(run_dir=str(run_dir), batch_size=4, max_grad_norm=1e9, **SHARED | arguments)
    recording = record(algorithm)
    trainer = _Trainer(run, algorithm, Job(), RunFolder(run_dir), Callbacks())
    trainer.images, trainer.infos = trainer.envs.reset(seed=run.seed)
    before = copy.deepcopy(trainer.network)
    trainer._update()
    trainer.folder.close()
    gradients = [weights.grad for weights in trainer.network.parameters()]
    return recording, before, [gradient for gradient in gradients if gradient is not None]


def targets_of(indices: np.ndarray) -> torch.Tensor:
    targets = load_dataset("Shapes", image_size=(16, 16), **DATA).targets
    assert targets is not None
    return torch.from_numpy(targets[indices]).long()


def images_of(indices: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(load_dataset("Shapes", image_size=(16, 16), **DATA).images[indices])


def assert_gradients(loss: torch.Tensor, policy: torch.nn.Module, gradients: list[torch.Tensor]) -> None:
    expected = torch.autograd.grad(loss, list(policy.parameters()))
    largest = max(float(gradient.abs().max()) for gradient in expected)
    assert largest > 1e-4
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=0, atol=1e-4 * largest)


@pytest.mark.parametrize("entropy_gain", [0.0, 0.5])
def test_the_gradient_is_that_of_both_micro_batches_with_one_scale_for_all_advantages(
    tmp_path: Path, entropy_gain: float
) -> None:
    algorithm = RSS(samples_per_image=3, entropy_gain=entropy_gain)
    recording, policy, gradients = make_update(algorithm, tmp_path / "run", accumulation_steps=2)
    assert recording.calls == ["observe", "observe", "synchronise", "loss of 0", "loss of 1"]

    advantages = []
    for lesson in recording.lessons:
        rewards = lesson.feedback.scores.double()  # (2, 3)
        advantages.append(rewards - (rewards.sum(dim=1, keepdim=True) - rewards) / 2)
    everything = torch.cat(advantages)
    scales = [part.square().mean().sqrt() for part in (everything, *advantages)]
    assert abs(scales[1] - scales[2]) > 0.05 * scales[0]  # a scale for each micro-batch would be another thing
    loss = torch.zeros(())
    for indices, lesson, advantage in zip(recording.indices, recording.lessons, advantages, strict=True):
        log_p = policy(images_of(indices)).log_softmax(dim=1)
        entropy = -(log_p.exp() * log_p).sum(dim=1).mean()
        loss = loss - entropy_gain * (algorithm.entropy_start - entropy.detach()).clamp(min=0) * entropy / 2
        for b, k in np.ndindex(2, 3):
            label_map = lesson.feedback.label_maps[b, k]
            chosen = log_p[b].gather(0, label_map[None].long()).sum()  # its log-probability
            loss = loss - advantage[b, k] / (scales[0] + EPSILON) * chosen / (3 * 4 * 16 * 16)
    assert_gradients(loss, policy, gradients)


def test_the_likelihood_has_one_variance_for_all_micro_batches(tmp_path: Path) -> None:
    algorithm = Likelihood(samples_per_image=3, replay=0, regions=())
    recording, policy, gradients = make_update(algorithm, tmp_path / "run", accumulation_steps=2)
    residuals = torch.cat([lesson.evidence.reading.advantages.double() for lesson in recording.lessons])
    variance = residuals.square().mean()
    assert isinstance(algorithm.level, ImageLevel)
    assert algorithm.level.scale.item() == pytest.approx(variance.sqrt().item() + EPSILON, rel=1e-12)
    loss = torch.zeros(())
    for indices, lesson in zip(recording.indices, recording.lessons, strict=True):
        belief = policy(images_of(indices)).softmax(dim=1)
        loss = loss - (lesson.evidence.direction / variance * belief).sum() / (4 * 16 * 16)
    assert_gradients(loss, policy, gradients)


def test_beliefs_that_know_the_scores_are_learned_in_all_micro_batches(tmp_path: Path) -> None:
    algorithm = Likelihood(samples_per_image=3, replay=0, regions=(6, 3))
    recording, policy, gradients = make_update(algorithm, tmp_path / "run", accumulation_steps=2)
    loss = torch.zeros(())
    for indices, lesson in zip(recording.indices, recording.lessons, strict=True):
        log_p = policy(images_of(indices)).log_softmax(dim=1)
        loss = loss - (lesson.evidence.probabilities * log_p).sum() / (4 * 16 * 16)
    assert_gradients(loss, policy, gradients)


@pytest.mark.parametrize("accumulation_steps", [1, 2, 4])
def test_cross_entropy_is_averaged_over_the_images_of_all_micro_batches(
    tmp_path: Path, accumulation_steps: int
) -> None:
    recording, policy, gradients = make_update(Supervised(), tmp_path / "run", accumulation_steps=accumulation_steps)
    assert recording.calls[: accumulation_steps + 1] == ["observe"] * accumulation_steps + ["synchronise"]
    indices = np.concatenate(recording.indices)
    assert len(indices) == 4
    target = targets_of(indices)
    assert target.max() < 3
    assert_gradients(torch.nn.functional.cross_entropy(policy(images_of(indices)), target), policy, gradients)


def test_the_batch_size_is_that_of_the_update_and_every_label_map_is_a_query(tmp_path: Path) -> None:
    algorithm = Likelihood(samples_per_image=3)
    further: dict[str, Any] = {"batch_size": 4, "accumulation_steps": 2, "steps": 3, "run_dir": str(tmp_path / "run")}
    result = train("RSS-Shapes-ImageReward-v0", algorithm, **further | SHARED)
    assert result.reward_queries == 3 * 4 * 3
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "train/loss" in row]
    assert [row["time/images"] for row in rows] == [4, 8, 12]
    assert [row["time/reward_queries"] for row in rows] == [12, 24, 36]
    assert len(algorithm.memory()["index"]) == 3 * 4


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_images_are_shared_evenly_among_processes_and_micro_batches(share: int, steps: int, processes: int) -> None:
    assert micro_batch_size(share * steps * processes, steps, processes) == share


@pytest.mark.parametrize(("batch_size", "steps", "processes"), [(8, 3, 1), (8, 1, 3), (6, 2, 2), (1, 2, 1), (2, 2, 2)])
def test_images_that_cannot_be_shared_evenly_are_an_error_with_the_numbers(
    batch_size: int, steps: int, processes: int
) -> None:
    expected = rf"batch_size {batch_size} .* by {processes} process\(es\) with accumulation_steps {steps}\."
    with pytest.raises(OptionError, match=expected):
        micro_batch_size(batch_size, steps, processes)
