from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.leaderboard import report
from benchmarks.leaderboard.__main__ import Run, rows_of
from benchmarks.leaderboard.judge import Verdict
from benchmarks.results_file import add_rows, read_rows
from benchmarks.tasks import CRAFTER, Setting
from rss_env.errors import OptionError
from tests.benchmarks.leaderboard.trials import FEW, SETTING


def test_a_failed_run_has_one_row_and_others_one_a_report() -> None:
    failed = rows_of(Run("mine", SETTING, 1), Verdict("raised\nsomething | bad", queries=7), {"commit": "c"})
    assert len(failed) == 1
    assert (failed[0]["status"], failed[0]["val_miou"], failed[0]["final"]) == ("raised something | bad", "", 1)
    points = [{"reward_queries": q, "seconds": 1.0, "val_miou": 0.1, "val_pixel_accuracy": 0.2} for q in (5, 9)]
    rows = rows_of(Run("mine", SETTING, 2), Verdict(curve=points, queries=9, mean_score=0.5), {"commit": "c"})
    assert [(row["reward_queries"], row["final"], row["seed"]) for row in rows] == [(5, 0, "2"), (9, 1, "2")]


def make_rows() -> list[dict[str, object]]:
    rows = []
    for name, values in {"good": [0.5, 0.6, 0.7], "better": [0.8, 0.8, 0.8]}.items():
        for seed, value in enumerate(values):
            points = [
                {"reward_queries": q, "seconds": q / 10, "val_miou": value * q / 64, "val_pixel_accuracy": 0.9}
                for q in (32, 64)
            ]
            test = {"test_miou": value - 0.1, "test_pixel_accuracy": 0.8}
            verdict = Verdict(curve=points, test=test, queries=64, mean_score=0.4, memory=50.4)
            rows += rows_of(Run(name, SETTING, seed), verdict, {})
    return rows + rows_of(Run("bad", SETTING, 0), Verdict("raised <b>a|b</b>"), {})


def test_the_report_ranks_by_miou_and_lists_failures_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "COMMITTED", tmp_path / "board.csv")  # else entries of the project are ranked as well
    add_rows(tmp_path / "board.csv", make_rows(), report.KEY)
    lines = report.ranking(read_rows(tmp_path / "board.csv"))
    assert [line[1] for line in lines] == ["better", "good", "bad"]
    assert lines[1][2:] == ["0.500", "0.400–0.600", "0.600", "3", "64", "6", "50", "0.600", "ok"]
    assert lines[2][0] == "–"
    markdown = report.write(tmp_path / "board.csv").read_text()
    assert "| 1 | better | 0.700 |" in markdown
    assert "raised <b>a/b</b>" in markdown
    assert "![learning curves on validation](board.png)" in markdown


def test_bounds_stand_in_the_ranking_and_take_no_place() -> None:
    point = {"reward_queries": 0, "seconds": 1.0, "val_miou": 0.75, "val_pixel_accuracy": 0.9}
    bound = rows_of(Run("cross-entropy", SETTING, 0), Verdict(curve=[point], test={"test_miou": 0.65}), {})
    rows = [{key: str(value) for key, value in row.items()} for row in [*make_rows(), *bound]]
    lines = report.ranking(rows)
    assert [line[:2] for line in lines] == [["1", "better"], ["bound", "cross-entropy"], ["2", "good"], ["–", "bad"]]


def as_text(rows: list[dict[str, object]]) -> list[dict[str, str]]:
    return [{key: str(value) for key, value in row.items()} for row in rows]


def ranked(rows: list[dict[str, object]]) -> list[list[str]]:
    """Place, entry and status of the lines."""
    return [[*line[:2], line[-1]] for line in report.ranking(as_text(rows))]


def test_a_late_entry_is_ranked_by_its_last_report_and_marked() -> None:
    verdict = Verdict("ok, over its time of 9 s", curve=[{"val_miou": 0.9}], test={"test_miou": 0.9})
    verdict.curve[0] |= {"reward_queries": 1, "seconds": 9.0}
    late = rows_of(Run("late", SETTING, 0), verdict, {})
    assert ranked([*make_rows(), *late])[0] == ["1", "late", "over its time of 9 s"]
    in_time = rows_of(Run("late", SETTING, 1), Verdict(curve=verdict.curve, test=verdict.test), {})
    assert ranked([*late, *in_time]) == [["1", "late", "1 of 2 seeds over its time of 9 s"]]


def test_validation_alone_ranks_nobody_also_not_in_rows_from_before_there_was_a_test() -> None:
    point = {"reward_queries": 1, "seconds": 1.0, "val_miou": 0.9}
    untested = rows_of(Run("untested", SETTING, 0), Verdict(curve=[point]), {})
    assert ranked([*make_rows(), *untested])[-2] == ["–", "untested", "no test"]
    old = {"entry": "old", "environment": "shapes", "budget": "96", "seed": "1", "status": "ok", "final": "1"}
    old |= {"reward_queries": "96", "seconds": "1", "val_miou": "0.9", "mean_score": ""}
    assert report.setting_of(report.upgraded(old)) == SETTING.names
    assert ranked([*make_rows(), report.upgraded(old)])[-2] == ["–", "old", "no test"]


