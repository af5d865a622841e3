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
from agents.rss import RSS, Feedback, RSSArguments, classes_found, leave_one_out, read_rewards, train_rss
from agents.sync_an import EPSILON
from rss_env.errors import OptionError


class FixedScores:
    """Stands for a vector environment that scores every label map with given numbers."""

    unwrapped = None

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores  # (B, K)

    def step(self, label_maps: np.ndarray) -> tuple[Any, ...]:
        assert label_maps.shape[:2] == self.scores.shape
        return None, None, None, None, {"final_info": {"scores": self.scores}}


def make_reinforce(**arguments: Any) -> RSS:
    return RSS(RSSArguments(objective="reinforce", **arguments))


def collect(algorithm: RSS, logits: torch.Tensor, scores: np.ndarray, progress: float = 0.0) -> Feedback:
    """Feedback on label maps that earn these scores (B, K)."""
    envs: Any = FixedScores(scores)
    infos = {"index": np.arange(len(scores))}
    return algorithm.collect(logits.detach(), envs, infos, progress, torch.Generator().manual_seed(0)).feedback


Metrics = dict[str, Any]


def update(
    algorithm: RSS, logits: torch.Tensor, scores: np.ndarray, progress: float = 0.0
) -> tuple[torch.Tensor, Metrics, Feedback]:
    """Loss, metrics and feedback of an update of one micro-batch."""
    feedback = collect(algorithm, logits, scores, progress)
    algorithm.prepare([feedback])
    return *algorithm.loss(logits, feedback, progress), feedback


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


@pytest.mark.parametrize("baseline", ["leave_one_out", "batch"])
@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-3, 1e3))
def test_a_step_uses_advantages_of_unit_size_over_the_batch_whatever_the_scale_of_the_rewards(
    baseline: Any, seed: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    scores = (scale * rng.random((3, 4)) * [[0.1], [1.0], [10.0]]).astype(np.float32).astype(np.float64)
    advantages = scores - (scores.mean() if baseline == "batch" else mean_others(scores))
    size = np.sqrt((advantages**2).mean()) + EPSILON
    logits = torch.from_numpy(rng.normal(size=(3, 5, 2, 3))).requires_grad_()
    algorithm = make_reinforce(samples_per_image=4, entropy_gain=0.0, baseline=baseline)
    loss, metrics, feedback = update(algorithm, logits, scores)
    assert float(metrics["policy/advantage_scale"]) == pytest.approx(size, rel=1e-5)

    weights = one_hot_weights(feedback.label_maps, advantages / size, 5)
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
    algorithm = make_reinforce(samples_per_image=2, entropy_gain=0.0, sync_an=False)
    loss, metrics, feedback = update(algorithm, logits, scores)
    weights = one_hot_weights(feedback.label_maps, np.array([[-6.0, 6.0], [-1.0, 1.0]]), 3)
    loss.backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), -weights / (2 * 4 * 5), rtol=1e-6, atol=1e-8)
    assert float(metrics["policy/advantage_scale"]) == 1


def test_normalisation_is_over_the_batch_not_per_image() -> None:
    algorithm = make_reinforce(samples_per_image=2)
    feedback = update(algorithm, torch.zeros(2, 3, 4, 4), np.array([[6.0, 0.0], [2.0, 0.0]]))[2]
    expected = torch.tensor([[6.0, -6.0], [2.0, -2.0]])[:, :, None, None]
    assert feedback.advantages is not None
    assert torch.equal(feedback.advantages, expected)
    assert float(algorithm.scale) == pytest.approx(20**0.5 + EPSILON, rel=1e-12)


