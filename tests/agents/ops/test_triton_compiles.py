"""What the interpreter does not show: whether the kernels' types are right for the compiler."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(platform.machine() != "x86_64", reason="Triton's wheel has an assembler for x86-64 only")
def test_every_kernel_compiles_for_an_h100(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="needs triton: pip install triton")
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.agents.ops.triton_compile"],
        env=env | {"TRITON_CACHE_DIR": str(tmp_path)},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 22
