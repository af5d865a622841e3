"""The Triton kernels against the torch reference in float64; on a CPU they run in Triton's interpreter."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
    """Probabilities, label maps of an uneven number for each image, and weights."""
    batch, samples, classes, height, width = size
    rng = np.random.default_rng(sum(size))
    logits = rng.normal(0, 3, (batch, classes, height, width))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = batch * samples + 1
    arrays = {
        "p": p.astype(np.float32),
        "maps": rng.integers(0, classes, (rows, height, width)).astype(np.uint8),
        "image": rng.integers(0, batch, rows),
        "weights": rng.normal(size=(rows, classes)).astype(np.float32),
    }
    return {name: torch.from_numpy(array).to(DEVICE) for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("dtype", "cell", "temperature"),
    [(torch.float32, 1, 1.0), (torch.float32, 3, 1.7), (torch.bfloat16, 2, 0.6), (torch.float16, 1, 2.0)],
)
@pytest.mark.parametrize("size", [*SIZES, (1, 37, 4, 9, 15)], ids=str)
def test_the_same_seed_gives_the_same_label_maps_but_for_rounding(
    kernels: ModuleType, size: tuple[int, int, int, int, int], dtype: torch.dtype, cell: int, temperature: float
) -> None:
    from agents.ops import sample_label_maps, uniforms

    batch, samples, classes, height, width = size
    logits = 3 * torch.randn((batch, classes, height, width), generator=torch.Generator().manual_seed(sum(size)))
    logits = logits.to(DEVICE, dtype)
    seed, offset = 2**62 + 2**31 + 1, (4, 2)
    shift = torch.tensor(offset, device=DEVICE) % cell
    given = (torch.tensor([seed], device=DEVICE), temperature, cell, shift)
    label_maps = kernels.sample_label_maps(logits, samples, *given)
    assert label_maps.dtype == torch.uint8
    sums = (logits.double() / temperature).softmax(dim=1).cumsum(dim=1)[:, None, :-1]  # (B, 1, C - 1, H, W)
    draws = uniforms(label_maps.shape, seed, cell, offset, DEVICE).double()[:, :, None]
    clear = ((draws - sums).abs() > 1e-6).all(dim=2)
    assert clear.float().mean() > 0.99
    assert torch.equal(label_maps[clear].long(), (draws >= sums).sum(dim=2)[clear])
    exact = sample_label_maps(logits.double(), samples, seed, temperature=temperature, cell=cell, offset=offset)
    assert torch.equal(label_maps[clear], exact[clear])
    for strided in (logits.to(memory_format=torch.channels_last), torch.stack([logits, -logits], dim=-1)[..., 0]):
        assert torch.equal(kernels.sample_label_maps(strided, samples, *given), label_maps)


@pytest.mark.parametrize("impossible", [-math.inf, -200.0])
@pytest.mark.parametrize("zeros", [[0], [0, 1, 2], [2], [3, 4], [0, 2, 4], [1, 2, 3, 4]], ids=str)
def test_a_class_of_probability_zero_is_never_drawn(kernels: ModuleType, zeros: list[int], impossible: float) -> None:
    from agents.ops import uniforms

    logits = torch.randn((1, 5, 40, 41), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    logits[:, zeros] = impossible
    possible = sorted(set(range(5)) - set(zeros))
    offset = torch.zeros(2, dtype=torch.int64, device=DEVICE)
    # Of these seeds this sample's number in the first cell is the smallest, 0, and the largest, 1 − 2⁻²⁴.
    for seed, sample, number, label in ((1343428, 3, 0.0, possible[0]), (39075, 3, 1 - 2**-24, possible[-1])):
        assert (uniforms((1, 4, 40, 41), seed, 64)[0, sample] == number).all()
        given = torch.tensor([seed], device=DEVICE)
        assert (kernels.sample_label_maps(logits, 4, given, 1.0, 64, offset)[0, sample] == label).all()
        label_maps = kernels.sample_label_maps(logits, 4, given, 1.0, 1, offset)
        assert label_maps.unique().tolist() == possible


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


def test_counts_and_credits_read_label_maps_where_they_are(kernels: ModuleType) -> None:
    given = draw((2, 3, 34, 9, 7))
    p, maps, image, weights = (given[name] for name in ("p", "maps", "image", "weights"))
    changed = {
        "gaps": torch.stack([maps, maps], dim=-1)[..., 0],
        "transposed": maps.transpose(1, 2).contiguous().transpose(1, 2),
        "samples last": maps.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    }
    counts, credit = kernels.soft_counts(p, maps, image), kernels.class_credit(maps, image, weights, 2)
    for strided in changed.values():
        assert not strided.is_contiguous()
        for found, right in zip(kernels.soft_counts(p, strided, image), counts, strict=True):
            assert torch.equal(found, right)
        assert torch.equal(kernels.class_credit(strided, image, weights, 2), credit)


def test_counts_of_several_spans_are_exact(kernels: ModuleType) -> None:
    # Multiples of 1/64: float32 holds every sum of them. 20,500 pixels are three spans, the last one not full.
    from agents.ops import torch_ops

    generator = torch.Generator().manual_seed(0)
    p = (torch.randint(65, (1, 34, 205, 100), generator=generator) / 64).to(DEVICE)
    maps = torch.randint(34, (2, 205, 100), generator=generator, dtype=torch.uint8).to(DEVICE)
    image = torch.zeros(2, dtype=torch.int64, device=DEVICE)
    assert kernels.count_span(205 * 100) == kernels.SPAN < 205 * 100 / 2
    results = kernels.soft_counts(p, maps, image)
    for found, right in zip(results, torch_ops.soft_counts(p, maps, image), strict=True):
        assert torch.equal(found, right)


@pytest.mark.parametrize("operation", ["draw", "policy gradient"])
def test_places_of_logits_may_pass_two_to_the_thirty_first(kernels: ModuleType, operation: str) -> None:
    # Pages that nobody touches cost no memory.
    far = torch.empty(2**31 + 2**20, dtype=torch.float16, device=DEVICE)
    near = torch.randn((1, 3, 5, 7), generator=torch.Generator().manual_seed(0)).to(DEVICE, torch.float16)
    logits = far.as_strided((1, 3, 5, 7), (1, 2**30, 7, 1))
    logits.copy_(near)
    label_maps = torch.ones((1, 2, 5, 7), dtype=torch.uint8, device=DEVICE)
    seed, offset = (torch.zeros(n, dtype=torch.int64, device=DEVICE) for n in (1, 2))

    def run(z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if operation == "draw":
            return (kernels.sample_label_maps(z, 8, seed, 1.0, 1, offset),)
        *values, weights = kernels.policy_gradient(z, label_maps, torch.ones((1, 2, 1, 1), device=DEVICE))
        gradient = kernels.policy_gradient_backward(z, weights, torch.ones(2, device=DEVICE))
        return *values, weights, gradient

    for found, right in zip(run(logits), run(near), strict=True):  # compiled for other strides: it may round otherwise
        torch.testing.assert_close(found, right)


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
    # One label map after the other is added, in every implementation.
    assert torch.equal(result, torch_ops.class_credit(given["maps"], given["image"], given["weights"], batch))


def test_the_dispatch_takes_triton_where_it_is_asked_for(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
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
