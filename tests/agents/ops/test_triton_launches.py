"""How the Triton kernels are launched, and what the compiler makes of them, neither of which the interpreter shows.

No GPU is needed: ``benchmarks.kernel_resources`` records launches without running them, and compiles for a GPU that is
not there.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import kernel_resources
from benchmarks.kernel_resources import OPERATIONS, RESULTS_FILE, Launch, launch_of
from benchmarks.results_file import Row, read_rows

triton = pytest.importorskip("triton", reason="needs triton: pip install triton")

CUDA_LIMITS = (2**31 - 1, 2**16 - 1, 2**16 - 1)  # programs along the three axes of a grid
SIZES = [  # B, C, H, W
    (1, 19, 1024, 2048),
    (1, 150, 1024, 1024),
    (16, 21, 4096, 4096),
    (1024, 255, 4096, 4096),
]
WITH_64_BITS = ("count", "pack_labels", "unpack_labels")  # they number pixels so
names = pytest.mark.parametrize("name", OPERATIONS)


def test_every_kernel_and_every_operation_is_recorded() -> None:
    from agents.ops import library, triton_ops
    from rss_env.rewards.counting import triton as count_triton

    kernels = {
        name
        for module in (triton_ops, count_triton)
        for name, value in vars(module).items()
        if type(value).__name__ in ("JITFunction", "InterpretedFunction")
        if "program_id" in inspect.getsource(value.fn)
    }
    assert kernels == {f"_{name}" for name in OPERATIONS}
    registered = {name for name, value in vars(library).items() if hasattr(value, "register_fake")}
    # Whatever launches a kernel is wrapped: it does so on the device of its first tensor.
    assert registered | {"pack_labels", "unpack_labels"} == {
        name for name, value in vars(triton_ops).items() if hasattr(value, "__wrapped__")
    }


@names
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("samples", [1, 64])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_grid_is_within_the_limits_of_cuda_and_covers_all_pixels(
    name: str, size: tuple[int, int, int, int], samples: int, layout: str
) -> None:
    launch = launch_of(name, (size[0], samples, *size[1:]), layout=layout)
    assert all(1 <= length <= limit for length, limit in zip(launch.grid, CUDA_LIMITS, strict=False))
    pixels = launch.arguments.get("SPAN", launch.arguments["BLOCK"])
    if name.endswith("pack_labels"):  # several labels a number; label maps of one image are packed
        rows = 1 if name == "pack_labels" else size[0]
        blocks = math.ceil(math.ceil(samples * size[2] * size[3] / launch.arguments["HELD"]) / pixels)
        assert launch.grid == (rows * blocks,)
        return
    rows = size[0] * (samples if name in ("soft_counts", "count") else 1)
    chunks = math.ceil(size[1] / launch.arguments["CLASSES"]) if name == "class_credit" else 1
    assert math.prod(launch.grid) == rows * chunks * math.ceil(size[2] * size[3] / pixels)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in WITH_64_BITS])
def test_images_too_large_for_a_kernel_are_an_error_and_not_a_wrong_result(name: str) -> None:
    with pytest.raises(ValueError, match="An image has at most 2147483647 pixels, got 2147483648"):
        launch_of(name, (1, 1, 2, 2**16, 2**15))


def test_more_programs_than_a_grid_takes_are_an_error() -> None:
    with pytest.raises(ValueError, match="A kernel has at most 2147483647 programs, got 8192 × 4194304"):
        launch_of("policy_gradient", (2**13, 2, 255, 2**14, 2**15))


@names
def test_kernels_are_launched_on_the_device_of_their_tensors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    @contextlib.contextmanager
    def device_of(tensor: torch.Tensor) -> Iterator[None]:
        events.append(f"on {tensor.device}")
        yield
        events.append("back")

    def record(*args: object) -> Launch:
        events.append("launch")
        return Launch(*args)

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(kernel_resources, "Launch", record)
    launch_of(name, (2, 3, 5, 6, 7))
    assert events == ["on meta", "launch", "back"]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """What the command writes for a part of the committed table."""
    if platform.machine() != "x86_64":
        pytest.skip("Triton's wheel has an assembler for x86-64 only")
    folder = tmp_path_factory.mktemp("compiled")
    words = ["--classes", "21", "150", "--dtypes", "fp32", "--out", str(folder / "resources.csv")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kernel_resources", *words],
        env={name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        | {"TRITON_CACHE_DIR": str(folder)},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return read_rows(folder / "resources.csv")


def test_every_kernel_compiles_for_an_h100_and_none_spills(compiled: list[Row]) -> None:
    assert {row["kernel"] for row in compiled} == set(OPERATIONS)
    assert len(compiled) == 24  # with 21 and 150 classes: four kernels in two memory formats, and four in one
    for row in compiled:
        assert row["stack_bytes"] == row["local_bytes"] == "0", row
        assert 8 < int(row["registers"]) < 255, row


def test_the_committed_table_has_every_kernel_and_number_of_classes_and_none_spills() -> None:
    rows = read_rows(RESULTS_FILE)
    assert {(row["kernel"], int(row["classes"])) for row in rows} == {
        (name, classes) for name in OPERATIONS for classes in (5, 21, 64, 150, 255)
    }
    assert all(row["stack_bytes"] == row["local_bytes"] == "0" for row in rows)


def test_the_committed_table_is_that_of_the_kernels_as_they_are(compiled: list[Row]) -> None:
    known = {
        tuple(row[name] for name in ("kernel", "classes", "logits", "layout")): row for row in read_rows(RESULTS_FILE)
    }
    for row in compiled:
        committed = known[tuple(row[name] for name in ("kernel", "classes", "logits", "layout"))]
        if row["triton"] != committed["triton"]:
            pytest.skip(f"The table is that of Triton {committed['triton']}, this is {row['triton']}.")
        same = ("registers", "stack_bytes", "local_bytes", "shared_bytes")
        assert [row[name] for name in same] == [committed[name] for name in same], row
