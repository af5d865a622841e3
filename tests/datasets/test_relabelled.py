"""The data sets whose masks hold other numbers than the classes: PASCAL-Context, Cityscapes, ADE20K, COCO-Stuff."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rss_env.datasets import coco_stuff, load_dataset
from rss_env.errors import DatasetError, DatasetNotFoundError
from tests.trees import dataset_kwargs, save_mask, save_photo, write_lines

NUM_CLASSES = {"PascalContext": 59, "Cityscapes": 19, "ADE20K": 150, "COCOStuff": 171}
# The 19 evaluated classes in the order of their train ids, by their id in the fine annotation.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def every_value(largest: int) -> np.ndarray:
    """A mask of 16×16 pixels with the values 0..largest, then 255."""
    values = np.arange(256)
    return np.where(values > largest, 255, values).astype(np.uint8).reshape(16, 16)


def load_one(name: str, root: Path, **options: object) -> np.ndarray:
    data = load_dataset(name, root=str(root), image_size=(16, 16), **options)
    return data.targets[0].ravel()


def write_one(name: str, root: Path, labels: np.ndarray) -> None:
    """A tree of one training photo with this mask."""
    photo = np.zeros((*labels.shape, 3), np.uint8)
    if name == "PascalContext":
        home = root / "VOCdevkit" / "VOC2010"
        save_photo(home / "JPEGImages" / "a.jpg", photo)
        save_mask(home / "SegmentationClassContext" / "a.png", labels)
        write_lines(home / "ImageSets" / "SegmentationContext" / "train.txt", ["a"])
    elif name == "Cityscapes":
        save_photo(root / "leftImg8bit" / "train" / "x" / "a_leftImg8bit.png", photo)
        save_mask(root / "gtFine" / "train" / "x" / "a_gtFine_labelIds.png", labels)
    elif name == "ADE20K":
        save_photo(root / "ADEChallengeData2016" / "images" / "training" / "a.jpg", photo)
        save_mask(root / "ADEChallengeData2016" / "annotations" / "training" / "a.png", labels)
    else:
        save_photo(root / "images" / "train2017" / "a.jpg", photo)
        save_mask(root / "annotations" / "train2017" / "a.png", labels)


@pytest.mark.parametrize(("name", "count"), NUM_CLASSES.items())
def test_the_number_of_classes_is_the_published_one(tmp_path: Path, name: str, count: int):
    data = load_dataset(name, image_size=(16, 16), **dataset_kwargs(name, tmp_path))
    assert data.num_classes == count
    assert len(np.unique(data.palette, axis=0)) == count


def test_pascal_context_ignores_background_unless_it_is_asked_for(tmp_path: Path):
    labels = every_value(59)
    write_one("PascalContext", tmp_path, labels)
    expected = [255, *range(59)] + [255] * 196
    assert load_one("PascalContext", tmp_path).tolist() == expected
    assert load_one("PascalContext", tmp_path, background=True).tolist() == labels.ravel().tolist()
    data = load_dataset("PascalContext", root=str(tmp_path), image_size=(16, 16), background=True)
    assert (data.num_classes, data.class_names[0], data.class_names[-1]) == (60, "background", "wood")


def test_cityscapes_ids_become_train_ids(tmp_path: Path):
    write_one("Cityscapes", tmp_path, every_value(33))
    expected = [CITYSCAPES_IDS.index(value) if value in CITYSCAPES_IDS else 255 for value in range(34)] + [255] * 222
    assert load_one("Cityscapes", tmp_path).tolist() == expected


def test_cityscapes_train_ids_are_read_as_they_are(tmp_path: Path):
    save_photo(tmp_path / "leftImg8bit" / "train" / "x" / "a_leftImg8bit.png", np.zeros((16, 16, 3), np.uint8))
    labels = every_value(18)
    save_mask(tmp_path / "gtFine" / "train" / "x" / "a_gtFine_labelTrainIds.png", labels)
    assert load_one("Cityscapes", tmp_path).tolist() == labels.ravel().tolist()


def test_ade20k_ignores_0_and_counts_from_1(tmp_path: Path):
    write_one("ADE20K", tmp_path, every_value(150))
    assert load_one("ADE20K", tmp_path).tolist() == [255, *range(150)] + [255] * 105


def test_coco_stuff_closes_the_gaps_of_its_pixel_maps(tmp_path: Path):
    write_one("COCOStuff", tmp_path, every_value(181))
    labels = load_one("COCOStuff", tmp_path)
    used = [value for value in range(182) if value not in coco_stuff.UNUSED]
    assert labels[used].tolist() == list(range(171))
    assert set(labels[sorted(coco_stuff.UNUSED)]) == {255}
    assert set(labels[182:]) == {255}
    # Anchors from the published list, whose ids count from 1.
    names = [coco_stuff.CLASSES[labels[value - 1]] for value in (1, 13, 90, 92, 182)]
    assert names == ["person", "stop sign", "toothbrush", "banner", "wood"]


def test_coco_stuff_reads_converted_masks(tmp_path: Path):
    save_photo(tmp_path / "images" / "train2017" / "a.jpg", np.zeros((16, 16, 3), np.uint8))
    labels = every_value(170)
    save_mask(tmp_path / "annotations" / "train2017" / "a_labelTrainIds.png", labels)
    assert load_one("COCOStuff", tmp_path).tolist() == labels.ravel().tolist()


@pytest.mark.parametrize(("name", "too_large"), [("PascalContext", 60), ("Cityscapes", 34), ("ADE20K", 151)])
def test_a_value_beyond_the_published_ones_is_an_error_that_names_the_mask(tmp_path: Path, name: str, too_large: int):
    write_one(name, tmp_path, np.full((16, 16), too_large, np.uint8))
    with pytest.raises(DatasetError, match=rf"a(_gtFine_labelIds)?\.png holds label {too_large}, but {name}"):
        load_one(name, tmp_path)


@pytest.mark.parametrize("name", NUM_CLASSES)
def test_a_missing_tree_is_an_error_that_shows_the_layout(tmp_path: Path, name: str):
    (tmp_path / "something").mkdir()
    with pytest.raises(DatasetNotFoundError, match=r"holds something/\.\nExpected below root:\n  .*ID"):
        load_dataset(name, root=str(tmp_path))


@pytest.mark.parametrize("name", NUM_CLASSES)
def test_an_unknown_split_lists_the_valid_ones(tmp_path: Path, name: str):
    with pytest.raises(DatasetError, match=r"Unknown split 'nonsense'.*train.*val"):
        load_dataset(name, split="nonsense", **dataset_kwargs(name, tmp_path))


@pytest.mark.parametrize("name", ["Cityscapes", "ADE20K", "COCOStuff"])
def test_a_photo_without_a_mask_is_named(tmp_path: Path, name: str):
    write_one(name, tmp_path, np.zeros((16, 16), np.uint8))
    (mask,) = (p for p in tmp_path.rglob("*.png") if {"gtFine", "annotations"} & set(p.parts))
    mask.unlink()
    with pytest.raises(DatasetError, match=r"image .*a.* has no mask: expected .*a.*png"):
        load_one(name, tmp_path)


def test_the_augmented_split_of_voc_has_its_own_masks(tmp_path: Path):
    kwargs = dataset_kwargs("VOC", tmp_path)
    home = tmp_path / "VOCdevkit" / "VOC2012"
    plain = load_dataset("VOC", image_size=(16, 16), **kwargs)
    write_lines(home / "ImageSets" / "Segmentation" / "trainaug.txt", list(plain.ids))
    for image_id in plain.ids:
        with Image.open(home / "JPEGImages" / f"{image_id}.jpg") as photo:
            labels = np.full((photo.height, photo.width), 20, np.uint8)
        save_mask(home / "SegmentationClassAug" / f"{image_id}.png", labels)
    augmented = load_dataset("VOC", split="trainaug", image_size=(16, 16), resize="stretch", **kwargs)
    assert set(augmented.targets.ravel()) == {20}


def test_both_kinds_of_masks_of_the_real_cityscapes_frame_agree(real_data: Path, tmp_path: Path):
    source = real_data / "layout_samples" / "cityscapes"
    frame = "frankfurt_000000_000294"
    targets = []
    for kind in ("labelIds", "labelTrainIds"):
        root = tmp_path / kind
        for folder, name in (("leftImg8bit", f"{frame}_leftImg8bit.png"), ("gtFine", f"{frame}_gtFine_{kind}.png")):
            link = root / folder / "val" / "frankfurt" / name
            link.parent.mkdir(parents=True)
            link.symlink_to(source / folder / "val" / "frankfurt" / name)
        targets.append(load_dataset("Cityscapes", root=str(root), split="val", image_size=(128, 256)).targets)
    # The frame was scaled down by others, each kind of mask on its own: 0.2 % of the pixels differ at borders.
    assert np.mean(targets[0] == targets[1]) > 0.995
    assert len(np.unique(targets[0])) > 5


def test_the_real_ade20k_pair_loads(real_data: Path):
    root = real_data / "layout_samples"
    data = load_dataset("ADE20K", root=str(root), image_size=(225, 336))
    stored = np.asarray(Image.open(next((root / "ADEChallengeData2016" / "annotations").rglob("*.png")))).astype(int)
    np.testing.assert_array_equal(data.targets[0], np.where(stored == 0, 255, stored - 1))
