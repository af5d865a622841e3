"""The bounds of ``benchmarks.bits`` hold where everything can be enumerated, and the codes are codes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from benchmarks import bits
from rss_env.rewards import score_images

# All label maps of 2×2 pixels, targets whose pixels depend on each other, and independent draws -----------------------


def label_maps(classes: int) -> np.ndarray:
    """uint8 (C⁴, 2, 2)."""
    return np.array(list(itertools.product(range(classes), repeat=4)), np.uint8).reshape(-1, 2, 2)


class Tiny:
    """Targets T with any joint distribution, and draws a of independent pixels; everything is enumerated."""

    def __init__(self, classes: int, seed: int, concentration: float = 0.3) -> None:
        generator = np.random.default_rng(seed)
        self.classes = classes
        self.maps = label_maps(classes)
        self.target = generator.dirichlet(np.full(len(self.maps), concentration))  # (T,)
        pixels = generator.dirichlet(np.ones(classes), size=4)
        self.draw = pixels[np.arange(4), self.maps.reshape(-1, 4)].prod(axis=1)  # (a,)
        self.right = (self.maps[:, None] == self.maps[None]).sum(axis=(2, 3))  # (T, a)
        self.score = score_images("mean_iou", self.maps[None].repeat(len(self.maps), 0), self.maps, classes)  # (T, a)

    def within_and_between(self, values: np.ndarray) -> tuple[float, float]:
        """Variance over draws for one target, its mean, and that of the draws' mean; values (T, a)."""
        mean = values @ self.draw
        within = (values**2 @ self.draw - mean**2) @ self.target
        return float(within), float(mean**2 @ self.target - (mean @ self.target) ** 2)

    def information(self, *answers: np.ndarray) -> float:
        """I(T; answers | a₁, a₂, …) by enumeration, answers without noise, each (T, a₁, a₂, …)."""
        drawn = list(itertools.product(range(len(self.maps)), repeat=answers[0].ndim - 1))
        total = 0.0
        for place in drawn:
            told = np.stack([answer[(slice(None), *place)] for answer in answers], axis=1)
            _, kind = np.unique(told.round(9), axis=0, return_inverse=True)
            chance = self.draw[list(place)].prod()
            total += chance * bits.entropy(np.bincount(kind.ravel(), weights=self.target))
        return total


@pytest.fixture(params=[0, 1, 2])
def tiny(request: pytest.FixtureRequest) -> Tiny:
    return Tiny(2, request.param)


def first(values: np.ndarray) -> np.ndarray:
    """(T, a) -> (T, a₁, a₂): of the first label map."""
    return np.broadcast_to(values[:, :, None], (*values.shape, values.shape[1]))


def second(values: np.ndarray) -> np.ndarray:
    """(T, a) -> (T, a₁, a₂): of the second one."""
    return np.broadcast_to(values[:, None, :], (*values.shape, values.shape[1]))


def test_counts_of_right_pixels_tell_no_more_than_the_bound(tiny: Tiny) -> None:
    v, w = tiny.within_and_between(tiny.right)
    one = tiny.information(tiny.right)
    two = tiny.information(first(tiny.right), second(tiny.right))
    difference = tiny.information(first(tiny.right) - second(tiny.right))
    assert 0 < one <= bits.exact_visit_bits(1, v, w)
    assert one < two <= bits.exact_visit_bits(2, v, w)
    assert difference < two
    assert difference <= bits.exact_comparison_bits(2, v)
    assert two <= bits.entropy(tiny.target)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_mean_iou_tells_no_more_than_the_sizes_of_classes_and_the_right_pixels_of_each(
    classes: int, seed: int
) -> None:
    tiny = Tiny(classes, seed)
    told = tiny.information(tiny.score)
    sizes = np.stack([(tiny.maps == c).sum(axis=(1, 2)) for c in range(classes)])
    bound = 0.0
    for c, size in enumerate(sizes):
        bound += bits.exact_visit_bits(1, tiny.target @ size**2 - (tiny.target @ size) ** 2)
        present = tiny.target * (size > 0)
        given = Tiny(classes, seed)
        given.target = present / present.sum()
        right = ((tiny.maps[:, None] == tiny.maps[None]) & (tiny.maps == c)[:, None]).sum(axis=(2, 3))
        bound += present.sum() * bits.exact_visit_bits(1, *given.within_and_between(right))
    assert 0 < told <= bound


@pytest.mark.parametrize("noise", [0.05, 0.3, 2.0])
def test_noisy_scores_tell_no_more_than_the_bound(tiny: Tiny, noise: float) -> None:
    v, w = tiny.within_and_between(tiny.score)
    one = sum(chance * gaussian_channel(tiny.score[:, a], tiny.target, noise) for a, chance in enumerate(tiny.draw))
    compared = 0.0
    for a, b in itertools.product(range(len(tiny.maps)), repeat=2):
        contrast = (tiny.score[:, a] - tiny.score[:, b]) / math.sqrt(2)  # whose noise has the same variance
        compared += tiny.draw[a] * tiny.draw[b] * gaussian_channel(contrast, tiny.target, noise)
    assert 0 < one <= bits.noisy_visit_bits(1, v, noise, w) + 1e-6
    assert 0 < compared <= bits.noisy_comparison_bits(2, v, noise) + 1e-6
    if noise == 2.0:  # with much noise the bound of a comparison is what one tells, but for what is left out of v
        assert compared > 0.5 * bits.noisy_comparison_bits(2, v, noise)


