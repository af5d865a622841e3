"""The lessons run, keep to their form, and their exercises tell right answers from wrong ones."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.slides import lessons, name, number
from tests.extras import is_installed

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "tutorials"
LESSONS = [pytest.param(path, id=path.stem) for path in lessons()]
IMPORTED = {"agents", "gymnasium", "matplotlib", "numpy", "rss_agents", "rss_env", "torch"}

# Runs a lesson, then its exercises: check, solution and WRONG, then check_2, solution_2 and WRONG_2, and so on. A wrong
# answer must fail an assertion of the check: one that crashes is not judged. A library that is hidden is not found.
PROGRAM = """
import runpy, sys
*hidden, lesson, answers = sys.argv[1:]
sys.modules.update(dict.fromkeys(hidden))
lesson, answers = runpy.run_path(lesson), runpy.run_path(answers)
checks = [name for name in lesson if name.startswith("check")]
assert "check" in checks
for name in checks:
    check, number = lesson[name], name.removeprefix("check")
    check(answers["solution" + number])
    assert len(answers["WRONG" + number]) >= 2
    for wrong in answers["WRONG" + number]:
        try:
            check(wrong)
        except AssertionError:
            continue
        sys.exit(f"{name}() accepts the wrong answer {wrong.__name__}.")
"""


def run(lesson: Path, folder: Path, *hidden: str) -> subprocess.CompletedProcess[str]:
    """Runs a lesson and its exercises in a folder, without some libraries."""
    environment = os.environ | {"RSS_LESSON_QUICK": "1", "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment.pop("DISPLAY", None)  # with a screen, show() would warn that Agg has no windows
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *hidden, lesson, FOLDER / "solutions" / f"{name(lesson)}.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_there_are_lessons():
    assert [number(path) for path in lessons()] == list(range(1, len(LESSONS) + 1))


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_runs_and_its_exercise_tells_right_from_wrong(lesson: Path, tmp_path: Path):
    ended = run(lesson, tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not list(tmp_path.iterdir())  # it leaves nothing behind
    assert ("not installed" in ended.stdout) == ("crafter" in lesson.read_text() and not is_installed("crafter"))


def test_lesson_10_says_what_it_leaves_out_without_the_game(tmp_path: Path):
    ended = run(FOLDER / "lesson_10_people_and_worlds.py", tmp_path, "crafter")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Crafter is not installed, so the game is left out: pip install '.[course,crafter]'" in ended.stdout


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_keeps_to_its_form(lesson: Path):
    text = lesson.read_text(encoding="utf-8")
    tree = ast.parse(text)
    title, ruler, *_ = (ast.get_docstring(tree) or "").splitlines()
    assert ruler == "=" * len(title)
    assert re.findall(r"^\*\*(.+?)\*\*", ast.get_docstring(tree) or "", flags=re.MULTILINE) == [
        "What it shows.",
        "For whom.",
        "How long.",
    ]
    assert "# .. admonition:: Predict first" in text
    assert text.index("# What to take away\n") < text.index("# Exercise\n") < text.index("\ndef check(solution):")
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported <= IMPORTED | sys.stdlib_module_names
    assert "assert " in text.partition("\ndef check(solution):")[0]
