"""Folder: your own photos and masks, with or without split files and classes.json."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

import rss_env  # noqa: F401  (registers the ids)
from rss_env.datasets import load_dataset
from rss_env.datasets.check import check_dataset
from rss_env.datasets.dataset import SegmentationDataset
from rss_env.errors import DatasetError, DatasetNotFoundError, OptionError
from tests.trees import add_pair, save_mask, save_photo, tiny_folder, write_folder, write_lines

SIZE = (6, 8)


def _load(root: Path, split: str = "all", **options: object) -> SegmentationDataset:
    return load_dataset("Folder", root=root, split=split, image_size=SIZE, **options)


# Splits


def test_split_files_choose_and_order_the_images(tmp_path: Path):
    root = tiny_folder(tmp_path, 4)
    write_lines(root / "splits" / "mine.txt", ["003", "001"])
    data, everything = _load(root, "mine"), _load(root)
    assert data.ids == ("003", "001")
    np.testing.assert_array_equal(data.images, everything.images[[3, 1]])
    np.testing.assert_array_equal(data.targets, everything.targets[[3, 1]])


def test_all_is_every_image_also_where_there_are_split_files(tmp_path: Path):
    write_folder(tmp_path)
    assert set(_load(tmp_path).ids) == {
        *("beach", "street/0001", "street/0002", "forest", "harbour", "hill", "lake", "night", "snow")
    }


def test_a_split_file_called_all_is_obeyed(tmp_path: Path):
    root = tiny_folder(tmp_path, 3)
    write_lines(root / "splits" / "all.txt", ["002"])
    assert _load(root).ids == ("002",)


def test_with_split_files_no_other_split_is_invented(tmp_path: Path):
    root = tiny_folder(tmp_path, 3)
    write_lines(root / "splits" / "mine.txt", ["002"])
    with pytest.raises(DatasetError, match="Unknown split 'val' of Folder; valid: mine, all"):
        _load(root, "val")


def test_without_split_files_a_hash_of_the_id_decides(tmp_path: Path):
    root = tiny_folder(tmp_path, 40, size=(2, 3))
    train, val, everything = (set(_load(root, split).ids) for split in ("train", "val", "all"))
    assert val == {i for i in everything if int(hashlib.sha256(i.encode()).hexdigest(), 16) % 5 == 0}
    assert train == everything - val
    assert len(everything) == 40
    assert 2 <= len(val) <= 16
    with pytest.raises(DatasetError, match="Unknown split 'test' of Folder; valid: all, train, val"):
        _load(root, "test")


def test_without_split_files_new_photos_move_no_old_one(tmp_path: Path):
    root = tiny_folder(tmp_path, 20, size=(2, 3))
    before = {split: set(_load(root, split).ids) for split in ("train", "val")}
    tiny_folder(root, 40, size=(2, 3))
    for split, ids in before.items():
        assert ids < set(_load(root, split).ids)


def test_an_empty_hash_split_says_how_many_images_there_are(tmp_path: Path):
    root = tiny_folder(tmp_path, 1)  # "000" belongs to val
    assert _load(root, "val").ids == ("000",)
    with pytest.raises(DatasetError, match=r"split 'train' is empty; .*images holds 1 images"):
        _load(root, "train")


@pytest.mark.parametrize(
    "text", ["\n001 \r\n\n  000\r\n", "\ufeff001\n000\n", "001\n000"], ids=["windows", "byte-order-mark", "no-newline"]
)
def test_split_files_of_any_editor_are_read(tmp_path: Path, text: str):
    root = tiny_folder(tmp_path, 2)
    (root / "splits").mkdir()
    (root / "splits" / "train.txt").write_bytes(text.encode())
    assert _load(root, "train").ids == ("001", "000")


# Photos


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".JPG", ".PNG"])
def test_photos_of_every_named_format_are_found(tmp_path: Path, suffix: str):
    save_photo(tmp_path / "images" / "street" / f"a.b{suffix}", np.full((*SIZE, 3), 120, np.uint8))
    save_mask(tmp_path / "masks" / "street" / "a.b.png", np.ones(SIZE, np.uint8))
    data = _load(tmp_path)
    assert data.ids == ("street/a.b",)
    assert np.abs(data.images.astype(int) - 120).max() <= 3  # the lossy formats
    assert (data.targets == 1).all()


def test_other_files_next_to_the_photos_are_ignored(tmp_path: Path):
    root = tiny_folder(tmp_path, 2)
    (root / "images" / "Thumbs.db").write_bytes(b"x")
    (root / "images" / "notes.txt").write_text("x")
    save_mask(root / "masks" / "extra.png", np.zeros((3, 3), np.uint8))
    assert _load(root).ids == ("000", "001")


def test_two_photos_of_one_name_are_refused(tmp_path: Path):
    root = tiny_folder(tmp_path, 2)
    shutil.copy(root / "images" / "001.png", root / "images" / "001.bmp")
    with pytest.raises(DatasetError, match=r"images holds more than one photo called '001';.*keep one"):
        _load(root)


# Classes


def test_without_classes_json_the_largest_label_of_any_mask_counts(tmp_path: Path):
    add_pair(tmp_path, "small", np.full(SIZE, 1, np.uint8))
    add_pair(tmp_path, "large", np.full(SIZE, 6, np.uint8))
    add_pair(tmp_path, "ignored", np.full(SIZE, 255, np.uint8))
    write_lines(tmp_path / "splits" / "train.txt", ["small", "ignored"])
    data = _load(tmp_path, "train")
    assert data.class_names == tuple(f"class {c}" for c in range(7))
    assert data.palette.shape == (7, 3)
    assert (data.targets[1] == 255).all()


@pytest.mark.parametrize("label", [0, 255])
def test_masks_without_a_second_class_still_give_two(tmp_path: Path, label: int):
    add_pair(tmp_path, "a", np.full(SIZE, label, np.uint8))
    assert _load(tmp_path).num_classes == 2


def test_num_classes_sets_the_number_of_classes(tmp_path: Path):
    data = _load(tiny_folder(tmp_path, 2, num_classes=3), num_classes=9)
    assert data.num_classes == 9
    assert data.palette[8].tolist() == [64, 0, 0]  # PASCAL VOC's ninth colour


@pytest.mark.parametrize("count", [0, 1, 256, -3, 2.0, "3"])
def test_an_impossible_num_classes_is_refused(tmp_path: Path, count: object):
    with pytest.raises(DatasetError, match=rf"num_classes: 2 to 255 classes are possible, got {count!r}"):
        _load(tiny_folder(tmp_path, 1), num_classes=count)


def test_classes_json_may_be_a_list_of_names(tmp_path: Path):
    root = tiny_folder(tmp_path, 1)
    (root / "classes.json").write_text('["ground", "wäter", "sky"]', encoding="utf-8")
    data = _load(root, num_classes=3)
    assert data.class_names == ("ground", "wäter", "sky")
    assert data.palette.tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]


def test_classes_json_may_give_colours_and_an_ignored_label(tmp_path: Path):
    labels = np.array([[0, 1, 2, 7], [7, 255, 1, 0]], np.uint8)
    add_pair(tmp_path, "a", labels)
    palette = [[1, 2, 3], [4, 5, 6], [255, 0, 9]]
    stored = {"classes": ["a", "b", "c"], "ignore_label": 7, "palette": palette}
    (tmp_path / "classes.json").write_text(json.dumps(stored))
    data = load_dataset("Folder", root=tmp_path, split="all", image_size=(2, 4))
    assert data.targets[0].tolist() == [[0, 1, 2, 255], [255, 255, 1, 0]]
    assert data.palette.tolist() == palette


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"Cannot read .*classes\.json: "),
        ("3", r"classes\.json must be a list of class names"),
        ('{"names": ["a", "b"]}', 'must be a list of class names, or an object with such a list under "classes"'),
        ('["a", 2]', "must be a list of class names"),
        ('["a"]', r"classes\.json: 2 to 255 classes are possible, got 1"),
        (json.dumps(["x"] * 256), "2 to 255 classes are possible, got 256"),
        ('{"classes": ["a", "b", "c"], "ignore_label": 1}', '"ignore_label" must be an integer from 3 to 255, got 1'),
        ('{"classes": ["a", "b", "c"], "ignore_label": 256}', "from 3 to 255, got 256"),
        ('{"classes": ["a", "b", "c"], "ignore_label": null}', "from 3 to 255, got None"),
        ('{"classes": ["a", "b", "c"], "palette": [[0, 0, 0]]}', 'json: "palette" must be 3 colours, .* got 1.$'),
        ('{"classes": ["a", "b"], "palette": "ab"}', "json: \"palette\" must be 2 colours, one per class, got 'ab'.$"),
        *(
            (
                f'{{"classes": ["a", "b"], "palette": [[0, 0, 0], {colour}]}}',
                '"palette": the colour of class 1 must be three integers of 0..255, got ',
            )
            for colour in (
                "[0, 0, 256]",
                "[-1, 0, 0]",
                '["red", 0, 0]',
                '["12", 0, 0]',
                "[0.5, 0, 0]",
                "[1.0, 0, 0]",
                "[true, 0, 0]",
                "[null, 0, 0]",
                "[NaN, 0, 0]",
                "[0, 0]",
                "[0, 0, 0, 0]",
                "[[0], 0, 0]",
                "0",
                '"abc"',
                "{}",
                "1e99",
                "[1" + "0" * 30 + ", 0, 0]",
            )
        ),
        ("[" * 100_000, r"Cannot read .*classes\.json: "),
        ('["a", "b"]\0', r"Cannot read .*classes\.json: "),
        ("1" * 5000, r"Cannot read .*classes\.json: |must be a list of class names"),
    ],
)
def test_a_bad_classes_json_is_refused(tmp_path: Path, text: str, message: str):
    root = tiny_folder(tmp_path, 1)
    (root / "classes.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        _load(root)


def test_num_classes_must_agree_with_classes_json(tmp_path: Path):
    write_folder(tmp_path)
    assert _load(tmp_path, "val", num_classes=4).num_classes == 4
    with pytest.raises(DatasetError, match=r"num_classes=5, but .*classes\.json names 4 classes"):
        _load(tmp_path, "val", num_classes=5)


def test_an_unknown_option_is_refused_with_the_valid_one(tmp_path: Path):
    with pytest.raises(OptionError, match="Unknown option 'labels' for data set Folder; its own options: num_cl"):
        _load(tmp_path, labels=3)


def test_a_folder_without_photos_is_not_found(tmp_path: Path):
    root = tiny_folder(tmp_path, 1)
    shutil.rmtree(root / "images")
    with pytest.raises(DatasetNotFoundError, match=r"Folder was not found: looked for .*images, but .* holds"):
        _load(root)


# Photos without masks


@pytest.fixture
def unmasked(tmp_path: Path) -> Path:
    root = tiny_folder(tmp_path, 2)
    shutil.rmtree(root / "masks")
    return root


def test_without_masks_there_are_photos_and_no_targets(unmasked: Path, tmp_path: Path):
    data = load_dataset("Folder", root=unmasked, split="all", image_size=(8, 8), num_classes=4)
    assert data.targets is None
    assert (len(data), data.num_classes) == (2, 4)
    masked = load_dataset("Folder", root=tiny_folder(tmp_path / "again", 2), split="all", image_size=(8, 8))
    np.testing.assert_array_equal(data.images, masked.images)
    again = load_dataset("Folder", root=unmasked, split="all", image_size=(8, 8), num_classes=4)  # from the cache
    assert again.targets is None
    np.testing.assert_array_equal(again.images, data.images)


def test_without_masks_the_number_of_classes_must_be_given(unmasked: Path):
    with pytest.raises(DatasetError, match=r"no masks/, so the classes cannot be counted.* pass num_classes="):
        load_dataset("Folder", root=unmasked, split="all", image_size=(8, 8))
    (unmasked / "classes.json").write_text('["sky", "ground", "tree"]')
    assert load_dataset("Folder", root=unmasked, split="all", image_size=(8, 8)).num_classes == 3


def test_a_check_says_what_photos_without_masks_need(unmasked: Path):
    (finding,) = check_dataset("Folder", unmasked, ["all"], num_classes=3).findings
    assert (finding.kind, finding.file) == ("warning", str(unmasked))
    assert finding.message == "no masks: the reward must be a callable that needs no target."
    report = check_dataset("Folder", unmasked, ["all"])
    (finding,) = report.findings
    assert report.clean
    assert finding.message.endswith(
        f", and num_classes= or {unmasked / 'classes.json'} must say how many classes there are."
    )


def test_a_check_finds_what_keeps_the_loader_from_counting_the_classes(tmp_path: Path):
    masked = tiny_folder(tmp_path / "masked", 2)
    write_lines(masked / "splits" / "train.txt", ["000"])
    assert check_dataset("Folder", masked).clean
    (masked / "masks" / "001.png").write_bytes(b"")  # of no split
    (finding,) = check_dataset("Folder", masked).findings
    assert "001.png" in finding.message


def test_a_masks_folder_that_misses_a_mask_is_an_error_still(tmp_path: Path):
    root = tiny_folder(tmp_path, 2)
    sorted((root / "masks").iterdir())[0].unlink()
    with pytest.raises(DatasetError, match="has no mask: expected"):
        load_dataset("Folder", root=root, split="all", image_size=(8, 8), num_classes=4)


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
def test_without_masks_a_reward_by_name_and_an_exposed_target_are_refused(unmasked: Path, make: Any):
    options: dict[str, Any] = {"root": unmasked, "split": "all", "image_size": (8, 8), "num_classes": 4}
    with pytest.raises(DatasetError, match=r"Folder has no masks, which reward='mean_iou' needs"):
        make("RSS-Folder-ImageReward-v0", **options)
    with pytest.raises(DatasetError, match=r"no masks, so there is no target to expose"):
        make("RSS-Folder-ImageReward-v0", reward=lambda *_: 0.5, expose_target=True, **options)


# Real photos


def test_the_real_camvid_folder_has_its_official_splits(real_data: Path):
    ids = {}
    for split, count in {"train": 367, "val": 101, "test": 233, "all": 701}.items():
        data = load_dataset("Folder", root=real_data / "camvid", split=split, image_size=(30, 40))
        assert len(data) == count
        assert set(np.unique(data.targets)) == {*range(11), 255}
        ids[split] = set(data.ids)
    assert ids["train"] | ids["val"] | ids["test"] == ids["all"]


def test_real_photos_at_their_own_size_are_exactly_what_is_on_disk(real_data: Path):
    root = real_data / "camvid"
    data = load_dataset("Folder", root=root, split="val", image_size=(180, 240))
    assert data.class_names == tuple(json.loads((root / "classes.json").read_text())["classes"])
    for i in (0, 50, 100):
        with Image.open(root / "images" / f"{data.ids[i]}.jpg") as photo:
            np.testing.assert_array_equal(data.images[i], np.array(photo))
        with Image.open(root / "masks" / f"{data.ids[i]}.png") as mask:
            np.testing.assert_array_equal(data.targets[i], np.array(mask))
    shares = json.loads((root / "stats.json").read_text())["pct_by_split"]["val"]
    counts = np.bincount(data.targets.ravel(), minlength=256)
    for label, name in [*enumerate(data.class_names), (255, "ignore255")]:
        assert 100 * counts[label] / data.targets.size == pytest.approx(shares[name], abs=0.0051)
