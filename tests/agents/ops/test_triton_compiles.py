"""What the interpreter does not show: the kernels' types are right for the compiler, and their tiles fit registers."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kernel_resources import OPERATIONS, RESULTS_FILE
from benchmarks.results_file import Row, read_rows

SPARE = 8  # bytes of a thread's stack that the assembler takes for a scalar; a tile that is spilled takes hundreds


def assert_nothing_is_spilled(rows: list[Row]) -> None:
    assert {row["kernel"] for row in rows} == set(OPERATIONS)
    for row in rows:
        assert int(row["local_bytes"]) == 0, row
        assert int(row["stack_bytes"]) <= SPARE, row
        assert 0 < int(row["registers"]) <= 255, row
        assert int(row["shared_bytes"]) <= 48 * 1024, row


@pytest.mark.skipif(platform.machine() != "x86_64", reason="Triton's wheel has an assembler for x86-64 only")
def test_no_kernel_spills_with_150_classes(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="needs triton: pip install triton")
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    words = ["--classes", "150", "--dtypes", "bf16", "--out", str(tmp_path / "resources.csv")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kernel_resources", *words],
        env=env | {"TRITON_CACHE_DIR": str(tmp_path)},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert_nothing_is_spilled(read_rows(tmp_path / "resources.csv"))


def test_the_committed_table_has_every_kernel_and_no_spills() -> None:
    rows = read_rows(RESULTS_FILE)
    assert_nothing_is_spilled(rows)
    for name in OPERATIONS:
        assert {int(row["classes"]) for row in rows if row["kernel"] == name} == {5, 21, 64, 150, 255}
