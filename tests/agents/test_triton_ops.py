"""The Triton kernels against the torch reference in float64; on a CPU they run in Triton's interpreter."""

from __future__ import annotations

import os
from types import ModuleType

import numpy as np
import pytest
import torch

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
DEVICE = torch.device("cuda" if CUDA else "cpu")
SIZES = [
    (2, 3, 5, 7, 9),
    (1, 2, 2, 16, 17),
    (2, 2, 21, 13, 11),
    (1, 2, 150, 5, 30),
    (1, 1, 255, 3, 43),
    (3, 1, 3, 1, 1),
]


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    pytest.importorskip("triton", reason="needs triton: pip install triton")
    from agents.ops import triton_ops

    return triton_ops


def draw(size: tuple[int, int, int, int, int]) -> dict[str, torch.Tensor]:
    """Probabilities, draws, label maps of an uneven number for each image, weights and advantages."""
    batch, samples, classes, height, width = size
    rng = np.random.default_rng(sum(size))
    logits = rng.normal(0, 3, (batch, classes, height, width))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = batch * samples + 1
    arrays = {
        "p": p.astype(np.float32),
        "uniforms": rng.random((batch, samples, height, width)).astype(np.float32),
        "batch_maps": rng.integers(0, classes, (batch, samples, height, width)).astype(np.uint8),
        "maps": rng.integers(0, classes, (rows, height, width)).astype(np.uint8),
        "image": rng.integers(0, batch, rows),
        "weights": rng.normal(size=(rows, classes)).astype(np.float32),
        "advantages": rng.normal(size=(batch, samples, 1, 1)).astype(np.float32),
        "pixel_advantages": rng.normal(size=(batch, samples, height, width)).astype(np.float32),
    }
    return {name: torch.from_numpy(array).to(DEVICE) for name, array in arrays.items()}


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_same_draws_give_the_same_label_maps(kernels: ModuleType, size: tuple[int, int, int, int, int]) -> None:
    from agents.ops import torch_ops

    given = draw(size)
    cumulative = given["p"].cumsum(dim=1)
    label_maps = kernels.invert(cumulative, given["uniforms"])
    assert label_maps.dtype == torch.uint8
    assert torch.equal(label_maps, torch_ops.invert(cumulative, given["uniforms"]))
    strided = cumulative.to(memory_format=torch.channels_last)
    assert torch.equal(kernels.invert(strided, given["uniforms"]), label_maps)


def test_a_class_of_probability_zero_is_never_drawn(kernels: ModuleType) -> None:
    p = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0], device=DEVICE).view(1, 5, 1, 1).expand(1, 5, 20, 30)
    uniforms = torch.rand((1, 4, 20, 30), device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(0))
    uniforms[0, 0, 0, :3] = torch.tensor([0.0, 0.5, 1 - 2**-24])
    label_maps = kernels.invert(p.cumsum(dim=1), uniforms)
    assert set(label_maps.unique().tolist()) == {1, 3}
    assert label_maps[0, 0, 0, :3].tolist() == [1, 3, 3]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_credit_is_that_of_the_reference_in_float64(kernels: ModuleType, size: tuple[int, int, int, int, int]) -> None:
    from agents.ops import torch_ops

    given = draw(size)
    for name in ("advantages", "pixel_advantages"):
        expected = torch_ops.credit(given["batch_maps"], given[name].double(), size[2])
        result = kernels.credit(given["batch_maps"], given[name], size[2])
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_soft_counts_are_those_of_the_reference_in_float64(
    kernels: ModuleType, size: tuple[int, int, int, int, int], layout: torch.memory_format
) -> None:
    from agents.ops import torch_ops

    given = draw(size)
    expected, predicted = torch_ops.soft_counts(given["p"].double(), given["maps"], given["image"])
    p = given["p"].to(memory_format=layout)
    results = kernels.soft_counts(p, given["maps"], given["image"])
    torch.testing.assert_close(results[0].double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(results[1].double(), predicted)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_class_credit_is_that_of_the_reference_in_float64_and_images_without_label_maps_get_none(
    kernels: ModuleType, size: tuple[int, int, int, int, int]
) -> None:
    from agents.ops import torch_ops

    given = draw(size)
    batch = size[0] + 1  # the last image has no label map
    expected = torch_ops.class_credit(given["maps"], given["image"], given["weights"].double(), batch)
    result = kernels.class_credit(given["maps"], given["image"], given["weights"], batch)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-5)
    assert not result[-1].any()


def test_the_dispatch_takes_triton_where_it_is_told_to(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from agents import ops

    monkeypatch.setenv("RSS_OPS", "triton")
    called = []
    original = kernels.soft_counts
    monkeypatch.setattr(kernels, "soft_counts", lambda *args: called.append(1) or original(*args))
    given = draw(SIZES[0])
    ops.soft_counts(given["p"], given["maps"], given["image"])
    assert called
    ops.soft_counts(given["p"].double(), given["maps"], given["image"])  # float64 is the reference's
    assert len(called) == 1