def test_normalisation_is_over_all_micro_batches_of_an_update() -> None:
    algorithm = make_reinforce(samples_per_image=2)
    logits = torch.zeros(1, 3, 4, 4)
    parts = [collect(algorithm, logits, np.array([scores])) for scores in ([6.0, 0.0], [2.0, 0.0])]
    algorithm.prepare(parts)
    assert float(algorithm.scale) == pytest.approx(20**0.5 + EPSILON, rel=1e-12)
    whole, halves = make_reinforce(samples_per_image=2, entropy_gain=0.0), []
    whole.scale = algorithm.scale
    for part in parts:
        assert float(algorithm.loss(logits, part, 0.0)[1]["policy/advantage_scale"]) == float(algorithm.scale)
        halves.append(whole.loss(logits, part, 0.0)[0])
    fields = ("label_maps", "rewards", "advantages")
    together: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in fields}
    joined = Feedback(**together)
    torch.testing.assert_close(whole.loss(torch.zeros(2, 3, 4, 4), joined, 0.0)[0], sum(halves) / 2)


def test_the_scale_of_an_update_forgets_the_one_before() -> None:
    algorithm = make_reinforce(samples_per_image=2)
    for size in (64.0, 0.5):
        update(algorithm, torch.zeros(1, 3, 4, 4), np.array([[size, 0.0]]))
        assert float(algorithm.scale) == pytest.approx(size, rel=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"baseline": "batch"},
        {"pairs": "disjoint"},
        {"pairs": "all"},
        {"pairs": "all", "pair_normaliser": False},
        {"sync_an": False},
    ],
    ids=str,
)
def test_equal_scores_teach_nothing(arguments: dict[str, Any]) -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    algorithm = make_reinforce(samples_per_image=4, entropy_gain=0.0, **arguments)
    loss, _, feedback = update(algorithm, logits, np.full((2, 4), 0.5))
    loss.backward()
    assert feedback.advantages is not None
    assert not feedback.advantages.any()
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
    algorithm = make_reinforce(samples_per_image=2, entropy_start=start, entropy_end=end, entropy_gain=gain)
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


@pytest.mark.parametrize("pairs", ["none", "disjoint", "all"])
def test_the_step_raises_the_probability_of_the_better_label_map(pairs: Any) -> None:
    logits = torch.zeros(1, 3, 4, 4, requires_grad=True)
    algorithm = make_reinforce(samples_per_image=2, entropy_gain=0.0, pairs=pairs)
    seen = []

    class SecondIsBetter(FixedScores):
        def step(self, label_maps: np.ndarray) -> tuple[Any, ...]:
            seen.append(torch.from_numpy(label_maps))
            return super().step(label_maps)

    envs: Any = SecondIsBetter(np.array([[0.2, 0.6]]))
    feedback = algorithm.collect(logits.detach(), envs, {}, 0.0, torch.Generator().manual_seed(0)).feedback
    algorithm.prepare([feedback])
    algorithm.loss(logits, feedback, 0.0)[0].backward()
    assert logits.grad is not None
    after = (logits.detach() - logits.grad).log_softmax(dim=1)
    likelihood = [after.gather(1, maps[None, None].long()).sum() for maps in seen[0][0]]
    before = 16 * np.log(1 / 3)
    assert likelihood[0] < before < likelihood[1]


@pytest.mark.parametrize("objective", ["likelihood", "reinforce"])
def test_metrics_describe_the_scores_of_the_step(objective: Any) -> None:
    scores = np.array([[0.1, 0.3, 0.8], [0.2, 0.2, 0.2]])
    algorithm = RSS(RSSArguments(samples_per_image=3, objective=objective, cells=(4, 2)))
    metrics = update(algorithm, torch.zeros(2, 3, 4, 4), scores, progress=0.75)[1]
    assert float(metrics["reward/mean"]) == pytest.approx(scores.mean())
    assert float(metrics["reward/best"]) == pytest.approx(0.5)
    assert float(metrics["reward/std"]) == pytest.approx(scores.std(axis=1, ddof=1).mean())
    assert float(metrics["policy/entropy"]) == pytest.approx(np.log(3))
    assert metrics["policy/cell"] == 2


