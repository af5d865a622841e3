"""The animation of docs/rate.md: a sitting at the page of ``agents.rate``, from procedural images only.

    python -m benchmarks.rating_picture

A simulated rater reads the question on the page, in a chromium without a window, and answers by key, while the policy
learns. Images are those of RSS-Shapes with two classes. Needs the extra "rate", playwright and a chromium that is
installed. Writes docs/pictures/rating.gif.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image, ImageDraw

from agents.rate import RateArguments, Rating
from agents.rating.answers import Question
from agents.rating.session import Session
from agents.training.command import run_command
from benchmarks.raters import served
from rss_env.datasets import load_dataset
from rss_env.errors import OptionError
from rss_env.legend import INK, font_of

RATER = "Simulated"
WAIT = 120_000  # milliseconds for the page
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
SHAPES: dict[str, Any] = {"num_classes": 2, "difficulty": "easy", "num_images": 48}
SIZE = (64, 80)
VIEW: Any = {"width": 1130, "height": 706}  # pixels: three pictures stand next to each other in no narrower window
WIDTH = 880  # of the animation in pixels
STRIP, TEXT = 30, 17  # height of the caption and of its text in pixels
CHOSEN = (0, 130, 60)
COLOURS = 96
ASKED, PRESSED, END = 700, 500, 4000  # milliseconds that a question, an answer and the last frame are shown
FAST = 0.35  # of these times from the first questions on
KEYS = {"ArrowLeft": "A is better", "ArrowRight": "B is better", "ArrowDown": "both are as good"}


def main(
    answers: int = 48,
    slow: int = 3,
    every: int = 4,
    updates_per_answer: int = 6,
    seed: int = 1,
    out: Path = PICTURES / "rating.gif",
) -> None:
    """Write the animation of the page on raters.

    Args:
        answers: of the sitting.
        slow: how many of the first ones are all shown, and slowly.
        every: from then on, answers from one frame to the next, and from one measurement of the policy to the next.
        updates_per_answer: of the policy.
        seed: of the policy and of the questions.
        out: file to write.
    """
    frames: list[Image.Image] = []
    durations: list[int] = []
    data = load_dataset("Shapes", split="train", image_size=SIZE, **SHAPES)
    assert data.targets is not None
    with tempfile.TemporaryDirectory() as folder:
        rating = Rating(
            RateArguments(
                env_id="RSS-Shapes-ImageReward-v0",
                env_kwargs=SHAPES,
                classes="background,disk",
                image_size=SIZE,
                updates_per_answer=updates_per_answer,
                learning_rate=5e-3,
                repeat=0.0,
                seed=seed,
                run_dir=f"{folder}/run",
            )
        )
        with served(rating, measure_every=every) as (address, session), page_at(address) as page:
            sign_in(page)
            for number in range(1, answers + 1):
                question, _ = session.question(RATER)
                key = judge(question, data.targets[session.questions.index[question.image]])
                if number <= slow or number % every == 0:
                    pace = 1.0 if number <= slow else FAST
                    shot = screenshot(page)
                    asked = f"Question {number}"
                    frames += [captioned(shot, asked, []), captioned(shot, f"{asked}: {KEYS[key]}", card(page, key))]
                    durations += [round(pace * ASKED), round(pace * PRESSED)]
                shown = page.get_attribute("#asking", "data-question")
                page.keyboard.press(key)
                ready(page, shown)
                while not session.caught_up and session.error is None:
                    time.sleep(0.01)
                if session.error is not None:
                    raise session.error
                if number % every == 0:
                    learned(page, session)
            last = session.curve[-1]
            frames.append(captioned(screenshot(page), f"After {answers} answers, and no label map was drawn", []))
            durations.append(END)
    save(frames, durations, out)
    print(f"{out}: {len(frames)} frames, {out.stat().st_size / 1000:.0f} kB; mean IoU {last['val/miou']:.3f}")


@contextmanager
def page_at(address: str) -> Iterator[Any]:
    """The page of a server in a chromium without a window.

    Raises:
        OptionError: playwright or the browser is not there.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise OptionError("The page needs playwright: pip install 'rss-env[dev]'.") from None
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise OptionError("The page needs a browser: install chromium.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=VIEW, bypass_csp=True)  # which forbids what waiting evaluates
        page.goto(address)
        yield page
        browser.close()


def sign_in(page: Any) -> None:
    """Gives a name and waits for the first question."""
    page.get_by_label("Your name").fill(RATER)
    page.keyboard.press("Enter")
    ready(page, "")


def ready(page: Any, after: str) -> None:
    """Waits for the next question and its pictures."""
    page.wait_for_selector(f'#asking[data-question]:not([data-question="{after}"])', timeout=WAIT)
    page.wait_for_selector("body:not([aria-busy])", timeout=WAIT)


def learned(page: Any, session: Session) -> None:
    """Waits until the page shows what the policy says after the last measurement."""
    value = f"{session.curve[-1]['val/miou']:.3f} after {session.curve[-1]['answers']} answers"
    page.wait_for_selector(f'#curve svg[aria-label$="{value}"]', timeout=WAIT)


def judge(question: Question, target: np.ndarray) -> str:
    """The key of somebody who knows which label map has more of the part right."""
    first, second = ((label_map == target)[question.part].sum() for label_map in question.label_maps)
    return "ArrowLeft" if first > second else "ArrowRight" if second > first else "ArrowDown"


def screenshot(page: Any) -> Image.Image:
    """The page, when all of its pictures have come."""
    for picture in page.locator("#held-out img").all():
        picture.scroll_into_view_if_needed()  # they are loaded when they are seen
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_function("[...document.images].every((image) => image.complete)", timeout=WAIT)
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def card(page: Any, key: str) -> list[dict[str, float]]:
    """Where the label maps that an answer prefers are on the page."""
    chosen = {"ArrowLeft": [0], "ArrowRight": [1], "ArrowDown": [0, 1]}[key]
    return [page.locator(".option").nth(k).bounding_box() for k in chosen]


def captioned(shot: Image.Image, caption: str, chosen: list[dict[str, float]]) -> Image.Image:
    """A screenshot at the width of the animation, with what is chosen framed, over a caption."""
    marked = shot.copy()
    draw = ImageDraw.Draw(marked)
    for box in chosen:
        corners = (box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"])
        draw.rounded_rectangle(corners, radius=10, outline=CHOSEN, width=6)
    height = round(shot.height * WIDTH / shot.width)
    picture = Image.new("RGB", (WIDTH, height + STRIP), INK)
    picture.paste(marked.resize((WIDTH, height), Image.Resampling.LANCZOS), (0, STRIP))
    ImageDraw.Draw(picture).text((12, STRIP // 2), caption, "white", font_of(TEXT), "lm")
    return picture


def save(frames: list[Image.Image], durations: list[int], out: Path) -> None:
    """Writes the animation, all frames in the colours of the last ones."""
    both = Image.new("RGB", (WIDTH, 2 * frames[-1].height))
    for place, frame in enumerate(frames[-2:]):  # an answer, with its colour, and the end
        both.paste(frame, (0, place * frame.height))
    palette = both.quantize(COLOURS)
    out.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    first.save(out, save_all=True, append_images=rest, duration=durations, loop=0, optimize=True)


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, prog="python -m benchmarks.rating_picture"))
