"""The gradient of the likelihood of scores, against autograd and against enumeration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from agents.ops import policy_gradient
from agents.scores.evidence import Evidence, score_evidence
from agents.scores.formulas import KnownFormula
from agents.scores.models import SCORE_MODELS
from rss_env.rewards import score_images
from tests.agents.scores.oracle import draw_problem, log_likelihood, predict

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


@names
@settings(max_examples=25)
@given(size=SIZES, classes=st.integers(2, 6), samples=st.integers(2, 5), seed=st.integers(0, 2**32 - 1))
def test_the_direction_is_the_gradient_of_the_log_likelihood(
    name: str, size: tuple[int, int, int, int], classes: int, samples: int, seed: int
) -> None:
    problem = draw_problem(seed, size, classes, samples)
    evidence = score_evidence(**problem, formula=KnownFormula(name))
    belief = problem["probabilities"].clone().requires_grad_()
    (expected,) = torch.autograd.grad(log_likelihood(name, problem, belief), belief)
    assert evidence.direction.shape == belief.shape
    torch.testing.assert_close(evidence.direction, expected, rtol=0, atol=1e-12)


@names
def test_in_float32_both_implementations_give_it_to_rounding(name: str, ops: str) -> None:
    problem = draw_problem(5, (3, 4, 13, 11), 5, 6, torch.float32)
    evidence = score_evidence(**problem, formula=KnownFormula(name))
    belief = problem["probabilities"].double().requires_grad_()
    (expected,) = torch.autograd.grad(log_likelihood(name, problem, belief), belief)
    assert evidence.direction.dtype == torch.float32
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(evidence.direction.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@names
@settings(max_examples=25)
@given(size=SIZES, classes=st.integers(2, 6), samples=st.integers(2, 5), seed=st.integers(0, 2**32 - 1))
def test_advantages_are_residuals_compared_within_their_visit_and_only_fresh_ones_are_measured(
    name: str, size: tuple[int, int, int, int], classes: int, samples: int, seed: int
) -> None:
    problem = draw_problem(seed, size, classes, samples)
    evidence = score_evidence(**problem, formula=KnownFormula(name))
    residuals = np.zeros(problem["scores"].shape)
    for v, k in np.ndindex(residuals.shape):
        belief = problem["probabilities"][problem["image"][v]]
        residuals[v, k] = problem["scores"][v, k] - predict(name, belief, problem["label_maps"][v, k])
    advantages = residuals - residuals.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(evidence.reading.advantages, advantages, rtol=0, atol=1e-12)

    fresh = problem["fresh"]
    assert evidence.reading.offset.item() == pytest.approx(residuals[:fresh].mean(), abs=1e-12)
    scores = problem["scores"][:fresh].numpy()
    spread = ((scores - scores.mean(axis=1, keepdims=True)) ** 2).sum()
    assert evidence.reading.explained.item() == pytest.approx(1 - (advantages[:fresh] ** 2).sum() / spread, rel=1e-9)


class OperationNames(TorchDispatchMode):
    """Remembers which operations ran; those of ``agents.ops`` are one each."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@names
def test_nothing_is_added_in_the_order_in_which_threads_of_a_gpu_come(name: str) -> None:
    # What torch documents as nondeterministic on CUDA devices, and what adds in float atomics there.
    atomic = {"index_add", "index_add_", "scatter_add", "scatter_add_", "scatter_reduce", "scatter_reduce_"}
    atomic |= {"index_put", "index_put_", "_index_put_impl_", "put_", "bincount", "histc", "cumsum", "cumsum_"}
    with OperationNames() as ran:
        score_evidence(**draw_problem(3, (3, 4, 7, 5), 4, 5, torch.float32), formula=KnownFormula(name))
    assert {"soft_counts", "class_credit", "sum"} <= ran.names
    assert not ran.names & atomic


def assert_same_evidence(one: Evidence, other: Evidence, atol: float) -> None:
    torch.testing.assert_close(one.direction, other.direction, rtol=0, atol=atol)
    torch.testing.assert_close(one.reading.advantages, other.reading.advantages, rtol=0, atol=atol)
    torch.testing.assert_close(one.reading.explained, other.reading.explained, rtol=0, atol=10 * atol)


