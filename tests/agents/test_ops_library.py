"""The operations as torch knows them: what they promise of their results holds, and they compile into one graph."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from agents.ops import (
    class_credit,
    credit,
    library,
    pair_credit,
    pair_differences,
    sample_label_maps,
    soft_counts,
    torch_ops,
)

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
DEVICE = torch.device("cuda" if CUDA else "cpu")
BATCH, SAMPLES, CLASSES, HEIGHT, WIDTH = 2, 3, 5, 4, 7
HINTS = {"numba": "pip install 'rss-env[fast]'", "triton": "pip install triton"}


@pytest.fixture(params=["torch", "numba", "triton"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param in HINTS:
        pytest.importorskip(request.param, reason=f"needs {request.param}: {HINTS[request.param]}")
    if request.param == "numba" and CUDA:
        pytest.skip("numba runs on tensors of the CPU")
    monkeypatch.setenv("RSS_OPS", request.param)
    return request.param


def draw(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape, rows = (BATCH, SAMPLES, HEIGHT, WIDTH), BATCH * SAMPLES + 1
    tensors = {
        "p": torch.randn((BATCH, CLASSES, HEIGHT, WIDTH), generator=generator, dtype=dtype).softmax(dim=1),
        "seed": torch.tensor([2**40]),
        "offset": torch.tensor([2, 1]),
        "batch_maps": torch.randint(CLASSES, shape, generator=generator, dtype=torch.uint8),
        "maps": torch.randint(CLASSES, (rows, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8),
        "image": torch.randint(BATCH, (rows,), generator=generator),
        "weights": torch.randn((rows, CLASSES), generator=generator, dtype=dtype),
        "advantages": torch.randn((BATCH, SAMPLES, 1, 1), generator=generator, dtype=dtype),
        "pixel_advantages": torch.randn(shape, generator=generator, dtype=dtype),
        "pairs": torch.randn((BATCH, SAMPLES, SAMPLES), generator=generator, dtype=dtype),
    }
    return {name: tensor.to(DEVICE) for name, tensor in tensors.items()}


Given = dict[str, torch.Tensor]
REGISTERED: dict[str, tuple[Any, Callable[[Given], tuple[Any, ...]]]] = {
    "sample_label_maps": (
        library.sample_label_maps,
        lambda t: (t["p"], SAMPLES, t["seed"], 2.0, 3, t["offset"], 0.1, True),
    ),
    "credit, image level": (library.credit, lambda t: (t["batch_maps"], t["advantages"], CLASSES)),
    "credit, pixel level": (library.credit, lambda t: (t["batch_maps"], t["pixel_advantages"], CLASSES)),
    "soft_counts": (library.soft_counts, lambda t: (t["p"], t["maps"], t["image"])),
    "class_credit": (library.class_credit, lambda t: (t["maps"], t["image"], t["weights"], BATCH)),
    "pair_differences": (library.pair_differences, lambda t: (t["batch_maps"],)),
    "pair_credit": (library.pair_credit, lambda t: (t["batch_maps"], t["pairs"])),
}
PUBLIC: dict[str, Callable[[Given], Any]] = {
    "sample_label_maps": lambda t: sample_label_maps(t["p"], SAMPLES, 2**40, cell=3, offset=(2, 1), floor=0.1),
    "sample_label_maps, seed on the device": lambda t: sample_label_maps(
        t["p"], SAMPLES, t["seed"], temperature=2.0, cell=3, offset=t["offset"], stratified=True
    ),
    "credit": lambda t: credit(t["batch_maps"], t["advantages"], CLASSES),
    "soft_counts": lambda t: soft_counts(t["p"], t["maps"], t["image"]),
    "class_credit": lambda t: class_credit(t["maps"], t["image"], t["weights"], BATCH),
    "pair_differences": lambda t: pair_differences(t["batch_maps"]),
    "pair_credit": lambda t: pair_credit(t["batch_maps"], t["pairs"]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", REGISTERED)
def test_results_have_the_shapes_and_layouts_that_torch_was_told(
    backend: str, name: str, layout: torch.memory_format, dtype: torch.dtype
) -> None:
    operation, arguments = REGISTERED[name]
    given = {key: t.to(memory_format=layout) if t.ndim == 4 else t for key, t in draw(dtype).items()}
    torch.library.opcheck(operation, arguments(given))


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", PUBLIC)
def test_a_function_that_calls_them_compiles_into_one_graph(backend: str, name: str, compiler: str) -> None:
    torch.compiler.reset()
    plain, compiled = draw(), draw()
    expected = PUBLIC[name](plain)
    result = torch.compile(PUBLIC[name], fullgraph=True, backend=compiler)(compiled)
    torch.testing.assert_close(result, expected, rtol=0, atol=0)
    torch.testing.assert_close(compiled, draw(), rtol=0, atol=0)  # nothing is changed in place


@pytest.mark.skipif(
    CUDA or importlib.util.find_spec("numba") is None, reason="needs a CPU and numba: " + HINTS["numba"]
)
def test_the_implementation_is_chosen_at_every_call_of_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    called = []
    original = torch_ops.credit
    monkeypatch.setattr(torch_ops, "credit", lambda *args: called.append(1) or original(*args))
    function = torch.compile(PUBLIC["credit"], fullgraph=True, backend="eager")
    for choice, calls in (("torch", 1), ("numba", 1), ("torch", 2)):
        monkeypatch.setenv("RSS_OPS", choice)
        function(draw())
        assert len(called) == calls


def test_no_gradient_flows_through_draws_counts_and_credit(backend: str) -> None:
    given = draw()
    for name in ("p", "weights", "advantages"):
        given[name].requires_grad_()
    for name, function in PUBLIC.items():
        results = function(given)
        for result in results if isinstance(results, tuple) else (results,):
            assert not result.requires_grad, name