def gaussian_channel(values: np.ndarray, weights: np.ndarray, noise: float) -> float:
    """I(X; X + noise) in bits by quadrature."""
    levels, kind = np.unique(values.round(9), return_inverse=True)
    shares = np.bincount(kind, weights=weights)
    grid = np.linspace(levels[0] - 9 * noise, levels[-1] + 9 * noise, 1501)
    density = stats.norm.pdf(grid[:, None], levels, noise) @ shares
    logarithm = np.log2(density, where=density > 0, out=np.zeros_like(density))
    return float(-np.trapezoid(density * logarithm, grid) - math.log2(noise * math.sqrt(2 * math.pi * math.e)))


@pytest.mark.parametrize("answer", [lambda s: np.round(s * 2), lambda s: s > 0.4])
def test_stars_tell_no_more_than_the_bound(tiny: Tiny, answer: Callable[[np.ndarray], np.ndarray]) -> None:
    stars = answer(tiny.score).astype(int)
    kinds = int(stars.max()) + 1
    spread = sum(
        t * bits.entropy(np.bincount(row, weights=tiny.draw)) for t, row in zip(tiny.target, stars, strict=True)
    )
    told = tiny.information(first(stars), second(stars))
    assert 0 < told <= bits.answers_visit_bits(2, spread, kinds)
    assert told <= 2 * spread + bits.level_of_answers_bits(2, kinds)
    assert bits.answers_visit_bits(2, spread, kinds) <= 2 * math.log2(kinds)


def test_a_label_map_that_is_always_the_same_tells_the_level(tiny: Tiny) -> None:
    tiny.draw = np.eye(len(tiny.maps))[3]
    v, w = tiny.within_and_between(tiny.right)
    assert v == 0
    assert 0 < tiny.information(first(tiny.right), second(tiny.right)) <= bits.exact_visit_bits(2, v, w)
    assert bits.exact_comparison_bits(2, v) == 0 == bits.noisy_comparison_bits(2, v, 0.05)
    stars = np.round(tiny.score * 2).astype(int)
    assert 0 < tiny.information(first(stars), second(stars)) <= bits.answers_visit_bits(2, 0, 3)


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_a_preference_tells_at_most_a_bit_and_less_by_the_chance_in_it(tiny: Tiny, temperature: float) -> None:
    difference = first(tiny.score) - second(tiny.score)
    p = 1 / (1 + np.exp(-difference / temperature))  # (T, a₁, a₂)
    chance = np.einsum("t,a,b->tab", tiny.target, tiny.draw, tiny.draw)
    h = np.vectorize(lambda x: bits.entropy([x, 1 - x]))
    asked = np.outer(tiny.draw, tiny.draw)
    told = float((asked * h(np.tensordot(tiny.target, p, 1))).sum() - (chance * h(p)).sum())
    bound = float((chance * np.vectorize(bits.preference_bits)(p)).sum())
    assert 0 < told <= bound < 1
    without_chance = tiny.information(np.sign(difference))
    assert told < without_chance <= math.log2(3)


def test_a_preference_without_chance_is_a_bit_and_a_coin_is_none() -> None:
    assert bits.preference_bits([0, 1]) == 1
    assert bits.preference_bits([0.5, 0.5]) == 0
    assert bits.preference_bits([0.5, 1]) == 0.5


# The bounds where images are large ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", [1024, 6912])
def test_the_bound_of_one_count_is_nearly_what_it_tells_if_pixels_are_independent(pixels: int) -> None:
    p = np.random.default_rng(0).beta(2, 1, pixels)  # that a pixel of the label map is right
    count = np.ones(1)
    for chunk in p.reshape(-1, 64):
        part = np.ones(1)
        for each in chunk:
            part = np.convolve(part, [1 - each, each])
        count = np.convolve(count, part)
    bound = bits.exact_visit_bits(1, float((p * (1 - p)).sum()))
    assert 0 < bound - bits.entropy(count) < 1e-3


@pytest.mark.parametrize("pixels", [1024, 6912])
def test_independent_draws_of_pixels_tell_at_most_what_coins_would(pixels: int) -> None:
    most = bits.exact_visit_bits(1, pixels / 4)
    for p in np.random.default_rng(0).random((20, pixels)):
        assert bits.exact_visit_bits(1, float((p * (1 - p)).sum())) < most
    assert most == pytest.approx({1024: 6.047, 6912: 7.425}[pixels], abs=0.001)


