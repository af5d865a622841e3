from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.ops import credit

sizes = st.tuples(*(st.integers(1, most) for most in (3, 6, 5, 7)))  # B, K, H, W


@pytest.fixture(params=["torch", "numba"], autouse=True, scope="module")
def ops(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test holds for both implementations."""
    if request.param == "numba":
        pytest.importorskip("numba", reason="needs numba: pip install 'rss-env[fast]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSS_OPS", request.param)
        yield request.param


def one_hot_credit(label_maps: np.ndarray, advantages: np.ndarray, classes: int) -> np.ndarray:
    """The definition, (1/K) Σ_k Aᵏ [aᵏ = c], in float64 with the one-hot tensor that the agent never forms."""
    one_hot = (label_maps[:, :, None] == np.arange(classes)[:, None, None]).astype(np.float64)  # (B, K, C, H, W)
    return (one_hot * advantages.astype(np.float64)[:, :, None]).mean(axis=1)


@settings(deadline=None)
@given(size=sizes, classes=st.integers(2, 255), seed=st.integers(0, 2**32 - 1), pixel_level=st.booleans())
def test_credit_is_the_mean_advantage_of_the_samples_that_chose_the_class(
    size: tuple[int, int, int, int], classes: int, seed: int, pixel_level: bool
) -> None:
    rng = np.random.default_rng(seed)
    label_maps = rng.integers(0, classes, size).astype(np.uint8)
    advantages = rng.normal(0, 3, size if pixel_level else (*size[:2], 1, 1)).astype(np.float32)
    result = credit(torch.from_numpy(label_maps), torch.from_numpy(advantages), classes)
    assert result.dtype == torch.float32
    assert result.shape == (size[0], classes, *size[2:])
    np.testing.assert_allclose(result.numpy(), one_hot_credit(label_maps, advantages, classes), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 4, 1, 1), (2, 4, 3, 5)], ids=["image level", "pixel level"])
def test_credit_in_float64_is_exact_to_rounding(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    label_maps, advantages = rng.integers(0, 3, (2, 4, 3, 5)).astype(np.uint8), rng.normal(size=shape)
    result = credit(torch.from_numpy(label_maps), torch.from_numpy(advantages), 3).numpy()
    np.testing.assert_allclose(result, one_hot_credit(label_maps, advantages, 3), rtol=0, atol=1e-15)


def test_credit_takes_any_memory_layout() -> None:
    rng = np.random.default_rng(0)
    label_maps = rng.integers(0, 4, (6, 5, 3, 2)).astype(np.uint8)
    advantages = rng.normal(size=(6, 5, 3, 2)).astype(np.float32)
    # (2, 3, 6, 5) seen through transposed axes, and one number a label map seen through a broadcast
    maps = torch.from_numpy(label_maps).permute(3, 2, 0, 1)
    for given_advantages in (
        torch.from_numpy(advantages).permute(3, 2, 0, 1),
        torch.from_numpy(advantages[0, 0]).T[:, :, None, None],
        torch.tensor(0.5).expand(2, 3, 1, 1),
    ):
        expected = one_hot_credit(maps.numpy(), np.broadcast_to(given_advantages.numpy(), maps.shape), 4)
        np.testing.assert_allclose(credit(maps, given_advantages, 4), expected, rtol=0, atol=1e-6)
