"""Tiny synthetic trees in the genuine layout of each data set, and the pieces tests build their own trees from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rss_env.datasets.photos import bit_palette

SIZES = ((40, 56), (56, 40), (37, 50), (48, 64))  # (H, W) of the photos, in turn


def dataset_kwargs(name: str, folder: Path) -> dict:
    """Writes the tiny tree of a data set below ``folder``; returns the keyword arguments that load it."""
    if name not in WRITERS:
        raise LookupError(
            f"No tiny tree for the data set {name!r}: add a function that writes one to WRITERS in tests/trees.py. "
            f"There are writers for {', '.join(WRITERS)}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    return WRITERS[name](folder)


def write_shapes(folder: Path) -> dict:
    """Writes nothing: the data set is procedural."""
    return {"num_images": 6}


def write_crafter(folder: Path) -> dict:
    """Writes nothing: the data set is procedural, where the game is installed."""
    pytest.importorskip("crafter", reason="needs the game: pip install 'rss-env[crafter]'")
    return {"num_images": 6}


def write_voc(folder: Path) -> dict:
    """PASCAL VOC 2012: JPEG photos, palette masks, borders of 255, three split files."""
    home = folder / "VOCdevkit" / "VOC2012"
    splits = {
        "train": ["2007_000032", "2007_000039", "2008_000002", "2009_000005", "2010_000001"],
        "val": ["2007_000033", "2007_000042", "2008_000009", "2011_000003"],
    }
    for image_id, image, labels in _scenes(splits["train"] + splits["val"], num_classes=21, ignored=255):
        save_photo(home / "JPEGImages" / f"{image_id}.jpg", image)
        save_mask(home / "SegmentationClass" / f"{image_id}.png", labels, bit_palette())
    splits["trainval"] = sorted(splits["train"] + splits["val"])
    for split, ids in splits.items():
        write_lines(home / "ImageSets" / "Segmentation" / f"{split}.txt", ids)
    return {"root": str(folder)}


def write_camvid(folder: Path) -> dict:
    """CamVid as SegNet lays it out: PNG photos, grey masks with 11 = unlabelled, lists with foreign absolute paths."""
    splits = {
        "train": ["0001TP_006690", "0001TP_006720", "0006R0_f00930", "0016E5_00390"],
        "val": ["0016E5_07959", "0016E5_07961", "0016E5_07963"],
        "test": ["0001TP_008550", "Seq05VD_f00000"],
    }
    for split, ids in splits.items():
        for image_id, image, labels in _scenes(ids, num_classes=11, ignored=11):
            save_photo(folder / split / f"{image_id}.png", image)
            save_mask(folder / f"{split}annot" / f"{image_id}.png", labels)
        names = [f"/SegNet/CamVid/{split}/{i}.png /SegNet/CamVid/{split}annot/{i}.png" for i in ids]
        write_lines(folder / f"{split}.txt", names)
    return {"root": str(folder)}


def write_folder(folder: Path) -> dict:
    """Folder with everything optional present: several photo formats, a sub-folder, splits and classes.json."""
    splits = {
        "train": ["beach.jpg", "street/0001.png", "street/0002.jpeg", "forest.bmp"],
        "val": ["harbour.jpg", "hill.png", "lake.webp"],
        "test": ["night.png", "snow.jpg"],
    }
    for split, names in splits.items():
        for name, image, labels in _scenes(names, num_classes=4, ignored=255):
            save_photo(folder / "images" / name, image)
            save_mask((folder / "masks" / name).with_suffix(".png"), labels)
        write_lines(folder / "splits" / f"{split}.txt", [name.rsplit(".", 1)[0] for name in names])
    classes = ["ground", "water", "plant", "sky"]
    palette = [[128, 64, 0], [0, 64, 192], [0, 160, 0], [128, 192, 255]]
    (folder / "classes.json").write_text(json.dumps({"classes": classes, "ignore_label": 255, "palette": palette}))
    return {"root": str(folder)}


def write_pascal_context(folder: Path) -> dict:
    """PASCAL-Context: JPEG photos, grey masks with 0 = background and 1..59."""
    home = folder / "VOCdevkit" / "VOC2010"
    splits = {"train": ["2008_000002", "2008_000003", "2008_000007"], "val": ["2008_000004", "2008_000009"]}
    for split, ids in splits.items():
        for image_id, image, labels in _scenes(ids, num_classes=60, ignored=0):
            save_photo(home / "JPEGImages" / f"{image_id}.jpg", image)
            save_mask(home / "SegmentationClassContext" / f"{image_id}.png", labels)
        write_lines(home / "ImageSets" / "SegmentationContext" / f"{split}.txt", ids)
    return {"root": str(folder)}


def write_cityscapes(folder: Path) -> dict:
    """Cityscapes: a folder a city, masks with the ids 0..33 of the fine annotation."""
    splits = {
        "train": ["aachen/aachen_000000_000019", "aachen/aachen_000001_000019", "bochum/bochum_000000_000313"],
        "val": ["frankfurt/frankfurt_000000_000294", "munster/munster_000000_000019"],
    }
    for split, ids in splits.items():
        for image_id, image, labels in _scenes(ids, num_classes=34, ignored=0):
            save_photo(folder / "leftImg8bit" / split / f"{image_id}_leftImg8bit.png", image)
            save_mask(folder / "gtFine" / split / f"{image_id}_gtFine_labelIds.png", labels)
    return {"root": str(folder)}


def write_ade20k(folder: Path) -> dict:
    """ADE20K: JPEG photos, masks with 0 = other and 1..150."""
    home = folder / "ADEChallengeData2016"
    splits = {
        "training": ["ADE_train_00000001", "ADE_train_00000002", "ADE_train_00000003"],
        "validation": ["ADE_val_00000001", "ADE_val_00000002"],
    }
    for name, ids in splits.items():
        for image_id, image, labels in _scenes(ids, num_classes=151, ignored=0):
            save_photo(home / "images" / name / f"{image_id}.jpg", image)
            save_mask(home / "annotations" / name / f"{image_id}.png", labels)
    return {"root": str(folder)}


def write_coco_stuff(folder: Path) -> dict:
    """COCO-Stuff: JPEG photos, the published pixel maps with 0..181 and 255 = unlabelled."""
    splits = {
        "train2017": ["000000000009", "000000000025", "000000000030"],
        "val2017": ["000000000139", "000000000285"],
    }
    for name, ids in splits.items():
        for image_id, image, labels in _scenes(ids, num_classes=182, ignored=255):
            save_photo(folder / "images" / name / f"{image_id}.jpg", image)
            save_mask(folder / "annotations" / name / f"{image_id}.png", labels)
    return {"root": str(folder)}


WRITERS: dict[str, Callable[[Path], dict]] = {
    "Shapes": write_shapes,
    "VOC": write_voc,
    "PascalContext": write_pascal_context,
    "Cityscapes": write_cityscapes,
    "ADE20K": write_ade20k,
    "COCOStuff": write_coco_stuff,
    "CamVid": write_camvid,
    "Folder": write_folder,
    "Crafter": write_crafter,
}


def add_pair(root: Path, image_id: str, labels: np.ndarray, image: np.ndarray | None = None, **save: object) -> None:
    """Adds a lossless photo and its mask to a Folder tree; the photo's colours come from the labels by default."""
    save_photo(root / "images" / f"{image_id}.png", bit_palette()[labels] if image is None else image, **save)
    save_mask(root / "masks" / f"{image_id}.png", labels)