def test_without_the_level_k_minus_one_of_k_scores_are_left() -> None:
    one = bits.noisy_comparison_bits(2, 0.01, 0.05)
    assert [bits.noisy_comparison_bits(k, 0.01, 0.05) for k in (1, 3, 32)] == pytest.approx([0, 2 * one, 31 * one])
    assert one == pytest.approx(0.5 * math.log2(5))
    assert bits.exact_comparison_bits(1, 400) == 0
    apart = [bits.exact_comparison_bits(k, 400) - (k - 1) * bits.exact_visit_bits(1, 400) for k in (2, 8, 32)]
    assert apart == pytest.approx([0.5 * math.log2(k) for k in (2, 8, 32)], abs=1e-3)


def test_visits_of_other_spreads_tell_no_more_than_as_many_of_the_mean_spread() -> None:
    for (v, w), (other_v, other_w) in np.random.default_rng(0).exponential(size=(50, 2, 2)):
        middle = (v + other_v) / 2, (w + other_w) / 2
        for bound in (bits.exact_visit_bits, lambda k, v, w: bits.noisy_visit_bits(k, v, 0.7, w)):
            assert bound(8, v, w) + bound(8, other_v, other_w) <= 2 * bound(8, *middle)
        for compared in (bits.exact_comparison_bits, lambda k, v: bits.noisy_comparison_bits(k, v, 0.7)):
            assert compared(8, v) + compared(8, other_v) <= 2 * compared(8, middle[0])


def test_a_visit_tells_what_a_gaussian_of_its_covariance_tells() -> None:
    v, w, noise, samples = 0.3, 0.7, 0.5, 5
    covariance = v * np.eye(samples) + w
    _, determinant = np.linalg.slogdet(np.eye(samples) + covariance / noise**2)
    assert bits.noisy_visit_bits(samples, v, noise, w) == pytest.approx(determinant / 2 / math.log(2))
    contrasts = np.linalg.qr(np.c_[np.ones(samples), np.eye(samples)[:, 1:]])[0][:, 1:].T
    _, determinant = np.linalg.slogdet(np.eye(samples - 1) + contrasts @ covariance @ contrasts.T / noise**2)
    assert bits.noisy_comparison_bits(samples, v, noise) == pytest.approx(determinant / 2 / math.log(2))
    _, determinant = np.linalg.slogdet(2 * math.pi * math.e * (covariance + np.eye(samples) / 12))
    assert bits.exact_visit_bits(samples, v, w) == pytest.approx(determinant / 2 / math.log(2))
    differences = np.c_[-np.ones(samples - 1), np.eye(samples - 1)]
    blurred = differences @ covariance @ differences.T + np.eye(samples - 1) / 12
    _, determinant = np.linalg.slogdet(2 * math.pi * math.e * blurred)
    assert bits.exact_comparison_bits(samples, v) == pytest.approx(determinant / 2 / math.log(2))


# Descriptions of label maps -------------------------------------------------------------------------------------------


def test_codes_of_all_label_maps_fit_into_the_unit_interval() -> None:
    """Kraft: a code with these lengths exists only if Σ 2^−bits ≤ 1; here they waste nothing."""
    maps = label_maps(3)
    code = bits.NeighbourCode(maps[[4, 40, 41, 80]], 3)
    assert np.exp2(-code.bits(maps)).sum() == pytest.approx(1)
    shares = bits.frequencies(maps[[4, 40]], 3)
    assert np.exp2(-bits.marginal_bits(maps, shares)).sum() == pytest.approx(1)
    assert len({code.bits(maps).round(6)[i] for i in (0, 40, 80)}) > 1


def test_ignored_pixels_cost_nothing() -> None:
    generator = np.random.default_rng(0)
    maps = generator.integers(3, size=(6, 8, 8), dtype=np.uint8)
    holes = maps.copy()
    holes[:, 2:4, 3:] = 255
    shares = bits.frequencies(holes, 3)
    lost = bits.marginal_bits(maps, shares) - bits.marginal_bits(holes, shares)
    assert lost == pytest.approx([-np.log2(shares[each[2:4, 3:]]).sum() for each in maps])
    code = bits.NeighbourCode(holes, 3)
    assert (code.bits(holes) < code.bits(maps)).all()
    assert code.bits(np.full((1, 8, 8), 255, np.uint8)) == 0
    filled = np.full((8, 8), 2, np.uint8)
    gap = filled.copy()
    gap[4, 4:] = 255
    assert bits.deflate_bits(gap) == bits.deflate_bits(filled) < bits.deflate_bits(maps[0])


def test_neighbours_shorten_what_is_smooth_and_not_what_is_random() -> None:
    generator = np.random.default_rng(0)
    rows = np.repeat(generator.integers(4, size=(40, 16, 1), dtype=np.uint8), 16, axis=2)
    code = bits.NeighbourCode(rows[::2], 4)
    assert code.bits(rows[1::2]).mean() < 60  # of 16 rows, 2 bits each, and what a row's go on costs
    noise = generator.integers(4, size=(40, 16, 16), dtype=np.uint8)
    assert bits.NeighbourCode(noise[::2], 4).bits(noise[1::2]).mean() == pytest.approx(2 * 256, rel=0.05)
