"""A real suite of runs through an engine: what the leaderboard writes with it is what it writes without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.leaderboard import __main__ as leaderboard
from benchmarks.results_file import Row, read_rows

MEASURED = ("seconds", "peak_mib", "date")  # other in every run


def check_leaderboard(engine: str, options: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs two entries with two seeds here and through an engine, and compares their rows."""

    def rows_of(engine: str, options: dict[str, str]) -> list[Row]:
        out = folder / engine / "results.csv"
        words = ["--tasks", "shapes-32", "--only", "random", "one class", "--seeds", "1", "2", "--parallel", "2"]
        words += ["--engine", engine, "--engine-options", json.dumps(options)]
        monkeypatch.setattr(
            "sys.argv", ["leaderboard", *words, "--run-dir", str(folder / engine / "runs"), "--out", str(out)]
        )
        assert leaderboard.main() == 0
        rows = [{name: cell for name, cell in row.items() if name not in MEASURED} for row in read_rows(out)]
        return sorted(rows, key=lambda row: (row["entry"], row["seed"], row["reward_queries"]))

    rows = rows_of(engine, options)
    assert {(row["entry"], row["seed"]) for row in rows} == {(e, s) for e in ("random", "one class") for s in "12"}
    assert all(row["status"] == "ok" and row["test_miou"] for row in rows if row["final"] == "1")
    assert rows == rows_of("local", {})
