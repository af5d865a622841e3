"""What the tests of the operations share: each implementation in turn, Triton's in its interpreter without a GPU."""

from __future__ import annotations

import os

import pytest
import torch

HINTS = {"numba": "pip install 'rss-env[fast]'", "triton": "pip install triton"}

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported


@pytest.fixture(params=["torch", "numba", "triton"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param in HINTS:
        pytest.importorskip(request.param, reason=f"needs {request.param}: {HINTS[request.param]}")
    if request.param == "numba" and torch.cuda.is_available():
        pytest.skip("numba runs on tensors of the CPU")
    monkeypatch.setenv("RSS_OPS", request.param)
    return request.param
