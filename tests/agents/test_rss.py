from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import rss_env  # noqa: F401  registers the ids
from agents.rss import RSS, RSSArguments, leave_one_out, normalise, read_rewards, train_rss
from rss_env.errors import OptionError


class FixedScores:
    """Stands for a vector environment that scores every label map with given numbers."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores  # (B, K)

    def step(self, label_maps: np.ndarray) -> tuple[Any, ...]:
        assert label_maps.shape[:2] == self.scores.shape
        return None, None, None, None, {"final_info": {"scores": self.scores}}


def make_envs(level: str, num_envs: int, samples: int, size: tuple[int, int] = (16, 16), **options: Any) -> Any:
    return gym.make_vec(
        f"RSS-Shapes-{level}Reward-v0",
        num_envs=num_envs,
        image_size=size,
        samples_per_image=samples,
        num_images=8,
        **options,
    )


@settings(deadline=None)
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


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_normalised_advantages_have_unit_size_whatever_the_scale_of_the_rewards(seed: int, scale: float) -> None:
    advantages = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 4, 1, 1)))
    unit = normalise(advantages)
    assert unit.square().mean().sqrt().item() == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(normalise(scale * advantages), unit, rtol=1e-10, atol=0)


def test_normalisation_is_over_the_batch_not_per_image() -> None:
    advantages = torch.tensor([[3.0, -3.0], [1.0, -1.0]])[:, :, None, None]
    torch.testing.assert_close(normalise(advantages), advantages / 5**0.5)


def test_advantages_that_are_all_zero_stay_zero() -> None:
    assert torch.equal(normalise(torch.zeros(2, 3, 1, 1)), torch.zeros(2, 3, 1, 1))


@pytest.mark.parametrize(("start", "end", "gain"), [(1.2, 0.1, 0.05), (0.4, 0.2, 2.0)])
@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("sharpness", [0.0, 1.0, 8.0])
def test_the_entropy_bonus_grows_with_the_shortfall_from_a_target_that_falls_linearly(
    start: float, end: float, gain: float, progress: float, sharpness: float
) -> None:
    rng = np.random.default_rng(0)
    z = sharpness * rng.normal(size=(2, 4, 3, 5))
    logits = torch.from_numpy(z).requires_grad_()
    algorithm = RSS(RSSArguments(samples_per_image=2, entropy_start=start, entropy_end=end, entropy_gain=gain))
    equal_scores = FixedScores(np.full((2, 2), 0.5))  # no advantage: only the entropy bonus is left
    update = algorithm(logits, equal_scores, {}, progress, torch.Generator().manual_seed(0))  # type: ignore[arg-type]

    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    entropies = -(p * np.log(p)).sum(axis=1, keepdims=True)  # (B, 1, H, W)
    target = (1 - progress) * start + progress * end
    coefficient = gain * max(0.0, target - entropies.mean())
    assert update.metrics["policy/entropy_target"] == pytest.approx(target, abs=1e-12)
    assert float(update.metrics["policy/entropy"]) == pytest.approx(entropies.mean(), abs=1e-12)
    assert float(update.metrics["policy/entropy_coefficient"]) == pytest.approx(coefficient, abs=1e-12)
    assert float(update.metrics["policy/loss"]) == 0
    assert update.loss.item() == pytest.approx(-coefficient * entropies.mean(), abs=1e-12)

    update.loss.backward()
    slope = -p * (np.log(p) + entropies) / entropies.size  # of the mean entropy; the coefficient counts as a constant
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), -coefficient * slope, rtol=0, atol=1e-12)


def test_the_step_raises_the_probability_of_the_better_label_map() -> None:
    logits = torch.zeros(1, 3, 4, 4, requires_grad=True)
    algorithm = RSS(RSSArguments(samples_per_image=2, entropy_gain=0.0))
    seen = []

    class SecondIsBetter(FixedScores):
        def step(self, label_maps: np.ndarray) -> tuple[Any, ...]:
            seen.append(torch.from_numpy(label_maps))
            return super().step(label_maps)

    envs: Any = SecondIsBetter(np.array([[0.2, 0.6]]))
    update = algorithm(logits, envs, {}, 0.0, torch.Generator().manual_seed(0))
    update.loss.backward()
    assert logits.grad is not None
    after = (logits.detach() - logits.grad).log_softmax(dim=1)
    likelihood = [after.gather(1, maps[None, None].long()).sum() for maps in seen[0][0]]
    before = 16 * np.log(1 / 3)
    assert likelihood[0] < before < likelihood[1]


def test_metrics_describe_the_scores_of_the_step() -> None:
    scores = np.array([[0.1, 0.3, 0.8], [0.2, 0.2, 0.2]])
    algorithm = RSS(RSSArguments(samples_per_image=3))
    envs: Any = FixedScores(scores)
    metrics = algorithm(torch.zeros(2, 3, 4, 4), envs, {}, 0.0, torch.Generator()).metrics
    assert float(metrics["reward/mean"]) == pytest.approx(scores.mean())
    assert float(metrics["reward/best"]) == pytest.approx(0.5)
    assert float(metrics["reward/std"]) == pytest.approx(scores.std(axis=1, ddof=1).mean())


@pytest.mark.parametrize("samples", [1, 0, -2])
def test_fewer_than_two_samples_are_rejected(samples: int) -> None:
    with pytest.raises(OptionError, match=r"--samples-per-image must be at least 2, got"):
        RSS(RSSArguments(samples_per_image=samples))


def test_image_level_rewards_are_one_number_a_label_map() -> None:
    envs = make_envs("Image", 3, 4)
    envs.reset(seed=0)
    label_maps = np.random.default_rng(0).integers(0, 5, (3, 4, 16, 16))
    infos = envs.step(label_maps)[-1]
    rewards = read_rewards(infos["final_info"], torch.device("cpu"))
    assert rewards.shape == (3, 4, 1, 1)
    assert rewards.dtype == torch.float32
    np.testing.assert_allclose(rewards[:, :, 0, 0].numpy(), infos["final_info"]["scores"], rtol=1e-6)


def test_pixel_level_rewards_are_one_number_a_pixel() -> None:
    envs = make_envs("Pixel", 3, 4)
    envs.reset(seed=0)
    label_maps = np.random.default_rng(0).integers(0, 5, (3, 4, 16, 16))
    infos = envs.step(label_maps)[-1]
    rewards = read_rewards(infos["final_info"], torch.device("cpu"))
    assert rewards.shape == (3, 4, 16, 16)
    assert rewards.dtype == torch.float32
    assert set(rewards.unique().tolist()) == {0.0, 1.0}
    np.testing.assert_allclose(rewards.mean(dim=(2, 3)).numpy(), infos["final_info"]["scores"], rtol=1e-6)


def test_the_agent_trains_on_pixel_level_rewards(tmp_path: Path) -> None:
    arguments = RSSArguments(
        env_id="RSS-Shapes-PixelReward-v0",
        image_size=(16, 16),
        env_kwargs=json.dumps({"num_images": 8}),
        steps=3,
        batch_size=2,
        samples_per_image=4,
        width=8,
        log_every=1,
        run_dir=str(tmp_path / "run"),
        progress=False,
    )
    result = train_rss(arguments)
    assert (result.step, result.finished, result.reward_queries) == (3, True, 3 * 2 * 4)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["reward/mean"] < row["reward/best"] <= 1 for row in rows if "reward/mean" in row)
    assert result.evaluation is not None
    assert result.evaluation.images == 8


class LargestTensor(TorchDispatchMode):
    """Remembers the shape of every tensor that any operation gives back."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        outputs = result if isinstance(result, (tuple, list)) else [result]
        self.shapes += [tuple(output.shape) for output in outputs if isinstance(output, torch.Tensor)]
        return result

    @property
    def most(self) -> int:
        return max(int(np.prod(shape)) for shape in self.shapes)


@pytest.mark.parametrize("level", ["Image", "Pixel"])
def test_a_step_forms_no_tensor_of_all_samples_and_classes(level: str) -> None:
    batch, samples, classes, height, width = 3, 6, 5, 16, 17
    envs = make_envs(level, batch, samples, (height, width))
    _, infos = envs.reset(seed=0)
    logits = torch.randn(batch, classes, height, width, generator=torch.Generator().manual_seed(0), requires_grad=True)
    algorithm = RSS(RSSArguments(samples_per_image=samples))
    with LargestTensor() as recorder:
        algorithm(logits, envs, infos, 0.5, torch.Generator().manual_seed(0)).loss.backward()
    assert logits.grad is not None
    assert (batch, samples, height, width) in recorder.shapes
    assert recorder.most == batch * samples * height * width


def test_the_recorder_of_tensor_sizes_would_see_a_one_hot_tensor() -> None:
    with LargestTensor() as recorder:
        torch.nn.functional.one_hot(torch.zeros(3, 6, 16, 17, dtype=torch.long), 5)
    assert recorder.most == 3 * 6 * 5 * 16 * 17