@names
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), earlier=st.integers(0, 4))
def test_a_constant_added_to_all_scores_of_a_visit_teaches_nothing(name: str, seed: int, earlier: int) -> None:
    problem = draw_problem(seed, (2, earlier, 4, 5), 3, 4)
    shifts = torch.from_numpy(np.random.default_rng(seed).normal(size=(2 + earlier, 1)))
    before = score_evidence(**problem, formula=KnownFormula(name))
    after = score_evidence(**problem | {"scores": problem["scores"] + shifts}, formula=KnownFormula(name))
    assert_same_evidence(after, before, atol=1e-11)
    assert (after.reading.offset - before.reading.offset).item() == pytest.approx(shifts[:2].mean().item(), abs=1e-12)


@names
def test_scores_that_are_all_equal_to_their_prediction_teach_nothing(name: str) -> None:
    problem = draw_problem(0, (2, 1, 4, 5), 3, 4)
    for v, k in np.ndindex(3, 4):
        belief = problem["probabilities"][problem["image"][v]]
        problem["scores"][v, k] = predict(name, belief, problem["label_maps"][v, k])
    evidence = score_evidence(**problem, formula=KnownFormula(name))
    torch.testing.assert_close(evidence.direction, torch.zeros_like(evidence.direction), rtol=0, atol=1e-14)
    assert evidence.reading.explained.item() == pytest.approx(1)


def test_the_order_of_earlier_visits_does_not_matter_and_each_counts_like_a_fresh_one() -> None:
    problem = draw_problem(1, (2, 4, 4, 5), 3, 4)
    whole = score_evidence(**problem, formula=KnownFormula("mean_iou"))
    order = torch.tensor([0, 1, 5, 3, 2, 4])
    shuffled = {name: problem[name][order] for name in ("label_maps", "scores", "image")}
    again = score_evidence(**problem | shuffled, formula=KnownFormula("mean_iou"))
    torch.testing.assert_close(again.direction, whole.direction, rtol=0, atol=1e-13)
    torch.testing.assert_close(again.reading.advantages, whole.reading.advantages[order], rtol=0, atol=1e-13)
    assert (again.reading.explained, again.reading.offset) == (whole.reading.explained, whole.reading.offset)

    parts = torch.zeros_like(whole.direction)
    for v in range(6):
        one = {name: problem[name][v : v + 1] for name in ("label_maps", "scores", "image")}
        parts += score_evidence(**problem | one | {"fresh": 1}, formula=KnownFormula("mean_iou")).direction
    torch.testing.assert_close(whole.direction, parts, rtol=0, atol=1e-13)


def test_no_gradient_flows_into_the_belief() -> None:
    problem = draw_problem(0, (2, 1, 4, 5), 3, 4)
    problem["probabilities"].requires_grad_()
    reading, direction = score_evidence(**problem, formula=KnownFormula("mean_iou"))
    parts = (direction, *reading.prediction, reading.seen.scores, reading.seen.mean, *reading)
    assert not any(part.requires_grad for part in parts if isinstance(part, torch.Tensor))


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
    evidence = score_evidence(belief, label_maps[None, :, None, None], scores, image, 1, KnownFormula("pixel_accuracy"))
    (step,) = torch.autograd.grad((evidence.direction * belief).sum(), logits, retain_graph=True)
    (success,) = torch.autograd.grad(belief[0, 0].log().sum(), logits)
    assert step[0, 0] > 0
    assert success[0, 0] > 0
    if classes == 2:  # there is only one direction
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
        evidence = score_evidence(belief, torch.from_numpy(label_maps), scores, image, 1, KnownFormula("mean_iou"))
        optimiser.zero_grad()
        (-(evidence.direction / evidence.reading.advantages.square().mean() * belief).sum()).backward()
        optimiser.step()
    np.testing.assert_array_equal(logits.argmax(dim=1).numpy(), target)
    assert evidence.reading.explained > 0.8


# In expectation: every label map is in the visit, as often as its probability says


def every_label_map(weights: np.ndarray) -> torch.Tensor:
    """All label maps of N pixels in a row, each as often as the product of its pixels' weights: uint8 (M, 1, N).

    Args:
        weights: integers (N, C), proportional to the probabilities q that the classes are drawn with.
    """
    drawn = [np.repeat(np.arange(len(row)), row) for row in weights]
    grid = np.stack(np.meshgrid(*drawn, indexing="ij"), axis=-1)
    return torch.from_numpy(grid.reshape(-1, 1, len(weights)).astype(np.uint8))


