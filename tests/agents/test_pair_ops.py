"""The pair operations on every implementation, against loops over pixels."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from agents.ops import pair_credit, pair_differences

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
DEVICE = torch.device("cuda" if CUDA else "cpu")
HINTS = {"numba": "pip install 'rss-env[fast]'", "triton": "pip install triton"}
SIZES = [(1, 2, 2, 1, 1), (2, 3, 4, 5, 7), (1, 5, 21, 9, 31), (2, 16, 3, 13, 40), (1, 33, 255, 4, 6)]  # B, K, C, H, W


@pytest.fixture(params=["torch", "numba", "triton"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param in HINTS:
        pytest.importorskip(request.param, reason=f"needs {request.param}: {HINTS[request.param]}")
    if request.param == "numba" and CUDA:
        pytest.skip("numba runs on tensors of the CPU")
    monkeypatch.setenv("RSS_OPS", request.param)
    return request.param


def draw(size: tuple[int, int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    batch, samples, classes, height, width = size
    rng = np.random.default_rng(sum(size))
    maps = rng.integers(0, classes, (batch, samples, height, width)).astype(np.uint8)
    maps[:, -1] = maps[:, 0]  # a pair that differs nowhere
    return maps, rng.normal(size=(batch, samples, samples)).astype(np.float32)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_differences_are_counted_exactly(backend: str, size: tuple[int, int, int, int, int]) -> None:
    maps, _ = draw(size)
    found = pair_differences(torch.from_numpy(maps).to(DEVICE))
    assert found.dtype == torch.int64
    for b in range(size[0]):
        for k, j in np.ndindex(size[1], size[1]):
            assert found[b, k, j] == np.count_nonzero(maps[b, k] != maps[b, j])


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_credit_is_the_sum_of_the_weights_of_the_label_maps_that_differ(
    backend: str, size: tuple[int, int, int, int, int]
) -> None:
    maps, weights = draw(size)
    expected = np.zeros(maps.shape)
    for b, k, y, x in np.ndindex(maps.shape):
        expected[b, k, y, x] = sum(weights[b, k, j] for j in range(size[1]) if maps[b, k, y, x] != maps[b, j, y, x])
    found = pair_credit(torch.from_numpy(maps).to(DEVICE), torch.from_numpy(weights).to(DEVICE))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.cpu().numpy(), expected, atol=2e-5)


def test_inputs_need_not_be_contiguous(backend: str) -> None:
    maps, weights = draw((2, 4, 3, 6, 5))
    turned = torch.from_numpy(maps).to(DEVICE).transpose(2, 3).contiguous().transpose(2, 3)
    across = torch.from_numpy(weights).to(DEVICE).transpose(1, 2).contiguous().transpose(1, 2)
    straight = torch.from_numpy(maps).to(DEVICE)
    assert torch.equal(pair_differences(turned), pair_differences(straight))
    assert torch.equal(pair_credit(turned, across), pair_credit(straight, torch.from_numpy(weights).to(DEVICE)))