def tiny_folder(root: Path, count: int = 4, size: tuple[int, int] = (6, 8), num_classes: int = 3) -> Path:
    """A Folder tree of photos and masks alone, ids ``000``, ``001``, ...; every mask holds every class."""
    rng = np.random.default_rng(0)
    for i in range(count):
        labels = rng.integers(0, num_classes, size, dtype=np.uint8)
        labels.flat[:num_classes] = np.arange(num_classes)
        add_pair(root, f"{i:03d}", labels, rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    return root


def save_photo(path: Path, image: np.ndarray, **save: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **save)


def save_mask(path: Path, labels: np.ndarray, palette: np.ndarray | None = None, **save: object) -> None:
    """Saves labels, uint8 (H, W), as a greyscale PNG, or as a palette PNG where a palette is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(labels)
    if palette is not None:
        mask.putpalette(palette.tobytes())
    mask.save(path, **save)


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def _scenes(names: list[str], num_classes: int, ignored: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """For each name a photo, uint8 (H, W, 3), and its labels, uint8 (H, W): flat patches with an ignored seam."""
    rng = np.random.default_rng(len(names))
    scenes = []
    for i, name in enumerate(names):
        height, width = SIZES[i % len(SIZES)]
        patches = rng.integers(0, num_classes, (height // 10 + 1, width // 10 + 1), dtype=np.uint8)
        labels = np.kron(patches, np.ones((10, 10), np.uint8))[:height, :width]
        colours = bit_palette()[labels].astype(int) + rng.integers(-20, 21, (height, width, 3))
        labels[height // 2 : height // 2 + 3] = ignored
        scenes.append((name, np.clip(colours, 0, 255).astype(np.uint8), labels))
    return scenes