def expected_directions(name: str, belief: torch.Tensor, weights: np.ndarray, targets: torch.Tensor) -> torch.Tensor:
    """Direction per label map, (T, N, C), that a visit tends to as its samples grow in number, for each target (T, N).

    Args:
        name: of the score.
        belief: float64 (N, C).
        weights: as in ``every_label_map``.
        targets: integers (T, N).
    """
    label_maps, (visits, classes) = every_label_map(weights), (len(targets), belief.shape[1])
    tried = label_maps.expand(visits, -1, -1, -1)  # (T, M, 1, N)
    scores = score_images(name, tried.numpy(), targets[:, None].numpy(), classes)
    direction = score_evidence(
        belief.T[None, :, None].repeat(visits, 1, 1, 1),
        tried,
        torch.from_numpy(scores),
        torch.arange(visits),
        visits,
        KnownFormula(name),
    ).direction
    return direction[:, :, 0].transpose(1, 2) / len(label_maps)


def draw_two_pixels(seed: int, classes: int) -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
    """Belief (2, C), weights (2, C) of the draw, which is another distribution, and target (2,)."""
    rng = np.random.default_rng(seed)
    belief, weights = rng.dirichlet(np.ones(classes), 2), rng.integers(1, 5, (2, classes))
    return torch.from_numpy(belief), weights, torch.from_numpy(rng.integers(0, classes, 2))


@pytest.mark.parametrize("classes", [2, 3])
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_of_an_accuracy_each_pixel_descends_half_the_variance_of_its_error_under_the_draw(
    classes: int, seed: int
) -> None:
    belief, weights, target = draw_two_pixels(seed, classes)
    q = torch.from_numpy(weights / weights.sum(axis=1, keepdims=True))
    error = torch.nn.functional.one_hot(target, classes) - belief  # e, (N, C)
    direction = expected_directions("pixel_accuracy", belief, weights, target[None])[0]
    expected = q * (error - (q * error).sum(dim=1, keepdim=True)) / 2**2
    torch.testing.assert_close(direction, expected, rtol=0, atol=1e-15)

    belief.requires_grad_()
    error = torch.nn.functional.one_hot(target, classes) - belief
    variance = (q * error.square()).sum(dim=1) - (q * error).sum(dim=1).square()  # Var_q(e), (N,)
    (gradient,) = torch.autograd.grad(-variance.sum() / 2 / 2**2, belief)
    torch.testing.assert_close(direction, gradient, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("belief", "weights"), [([0.02, 0.98], [1, 6]), ([0.02, 0.96, 0.02], [1, 6, 1])], ids=["2 classes", "3 classes"]
)
def test_where_the_belief_is_wrong_the_gradient_of_the_squared_error_is_another(
    belief: list[float], weights: list[int]
) -> None:
    p, draw, target = torch.tensor([belief] * 2).double(), np.array([weights] * 2), torch.zeros(2, dtype=torch.long)
    q = torch.from_numpy(draw / draw.sum(axis=1, keepdims=True))
    direction = expected_directions("pixel_accuracy", p, draw, target[None])[0]
    squared_error = q * (torch.nn.functional.one_hot(target, len(belief)) - p) / 2**2
    assert (direction - squared_error).abs().max() > direction.abs().max()


