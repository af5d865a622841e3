"""The operations as torch knows them: what they promise of their results holds, and they compile into one graph."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch

from agents.ops import class_credit, library, sample_label_maps, soft_counts, torch_ops

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH, SAMPLES, CLASSES, HEIGHT, WIDTH = 2, 3, 5, 4, 7


def draw(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = BATCH * SAMPLES + 1
    tensors = {
        "p": torch.randn((BATCH, CLASSES, HEIGHT, WIDTH), generator=generator, dtype=dtype).softmax(dim=1),
        "seed": torch.tensor([2**40]),
        "offset": torch.tensor([2, 1]),
        "maps": torch.randint(CLASSES, (rows, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8),
        "image": torch.randint(BATCH, (rows,), generator=generator),
        "weights": torch.randn((rows, CLASSES), generator=generator, dtype=dtype),
    }
    return {name: tensor.to(DEVICE) for name, tensor in tensors.items()}


Given = dict[str, torch.Tensor]
REGISTERED: dict[str, tuple[Any, Callable[[Given], tuple[Any, ...]]]] = {
    "sample_label_maps": (library.sample_label_maps, lambda t: (t["p"], SAMPLES, t["seed"], 2.0, 3, t["offset"])),
    "soft_counts": (library.soft_counts, lambda t: (t["p"], t["maps"], t["image"])),
    "class_credit": (library.class_credit, lambda t: (t["maps"], t["image"], t["weights"], BATCH)),
}
PUBLIC: dict[str, Callable[[Given], Any]] = {
    "sample_label_maps": lambda t: sample_label_maps(t["p"], SAMPLES, 2**40, cell=3, offset=(2, 1)),
    "sample_label_maps, seed on the device": lambda t: sample_label_maps(
        t["p"], SAMPLES, t["seed"], temperature=2.0, cell=3, offset=t["offset"]
    ),
    "soft_counts": lambda t: soft_counts(t["p"], t["maps"], t["image"]),
    "class_credit": lambda t: class_credit(t["maps"], t["image"], t["weights"], BATCH),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", REGISTERED)
def test_results_have_the_shapes_and_layouts_that_the_fake_kernels_promise(
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
    DEVICE.type != "cpu" or importlib.util.find_spec("numba") is None,
    reason="needs a CPU and numba: pip install 'rss-env[fast]'",
)
def test_the_implementation_is_chosen_at_every_call_of_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    called = []
    original = torch_ops.soft_counts
    monkeypatch.setattr(torch_ops, "soft_counts", lambda *args: called.append(1) or original(*args))
    function = torch.compile(PUBLIC["soft_counts"], fullgraph=True, backend="eager")
    for choice, calls in (("torch", 1), ("numba", 1), ("torch", 2)):
        monkeypatch.setenv("RSS_OPS", choice)
        function(draw())
        assert len(called) == calls


def test_no_gradient_flows_through_draws_counts_and_credit(backend: str) -> None:
    given = draw()
    for name in ("p", "weights"):
        given[name].requires_grad_()
    for name, function in PUBLIC.items():
        results = function(given)
        for result in results if isinstance(results, tuple) else (results,):
            assert not result.requires_grad, name
