"""Real runs through an engine: they come to what they come to without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.executors import make_executor
from benchmarks.leaderboard import __main__ as leaderboard
from benchmarks.results_file import Row, read_rows
from tests.benchmarks.executors.work import Training

MEASURED = ("seconds", "peak_mib", "date")  # other in every run


def unbroken(folder: Path, training: Training) -> list[str]:
    """What two trainings come to that nobody ends."""
    here = Training(folder / "here", training.steps)
    here.root.mkdir()
    here.run(2, make_executor("local", 2, {}, folder))
    return [row["result"] for row in sorted(read_rows(here.out), key=lambda row: row["run"])]


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
