"""Label maps packed into 32-bit numbers, against whole-number arithmetic of Python."""

from __future__ import annotations

import importlib
import math
import os
from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.ops.torch_ops import labels_a_number
from agents.scores.packing import PackedMaps, packed_bytes, unpack

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
HINTS = {"numba": "pip install 'rss-env[fast]'", "triton": "pip install triton"}


@pytest.fixture(params=["torch", "numba", "triton"])
def ops(request: pytest.FixtureRequest) -> ModuleType:
    if request.param in HINTS:
        pytest.importorskip(request.param, reason=f"needs {request.param}: {HINTS[request.param]}")
    return importlib.import_module(f"agents.ops.{request.param}_ops")


def place(ops: ModuleType) -> torch.device:
    """Where tensors are for an implementation."""
    return torch.device("cuda" if CUDA and ops.__name__.endswith("triton_ops") else "cpu")


def pack_oracle(labels: list[int], num_classes: int) -> list[int]:
    held = labels_a_number(num_classes)
    many = -(-len(labels) // held)
    return [
        sum(label * num_classes ** (i // many) for i, label in enumerate(labels) if i % many == j) for j in range(many)
    ]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(num_classes=st.integers(2, 256), length=st.integers(1, 200), data=st.data())
def test_labels_are_the_digits_of_numbers(ops: ModuleType, num_classes: int, length: int, data: st.DataObject) -> None:
    largest = data.draw(st.booleans())  # the numbers as large as they can be
    low = num_classes - 1 if largest else 0
    labels = data.draw(st.lists(st.integers(low, num_classes - 1), min_size=length, max_size=length))
    maps = torch.tensor(labels, dtype=torch.uint8, device=place(ops))
    numbers = ops.pack_labels(maps, num_classes)
    assert [number % 2**32 for number in numbers.tolist()] == pack_oracle(labels, num_classes)
    assert numbers.nbytes == packed_bytes(length, num_classes)
    other = ops.pack_labels(maps.flip(0), num_classes)
    out = torch.full((3, length), 77, dtype=torch.uint8, device=place(ops))
    ops.unpack_labels(out, [numbers, other, numbers], num_classes)
    assert out.tolist() == [labels, labels[::-1], labels]


@pytest.mark.parametrize("num_classes", [2, 3, 5, 11, 19, 21, 150, 255, 256])
def test_no_quotient_is_rounded_to_a_wrong_digit(ops: ModuleType, num_classes: int) -> None:
    # Numbers next to multiples of every power of C, where a quotient that is off by an ulp would show.
    held, top = labels_a_number(num_classes), num_classes ** labels_a_number(num_classes) - 1
    near = {
        min(top, max(0, m * num_classes**e + d)) for e in range(held) for m in range(num_classes) for d in (-1, 0, 1)
    }
    values = sorted(near)
    numbers = torch.tensor([v - 2**32 if v >= 2**31 else v for v in values], dtype=torch.int32, device=place(ops))
    out = torch.empty(1, held * len(values), dtype=torch.uint8, device=place(ops))
    ops.unpack_labels(out, [numbers], num_classes)
    for digit, labels in enumerate(out.view(held, -1).tolist()):
        assert labels == [v // num_classes**digit % num_classes for v in values]


@pytest.mark.parametrize(("num_classes", "smaller"), [(2, 8), (5, 3.25), (11, 2.25), (21, 1.75), (150, 1)])
def test_how_much_smaller_packed_label_maps_are(num_classes: int, smaller: float) -> None:
    maps = torch.randint(num_classes, (32, 72, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    packed = PackedMaps.pack(maps, num_classes)
    assert maps.nbytes / packed.nbytes == pytest.approx(smaller, rel=1e-3)
    assert labels_a_number(num_classes) == math.floor(32 / math.log2(num_classes))
    out = torch.empty(2, *maps.shape, dtype=torch.uint8)
    assert unpack([packed, packed], out) is out
    assert torch.equal(out[0], maps)
    assert torch.equal(out[1], maps)


def test_no_label_maps_are_unpacked_to_nothing() -> None:
    assert unpack([], torch.empty(0, 4, 8, 8, dtype=torch.uint8)).shape == (0, 4, 8, 8)


def test_label_maps_that_are_not_contiguous_are_packed_as_they_read() -> None:
    maps = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4).flip(-1).transpose(1, 2)
    assert torch.equal(unpack([PackedMaps.pack(maps, 25)], torch.empty(1, 2, 4, 3, dtype=torch.uint8))[0], maps)
