"""The likelihood of scores and of pixel rewards, against autograd with one-hot tensors and plain loops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rss_env  # noqa: F401  registers the ids
from agents.likelihood import IGNORED_SHARE, Evidence, before_rounding, score_evidence, success_loss
from agents.rss import RSS, UNKNOWN, Feedback, RSSArguments, classes_found
from agents.score_models import SCORE_MODELS
from rss_env.datasets import load_dataset
from rss_env.rewards import score_images

SIZES = st.tuples(*(st.integers(1, most) for most in (3, 3, 5, 6)))  # B, earlier visits, H, W
names = pytest.mark.parametrize("name", sorted(SCORE_MODELS))


@pytest.fixture(params=["torch", "numba"], scope="module")
def ops(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both implementations of the counts and credits."""
    if request.param == "numba":
        pytest.importorskip("numba", reason="needs numba: pip install 'rss-env[fast]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSS_OPS", request.param)
        yield request.param


def draw_problem(
    seed: int, size: tuple[int, int, int, int], classes: int, samples: int, dtype: torch.dtype = torch.float64
) -> dict[str, Any]:
    """Arguments of ``score_evidence``: a belief, the label maps of some visits and any scores."""
    batch, earlier, height, width = size
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(2 * rng.normal(size=(batch, classes, height, width))).to(dtype)
    label_maps = rng.integers(0, classes, (batch + earlier, samples, height, width)).astype(np.uint8)
    return {
        "probabilities": logits.softmax(dim=1),
        "label_maps": torch.from_numpy(label_maps),
        "scores": torch.from_numpy(rng.random((batch + earlier, samples))).to(dtype),
        "image": torch.from_numpy(np.concatenate([np.arange(batch), rng.integers(0, batch, earlier)])),
        "fresh": batch,
    }


def predict(name: str, probabilities: torch.Tensor, label_map: torch.Tensor) -> torch.Tensor:
    """The expected score of a label map (H, W) with a one-hot tensor; ``probabilities`` are (C, H, W)."""
    one_hot = (label_map[None] == torch.arange(len(probabilities))[:, None, None]).double()
    right, chosen, true = ((one_hot * probabilities).sum((1, 2)), one_hot.sum((1, 2)), probabilities.sum((1, 2)))
    if name == "pixel_accuracy":
        return right.sum() / one_hot.sum()
    if name == "frequency_weighted_iou":
        return (true.detach() * right / (chosen + true - right)).sum() / true.sum().detach()
    values = right / (chosen + true - right) if name == "mean_iou" else 2 * right / (chosen + true)
    present = torch.where(chosen > 0, 1.0, 1 - (-true.detach()).exp())  # the weights count as constants
    return (present * values).sum() / present.sum()


def log_likelihood(name: str, problem: dict[str, Any], probabilities: torch.Tensor) -> torch.Tensor:
    """−½ Σ A²: the Gaussian log-likelihood of the scores but for the variance, visit by visit."""
    total = torch.zeros((), dtype=torch.float64)
    for maps, scores, image in zip(problem["label_maps"], problem["scores"], problem["image"], strict=True):
        residuals = torch.stack(
            [score.double() - predict(name, probabilities[image], label) for label, score in zip(maps, scores)]  # noqa: B905
        )
        total = total - (residuals - residuals.mean()).square().sum() / 2
    return total


@names
@settings(deadline=None, max_examples=25)
@given(size=SIZES, classes=st.integers(2, 6), samples=st.integers(2, 5), seed=st.integers(0, 2**32 - 1))
def test_the_direction_is_the_gradient_of_the_log_likelihood(
    name: str, size: tuple[int, int, int, int], classes: int, samples: int, seed: int
) -> None:
    problem = draw_problem(seed, size, classes, samples)
    evidence = score_evidence(**problem, score_model=name)
    belief = problem["probabilities"].clone().requires_grad_()
    (expected,) = torch.autograd.grad(log_likelihood(name, problem, belief), belief)
    assert evidence.direction.shape == belief.shape
    torch.testing.assert_close(evidence.direction, expected, rtol=0, atol=1e-12)


