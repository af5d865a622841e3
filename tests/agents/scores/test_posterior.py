"""The belief that knows the scores: against a minimiser, and against the same steps in plain loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch

from agents.scores import posterior
from agents.scores.evidence import read_scores
from agents.scores.formulas import Formula, KnownFormula, UnknownFormula
from agents.scores.posterior import (
    ONE_CLASS,
    PIXELS_TOO,
    SHIFTS,
    Errors,
    Posterior,
    recall_belief,
    region_posterior,
)
from agents.scores.regions import Regions
from rss_env.rewards import score_images
from tests.agents.scores.oracle import draw_problem, predict

Move = Callable[..., Posterior]
ACCURACY, MEAN_IOU = KnownFormula("pixel_accuracy"), KnownFormula("mean_iou")


@pytest.fixture(autouse=True)
def nothing_pooled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The belief that is moved is the one that is given; what pooling does to it has tests of its own."""
    monkeypatch.setattr(posterior, "POOLED", 0.0)


@pytest.fixture(params=[SHIFTS, ONE_CLASS, PIXELS_TOO], ids=["shifts", "one class", "pixels too"])
def errors(request: pytest.FixtureRequest) -> Errors:
    """How the belief is taken to be wrong."""
    return request.param


@pytest.fixture
def move(errors: Errors) -> Move:
    """``region_posterior`` of a problem, its formula and what is changed of it."""

    def moved(problem: dict[str, Any], formula: Formula = MEAN_IOU, **changes: Any) -> Posterior:
        given = {"variances": alike(problem["regions"], errors), "errors": errors} | problem | changes
        return region_posterior(**given, formula=formula)

    return moved


def each_pixel(batch: int, height: int, width: int) -> Regions:
    """One division, of which every pixel is a region."""
    finest = torch.arange(height * width).view(height, width).expand(batch, -1, -1)
    return Regions(finest, torch.zeros(batch, 0, height * width, dtype=torch.long), (height * width,))


def some_regions(batch: int, height: int, width: int, counts: tuple[int, ...], seed: int = 0) -> Regions:
    """Divisions at random, another one for each image; a region need not have a pixel."""
    generator = torch.Generator().manual_seed(seed)
    finest = torch.randint(counts[0], (batch, height, width), generator=generator)
    parents: list[torch.Tensor] = []
    for finer, count in pairwise(counts):
        of_finer = torch.randint(count, (batch, finer), generator=generator)
        parents.append(of_finer.gather(1, parents[-1]) if parents else of_finer)
    coarser = torch.stack(parents, dim=1) if parents else torch.zeros(batch, 0, counts[0], dtype=torch.long)
    return Regions(finest, coarser, counts)


def alike(regions: Regions, errors: Errors, error: float = 0.1, offset: float = 0.1) -> torch.Tensor:
    """Variances that are the same for every division, and for pixels if they shift."""
    number = len(errors.variances(len(regions.counts))) - 2
    return torch.tensor([1.0] * number + [error, offset], dtype=torch.float64)


def draw(
    seed: int = 0,
    size: tuple[int, int, int, int] = (2, 3, 6, 7),  # B, earlier visits, H, W
    classes: int = 3,
    samples: int = 4,
    counts: tuple[int, ...] = (12, 5, 2),
) -> dict[str, Any]:
    """Arguments of ``region_posterior`` but for the formula: any belief, label maps, scores and regions."""
    problem = draw_problem(seed, size, classes, samples, torch.float32)
    batch, _, height, width = size
    regions = some_regions(batch, height, width, counts, seed)
    return problem | {"scores": problem["scores"].double(), "regions": regions}


def expect(problem: dict[str, Any], belief: torch.Tensor, formula: Formula = MEAN_IOU) -> torch.Tensor:
    """The scores (V, K) that a belief expects."""
    of_scores = {name: problem[name] for name in ("label_maps", "scores", "image", "fresh")}
    return read_scores(belief, **of_scores, formula=formula).prediction.mean.view_as(problem["scores"]).double()


def assert_close(one: torch.Tensor, other: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=atol, check_dtype=False)


# A minimiser


