"""The lessons run, keep to their form, and their exercises tell right answers from wrong ones."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "tutorials"
LESSONS = [pytest.param(path, id=path.stem) for path in sorted(FOLDER.glob("lesson_*.py"))]
IMPORTED = {"agents", "gymnasium", "matplotlib", "numpy", "rss_agents", "rss_env", "torch"}

# Runs a lesson, then its exercise. A wrong answer must fail an assertion of the check: one that crashes is not judged.
PROGRAM = """
import runpy, sys
lesson, answers = (runpy.run_path(path) for path in sys.argv[1:])
check = lesson["check"]
check(answers["solution"])
assert len(answers["WRONG"]) >= 2
for wrong in answers["WRONG"]:
    try:
        check(wrong)
    except AssertionError:
        continue
    sys.exit(f"check() accepts the wrong answer {wrong.__name__}.")
"""


def test_there_are_lessons():
    assert LESSONS


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_runs_and_its_exercise_tells_right_from_wrong(lesson: Path, tmp_path: Path):
    number = lesson.stem.split("_")[1]
    answers = FOLDER / "solutions" / f"lesson_{number}.py"
    environment = os.environ | {"RSS_LESSON_QUICK": "1", "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment.pop("DISPLAY", None)  # with a screen, show() would warn that Agg has no windows
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, lesson, answers],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not list(tmp_path.iterdir())  # it leaves nothing behind


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
