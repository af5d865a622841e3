"""The paper's algorithm: what advantages, scale, entropy bonus and draws come to, on made-up scores."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rss_env  # noqa: F401  registers the ids
from agents.plugins import leave_one_out
from agents.plugins.sync_an import EPSILON
from agents.rss import RSS, Lesson
from agents.training import Feedback
from agents.training.feedback import read_feedback
from rss_env.errors import OptionError

Metrics = dict[str, Any]


def earn(label_maps: torch.Tensor, scores: torch.Tensor) -> Feedback:
    """Feedback of an environment that gives these scores (B, K) to these label maps (B, K, H, W)."""
    batch = len(scores)
    assert label_maps.shape[:2] == scores.shape
    return Feedback(label_maps, scores, None, list(range(batch)), [False] * batch, {})


def observe(algorithm: RSS, logits: torch.Tensor, scores: np.ndarray, progress: float = 0.0) -> Lesson:
    """What the algorithm makes of label maps that earn these scores (B, K)."""
    label_maps = algorithm.act(logits.detach(), progress, torch.Generator().manual_seed(0))
    return algorithm.observe(logits.detach(), earn(label_maps, torch.from_numpy(scores).float()))


def update(
    algorithm: RSS, logits: torch.Tensor, scores: np.ndarray, progress: float = 0.0
) -> tuple[torch.Tensor, Metrics, Lesson]:
    """Loss, metrics and lesson of an update of one micro-batch."""
    lesson = observe(algorithm, logits, scores, progress)
    algorithm.synchronise([lesson])
    return *algorithm.loss(logits, lesson, progress), lesson


@given(st.integers(1, 4), st.integers(2, 9), st.sampled_from([(1, 1), (3, 2)]), st.integers(0, 2**32 - 1))
def test_leave_one_out_compares_with_the_mean_of_the_other_samples(
    batch: int, samples: int, pixels: tuple[int, int], seed: int
) -> None:
    rewards = np.random.default_rng(seed).random((batch, samples, *pixels))
    expected = np.empty_like(rewards)
    for b in range(batch):
        for k in range(samples):
            others = [rewards[b, j] for j in range(samples) if j != k]
            expected[b, k] = rewards[b, k] - sum(others) / len(others)
    advantages = leave_one_out(torch.from_numpy(rewards)).numpy()
    np.testing.assert_allclose(advantages, expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(advantages.sum(axis=1), 0, atol=1e-13)


def test_leave_one_out_of_two_samples_is_plus_and_minus_their_difference() -> None:
    rewards = torch.tensor([[0.25, 1.0], [0.5, 0.125], [0.75, 0.75]])[:, :, None, None]
    expected = torch.tensor([[-0.75, 0.75], [0.375, -0.375], [0.0, 0.0]])[:, :, None, None]
    assert torch.equal(leave_one_out(rewards), expected)


def mean_others(scores: np.ndarray) -> np.ndarray:
    """The mean of the other samples' scores, (B, K), sample by sample."""
    out = np.empty(scores.shape)
    for b, k in np.ndindex(*scores.shape):
        out[b, k] = np.delete(scores[b], k).mean()
    return out


def one_hot_weights(label_maps: torch.Tensor, advantages: np.ndarray, classes: int) -> np.ndarray:
    """(B, C, H, W), the mean advantage (B, K) of the samples that chose the class, in float64."""
    one_hot = (label_maps.numpy()[:, :, None] == np.arange(classes)[:, None, None]).astype(np.float64)
    return (one_hot * advantages[:, :, None, None, None]).mean(axis=1)


@pytest.mark.parametrize("advantage", ["leave_one_out", "batch"])
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-3, 1e3))
def test_a_step_uses_advantages_of_unit_size_over_the_batch_whatever_the_scale_of_the_rewards(
    advantage: Any, seed: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    scores = (scale * rng.random((3, 4)) * [[0.1], [1.0], [10.0]]).astype(np.float32).astype(np.float64)
    advantages = scores - (scores.mean() if advantage == "batch" else mean_others(scores))
    size = np.sqrt((advantages**2).mean()) + EPSILON
    logits = torch.from_numpy(rng.normal(size=(3, 5, 2, 3))).requires_grad_()
    algorithm = RSS(samples_per_image=4, entropy_gain=0.0, advantage=advantage)
    loss, metrics, lesson = update(algorithm, logits, scores)
    assert float(metrics["policy/advantage_scale"]) == pytest.approx(size, rel=1e-5)

    weights = one_hot_weights(lesson.feedback.label_maps, advantages / size, 5)
    z = logits.detach().numpy()
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    assert loss.item() == pytest.approx(-(weights * log_p).sum(axis=1).mean(), abs=1e-5)
    loss.backward()
    slope = weights - np.exp(log_p) * weights.sum(axis=1, keepdims=True)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), -slope / (3 * 2 * 3), rtol=0, atol=1e-6)


