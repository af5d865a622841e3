"""Every kind of bad input is an error that says what was expected, what came and which file is meant."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rss_env.datasets import DATASETS, load_dataset
from rss_env.errors import DatasetError, DatasetNotFoundError, OptionError, UnknownSplitError
from tests.trees import dataset_kwargs, save_mask, save_photo, tiny_folder, write_lines

PHOTO_SETS = [name for name, entry in DATASETS.items() if entry.locate is not None]
LAYOUTS = {
    "VOC": ["VOCdevkit/VOC2012/JPEGImages/ID.jpg", "SegmentationClass/ID.png", "{train,val,trainval}.txt"],
    "CamVid": ["{train,val,test}/ID.png", "{train,val,test}annot/ID.png", "(optional)"],
    "Folder": ["images/ID.jpg", "masks/ID.png", "classes.json (optional)"],
}
# For each data set the photo, the mask and the split file of one image of its tiny tree.
FILES = {
    "VOC": (
        "VOCdevkit/VOC2012/JPEGImages/2008_000002.jpg",
        "VOCdevkit/VOC2012/SegmentationClass/2008_000002.png",
        "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt",
    ),
    "CamVid": ("train/0006R0_f00930.png", "trainannot/0006R0_f00930.png", "train.txt"),
    "Folder": ("images/street/0002.jpeg", "masks/street/0002.png", "splits/train.txt"),
}
CASES = pytest.mark.parametrize("name", FILES)


def _tree(name: str, folder: Path) -> tuple[Path, Path, Path]:
    dataset_kwargs(name, folder)
    photo, mask, listing = (folder / file for file in FILES[name])
    assert photo.is_file()
    assert mask.is_file()
    assert listing.is_file()
    return photo, mask, listing


def _error(kind: type[Exception], name: str = "Folder", **kwargs: object) -> str:
    with pytest.raises(kind) as caught:
        load_dataset(name, **kwargs)
    assert type(caught.value) is kind
    return str(caught.value)


# A data set that is not there


@pytest.mark.parametrize("name", PHOTO_SETS)
def test_no_root_is_an_error_that_shows_the_layout(name: str):
    message = _error(DatasetNotFoundError, name)
    assert f'{name} reads photos from disk and needs root=<folder>, for example gym.make("RSS-{name}-' in message
    for line in LAYOUTS.get(name, []):
        assert line in message


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda root: None, "{root} does not exist"),
        (lambda root: root.write_text("x"), "{root} is not a folder"),
        (lambda root: root.mkdir(), "{root} holds nothing"),
        (lambda root: (root / "zip").mkdir(parents=True) or (root / "a.txt").touch(), "{root} holds a.txt, zip/"),
        (lambda root: [(root / f"{i:02d}").mkdir(parents=True) for i in range(15)], "10/, 11/ (and 3 more)"),
    ],
    ids=["missing", "file", "empty", "foreign", "crowded"],
)
@pytest.mark.parametrize("name", PHOTO_SETS)
def test_a_root_without_the_layout_is_an_error_that_shows_both(tmp_path: Path, name: str, make, found: str):
    root = tmp_path / "root"
    make(root)
    message = _error(DatasetNotFoundError, name, root=root)
    assert f"{name} was not found: looked for {root}" in message
    assert found.format(root=root) in message
    assert "Expected below root:" in message
    assert "Pass root=<folder>" in message
    for line in LAYOUTS.get(name, []):
        assert line in message


def test_a_missing_data_set_is_a_file_not_found_error_too(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        load_dataset("VOC", root=tmp_path)


# Files that are missing


@CASES
def test_a_photo_without_a_mask_is_named(tmp_path: Path, name: str):
    photo, mask, _ = _tree(name, tmp_path)
    mask.unlink()
    message = _error(DatasetError, name, root=tmp_path)
    assert message == f"{name}: image {photo} has no mask: expected {mask}."


@CASES
def test_a_listed_photo_that_is_missing_is_named(tmp_path: Path, name: str):
    photo, _, _ = _tree(name, tmp_path)
    photo.unlink()
    message = _error(DatasetError, name, root=tmp_path)
    assert f"{name}: no image {photo.with_suffix('')}{{.jpg,.jpeg,.png" in message
    assert "but the split lists it" in message


def test_further_missing_files_are_counted(tmp_path: Path):
    root = tiny_folder(tmp_path, 4)
    write_lines(root / "splits" / "train.txt", ["000", "001", "002", "003"])
    for i in (1, 2, 3):
        (root / "masks" / f"00{i}.png").unlink()
    assert "001.png (and 2 more)" in _error(DatasetError, root=root)
    for i in (2, 3):
        (root / "images" / f"00{i}.png").unlink()
    assert re.search(r"no image .*002\{.*\} \(and 1 more\)", _error(DatasetError, root=root))


# Files that are wrong


@CASES
def test_a_mask_of_another_size_is_named_with_both_sizes(tmp_path: Path, name: str):
    photo, mask, _ = _tree(name, tmp_path)
    save_mask(mask, np.zeros((37, 49), np.uint8))
    message = _error(DatasetError, name, root=tmp_path)
    assert message == f"{mask} is 49×37 pixels, but its image {photo} is 50×37."


@pytest.mark.parametrize(("name", "label", "count"), [("VOC", 21, 21), ("CamVid", 12, 11), ("Folder", 4, 4)])
def test_a_label_above_the_classes_is_named(tmp_path: Path, name: str, label: int, count: int):
    _, mask, _ = _tree(name, tmp_path)
    labels = np.zeros((37, 50), np.uint8)
    labels[-1, -1] = label
    save_mask(mask, labels)
    message = _error(DatasetError, name, root=tmp_path, image_size=(4, 4))  # too small to show that one pixel
    assert message == f"{mask} holds label {label}, but {name} has {count} classes (0..{count - 1}, 255 = ignored)."


def test_a_label_that_num_classes_leaves_out_is_named(tmp_path: Path):
    root = tiny_folder(tmp_path, 2, num_classes=5)
    assert "000.png holds label 4, but Folder has 3 classes" in _error(
        DatasetError, root=root, split="all", num_classes=3
    )


def _half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _nothing(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("<html>404 Not Found</html>")


@pytest.mark.parametrize("which", ["photo", "mask"])
@pytest.mark.parametrize("damage", [_half, _nothing, _text])
@CASES
def test_a_file_that_is_no_whole_image_is_named(tmp_path: Path, name: str, damage, which: str):
    photo, mask, _ = _tree(name, tmp_path)
    path = photo if which == "photo" else mask
    damage(path)
    message = _error(DatasetError, name, root=tmp_path)
    assert message.startswith(f"Cannot decode {path}: ")
    assert message.endswith("Is the file truncated or corrupt?")


def test_a_corrupt_mask_is_named_while_classes_are_counted(tmp_path: Path):
    root = tiny_folder(tmp_path, 2)
    _half(root / "masks" / "001.png")
    assert "001.png" in _error(DatasetError, root=root, split="all")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [20, 47])
def test_a_decompression_bomb_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int):
    root = tiny_folder(tmp_path, 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    message = _error(DatasetError, root=root, split="all", num_classes=3)
    assert f"{root / 'images' / '000.png'} is too large to decode safely" in message


# Split files


@pytest.mark.parametrize("content", ["", "\n  \n"])
@CASES
def test_an_empty_split_file_is_named(tmp_path: Path, name: str, content: str):
    _, _, listing = _tree(name, tmp_path)
    listing.write_text(content)
    assert _error(DatasetError, name, root=tmp_path) == f"The split file {listing} is empty: it lists no image."


@CASES
def test_a_split_file_that_is_not_text_is_named(tmp_path: Path, name: str):
    _, _, listing = _tree(name, tmp_path)
    listing.write_bytes(b"\x89PNG\xff\xfe")
    assert f"Cannot read {listing}: 'utf-8' codec can't decode" in _error(DatasetError, name, root=tmp_path)


@pytest.mark.parametrize(
    "image_id",
    ["../secret", "street/../../secret", "street/../beach", "/etc/secret", "..\\secret", "C:secret", "a\0b", "."],
)
@pytest.mark.parametrize("name", ["VOC", "Folder"])
def test_an_id_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str, image_id: str):
    _, _, listing = _tree(name, tmp_path)
    listing.write_text(f"{listing.read_text().split()[0]}\n\n{image_id}\n")
    message = _error(DatasetError, name, root=tmp_path)
    assert message.startswith(f"{listing}, line 3: {image_id!r} leads out of the data set's folder;")
    assert "a relative path without '..'" in message


@pytest.mark.parametrize("line", ["../../secret/0006R0_f00930.png", "/secret/0006R0_f00930.png"])
def test_a_camvid_list_cannot_lead_out_of_the_folder(tmp_path: Path, line: str):
    _, _, listing = _tree("CamVid", tmp_path / "root")
    save_photo(tmp_path / "secret" / "0006R0_f00930.png", np.full((37, 50, 3), 77, np.uint8))
    inside = load_dataset("CamVid", root=tmp_path / "root", image_size=(37, 50)).images[2]
    listing.write_text(line)
    data = load_dataset("CamVid", root=tmp_path / "root", image_size=(37, 50))
    np.testing.assert_array_equal(data.images, inside[None])


@pytest.mark.parametrize("name", ["VOC", "Folder"])
def test_an_id_listed_twice_is_named(tmp_path: Path, name: str):
    _, _, listing = _tree(name, tmp_path)
    first, second = listing.read_text().split()[:2]
    write_lines(listing, [first, second, first, second, second])
    message = f"The split file {listing} lists {first!r} twice, in lines 1 and 3 (and 1 more)."
    assert _error(DatasetError, name, root=tmp_path) == message


@pytest.mark.parametrize("spelling", ["./{}", "{}/", ".//{}", "././{}", "{}/."])
@pytest.mark.parametrize("name", ["VOC", "Folder"])
def test_another_spelling_of_an_id_is_the_same_id(tmp_path: Path, name: str, spelling: str):
    _, _, listing = _tree(name, tmp_path)
    first, second = listing.read_text().split()[:2]
    write_lines(listing, [spelling.format(first), second])
    assert load_dataset(name, root=tmp_path, image_size=(8, 8)).ids == (first, second)
    write_lines(listing, [second, first, "", spelling.format(first)])
    message = f"The split file {listing} lists {first!r} twice, in lines 2 and 4."
    assert _error(DatasetError, name, root=tmp_path) == message


def test_two_slashes_in_an_id_are_one(tmp_path: Path):
    _, _, listing = _tree("Folder", tmp_path)
    write_lines(listing, ["street//0001", "street/./0002"])
    assert load_dataset("Folder", root=tmp_path, image_size=(8, 8)).ids == ("street/0001", "street/0002")
    write_lines(listing, ["street/0001", "street//0001"])
    assert "lists 'street/0001' twice, in lines 1 and 2." in _error(DatasetError, root=tmp_path)


def test_a_camvid_list_that_names_an_image_twice_says_in_which_lines(tmp_path: Path):
    _, _, listing = _tree("CamVid", tmp_path)
    first, *_ = listing.read_text().splitlines()
    write_lines(listing, ["", first, first.split()[-1]])
    message = f"The split file {listing} lists '0001TP_006690' twice, in lines 2 and 3."
    assert _error(DatasetError, "CamVid", root=tmp_path) == message


# Options


@CASES
def test_an_unknown_split_lists_the_valid_ones(tmp_path: Path, name: str):
    _tree(name, tmp_path)
    valid = {"VOC": "train, trainval, val", "CamVid": "train, val, test", "Folder": "test, train, val, all"}[name]
    for split in ("validation", "../train", ""):
        message = _error(UnknownSplitError, name, root=tmp_path, split=split)
        assert message == f"Unknown split {split!r} of {name}; valid: {valid}."


def test_an_unknown_data_set_lists_the_valid_ones():
    assert _error(OptionError, "Voc") == f"Unknown data set 'Voc'; valid: {', '.join(DATASETS)}."


@pytest.mark.parametrize("name", DATASETS)
def test_an_unknown_resize_lists_the_valid_ones(name: str):
    assert _error(OptionError, name, resize="zoom") == "Unknown resize 'zoom'; valid: pad, crop, stretch."


@pytest.mark.parametrize("name", DATASETS)
def test_an_unknown_option_lists_the_valid_ones(name: str):
    message = _error(OptionError, name, colour="red")
    assert f"Unknown option 'colour' for data set {name}; its own options: " in message
    for option in DATASETS[name].options or ["(none)"]:
        assert option in message


@pytest.mark.parametrize(
    "image_size",
    [
        64,
        "64",
        "12",
        (64,),
        (64, 64, 3),
        (0, 64),
        (64, -1),
        (6.5, 8),
        (float("nan"), 8),
        (float("inf"), 8),
        ("8", "8"),
        (),
        True,
        (40.0, 40),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["Shapes", "Folder"])
def test_a_bad_image_size_is_shown(name: str, image_size: object):
    message = _error(OptionError, name, image_size=image_size)
    assert message == f"image_size must be two positive integers (H, W), got {image_size!r}."


@pytest.mark.parametrize(
    ("option", "value"), [("num_images", True), ("num_images", 0), ("dataset_seed", True), ("dataset_seed", -1)]
)
def test_a_number_of_shapes_is_a_number(option: str, value: object):
    assert repr(value) in _error(DatasetError, "Shapes", **{option: value})


def test_options_of_other_types_are_refused():
    assert (
        _error(OptionError, "Shapes", num_classes=[3]) == "num_classes must be a number, a bool or a string, got [3]."
    )


def test_options_are_checked_before_the_disk_is_read(tmp_path: Path):
    assert "Unknown resize" in _error(OptionError, "VOC", root=tmp_path / "missing", resize="zoom")


def test_an_error_on_one_split_leaves_the_other_usable(tmp_path: Path):
    photo, _, _ = _tree("VOC", tmp_path)
    _half(photo)
    _error(DatasetError, "VOC", root=tmp_path)
    assert len(load_dataset("VOC", root=tmp_path, split="val", image_size=(8, 8))) == 4
    shutil.rmtree(tmp_path / "VOCdevkit")
    _error(DatasetNotFoundError, "VOC", root=tmp_path, split="val")
