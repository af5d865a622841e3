from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image

from agents import evaluate
from agents.networks.checkpoints import load_policy, predict_label_maps


def final_numbers(run_dir: Path) -> dict[str, float]:
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return next(row for row in reversed(rows) if "val/miou" in row)


@pytest.mark.parametrize(
    "checkpoint", ["", "checkpoints/step-00000006", "checkpoints/step-00000006/weights.safetensors"]
)
def test_json_is_one_object_with_the_numbers_that_training_ended_with(
    command: Callable[..., Any], finished_run: Path, checkpoint: str
) -> None:
    outcome = command(evaluate.main, finished_run / checkpoint, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    result = json.loads(outcome.out)
    assert len(outcome.out.splitlines()) == 1
    logged = final_numbers(finished_run)
    assert result["miou"] == logged["val/miou"]
    assert result["pixel_accuracy"] == logged["val/pixel_accuracy"]
    assert list(result["per_class_iou"]) == ["background", "disk", "square"]
    assert result["images"] == 12
    present = [iou for iou in result["per_class_iou"].values() if iou is not None]
    assert result["miou"] == pytest.approx(sum(present) / len(present), abs=1e-12)


def test_the_numbers_are_those_of_the_whole_split_counted_pixel_by_pixel(
    command: Callable[..., Any], finished_run: Path
) -> None:
    result = json.loads(command(evaluate.main, finished_run, "--split", "test", "--batch-size", 5, "--json").out)
    options = {"split": "test", "order": "sequential", "image_size": (16, 24), "expose_target": True}
    envs = gym.make_vec("RSS-Shapes-ImageReward-v0", 12, difficulty="easy", num_classes=3, num_images=12, **options)
    images, infos = envs.reset()
    device = torch.device("cpu")
    label_maps, targets = predict_label_maps(load_policy(finished_run, device)[0], images, device), infos["target"]
    ious = [((label_maps == c) & (targets == c)).sum() / ((label_maps == c) | (targets == c)).sum() for c in range(3)]
    assert result["pixel_accuracy"] == pytest.approx((label_maps == targets).mean(), abs=1e-12)
    assert list(result["per_class_iou"].values()) == pytest.approx(ious, abs=1e-12)
    assert result["miou"] == pytest.approx(np.mean(ious), abs=1e-12)


def test_an_older_checkpoint_is_measured_when_it_is_named(command: Callable[..., Any], finished_run: Path) -> None:
    newest, older = (
        json.loads(command(evaluate.main, finished_run / folder, "--json").out)
        for folder in ("", "checkpoints/step-00000005")
    )
    assert newest != older


def test_the_table_names_every_class_and_the_split(command: Callable[..., Any], finished_run: Path) -> None:
    outcome = command(evaluate.main, finished_run)
    logged = final_numbers(finished_run)
    table = dict(line.rsplit(maxsplit=1) for line in outcome.out.splitlines() if line)
    assert table["mIoU"] == f"{logged['val/miou']:.4f}"
    assert table["pixel accuracy"] == f"{logged['val/pixel_accuracy']:.4f}"
    assert {"background", "disk", "square"} <= table.keys()
    assert outcome.out.endswith("12 images of split val\n")


def test_weights_outside_their_run_are_measured_on_the_environment_that_is_named(
    command: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    shutil.copy(finished_run / "checkpoints" / "step-00000006" / "weights.safetensors", tmp_path / "mine.safetensors")
    config = json.loads((finished_run / "config.json").read_text())
    words = ["--env-id", "RSS-Shapes-PixelReward-v0", "--image-size", 16, 24, "--env-kwargs"]
    words.append(json.dumps(config["env_kwargs"]))
    result = json.loads(command(evaluate.main, tmp_path / "mine.safetensors", *words, "--json").out)
    assert result["miou"] == final_numbers(finished_run)["val/miou"]


def write_folder(root: Path, classes: list[str] | None, most: int) -> Path:
    """Four photos whose masks hold the labels 0 to ``most``."""
    rng = np.random.default_rng(most)
    for kind, channels in (("images", (3,)), ("masks", ())):
        (root / kind).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256 if channels else most + 1, (16, 24, *channels), dtype=np.uint8)
            Image.fromarray(pixels).save(root / kind / f"{number}.png")
    if classes:
        (root / "classes.json").write_text(json.dumps(classes))
    return root


@pytest.mark.parametrize("classes", [["background", "disk", "square"], None])
def test_a_policy_is_measured_on_another_folder_of_its_classes(
    command: Callable[..., Any], finished_run: Path, tmp_path: Path, classes: list[str] | None
) -> None:
    root = write_folder(tmp_path / "other", classes, most=2)
    words = ["--env-id", "RSS-Folder-ImageReward-v0", "--root", root, "--split", "all", "--json"]
    outcome = command(evaluate.main, finished_run, *words)
    assert (outcome.code, outcome.err) == (0, "")
    device = torch.device("cpu")
    files = sorted((root / "images").iterdir())
    images, targets = (
        np.stack([np.array(Image.open(root / kind / f.name)) for f in files]) for kind in ("images", "masks")
    )
    right = predict_label_maps(load_policy(finished_run, device)[0], images, device) == targets
    assert json.loads(outcome.out)["pixel_accuracy"] == pytest.approx(right.mean(), abs=1e-12)


@pytest.mark.parametrize(
    ("classes", "most", "said"),
    [
        (["background", "square", "disk"], 2, "other classes: its class 1 is 'disk', the environment's 'square'."),
        (["background", "disk"], 1, "a policy for 3 classes, but the environment has 2."),
        (None, 3, "a policy for 3 classes, but the environment has 4."),
    ],
)
def test_a_folder_of_other_classes_is_one_line(
    command: Callable[..., Any], finished_run: Path, tmp_path: Path, classes: list[str] | None, most: int, said: str
) -> None:
    root = write_folder(tmp_path / "other", classes, most)
    words = ["--env-id", "RSS-Folder-ImageReward-v0", "--root", root, "--split", "all", "--json"]
    outcome = command(evaluate.main, finished_run, *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {finished_run} holds a policy for ")
    assert outcome.err.endswith(f"{said}\n")
    assert outcome.err.count("\n") == 1
