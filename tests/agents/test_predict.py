from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from agents import predict
from agents.networks import policy
from agents.networks.checkpoints import load_policy, predict_label_maps, save_policy
from agents.networks.unet import UNet
from rss_env.datasets.decode import fit, read_image
from rss_env.rendering import overlay

CPU = torch.device("cpu")


def write_photo(path: Path, width: int, height: int) -> Path:
    """A smooth picture with large areas of different colours."""
    rng = np.random.default_rng(width * height)
    small = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    small.resize((width, height), Image.Resampling.BILINEAR).save(path)
    return path


def describe(run_dir: Path) -> dict[str, Any]:
    file = run_dir / "checkpoints" / "step-00000006" / "weights.safetensors"
    with safe_open(file, framework="pt") as weights:
        return json.loads(weights.metadata()["policy"])


def test_a_photo_becomes_a_palette_png_of_its_size_and_an_overlay(
    command: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    photos = [write_photo(tmp_path / "wide.png", 70, 30), write_photo(tmp_path / "tall.jpg", 31, 65)]
    out = tmp_path / "new" / "out"
    outcome = command(predict.main, finished_run, *photos, "--out", out, "--no-progress")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"2 of 2 photos written to {out}\n"
    assert sorted(file.name for file in out.iterdir()) == [
        "tall-overlay.png",
        "tall.png",
        "wide-overlay.png",
        "wide.png",
    ]
    palette = np.array(describe(finished_run)["palette"], np.uint8)
    for photo in photos:
        original = Image.open(photo).convert("RGB")
        with Image.open(out / f"{photo.stem}.png") as label_map, Image.open(out / f"{photo.stem}-overlay.png") as laid:
            assert label_map.mode == "P"
            assert label_map.size == laid.size == original.size
            assert label_map.getpalette()[:9] == palette.ravel().tolist()  # type: ignore[index]
            labels = np.asarray(label_map)
            assert set(np.unique(labels)) <= {0, 1, 2}
            np.testing.assert_array_equal(np.asarray(laid), overlay(np.asarray(original), labels, palette))


def test_a_photo_of_the_training_size_is_segmented_as_it_is(
    command: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    photo = write_photo(tmp_path / "photo.png", 24, 16)
    command(predict.main, finished_run, photo, "--out", tmp_path / "out", "--no-progress")
    policy, _ = load_policy(finished_run, CPU)
    with Image.open(photo) as image, Image.open(tmp_path / "out" / "photo.png") as label_map:
        expected = predict_label_maps(policy, np.array(image)[None], CPU)[0]
        assert len(np.unique(expected)) > 1
        np.testing.assert_array_equal(np.asarray(label_map), expected)


@pytest.mark.parametrize(
    ("resize", "seen", "common"),
    [  # at training images of 16 × 24; the part that a training image of this photo has too, in both
        ("pad", (12, 24), (np.s_[:, :], np.s_[2:14, :])),
        ("crop", (16, 32), (np.s_[:, 4:28], np.s_[:, :])),
        ("stretch", (16, 24), (np.s_[:, :], np.s_[:, :])),
    ],
)
def test_a_photo_of_other_proportions_is_brought_to_the_scale_of_training(
    resize: str,
    seen: tuple[int, int],
    common: tuple[Any, Any],
    command: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    description: dict[str, Any] = {
        "image_size": (16, 24),
        "resize": resize,
        "palette": [[0, 0, 0], [255, 0, 0], [0, 255, 0]],
    }
    description |= {"network": "unet", "network_options": {"width": 8}, "num_classes": 3}
    weights = tmp_path / "weights.safetensors"
    save_policy(weights, UNet(3, 8), description)
    shown = []

    def recording(policy: UNet, images: np.ndarray, *rest: Any) -> np.ndarray:
        shown.append(images)
        return predict_label_maps(policy, images, *rest)

    monkeypatch.setattr(policy, "predict_label_maps", recording)
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 60, 3), dtype=np.uint8)).save(photo)
    assert command(predict.main, weights, photo, "--out", tmp_path / "out", "--no-progress").code == 0
    assert [images.shape for images in shown] == [(1, *seen, 3)]
    trained = np.asarray(fit(read_image(photo), (16, 24), resize, Image.Resampling.BILINEAR, 0))
    np.testing.assert_array_equal(shown[0][0][common[0]], trained[common[1]])
    with Image.open(tmp_path / "out" / "photo.png") as label_map:
        assert label_map.size == (60, 30)


