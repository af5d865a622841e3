from __future__ import annotations

import errno
from pathlib import Path

import pytest

from benchmarks.results_file import read_rows, replacing, write_rows


def test_results_that_cannot_be_written_leave_the_old_ones_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_rows(path, [{"a": 1}])

    def fill_the_disk() -> None:
        with replacing(path) as file:
            file.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"cannot write .*rows.csv: No space"):
        fill_the_disk()
    assert read_rows(path) == [{"a": "1"}]
    assert list(tmp_path.iterdir()) == [path]
