from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.ops import torch_ops
from agents.plugins import leave_one_out, pair_advantages
from agents.plugins.psd import pair_differences
from rss_env.errors import OptionError
from tests.agents.plugins.two_pixels import (
    MAPS,
    asymmetry,
    draw_problem,
    enumerate_sets,
    expected_score_gradient,
    expected_step,
    look_up,
    map_probabilities,
)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLASSES = 3
KINDS = ["disjoint", "all"]
sizes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 6))  # B, K / 2, H, W


def list_pairs(samples: int, kind: str) -> Iterator[tuple[int, int]]:
    """The pairs (a, b), a < b."""
    for a in range(samples):
        for b in range(a + 1, samples):
            if kind == "all" or (a % 2 == 0 and b == a + 1):
                yield a, b


def pair_credit(
    rewards: np.ndarray, label_maps: np.ndarray, a: int, b: int, normalise: bool
) -> Iterator[tuple[int, int, int, float]]:
    """What sample a gets at each pixel (image, y, x) from its pair with b, and b gets with the other sign."""
    batch, _, height, width = label_maps.shape
    spread = rewards if rewards.ndim == 4 else np.broadcast_to(rewards[:, :, None, None], label_maps.shape)
    for image in range(batch):
        differs = (label_maps[image, a] != label_maps[image, b]).astype(np.float64)
        for y, x in np.ndindex(height, width):
            if differs[y, x]:
                difference = spread[image, a, y, x] - spread[image, b, y, x]
                yield image, y, x, difference * (height * width / differs.sum() if normalise else 1.0)


def pair_by_pair(rewards: np.ndarray, label_maps: np.ndarray, kind: str, normalise: bool) -> np.ndarray:
    """The definition, one pair and one pixel after the other, in float64."""
    samples = label_maps.shape[1]
    partners = samples - 1 if kind == "all" else 1
    out = np.zeros(label_maps.shape)
    for a, b in list_pairs(samples, kind):
        for image, y, x, amount in pair_credit(rewards.astype(np.float64), label_maps, a, b, normalise):
            out[image, a, y, x] += amount / partners
            out[image, b, y, x] -= amount / partners
    return out


def shift_by_shift(rewards: torch.Tensor, label_maps: torch.Tensor, kind: str, normalise: bool) -> torch.Tensor:
    """The definition in the dtype of the rewards: all label maps next to those that stand ``shift`` behind them."""

    def credited(difference: torch.Tensor, differs: torch.Tensor) -> torch.Tensor:
        if normalise:
            difference = difference / differs.to(rewards.dtype).mean(dim=(2, 3), keepdim=True).clamp(min=1e-12)
        return torch.where(differs, difference, 0.0)

    spread = rewards if rewards.ndim == 4 else rewards[:, :, None, None].expand(label_maps.shape)
    if kind == "disjoint":
        pair = credited(spread[:, 0::2] - spread[:, 1::2], label_maps[:, 0::2] != label_maps[:, 1::2])
        return torch.stack([pair, -pair], dim=2).flatten(1, 2)
    out = torch.zeros_like(spread)
    for shift in range(1, label_maps.shape[1]):
        out += credited(spread - spread.roll(-shift, dims=1), label_maps != label_maps.roll(-shift, dims=1))
    return out / (label_maps.shape[1] - 1)


def draw_case(
    size: tuple[int, int, int, int], level: str, seed: int, classes: int = CLASSES
) -> tuple[np.ndarray, np.ndarray]:
    """Rewards, float32 (B, K) or (B, K, H, W), and label maps, of which some are equal."""
    rng = np.random.default_rng(seed)
    label_maps = rng.integers(0, classes, size).astype(np.uint8)
    label_maps[:, -1] = label_maps[:, 0]
    return rng.random(size if level == "pixel" else size[:2]).astype(np.float32), label_maps