def test_enlarging_a_label_map_invents_no_class_between_two_others(
    command: Callable[..., Any], finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left_0_right_2(policy: UNet, images: np.ndarray, *rest: Any) -> np.ndarray:
        label_maps = np.zeros(images.shape[:3], np.uint8)
        label_maps[:, :, images.shape[2] // 2 :] = 2
        return label_maps

    monkeypatch.setattr(policy, "predict_label_maps", left_0_right_2)
    photo = write_photo(tmp_path / "photo.png", 120, 80)
    assert command(predict.main, finished_run, photo, "--out", tmp_path / "out", "--no-progress").code == 0
    expected = np.zeros((80, 120), np.uint8)
    expected[:, 60:] = 2
    with Image.open(tmp_path / "out" / "photo.png") as label_map:
        np.testing.assert_array_equal(np.asarray(label_map), expected)


@pytest.mark.parametrize("size", [(1, 1), (300, 1), (1, 200)])
def test_the_thinnest_photo_is_segmented(
    command: Callable[..., Any], finished_run: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    photo = write_photo(tmp_path / "photo.png", *size)
    assert command(predict.main, finished_run, photo, "--out", tmp_path / "out", "--no-progress").code == 0
    with Image.open(tmp_path / "out" / "photo.png") as label_map:
        assert label_map.size == size


def test_an_unreadable_photo_is_reported_and_the_others_are_written(
    command: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    bad, missing = tmp_path / "bad.jpg", tmp_path / "missing.png"
    bad.write_bytes(b"no photo")
    photos = [bad, write_photo(tmp_path / "good.png", 20, 20), missing]
    outcome = command(predict.main, finished_run, *photos, "--out", tmp_path / "out", "--no-progress")
    assert outcome.code == 1
    assert [str(path) in line for path, line in zip((bad, missing), outcome.err.splitlines(), strict=True)] == [1, 1]
    assert outcome.err.count("error: ") == 2
    assert outcome.out == f"1 of 3 photos written to {tmp_path / 'out'}\n"
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["good-overlay.png", "good.png"]


@pytest.mark.parametrize(
    "names", [("a/one.png", "b/one.jpg"), ("a/one.png", "a/one.png"), ("one.png", "one-overlay.jpg")]
)
def test_two_photos_with_one_result_are_refused(
    command: Callable[..., Any], finished_run: Path, tmp_path: Path, names: tuple[str, str]
) -> None:
    outcome = command(predict.main, finished_run, *names, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert outcome.err.startswith("error: Two photos would both be written as one")
    assert not (tmp_path / "out").exists()


def test_a_photo_is_never_replaced_by_its_label_map(
    command: Callable[..., Any], finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = write_photo(tmp_path / "photo.png", 20, 20)
    before = photo.read_bytes()
    monkeypatch.chdir(tmp_path)
    for name, out in ((photo, tmp_path), ("photo.png", "."), (photo, tmp_path / "sub" / "..")):
        outcome = command(predict.main, finished_run, name, "--out", out)
        assert outcome.code == 2
        assert outcome.err.startswith("error: ")
        assert "would be replaced" in outcome.err
    assert photo.read_bytes() == before


def test_results_that_cannot_be_written_are_reported(
    command: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    photo = write_photo(tmp_path / "photo.png", 20, 20)
    outcome = command(predict.main, finished_run, photo, "--out", tmp_path / "file" / "out")
    assert outcome.code == 2
    assert outcome.err.startswith("error: Cannot write to --out")