def unlikely_class(odds: int, temperature: int) -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
    """Two pixels and classes of which the first pixel's true one is unlikely.

    Returns:
        Logits (2, 2), weights of the draw at the temperature, in which the class has a probability of 1 / (1 + odds),
        and the target (2,).
    """
    logits = torch.tensor([[0.0, temperature * np.log(odds)], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    return logits, np.array([[1, odds], [1, 1]]), torch.zeros(2, dtype=torch.long)


def likelihood_gradient(odds: int, temperature: int) -> tuple[float, float]:
    """Probability of the first pixel's true class, and the direction's gradient of its logit."""
    logits, weights, target = unlikely_class(odds, temperature)
    belief = logits.softmax(dim=1)
    direction = expected_directions("pixel_accuracy", belief.detach(), weights, target[None])[0]
    (gradient,) = torch.autograd.grad((direction * belief).sum(), logits)
    return belief[0, 0].item(), gradient[0, 0].item()


def reward_gradient(odds: int) -> tuple[float, float]:
    """The same for the expected accuracy of label maps drawn from the policy, by the policy gradient."""
    logits, weights, target = unlikely_class(odds, 1)
    label_maps = every_label_map(weights)[None]  # (1, M, 1, N)
    scores = (label_maps == target).double().mean(dim=(2, 3), keepdim=True)
    loss, _ = policy_gradient(logits.T[None, :, None], label_maps, scores - scores.mean())
    (gradient,) = torch.autograd.grad(-loss, logits)
    return logits.softmax(dim=1)[0, 0].item(), gradient[0, 0].item()


def cross_entropy_gradient(odds: int) -> tuple[float, float]:
    """The same for cross-entropy."""
    logits, _, target = unlikely_class(odds, 1)
    (gradient,) = torch.autograd.grad(-torch.nn.functional.cross_entropy(logits, target), logits)
    return logits.softmax(dim=1)[0, 0].item(), gradient[0, 0].item()


@pytest.mark.parametrize("temperature", [1, 2])
@pytest.mark.parametrize("odds", [1, 7, 99])
def test_the_gradient_of_the_true_classs_logit_of_two_classes_in_closed_form(odds: int, temperature: int) -> None:
    p, gradient = likelihood_gradient(odds, temperature)
    q = 1 / (1 + odds)
    assert p == pytest.approx(1 / (1 + odds**temperature), rel=1e-12)
    assert gradient == pytest.approx(4 * q * (1 - q) * p * (1 - p) ** 2 / 2**2, rel=1e-9)


@pytest.mark.parametrize(
    ("gradient", "exponent"),
    [
        (lambda odds: likelihood_gradient(odds, 1), 2),
        (lambda odds: likelihood_gradient(odds, 2), 1.5),
        (reward_gradient, 1),
        (cross_entropy_gradient, 0),
    ],
    ids=["likelihood at temperature 1", "likelihood at temperature 2", "policy gradient", "cross-entropy"],
)
def test_an_unlikely_true_class_is_learned_as_fast_as_a_power_of_its_probability(
    gradient: Callable[[int], tuple[float, float]], exponent: float
) -> None:
    (p, small), (larger_p, larger) = gradient(999), gradient(499)
    assert np.log(larger / small) / np.log(larger_p / p) == pytest.approx(exponent, abs=0.01)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("pixel_accuracy", 0.0, 1e-14), ("mean_iou", 0.01, 0.06), ("mean_dice", 0.005, 0.03)],
)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pixels", [4, 6])
def test_a_calibrated_belief_stays_where_it_is_under_accuracies_and_nearly_so_under_class_means(
    pixels: int, seed: int, name: str, least: float, most: float
) -> None:
    # Targets are drawn from the belief itself; label maps uniformly. 1 is the gradient of a single target (rms).
    logits = torch.from_numpy(1.5 * np.random.default_rng(seed).normal(size=(pixels, 2))).requires_grad_()
    belief, weights = logits.softmax(dim=1), np.ones((pixels, 2), int)
    targets = every_label_map(weights)[:, 0].long()  # (T, N)
    probability = belief.detach()[torch.arange(pixels), targets].prod(dim=1)  # (T,)
    directions = expected_directions(name, belief.detach(), weights, targets)
    gradients = torch.stack(
        [torch.autograd.grad((direction * belief).sum(), logits, retain_graph=True)[0] for direction in directions]
    )
    expected = torch.einsum("t,tnc->nc", probability, gradients)
    single = torch.einsum("t,tnc->", probability, gradients.square()).sqrt()
    assert probability.sum().item() == pytest.approx(1)
    assert single > 1e-3
    assert least <= expected.norm() / single <= most


# Rounded scores


def test_with_many_stars_the_evidence_is_that_of_exact_scores() -> None:
    problem = draw_problem(2, (2, 3, 4, 5), 3, 4)
    exact = score_evidence(**problem, formula=KnownFormula("mean_iou"))
    rounded = problem | {"scores": (problem["scores"] * 1e5).round() / 1e5}
    fine = score_evidence(**rounded, formula=KnownFormula("mean_iou", 100_001), spread=0.1)
    assert_same_evidence(fine, exact, atol=1e-4)
    assert fine.reading.variance.item() == pytest.approx(exact.reading.variance.item(), abs=1e-5)
    assert exact.reading.variance.item() == pytest.approx(
        exact.reading.advantages[:2].square().mean().item(), rel=1e-12
    )


def test_stars_that_agree_with_the_prediction_teach_less_than_the_numbers_would() -> None:
    # A star more than another is a smaller surprise than the quarter between them.
    problem = draw_problem(4, (1, 0, 6, 6), 3, 4)
    problem["scores"] = torch.tensor([[0.25, 0.5, 0.5, 0.25]], dtype=torch.float64)
    as_numbers = score_evidence(**problem, formula=KnownFormula("mean_iou")).reading.advantages
    as_stars = score_evidence(**problem, formula=KnownFormula("mean_iou", 5), spread=0.05).reading.advantages
    assert as_stars.abs().max() < 0.8 * as_numbers.abs().max()
    assert (as_stars[0, 1:3].sum() > as_stars[0, [0, 3]].sum()).item()
