"""How the Triton kernels are launched: on how large a grid, and on which device. Nothing runs, so no GPU is needed.

The wrappers get tensors without memory, and in place of each kernel a record of its launches.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

CUDA_LIMITS = (2**31 - 1, 2**16 - 1, 2**16 - 1)  # programs along the three axes of a grid
SIZES = [  # B, C, H, W
    (1, 19, 1024, 2048),
    (1, 150, 1024, 1024),
    (16, 21, 4096, 4096),
    (1024, 255, 4096, 4096),
]
Size = tuple[int, int, int, int]


class Launches:
    """Stands in for a kernel.

    Attributes:
        grids: of every launch.
        arguments: of every launch.
        devices: on which device each launch was, as ``torch.cuda.device_of`` was told.
    """

    current: str | None = None

    def __init__(self) -> None:
        self.grids: list[tuple[int, ...]] = []
        self.arguments: list[dict[str, Any]] = []
        self.devices: list[str | None] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*positional: Any, **constants: Any) -> None:
            self.grids.append(grid)
            self.arguments.append(constants)
            self.devices.append(Launches.current)

        return launch


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> dict[str, Launches]:
    """Of every kernel, by its name."""
    pytest.importorskip("triton", reason="needs triton: pip install triton")
    from agents.ops import triton_ops
    from rss_env.rewards.counting import triton as count_triton

    def replace(module: ModuleType, name: str) -> Launches:
        monkeypatch.setattr(module, name, Launches())
        return getattr(module, name)

    kernels = {name: replace(triton_ops, f"_{name}") for name in OPERATIONS if name != "count"}
    return kernels | {"count": replace(count_triton, "_count")}


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def draw(size: Size, samples: int) -> Any:
    from agents.ops import triton_ops

    seed, offset = empty(1, dtype=torch.int64), empty(2, dtype=torch.int64)
    return triton_ops.sample_label_maps(empty(*size), samples, seed, 1.0, 1, offset)


def soft_counts(size: Size, samples: int) -> Any:
    from agents.ops import triton_ops

    rows = size[0] * samples
    maps, image = empty(rows, *size[2:], dtype=torch.uint8), empty(rows, dtype=torch.int64)
    return triton_ops.soft_counts(empty(*size), maps, image)


def class_credit(size: Size, samples: int) -> Any:
    from agents.ops import triton_ops

    rows = size[0] * samples
    maps, image = empty(rows, *size[2:], dtype=torch.uint8), empty(rows, dtype=torch.int64)
    return triton_ops.class_credit(maps, image, empty(rows, size[1]), size[0])


def policy_gradient(size: Size, samples: int) -> Any:
    from agents.ops import triton_ops

    maps = empty(size[0], samples, *size[2:], dtype=torch.uint8)
    return triton_ops.policy_gradient(empty(*size), maps, empty(size[0], samples, 1, 1))


def policy_gradient_backward(size: Size, samples: int) -> Any:
    from agents.ops import triton_ops

    return triton_ops.policy_gradient_backward(empty(*size), empty(*size), empty(2))


def count(size: Size, samples: int) -> Any:
    from rss_env.rewards.counting import triton as count_triton

    batch, classes, height, width = size
    maps = empty(batch, samples, height * width, dtype=torch.uint8)
    return count_triton.count_labels(maps, empty(batch, height * width, dtype=torch.uint8), classes)


OPERATIONS: dict[str, Callable[[Size, int], Any]] = {
    "draw": draw,
    "soft_counts": soft_counts,
    "class_credit": class_credit,
    "policy_gradient": policy_gradient,
    "policy_gradient_backward": policy_gradient_backward,
    "count": count,
}
names = pytest.mark.parametrize("name", OPERATIONS)


def test_every_kernel_and_every_operation_is_here() -> None:
    triton = pytest.importorskip("triton", reason="needs triton: pip install triton")
    from agents.ops import library, triton_ops
    from rss_env.rewards.counting import triton as count_triton

    kernels = {
        name
        for module in (triton_ops, count_triton)
        for name, value in vars(module).items()
        if isinstance(value, triton.runtime.JITFunction | triton.runtime.interpreter.InterpretedFunction)
        if "program_id" in inspect.getsource(value.fn)
    }
    assert kernels == {f"_{name}" for name in OPERATIONS}
    registered = {name for name in vars(library) if hasattr(getattr(library, name), "register_fake")}
    assert registered <= {name for name in vars(triton_ops) if hasattr(getattr(triton_ops, name), "__wrapped__")}


@names
@pytest.mark.parametrize("samples", [1, 64])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_grid_is_within_the_limits_of_cuda_and_covers_all_pixels(
    launches: dict[str, Launches], name: str, size: Size, samples: int
) -> None:
    OPERATIONS[name](size, samples)
    ((grid,), (constants,)) = launches[name].grids, launches[name].arguments
    assert all(1 <= length <= limit for length, limit in zip(grid, CUDA_LIMITS, strict=False))
    pixels = constants.get("SPAN", constants["BLOCK"])
    rows = size[0] * (samples if name in ("soft_counts", "count") else 1)
    chunks = math.ceil(size[1] / constants["CLASSES"]) if name == "class_credit" else 1
    assert math.prod(grid) == rows * chunks * math.ceil(size[2] * size[3] / pixels)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "count"])  # it numbers pixels with 64 bits
def test_images_too_large_for_a_kernel_are_an_error_and_not_a_wrong_result(
    launches: dict[str, Launches], name: str
) -> None:
    with pytest.raises(ValueError, match="An image has at most 2147483647 pixels, got 2147483648"):
        OPERATIONS[name]((1, 2, 2**16, 2**15), 1)
    assert not launches[name].grids


def test_more_programs_than_a_grid_takes_are_an_error(launches: dict[str, Launches]) -> None:
    with pytest.raises(
        ValueError, match=r"A kernel has at most 2147483647 programs, got 8192 × [0-9]+: take smaller batches"
    ):
        policy_gradient((2**13, 255, 2**14, 2**15), 2)


@names
def test_kernels_are_launched_on_the_device_of_their_tensors(
    launches: dict[str, Launches], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def device_of(tensor: torch.Tensor) -> Iterator[None]:
        Launches.current = tensor.device.type
        try:
            yield
        finally:
            Launches.current = None

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    OPERATIONS[name]((2, 5, 6, 7), 3)
    assert launches[name].devices == ["meta"]