def test_without_sync_an_a_step_uses_the_advantages_as_they_are() -> None:
    scores = np.array([[3.0, 9.0], [1.0, 2.0]])
    logits = torch.zeros(2, 3, 4, 5, requires_grad=True)
    algorithm = RSS(samples_per_image=2, entropy_gain=0.0, sync_an=False)
    loss, metrics, lesson = update(algorithm, logits, scores)
    weights = one_hot_weights(lesson.feedback.label_maps, np.array([[-6.0, 6.0], [-1.0, 1.0]]), 3)
    loss.backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), -weights / (2 * 4 * 5), rtol=1e-6, atol=1e-8)
    assert float(metrics["policy/advantage_scale"]) == 1


def test_normalisation_is_over_the_batch_not_per_image() -> None:
    algorithm = RSS(samples_per_image=2)
    lesson = update(algorithm, torch.zeros(2, 3, 4, 4), np.array([[6.0, 0.0], [2.0, 0.0]]))[2]
    expected = torch.tensor([[6.0, -6.0], [2.0, -2.0]])[:, :, None, None]
    assert torch.equal(lesson.advantages, expected)
    assert float(algorithm.scale) == pytest.approx(20**0.5 + EPSILON, rel=1e-12)


def test_normalisation_is_over_all_micro_batches_of_an_update() -> None:
    algorithm = RSS(samples_per_image=2, entropy_gain=0.0)
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    scores = np.array([[6.0, 0.0], [2.0, 0.0]])
    whole = observe(algorithm, logits, scores)
    halves = []
    for b in range(2):
        maps, given = whole.feedback.label_maps[b : b + 1], whole.feedback.scores[b : b + 1]
        halves.append(algorithm.observe(logits[b : b + 1], earn(maps, given)))
    algorithm.synchronise(halves)
    assert float(algorithm.scale) == pytest.approx(20**0.5 + EPSILON, rel=1e-12)
    parts = [algorithm.loss(logits[b : b + 1], halves[b], 0.0) for b in range(2)]
    assert [float(metrics["policy/advantage_scale"]) for _, metrics in parts] == [float(algorithm.scale)] * 2
    algorithm.synchronise([whole])
    together = algorithm.loss(logits, whole, 0.0)[0]
    assert together.abs() > 0.01
    torch.testing.assert_close(together, (parts[0][0] + parts[1][0]) / 2)


def test_the_mean_that_rewards_are_compared_with_is_that_of_all_micro_batches() -> None:
    algorithm = RSS(samples_per_image=2, advantage="batch", sync_an=False)
    logits = torch.zeros(1, 3, 4, 4)
    parts = [observe(algorithm, logits, np.array([scores])) for scores in ([6.0, 1.0], [2.0, 3.0])]
    algorithm.synchronise(parts)
    assert [part.advantages.flatten().tolist() for part in parts] == [[3.0, -2.0], [-1.0, 0.0]]


def test_the_scale_of_an_update_forgets_the_one_before() -> None:
    algorithm = RSS(samples_per_image=2)
    for size in (64.0, 0.5):
        update(algorithm, torch.zeros(1, 3, 4, 4), np.array([[size, 0.0]]))
        assert float(algorithm.scale) == pytest.approx(size, rel=1e-6)


@pytest.mark.parametrize("arguments", [{}, {"advantage": "batch"}, {"advantage": "psd"}, {"sync_an": False}], ids=str)
def test_equal_scores_teach_nothing(arguments: dict[str, Any]) -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    algorithm = RSS(samples_per_image=4, entropy_gain=0.0, **arguments)
    loss, _, lesson = update(algorithm, logits, np.full((2, 4), 0.5))
    loss.backward()
    assert not lesson.advantages.any()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize(("start", "end", "gain"), [(1.2, 0.1, 0.05), (0.4, 0.2, 2.0)])
@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("sharpness", [0.0, 1.0, 8.0])
def test_the_entropy_bonus_grows_with_the_shortfall_from_a_target_that_falls_linearly(
    start: float, end: float, gain: float, progress: float, sharpness: float
) -> None:
    rng = np.random.default_rng(0)
    z = sharpness * rng.normal(size=(2, 4, 3, 5))
    logits = torch.from_numpy(z).requires_grad_()
    algorithm = RSS(samples_per_image=2, entropy_start=start, entropy_end=end, entropy_gain=gain)
    # Equal scores give no advantage: only the entropy bonus is left.
    loss, metrics, _ = update(algorithm, logits, np.full((2, 2), 0.5), progress)

    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    entropies = -(p * np.log(p)).sum(axis=1, keepdims=True)  # (B, 1, H, W)
    target = (1 - progress) * start + progress * end
    coefficient = gain * max(0.0, target - entropies.mean())
    assert metrics["policy/entropy_target"] == pytest.approx(target, abs=1e-12)
    assert float(metrics["policy/entropy"]) == pytest.approx(entropies.mean(), abs=1e-12)
    assert float(metrics["policy/entropy_coefficient"]) == pytest.approx(coefficient, abs=1e-12)
    assert float(metrics["policy/loss"]) == 0
    assert loss.item() == pytest.approx(-coefficient * entropies.mean(), abs=1e-12)

    loss.backward()
    slope = -p * (np.log(p) + entropies) / entropies.size  # of the mean entropy; the coefficient counts as a constant
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), -coefficient * slope, rtol=0, atol=1e-12)


