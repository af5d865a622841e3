"""An update made of several micro-batches."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.algorithm import Algorithm, Collected
from agents.arguments import TrainArguments
from agents.distributed import Job
from agents.rss import RSS, Feedback, RSSArguments
from agents.supervised import CrossEntropy, SupervisedArguments
from agents.sync_an import EPSILON
from agents.training import _Training, micro_batch_size, train
from rss_env.datasets import load_dataset
from rss_env.errors import OptionError

SMALL: dict[str, Any] = {"image_size": (16, 16), "width": 8, "log_every": 1, "progress": False}
DATA: dict[str, Any] = {"num_images": 8, "num_classes": 3}
SHARED: dict[str, Any] = SMALL | {"env_kwargs": json.dumps(DATA)}


class Recording(Algorithm):
    """Passes everything on to an algorithm and notes what was called with what."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self.calls: list[str] = []
        self.indices: list[np.ndarray] = []
        self.feedbacks: list[Any] = []

    def collect(
        self, logits: torch.Tensor, envs: Any, infos: dict[str, Any], progress: float, generator: torch.Generator
    ) -> Collected:
        collected = self.algorithm.collect(logits, envs, infos, progress, generator)
        self.calls.append("collect")
        self.indices.append(infos["index"].copy())
        self.feedbacks.append(collected.feedback)
        return collected

    def prepare(self, feedbacks: Sequence[Any]) -> None:
        assert list(feedbacks) == self.feedbacks[-len(feedbacks) :]
        self.calls.append("prepare")
        self.algorithm.prepare(feedbacks)

    def loss(
        self, logits: torch.Tensor, feedback: Any, progress: float
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        self.calls.append(f"loss of {next(i for i, one in enumerate(self.feedbacks) if one is feedback)}")
        return self.algorithm.loss(logits, feedback, progress)


def make_update(
    args: TrainArguments, algorithm: Algorithm, run_dir: Path, **env_options: Any
) -> tuple[Recording, torch.nn.Module, list[torch.Tensor]]:
    """One update of the training loop: what was called, the policy before it, and the gradients it stepped along."""
    args.run_dir = str(run_dir)
    recording = Recording(algorithm)
    training = _Training(args, recording, Job(), None, env_options)
    training.images, training.infos = training.envs.reset(seed=args.seed)
    before = copy.deepcopy(training.policy)
    training._update()
    training.folder.close()
    gradients = [weights.grad for weights in training.policy.parameters()]
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
    args = RSSArguments(
        objective="reinforce",
        samples_per_image=3,
        batch_size=4,
        accumulation_steps=2,
        max_grad_norm=1e9,
        entropy_gain=entropy_gain,
        **SHARED,
    )
    recording, policy, gradients = make_update(args, RSS(args), tmp_path / "run", samples_per_image=3)
    assert recording.calls == ["collect", "collect", "prepare", "loss of 0", "loss of 1"]

    advantages = []
    for feedback in recording.feedbacks:
        rewards = feedback.rewards[:, :, 0, 0].double()  # (2, 3)
        advantages.append(rewards - (rewards.sum(dim=1, keepdim=True) - rewards) / 2)
    everything = torch.cat(advantages)
    scales = [part.square().mean().sqrt() for part in (everything, *advantages)]
    assert abs(scales[1] - scales[2]) > 0.05 * scales[0]  # a scale for each micro-batch would be another thing
    loss = torch.zeros(())
    for indices, feedback, advantage in zip(recording.indices, recording.feedbacks, advantages, strict=True):
        log_p = policy(images_of(indices)).log_softmax(dim=1)
        entropy = -(log_p.exp() * log_p).sum(dim=1).mean()
        loss = loss - entropy_gain * (args.entropy_start - entropy.detach()).clamp(min=0) * entropy / 2
        for b, k in np.ndindex(2, 3):
            chosen = log_p[b].gather(0, feedback.label_maps[b, k][None].long()).sum()  # log-probability of the map
            loss = loss - advantage[b, k] / (scales[0] + EPSILON) * chosen / (3 * 4 * 16 * 16)
    assert_gradients(loss, policy, gradients)


def test_the_likelihood_has_one_variance_for_all_micro_batches(tmp_path: Path) -> None:
    args = RSSArguments(samples_per_image=3, batch_size=4, accumulation_steps=2, max_grad_norm=1e9, replay=0, **SHARED)
    algorithm = RSS(args)
    recording, policy, gradients = make_update(args, algorithm, tmp_path / "run", samples_per_image=3)
    feedbacks: list[Feedback] = recording.feedbacks
    residuals = torch.cat([feedback.evidence.advantages.double() for feedback in feedbacks if feedback.evidence])
    variance = residuals.square().mean()
    assert algorithm.scale.item() == pytest.approx(variance.sqrt().item() + EPSILON, rel=1e-12)
    loss = torch.zeros(())
    for indices, feedback in zip(recording.indices, feedbacks, strict=True):
        assert feedback.evidence is not None
        belief = policy(images_of(indices)).softmax(dim=1)
        loss = loss - (feedback.evidence.direction / variance * belief).sum() / (4 * 16 * 16)
    assert_gradients(loss, policy, gradients)


@pytest.mark.parametrize("accumulation_steps", [1, 2, 4])
def test_cross_entropy_is_averaged_over_the_images_of_all_micro_batches(
    tmp_path: Path, accumulation_steps: int
) -> None:
    args = SupervisedArguments(batch_size=4, accumulation_steps=accumulation_steps, max_grad_norm=1e9, **SHARED)
    recording, policy, gradients = make_update(args, CrossEntropy(), tmp_path / "run", expose_target=True)
    assert recording.calls[: accumulation_steps + 1] == ["collect"] * accumulation_steps + ["prepare"]
    indices = np.concatenate(recording.indices)
    assert len(indices) == 4
    target = targets_of(indices)
    assert target.max() < 3
    assert_gradients(torch.nn.functional.cross_entropy(policy(images_of(indices)), target), policy, gradients)


def test_the_batch_size_is_that_of_the_update_and_every_label_map_is_a_query(tmp_path: Path) -> None:
    args = RSSArguments(
        samples_per_image=3, batch_size=4, accumulation_steps=2, steps=3, run_dir=str(tmp_path / "run"), **SHARED
    )
    algorithm = RSS(args)
    result = train(args, algorithm, samples_per_image=3)
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
    expected = rf"--batch-size {batch_size} .* by {processes} process\(es\) with --accumulation-steps {steps}\."
    with pytest.raises(OptionError, match=expected):
        micro_batch_size(batch_size, steps, processes)
