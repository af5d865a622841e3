"""Runs the course and keeps its pictures: ``make course``, or ``python -m docs.slides --out course``.

Every lesson runs in full, its solution is checked by the lesson's own ``check``, and every picture that it draws is
written as a PNG, with a page slides.html that shows them full screen, one after the other.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import subprocess
import sys
import time
from pathlib import Path

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
lesson["check"](runpy.run_path(solution)["solution"])
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


def lessons() -> list[Path]:
    """The lessons in order."""
    return sorted(TUTORIALS.glob("lesson_*.py"))


def title(lesson: Path) -> str:
    """The first line of a lesson's docstring."""
    found = re.match(r'r?"""\n?(.+)\n', lesson.read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def run_lesson(lesson: Path, out: Path) -> float:
    """Runs one lesson and writes its pictures.

    Args:
        lesson: lesson_N_name.py.
        out: folder of the pictures, which exists.

    Returns:
        Seconds it took.

    Raises:
        OptionError: the lesson failed; its traceback is part of the message.
    """
    number = lesson.stem.split("_")[1]
    answers = TUTORIALS / "solutions" / f"lesson_{number}.py"
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, lesson, answers, out / f"lesson_{number}"],
        env=os.environ | {"MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        raise OptionError(f"{lesson.name} failed:\n{ended.stderr}")
    return time.monotonic() - began


def write_slides(out: Path) -> None:
    """Writes slides.html for the pictures in a folder."""
    sections = []
    for lesson in lessons():
        number = lesson.stem.split("_")[1]
        pictures = sorted(out.glob(f"lesson_{number}_*.png"), key=lambda path: int(path.stem.split("_")[-1]))
        heading = html.escape(title(lesson))
        sections += [
            f'<section><h1>{heading}</h1><img src="{picture.name}" alt="{heading}, picture {place}"></section>'
            for place, picture in enumerate(pictures, start=1)
        ]
    (out / "slides.html").write_text(SLIDES.format(sections="\n".join(sections)), encoding="utf-8")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m docs.slides", description="Run the course and keep its pictures.")
    parser.add_argument("--out", type=Path, default=Path("course"), help="folder for the pictures (default: course)")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("lesson_*.png"):
        old.unlink()
    failed = False
    for lesson in lessons():
        try:
            seconds = run_lesson(lesson, out)
        except OptionError as error:
            print(error, file=sys.stderr)
            failed = True
            continue
        number = lesson.stem.split("_")[1]
        print(f"{title(lesson)}: {len(list(out.glob(f'lesson_{number}_*.png')))} pictures, {seconds:.0f} s", flush=True)
    write_slides(out)
    print(out / "slides.html")
    sys.exit(failed)


if __name__ == "__main__":
    main()