def test_a_task_that_is_ranked_by_scores_shows_them() -> None:
    rows = []
    for name, score in (("a", 0.2), ("b", 0.7)):
        point = {"reward_queries": 1, "seconds": 1.0, "val_miou": 1 - score, "val_score": score}
        verdict = Verdict(curve=[point], test={"test_miou": 1 - score, "test_score": score})
        rows += rows_of(Run(name, Setting(CRAFTER), 1), verdict, {})
    assert [line[:6] for line in report.ranking(as_text(rows))] == [
        ["1", "b", "0.700", "", "0.700", "1"],
        ["2", "a", "0.200", "", "0.200", "1"],
    ]
    assert report.heading("crafter")[2:5] == ["test score", "95 % interval", "val score"]


def test_committed_results_are_ranked_with_ones_own_and_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "COMMITTED", tmp_path / "committed.csv")
    few = rows_of(Run("few", FEW, 0), Verdict("raised something"), {})
    add_rows(tmp_path / "committed.csv", [*make_rows(), *few], report.KEY)
    verdict = Verdict(curve=[{"reward_queries": 1, "seconds": 1.0, "val_miou": 0.6}], test={"test_miou": 0.6})
    add_rows(tmp_path / "own.csv", rows_of(Run("good", SETTING, 7), verdict, {}), report.KEY)
    text = report.write(tmp_path / "own.csv", tmp_path).read_text()
    lines = [line for line in text.splitlines() if line.startswith(("| 1", "| 2", "| 3", "| –"))]
    assert [line.split(" | ")[1] for line in lines] == [
        "better (committed)",
        "good",
        "good (committed)",
        "bad (committed)",
    ]
    assert "few visits" not in text  # a setting in which nothing of one's own was run
    assert "(committed)" not in report.write(tmp_path / "committed.csv", tmp_path).read_text()


def test_the_best_of_every_setting_with_a_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "COMMITTED", tmp_path / "committed.csv")
    point = {"reward_queries": 0, "seconds": 1.0, "val_miou": 0.9, "val_pixel_accuracy": 0.9}
    bound = rows_of(Run("cross-entropy", SETTING, 0), Verdict(curve=[point], test={"test_miou": 0.875}), {})
    untested = rows_of(Run("mine", FEW, 0), Verdict(curve=[point]), {})
    add_rows(tmp_path / "committed.csv", [*make_rows(), *bound, *untested], report.KEY)
    head, *lines = report.best_table()
    assert len(lines) == 1
    assert dict(zip(head, lines[0], strict=True)) == {
        "task": SETTING.task.name,
        "track": "revisited",
        "budget": SETTING.budget,
        "reward queries": "32,000",
        "cross-entropy, test": "0.875",
        "best of scores, test": "0.700",
        "of it": "80.0%",
        "by": "better",
        "seeds": "3",
        "entries with a test": "2",
    }


def test_a_report_without_results_says_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"holds no results yet; python -m benchmarks.leaderboard"):
        report.write(tmp_path / "no.csv")


def test_fewer_than_three_seeds_have_no_interval() -> None:
    assert report.cells_of([0.5, 0.7]) == ("0.600", "")
    assert report.cells_of([0.5, 0.6, 0.7]) == ("0.600", "0.500–0.700")
    assert report.cells_of([]) == ("", "")


def test_the_best_entry_of_scores_is_the_one_that_is_best_on_val(monkeypatch: pytest.MonkeyPatch) -> None:
    def final(entry: str, val: float, test: float) -> dict[str, str]:
        row = {"entry": entry, "task": "shapes-32", "track": "revisited", "budget": "small", "seed": "1", "final": "1"}
        numbers = {"val_miou": val, "test_miou": test, "reward_queries": 9, "seconds": 1, "mean_score": ""}
        return row | {"status": "ok"} | {name: str(value) for name, value in numbers.items()}

    rows = [final("cross-entropy", 0.9, 0.8), final("lucky", 0.3, 0.7), final("chosen", 0.5, 0.6)]
    monkeypatch.setattr(report, "read_results", lambda path: rows)
    head, line = report.best_table()
    assert dict(zip(head, line, strict=True)) == {
        "task": "shapes-32",
        "track": "revisited",
        "budget": "small",
        "reward queries": "32,000",
        "cross-entropy, test": "0.800",
        "best of scores, test": "0.600",
        "of it": "75.0%",
        "by": "chosen",
        "seeds": "1",
        "entries with a test": "2",
    }