@given(
    size=sizes,
    level=st.sampled_from(["image", "pixel"]),
    kind=st.sampled_from(KINDS),
    normalise=st.booleans(),
    odd=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_pair_advantages_are_the_differences_of_reward_where_two_label_maps_differ(
    size: tuple[int, int, int, int], level: str, kind: str, normalise: bool, odd: bool, seed: int
) -> None:
    samples = 2 * size[1] + (odd and kind == "all")
    rewards, label_maps = draw_case((size[0], samples, *size[2:]), level, seed)
    before = rewards.copy(), label_maps.copy()
    result = pair_advantages(torch.from_numpy(rewards), torch.from_numpy(label_maps), kind, normalise)
    assert result.dtype == torch.float32
    assert result.shape == label_maps.shape
    np.testing.assert_allclose(result, pair_by_pair(rewards, label_maps, kind, normalise), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rewards, before[0])
    np.testing.assert_array_equal(label_maps, before[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", ["image", "pixel"])
def test_pair_advantages_of_float64_rewards_are_exact_to_rounding(kind: str, level: str) -> None:
    rewards, label_maps = draw_case((2, 6, 5, 7), level, 1)
    fine = rewards.astype(np.float64) + 1e-9 * np.random.default_rng(2).random(rewards.shape)
    result = pair_advantages(torch.from_numpy(fine), torch.from_numpy(label_maps), kind, normalise=False)
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result, pair_by_pair(fine, label_maps, kind, False), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", ["image", "pixel"])
def test_pair_advantages_of_large_label_maps_are_right_to_rounding(level: str, kind: str, dtype: torch.dtype) -> None:
    rewards, label_maps = (torch.from_numpy(array).to(DEVICE) for array in draw_case((2, 16, 33, 47), level, 3))
    label_maps[:, :, 4:] = label_maps[:, :1, 4:]  # alike in most pixels, as samples of a trained policy are
    result = pair_advantages(rewards.to(dtype), label_maps, kind)
    expected = shift_by_shift(rewards.double(), label_maps, kind, True)
    assert result.dtype == dtype
    assert expected.abs().max() > 1
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=2e-5 if dtype == torch.float32 else 1e-13)


def test_all_pairs_with_the_normaliser_are_the_default() -> None:
    rewards, label_maps = (torch.from_numpy(array) for array in draw_case((2, 4, 3, 5), "image", 0))
    expected = pair_advantages(rewards, label_maps, "all", True)
    assert torch.equal(pair_advantages(rewards, label_maps), expected)
    assert not torch.equal(pair_advantages(rewards, label_maps, "all", False), expected)
    assert not torch.equal(pair_advantages(rewards, label_maps, "disjoint", True), expected)


@given(
    size=sizes,
    samples=st.integers(2, 7),
    level=st.sampled_from(["image", "pixel"]),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_without_the_normaliser_all_pairs_credit_classes_as_leave_one_out_does(
    size: tuple[int, int, int, int], samples: int, level: str, dtype: str, seed: int
) -> None:
    check_equal_to_leave_one_out((size[0], samples, *size[2:]), level, dtype, seed, "all")


@given(
    size=sizes,
    level=st.sampled_from(["image", "pixel"]),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_without_the_normaliser_one_pair_credits_classes_as_leave_one_out_does(
    size: tuple[int, int, int, int], level: str, dtype: str, seed: int
) -> None:
    check_equal_to_leave_one_out((size[0], 2, *size[2:]), level, dtype, seed, "disjoint")


def check_equal_to_leave_one_out(size: tuple[int, int, int, int], level: str, dtype: str, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    label_maps = torch.from_numpy(rng.integers(0, CLASSES, size).astype(np.uint8))
    if level == "image":
        rewards = torch.from_numpy(rng.random(size[:2]).astype(dtype))
    else:  # a pixel's reward is that of its class
        table = torch.from_numpy(rng.random((size[0], CLASSES, *size[2:])).astype(dtype))
        rewards = table.gather(1, label_maps.long())
    paired = pair_advantages(rewards, label_maps, kind, normalise=False)
    expected = leave_one_out(rewards if level == "pixel" else rewards[:, :, None, None])
    atol = 2e-6 if dtype == "float32" else 1e-14
    paired, expected = (torch_ops.credit(label_maps, advantages, CLASSES) for advantages in (paired, expected))
    torch.testing.assert_close(paired, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_label_maps_get_nothing_whatever_their_rewards(kind: str, normalise: bool) -> None:
    label_maps = torch.randint(0, 5, (2, 1, 3, 4), dtype=torch.uint8).expand(2, 4, 3, 4)
    for rewards in (torch.rand(2, 4), torch.tensor([[0.0, 1e30, -1e30, 3.0]]).expand(2, 4), torch.rand(2, 4, 3, 4)):
        assert torch.equal(pair_advantages(rewards, label_maps, kind, normalise), torch.zeros(2, 4, 3, 4))


@given(size=sizes, samples=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_pair_differences_are_the_numbers_of_pixels_in_which_two_label_maps_differ(
    size: tuple[int, int, int, int], samples: int, seed: int
) -> None:
    _, label_maps = draw_case((size[0], samples, *size[2:]), "image", seed)
    expected = (label_maps[:, :, None] != label_maps[:, None]).sum(axis=(3, 4))
    result = pair_differences(torch.from_numpy(label_maps))
    assert result.dtype == torch.int64
    np.testing.assert_array_equal(result, expected)


@given(size=sizes, seed=st.integers(0, 2**32 - 1))
def test_a_pairs_mean_normalised_credit_is_its_difference_in_reward(size: tuple[int, int, int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (size[0], 2 * size[1], *size[2:])
    rewards, label_maps = rng.random(shape[:2]).astype(np.float32), rng.integers(0, 2, shape).astype(np.uint8)
    label_maps[:, 1::2, 0, 0] = 1 - label_maps[:, 0::2, 0, 0]  # every pair differs somewhere
    result = pair_advantages(torch.from_numpy(rewards), torch.from_numpy(label_maps), "disjoint")
    difference = (rewards[:, 0::2] - rewards[:, 1::2]).astype(np.float64)
    mean = result.double().mean(dim=(2, 3)).numpy()
    np.testing.assert_allclose(mean[:, 0::2], difference, rtol=0, atol=1e-6)
    np.testing.assert_allclose(mean[:, 1::2], -difference, rtol=0, atol=1e-6)


def test_the_mean_credit_of_a_pair_does_not_depend_on_the_size_of_the_image() -> None:
    small = torch.zeros(1, 2, 2, 2, dtype=torch.uint8)
    small[0, 1, 0, 0] = 1
    large = torch.zeros(1, 2, 200, 300, dtype=torch.uint8)
    large[0, 1, 7, 11] = 1  # one pixel of 60,000 differs
    rewards = torch.tensor([[0.75, 0.25]])
    for label_maps in (small, large):
        mean = pair_advantages(rewards, label_maps).double().mean(dim=(2, 3))
        torch.testing.assert_close(mean, torch.tensor([[0.5, -0.5]], dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("samples", "kind", "message"),
    [
        (1, "all", r"pairs='all' needs at least 2 samples of each image, got 1"),
        (1, "disjoint", r"pairs='disjoint' needs an even number of samples of each image, got 1"),
        (5, "disjoint", r"pairs='disjoint' needs an even number of samples of each image, got 5"),
        (0, "disjoint", r"got 0"),
        (4, "none", r"'none'; valid: disjoint, all"),
    ],
)
def test_samples_that_form_no_pairs_and_unknown_kinds_are_errors(samples: int, kind: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        pair_advantages(torch.zeros(2, samples), torch.zeros(2, samples, 3, 4, dtype=torch.uint8), kind)


# What the expected step is, by enumeration


def psd_step(logits: torch.Tensor, scores: torch.Tensor, samples: int, normalise: bool) -> torch.Tensor:
    """The expected step over every set of so many label maps."""
    chosen, probabilities = enumerate_sets(map_probabilities(logits), samples)
    label_maps = MAPS[chosen]
    advantages = pair_advantages(look_up(label_maps, scores), label_maps, normalise=normalise)
    return expected_step(logits, label_maps, advantages, probabilities)


def comparison_step(logits: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """What a player gains by its logits who wins (R_a − R_b) · H·W / |D| with a against the present policy's b."""
    payoff = torch.zeros(len(MAPS), len(MAPS), dtype=torch.float64)
    for a, b in np.ndindex(*payoff.shape):
        differing = sum(x != y for x, y in zip(MAPS[a].flatten().tolist(), MAPS[b].flatten().tolist(), strict=True))
        if differing:
            payoff[a, b] = (scores[a] - scores[b]) * MAPS[a].numel() / differing
    assert torch.equal(payoff, -payoff.T)  # a zero-sum game, and the same one for both
    logits = logits.detach().requires_grad_()
    opponent = map_probabilities(logits.detach())
    return torch.autograd.grad(map_probabilities(logits) @ payoff @ opponent, logits)[0]


@pytest.mark.parametrize("samples", [2, 3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_expected_step_is_that_of_a_zero_sum_game_of_differences_per_differing_pixel(
    seed: int, samples: int
) -> None:
    logits, scores = draw_problem(seed)
    step = psd_step(logits, scores, samples, normalise=True)
    torch.testing.assert_close(step, comparison_step(logits, scores), rtol=0, atol=1e-15)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_with_the_normaliser_the_expected_step_is_the_gradient_of_nothing(seed: int) -> None:
    logits, scores = draw_problem(seed)
    assert asymmetry(lambda z: psd_step(z, scores, 2, normalise=True), logits) > 0.1
    assert asymmetry(lambda z: psd_step(z, scores, 2, normalise=False), logits) < 1e-8
    exact = expected_score_gradient(logits, scores)
    torch.testing.assert_close(psd_step(logits, scores, 2, normalise=False), exact, rtol=0, atol=1e-15)
