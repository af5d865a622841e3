"""Converting any data set into the layout of Folder: the same images and targets, and the source is only read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rss_env.datasets.convert as module
from rss_env.datasets import DATASETS, load_dataset
from rss_env.datasets.check import check_dataset, official_splits
from rss_env.datasets.convert import convert_dataset
from rss_env.errors import DatasetError, OptionError
from tests.trees import add_pair, dataset_kwargs, save_photo, tiny_folder, write_lines

PHOTOS = [name for name, entry in DATASETS.items() if entry.locate is not None]


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """The content and the time of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", PHOTOS)
def test_every_layout_gives_the_same_images_and_targets(name: str, tmp_path: Path):
    kwargs = dataset_kwargs(name, tmp_path / "source")
    before = state(tmp_path / "source")
    done = convert_dataset(name, kwargs["root"], tmp_path / "new")
    assert state(tmp_path / "source") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "source"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["classes.json", "images", "masks", "splits"]
    splits = [split for split in official_splits(name, kwargs["root"]) if split in done.splits]
    assert {"train", "val"} <= set(splits)
    for split in splits:
        old = load_dataset(name, split=split, image_size=(24, 32), **kwargs)
        new = load_dataset("Folder", root=tmp_path / "new", split=split, image_size=(24, 32))
        np.testing.assert_array_equal(new.images, old.images)
        np.testing.assert_array_equal(new.targets, old.targets)
        assert new.class_names == old.class_names == done.class_names
        np.testing.assert_array_equal(new.palette, old.palette)
        assert done.splits[split] == len(old)
    assert check_dataset("Folder", tmp_path / "new").clean


def test_photos_keep_their_bytes_and_masks_show_their_colours(tmp_path: Path):
    add_pair(tmp_path / "source", "b/a", np.array([[0, 1], [2, 255]], np.uint8))
    (tmp_path / "source" / "classes.json").write_text(
        json.dumps({"classes": ["x", "y", "z"], "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]})
    )
    done = convert_dataset("Folder", tmp_path / "source", tmp_path / "new")
    assert (done.images, done.masks, sum(done.splits.values())) == (1, 1, 1)
    copied = tmp_path / "new" / "images" / "b" / "a.png"
    assert copied.read_bytes() == (tmp_path / "source" / "images" / "b" / "a.png").read_bytes()
    with Image.open(tmp_path / "new" / "masks" / "b" / "a.png") as mask:
        assert mask.mode == "P"
        assert np.asarray(mask).tolist() == [[0, 1], [2, 255]]
        assert np.asarray(mask.convert("RGB")).tolist() == [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [255, 255, 255]]]


def test_photos_of_no_split_are_copied_too(tmp_path: Path):
    root = tiny_folder(tmp_path / "source", 3)
    write_lines(root / "splits" / "train.txt", ["000"])
    done = convert_dataset("Folder", root, tmp_path / "new")
    assert (done.images, done.splits) == (3, {"train": 1})
    assert len(load_dataset("Folder", root=tmp_path / "new", split="all", image_size=(6, 8))) == 3


def test_photos_without_masks_are_converted_without(tmp_path: Path):
    for i in range(3):
        save_photo(tmp_path / "source" / "p" / f"{i}.bmp", np.zeros((6, 8, 3), np.uint8))
    done = convert_dataset("Folder", tmp_path / "source", tmp_path / "new", images="p/*.bmp", num_classes=4)
    assert (done.images, done.masks, len(done.class_names)) == (3, 0, 4)
    assert not (tmp_path / "new" / "masks").exists()
    assert check_dataset("Folder", tmp_path / "new").clean


def test_ids_of_a_manifest_become_names_that_a_split_file_can_hold(tmp_path: Path):
    names = ["../a/1.png", "b/1.png", "c:d.png", " e .png", "f\\g.png"]
    lines = []
    for i, name in enumerate(names):
        save_photo(tmp_path / "x" / "list" / name, np.full((6, 8, 3), i, np.uint8))
        save_photo(tmp_path / "x" / "m" / f"{i}.png", np.full((6, 8), i, np.uint8))
        lines.append(json.dumps({"image": name, "mask": f"../m/{i}.png", "split": "train"}))
    write_lines(tmp_path / "x" / "list" / "all.jsonl", lines)
    convert_dataset("Folder", tmp_path / "x" / "list", tmp_path / "new", manifest="all.jsonl")
    data = load_dataset("Folder", root=tmp_path / "new", split="train", image_size=(6, 8))
    assert data.ids == ("a/1", "b/1", "c_d", "e", "f_g")
    assert data.targets is not None
    assert data.images[:, 0, 0, 0].tolist() == data.targets[:, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_photos_that_would_get_one_name_are_refused(tmp_path: Path):
    lines = []
    for i, name in enumerate(["a:b.png", "a_b.png"]):
        save_photo(tmp_path / "x" / name, np.full((6, 8, 3), i, np.uint8))
        lines.append(json.dumps({"image": name}))
    write_lines(tmp_path / "x" / "all.jsonl", lines)
    with pytest.raises(DatasetError, match=r"a:b\.png and .*a_b\.png would both become .*a_b: rename one"):
        convert_dataset("Folder", tmp_path / "x", tmp_path / "new", manifest="all.jsonl", num_classes=2)
    assert not (tmp_path / "new").exists()


def test_a_fault_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = tiny_folder(tmp_path / "source", 4)
    (tmp_path / "new").mkdir()
    for file in ("images/002.png", "masks/002.png"):
        content = (root / file).read_bytes()
        (root / file).write_bytes(content[:30])
        with pytest.raises(DatasetError, match=r"002\.png"):
            convert_dataset("Folder", root, tmp_path / "new", num_classes=3)
        (root / file).write_bytes(content)

    def no_space(*args: object) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "copyfile", no_space)
        with pytest.raises(DatasetError, match="Cannot write somewhere: No space left on device"):
            convert_dataset("Folder", root, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "source"]
    assert list((tmp_path / "new").iterdir()) == []
    convert_dataset("Folder", root, tmp_path / "new")
    with pytest.raises(OptionError, match="new is not empty"):
        convert_dataset("Folder", root, tmp_path / "new")
    assert check_dataset("Folder", tmp_path / "new").clean
