"""The playground page in a real browser: its numbers against enumeration, its sliders, its policy."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

FILES = Path(__file__).parent.parent / "docs" / "static" / "playground"
SCORES = {
    "accuracy": lambda a, t: a,
    "power": lambda a, t: a**t,
    "threshold": lambda a, t: float(a >= t - 1e-9),
    "stars": lambda a, t: np.floor(a * (t - 1) + 0.5) / (t - 1),
}


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """The page, 900 pixels wide; errors, messages and what is asked of other servers fail the test."""
    shutil.copytree(FILES, tmp_path / "_static" / "playground")
    start = '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><body>'
    (tmp_path / "index.html").write_text(start + (FILES / "page.html").read_text(encoding="utf-8"), encoding="utf-8")
    page = browser.new_page(viewport={"width": 900, "height": 1200})
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: request.url.startswith("file:") or wrong.append(request.url))
    page.goto((tmp_path / "index.html").as_uri())
    yield page
    page.close()
    assert not wrong


def text(page: Any, part: str) -> str:
    return page.locator(f'[data-part="{part}"]').text_content()


def enumerated(
    draws: int, samples: int, noise: float, shape: str, parameter: float, right: float
) -> tuple[float, float]:
    """Mean and standard deviation of the leave-one-out gradient of one logit, over all that may be drawn."""
    maps = list(itertools.product((0, 1), repeat=draws))
    chance = np.array([right ** sum(m) * (1 - right) ** (draws - sum(m)) for m in maps])
    score = np.array([SCORES[shape](sum(m) / draws, parameter) for m in maps])
    slope = np.array([1 - right if m[0] else -right for m in maps])  # d log p / d logit
    mean = square = 0.0
    for drawn in itertools.product(range(len(maps)), repeat=samples):
        k = list(drawn)
        baseline = (score[k].sum() - score[k]) / (samples - 1)
        estimate = ((score[k] - baseline) * slope[k]).mean()
        # Noise has no mean; it adds its variance times the squared weights that the estimate gives to the scores.
        weights = (slope[k] - (slope[k].sum() - slope[k]) / (samples - 1)) / samples
        mean += chance[k].prod() * estimate
        square += chance[k].prod() * (estimate**2 + noise**2 * (weights**2).sum())
    return mean, np.sqrt(square - mean**2)


@pytest.mark.parametrize("shape", [("accuracy", 1), ("power", 3), ("power", 0.25), ("threshold", 0.6), ("stars", 3)])
def test_signal_and_noise_are_those_of_all_label_maps_that_may_be_drawn(page: Any, shape: tuple[str, float]) -> None:
    sizes = ((1, 2), (2, 2), (3, 2), (2, 3), (5, 2), (1, 4))
    for (draws, samples), (right, noise) in itertools.product(sizes, ((0.5, 0.0), (0.2, 0.3), (0.9, 0.1))):
        options = {"draws": draws, "samples": samples, "noise": noise, "shape": shape[0], "parameter": shape[1]}
        given = page.evaluate("options => playground.gradient(options)", options | {"right": right})
        assert (given["signal"], given["noise"]) == pytest.approx(
            enumerated(**options, right=right), rel=1e-9, abs=1e-12
        )


def test_binomial_chances(page: Any) -> None:
    for n, p in ((0, 0.3), (7, 0.0), (7, 1.0), (63, 0.5), (4095, 0.01), (4095, 0.99)):
        given = page.evaluate("([n, p]) => Array.from(playground.binomial(n, p))", [n, p])
        np.testing.assert_allclose(given, binom.pmf(np.arange(n + 1), n, p), rtol=1e-9, atol=1e-300)


def test_the_samples_that_are_needed_are_the_fewest(page: Any) -> None:
    options = {"draws": 256, "noise": 0.1, "shape": "accuracy", "parameter": 1, "right": 0.4}
    needed = page.evaluate("options => playground.samplesNeeded(options)", options)
    ratio = "options => playground.signalToNoise(options)"
    assert page.evaluate(ratio, options | {"samples": needed}) >= 1
    assert page.evaluate(ratio, options | {"samples": needed - 1}) < 1


def test_four_times_the_pixels_halve_the_signal_to_noise(page: Any) -> None:
    options = {"samples": 16, "noise": 0, "shape": "accuracy", "parameter": 1, "right": 0.5}
    small, large = (
        page.evaluate("options => playground.signalToNoise(options)", options | {"draws": draws})
        for draws in (256, 1024)
    )
    assert small / large == pytest.approx(2, rel=0.01)


LEARN = """([settings, updates]) => {
    playground.change(settings);
    for (let i = 0; i < updates; i++) playground.policy().update(playground.state);
    return playground.policy().accuracy();
}"""


def test_a_policy_learns_from_its_scores_and_the_same_again_from_the_same_seed(page: Any) -> None:
    assert page.evaluate(LEARN, [{"side": 8}, 200]) == 1
    logits = "() => Array.from(playground.policy().logits)"
    first = page.evaluate(logits)
    page.evaluate(LEARN, [{"side": 8}, 200])
    assert page.evaluate(logits) == first
    page.locator('[data-part="seed"]').fill("2")
    page.evaluate(LEARN, [{"side": 8}, 200])
    assert page.evaluate(logits) != first


def test_a_score_that_no_label_map_reaches_teaches_nothing(page: Any) -> None:
    all_or_nothing = {"side": 16, "shape": "threshold", "parameter": 0.75}
    assert page.evaluate(LEARN, [all_or_nothing, 0]) == page.evaluate(LEARN, [all_or_nothing, 100]) < 0.75


def test_sliders_and_buttons(page: Any) -> None:
    assert text(page, "side-value") == "256 (16×16)"
    before = float(text(page, "snr"))
    page.get_by_label("pixels").focus()
    page.keyboard.press("ArrowRight")
    assert text(page, "side-value") == "576 (24×24)"
    assert float(text(page, "snr")) == pytest.approx(before * 16 / 24, rel=0.02)
    page.get_by_label("cells that share a draw").press("ArrowRight")
    page.get_by_label("cells that share a draw").press("ArrowRight")
    assert float(text(page, "snr")) > before
    page.get_by_role("button", name="five stars").click()
    assert text(page, "parameter-value") == "5"
    assert page.get_by_label("shape of the score").input_value() == "stars"
    page.get_by_label("shape of the score").select_option("accuracy")
    assert page.locator('[data-part="parameter-row"]').is_hidden()
    page.get_by_role("button", name="One update").click()
    assert (text(page, "updates"), text(page, "queries")) == ("1", "16")
    page.get_by_role("button", name="Learn").click()
    page.wait_for_function("playground.policy().updates > 20")
    page.get_by_role("button", name="Pause").click()
    stopped = text(page, "updates")
    page.wait_for_timeout(100)
    assert text(page, "updates") == stopped
    page.get_by_role("button", name="Start again").click()
    assert text(page, "updates") == "0"


def test_every_preset_can_be_drawn(page: Any) -> None:
    for button in page.locator('[data-part="presets"] button').all():
        button.click()
        page.get_by_role("button", name="One update").click()
        assert text(page, "updates") == "1"


@pytest.mark.parametrize("width", [390, 900])
def test_nothing_is_wider_than_the_screen(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    charts = page.locator(".uplot").all()
    assert len(charts) == 2
    assert all(chart.bounding_box()["width"] <= width for chart in charts)
