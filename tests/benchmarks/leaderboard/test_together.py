"""Entries over several tasks: whose scores count, what they are normalised by, and what the table says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.leaderboard import report
from benchmarks.leaderboard.together import scores_together, together_table
from benchmarks.results_file import Row, add_rows

TASKS = ("shapes-32", "camvid")
TESTS = {  # entry -> its test mIoU on each of the tasks, a list over the seeds
    "random": ([0.1, 0.1, 0.1], [0.0, 0.0, 0.0]),
    "cross-entropy": ([0.8, 0.9, 1.0], [0.4, 0.4, 0.4]),
    "good": ([0.9, 0.9, 0.9, 0.1], [0.3, 0.4, 0.5]),  # the fourth seed is missing on the second task
    "weak": ([0.5, 0.5, 0.5], [0.2, 0.2, 0.2]),
    "elsewhere": ([0.9, 0.9, 0.9], []),
    "once": ([0.9], [0.3]),
}


def rows() -> list[Row]:
    out = []
    for entry, of_tasks in TESTS.items():
        for task, values in zip(TASKS, of_tasks, strict=True):
            for seed, value in enumerate(values, 1):
                row = {"entry": entry, "task": task, "track": "revisited", "budget": "small", "seed": str(seed)}
                row |= {"status": "ok", "final": "1", "val_miou": "0.5", "test_miou": str(value)}
                out += [row, row | {"final": "0", "test_miou": ""}]
    first = out[0]
    failed = [{"status": "raised something"}, {"track": "few_visits"}, {"budget": "large"}, {"task": "shapes-64"}]
    return [*out, *(first | {"entry": "weak", "seed": "4", "test_miou": "1.0"} | change for change in failed)]


def test_scores_of_seeds_that_all_tasks_have_are_normalised_by_random_label_maps_and_cross_entropy() -> None:
    scores = scores_together(rows(), TASKS)
    assert list(scores) == ["good", "cross-entropy", "weak", "random"]
    np.testing.assert_allclose(scores["good"], [[1, 0.75], [1, 1], [1, 1.25]])
    np.testing.assert_allclose(scores["weak"], [[0.5, 0.5]] * 3)
    np.testing.assert_allclose(scores["random"], np.zeros((3, 2)), atol=1e-12)
    np.testing.assert_allclose(scores["cross-entropy"].mean(axis=0), [1, 1])


def test_a_task_without_random_label_maps_has_no_scale() -> None:
    assert scores_together(rows(), (*TASKS, "shapes-64")) == {}
    assert together_table(rows(), ["cross-entropy"], (*TASKS, "shapes-64")) == []


def test_the_table_places_entries_and_says_how_often_the_best_is_better() -> None:
    head, *lines = together_table(rows(), ["cross-entropy"], TASKS)
    assert head[-1] == "probability that good is better"
    # Cross-entropy: on the first task 0.9 is above 0.8, level with 0.9, below 1; on the second 0.3, 0.4, 0.5 and 0.4.
    assert [[*line[:3], line[-1]] for line in lines] == [
        ["1", "good", "3", ""],
        ["bound", "cross-entropy", "3", "0.50"],
        ["2", "weak", "3", "1.00"],
        ["3", "random", "3", "1.00"],
    ]
    assert [line[3:5] for line in lines[2:]] == [
        ["0.500 (0.500–0.500)", "0.500 (0.500–0.500)"],
        ["0.000 (0.000–0.000)", "1.000 (1.000–1.000)"],
    ]
    assert lines[0][4].startswith("0.042")  # only what is below 1 counts: a quarter, once in six


def test_the_report_has_the_table_and_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "board.csv"
    monkeypatch.setattr(report, "COMMITTED", results)
    numbers = {"reward_queries": "64", "seconds": "1", "mean_score": "0.5", "peak_mib": "", "val_pixel_accuracy": "0.5"}
    found = [row | numbers for row in rows() if row["status"] == "ok"]
    add_rows(results, found, report.KEY)
    assert "together" not in report.write(results).read_text()  # no scale on the third task
    assert not list(tmp_path.glob("*.profiles.png"))
    add_rows(results, [row | {"task": "camvid-sequences"} for row in found if row["task"] == "camvid"], report.KEY)
    text = report.write(results).read_text()
    assert "## shapes-32, camvid, camvid-sequences together" in text
    assert "| 1 | good | 3 | 1.000" in text
    for name in ("board.intervals.png", "board.profiles.png"):
        assert f"]({name})" in text
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
