"""PASCAL VOC: the devkit's layout, palette masks and ignored borders."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rss_env.datasets import load_dataset
from rss_env.errors import DatasetError
from tests.trees import write_lines, write_voc

LISTS = "VOCdevkit/VOC2012/ImageSets/Segmentation"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_voc(tmp_path / "voc")
    return tmp_path / "voc"


def _native(root: Path, image_id: str) -> tuple[np.ndarray, np.ndarray]:
    home = root / "VOCdevkit" / "VOC2012"
    with Image.open(home / "JPEGImages" / f"{image_id}.jpg") as photo:
        image = np.array(photo.convert("RGB"))
    with Image.open(home / "SegmentationClass" / f"{image_id}.png") as mask:
        assert mask.mode == "P"
        return image, np.array(mask)


def _check_native_pairs(root: Path, split: str, indices: range) -> None:
    """At its own size, and with any resize, a pair comes through exactly as it is on disk."""
    ids = (root / LISTS / f"{split}.txt").read_text().split()
    for i, resize in zip(indices, ("pad", "crop", "stretch"), strict=False):
        image, labels = _native(root, ids[i])
        data = load_dataset("VOC", root=root, split=split, image_size=labels.shape, resize=resize)
        assert data.ids[i] == ids[i]
        np.testing.assert_array_equal(data.images[i], image)
        np.testing.assert_array_equal(data.targets[i], labels)
        assert 255 in data.targets[i]


def test_the_splits_are_the_files_in_the_devkit(tree: Path):
    splits = {s: load_dataset("VOC", root=tree, split=s, image_size=(20, 20)).ids for s in ("train", "val", "trainval")}
    assert {split: len(ids) for split, ids in splits.items()} == {"train": 5, "val": 4, "trainval": 9}
    assert set(splits["train"]) | set(splits["val"]) == set(splits["trainval"])


def test_a_pair_at_its_own_size_is_exactly_what_is_on_disk(tree: Path):
    _check_native_pairs(tree, "train", range(3))


def test_classes_and_colours_are_those_of_the_challenge(tree: Path):
    data = load_dataset("VOC", root=tree, image_size=(20, 20))
    colours = dict(zip(data.class_names, data.palette.tolist(), strict=True))
    assert data.num_classes == 21
    assert data.class_names[0] == "background"
    assert colours["background"] == [0, 0, 0]
    assert colours["aeroplane"] == [128, 0, 0]
    assert colours["person"] == [192, 128, 128]
    assert colours["tvmonitor"] == [0, 64, 128]


@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_the_outer_folders_may_be_left_out(tree: Path, below: str):
    data = load_dataset("VOC", root=tree / below, image_size=(20, 24))
    expected = load_dataset("VOC", root=str(tree), image_size=(20, 24))
    assert data.ids == expected.ids
    np.testing.assert_array_equal(data.targets, expected.targets)


def test_a_tree_without_its_split_folder_is_not_found(tree: Path):
    shutil.rmtree(tree / LISTS)
    with pytest.raises(DatasetError, match=r"VOC was not found: looked for .*Segmentation"):
        load_dataset("VOC", root=tree)


def test_an_unknown_split_lists_the_files_there_are(tree: Path):
    write_lines(tree / LISTS / "tiny.txt", ["2007_000032"])
    with pytest.raises(DatasetError, match="Unknown split 'test' of VOC; valid: tiny, train, trainval, val"):
        load_dataset("VOC", root=tree, split="test")
    assert load_dataset("VOC", root=tree, split="tiny", image_size=(20, 20)).ids == ("2007_000032",)


def test_images_keep_the_order_of_the_split_file(tree: Path):
    ids = ("2009_000005", "2007_000032", "2008_000002")
    write_lines(tree / LISTS / "mine.txt", list(ids))
    data = load_dataset("VOC", root=tree, split="mine", image_size=(20, 20))
    train = load_dataset("VOC", root=tree, split="train", image_size=(20, 20))
    assert data.ids == ids
    np.testing.assert_array_equal(data.targets, train.targets[[train.ids.index(i) for i in ids]])


def test_real_splits_hold_40_and_20_photos_with_known_labels(real_data: Path):
    root = real_data / "voc2012_layout_sample"
    train, val, both = (
        load_dataset("VOC", root=root, split=s, image_size=(96, 96)) for s in ("train", "val", "trainval")
    )
    assert (len(train), len(val), len(both)) == (40, 20, 60)
    assert set(train.ids).isdisjoint(val.ids)
    assert set(train.ids) | set(val.ids) == set(both.ids)
    for data in (train, val):
        for image_id, target in zip(data.ids, data.targets, strict=True):
            assert set(np.unique(target)) <= {*np.unique(_native(root, image_id)[1]), 255}


def test_real_pairs_at_their_own_size_are_exactly_what_is_on_disk(real_data: Path):
    _check_native_pairs(real_data / "voc2012_layout_sample", "val", range(7, 10))
