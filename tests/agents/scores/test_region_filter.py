"""The sums over an image's scores: what they are, that nothing counts twice, and the belief that they lead to."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch

from agents.scores import region_filter
from agents.scores.formulas import KnownFormula
from agents.scores.posterior import Posterior
from agents.scores.region_filter import RegionFilter, Sums, filtered_posterior, sums_bytes, visit_sums
from agents.scores.regions import make_regions
from rss_env.rewards import score_images

ACCURACY, MEAN_IOU = KnownFormula("pixel_accuracy"), KnownFormula("mean_iou")
CPU = torch.device("cpu")


def some_sums(batch: int, pairs: int, scores: int, seed: int = 0) -> Sums:
    """Sums of scores with random derivatives."""
    rng = torch.Generator().manual_seed(seed)
    features, observed = torch.randn(batch, scores, pairs, generator=rng), torch.randn(batch, scores, generator=rng)
    sums = torch.bmm(features.transpose(1, 2), torch.cat([features, observed[..., None]], dim=2))
    return Sums(sums[..., :-1], sums[..., -1], torch.zeros(batch, pairs), torch.ones(batch, dtype=torch.int64))


def some_shares(batch: int, classes: int, regions: int, seed: int = 0) -> torch.Tensor:
    """Shares of classes in regions, (B, C, S)."""
    return (1.5 * torch.randn(batch, classes, regions, generator=torch.Generator().manual_seed(seed))).softmax(dim=1)


class Images:
    """Two images whose regions are of one class each, and scores of label maps of theirs.

    Args:
        formula: of the scores.
        noise: standard deviation.
    """

    def __init__(self, formula: KnownFormula, noise: float = 0.05, seed: int = 0) -> None:
        self.formula, self.noise, self.rng = formula, noise, torch.Generator().manual_seed(seed)
        images = torch.randint(256, (2, 24, 30, 3), dtype=torch.uint8, generator=self.rng)
        self.regions = make_regions(images, [3.0, 6.0]).division(1)
        self.target = self.in_regions(3, 1)[:, 0]
        self.policy = (0.3 * torch.randn(2, 3, 24, 30, generator=self.rng)).softmax(dim=1)

    def in_regions(self, classes: int, samples: int) -> torch.Tensor:
        """Label maps (2, K, H, W) of one class in every region."""
        drawn = torch.randint(classes, (2, samples, *self.regions.counts), generator=self.rng, dtype=torch.uint8)
        of_pixels = self.regions.finest.flatten(1)[:, None].expand(-1, samples, -1)
        return drawn.gather(2, of_pixels).unflatten(2, self.regions.finest.shape[1:])

    def visit(self, known: RegionFilter, samples: int = 16, index: tuple[int, int] = (4, 7)) -> tuple[Posterior, int]:
        """Scores label maps of both."""
        maps = self.in_regions(3, samples)
        scores = torch.from_numpy(score_images(self.formula.name, maps.numpy(), self.target.numpy(), 3)).double()
        scores = scores + self.noise * torch.randn(scores.shape, generator=self.rng, dtype=torch.float64)
        if self.formula.levels is not None:
            scores = (4 * scores).round() / 4
        given = self.policy, maps, scores, index, self.formula, self.regions, known
        return filtered_posterior(*given, spread=0.1, noise=self.noise**2)

    def right(self, belief: torch.Tensor) -> float:
        """Share of the pixels whose likeliest class is right."""
        return float((belief.argmax(dim=1) == self.target).double().mean())


@pytest.mark.parametrize("scores", [3, 400], ids=["few scores", "many"])
def test_the_belief_is_the_smallest_change_that_explains_the_sums(scores: int) -> None:
    shares, sums = some_shares(2, 3, 4), some_sums(2, 12, scores)
    for _ in range(60):
        sums.shift = region_filter._solve(shares, sums)
    found = region_filter._believed(shares, sums.shift)[1].double().flatten(1)

    def cost(logits: torch.Tensor, b: int) -> torch.Tensor:
        z = logits.view(3, 4).softmax(dim=0)
        divergence = (z * (z.log() - shares[b].double().log())).sum()
        z = z.flatten()
        return divergence + z @ sums.precision[b].double() @ z / 2 - sums.vector[b].double() @ z

    for b in range(2):

        def value_and_gradient(at: np.ndarray, b: int = b) -> tuple[float, np.ndarray]:
            logits = torch.from_numpy(at).requires_grad_()
            value = cost(logits, b)
            value.backward()
            assert logits.grad is not None
            return float(value.detach()), logits.grad.numpy()

        best = min(
            scipy.optimize.minimize(value_and_gradient, start, jac=True, tol=1e-12).fun
            for start in (np.zeros(12), np.random.default_rng(b).normal(size=12))
        )
        assert float(cost(found[b].log(), b)) == pytest.approx(best, abs=1e-3 * max(1.0, abs(best)))


def test_no_step_makes_the_belief_worse() -> None:
    shares, sums = some_shares(8, 5, 6), some_sums(8, 30, 2000)
    sums.precision, sums.vector = 100 * sums.precision, 100 * sums.vector  # much more than the shares say
    costs = [region_filter._cost(shares, sums, sums.shift)]
    for _ in range(20):
        sums.shift = region_filter._solve(shares, sums)
        costs.append(region_filter._cost(shares, sums, sums.shift))
    for before, after in pairwise(costs):
        assert (after <= before + 1e-5 * before.abs()).all()
    assert (costs[-1] < costs[0]).all()


def test_the_variance_of_a_score_is_that_of_the_posterior() -> None:
    z, sums = some_shares(2, 3, 4), some_sums(2, 12, 5)
    features = torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(5))
    found = region_filter._variance(z, sums, features)
    for b in range(2):
        prior = torch.zeros(3, 4, 3, 4)
        for s in range(4):
            prior[:, s, :, s] = torch.diag(z[b, :, s]) - torch.outer(z[b, :, s], z[b, :, s])
        prior = prior.reshape(12, 12)
        posterior = prior - prior @ sums.precision[b] @ torch.linalg.solve(
            torch.eye(12) + prior @ sums.precision[b], prior
        )
        expected = torch.stack([f @ posterior @ f for f in features[b]])
        torch.testing.assert_close(found[b], expected, rtol=2e-3, atol=1e-4)


def test_the_offset_of_a_visit_is_integrated_out() -> None:
    rng = torch.Generator().manual_seed(0)
    features, observed = torch.randn(2, 5, 7, generator=rng), torch.randn(2, 5, generator=rng)
    variance = torch.rand(2, 5, generator=rng) * 1e-3 + 1e-4
    precision, vector = visit_sums(features, observed, variance)
    for b in range(2):
        inverse = (torch.diag(variance[b]) + region_filter.OFFSET**2).double().inverse()
        f = features[b].double()
        torch.testing.assert_close(precision[b].double(), f.T @ inverse @ f, rtol=1e-3, atol=1e-1)
        torch.testing.assert_close(vector[b].double(), f.T @ inverse @ observed[b].double(), rtol=1e-3, atol=1e-1)


@pytest.mark.parametrize("formula", [ACCURACY, MEAN_IOU], ids=["accuracy", "mean IoU"])
def test_features_are_what_the_shares_change_of_the_expected_score(formula: KnownFormula) -> None:
    images = Images(formula)
    maps = images.in_regions(3, 6)
    shares = images.regions.sums(images.policy) / images.regions.sizes.clamp(min=1)
    change = torch.randn(shares.shape, generator=torch.Generator().manual_seed(0))
    change = 2e-3 * (change - change.mean(dim=1, keepdim=True))
    given = images.policy, shares

    def linear(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return region_filter._linear(*given, z, maps, formula, images.regions)

    (features, mean), (_, after), (_, before) = linear(shares), linear(shares + change), linear(shares - change)
    expected = torch.bmm(features, change.flatten(1)[..., None])[..., 0]
    torch.testing.assert_close((after - before) / 2, expected, rtol=0.02, atol=2e-6)
    owner = torch.arange(2).repeat_interleave(6)
    right = images.policy[owner].gather(1, maps.flatten(0, 1)[:, None].long()).mean(dim=(1, 2, 3)).view(2, 6)
    if formula is ACCURACY:  # what a belief expects of its own label maps
        torch.testing.assert_close(mean, right)


def test_of_a_linear_score_the_sums_do_not_depend_on_the_order_of_the_visits() -> None:
    images = Images(ACCURACY)
    maps, scores = images.in_regions(3, 12), torch.rand(2, 12, generator=images.rng, dtype=torch.float64)
    found = []
    for order in ((0, 1, 2), (2, 0, 1)):
        known = RegionFilter(10.0)
        for part in order:
            some = slice(4 * part, 4 * part + 4)
            given = images.policy, maps[:, some], scores[:, some], (4, 7), ACCURACY, images.regions, known
            filtered_posterior(*given, spread=0.1, noise=1e-3)
        found.append(known.recall((4, 7), 3 * images.regions.counts[0], CPU))
    torch.testing.assert_close(found[0].precision, found[1].precision)
    torch.testing.assert_close(found[0].vector, found[1].vector, rtol=1e-4, atol=1e-2)
    assert found[0].visits.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("formula", "noise"),
    [(ACCURACY, 0.05), (MEAN_IOU, 0.05), (KnownFormula("mean_iou", stars=5), 0.0)],
    ids=["accuracy", "mean IoU", "stars"],
)
def test_scores_that_tell_next_to_nothing_are_enough_if_there_are_many(formula: KnownFormula, noise: float) -> None:
    images, known = Images(formula, noise), RegionFilter(10.0)
    right = []
    for visit in range(40):
        belief, visits = images.visit(known)
        assert visits == 2 * (visit + 1)
        right.append(images.right(belief.probabilities))
    assert right[0] < 0.8
    assert min(right[-5:]) > 0.95


def test_an_image_that_is_there_twice_is_counted_twice() -> None:
    known = RegionFilter(10.0)
    precision, vector = torch.eye(6).expand(3, -1, -1), torch.arange(18.0).view(3, 6)
    known.add([5, 2, 5], precision, vector)
    sums = known.recall([2, 5, 9], 6, CPU)
    torch.testing.assert_close(sums.precision, torch.stack([torch.eye(6), 2 * torch.eye(6), torch.zeros(6, 6)]))
    torch.testing.assert_close(sums.vector, torch.stack([vector[1], vector[0] + vector[2], torch.zeros(6)]))
    assert sums.visits.tolist() == [1, 2, 0]


def test_when_full_the_image_that_was_seen_longest_ago_goes() -> None:
    known = RegionFilter(2.5 * sums_bytes(6) / 1e6)
    assert known.fits(6) == 2
    for i in (1, 2, 1, 3):
        known.add([i], torch.eye(6)[None], torch.ones(1, 6))
        known.remember([i], torch.zeros(1, 6))
    assert known.recall([1, 2, 3], 6, CPU).visits.tolist() == [2, 0, 1]


def test_what_is_forgotten_after_a_visit_counts_in_it() -> None:
    found = []
    for megabytes in (0.0, 10.0):
        images, known = Images(ACCURACY), RegionFilter(megabytes)
        found.append(images.visit(known)[0].probabilities)
        assert len(known) == (2 if megabytes else 0)
    assert torch.equal(found[0], found[1])


def test_the_sums_are_symmetric_so_that_half_of_them_is_enough() -> None:
    images, known = Images(MEAN_IOU), RegionFilter(10.0)
    for _ in range(3):
        images.visit(known)
    pairs = 3 * images.regions.counts[0]
    sums, again = known.recall((4, 7), pairs, CPU), RegionFilter(10.0)
    again.load_state_dict(known.state_dict(), pairs)
    assert torch.equal(again.recall((4, 7), pairs, CPU).precision, sums.precision)


def test_a_shift_that_is_not_finite_is_not_gone_on_from() -> None:
    known = RegionFilter(1.0)
    known.add([1, 2], torch.eye(6).expand(2, -1, -1), torch.ones(2, 6))
    known.remember([1, 2, 3], torch.tensor([[1.0] * 6, [torch.nan] * 6, [1.0] * 6]))
    assert known.recall([1, 2], 6, CPU).shift.sum(dim=1).tolist() == [6.0, 0.0]
    assert len(known) == 2


def state(visits: dict[int, int], pairs: int = 6) -> dict[str, Any]:
    """Of images that were visited so often, each visit a multiple of the index."""
    known = RegionFilter(1.0)
    for i, many in visits.items():
        for _ in range(many):
            matrix = i * (torch.arange(1.0, pairs + 1)[:, None] + torch.arange(1.0, pairs + 1))
            known.add([i], matrix[None], torch.full((1, pairs), float(i)))
    known.remember(list(visits), torch.ones(len(visits), pairs))
    return known.state_dict()


def test_what_two_processes_know_is_put_together_and_nothing_counts_twice() -> None:
    known = RegionFilter(1.0)
    for of in (state({1: 3, 2: 1}), state({2: 4, 3: 1}), state({1: 2}), {}):
        known.load_state_dict(of, 6)
    sums = known.recall([1, 2, 3], 6, CPU)
    assert sums.visits.tolist() == [3, 4, 1]
    assert sums.vector[:, 0].tolist() == [3.0, 8.0, 3.0]
    assert sums.shift.sum().item() == 18.0
    torch.testing.assert_close(sums.precision, sums.precision.transpose(1, 2))
    assert sums.precision[1, 2, 4].item() == 4 * 2 * (3 + 5)
    for name, value in known.state_dict().items():
        other = RegionFilter(1.0)
        other.load_state_dict(known.state_dict(), 6)
        torch.testing.assert_close(other.state_dict()[name], value)


def test_sums_of_other_regions_are_refused() -> None:
    with pytest.raises(ValueError, match="the sums are of 4 pairs of a class and a region, not of 6"):
        RegionFilter(1.0).load_state_dict(state({1: 1}, pairs=4), 6)


def test_a_belief_that_is_not_finite_stays_so() -> None:
    images, known = Images(ACCURACY), RegionFilter(1.0)
    images.visit(known)
    images.policy = torch.full_like(images.policy, torch.nan)
    assert images.visit(known)[0].probabilities.isnan().all()