@names
def test_in_float32_both_implementations_give_it_to_rounding(name: str, ops: str) -> None:
    problem = draw_problem(5, (3, 4, 13, 11), 5, 6, torch.float32)
    evidence = score_evidence(**problem, score_model=name)
    belief = problem["probabilities"].double().requires_grad_()
    (expected,) = torch.autograd.grad(log_likelihood(name, problem, belief), belief)
    assert evidence.direction.dtype == torch.float32
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(evidence.direction.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@names
@settings(deadline=None, max_examples=25)
@given(size=SIZES, classes=st.integers(2, 6), samples=st.integers(2, 5), seed=st.integers(0, 2**32 - 1))
def test_advantages_are_residuals_compared_within_their_visit_and_only_fresh_ones_are_measured(
    name: str, size: tuple[int, int, int, int], classes: int, samples: int, seed: int
) -> None:
    problem = draw_problem(seed, size, classes, samples)
    evidence = score_evidence(**problem, score_model=name)
    residuals = np.zeros(problem["scores"].shape)
    for v, k in np.ndindex(residuals.shape):
        belief = problem["probabilities"][problem["image"][v]]
        residuals[v, k] = problem["scores"][v, k] - predict(name, belief, problem["label_maps"][v, k])
    advantages = residuals - residuals.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(evidence.advantages, advantages, rtol=0, atol=1e-12)

    fresh = problem["fresh"]
    assert evidence.offset.item() == pytest.approx(residuals[:fresh].mean(), abs=1e-12)
    scores = problem["scores"][:fresh].numpy()
    spread = ((scores - scores.mean(axis=1, keepdims=True)) ** 2).sum()
    assert evidence.explained.item() == pytest.approx(1 - (advantages[:fresh] ** 2).sum() / spread, rel=1e-9)


def assert_same_evidence(one: Evidence, other: Evidence, atol: float) -> None:
    torch.testing.assert_close(one.direction, other.direction, rtol=0, atol=atol)
    torch.testing.assert_close(one.advantages, other.advantages, rtol=0, atol=atol)
    torch.testing.assert_close(one.explained, other.explained, rtol=0, atol=10 * atol)


@names
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), earlier=st.integers(0, 4))
def test_a_constant_added_to_all_scores_of_a_visit_teaches_nothing(name: str, seed: int, earlier: int) -> None:
    problem = draw_problem(seed, (2, earlier, 4, 5), 3, 4)
    shifts = torch.from_numpy(np.random.default_rng(seed).normal(size=(2 + earlier, 1)))
    before = score_evidence(**problem, score_model=name)
    after = score_evidence(**problem | {"scores": problem["scores"] + shifts}, score_model=name)
    assert_same_evidence(after, before, atol=1e-11)
    assert (after.offset - before.offset).item() == pytest.approx(shifts[:2].mean().item(), abs=1e-12)


@names
def test_scores_that_are_all_equal_to_their_prediction_teach_nothing(name: str) -> None:
    problem = draw_problem(0, (2, 1, 4, 5), 3, 4)
    for v, k in np.ndindex(3, 4):
        belief = problem["probabilities"][problem["image"][v]]
        problem["scores"][v, k] = predict(name, belief, problem["label_maps"][v, k])
    evidence = score_evidence(**problem, score_model=name)
    torch.testing.assert_close(evidence.direction, torch.zeros_like(evidence.direction), rtol=0, atol=1e-14)
    assert evidence.explained.item() == pytest.approx(1)


def test_the_order_of_earlier_visits_does_not_matter_and_each_counts_like_a_fresh_one() -> None:
    problem = draw_problem(1, (2, 4, 4, 5), 3, 4)
    whole = score_evidence(**problem, score_model="mean_iou")
    order = torch.tensor([0, 1, 5, 3, 2, 4])
    shuffled = {name: problem[name][order] for name in ("label_maps", "scores", "image")}
    again = score_evidence(**problem | shuffled, score_model="mean_iou")
    torch.testing.assert_close(again.direction, whole.direction, rtol=0, atol=1e-13)
    torch.testing.assert_close(again.advantages, whole.advantages[order], rtol=0, atol=1e-13)
    assert (again.explained, again.offset) == (whole.explained, whole.offset)

    parts = torch.zeros_like(whole.direction)
    for v in range(6):
        one = {name: problem[name][v : v + 1] for name in ("label_maps", "scores", "image")}
        parts += score_evidence(**problem | one | {"fresh": 1}, score_model="mean_iou").direction
    torch.testing.assert_close(whole.direction, parts, rtol=0, atol=1e-13)


