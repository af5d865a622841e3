from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from agents.networks.checkpoints import load_policy, predict_label_maps
from agents.training.command import run_command
from benchmarks import demo
from rss_env.datasets import load_dataset

ROOT = Path(__file__).parents[2]
SMALL = [
    "--image-size",
    "16",
    "16",
    "--batch-size",
    "2",
    "--samples-per-image",
    "2",
    "--pictures",
    "2",
    "--no-progress",
]


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Several workers share the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shows(picture: np.ndarray, part: np.ndarray, scale: int) -> bool:
    """Whether a picture, uint8 (H, W, 3), holds a smaller one somewhere, each of its pixels a square of side scale."""
    enlarged = part.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = enlarged.shape[:2]
    corners = np.argwhere((picture == enlarged[0, 0]).all(axis=2))
    windows = (picture[y : y + height, x : x + width] for y, x in corners)
    return any(np.array_equal(window, enlarged) for window in windows)


def check_results(folder: Path, steps: int) -> dict[str, Any]:
    """Checks what a demo of so many steps leaves; its summary."""
    summary = json.loads((folder / "summary.json").read_text())
    assert summary.keys() == {"random", "background", "rss", "supervised", "seconds", "reward_queries"}
    assert summary["reward_queries"] == steps * 2 * 2
    assert all(0 < summary[name] < 1 for name in ("random", "background", "rss", "supervised"))
    assert summary["seconds"] > 0
    with Image.open(folder / "demo.png") as picture:
        assert picture.mode == "RGB"
        pixels = np.asarray(picture)
    data = load_dataset("Shapes", split="val", image_size=(16, 16), difficulty="easy")
    policy, _ = load_policy(folder / "rss", torch.device("cpu"))
    label_maps = predict_label_maps(policy, data.images[:2].copy(), torch.device("cpu"))
    for part in (*data.images[:2], *data.palette[data.targets[:2]], *data.palette[label_maps]):
        assert shows(pixels, part, scale=10)
    for name in ("rss", "supervised"):
        assert json.loads((folder / name / "config.json").read_text())["steps"] == steps
    return summary


def test_the_demo_leaves_a_summary_and_a_picture_and_replaces_them_when_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.demo", "--steps", "3", *SMALL, "--run-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first = check_results(folder, steps=3)
    for name in ("random", "background", "rss", "supervised"):
        assert f" {first[name]:.3f}\n" in done.stdout
    assert str(folder / "demo.png") in done.stdout

    monkeypatch.setattr(sys, "argv", ["demo", "--steps", "4", *SMALL, "--run-dir", str(folder)])
    assert demo.main() == 0
    second = check_results(folder, steps=4)
    assert (second["random"], second["background"]) == (first["random"], first["background"])
    assert second["rss"] != first["rss"]


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["demo", "--run-dir", str(tmp_path / "file" / "demo")])
    with pytest.raises(SystemExit) as ended:
        run_command(demo.main)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: Cannot write the run folder")