@pytest.mark.parametrize("objective", ["likelihood", "reinforce"])
def test_the_label_maps_of_a_stage_are_drawn_in_its_cells(objective: Any) -> None:
    algorithm = RSS(RSSArguments(samples_per_image=8, objective=objective, cells=(64, 1)))
    logits = torch.zeros(2, 4, 6, 7)  # every pixel has the same probabilities, so that a cell is of one class
    for progress, borders in ((0.0, {0, 1}), (0.5, {5})):  # between rows: cells of 64 pixels have one at most
        label_maps = collect(algorithm, logits, np.zeros((2, 8)), progress).label_maps
        found = (label_maps[:, :, 1:] != label_maps[:, :, :-1]).any(dim=3).sum(dim=2)
        assert set(found.flatten().tolist()) <= borders


@pytest.mark.parametrize(
    ("objective", "temperature", "expected"), [("likelihood", 4.0, 4.0), ("likelihood", None, 2.0)]
)
def test_label_maps_are_drawn_at_the_temperature_asked_for(
    objective: Any, temperature: float | None, expected: float
) -> None:
    # The share of a class in 80,000 draws: 5.3 standard deviations are exceeded once in ten million seeds.
    algorithm = RSS(RSSArguments(samples_per_image=50, objective=objective, temperature=temperature))
    logits = torch.zeros(1, 2, 40, 40)
    logits[:, 1] = 3.0
    label_maps = collect(algorithm, logits, np.zeros((1, 50))).label_maps.double()
    share = 1 / (1 + np.exp(-3.0 / expected))
    assert abs(label_maps.mean().item() - share) < 5.3 * np.sqrt(share * (1 - share) / label_maps.numel())


