from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from agents.ops import sample_label_maps, uniforms


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


def to_logits(p: np.ndarray) -> torch.Tensor:
    """float32 logits, whose softmax is ``p`` but for rounding; ``-inf`` where it is 0."""
    with np.errstate(divide="ignore"):
        return torch.from_numpy(np.log(p)).float()


@pytest.mark.parametrize("cell", [1, 3])
@pytest.mark.parametrize(
    ("classes", "zeros"),
    [(2, []), (3, [0]), (5, [2]), (5, [0, 1, 4]), (8, [7]), (21, [3, 4, 20]), (255, [0, 100, 254])],
)
def test_draws_follow_each_pixels_distribution(classes: int, zeros: list[int], cell: int) -> None:
    # Pearson's statistics of independent pixels add up to one chi-square variable; in cells one pixel of each counts.
    # Two-sided, because draws that are too even are not independent either; a correct sampler fails one case in a
    # million seeds.
    batch, samples, height, width = 2, 12_000, 3, 5
    p = draw_probabilities(np.random.default_rng(classes), (batch, classes, height, width), zeros)
    label_maps = sample_label_maps(to_logits(p), samples, classes, cell=cell)

    flat = label_maps.permute(0, 2, 3, 1).reshape(-1, samples).numpy()  # (pixels, K)
    observed = np.stack([np.bincount(pixel, minlength=classes) for pixel in flat])
    assert observed.shape[1] == classes
    expected = samples * p.transpose(0, 2, 3, 1).reshape(-1, classes)
    possible = expected > 0
    assert observed[~possible].sum() == 0
    counted = np.zeros((batch, height, width), bool)
    counted[:, ::cell, ::cell] = True
    possible &= counted.reshape(-1, 1)
    statistic = ((observed - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = possible.sum() - counted.sum()
    assert 5e-7 < stats.chi2.sf(statistic, freedom) < 1 - 5e-7


@settings(max_examples=60)
@given(
    data=st.data(),
    classes=st.integers(2, 12),
    impossible=st.sampled_from([-math.inf, -200.0]),
    temperature=st.sampled_from([0.5, 1.0, 1.5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_class_of_probability_zero_is_never_drawn(
    data: st.DataObject, classes: int, impossible: float, temperature: float, seed: int
) -> None:
    possible = data.draw(st.sets(st.integers(0, classes - 1), min_size=1))
    zeros = sorted(set(range(classes)) - possible)
    logits = to_logits(draw_probabilities(np.random.default_rng(seed), (1, classes, 7, 5), zeros))
    logits[:, zeros] = impossible
    drawn = sample_label_maps(logits, 50, seed, temperature=temperature)
    assert set(drawn.unique().tolist()) <= possible


EXTREME = {0: (1343428, 3), 1: (75465, 0), 2**24 - 1: (39075, 3)}
"""A seed and sample whose number in the first cell of the first image is this multiple of 2⁻²⁴; found by search."""


@pytest.mark.parametrize("multiple", EXTREME, ids=["smallest", "next", "largest"])
@pytest.mark.parametrize("zeros", [[0], [0, 1], [2], [2, 3], [5], [4, 5], [0, 2, 5], [0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])
def test_the_extreme_uniform_draws_reach_no_class_of_probability_zero(multiple: int, zeros: list[int]) -> None:
    (seed, sample), size = EXTREME[multiple], (64, 61)  # one cell, and pixels whose sums are rounded to all sides of 1
    assert (uniforms((1, 4, *size), seed, cell=64)[0, sample] == multiple / 2**24).all()
    logits = to_logits(draw_probabilities(np.random.default_rng(3), (1, 6, *size), zeros))
    drawn = sample_label_maps(logits, 4, seed, cell=64)[0, sample]
    ends = sorted(set(range(6)) - set(zeros))
    assert (drawn == ends[0 if multiple < 2 else -1]).all()


@given(
    size=st.tuples(*(st.integers(1, most) for most in (3, 6, 6, 7))),
    classes=st.one_of(st.integers(2, 30), st.just(255)),
    cell=st.integers(1, 4),
    temperature=st.sampled_from([1.0, 2.0, 0.3]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 2**63 - 1),
)
def test_a_pixels_class_is_the_number_of_cumulative_probabilities_that_its_draw_reaches(
    size: tuple[int, int, int, int],
    classes: int,
    cell: int,
    temperature: float,
    dtype: torch.dtype,
    seed: int,
) -> None:
    (batch, samples, height, width), offset = size, (seed % 5, seed % 7)
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn((batch, classes, height, width), generator=generator)).to(dtype)
    drawn = sample_label_maps(logits, samples, seed, temperature=temperature, cell=cell, offset=offset)
    sums = (logits.double() / temperature).softmax(dim=1).cumsum(dim=1)[:, None, :-1]  # (B, 1, C - 1, H, W)
    draws = uniforms(size, seed, cell, offset).double()[:, :, None]
    clear = ((draws - sums).abs() > 1e-6).all(dim=2)
    assert torch.equal(drawn[clear].long(), (draws >= sums).sum(dim=2)[clear])
    assert clear.float().mean() > 0.98 or clear.sum() >= clear.numel() - 1


def test_a_certain_class_is_always_drawn() -> None:
    certain = torch.randint(0, 7, (2, 9, 11), generator=torch.Generator().manual_seed(0))
    logits = torch.nn.functional.one_hot(certain, 7).permute(0, 3, 1, 2).float().log()
    assert torch.equal(sample_label_maps(logits, 4, 0).long(), certain[:, None].expand(2, 4, 9, 11))


@pytest.mark.parametrize("classes", [2, 3, 19, 254, 255])
def test_label_maps_are_uint8_of_shape_b_k_h_w(classes: int) -> None:
    label_maps = sample_label_maps(torch.zeros(3, classes, 17, 23), 5, 0)
    assert label_maps.shape == (3, 5, 17, 23)
    assert label_maps.dtype == torch.uint8
    assert label_maps.max() < classes


def test_the_last_of_255_classes_is_drawn_as_254() -> None:
    logits = torch.full((1, 255, 3, 3), -math.inf)
    logits[:, 254] = 1.0
    assert (sample_label_maps(logits, 2, 0) == 254).all()


def test_the_same_seed_gives_the_same_label_maps() -> None:
    logits = torch.zeros(2, 4, 9, 7)
    first, second, other = (sample_label_maps(logits, 6, seed) for seed in (11, torch.tensor([11]), 12))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("axis", [0, 1, 2, 3], ids=["images", "samples", "rows", "columns"])
def test_neighbours_along_every_axis_are_independent(axis: int) -> None:
    # Two fair coins agree in half of the cases; 5.3 standard deviations are exceeded once in ten million seeds.
    label_maps = sample_label_maps(torch.zeros(6, 2, 40, 44), 8, 5).numpy()
    first, second = (np.delete(label_maps, end, axis=axis) for end in (0, -1))
    agree = first == second
    # Along one axis, the agreements of independent fair coins are themselves independent fair coins.
    assert abs(agree.mean() - 0.5) < 5.3 * 0.5 / np.sqrt(agree.size)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_every_memory_layout_gives_the_same_label_maps(temperature: float) -> None:
    logits = to_logits(draw_probabilities(np.random.default_rng(1), (2, 5, 6, 9), []))
    before = logits.clone()
    channels_last = logits.contiguous(memory_format=torch.channels_last)
    sliced = torch.stack([logits, 1 - logits], dim=-1)[..., 0]
    expected = sample_label_maps(logits, 3, 2, temperature=temperature)
    assert torch.equal(logits, before)
    for layout in (channels_last, sliced):
        assert not layout.is_contiguous()
        assert torch.equal(sample_label_maps(layout, 3, 2, temperature=temperature), expected)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_out_of_range_is_an_error(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"positive and finite, got {temperature}"):
        sample_label_maps(torch.zeros(1, 2, 3, 3), 1, 0, temperature=temperature)


@pytest.mark.parametrize(("seed", "cell"), [(-1, 1), (2**63, 1), (0, 0)])
def test_a_seed_or_cell_out_of_range_is_an_error(seed: int, cell: int) -> None:
    with pytest.raises(ValueError, match="got"):
        sample_label_maps(torch.zeros(1, 2, 3, 3), 1, seed, cell=cell)
