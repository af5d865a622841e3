"""CamVid in SegNet's layout: label 11 is ignored, the lists are optional."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rss_env.datasets import load_dataset
from rss_env.errors import DatasetError, DatasetNotFoundError
from tests.trees import write_camvid, write_lines

COUNTS = {"train": 4, "val": 3, "test": 2}
SIZE = (24, 32)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_camvid(tmp_path / "CamVid")
    return tmp_path / "CamVid"


def _native(root: Path, split: str, image_id: str) -> tuple[np.ndarray, np.ndarray]:
    with (
        Image.open(root / split / f"{image_id}.png") as photo,
        Image.open(root / f"{split}annot" / f"{image_id}.png") as mask,
    ):
        return np.array(photo.convert("RGB")), np.array(mask)


def _check_native_pairs(root: Path, split: str, index: int) -> None:
    """At its own size a photo is unchanged, and its mask is too but for 11, which becomes 255."""
    image_id = load_dataset("CamVid", root=root, split=split, image_size=SIZE).ids[index]
    image, labels = _native(root, split, image_id)
    assert 11 in labels
    data = load_dataset("CamVid", root=root, split=split, image_size=labels.shape)
    np.testing.assert_array_equal(data.images[index], image)
    np.testing.assert_array_equal(data.targets[index], np.where(labels == 11, 255, labels))


@pytest.mark.parametrize("split", COUNTS)
def test_a_pair_at_its_own_size_is_on_disk_but_for_the_unlabelled(tree: Path, split: str):
    _check_native_pairs(tree, split, index=1)


@pytest.mark.parametrize("split", COUNTS)
def test_the_lists_are_optional(tree: Path, split: str):
    listed = load_dataset("CamVid", root=tree, split=split, image_size=SIZE)
    (tree / f"{split}.txt").unlink()
    scanned = load_dataset("CamVid", root=tree, split=split, image_size=SIZE)
    assert len(listed) == COUNTS[split]
    assert listed.ids == scanned.ids == tuple(sorted(listed.ids))
    np.testing.assert_array_equal(listed.targets, scanned.targets)


def test_a_list_chooses_and_orders_the_images(tree: Path):
    write_lines(tree / "train.txt", ["train/0016E5_00390.png trainannot/0016E5_00390.png", "0001TP_006720.png"])
    assert load_dataset("CamVid", root=tree, image_size=SIZE).ids == ("0016E5_00390", "0001TP_006720")


def test_the_root_may_be_the_folder_above(tree: Path):
    above = load_dataset("CamVid", root=tree.parent, image_size=SIZE)
    np.testing.assert_array_equal(above.targets, load_dataset("CamVid", root=tree, image_size=SIZE).targets)


def test_there_are_eleven_classes_and_no_twelfth(tree: Path):
    data = load_dataset("CamVid", root=tree, image_size=SIZE)
    colours = dict(zip(data.class_names, data.palette.tolist(), strict=True))
    assert (data.num_classes, data.class_names[0], data.class_names[10]) == (11, "sky", "bicyclist")
    assert colours["road"] == [128, 64, 128]
    assert 11 not in data.targets
    assert 255 in data.targets


def test_an_unknown_split_lists_the_three(tree: Path):
    with pytest.raises(DatasetError, match="Unknown split 'trainval' of CamVid; valid: train, val, test"):
        load_dataset("CamVid", root=tree, split="trainval")


def test_a_split_without_annotations_is_not_found(tree: Path):
    shutil.rmtree(tree / "valannot")
    with pytest.raises(DatasetNotFoundError, match=r"looked for .*valannot, but .* holds .*train/, .*val/"):
        load_dataset("CamVid", root=tree, split="val")


def test_a_folder_without_photos_is_an_empty_split(tree: Path):
    (tree / "val.txt").unlink()
    for photo in (tree / "val").iterdir():
        photo.unlink()
    with pytest.raises(DatasetError, match=r"CamVid's split 'val' is empty: no image in .*val"):
        load_dataset("CamVid", root=tree, split="val")


def test_two_photos_of_one_name_are_refused(tree: Path):
    (tree / "val.txt").unlink()
    shutil.copy(tree / "val" / "0016E5_07959.png", tree / "val" / "0016E5_07959.bmp")
    with pytest.raises(DatasetError, match="more than one photo called '0016E5_07959'"):
        load_dataset("CamVid", root=tree, split="val")


def test_a_list_naming_an_image_twice_is_refused(tree: Path):
    write_lines(tree / "train.txt", ["train/0016E5_00390.png", "elsewhere/0016E5_00390.png"])
    with pytest.raises(DatasetError, match=r"train\.txt lists '0016E5_00390' twice"):
        load_dataset("CamVid", root=tree)


@pytest.mark.parametrize(("split", "count"), [("train", 4), ("val", 2), ("test", 2)])
def test_real_frames_at_their_own_size_are_on_disk_but_for_the_unlabelled(real_data: Path, split: str, count: int):
    root = real_data / "layout_samples" / "CamVid"
    assert len(load_dataset("CamVid", root=root, split=split, image_size=SIZE)) == count
    _check_native_pairs(root, split, index=1)
    np.testing.assert_array_equal(
        load_dataset("CamVid", root=root.parent, split=split, image_size=SIZE).images,
        load_dataset("CamVid", root=root, split=split, image_size=SIZE).images,
    )
