"""The log: what was acknowledged is there after a kill, nothing is deleted, and an export says all of it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from agents.rating.answers import (
    Answer,
    AnswerLog,
    Question,
    as_png,
    check_rater,
    export_lines,
    from_png,
    image_name,
    read_answers,
)
from rss_env.errors import JudgeError, OptionError

CLASSES, SIZE = ["dark", "bright"], (6, 8)


def question(number: int, kind: str = "pair", maps: int = 2, part: bool = True) -> Question:
    rng = np.random.default_rng(number)
    label_maps = rng.integers(0, 2, (maps, *SIZE)).astype(np.uint8)
    mask = rng.random(SIZE) < 0.5 if part else None
    return Question(f"q{number}", kind, f"image {number % 3}", label_maps, mask, "active", number, 5.0 + number)


def open_log(path: Path) -> AnswerLog:
    return AnswerLog(path, CLASSES, SIZE)


def assert_same(one: Answer, other: Answer) -> None:
    for name in ("number", "rater", "answer", "seconds", "time", "attempt", "undone"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("id", "kind", "image", "chosen", "updates", "asked"):
        assert getattr(one.question, name) == getattr(other.question, name), name
    np.testing.assert_array_equal(one.question.label_maps, other.question.label_maps)
    assert (one.question.part is None) == (other.question.part is None)
    if one.question.part is not None:
        np.testing.assert_array_equal(one.question.part, other.question.part)


def fill(log: AnswerLog) -> list[Answer]:
    """Answers of every kind, one of them taken back and given again."""
    given = [
        (question(0), {"order": [[0], [1]]}),
        (question(1, "stars", 3), {"stars": [5, None, 1]}),
        (question(2, "ranking", 4, part=False), {"order": [[2], [0, 3], [1]]}),
        (question(3), {"skip": True}),
    ]
    for asked, answer in given:
        log.ask(asked)
        log.add(asked, "ann", answer, 1.5)
    undone = log.undo("ann")
    assert undone is not None
    log.add(undone.question, "ann", {"order": [[0, 1]]}, 2.5, undone.attempt + 1)
    return log.answers()


@pytest.mark.parametrize("suffix", ["sqlite", "jsonl"])
def test_an_export_says_what_the_log_says(tmp_path: Path, suffix: str) -> None:
    log = open_log(tmp_path / "answers.sqlite")
    kept = fill(log)
    assert [answer.number for answer in kept] == [1, 2, 3, 5]
    (tmp_path / "answers.jsonl").write_text("".join(export_lines(log.answers(undone=True))))
    read = read_answers(tmp_path / f"answers.{suffix}")
    assert len(read) == len(kept)
    for one, other in zip(read, kept, strict=True):
        assert_same(one, other)
    log.close()


def test_nothing_is_deleted(tmp_path: Path) -> None:
    log = open_log(tmp_path / "answers.sqlite")
    fill(log)
    assert [(answer.number, answer.undone) for answer in log.answers(undone=True)][3:] == [(4, True), (5, False)]
    assert log.open_question("ann") is None
    log.undo("ann")
    opened = log.open_question("ann")
    assert opened is not None
    assert (opened[0].id, opened[1]) == ("q3", 2)
    log.close()
    again = open_log(tmp_path / "answers.sqlite")
    assert len(again.answers()) == 3
    again.close()


def test_threads_write_at_once(tmp_path: Path) -> None:
    log = open_log(tmp_path / "answers.sqlite")
    asked = question(0)
    log.ask(asked)

    def rate(name: str) -> None:
        for attempt in range(5):
            log.add(asked, name, {"skip": True}, 1.0, attempt)
            log.undo(name)

    threads = [threading.Thread(target=rate, args=(f"rater {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = log.answers(undone=True)
    assert len(every) == 20
    assert [answer.number for answer in every] == list(range(1, 21))
    log.close()


ANSWERING = """
import sys
from tests.agents.rating.test_answers import open_log, question
from pathlib import Path
log, first = open_log(Path(sys.argv[1])), int(sys.argv[2])
for number in range(first, first + 10_000):
    asked = question(number)
    log.ask(asked)
    answer, _ = log.add(asked, "ann", {"order": [[0], [1]]}, 1.0)
    if number % 5 == 4:
        log.undo("ann")
    print(number, answer.number, flush=True)  # acknowledged
