"""Runs the course and keeps its pictures: ``make course``, or ``python -m docs.slides --out course``.

Every lesson runs in full, its solution is checked by the lesson's own ``check``, and every picture that it draws is
written as a PNG, with a page slides.html that shows them full screen, one after the other.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agents.training.command import run_command
from rss_env.errors import OptionError

TUTORIALS = Path(__file__).parent / "tutorials"

# Keeps what a lesson shows instead of showing it, then checks the solution of its exercise.
PROGRAM = """
import runpy, sys
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
lesson, solution, stem = sys.argv[1:]
kept = 0
def keep(*_, **__):
    global kept
    for number in plt.get_fignums():
        kept += 1
        plt.figure(number).savefig(f"{stem}_{kept}.png", dpi=200, facecolor="white")
    plt.close("all")
plt.show = keep
lesson = runpy.run_path(lesson)
keep()
answers = runpy.run_path(solution)
for check in [name for name in lesson if name.startswith("check")]:  # check, check_2, ...
    lesson[check](answers[check.replace("check", "solution")])
"""

SLIDES = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Learning from scores</title>
<style>
html {{ scroll-snap-type: y mandatory; font-family: sans-serif; }}
body {{ margin: 0; }}
section {{ height: 100vh; scroll-snap-align: start; display: flex; flex-direction: column; align-items: center; }}
h1 {{ font-size: 4vh; margin: 2vh; }}
img {{ min-height: 0; max-width: 96vw; object-fit: contain; flex: 1; margin-bottom: 2vh; }}
</style>
{sections}
</html>
"""


def number(lesson: str | Path) -> int:
    """N of a file lesson_N_name.py, by which lessons are in order."""
    return int(Path(lesson).stem.split("_")[1])


def lessons() -> list[Path]:
    """The lessons in order."""
    return sorted(TUTORIALS.glob("lesson_*.py"), key=number)


def title(lesson: Path) -> str:
    """The first line of a lesson's docstring."""
    found = re.match(r'r?"""\n?(.+)\n', lesson.read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def name(lesson: Path) -> str:
    """``lesson_N``, the name of a lesson's solution and the beginning of its pictures'."""
    return f"lesson_{number(lesson)}"


def pictures(lesson: Path, folder: Path) -> list[Path]:
    """The pictures of a lesson in a folder, in order."""
    return sorted(folder.glob(f"{name(lesson)}_*.png"), key=lambda path: int(path.stem.split("_")[-1]))


def run_lesson(lesson: Path, out: Path) -> float:
    """Runs one lesson and writes its pictures, in place of those that were there if it succeeds.

    Args:
        lesson: lesson_N_name.py.
        out: folder of the pictures, which exists.

    Returns:
        Seconds it took.

    Raises:
        OptionError: the lesson failed; its traceback is part of the message.
    """
    answers = TUTORIALS / "solutions" / f"{name(lesson)}.py"
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as drawn:
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, lesson, answers, Path(drawn) / name(lesson)],
            env=os.environ | {"MPLBACKEND": "agg"},
            capture_output=True,
            text=True,
        )
        if ended.returncode:
            raise OptionError(f"{lesson.name} failed:\n{ended.stderr}")
        for old in pictures(lesson, out):
            old.unlink()
        for picture in pictures(lesson, Path(drawn)):
            shutil.move(picture, out)
    return time.monotonic() - began


def write_slides(out: Path) -> None:
    """Writes slides.html for the pictures in a folder."""
    sections = []
    for lesson in lessons():
        heading = html.escape(title(lesson))
        sections += [
            f'<section><h1>{heading}</h1><img src="{picture.name}" alt="{heading}, picture {place}"></section>'
            for place, picture in enumerate(pictures(lesson, out), start=1)
        ]
    (out / "slides.html").write_text(SLIDES.format(sections="\n".join(sections)), encoding="utf-8")


def main() -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs.slides", description="Run the course and keep its pictures.")
    parser.add_argument("--out", type=Path, default=Path("course"), help="folder for the pictures (default: course)")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    failed = False
    for lesson in lessons():
        try:
            seconds = run_lesson(lesson, out)
        except OptionError as error:
            print(error, file=sys.stderr)
            failed = True
            continue
        print(f"{title(lesson)}: {len(pictures(lesson, out))} pictures, {seconds:.0f} s", flush=True)
    write_slides(out)
    print(out / "slides.html")
    return int(failed)


if __name__ == "__main__":
    run_command(main)
