"""The commands on real photos, each in a process of its own as a person would run them."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def call(module: str, *words: object) -> str:
    """Runs ``python -m module``; its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("env_id", "root", "size", "photos", "classes"),
    [
        ("RSS-Folder-ImageReward-v0", "camvid", (24, 32), "images", 11),
        ("RSS-VOC-ImageReward-v0", "voc2012_layout_sample", (32, 32), "VOCdevkit/VOC2012/JPEGImages", 21),
    ],
)
def test_training_evaluating_and_predicting_work_on_photos(
    real_data: Path, tmp_path: Path, env_id: str, root: str, size: tuple[int, int], photos: str, classes: int
) -> None:
    run_dir = tmp_path / "run"
    env = ["--env-id", env_id, "--root", real_data / root, "--image-size", *size]
    small = [
        "--steps",
        6,
        "--batch-size",
        2,
        "--samples-per-image",
        4,
        "--network-options",
        '{"width": 8}',
        "--log-every",
        1,
    ]
    call("agents.likelihood", *env, *small, "--run-dir", run_dir, "--no-progress")
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    train = [row for row in rows if "train/loss" in row]
    assert [row["step"] for row in train] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(row["train/loss"]) and 0 < row["reward/mean"] < 1 for row in train)
    assert train[-1]["time/reward_queries"] == 6 * 2 * 4

    result = json.loads(call("agents.evaluate", run_dir, "--json"))
    assert result["miou"] == rows[-1]["val/miou"]
    assert len(result["per_class_iou"]) == classes

    photo = min((real_data / root / photos).iterdir())
    call("agents.predict", run_dir, photo, "--out", tmp_path / "out", "--no-progress")
    with Image.open(photo) as original, Image.open(tmp_path / "out" / f"{photo.stem}.png") as label_map:
        assert label_map.mode == "P"
        assert label_map.size == original.size