@pytest.mark.parametrize("advantage", ["leave_one_out", "psd", "batch"])
def test_the_step_raises_the_probability_of_the_better_label_map(advantage: Any) -> None:
    logits = torch.zeros(1, 3, 4, 4, requires_grad=True)
    algorithm = RSS(samples_per_image=2, entropy_gain=0.0, advantage=advantage)
    loss, _, lesson = update(algorithm, logits, np.array([[0.2, 0.6]]))
    loss.backward()
    assert logits.grad is not None
    after = (logits.detach() - logits.grad).log_softmax(dim=1)
    likelihood = [after.gather(1, maps[None, None].long()).sum() for maps in lesson.feedback.label_maps[0]]
    before = 16 * np.log(1 / 3)
    assert likelihood[0] < before < likelihood[1]


def test_metrics_describe_the_scores_of_the_step() -> None:
    scores = np.array([[0.1, 0.3, 0.8], [0.2, 0.2, 0.2]])
    algorithm = RSS(samples_per_image=3, cells=(4, 2))
    metrics = update(algorithm, torch.zeros(2, 3, 4, 4), scores, progress=0.75)[1]
    assert float(metrics["reward/mean"]) == pytest.approx(scores.mean())
    assert float(metrics["reward/best"]) == pytest.approx(0.5)
    assert float(metrics["reward/std"]) == pytest.approx(scores.std(axis=1, ddof=1).mean())
    assert float(metrics["policy/entropy"]) == pytest.approx(np.log(3))
    assert metrics["policy/cell"] == 2


def test_the_label_maps_of_a_stage_are_drawn_in_its_cells() -> None:
    algorithm = RSS(samples_per_image=8, cells=(64, 1))
    logits = torch.zeros(2, 4, 6, 7)  # every pixel has the same probabilities, so that a cell is of one class
    for progress, borders in ((0.0, {0, 1}), (0.5, {5})):  # between rows: cells of 64 pixels have one at most
        label_maps = algorithm.act(logits, progress, torch.Generator().manual_seed(0))
        found = (label_maps[:, :, 1:] != label_maps[:, :, :-1]).any(dim=3).sum(dim=2)
        assert set(found.flatten().tolist()) <= borders


@pytest.mark.parametrize("samples", [1, 0, -2])
def test_fewer_than_two_samples_are_rejected(samples: int) -> None:
    with pytest.raises(OptionError, match=rf"samples_per_image must be at least 2, got {samples}\."):
        RSS(samples_per_image=samples)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"advantage": "best"}, "Unknown advantage 'best'; valid: leave_one_out, psd, batch"),
        ({"learning_rate": 0.0}, r"learning_rate must be positive, got 0\.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, got nan"),
        ({"entropy_gain": -0.5}, r"entropy_gain must be at least 0, got -0\.5"),
        ({"cells": (4, 0)}, r"got \(4, 0\)"),
        ({"cells": ()}, r"got \(\)"),
    ],
    ids=str,
)
def test_arguments_that_are_out_of_range_are_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        RSS(**arguments)


def play(level: str) -> tuple[Feedback, np.ndarray]:
    """Feedback on random label maps, and the scores that the environment gave."""
    envs = gym.make_vec(
        f"RSS-Shapes-{level}Reward-v0", num_envs=3, image_size=(16, 16), samples_per_image=4, num_images=8
    )
    _, shown = envs.reset(seed=0)
    label_maps = np.random.default_rng(0).integers(0, 5, (3, 4, 16, 16)).astype(np.uint8)
    infos = envs.step(label_maps)[-1]
    return read_feedback(torch.from_numpy(label_maps), shown, infos), infos["final_info"]["scores"]


def test_image_level_feedback_is_one_number_a_label_map() -> None:
    feedback, scores = play("Image")
    assert feedback.pixel_rewards is None
    assert (feedback.scores.shape, feedback.scores.dtype) == ((3, 4), torch.float64)
    np.testing.assert_array_equal(feedback.scores.numpy(), scores)


def test_pixel_level_feedback_is_one_number_a_pixel() -> None:
    feedback, scores = play("Pixel")
    assert feedback.pixel_rewards is not None
    assert (feedback.pixel_rewards.shape, feedback.pixel_rewards.dtype) == ((3, 4, 16, 16), torch.float32)
    assert set(feedback.pixel_rewards.unique().tolist()) == {0.0, 1.0}
    np.testing.assert_allclose(feedback.pixel_rewards.mean(dim=(2, 3)).numpy(), scores, rtol=1e-6)
    np.testing.assert_allclose(feedback.scores.numpy(), scores, rtol=1e-6)
