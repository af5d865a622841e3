"""``python -m docs.slides``: pictures of lessons, their page, and what is left of the earlier ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from docs import slides

LESSON = """r\"\"\"
Lesson 1: small & quick
=======================
\"\"\"
import matplotlib.pyplot as plt

plt.figure(figsize=(1, 1))
plt.show()
plt.figure(figsize=(1, 1))


def check(solution):
    assert solution() == 2
"""


@pytest.fixture
def lesson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course of one lesson, which draws two pictures."""
    folder = tmp_path / "tutorials"
    (folder / "solutions").mkdir(parents=True)
    (folder / "lesson_1_small.py").write_text(LESSON, encoding="utf-8")
    (folder / "solutions" / "lesson_1.py").write_text("def solution():\n    return 2\n", encoding="utf-8")
    monkeypatch.setattr(slides, "TUTORIALS", folder)
    monkeypatch.setattr(sys, "argv", ["slides", "--out", str(tmp_path / "course")])
    return folder / "lesson_1_small.py"


def test_every_picture_is_kept_and_shown(lesson: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    course = tmp_path / "course"
    course.mkdir()
    (course / "lesson_1_3.png").touch()  # of an earlier lesson that drew more
    assert slides.main() == 0
    assert sorted(path.name for path in course.iterdir()) == ["lesson_1_1.png", "lesson_1_2.png", "slides.html"]
    page = (course / "slides.html").read_text(encoding="utf-8")
    assert page.count("<section><h1>Lesson 1: small &amp; quick</h1>") == 2
    assert capsys.readouterr().out.startswith("Lesson 1: small & quick: 2 pictures, ")


def test_a_lesson_that_fails_leaves_the_pictures_as_they_were(
    lesson: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert slides.main() == 0
    (lesson.parent / "solutions" / "lesson_1.py").write_text("def solution():\n    return 3\n", encoding="utf-8")
    assert slides.main() == 1
    assert "lesson_1_small.py failed" in capsys.readouterr().err
    assert len(slides.pictures(lesson, tmp_path / "course")) == 2


def test_the_tenth_lesson_comes_after_the_ninth(lesson: Path) -> None:
    for number in (10, 9):
        (lesson.parent / f"lesson_{number}_another.py").touch()
    assert [slides.number(path) for path in slides.lessons()] == [1, 9, 10]


def test_every_exercise_is_checked(lesson: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with lesson.open("a", encoding="utf-8") as file:
        file.write("\n\ndef check_2(solution):\n    assert solution() == 3\n")
    with (lesson.parent / "solutions" / "lesson_1.py").open("a", encoding="utf-8") as file:
        file.write("\n\ndef solution_2():\n    return 2\n")
    assert slides.main() == 1
    assert "lesson_1_small.py failed" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = [sys.executable, "-m", "docs.slides", "--out", tmp_path / "file" / "course"]
    ended = subprocess.run(words, cwd=Path(slides.__file__).parent.parent, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith("error: ")