def test_no_gradient_flows_into_the_belief() -> None:
    problem = draw_problem(0, (2, 1, 4, 5), 3, 4)
    problem["probabilities"].requires_grad_()
    assert not any(part.requires_grad for part in score_evidence(**problem, score_model="mean_iou"))


@settings(deadline=None)
@given(
    tried=st.lists(st.integers(1, 9), min_size=2, max_size=6),
    seed=st.integers(0, 2**32 - 1),
)
def test_of_a_single_pixel_the_true_class_becomes_more_likely_as_with_the_log_likelihood_of_success(
    tried: list[int], seed: int
) -> None:
    classes = len(tried)
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, classes, 1, 1))).requires_grad_()
    label_maps = torch.repeat_interleave(torch.arange(classes, dtype=torch.uint8), torch.tensor(tried))
    scores = (label_maps == 0).double()[None]  # class 0 is the true one
    belief = logits.softmax(dim=1)
    image = torch.zeros(1, dtype=torch.long)
    evidence = score_evidence(belief, label_maps[None, :, None, None], scores, image, 1, "pixel_accuracy")
    (step,) = torch.autograd.grad((evidence.direction * belief).sum(), logits, retain_graph=True)
    (success,) = torch.autograd.grad(belief[0, 0].log().sum(), logits)
    assert step[0, 0] > 0
    assert success[0, 0] > 0
    if classes == 2:  # there is but one direction
        torch.testing.assert_close(step / step.norm(), success / success.norm(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_a_belief_that_explains_the_mean_iou_of_random_label_maps_is_the_target(seed: int) -> None:
    # 9 pixels, 3 classes, 64 random label maps of which only the score is known; fixed seeds, so no false alarms.
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, (1, 3, 3))
    label_maps = rng.integers(0, 3, (2, 32, 3, 3)).astype(np.uint8)
    scores = torch.from_numpy(score_images("mean_iou", label_maps.reshape(1, 64, 3, 3), target, 3).reshape(2, 32))
    logits = torch.zeros(1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    for _ in range(300):
        belief = logits.softmax(dim=1)
        image = torch.zeros(2, dtype=torch.long)
        evidence = score_evidence(belief, torch.from_numpy(label_maps), scores, image, 1, "mean_iou")
        optimiser.zero_grad()
        (-(evidence.direction / evidence.advantages.square().mean() * belief).sum()).backward()
        optimiser.step()
    np.testing.assert_array_equal(logits.argmax(dim=1).numpy(), target)
    assert evidence.explained > 0.8


@pytest.mark.parametrize("reward", [None, "mean_dice", "pixel_accuracy", "boundary_f1"])
def test_the_loss_has_the_gradient_of_the_likelihood_with_one_variance_for_the_update(reward: str | None) -> None:
    problem = draw_problem(3, (2, 0, 4, 5), 3, 4, torch.float32)
    logits = problem["probabilities"].log().requires_grad_()
    algorithm = RSS(RSSArguments(samples_per_image=4, reward=reward))
    feedback = Feedback(problem["label_maps"], problem["scores"][:, :, None, None])
    algorithm._weigh_scores(logits, feedback)
    algorithm.prepare([feedback])
    algorithm.loss(logits, feedback, 0.0)[0].backward()

    name = {None: "mean_iou", "boundary_f1": "pixel_accuracy"}.get(reward, reward)
    assert name is not None
    assert feedback.evidence is not None
    variance = feedback.evidence.advantages.double().square().mean()
    exact = logits.detach().double().requires_grad_()
    likelihood = log_likelihood(name, problem, exact.softmax(dim=1)) / variance
    (expected,) = torch.autograd.grad(-likelihood / (2 * 4 * 5), exact)  # the mean over images and pixels
    assert logits.grad is not None
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(logits.grad.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


# Rounded scores


def truncated(mean: float, spread: float, low: float, high: float) -> tuple[float, float]:
    """Mean and variance of a Gaussian between two edges, by a sum over a fine grid."""
    peak = min(max(mean, low), high)
    reach = 40 * spread / max(1.0, abs(peak - mean) / spread)  # beyond it the density is gone
    grid = np.linspace(max(low, peak - reach), min(high, peak + reach), 400_001)
    exponents = -0.5 * ((grid - mean) / spread) ** 2
    weights = np.exp(exponents - exponents.max())
    weights[[0, -1]] /= 2  # the trapezoidal rule
    expected = float((weights * grid).sum() / weights.sum())
    return expected, float((weights * (grid - expected) ** 2).sum() / weights.sum())


@pytest.mark.parametrize("spread", [0.001, 0.05, 0.3, 2.0])
@pytest.mark.parametrize("mean", [-3.0, 0.05, 0.3, 0.5, 0.9, 40.0])
@pytest.mark.parametrize("star", range(5))
def test_before_rounding_a_score_was_gaussian_within_its_interval(star: int, mean: float, spread: float) -> None:
    low, high = (star - 0.5) / 4 if star else -np.inf, (star + 0.5) / 4 if star < 4 else np.inf
    expected, variance = truncated(mean, spread, low, high)
    scores, predictions = torch.tensor([star / 4], dtype=torch.float64), torch.tensor([mean], dtype=torch.float64)
    got, undecided = before_rounding(scores, predictions, spread, 5)
    # More than 30 standard deviations away it is the edge itself, which is off by less than a thirtieth of one.
    assert got.item() == pytest.approx(expected, abs=spread / 29)
    assert undecided.item() == pytest.approx(variance, abs=2e-3 * spread**2)
    if abs(expected - mean) < 29 * spread:
        assert got.item() == pytest.approx(expected, abs=1e-5 * spread)


def test_before_rounding_is_symmetric_and_keeps_the_type() -> None:
    mean = torch.linspace(-0.2, 1.2, 57)
    star = torch.randint(0, 5, (57,), generator=torch.Generator().manual_seed(0)) / 4
    one, other = before_rounding(star, mean, 0.1, 5), before_rounding(1 - star, 1 - mean, 0.1, 5)
    assert one[0].dtype == one[1].dtype == torch.float32
    torch.testing.assert_close(one[0], 1 - other[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(one[1], other[1], rtol=0, atol=1e-7)


def test_with_many_stars_the_evidence_is_that_of_exact_scores() -> None:
    problem = draw_problem(2, (2, 3, 4, 5), 3, 4)
    exact = score_evidence(**problem, score_model="mean_iou")
    rounded = problem | {"scores": (problem["scores"] * 1e5).round() / 1e5}
    fine = score_evidence(**rounded, score_model="mean_iou", stars=100_001, spread=0.1)
    assert_same_evidence(fine, exact, atol=1e-4)
    assert fine.variance.item() == pytest.approx(exact.variance.item(), abs=1e-5)
    assert exact.variance.item() == pytest.approx(exact.advantages[:2].square().mean().item(), rel=1e-12)


def test_stars_that_agree_with_the_prediction_teach_less_than_the_numbers_would() -> None:
    # A star more than another is a smaller surprise than the quarter between them.
    problem = draw_problem(4, (1, 0, 6, 6), 3, 4)
    problem["scores"] = torch.tensor([[0.25, 0.5, 0.5, 0.25]], dtype=torch.float64)
    as_numbers = score_evidence(**problem, score_model="mean_iou").advantages
    as_stars = score_evidence(**problem, score_model="mean_iou", stars=5, spread=0.05).advantages
    assert as_stars.abs().max() < 0.8 * as_numbers.abs().max()
    assert (as_stars[0, 1:3].sum() > as_stars[0, [0, 3]].sum()).item()


# Pixel level


def draw_knowledge(seed: int, size: tuple[int, int, int], classes: int) -> tuple[torch.Tensor, ...]:
    """Logits (B, C, H, W), known (B, H, W) and excluded (B, C, H, W), which a known class never is."""
    rng = np.random.default_rng(seed)
    batch, height, width = size
    known = rng.integers(0, classes, size)
    known[rng.random(size) < 0.5] = UNKNOWN
    excluded = rng.random((batch, classes, height, width)) < rng.random()
    excluded &= np.arange(classes)[:, None, None] != known[:, None]
    logits = torch.from_numpy(3 * rng.normal(size=excluded.shape))
    return logits, torch.from_numpy(known.astype(np.uint8)), torch.from_numpy(excluded)


@settings(deadline=None)
@given(
    size=st.tuples(*(st.integers(1, most) for most in (3, 5, 4))),
    classes=st.integers(2, 7),
    seed=st.integers(0, 2**32 - 1),
)
def test_success_loss_is_the_mean_over_pixels_of_what_their_rewards_say(
    size: tuple[int, int, int], classes: int, seed: int
) -> None:
    logits, known, excluded = draw_knowledge(seed, size, classes)
    total = 0.0
    for b, y, x in np.ndindex(*size):
        weights = [math.exp(logit) for logit in logits[b, :, y, x].tolist()]
        p = [weight / sum(weights) for weight in weights]
        if known[b, y, x] != UNKNOWN:
            total += math.log(p[known[b, y, x]])
        else:
            in_vain = sum(p[c] for c in range(classes) if excluded[b, c, y, x])
            total += math.log(IGNORED_SHARE + (1 - IGNORED_SHARE) * (1 - in_vain))
    loss = success_loss(logits.log_softmax(dim=1), known, excluded)
    assert loss.item() == pytest.approx(-total / math.prod(size), rel=1e-9, abs=1e-12)


def test_the_gradient_of_a_known_pixel_is_that_of_cross_entropy() -> None:
    logits, known, excluded = draw_knowledge(0, (2, 5, 6), 4)
    counted = known != UNKNOWN
    assert 0 < counted.sum() < known.numel()
    logits.requires_grad_()
    (step,) = torch.autograd.grad(success_loss(logits.log_softmax(dim=1), known, excluded), logits)
    cross_entropy = torch.nn.functional.cross_entropy(logits, known.long(), ignore_index=UNKNOWN, reduction="sum")
    (expected,) = torch.autograd.grad(cross_entropy / known.numel(), logits)
    mask = counted[:, None].expand_as(step)
    torch.testing.assert_close(step[mask], expected[mask], rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sharpness", [0.0, 1.0, 200.0])
def test_a_pixel_where_every_class_was_tried_in_vain_has_a_bounded_loss(dtype: torch.dtype, sharpness: float) -> None:
    logits = sharpness * torch.randn(1, 5, 8, 9, dtype=dtype, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    known = torch.full((1, 8, 9), UNKNOWN, dtype=torch.uint8)
    loss = success_loss(logits.log_softmax(dim=1), known, torch.ones(1, 5, 8, 9, dtype=torch.bool))
    assert loss.item() == pytest.approx(-math.log(IGNORED_SHARE), rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-5  # nothing can be learned there


def test_a_pixel_of_which_nothing_is_known_has_no_loss() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True, generator=torch.Generator().manual_seed(0))
    known = torch.full((1, 4, 4), UNKNOWN, dtype=torch.uint8)
    loss = success_loss(logits.log_softmax(dim=1), known, torch.zeros(1, 3, 4, 4, dtype=torch.bool))
    assert loss.item() == 0
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad.any()


@settings(deadline=None)
@given(
    size=st.tuples(*(st.integers(1, most) for most in (3, 6, 4, 5))),
    classes=st.integers(2, 6),
    ignored=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_class_is_found_where_it_earned_a_reward_and_excluded_where_it_earned_none(
    size: tuple[int, int, int, int], classes: int, ignored: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    batch, _, height, width = size
    targets = rng.integers(0, classes, (batch, height, width))
    targets[rng.random(targets.shape) < ignored] = 255
    label_maps = rng.integers(0, classes, size)
    rewards = (label_maps == targets[:, None]).astype(np.float32)
    expected_known = np.full((batch, height, width), 255)
    expected_excluded = np.zeros((batch, classes, height, width), bool)
    for b, k, y, x in np.ndindex(*size):
        if rewards[b, k, y, x] > 0:
            expected_known[b, y, x] = label_maps[b, k, y, x]
        else:
            expected_excluded[b, label_maps[b, k, y, x], y, x] = True
    maps = torch.from_numpy(label_maps.astype(np.uint8))
    known, excluded = classes_found(maps, torch.from_numpy(rewards), classes)
    assert (known.dtype, excluded.dtype) == (torch.uint8, torch.bool)
    np.testing.assert_array_equal(known.numpy(), expected_known)
    np.testing.assert_array_equal(excluded.numpy(), expected_excluded)


# Memory, with images that are mirrored at random


def play(level: str, steps: int, **arguments: Any) -> tuple[RSS, list[dict[str, Any]]]:
    """Random label maps on mirrored and straight images of a small data set; what came of every step."""
    args = RSSArguments(samples_per_image=3, **arguments)
    algorithm, generator = RSS(args), torch.Generator().manual_seed(0)
    envs = gym.make_vec(
        f"RSS-Shapes-{level}Reward-v0",
        num_envs=2,
        image_size=(8, 9),
        samples_per_image=3,
        augment="flip",
        num_images=4,
        num_classes=5,
    )
    _, infos = envs.reset(seed=0)
    played = []
    for _ in range(steps):
        collected = algorithm.collect(torch.zeros(2, 5, 8, 9), envs, infos, 0.0, generator)
        played.append({"infos": infos, "feedback": collected.feedback})
        infos = collected.infos
    return algorithm, played


def test_visits_of_mirrored_images_are_kept_unmirrored_and_replayed_as_the_image_is_shown() -> None:
    algorithm, played = play("Image", 8)
    targets = load_dataset("Shapes", image_size=(8, 9), num_images=4, num_classes=5).targets
    assert targets is not None
    flips = np.concatenate([step["infos"]["flipped"] for step in played])
    assert flips.any()
    assert not flips.all()
    for index in range(4):
        visits = algorithm.visits.recall(index)
        assert len(visits) == sum((step["infos"]["index"] == index).sum() for step in played)
        for visit in visits:
            scores = score_images("mean_iou", visit.label_maps[None].numpy(), targets[index : index + 1], 5)[0]
            np.testing.assert_allclose(visit.scores.numpy(), scores, rtol=0, atol=1e-7)

    seen: list[int] = []
    for step in played:
        indices, flipped = step["infos"]["index"], step["infos"]["flipped"]
        assert len(step["feedback"].old) == sum(seen.count(index) for index in indices)
        for b, visit in step["feedback"].old:
            shown = targets[indices[b]][:, ::-1] if flipped[b] else targets[indices[b]]
            assert visit.index == indices[b]
            scores = score_images("mean_iou", visit.label_maps[None].numpy(), np.ascontiguousarray(shown)[None], 5)[0]
            np.testing.assert_allclose(visit.scores.numpy(), scores, rtol=0, atol=1e-7)
        seen += indices.tolist()


def test_what_pixels_of_mirrored_images_told_is_kept_unmirrored_and_adds_up() -> None:
    algorithm, played = play("Pixel", 8)
    targets = torch.tensor(load_dataset("Shapes", image_size=(8, 9), num_images=4, num_classes=5).targets)
    flips = np.concatenate([step["infos"]["flipped"] for step in played])
    assert flips.any()
    assert not flips.all()

    known = torch.full((4, 8, 9), UNKNOWN, dtype=torch.uint8)
    excluded = torch.zeros((4, 5, 8, 9), dtype=torch.bool)
    for step in played:
        for b, index in enumerate(step["infos"]["index"].tolist()):
            mirrored = (lambda tensor: tensor.flip(-1)) if step["infos"]["flipped"][b] else (lambda tensor: tensor)
            for label_map in mirrored(step["feedback"].label_maps[b]):  # as the image is stored
                known[index] = torch.where(label_map == targets[index], label_map, known[index])
                for c in range(5):
                    excluded[index, c] |= (label_map == c) & (targets[index] != c)
            assert torch.equal(step["feedback"].known[b], mirrored(known[index]))
            assert torch.equal(step["feedback"].excluded[b], mirrored(excluded[index]))
    assert algorithm.pixels is not None
    for index in range(4):
        recalled = algorithm.pixels.recall(index)
        assert recalled is not None
        assert torch.equal(recalled[0], known[index])
        assert torch.equal(recalled[1], excluded[index])


@pytest.mark.parametrize("level", ["Image", "Pixel"])
def test_without_replay_nothing_is_remembered(level: str) -> None:
    algorithm, played = play(level, 4, replay=0)
    assert algorithm.memory() == {}
    for step in played:
        feedback = step["feedback"]
        assert list(feedback.old) == []
        if level == "Pixel":
            known, excluded = classes_found(feedback.label_maps, feedback.rewards, 5)
            assert torch.equal(feedback.known, known)
            assert torch.equal(feedback.excluded, excluded)
