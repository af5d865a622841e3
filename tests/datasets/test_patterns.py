"""Photos and masks under names of the user's own: by patterns, and by a guess at them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from rss_env.datasets import load_dataset
from rss_env.datasets.check import check_dataset, official_splits
from rss_env.datasets.dataset import SegmentationDataset
from rss_env.datasets.guess import find_pictures, guess_patterns
from rss_env.errors import DatasetError, OptionError
from tests.trees import save_mask, save_photo, write_lines

SIZE = (24, 32)
TREES = range(int(os.environ.get("RSS_TEST_TREES", "10")))


def load(root: Path, split: str = "all", **options: object) -> SegmentationDataset:
    return load_dataset("Folder", root=root, split=split, image_size=SIZE, **options)


def write(root: Path, photo: str, mask: str | None, value: int) -> None:
    """A noisy photo whose first pixels are ``value``, and a mask of it."""
    image = np.random.default_rng(value).integers(0, 256, (*SIZE, 3), np.uint8)
    image[:16, :16] = value
    save_photo(root / photo, image)
    if mask is not None:
        save_mask(root / mask, np.full(SIZE, value, np.uint8))


@pytest.mark.parametrize(
    ("images", "masks", "photo", "mask", "image_id"),
    [
        ("photos/*.png", "labels/*_L.png", "photos/{}.png", "labels/{}_L.png", "{}"),
        ("photos/img_*_rgb.bmp", "*.png", "photos/img_{}_rgb.bmp", "{}.png", "{}"),
        ("*.bmp", "*_mask.png", "{}.bmp", "{}_mask.png", "{}"),
        ("*/image.png", "*/mask.png", "{}/image.png", "{}/mask.png", "{}"),
        ("p/**/*.png", "m/**/*_L.png", "p/x/y/{}.png", "m/x/y/{}_L.png", "x/y/{}"),
        ("p/*.PNG", "m/*.png", "p/{}.png", "m/{}.PNG", "{}"),
        ("p/*", "m/*.tif", "p/{}.bmp", "m/{}.tif", "{}"),
        ("*.png", "*_mask.png", "{}.png", "{}_mask.png", "{}"),
        ("a (b)+/*.v1.png", "m/*.png", "a (b)+/{}.v1.png", "m/{}.png", "{}"),
        (None, "m/*.png", "images/{}.png", "m/{}.png", "{}"),
        ("p/*.png", None, "p/{}.png", "masks/{}.png", "{}"),
    ],
)
def test_a_pattern_pairs_photos_and_masks(
    tmp_path: Path, images: str | None, masks: str | None, photo: str, mask: str, image_id: str
):
    for value, name in enumerate(("a", "b.c", "ü 1")):
        write(tmp_path, photo.format(name), mask.format(name), value)
    data = load(tmp_path, images=images, masks=masks)
    assert data.ids == tuple(image_id.format(name) for name in ("a", "b.c", "ü 1"))
    assert data.targets is not None
    assert data.images[:, 0, 0, 0].tolist() == data.targets[:, 0, 0].tolist() == [0, 1, 2]
    assert check_dataset("Folder", tmp_path, ["all"], images=images, masks=masks).clean


def test_a_star_does_not_lead_into_subfolders_and_other_files_are_left_alone(tmp_path: Path):
    for value, name in enumerate(("p/a.png", "p/x/b.png", "p/c.txt.bmp", "q/d.png")):
        write(tmp_path, name, None, value)
    assert load(tmp_path, images="p/*.png", num_classes=2).ids == ("a",)


def test_a_folder_that_is_not_there_is_not_called_empty(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, said in (("none", "does not exist"), ("file", "is not a folder"), ("empty", "holds nothing")):
        with pytest.raises(DatasetError, match=f"{name} {said}"):
            load(tmp_path / name, images="*.png", num_classes=2)


@pytest.mark.parametrize("both", [True, False])
def test_the_path_may_say_the_split(tmp_path: Path, both: bool):
    for value, split in enumerate(("train", "train", "val", "other")):
        mask = f"m/{split}/{value}.png" if both else f"m/{value}.png"
        write(tmp_path, f"p/{split}/{value}.png", mask, value)
    options = {"images": "p/{split}/*.png", "masks": "m/{split}/*.png" if both else "m/*.png"}
    assert official_splits("Folder", tmp_path, **options) == ["train", "val", "other"]
    assert load(tmp_path, "train", **options).ids == ("train/0", "train/1")
    val = load(tmp_path, "val", **options)
    assert val.ids == ("val/2",)
    assert val.targets is not None
    assert (val.targets == 2).all()
    assert val.num_classes == 4  # counted in the masks of every split
    assert len(load(tmp_path, "all", **options)) == 4
    with pytest.raises(DatasetError, match="Unknown split 'test' of Folder; valid: other, train, val, all"):
        load(tmp_path, "test", **options)


def test_split_files_list_ids(tmp_path: Path):
    for value in range(3):
        write(tmp_path, f"p/{value}.png", f"m/{value}_L.png", value)
    options = {"images": "p/*.png", "masks": "m/*_L.png"}
    write_lines(tmp_path / "splits" / "mine.txt", ["2", "0"])
    assert load(tmp_path, "mine", **options).ids == ("2", "0")
    write_lines(tmp_path / "splits" / "mine.txt", ["2", "7", "8"])
    with pytest.raises(
        DatasetError, match=r"mine\.txt lists '7' \(and 1 more\), but no photo has that id: photos p/\*"
    ):
        load(tmp_path, "mine", **options)


def test_a_photo_without_a_mask_is_named_with_where_it_was_expected(tmp_path: Path):
    write(tmp_path, "p/a.png", "m/a_L.png", 1)
    write(tmp_path, "p/b.png", None, 1)
    options = {"images": "p/*.png", "masks": "m/*_L.png"}
    with pytest.raises(DatasetError, match=r"image .*p/b\.png has no mask: expected .*m/b_L\.png"):
        load(tmp_path, **options)
    (finding,) = check_dataset("Folder", tmp_path, ["all"], **options).findings
    assert finding.file == str(tmp_path / "m" / "b_L.png")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"images": "p/"}, OptionError, r"images must be a pattern with one \* that stands for the id, such as"),
        ({"images": "*/*.png"}, OptionError, r"images must be a pattern with one \*"),
        ({"images": ""}, OptionError, r"images must be a pattern with one \*"),
        ({"masks": 3}, OptionError, r"masks must be a pattern with one \*"),
        ({"images": "{split}*.png"}, OptionError, r"images may hold {split} once, as the name of a folder"),
        ({"images": "p/*.png", "masks": "{split}/*.png"}, OptionError, "has {split}, so images must have it too"),
        ({"images": "q/*.png"}, DatasetError, r"images='q/\*\.png' finds no photo in .*: .* holds m/, p/\."),
        ({"images": "p/*.jpg"}, DatasetError, r"finds no photo in .*: .*p holds a\.png\."),
        ({"images": "p/*.png", "masks": "p/*.jpg"}, DatasetError, r"masks='p/\*\.jpg' finds no mask"),
        (
            {"images": "p/*.png", "masks": "m/*.png"},
            DatasetError,
            r"No mask has the id of a photo: .*'a', .*'a_L'\. The",
        ),
    ],
)
def test_a_wrong_pattern_is_refused_with_what_is_there(tmp_path: Path, options: dict, error: type, message: str):
    write(tmp_path, "p/a.png", "m/a_L.png", 1)
    with pytest.raises(error, match=message):
        load(tmp_path, **options)


def test_two_photos_of_one_id_are_refused(tmp_path: Path):
    write(tmp_path, "p/a.png", None, 0)
    write(tmp_path, "p/a.bmp", None, 0)
    with pytest.raises(DatasetError, match="more than one photo called 'a'"):
        load(tmp_path, images="p/*", num_classes=2)


@pytest.mark.parametrize("seed", TREES)
def test_the_patterns_of_a_random_tree_are_guessed(tmp_path: Path, seed: int):
    """Names as data sets have them, in random combinations: the guess pairs every photo with its own mask."""
    rng = random.Random(seed)
    photos, masks = rng.sample(["photos", "Images", "JPEGImages", "rgb/left", "x y"], 2)
    if rng.random() < 0.2:
        masks = photos
    ending, suffix = rng.choice(["", "_rgb", "-photo"]), rng.choice([".JPEG", ".jpg", ".png", ".bmp"])
    mask_ending = rng.choice(["_L", "_mask", "_gtFine_labelIds", ""] if masks != photos else ["_L", "_mask"])
    splits = rng.choice([[""], ["train/", "val/"], ["training/", "validation/", "test/"]])
    first = rng.random() < 0.5 and splits != [""]  # train/photos instead of photos/train
    names = [f"{rng.choice(['', 'a_', 'im'])}{i:04d}{rng.choice(['', 'TP', '_0'])}" for i in range(rng.randint(3, 6))]
    count = 0
    for split in splits:
        for name in names:
            there = [f"{split}{place}/" if first else f"{place}/{split}" for place in (photos, masks)]
            write(tmp_path, f"{there[0]}{name}{ending}{suffix}", f"{there[1]}{name}{mask_ending}.png", 10 * count)
            count += 1
    guess = guess_patterns(find_pictures(tmp_path))
    assert set(guess) == {"images", "masks"}, guess
    data = load(tmp_path, **guess)
    assert data.targets is not None
    assert len(data) == count
    shift = np.abs(data.images[:, 2, 2, 0].astype(int) - data.targets[:, 0, 0])
    assert shift.max() <= (0 if suffix in (".png", ".bmp") else 4)  # JPEG
    assert sorted(data.targets[:, 0, 0].tolist()) == [10 * value for value in range(count)]


def test_photos_alone_are_guessed_without_masks(tmp_path: Path):
    for value in range(3):
        image = np.random.default_rng(value).integers(0, 256, (40, 40, 3), np.uint8)
        save_photo(tmp_path / "holiday" / f"{value}.JPG", image, format="JPEG")
    assert guess_patterns(find_pictures(tmp_path)) == {"images": "holiday/*.JPG"}


def test_no_guess_is_made_at_very_many_kinds_of_files(tmp_path: Path):
    write(tmp_path, "p/a.png", "m/a.png", 0)
    assert guess_patterns(find_pictures(tmp_path)) == {"images": "p/*.png", "masks": "m/*.png"}
    for number in range(11):
        save_mask(tmp_path / str(number) / "x.png", np.zeros(SIZE, np.uint8))
    assert guess_patterns(find_pictures(tmp_path)) == {}


def test_a_file_that_is_no_picture_is_taken_for_no_mask(tmp_path: Path):
    write(tmp_path, "p/a.bmp", None, 0)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a.png").write_bytes(b"no picture")
    assert guess_patterns(find_pictures(tmp_path)) == {}


def test_nothing_is_guessed_where_it_is_not_clear_which_are_the_photos(tmp_path: Path):
    for name in ("a/1.png", "b/2.png"):
        write(tmp_path, name, None, 0)
    assert guess_patterns(find_pictures(tmp_path)) == {}
    assert guess_patterns([]) == {}