@pytest.mark.parametrize("samples", [1, 0, -2])
@pytest.mark.parametrize("objective", ["likelihood", "reinforce"])
def test_fewer_than_two_samples_are_rejected(objective: Any, samples: int) -> None:
    with pytest.raises(OptionError, match=r"--samples-per-image must be at least 2, got"):
        RSS(RSSArguments(samples_per_image=samples, objective=objective))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, r"--temperature must be positive and finite, got 0\.0"),
        ({"temperature": float("nan")}, r"--temperature must be positive and finite, got nan"),
        ({"objective": "reinforce", "temperature": 2.0}, r"--temperature must be 1, got 2\.0"),
        ({"objective": "reinforce", "pairs": "disjoint", "samples_per_image": 5}, r"even --samples-per-image, got 5"),
        ({"objective": "reinforce", "pairs": "all", "baseline": "batch"}, r"no other --baseline"),
        ({"pairs": "all"}, r"--pairs is for --objective reinforce"),
        ({"baseline": "batch"}, r"--baseline is for --objective reinforce"),
        ({"replay": -1}, r"--replay .*must be at least 0"),
        ({"replay_megabytes": -0.5}, r"--replay-megabytes must be at least 0"),
        ({"cells": (4, 0)}, r"got \(4, 0\)"),
        ({"cell_patience": 0}, r"at least 1 update, got 0"),
    ],
    ids=str,
)
def test_arguments_that_are_out_of_range_or_do_not_go_together_are_rejected(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        RSS(RSSArguments(**arguments))


@settings(deadline=None)
@given(
    size=st.tuples(*(st.integers(1, most) for most in (3, 6, 4, 5))),
    classes=st.integers(2, 255),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_class_with_a_reward_is_known_and_one_without_is_excluded(
    size: tuple[int, int, int, int], classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    batch, _, height, width = size
    target = rng.integers(0, classes, (batch, height, width))
    label_maps = rng.integers(0, classes, size)
    near = rng.random(size) < 0.3
    label_maps = np.where(near, target[:, None], label_maps).astype(np.uint8)
    ignored = rng.random((batch, height, width)) < 0.2
    rewards = ((label_maps == target[:, None]) & ~ignored[:, None]).astype(np.float32)
    known, excluded = classes_found(torch.from_numpy(label_maps), torch.from_numpy(rewards), classes)
    for b, y, x in np.ndindex(batch, height, width):
        tried = set(label_maps[b, :, y, x].tolist())
        found = {target[b, y, x]} & tried if not ignored[b, y, x] else set()
        assert known[b, y, x] == (target[b, y, x] if found else 255)
        assert set(excluded[b, :, y, x].nonzero().flatten().tolist()) == tried - found


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


@pytest.mark.parametrize("objective", ["likelihood", "reinforce"])
def test_the_agent_trains_on_pixel_level_rewards(objective: Any, tmp_path: Path) -> None:
    arguments = RSSArguments(
        objective=objective,
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
@pytest.mark.parametrize(
    "arguments",
    [
        {"objective": "likelihood"},
        {"objective": "reinforce"},
        {"objective": "reinforce", "pairs": "all"},
        {"objective": "reinforce", "pairs": "disjoint", "cells": (3,)},
    ],
    ids=lambda arguments: " ".join(map(str, arguments.values())),
)
@pytest.mark.parametrize("ops", ["torch", ""])
def test_a_step_forms_no_tensor_of_all_samples_and_classes(
    ops: str, arguments: dict[str, Any], level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSS_OPS", ops)
    batch, samples, classes, height, width = 3, 6, 5, 16, 17
    envs = make_envs(level, batch, samples, (height, width))
    _, infos = envs.reset(seed=0)
    logits = torch.randn(batch, classes, height, width, generator=torch.Generator().manual_seed(0), requires_grad=True)
    algorithm = RSS(RSSArguments(samples_per_image=samples, **arguments))
    generator = torch.Generator().manual_seed(0)
    with LargestTensor() as recorder:
        feedback = algorithm.collect(logits.detach(), envs, infos, 0.5, generator).feedback
        algorithm.prepare([feedback])
        algorithm.loss(logits, feedback, 0.5)[0].backward()
    assert logits.grad is not None
    assert logits.grad.any()
    assert (batch, samples, height, width) in recorder.shapes
    largest = batch * samples * height * width
    if "cells" in arguments:
        largest = batch * samples * (height + 4) * (width + 4)  # cells stick out of the image
    assert recorder.most <= largest < batch * samples * classes * height * width


def test_the_recorder_of_tensor_sizes_would_see_a_one_hot_tensor() -> None:
    with LargestTensor() as recorder:
        torch.nn.functional.one_hot(torch.zeros(3, 6, 16, 17, dtype=torch.long), 5)
    assert recorder.most == 3 * 6 * 5 * 16 * 17


def test_a_replay_of_fewer_label_maps_than_a_visit_has_keeps_one_visit() -> None:
    assert RSS(RSSArguments(samples_per_image=300)).visits.visits == 1
    assert RSS(RSSArguments(samples_per_image=300, replay=0)).visits.visits == 0
    assert RSS(RSSArguments(samples_per_image=32)).visits.visits == 8


def test_equal_scores_of_an_image_teach_nothing_and_do_not_count_in_the_scale() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    infos = {"index": np.array([0, 1])}
    algorithm = RSS(RSSArguments(samples_per_image=3, replay=0))
    envs: Any = FixedScores(np.array([[0.4, 0.4, 0.4], [0.1, 0.5, 0.3]]))
    collected = algorithm.collect(logits.detach(), envs, infos, 0.0, torch.Generator().manual_seed(0))
    algorithm.prepare([collected.feedback])
    loss, metrics = algorithm.loss(logits, collected.feedback, 0.0)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[0].any()
    assert gradient[1].any()
    evidence = collected.feedback.evidence
    assert float(metrics["policy/advantage_scale"]) == pytest.approx(
        evidence.advantages[1].square().mean().sqrt().item(), rel=1e-6
    )

    equal: Any = FixedScores(np.full((2, 3), 0.4))
    collected = algorithm.collect(logits.detach(), equal, infos, 0.0, torch.Generator().manual_seed(0))
    algorithm.prepare([collected.feedback])
    loss, metrics = algorithm.loss(logits, collected.feedback, 0.0)
    assert not torch.autograd.grad(loss, logits)[0].any()
    assert float(metrics["likelihood/explained"]) == 0
