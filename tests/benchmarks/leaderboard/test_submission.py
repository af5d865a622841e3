"""A submission round trip, and every way in which a file is damaged is a line of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.leaderboard import report, submission
from benchmarks.leaderboard.__main__ import Run, rows_of
from benchmarks.leaderboard.code import code_digest, code_files
from benchmarks.leaderboard.judge import Verdict
from benchmarks.results_file import add_rows, read_rows
from benchmarks.tasks import FEW_VISITS, SHAPES_32, Setting
from rss_env.errors import OptionError

SETTINGS = (Setting(SHAPES_32), Setting(SHAPES_32, FEW_VISITS))


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    """An entry with a neighbour, a package and a file that it does not import."""
    folder = tmp_path / "mine"
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "__init__.py").write_text("")
    (folder / "package" / "inner.py").write_text("X = 1")
    (folder / "neighbour.py").write_text("import numpy\nfrom package import inner")
    (folder / "other.py").write_text("")
    (folder / "my_agent.py").write_text("def train(trial):\n    import neighbour\n")
    return folder / "my_agent.py"


def verdict_of(seed: int, status: str = "ok") -> Verdict:
    points = [
        {"reward_queries": queries, "seconds": queries / 100, "val_miou": 0.5 + seed / 100, "val_pixel_accuracy": 0.8}
        for queries in (16_000, 32_000)
    ]
    test = {"test_miou": round(0.4 + seed / 100, 2), "test_pixel_accuracy": 0.7}
    return Verdict(status, points, test, 32_000, 320.0, 0.3, None, 120.0, None, 4)


@pytest.fixture
def submitted(tmp_path: Path, entry: Path) -> Path:
    """A submission of two settings and three seeds."""
    measured = {"python": "3.12.0", "torch": "2.9", "commit": "abc", "device": "a CPU", "date": "2026-01-01"}
    measured |= {"versions": "numpy 2", "code": code_digest(entry)}
    out = tmp_path / "results.csv"
    for setting in SETTINGS:
        for seed in submission.SEEDS:
            numbers = {"protocol": submission.PROTOCOL, "limit_s": 900.0}
            rows = rows_of(Run("my_agent", setting, seed), verdict_of(seed), measured | numbers)
            add_rows(out, rows, report.KEY)
    submission.write(tmp_path / "my_agent.json", entry, read_rows(out))
    return tmp_path / "my_agent.json"


def test_a_submission_is_in_order_and_names_code_versions_and_results(submitted: Path, entry: Path) -> None:
    assert submission.check(submitted, entry) == []
    content = json.loads(submitted.read_text())
    assert list(content["code"]) == ["my_agent.py", "neighbour.py", "package/__init__.py", "package/inner.py"]
    assert content["environment"]["packages"]["numpy"]
    assert len(content["rows"]) == 12
    assert content["rows"][1]["test_miou"] == 0.41
    assert content["rows"][0]["test_miou"] is None


def test_changed_code_is_named(submitted: Path, entry: Path) -> None:
    (entry.parent / "package" / "inner.py").write_text("X = 2")
    assert submission.check(submitted) == []
    assert submission.check(submitted, entry) == ["code: package/inner.py differs from what was submitted."]
    entry.write_text("def train(trial):\n    import other\n")
    assert submission.check(submitted, entry) == [
        "code: other.py is not the file that was submitted.",
        "code: neighbour.py is missing next to the entry.",
        "code: package/__init__.py is missing next to the entry.",
        "code: package/inner.py is missing next to the entry.",
        "code: my_agent.py differs from what was submitted.",
    ]


def test_results_of_a_changed_checkout_are_refused(submitted: Path) -> None:
    content = json.loads(submitted.read_text())
    for part in (content["environment"], *content["rows"]):
        part["commit"] = "abc+"
    submitted.write_text(json.dumps(content))
    (problem,) = submission.check(submitted)
    assert problem.startswith("commit abc+ has changes that nobody can look up")


def test_results_of_other_code_cannot_be_submitted(tmp_path: Path, submitted: Path, entry: Path) -> None:
    rows = read_rows(tmp_path / "results.csv")
    (entry.parent / "neighbour.py").write_text("")
    with pytest.raises(OptionError, match="has changed since its results were measured; --again my_agent"):
        submission.write(submitted, entry, rows)
    with pytest.raises(OptionError, match="There are no results"):
        submission.write(submitted, entry, [])


def test_code_is_read_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "entry.py"
    for text in ("import os; os._exit(3)", "def train(:", "x = '\0'"):
        path.write_text(text)
        assert list(code_files(path)) == ["entry.py"]


def row(number: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["rows"][number - 1].update(values)


def rows_from(first: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    """Changes the two rows of a run."""

    def change(content: dict[str, Any]) -> None:
        for number in (first, first + 1):
            content["rows"][number - 1].update(values)

    return change


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no field": (lambda c: c.pop("environment"), "the file has no 'environment'"),
    "a further field": (lambda c: c.update(more=1), "the file has an unknown field 'more'"),
    "no rows": (lambda c: c.update(rows=[]), "rows are none"),
    "another format": (lambda c: c.update(format="x"), "format is 'x'"),
    "another protocol": (lambda c: c.update(protocol=99), "it is of version 99 of the protocol, not 1"),
    "no hash": (lambda c: c["code"].update({"my_agent.py": "12"}), "code: 'my_agent.py' has no SHA-256"),
    "no version": (lambda c: c["environment"].update(torch=None), "environment: torch is None, not str"),
    "a number as text": (row(2, test_miou="0.9"), "row 2: test_miou is '0.9', not int or float or nothing"),
    "a number that is a truth": (row(1, seed=True), "row 1: seed is True, not int"),
    "a column less": (lambda c: c["rows"][3].pop("status"), "row 4 has no 'status'"),
    "not a number": (row(2, test_miou=float("nan")), "row 2: test_miou is not finite"),
    "endless": (row(2, seconds=float("inf")), "row 2: seconds is not finite"),
    "above one": (row(2, test_miou=1.2), "row 2: test_miou is 1.2, not within 0 and 1"),
    "other code": (rows_from(1, code="0" * 16), "row 1: code is '0000000000000000', but the file says"),
    "another machine": (rows_from(3, device="a GPU"), "row 3: device is 'a GPU', but the file says 'a CPU'"),
    "another entry": (rows_from(1, entry="yours"), "row 1: entry is 'yours', but the file says 'my_agent'"),
    "over the budget": (row(2, reward_queries=32_001), "row 2: 32,001 reward queries are not within the budget"),
    "over the time": (row(2, seconds=2000.0), "row 2: 2000 s are not within the 900 s"),
    "more time": (rows_from(1, limit_s=9000.0), "row 1: a time of 9000 s is not the 900 s of the protocol"),
    "more visits": (rows_from(7, most_visits=5), "row 7: an image may be shown 4 times; most_visits is 5"),
    "visits not counted": (rows_from(7, most_visits=None), "row 7: an image may be shown 4 times; most_visits is None"),
    "no such task": (rows_from(1, task="moon"), "row 1: there is no task 'moon'"),
    "no such track": (rows_from(1, track="moon"), "row 1: there is no track 'moon'"),
    "no such budget": (rows_from(1, budget="moon"), "row 1: there is no budget 'moon'"),
    "a seed less": (lambda c: c["rows"].__delitem__(slice(2, 4)), "shapes-32, revisited, small: no result of seed 2"),
    "no last row": (
        row(2, final=0),
        ".*small, seed 1: not exactly its last row is marked as final",
    ),
    "a run twice": (
        lambda c: c["rows"].extend(c["rows"][:2]),
        "shapes-32, revisited, small, seed 1: not exactly its last row",
    ),
    "two states": (row(1, status="raised"), "shapes-32, revisited, small, seed 1: its rows differ in status"),
    "back in time": (row(1, reward_queries=32_000, seconds=321.0), ".*seed 1: seconds fall from row to row"),
    "tested twice": (row(1, test_miou=0.3), ".*seed 1: a row before the last one has a result on test"),
    "not tested": (row(2, test_miou=None), ".*seed 1: it has no test_miou"),
    "failed": (rows_from(1, status="raised ValueError"), ".*seed 1: it failed: raised ValueError"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_every_damage_is_named(submitted: Path, entry: Path, name: str) -> None:
    change, said = DAMAGE[name]
    content = json.loads(submitted.read_text())
    change(content)
    submitted.write_text(json.dumps(content))
    problems = submission.check(submitted, entry)
    assert any(re.match(said, problem) for problem in problems), problems
    assert all(len(problem.splitlines()) == 1 for problem in problems)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is not JSON"),
        ('{"rows": [', "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "the file is no object"),
        ('{"format": "rss leaderboard submission"}', "the file has no 'protocol'"),
        (b"\xff\xfe\x00", "it is not JSON"),
    ],
)
def test_what_is_no_submission_is_a_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert submission.check(path)[0].startswith(said)
    assert submission.check(tmp_path / "no.json") == ["it cannot be read: No such file or directory."]


def test_cut_anywhere_it_is_refused(submitted: Path) -> None:
    text = submitted.read_bytes()
    for length in range(0, len(text) - 2, len(text) // 40):
        submitted.write_bytes(text[:length])
        assert submission.check(submitted)


@pytest.mark.parametrize(("miou", "ok"), [(0.41, True), (0.43, True), (0.36, False), (0.47, False), (None, False)])
def test_a_run_that_is_repeated_is_compared(submitted: Path, entry: Path, miou: float | None, ok: bool) -> None:
    asked = []

    class Judge:
        def __init__(self, path: Path, setting: Setting, seed: int, seconds: float, *_: object) -> None:
            asked.append((path, setting.names, seed, seconds))

        def run(self) -> Verdict:
            return Verdict("raised x") if miou is None else Verdict(test={"test_miou": miou})

    problems, line = submission.rerun(submitted, entry, None, None, Path("runs"), Judge)
    assert asked == [(entry, ("shapes-32", "revisited", "small"), 1, 900.0)]
    assert (problems == []) is ok  # the seeds lie within 0.02, so twice that is allowed
    assert "seed 1, again: " in line
    if miou is None:
        assert problems == ["shapes-32, revisited, small, seed 1, again: raised x."]


@pytest.mark.parametrize(("miou", "ok"), [(0.5, True), (0.52, False)])
def test_seeds_that_lie_far_apart_do_not_allow_everything(submitted: Path, entry: Path, miou: float, ok: bool) -> None:
    content = json.loads(submitted.read_text())
    for row in content["rows"]:
        if row["final"] and row["seed"] == 3:
            row["test_miou"] = 0.9
    submitted.write_text(json.dumps(content))

    class Judge:
        def __init__(self, *_: object) -> None: ...

        def run(self) -> Verdict:
            return Verdict(test={"test_miou": miou})

    problems, _ = submission.rerun(submitted, entry, None, None, Path("runs"), Judge)
    assert (problems == []) is ok  # seed 1 had 0.41