def likeliest(
    p: np.ndarray,
    shares: np.ndarray,
    divisions: list[np.ndarray],
    weights: list[float],
    scores: np.ndarray,
    variance: np.ndarray,
) -> tuple[np.ndarray, float]:
    """Minimises Σ_d ‖b_d‖² / w_d + (R − μ(q))ᵀ E⁻¹ (R − μ(q)) for log q_i = log p_i + Σ_d b_d(region of i) + constant.

    Args:
        p: (N, C).
        shares: (M, N, C), μ_k(q) = Σ_ic shares[k, i, c] q_i(c).
        divisions: the region of each pixel, (N,), for every division.
        weights: w of each division.
        scores: R, (M,).
        variance: E, (M, M).

    Returns:
        q, (N, C), and the greatest derivative that is left.
    """
    sizes = [int(of.max()) + 1 for of in divisions]
    log_p, given, observed = torch.from_numpy(np.log(p)), torch.from_numpy(shares), torch.from_numpy(scores)
    precision = torch.from_numpy(np.linalg.inv(variance))

    def belief(values: torch.Tensor) -> torch.Tensor:
        parts = values.view(-1, p.shape[1]).split(sizes)
        return (log_p + sum(part[torch.from_numpy(of)] for part, of in zip(parts, divisions, strict=True))).softmax(
            dim=1
        )

    def cost(values: np.ndarray) -> tuple[float, np.ndarray]:
        shifts = torch.from_numpy(values).requires_grad_()
        left = observed - torch.einsum("knc,nc->k", given, belief(shifts))
        parts = shifts.view(-1, p.shape[1]).split(sizes)
        total = sum(part.square().sum() / w for part, w in zip(parts, weights, strict=True)) + left @ precision @ left
        (gradient,) = torch.autograd.grad(total, shifts)
        return total.item(), gradient.numpy()

    start = np.zeros(sum(sizes) * p.shape[1])
    found = scipy.optimize.minimize(cost, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    return belief(torch.from_numpy(found.x)).numpy(), float(np.abs(cost(found.x)[1]).max())


@pytest.mark.parametrize("noise", [0.0, 4e-7])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("counts", [(5,), (8, 3, 1)])
def test_small_surprises_lead_to_the_likeliest_shifts(counts: tuple[int, ...], classes: int, noise: float) -> None:
    rng = np.random.default_rng(classes)
    regions = some_regions(1, 4, 6, counts, seed=3)
    finest = regions.finest[0].flatten().numpy()
    p = rng.dirichlet(np.ones(classes), counts[0])[finest]  # even within the finest regions
    label_maps = rng.integers(0, classes, (4, 24))
    shares = (label_maps[:, :, None] == np.arange(classes)) / 24
    residual = 0.001 * rng.normal(size=4)
    scores = (shares * p).sum(axis=(1, 2)) + residual
    visit, weights = np.array([0, 0, 1, 1]), [1.5, 0.5, 2.0][: len(counts)]
    left = max((residual**2).mean() - noise, 1e-3 * (residual**2).mean())
    variance = (noise + 0.2 * left) * np.eye(4) + 0.3 * left * (visit[:, None] == visit)
    divisions = [finest, *(parent.numpy()[finest] for parent in regions.parents[0])]
    q, slope = likeliest(p, shares, divisions, weights, scores, variance)
    assert slope < 1e-5
    found = region_posterior(
        torch.from_numpy(p.T.reshape(1, classes, 4, 6)).float(),
        torch.from_numpy(label_maps.reshape(2, 2, 4, 6)).to(torch.uint8),
        torch.from_numpy(scores).view(2, 2),
        torch.zeros(2, dtype=torch.long),
        1,
        ACCURACY,
        regions,
        torch.tensor([*weights, 0.2, 0.3], dtype=torch.float64),
        replace(SHIFTS, heat=1.0),
        noise=noise,
    )
    change = torch.from_numpy(q - p)
    assert change.abs().max() > 0.001
    assert_close(found.probabilities[0].flatten(1).T - torch.from_numpy(p), change, 0.02 * float(change.abs().max()))


def test_single_pixels_shift_to_where_is_likeliest_if_label_maps_have_nothing_in_common() -> None:
    # Of a belief without any preference among three classes two label maps say independent things if they agree on a
    # third of the pixels: what is left out of the covariance is 0 there.
    rng = np.random.default_rng(0)
    finest = rng.integers(0, 5, 24)
    regions = Regions(torch.from_numpy(finest).view(1, 4, 6), torch.zeros(1, 0, 5, dtype=torch.long), (5,))
    p = np.full((24, 3), 1 / 3)
    label_maps = rng.integers(0, 3, (2, 24))
    label_maps[1] = np.where(np.arange(24) % 3 == 0, label_maps[0], (label_maps[0] + rng.integers(1, 3, 24)) % 3)
    shares = (label_maps[:, :, None] == np.arange(3)) / 24
    residual = 0.001 * rng.normal(size=2)
    scores = (shares * p).sum(axis=(1, 2)) + residual
    left = (residual**2).mean()
    variance = left * (0.2 * np.eye(2) + 0.3)
    q, slope = likeliest(p, shares, [finest, np.arange(24)], [1.5, 6.0], scores, variance)
    assert slope < 1e-5
    found = region_posterior(
        torch.from_numpy(p.T.reshape(1, 3, 4, 6)).float(),
        torch.from_numpy(label_maps.reshape(1, 2, 4, 6)).to(torch.uint8),
        torch.from_numpy(scores).view(1, 2),
        torch.zeros(1, dtype=torch.long),
        1,
        ACCURACY,
        regions,
        torch.tensor([1.5, 6.0, 0.2, 0.3], dtype=torch.float64),
        replace(PIXELS_TOO, heat=1.0),
    )
    change = torch.from_numpy(q - p)
    within = change - torch.stack([change[finest == region].mean(dim=0) for region in finest])
    assert within.abs().max() > 0.2 * change.abs().max()  # pixels of a region move by themselves
    assert_close(found.probabilities[0].flatten(1).T - torch.from_numpy(p), change, 0.02 * float(change.abs().max()))


def least_divergence(
    p: np.ndarray, shares: np.ndarray, scores: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, float]:
    """Minimises Σ_i KL(q_i‖p_i) + ½ (R − μ(q))ᵀ E⁻¹ (R − μ(q)) for μ_k(q) = Σ_ic shares[k, i, c] q_i(c).

    Args:
        p: (N, C).
        shares: (M, N, C).
        scores: R, (M,).
        variance: E, (M, M).

    Returns:
        q, (N, C), and the greatest derivative that is left.
    """
    start, given, observed = np.log(p), torch.from_numpy(shares), torch.from_numpy(scores)
    precision, log_p = torch.from_numpy(np.linalg.inv(variance)), torch.from_numpy(start)

    def cost(values: np.ndarray) -> tuple[float, np.ndarray]:
        logits = torch.from_numpy(values.reshape(p.shape)).requires_grad_()
        log_q = logits.log_softmax(dim=1)
        left = observed - torch.einsum("knc,nc->k", given, log_q.exp())
        total = (log_q.exp() * (log_q - log_p)).sum() + left @ precision @ left / 2
        (gradient,) = torch.autograd.grad(total, logits)
        return total.item(), gradient.numpy().ravel()

    found = scipy.optimize.minimize(cost, start.ravel(), jac=True, method="BFGS", options={"gtol": 1e-9})
    q = np.exp(found.x.reshape(p.shape) - found.x.reshape(p.shape).max(axis=1, keepdims=True))
    return q / q.sum(axis=1, keepdims=True), float(np.abs(cost(found.x)[1]).max())


@pytest.mark.parametrize("classes", [2, 3])
def test_a_region_of_one_class_is_one_variable_whose_nearest_belief_explains_the_scores(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posterior, "STEPS", 25)
    rng = np.random.default_rng(classes)
    regions = some_regions(1, 4, 5, (5,), seed=3)
    pixels = regions.finest.flatten().numpy()  # the region of each
    p, of_regions = rng.dirichlet(np.ones(classes), 5), rng.integers(0, classes, (4, 5))
    size = np.bincount(pixels, minlength=5)
    shares = (of_regions[:, :, None] == np.arange(classes)) * size[:, None] / 20
    residual = 0.1 * rng.normal(size=4)
    scores = (shares * p).sum(axis=(1, 2)) + residual
    left = (residual**2).mean()
    q, slope = least_divergence(p, shares, scores, 0.03 * left * np.eye(4) + 0.02 * left)
    assert slope < 1e-6
    found = region_posterior(
        torch.from_numpy(p[pixels].T.reshape(1, classes, 4, 5)).float(),
        torch.from_numpy(of_regions[:, pixels].reshape(1, 4, 4, 5)).to(torch.uint8),
        torch.from_numpy(scores)[None],
        torch.zeros(1, dtype=torch.long),
        1,
        ACCURACY,
        regions,
        alike(regions, ONE_CLASS, error=0.03, offset=0.02),
        replace(ONE_CLASS, heat=1.0),
    )
    assert np.abs(q - p).max() > 0.1
    assert_close(found.probabilities[0].flatten(1).T, torch.from_numpy(q[pixels]), 2e-5)
    divergence = (q * np.log(q / p)).sum(axis=1)[pixels].mean()
    assert float(found.moved) == pytest.approx(divergence, rel=1e-3)


@pytest.mark.parametrize("name", ["mean_iou", "mean_dice", "pixel_accuracy"])
def test_in_the_end_the_belief_expects_the_scores_of_a_target(
    move: Move, errors: Errors, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posterior, "STEPS", 12)
    regions = each_pixel(2, 6, 7)
    errors = replace(errors, heat=1.0, pixels=0.0)  # every pixel is a region as it is
    problem = draw(0, (2, 2, 6, 7), samples=3) | {"regions": regions, "variances": alike(regions, errors, 1e-4, 1e-4)}
    targets = torch.randint(3, (2, 6, 7), generator=torch.Generator().manual_seed(5)).numpy()
    shown = targets[problem["image"]][:, None].repeat(3, axis=1)
    for v in range(4):
        scores = score_images(name, problem["label_maps"][v][None].numpy(), shown[v][:1], 3)
        problem["scores"][v] = torch.from_numpy(scores[0])
    formula = KnownFormula(name)
    found = move(problem, formula, errors=errors)
    before = problem["scores"] - expect(problem, problem["probabilities"], formula)
    after = problem["scores"] - expect(problem, found.probabilities, formula)
    assert_close(found.reading.residual, before[: problem["fresh"]], 1e-12)
    assert before.abs().max() > 0.05
    assert after.square().mean().sqrt() < 0.02 * before.square().mean().sqrt()


# The same, slowly


def in_plain_loops(
    name: str, problem: dict[str, Any], errors: Errors, b: int, steps: int, noise: float
) -> torch.Tensor:
    """The belief about image b after some steps, (C, H, W), in float64; every region of every division by itself."""
    known = problem["probabilities"][b].double().clamp(min=posterior.LEAST).log()
    finest, parents = problem["regions"].finest[b], problem["regions"].parents[b]
    for region in finest.unique():
        inside = finest == region
        mean = known[:, inside].mean(dim=1, keepdim=True)
        if not errors.pixels:
            known[:, inside] += posterior.POOLED * (mean - known[:, inside])
    p = (known / errors.heat).softmax(dim=0)
    divisions = [finest, *(parent[finest] for parent in parents)]  # the region of each pixel
    *weights, error, offset = problem["variances"].tolist()
    of_pixels = weights.pop() if errors.pixels else 0.0
    visits = [v for v in range(len(problem["image"])) if problem["image"][v] == b]
    told = [(v, k) for v in visits for k in range(problem["scores"].shape[1])]
    observed = torch.stack([problem["scores"][v, k] for v, k in told])
    q, alpha, shift, variance = p, torch.zeros(len(told)).double(), torch.zeros_like(p), torch.zeros(0)

    for step in range(steps):
        # Predicted with each pixel as likely as before plus the change of the mean of its region.
        belief = p.clone()
        for region in finest.unique():
            inside = finest == region
            belief[:, inside] += (q[:, inside].mean(dim=1) - p[:, inside].mean(dim=1))[:, None]
        belief.requires_grad_()
        expected = torch.stack([predict(name, belief, problem["label_maps"][v, k]) for v, k in told])
        slopes = [torch.autograd.grad(mean, belief, retain_graph=True)[0] for mean in expected]  # (C, H, W) each
        residual = observed - expected.detach()
        if step == 0:
            left = max(residual.square().mean() - noise, 1e-3 * residual.square().mean())
            variance = torch.zeros(len(told), len(told), dtype=torch.float64)
            for i, (v, _) in enumerate(told):
                for j, (w, _) in enumerate(told):
                    variance[i, j] = (noise + error * left) * (i == j) + offset * left * (v == w)
                # What the target's size changes of a score is left out where the variance of its pixels is counted.
                slope = slopes[i] - other_slopes(name, belief, problem["label_maps"][told[i]])
                variance[i, i] += of_pixels * (p * (slope - (p * slope).sum(dim=0))).square().sum()

        of_finest = {}  # what a shift of a class in a finest region changes of the scores, (M, C)
        for region in finest.unique().tolist():
            inside = finest == region
            chance = q[:, inside].mean(dim=1)
            summed = torch.stack([slope[:, inside].sum(dim=1) for slope in slopes])
            of_finest[region] = chance * (summed - (summed @ chance)[:, None])
        covariance = torch.zeros_like(variance)
        features = torch.zeros(len(told), *p.shape, dtype=torch.float64)
        for division, weight in zip(divisions, weights, strict=True):
            for region in division.unique():
                inside = division == region
                if errors.of_one_class:
                    chance = q[:, inside].mean(dim=1)
                    moves = torch.stack([slope[:, inside].sum(dim=1) for slope in slopes])  # (M, C)
                    moves = moves - (moves @ chance)[:, None]
                    covariance += weight * torch.einsum("kc,jc,c->kj", moves, moves, chance)
                else:
                    moves = torch.stack([of_finest[part] for part in finest[inside].unique().tolist()]).sum(dim=0)
                    covariance += weight * moves @ moves.T
                features[:, :, inside] += weight * moves[:, :, None]
        found = torch.linalg.solve(covariance + variance, residual - variance @ alpha)
        moved = torch.einsum("k,kchw->chw", found, features)
        moved = moved - moved.mean(dim=0)
        part = min(1.0, posterior.LONGEST / float(moved.abs().max()))
        alpha = alpha + part * found
        shift = (shift + part * moved).clamp(-posterior.SUREST, posterior.SUREST)
        q = (p.log() + shift).softmax(dim=0)
    for k, slope in enumerate(slopes):
        single = p * (slope - (p * slope).sum(dim=0))
        shift = shift + of_pixels * alpha[k] * (single - single.mean(dim=0))
    return (known + errors.heat * shift).softmax(dim=0)


def other_slopes(name: str, belief: torch.Tensor, label_map: torch.Tensor) -> torch.Tensor:
    """What of a score's derivatives comes from the size of the target: those of classes not given to a pixel."""
    (slopes,) = torch.autograd.grad(predict(name, belief, label_map), belief)
    of_class = [slopes[c][label_map != c] for c in range(len(belief))]
    return torch.stack([of[0] if len(of) else slopes.new_zeros(()) for of in of_class])[:, None, None]


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "counts", "classes", "noise"),
    [
        ("mean_iou", (12, 5, 2), 3, 0.0),
        ("mean_iou", (12,), 5, 0.002),
        ("mean_dice", (9, 4), 2, 0.01),
        ("pixel_accuracy", (12, 5, 2, 1), 4, 0.0),
    ],
)
def test_it_is_that_of_plain_loops(
    move: Move,
    errors: Errors,
    name: str,
    counts: tuple[int, ...],
    classes: int,
    noise: float,
    steps: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(posterior, "STEPS", steps)
    monkeypatch.setattr(posterior, "POOLED", 0.4)
    problem = draw(2, (2, 3, 6, 7), classes, 3, counts)
    number = len(errors.variances(len(counts)))
    problem["variances"] = torch.rand(number, generator=torch.Generator().manual_seed(steps)).double() + 0.05
    problem["image"] = torch.tensor([0, 1, 1, 1, 1])  # of the first image there is no earlier visit
    found = move(problem, KnownFormula(name), noise=noise).probabilities
    for b in range(2):
        expected = in_plain_loops(name, problem, errors, b, steps, noise)
        # Without pooling, and with pixels that count as error, label maps at random move less.
        least = 0.002 if errors.pixels else 0.05
        assert (expected - problem["probabilities"][b]).abs().max() > least
        assert_close(found[b], expected, 1e-5 if errors.pixels else 1e-4)


# What does not matter


@pytest.mark.parametrize("numbers", [1, 1 << 20], ids=["one by one", "together"])
def test_of_settled_images_a_second_step_is_made_if_the_first_one_moved_far(
    move: Move, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posterior, "NUMBERS", numbers)
    problem = draw(3)
    beliefs = []
    for steps in (1, 2):
        monkeypatch.setattr(posterior, "STEPS", steps)
        beliefs.append(move(problem).probabilities)
    once, twice = beliefs
    assert (once != twice).flatten(1).any(dim=1).all()
    monkeypatch.setattr(posterior, "FAR", 1e9)
    assert_close(move(problem).probabilities, twice, atol=0)  # none is settled
    for settled in ([True, True], [True, False], [False, True]):
        for of, one, two, done in zip(move(problem, settled=settled).probabilities, once, twice, settled, strict=True):
            assert_close(of, one if done else two, atol=0)
    found = set()
    for far in np.geomspace(1e-3, 30, 60):
        monkeypatch.setattr(posterior, "FAR", float(far))
        now = move(problem, settled=[True, True]).probabilities
        second = [bool((of == two).all()) for of, two in zip(now, twice, strict=True)]
        for of, one, two, moved in zip(now, once, twice, second, strict=True):
            assert_close(of, two if moved else one, atol=0)
        found.add(tuple(second))
    assert len(found) == 3  # both images, one of them, none


@pytest.mark.parametrize("numbers", [1, 1 << 20], ids=["one by one", "together"])
@pytest.mark.parametrize("formula", [MEAN_IOU, UnknownFormula(3)], ids=["known", "unknown"])
def test_every_image_has_the_posterior_that_it_has_alone(
    move: Move, formula: Formula, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posterior, "NUMBERS", numbers)
    problem = draw(3, (4, 5, 6, 7))
    problem["image"] = torch.tensor([0, 1, 2, 3, 3, 1, 3, 3, 1])
    found = move(problem, formula)
    together, statistics = found.probabilities, torch.zeros_like(found.statistics)
    for b in range(4):
        mine = problem["image"] == b
        own = {name: problem[name][mine] for name in ("label_maps", "scores")}
        own |= {"probabilities": problem["probabilities"][b : b + 1], "regions": problem["regions"][[b]]}
        alone = move(problem, formula, **own, image=torch.zeros(int(mine.sum()), dtype=torch.long), fresh=1)
        assert (alone.probabilities - own["probabilities"]).abs().max() > 0.05
        assert_close(together[b], alone.probabilities[0], 1e-5)
        statistics += alone.statistics
    torch.testing.assert_close(move(problem, formula).statistics, statistics, rtol=1e-4, atol=1e-6)


def test_the_order_of_visits_and_of_label_maps_does_not_matter(move: Move) -> None:
    problem = draw(4, (2, 4, 6, 7))
    order, samples = torch.tensor([1, 0, 4, 2, 5, 3]), torch.tensor([2, 0, 3, 1])
    changed = {name: problem[name][order][:, samples] for name in ("label_maps", "scores")}
    again = move(problem, image=problem["image"][order], **changed)
    assert_close(again.probabilities, move(problem).probabilities, 1e-5)


def test_an_unknown_formula_cares_neither_for_the_level_nor_for_the_unit_of_the_scores(move: Move) -> None:
    problem = draw(5)
    shifts = torch.tensor([[0.3], [-2.0], [0.0], [5.0], [0.1]]).double()
    plain = move(problem, UnknownFormula(3)).probabilities
    assert (plain - problem["probabilities"]).abs().max() > 0.05
    assert_close(move(problem, UnknownFormula(3), scores=3 * problem["scores"] + shifts).probabilities, plain)
    known = move(problem).probabilities
    assert (move(problem, scores=problem["scores"] + 0.3).probabilities - known).abs().max() > 0.01


def test_no_gradient_flows_into_the_belief(move: Move) -> None:
    problem = draw()
    problem["probabilities"].requires_grad_()
    found = move(problem)
    assert not found.probabilities.requires_grad
    assert not found.moved.requires_grad


# What the scores are worth


def test_scores_of_much_noise_hardly_move_the_belief(move: Move) -> None:
    problem = draw(6)
    moved = [float(move(problem, noise=noise).moved) for noise in (0.0, 0.01, 1.0, 1e4)]
    assert moved == sorted(moved, reverse=True)
    assert moved[0] > 1e-3
    assert moved[-1] < 1e-4 * moved[0]


def test_a_label_map_scored_again_and_again_is_one_whose_error_is_averaged(move: Move, errors: Errors) -> None:
    problem = draw(7, (1, 0, 6, 7), samples=2)
    repeated = {name: problem[name].repeat_interleave(4, dim=1) for name in ("label_maps", "scores")}
    errors = replace(errors, pixels=0.0)  # of pixels, what two scores have in common is left out
    of_error = {
        error: {"errors": errors, "variances": alike(problem["regions"], errors, error)} for error in (0.1, 0.4)
    }
    four, one = move(problem, **repeated, **of_error[0.4]), move(problem, **of_error[0.4])
    averaged = move(problem, **of_error[0.1])
    assert_close(four.probabilities, averaged.probabilities)
    assert four.moved > 1.01 * one.moved


@pytest.mark.parametrize("miss", [0.0, 1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize(("samples", "earlier"), [(2, 2), (8, 16), (32, 16)])
def test_scores_that_the_belief_explains_leave_it_as_it_is(
    move: Move, errors: Errors, samples: int, earlier: int, miss: float
) -> None:
    problem = draw(8, (2, earlier, 12, 16), samples=samples)
    problem["scores"] = expect(problem, (problem["probabilities"].log() / errors.heat).softmax(dim=1))
    problem["scores"] += miss * torch.from_numpy(np.random.default_rng(0).normal(size=problem["scores"].shape))
    found = move(problem)
    assert found.probabilities.isfinite().all()
    assert found.moved < 1e-7 + 3 * miss


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.3])
def test_a_star_says_nothing_where_it_was_expected_and_much_where_it_was_not(move: Move, spread: float) -> None:
    stars, problem = KnownFormula("pixel_accuracy", stars=5), draw(9, (1, 0, 6, 7), 4)
    problem["probabilities"][:] = 0.25  # of all label maps a quarter is expected, which is one of the levels
    expected = move(problem, stars, scores=torch.full((1, 4), 0.25).double(), spread=spread)
    assert expected.moved.abs() < 1e-9
    surprised = move(problem, stars, scores=torch.tensor([[0.25, 1.0, 0.25, 0.25]]).double(), spread=spread)
    assert surprised.moved > 0.01
    gained = expect(problem, surprised.probabilities, stars)[0] - 0.25
    assert gained[1] > 0.05
    assert gained.argmax() == 1


def test_pixels_of_regions_that_no_label_map_varies_keep_their_belief(move: Move) -> None:
    # A unit more of a class means as much wherever a label map says so; where all say the same, of accuracies compared
    # within their visit, nothing is learned.
    problem = draw(10, (1, 0, 6, 7), samples=4, counts=(2,))
    regions = Regions((torch.arange(42).view(1, 6, 7) >= 21).long(), torch.zeros(1, 0, 2, dtype=torch.long), (2,))
    still = regions.finest[0] == 0
    problem["label_maps"][:, :, still] = 1
    accuracy = UnknownFormula(3)
    accuracy.name = "pixel_accuracy"
    found = move(problem | {"regions": regions}, accuracy).probabilities - problem["probabilities"]
    assert found[0][:, still].abs().max() < 2e-3
    assert found[0][:, ~still].abs().max() > 0.05


@pytest.mark.parametrize("formula", ["mean_iou", "pixel_accuracy", "unknown", "stars"])
@pytest.mark.parametrize("one_hot", [False, True], ids=["any belief", "a belief without doubt"])
@pytest.mark.parametrize(("classes", "samples", "earlier"), [(2, 2, 0), (21, 2, 3), (3, 1, 0), (3, 1, 4), (2, 6, 2)])
def test_it_is_a_finite_belief(
    move: Move, classes: int, samples: int, earlier: int, one_hot: bool, formula: str
) -> None:
    samples = max(samples, 2 if formula == "unknown" else 1)  # one score is not compared with anything
    problem = draw(11, (2, earlier, 6, 7), classes, samples)
    if one_hot:
        best = problem["probabilities"].argmax(dim=1)
        problem["probabilities"] = torch.nn.functional.one_hot(best, classes).permute(0, 3, 1, 2).float()
    if formula == "stars":
        problem["scores"] = (4 * problem["scores"]).round() / 4
    given: dict[str, Formula] = {"unknown": UnknownFormula(classes), "stars": KnownFormula("mean_iou", stars=5)}
    found = move(problem, given.get(formula) or KnownFormula(formula))
    assert found.probabilities.isfinite().all()
    assert (found.probabilities >= 0).all()
    assert_close(found.probabilities.sum(dim=1), torch.ones(2, 6, 7))
    assert -classes * posterior.LEAST < float(found.moved) < 2 * posterior.SUREST - np.log(posterior.LEAST)


@pytest.mark.parametrize("formula", [MEAN_IOU, UnknownFormula(3)], ids=["known", "unknown"])
def test_a_visit_whose_scores_are_all_equal_says_nothing(move: Move, formula: Formula) -> None:
    # So is one of an image of which every pixel is ignored.
    problem = draw(12, (2, 4, 6, 7))
    problem["image"] = torch.tensor([0, 1, 1, 1, 1, 1])
    problem["scores"][[0, 3]] = 0.0
    found = move(problem, formula).probabilities
    assert_close(found[0], problem["probabilities"][0])
    kept = torch.tensor([0, 1, 2, 4, 5])
    without = move(problem, formula, **{name: problem[name][kept] for name in ("label_maps", "scores", "image")})
    assert (found[1] - problem["probabilities"][1]).abs().max() > 0.05
    assert_close(found[1], without.probabilities[1])


def test_stars_that_are_all_equal_tell_the_level(move: Move) -> None:
    problem = draw(13, (1, 0, 6, 7), samples=4)
    found = move(problem, KnownFormula("mean_iou", stars=5), scores=torch.full((1, 4), 0.75).double(), spread=0.1)
    assert (expect(problem, found.probabilities) > expect(problem, problem["probabilities"])).all()
    assert found.moved > 1e-3


def test_a_belief_that_is_not_finite_gives_one_that_is_not(move: Move) -> None:
    problem = draw(14)
    problem["probabilities"][1] = torch.nan
    found = move(problem)
    assert found.probabilities[0].isfinite().all()
    assert found.probabilities[1].isnan().all()
    first = problem["image"] == 0
    own = {name: problem[name][first] for name in ("label_maps", "scores", "image")}
    own |= {"probabilities": problem["probabilities"][:1], "regions": problem["regions"][[0]], "fresh": 1}
    torch.testing.assert_close(found.statistics, move(problem, **own).statistics)  # the other one counts nothing


# Pooling


@pytest.mark.parametrize("pooled", [0.25, 1.0])
def test_a_region_shares_what_its_pixels_say_where_scores_say_nothing(
    move: Move, errors: Errors, pooled: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posterior, "POOLED", pooled)
    problem = draw(15)
    pooled = 0.0 if errors.pixels else pooled
    problem["scores"][:] = 0.0  # all scores of a visit are equal
    found = move(problem).probabilities
    for b in range(2):
        belief, finest = problem["probabilities"][b].double(), problem["regions"].finest[b]
        expected = torch.zeros_like(belief)
        for row, column in np.ndindex(6, 7):
            inside = finest == finest[row, column]
            shared = belief[:, inside].log().mean(dim=1)
            expected[:, row, column] = ((1 - pooled) * belief[:, row, column].log() + pooled * shared).softmax(dim=0)
        assert_close(found[b], expected)
        assert ((expected - belief).abs().max() > 0.05) == (pooled > 0)


def test_what_was_moved_counts_what_was_pooled(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posterior, "POOLED", 0.5)
    problem = draw(16)
    found = move(problem)
    q, p = found.probabilities.double(), problem["probabilities"].double()
    assert float(found.moved) == pytest.approx(float((q * (q / p).log()).sum(dim=1).mean()), rel=1e-4)


def test_the_statistics_are_those_of_the_residuals_covariance(move: Move, errors: Errors) -> None:
    # Of one visit of one image in one division.
    problem = draw(17, (1, 0, 6, 7), samples=4, counts=(5,))
    problem["regions"] = problem["regions"][[0]]
    hot = (problem["probabilities"].log() / errors.heat).softmax(dim=1)
    residual = (problem["scores"] - expect(problem, hot))[0]
    left = residual.square().mean()

    def statistics(weight: float, error: float, offset: float) -> torch.Tensor:
        given = torch.tensor([weight] + [1e-12] * (errors.pixels > 0) + [error, offset], dtype=torch.float64)
        return move(problem, variances=given).statistics

    identity, ones = torch.eye(4).double(), torch.ones(4, 4).double()
    # Where the diagonal is all there is, the residuals are seen as it divides them.
    seen, expected = statistics(1e-12, 1e6, 1e-12)
    assert float(seen[-2]) == pytest.approx(float(residual.square().sum() / (1e6 * left)), rel=1e-6)
    assert float(expected[-2]) == pytest.approx(4.0, rel=1e-6)
    # In any case the parts make up the whole: Σ tr K⁻¹(v G) = M, but for rounding, and Σ rᵀK⁻¹(v G)K⁻¹r = rᵀK⁻¹r.
    seen, expected = statistics(0.7, 0.2, 0.3)
    assert float(expected.sum()) == pytest.approx(4.0, rel=1e-3)
    noise = 0.2 * left * identity + 0.3 * left * ones
    assert float(seen.sum()) < float(residual @ torch.linalg.solve(noise, residual))


# What was believed last time


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.8])
def test_a_recalled_belief_is_the_geometric_mean_with_what_is_remembered(weight: float) -> None:
    generator = torch.Generator().manual_seed(1)
    now, before = (torch.randn(3, 3, 5, 6, generator=generator).softmax(dim=1) for _ in range(2))
    remembered = [before[0].log().half(), None, before[2].log().half()]
    got = recall_belief(now, remembered, [weight, 0.9, weight / 2], each_pixel(3, 5, 6))
    for b, part in ((0, weight), (1, 0.0), (2, weight / 2)):
        expected = now[b] ** (1 - part) * before[b] ** part
        assert_close(got[b], expected / expected.sum(dim=0), atol=1e-3)  # of half precision
    sure = torch.zeros(1, 3, 5, 6)
    sure[:, 1] = 1.0
    kept = [sure[0].clamp(min=posterior.LEAST).log().half()]
    assert_close(recall_belief(sure, kept, [weight], each_pixel(1, 5, 6)), sure)


def test_what_is_recalled_is_not_pooled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posterior, "POOLED", 0.3)
    generator = torch.Generator().manual_seed(2)
    now, before = (torch.randn(2, 3, 5, 6, generator=generator).log_softmax(dim=1) for _ in range(2))
    regions = some_regions(2, 5, 6, (4, 2))
    got = recall_belief(now.exp(), [before[0], None], [0.6, 0.6], regions)
    pooled = 0.7 * now + 0.3 * regions.means(now)
    assert_close(got[0], (0.4 * pooled[0] + 0.6 * before[0]).softmax(dim=0))
    assert_close(got[1], pooled[1].softmax(dim=0))