"""
KILLS = int(os.environ.get("RSS_TEST_KILLS", "3"))


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    acknowledged: dict[int, int] = {}
    for kill in range(KILLS):
        words = [sys.executable, "-c", ANSWERING, str(path), str(kill * 10_000)]
        root = Path(__file__).parents[3]
        with subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for count, line in enumerate(process.stdout):
                number, place = line.split()
                acknowledged[int(number)] = int(place)
                if count == 7 + 5 * kill % 23:
                    os.kill(process.pid, signal.SIGKILL)
        log = open_log(path)
        held = {int(answer.question.id[1:]): answer for answer in log.answers(undone=True)}
        log.close()
        for number, place in acknowledged.items():
            assert held[number].number == place
            assert held[number].undone == (number % 5 == 4)
            np.testing.assert_array_equal(held[number].question.label_maps, question(number).label_maps)
    assert len(acknowledged) >= 8 * KILLS


def test_a_log_of_other_classes_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    open_log(path).close()
    with pytest.raises(JudgeError, match="take another log"):
        AnswerLog(path, ["cat", "dog"], SIZE)
    with pytest.raises(JudgeError, match="take another log"):
        AnswerLog(path, CLASSES, (6, 9))
    path.write_bytes(b"SQLite format 3\0" + bytes(5000))
    with pytest.raises(JudgeError, match=r"Cannot use the answers in .*answers\.sqlite"):
        open_log(path)
    with pytest.raises(JudgeError, match=r"answers\.sqlite"):
        read_answers(path)
    with pytest.raises(JudgeError, match=r"nothing\.jsonl"):
        read_answers(tmp_path / "nothing.jsonl")


def test_a_full_disk_is_an_error_and_no_answer(tmp_path: Path) -> None:
    log, asked = open_log(tmp_path / "answers.sqlite"), question(0)
    log.ask(asked)
    log._database.execute("PRAGMA max_page_count = 1")  # SQLite's own "database or disk is full"

    def write() -> None:
        for number in range(1000):
            log.add(asked, f"rater {number}", {"skip": True}, 1.0)

    with pytest.raises(JudgeError, match="full"):
        write()
    held = len(log.answers())
    log._database.execute("PRAGMA max_page_count = 1000000")
    log.add(asked, "late", {"skip": True}, 1.0)
    assert len(log.answers()) == held + 1
    log.close()


LOGS = int(os.environ.get("RSS_TEST_LOGS", "60"))


def test_a_damaged_log_gives_one_line_or_the_answers_that_were_given(tmp_path: Path) -> None:
    log = open_log(tmp_path / "whole.sqlite")
    fill(log)
    given = {answer.number: answer for answer in log.answers(undone=True)}
    log.close()
    whole, rng, said = (tmp_path / "whole.sqlite").read_bytes(), np.random.default_rng(0), list[str]()
    path = tmp_path / "damaged.sqlite"
    for number in range(LOGS):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 60)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(len(whole))] if number % 4 == 3 else damaged)
        try:
            read = read_answers(path)
        except JudgeError as error:
            said.append(str(error))
            continue
        for answer in read:
            same = given.get(answer.number)
            if same is not None and same.rater == answer.rater:
                assert (answer.answer, answer.seconds) == (same.answer, same.seconds)
                np.testing.assert_array_equal(answer.question.label_maps, same.question.label_maps)
    assert len(said) > LOGS / 10
    assert all("\n" not in error and str(path) in error for error in said)


@pytest.mark.parametrize("damage", ["number = number - 1", "number = 99", "time = time + 1", "crc = crc + 1"])
def test_what_was_taken_back_is_checked(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "answers.sqlite"
    log = open_log(path)
    for number in range(3):
        log.ask(question(number))
        log.add(question(number), "ann", {"skip": True}, 1.0)
    log.undo("ann")
    assert [answer.number for answer in read_answers(path)] == [1, 2]
    log._database.execute(f"UPDATE undos SET {damage}")
    for read in (log.answers, lambda: read_answers(path)):
        with pytest.raises(JudgeError, match=r"taken back, answer .* checksum"):
            read()
    log.close()


DAMAGE = {
    "no JSON": lambda line: line[: len(line) // 2],
    "no object": lambda line: "[]",
    "another kind": lambda line: line.replace('"kind": "pair"', '"kind": "guess"'),
    "no answer": lambda line: line.replace('"order": [[0], [1]]', '"order": [[0]]'),
    "no picture": lambda line: line.replace('"label_maps": "', '"label_maps": "AAAA'),
    "more label maps": lambda line: line.replace('"count": 2', '"count": 7'),
    "no rater": lambda line: line.replace('"rater": "ann"', '"rater": ""'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_line_is_named(tmp_path: Path, damage) -> None:
    asked = question(0)
    (line,) = export_lines([Answer(1, asked, "ann", {"order": [[0], [1]]}, 1.0, 2.0)])
    path = tmp_path / "answers.jsonl"
    path.write_text(line)
    assert len(read_answers(path)) == 1
    path.write_text(line + damage(line))
    with pytest.raises(JudgeError, match="line 2, is no answer"):
        read_answers(path)


def test_names() -> None:
    assert check_rater("  ann   lee ") == "ann lee"
    with pytest.raises(OptionError, match="name of 1 to 64"):
        check_rater("")
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    assert image_name(image) == image_name(image.copy()) != image_name(image + 1)
    assert image_name(image) != image_name(image.reshape(5, 4, 3))
    assert len(image_name(image[:, ::-1])) == 32


def test_label_maps_come_back_from_their_picture() -> None:
    for shape in ((1, 1, 1), (3, 6, 8), (2, 1, 255)):
        maps = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
        np.testing.assert_array_equal(from_png(as_png(maps), shape[0]), maps)


def test_the_log_waits_for_the_disk(tmp_path: Path) -> None:
    log = open_log(tmp_path / "answers.sqlite")
    assert log._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert log._database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    log.close()
    assert sqlite3.connect(tmp_path / "answers.sqlite").execute("PRAGMA integrity_check").fetchone() == ("ok",)
