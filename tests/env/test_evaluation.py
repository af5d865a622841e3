"""Evaluation of a function from images to label maps over a whole split."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score

from rss_env.datasets import load_dataset
from rss_env.errors import InvalidAction, OptionError
from rss_env.evaluation import Evaluation, evaluate
from rss_env.rewards import score_images
from tests.trees import dataset_kwargs, tiny_folder

IMAGES = 13
OPTIONS: dict[str, Any] = {"image_size": (40, 48), "num_images": IMAGES}
ENV_ID = "RSS-Shapes-ImageReward-v0"
DATA = load_dataset("Shapes", split="val", **OPTIONS)


def guess(images: np.ndarray) -> np.ndarray:
    """Label maps that depend on the images alone and are often wrong."""
    return (images.astype(int).sum(axis=-1) // 97) % 5


def expected(images: np.ndarray, targets: np.ndarray, classes: int) -> tuple[float, float, list[float]]:
    """mIoU, pixel accuracy and per-class IoU (NaN for none), from scikit-learn."""
    counted = targets != 255
    truth, label_maps = targets[counted], guess(images)[counted]
    present = np.union1d(truth, label_maps)
    iou = jaccard_score(truth, label_maps, labels=present, average=None)
    per_class = [float("nan")] * classes
    for label, value in zip(present, iou, strict=True):
        per_class[label] = float(value)
    return float(iou.mean()), accuracy_score(truth, label_maps), per_class


def assert_measures(result: Evaluation, images: np.ndarray, targets: np.ndarray, names: tuple[str, ...]) -> None:
    miou, accuracy, per_class = expected(images, targets, len(names))
    assert result.images == len(images)
    assert result.miou == pytest.approx(miou, rel=1e-12)
    assert result.pixel_accuracy == accuracy
    assert tuple(result.per_class_iou) == names
    measured = [float("nan") if iou is None else iou for iou in result.per_class_iou.values()]
    assert measured == pytest.approx(per_class, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5, 12, 13, 14, 100])
@pytest.mark.parametrize("limit", [None, 1, 6, 13, 99])
def test_every_image_counts_once_whatever_the_batch_size(batch_size: int, limit: int | None):
    calls: list[np.ndarray] = []

    def predict(images: np.ndarray) -> np.ndarray:
        calls.append(images)
        return guess(images)

    result = evaluate(predict, ENV_ID, batch_size=batch_size, limit=limit, **OPTIONS)
    count = min(limit or IMAGES, IMAGES)
    assert len(calls) == -(-count // batch_size)
    assert {len(images) for images in calls} == {min(batch_size, count)}
    np.testing.assert_array_equal(np.concatenate(calls)[:count], DATA.images[:count])
    assert_measures(result, DATA.images[:count], DATA.targets[:count], DATA.class_names)


@pytest.mark.parametrize("level", ["Image", "Pixel"])
@pytest.mark.parametrize("name", ["VOC", "CamVid"])
def test_ignored_pixels_and_absent_classes_do_not_count(name: str, level: str, tmp_path: Any):
    given = {"image_size": (40, 48), **dataset_kwargs(name, tmp_path)}
    data = load_dataset(name, split="train", **given)
    assert (data.targets == 255).any()
    result = evaluate(guess, f"RSS-{name}-{level}Reward-v0", split="train", batch_size=2, **given)
    assert_measures(result, data.images, data.targets, data.class_names)


def test_a_class_that_occurs_nowhere_has_no_iou(tmp_path: Any):
    given = {"image_size": (40, 48), **dataset_kwargs("VOC", tmp_path)}
    data = load_dataset("VOC", split="train", **given)
    absent = set(range(21)) - set(np.unique(data.targets[0]).tolist()) - {0}
    result = evaluate(
        lambda images: np.zeros(images.shape[:3], np.uint8), "RSS-VOC-ImageReward-v0", split="train", limit=1, **given
    )
    assert absent
    assert {name for name, iou in result.per_class_iou.items() if iou is None} == {data.class_names[c] for c in absent}


def test_the_target_itself_scores_1():
    left = iter(DATA.targets)
    result = evaluate(lambda images: np.stack([next(left) for _ in images]), ENV_ID, batch_size=1, **OPTIONS)
    assert (result.miou, result.pixel_accuracy, result.images) == (1.0, 1.0, IMAGES)


@pytest.mark.parametrize(
    "options", [{"augment": "flip"}, {"order": "sequential"}, {"samples_per_image": 4}, {"autoreset_mode": "Disabled"}]
)
def test_arguments_made_for_training_do_not_change_the_result(options: dict):
    assert evaluate(guess, ENV_ID, **OPTIONS, **options) == evaluate(guess, ENV_ID, **OPTIONS)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, ">i4"])
def test_label_maps_may_have_any_integer_dtype(dtype: Any):
    assert evaluate(lambda images: guess(images).astype(dtype), ENV_ID, **OPTIONS) == evaluate(guess, ENV_ID, **OPTIONS)


def test_what_is_evaluated_may_overwrite_its_images():
    def predict(images: np.ndarray) -> np.ndarray:
        label_maps = guess(images)
        images[:] = 0
        return label_maps

    assert evaluate(predict, ENV_ID, **OPTIONS) == evaluate(guess, ENV_ID, **OPTIONS)


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        (np.float64(0.0), "must have an integer dtype, got float64"),
        (np.int64(5), r"holds classes 0\.\.4, got values from 5 to 5"),
        (np.int64(256), r"holds classes 0\.\.4, got values from 256 to 256"),
        (np.int64(-1), r"holds classes 0\.\.4, got values from -1 to -1"),
    ],
)
def test_what_is_no_label_map_is_an_error(label_map: Any, message: str):
    with pytest.raises(InvalidAction, match=message):
        evaluate(lambda images: np.full(images.shape[:3], label_map), ENV_ID, **OPTIONS)


def test_label_maps_of_another_shape_are_an_error():
    with pytest.raises(InvalidAction, match=r"shape \(13, 40, 48\), got \(13, 40, 47\)"):
        evaluate(lambda images: guess(images)[:, :, 1:], ENV_ID, **OPTIONS)


@pytest.mark.parametrize("options", [{"limit": 0}, {"limit": -1}, {"batch_size": 0}, {"batch_size": 2.0}])
def test_batch_size_and_limit_must_be_positive_integers(options: dict):
    with pytest.raises(OptionError, match=f"{next(iter(options))} must be an integer of at least 1, got "):
        evaluate(guess, ENV_ID, **OPTIONS, **options)


@pytest.mark.parametrize("batch_size", [1, 4, 13, 100])
@pytest.mark.parametrize("limit", [None, 6])
@pytest.mark.parametrize("level", ["Image", "Pixel"])
def test_label_maps_are_scored_on_demand_each_once(batch_size: int, limit: int | None, level: str):
    env_id = f"RSS-Shapes-{level}Reward-v0"
    result = evaluate(guess, env_id, batch_size=batch_size, limit=limit, score=True, **OPTIONS)
    count = min(limit or IMAGES, IMAGES)
    label_maps, targets = guess(DATA.images[:count])[:, None].astype(np.uint8), DATA.targets[:count]
    scores = score_images("mean_iou" if level == "Image" else "pixel_accuracy", label_maps, targets, 5)
    assert result.queries == result.images == count
    assert result.score == pytest.approx(scores.mean(), abs=1e-12)
    assert list(result.metrics) == ["miou", "pixel_accuracy", "score"]
    assert evaluate(guess, env_id, limit=limit, **OPTIONS).queries == 0


def test_without_masks_there_is_the_mean_score_only(tmp_path: Path):
    shutil.rmtree(tiny_folder(tmp_path) / "masks")
    shown: list[np.ndarray] = []

    def judge(image: np.ndarray, label_map: np.ndarray, target: None) -> float:
        assert target is None
        shown.append(image)
        return float(label_map.mean())

    options = {"root": tmp_path, "image_size": (8, 10), "reward": judge, "split": "train", "num_classes": 3}
    result = evaluate(lambda images: np.ones(images.shape[:3], np.uint8), "RSS-Folder-ImageReward-v0", **options)
    assert len(shown) == result.queries == result.images > 1
    assert result == Evaluation(None, None, {}, result.images, 1.0, result.images)
    assert str(result) == f"mean score 1.0000 on {result.images} images"
    refused = evaluate(lambda images: images[..., 0] * 0, "RSS-Folder-ImageReward-v0", score=False, **options)
    assert refused.metrics == {}
