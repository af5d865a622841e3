"""From photos without masks and a scoring function to a policy: every command of the agents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agents import RSS, Likelihood, Supervised, evaluate, predict
from agents.training.run_folder import RunFolder

JUDGE = """
def judge(image, label_map, target):
    assert target is None
    bright = image.mean(axis=2) > 128
    return 10 * float((bright == (label_map == 1)).mean())
"""
WORDS: list[object] = [
    "--env-id",
    "RSS-Folder-ImageReward-v0",
    "--image-size",
    16,
    24,
    "--reward",
    "bright_judge:judge",
]
WORDS += ["--batch-size", 4, "--network-options", '{"width": 8}', "--no-progress"]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixteen photos of bright and dark patches, four to validate on, and a judge who knows bright from dark."""
    root, rng = tmp_path / "photos", np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "splits").mkdir()
    (root / "classes.json").write_text('{"classes": ["dark", "bright"]}')
    names = [f"{number:02}" for number in range(16)]
    for name in names:
        patches = rng.integers(0, 2, (4, 6)).repeat(4, 0).repeat(4, 1)
        pixels = 60 + 130 * patches[..., None] + rng.integers(-20, 20, (16, 24, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / f"{name}.png")
    (root / "splits" / "train.txt").write_text("\n".join(names[:12]))
    (root / "splits" / "val.txt").write_text("\n".join(names[12:]))
    (tmp_path / "bright_judge.py").write_text(JUDGE)
    monkeypatch.syspath_prepend(tmp_path)
    return root


def test_an_agent_learns_from_a_score_and_is_used(photos: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    run = tmp_path / "run"
    words = [*WORDS, "--root", photos, "--run-dir", run, "--samples-per-image", 8]
    outcome = command(Likelihood, *words, "--steps", 60, "--eval-every", 20, "--val-images", 3)
    assert (outcome.code, outcome.err) == (0, "")
    assert "The formula of the score is not known here" in outcome.out
    assert "val: mean score" in outcome.out
    assert "on 3 images" in outcome.out
    rows = RunFolder(run).read_metrics()
    scores = [row["val/score"] for row in rows if "val/score" in row]
    assert len(scores) == 3
    assert scores[-1] > 9
    assert not any("val/miou" in row for row in rows)
    assert f"{60 * 4 * 8 + 3 * 3:,} reward queries" in outcome.out  # each evaluation costs a query an image

    said = command(evaluate.main, run, "--json")
    result = json.loads(said.out)
    assert (result["miou"], result["images"], result["queries"]) == (None, 4, 4)
    assert result["score"] > 9
    assert "mean score" in command(evaluate.main, run).out

    photo = photos / "images" / "15.png"
    assert command(predict.main, run, photo, "--out", tmp_path / "out", "--no-progress").code == 0
    label_map = np.asarray(Image.open(tmp_path / "out" / "15.png"))
    assert ((label_map == 1) == (np.asarray(Image.open(photo)).mean(axis=2) > 128)).mean() > 0.9


def test_a_run_is_resumed_and_counts_the_queries_of_its_evaluations(
    photos: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    words = [*WORDS, "--root", photos, "--run-dir", tmp_path / "run", "--samples-per-image", 2, "--eval-every", 2]
    assert command(RSS, *words, "--steps", 2).code == 0
    outcome = command(RSS, "--run-dir", tmp_path / "run", "--resume", "--steps", 4, "--no-progress")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"{4 * 4 * 2 + 2 * 4} reward queries" in outcome.out


def test_what_needs_targets_says_so(photos: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    outcome = command(Supervised, *WORDS, "--root", photos, "--run-dir", tmp_path / "run", "--steps", 2)
    assert outcome.code == 2
    assert outcome.err.startswith("error: Folder has no masks, so there is no target to expose")
    named = [word if word != "bright_judge:judge" else "mean_iou" for word in WORDS]
    outcome = command(Likelihood, *named, "--root", photos, "--run-dir", tmp_path / "run", "--steps", 2)
    assert outcome.code == 2
    assert outcome.err.startswith("error: Folder has no masks, which reward='mean_iou' needs")
    assert outcome.err.count("\n") == 1
