from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.leaderboard import report
from benchmarks.leaderboard.__main__ import Run, rows_of
from benchmarks.leaderboard.arenas import Arena
from benchmarks.leaderboard.judge import Verdict
from benchmarks.results_file import add_rows, read_rows
from rss_env.errors import OptionError

ARENA = Arena("shapes", "RSS-Shapes-ImageReward-v0", (16, 16), 96, {"num_images": 8, "num_classes": 3})


def test_a_failed_run_has_one_row_and_others_one_a_report() -> None:
    failed = rows_of(Run("mine", ARENA, 1), Verdict("raised\nsomething | bad", queries=7), {"commit": "c"})
    assert len(failed) == 1
    assert (failed[0]["status"], failed[0]["val_miou"], failed[0]["final"]) == ("raised something | bad", "", 1)
    points = [{"reward_queries": q, "seconds": 1.0, "val_miou": 0.1, "val_pixel_accuracy": 0.2} for q in (5, 9)]
    rows = rows_of(Run("mine", ARENA, 2), Verdict(curve=points, queries=9, mean_score=0.5), {"commit": "c"})
    assert [(row["reward_queries"], row["final"], row["seed"]) for row in rows] == [(5, 0, 2), (9, 1, 2)]


def make_rows() -> list[dict[str, object]]:
    rows = []
    for name, values in {"good": [0.5, 0.6, 0.7], "better": [0.8, 0.8, 0.8]}.items():
        for seed, value in enumerate(values):
            points = [
                {"reward_queries": q, "seconds": q / 10, "val_miou": value * q / 64, "val_pixel_accuracy": 0.9}
                for q in (32, 64)
            ]
            rows += rows_of(Run(name, ARENA, seed), Verdict(curve=points, queries=64, mean_score=0.4), {})
    return rows + rows_of(Run("bad", ARENA, 0), Verdict("raised <b>a|b</b>"), {})


def test_the_report_ranks_by_miou_and_lists_failures_last(tmp_path: Path) -> None:
    add_rows(tmp_path / "board.csv", make_rows(), report.KEY)
    lines = report.ranking(read_rows(tmp_path / "board.csv"))
    assert [line[1] for line in lines] == ["better", "good", "bad"]
    assert lines[1][2:6] == ["0.600", "0.500–0.700", "3", "64"]
    assert lines[0][7] == "0.600"
    assert lines[2][0] == "–"
    markdown = report.write(tmp_path / "board.csv").read_text()
    assert "| 1 | better | 0.800 |" in markdown
    assert "raised <b>a/b</b>" in markdown
    assert "![learning curves](board.png)" in markdown


def test_bounds_stand_in_the_ranking_and_take_no_place() -> None:
    point = {"reward_queries": 0, "seconds": 1.0, "val_miou": 0.75, "val_pixel_accuracy": 0.9}
    bound = rows_of(Run("cross-entropy", ARENA, 0), Verdict(curve=[point]), {})
    rows = [{key: str(value) for key, value in row.items()} for row in [*make_rows(), *bound]]
    lines = report.ranking(rows)
    assert [line[:2] for line in lines] == [["1", "better"], ["bound", "cross-entropy"], ["2", "good"], ["–", "bad"]]


def test_a_report_without_results_says_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"holds no results yet; python -m benchmarks.leaderboard"):
        report.write(tmp_path / "no.csv")
