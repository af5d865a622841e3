"""The uniform numbers: Philox itself, whose number is whose, and that compiled code has the same to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from agents.ops import uniforms
from agents.ops.philox import philox

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

seeds = st.integers(0, 2**63 - 1)
words = st.integers(0, 2**32 - 1)


def python_philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """Philox-4x32-10 in integers of any length, from the figure of Salmon et al. (2011)."""
    (left_1, right_1, left_2, right_2), (k_1, k_2) = counter, key
    for _ in range(10):
        product_1, product_2 = 0xD2511F53 * left_1, 0xCD9E8D57 * left_2
        left_1, right_1, left_2, right_2 = (
            product_2 // 2**32 ^ right_1 ^ k_1,
            product_2 % 2**32,
            product_1 // 2**32 ^ right_2 ^ k_2,
            product_1 % 2**32,
        )
        k_1, k_2 = (k_1 + 0x9E3779B9) % 2**32, (k_2 + 0xBB67AE85) % 2**32
    return left_1, right_1, left_2, right_2


def torch_philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    a, b, c, d = (torch.tensor(number, device=DEVICE) for number in counter)
    left, right = (torch.tensor(number, device=DEVICE) for number in key)
    return tuple(int(number) for number in philox((a, b, c, d), (left, right)))


# Philox


@pytest.mark.parametrize("function", [torch_philox, python_philox])
@pytest.mark.parametrize(
    ("counter", "key", "result"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "digits of pi"],
)
def test_philox_gives_the_published_answers(function, counter, key, result) -> None:  # type: ignore[no-untyped-def]
    # From the file kat_vectors of the authors' library Random123.
    assert function(counter, key) == result


@given(counter=st.tuples(words, words, words, words), key=st.tuples(words, words))
def test_philox_is_that_of_integers_of_any_length(counter: tuple[int, ...], key: tuple[int, int]) -> None:
    assert torch_philox(counter, key) == python_philox(counter, key)


# Whose number is whose


def cell_number(y: int, x: int, width: int, cell: int, offset: tuple[int, int]) -> int:
    """Number of the cell of a pixel, row by row."""
    down, right = (shift % cell for shift in offset)
    row = (width - 1 + cell - 1) // cell + 1  # cells to the end of a row that is shifted as far as possible
    return (y + down) // cell * row + (x + right) // cell


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 7), st.integers(1, 8)),
    cell=st.integers(1, 9),
    offset=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    seed=seeds,
)
def test_a_number_is_philox_of_the_seed_at_its_cell_image_and_sample(
    shape: tuple[int, int, int, int], cell: int, offset: tuple[int, int], seed: int
) -> None:
    drawn = uniforms(shape, seed, cell, offset, DEVICE).cpu()
    assert drawn.dtype == torch.float32
    assert drawn.is_contiguous()
    expected = np.empty(shape)
    for b, k, y, x in np.ndindex(*shape):
        number = cell_number(y, x, shape[3], cell, offset)
        words = python_philox((number, 0, b, k // 4), (seed % 2**32, seed // 2**32))
        expected[b, k, y, x] = words[k % 4] // 2**8 / 2**24
    np.testing.assert_array_equal(drawn, expected)


@settings(derandomize=True)  # equal numbers of two cells, once in thousands of examples, are no error
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 9), st.integers(1, 11)),
    cell=st.integers(1, 14),
    data=st.data(),
    seed=seeds,
)
def test_two_pixels_share_their_number_exactly_if_they_are_of_one_cell(
    shape: tuple[int, int, int, int], cell: int, data: st.DataObject, seed: int
) -> None:
    down, right = data.draw(st.tuples(st.integers(0, cell - 1), st.integers(0, cell - 1)))
    drawn = uniforms(shape, seed, cell, (down, right))
    number_of: dict[tuple[int, ...], float] = {}
    for b, k, y, x in np.ndindex(*shape):
        place = (b, k, (y + down) // cell, (x + right) // cell)
        assert number_of.setdefault(place, drawn[b, k, y, x].item()) == drawn[b, k, y, x].item()
    assert len(set(number_of.values())) == len(number_of)


def test_samples_that_are_added_change_no_number_of_the_others() -> None:
    assert torch.equal(uniforms((2, 9, 5, 7), 3)[:, :6], uniforms((2, 6, 5, 7), 3))
    assert torch.equal(uniforms((2, 6, 5, 7), 3)[:1], uniforms((1, 6, 5, 7), 3))


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 - 1])
def test_a_seed_or_an_offset_may_be_a_tensor(seed: int) -> None:
    expected = uniforms((1, 5, 6, 7), seed, 3, (2, 1))
    for shape in ((), (1,)):
        drawn = uniforms((1, 5, 6, 7), torch.tensor(seed).view(shape), 3, torch.tensor([2, 1]))
        assert torch.equal(drawn, expected)


def test_all_bits_of_the_seed_count() -> None:
    drawn = [uniforms((1, 4, 3, 3), seed) for seed in (0, *(2**bit for bit in range(63)))]
    assert len({tuple(numbers.flatten().tolist()) for numbers in drawn}) == 64


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_an_error(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"from 0 to 2\*\*63 - 1, got {seed}\."):
        uniforms((1, 1, 2, 2), seed)


@pytest.mark.parametrize("cell", [0, -2])
def test_a_cell_without_pixels_is_an_error(cell: int) -> None:
    with pytest.raises(ValueError, match=rf"from 1 on, got {cell}\."):
        uniforms((1, 1, 2, 2), 0, cell)


# What they are like


@pytest.mark.parametrize("cell", [1, 2, 16])
def test_every_single_number_is_uniform(cell: int) -> None:
    # Two-sided chi-square tests of each of the 35 pixels; correct numbers fail somewhere once in a million seeds.
    samples, bins = 16_000, 32
    drawn = uniforms((1, samples, 5, 7), cell, cell)[0].flatten(1).T.numpy()  # (35, K)
    for pixel in drawn:
        p_value = stats.chisquare(np.bincount((pixel * bins).astype(int), minlength=bins)).pvalue
        assert 5e-7 / 35 < p_value < 1 - 5e-7 / 35


@pytest.mark.parametrize("axis", [0, 1, 2, 3, 4], ids=["seeds", "images", "samples", "rows", "columns"])
@pytest.mark.parametrize("cell", [1, 3])
def test_neighbouring_seeds_images_samples_and_cells_are_independent(axis: int, cell: int) -> None:
    # A chi-square test of pairs of numbers in a grid of 8×8; a correct generator fails one case in a million seeds.
    shape = (6, 8, 40 * cell, 44 * cell)
    drawn = torch.stack([uniforms(shape, seed, cell)[:, :, ::cell, ::cell] for seed in range(100, 104)])
    bins = (drawn * 8).long().numpy()
    # Every second pair: two that overlap are not independent of each other.
    first, second = (np.take(bins, range(start, bins.shape[axis] - 1 + start, 2), axis=axis) for start in (0, 1))
    pairs = np.bincount((8 * first + second).ravel(), minlength=64)
    assert 5e-7 < stats.chisquare(pairs).pvalue < 1 - 5e-7


# Compiled


FAR = [0, 1, 2**32 - 1, 2**32, 2**45 + 12345]
"""Numbers of cells, some of which need the second half of the counter."""


def far_uniforms(seed: int, image: int, group: int) -> np.ndarray:
    """float32 (4, 5), the four samples of a group in the cells ``FAR``."""
    numbers = [
        python_philox((cell % 2**32, cell // 2**32, image, group), (seed % 2**32, seed // 2**32)) for cell in FAR
    ]
    return (np.array(numbers).T // 2**8 / 2**24).astype(np.float32)


@settings(max_examples=30)
@given(seed=seeds, image=st.integers(0, 1000), group=st.integers(0, 1000))
def test_numba_has_the_same_numbers_to_the_last_bit(seed: int, image: int, group: int) -> None:
    pytest.importorskip("numba", reason="needs numba: pip install 'rss-env[fast]'")
    from agents.ops import numba_ops

    out = np.full((4, len(FAR) + 1), 77, np.uint32)
    numba_ops._words(np.uint64(seed), np.array(FAR, np.uint64), np.uint64(image), np.uint64(group), out)
    np.testing.assert_array_equal(out[:, :-1] // 2**8 / 2**24, far_uniforms(seed, image, group))
    assert (out[:, -1] == 77).all()


@settings(max_examples=30)
@given(seed=seeds, image=st.integers(0, 1000), group=st.integers(0, 1000))
def test_triton_has_the_same_numbers_to_the_last_bit(seed: int, image: int, group: int) -> None:
    pytest.importorskip("triton", reason="needs triton: pip install triton")
    from tests.agents.ops.triton_uniforms import group_uniforms

    cells = torch.tensor([*FAR, 0, 0, 0], device=DEVICE)
    out = group_uniforms(torch.tensor([seed], device=DEVICE), cells, image, group).cpu()
    np.testing.assert_array_equal(out[:, : len(FAR)], far_uniforms(seed, image, group))
