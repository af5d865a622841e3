from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from agents.ops import sample_label_maps


@pytest.fixture(params=["torch", "numba"], autouse=True, scope="module")
def ops(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test holds for both implementations."""
    if request.param == "numba":
        pytest.importorskip("numba", reason="needs numba: pip install 'rss-env[fast]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSS_OPS", request.param)
        yield request.param


def draw_probabilities(rng: np.random.Generator, shape: tuple[int, int, int, int], zeros: list[int]) -> np.ndarray:
    """Random distributions over axis 1, float64, in which the classes in ``zeros`` have probability 0."""
    weights = rng.gamma(4.0, size=shape)
    weights[:, zeros] = 0.0
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("classes", "zeros"),
    [(2, []), (3, [0]), (5, [2]), (5, [0, 1, 4]), (8, [7]), (21, [3, 4, 20]), (255, [0, 100, 254])],
)
def test_draws_follow_each_pixels_distribution(classes: int, zeros: list[int]) -> None:
    # Pearson's statistics of independent pixels add up to one chi-square variable. Two-sided, because draws that are
    # too even are not independent either; a correct sampler fails one case in a million seeds.
    batch, samples, height, width = 2, 12_000, 3, 5
    p = draw_probabilities(np.random.default_rng(classes), (batch, classes, height, width), zeros)
    label_maps = sample_label_maps(torch.from_numpy(p).float(), samples, torch.Generator().manual_seed(classes))

    flat = label_maps.permute(0, 2, 3, 1).reshape(-1, samples).numpy()  # (pixels, K)
    observed = np.stack([np.bincount(pixel, minlength=classes) for pixel in flat])
    assert observed.shape[1] == classes
    expected = samples * p.transpose(0, 2, 3, 1).reshape(-1, classes)
    possible = expected > 0
    assert observed[~possible].sum() == 0
    statistic = ((observed - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = possible.sum() - len(flat)
    assert 5e-7 < stats.chi2.sf(statistic, freedom) < 1 - 5e-7


@settings(deadline=None, max_examples=60)
@given(data=st.data(), classes=st.integers(2, 12), seed=st.integers(0, 2**32 - 1))
def test_a_class_of_probability_zero_is_never_drawn(data: st.DataObject, classes: int, seed: int) -> None:
    possible = data.draw(st.sets(st.integers(0, classes - 1), min_size=1))
    zeros = sorted(set(range(classes)) - possible)
    p = draw_probabilities(np.random.default_rng(seed), (1, classes, 7, 5), zeros)
    drawn = sample_label_maps(torch.from_numpy(p).float(), 50, torch.Generator().manual_seed(seed))
    assert set(drawn.unique().tolist()) <= possible


@pytest.mark.parametrize("uniform", [0.0, 2.0**-24, 1 - 2.0**-24], ids=["smallest", "next", "largest"])
@pytest.mark.parametrize("zeros", [[0], [0, 1], [2], [2, 3], [5], [4, 5], [0, 2, 5], [0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])
def test_the_extreme_uniform_draws_reach_no_class_of_probability_zero(uniform: float, zeros: list[int]) -> None:
    p = torch.from_numpy(draw_probabilities(np.random.default_rng(3), (4, 6, 31, 29), zeros)).float()
    p *= 1 - 2.0**-21  # sums below 1, as rounding leaves them: a draw must not reach beyond them
    drawn = sample_label_maps(p, 1, uniforms=torch.full((4, 1, 31, 29), uniform))
    assert not set(drawn.unique().tolist()) & set(zeros)


@settings(deadline=None)
@given(
    size=st.tuples(*(st.integers(1, most) for most in (3, 5, 6, 7))),
    classes=st.integers(2, 30),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_pixels_class_is_the_number_of_cumulative_probabilities_that_its_draw_reaches(
    size: tuple[int, int, int, int], classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    batch, samples, height, width = size
    # Multiples of 1/1024 are exact, and so are draws that hit a cumulative probability.
    parts = rng.multinomial(1024, np.full(classes, 1 / classes), size=(batch, height, width)) / 1024
    draws = rng.integers(0, 1024, size) / 1024
    expected = np.zeros(size, int)
    for b, k, y, x in np.ndindex(*size):
        reached = 0.0
        for share in parts[b, y, x][:-1]:
            reached += share
            expected[b, k, y, x] += draws[b, k, y, x] >= reached
    p = torch.from_numpy(parts).permute(0, 3, 1, 2).float()
    drawn = sample_label_maps(p, samples, uniforms=torch.from_numpy(draws).float())
    np.testing.assert_array_equal(drawn, expected)


def test_a_certain_class_is_always_drawn() -> None:
    certain = torch.randint(0, 7, (2, 9, 11), generator=torch.Generator().manual_seed(0))
    p = torch.nn.functional.one_hot(certain, 7).permute(0, 3, 1, 2).float()
    assert torch.equal(sample_label_maps(p, 4).long(), certain[:, None].expand(2, 4, 9, 11))


@pytest.mark.parametrize("classes", [2, 3, 19, 254, 255])
def test_label_maps_are_uint8_of_shape_b_k_h_w(classes: int) -> None:
    p = torch.full((3, classes, 17, 23), 1 / classes)
    label_maps = sample_label_maps(p, 5, torch.Generator().manual_seed(0))
    assert label_maps.shape == (3, 5, 17, 23)
    assert label_maps.dtype == torch.uint8
    assert label_maps.max() < classes


def test_the_last_of_255_classes_is_drawn_as_254() -> None:
    p = torch.zeros(1, 255, 3, 3)
    p[:, 254] = 1.0
    assert (sample_label_maps(p, 2) == 254).all()


def test_the_same_generator_seed_gives_the_same_label_maps() -> None:
    p = torch.full((2, 4, 9, 7), 0.25)
    first, second, other = (sample_label_maps(p, 6, torch.Generator().manual_seed(seed)) for seed in (11, 11, 12))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_without_given_draws_they_come_from_the_generator() -> None:
    p = torch.randn(2, 4, 9, 7, generator=torch.Generator().manual_seed(1)).softmax(dim=1)
    uniforms = torch.rand((2, 6, 9, 7), generator=torch.Generator().manual_seed(11))
    drawn = sample_label_maps(p, 6, torch.Generator().manual_seed(11))
    assert torch.equal(drawn, sample_label_maps(p, 6, uniforms=uniforms))


def test_the_next_draw_of_a_generator_is_another_one() -> None:
    p, generator = torch.full((2, 4, 9, 7), 0.25), torch.Generator().manual_seed(11)
    assert not torch.equal(sample_label_maps(p, 6, generator), sample_label_maps(p, 6, generator))


@pytest.mark.parametrize("axis", [0, 1, 2, 3], ids=["images", "samples", "rows", "columns"])
def test_neighbours_along_every_axis_are_independent(axis: int) -> None:
    # Two fair coins agree in half of the cases; 5.3 standard deviations are exceeded once in ten million seeds.
    p = torch.full((6, 2, 40, 44), 0.5)
    label_maps = sample_label_maps(p, 8, torch.Generator().manual_seed(5)).numpy()
    first, second = (np.delete(label_maps, end, axis=axis) for end in (0, -1))
    agree = first == second
    # Along one axis, the agreements of independent fair coins are themselves independent fair coins.
    assert abs(agree.mean() - 0.5) < 5.3 * 0.5 / np.sqrt(agree.size)


def test_every_memory_layout_gives_the_same_label_maps() -> None:
    p = torch.from_numpy(draw_probabilities(np.random.default_rng(1), (2, 5, 6, 9), [])).float()
    channels_last = p.contiguous(memory_format=torch.channels_last)
    sliced = torch.stack([p, 1 - p], dim=-1)[..., 0]
    expected = sample_label_maps(p, 3, torch.Generator().manual_seed(2))
    for layout in (channels_last, sliced):
        assert not layout.is_contiguous()
        assert torch.equal(sample_label_maps(layout, 3, torch.Generator().manual_seed(2)), expected)
