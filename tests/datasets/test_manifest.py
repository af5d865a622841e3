"""Manifests: JSON lines or CSV that list photos, masks and splits."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rss_env.datasets import load_dataset
from rss_env.datasets.check import check_dataset, official_splits
from rss_env.datasets.dataset import SegmentationDataset
from rss_env.errors import DatasetError, OptionError
from tests.trees import tiny_folder

SIZE = (6, 8)
MANIFESTS = range(int(os.environ.get("RSS_TEST_MANIFESTS", "15")))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "data", 4)


def load(root: Path | None, split: str = "all", **options: object) -> SegmentationDataset:
    return load_dataset("Folder", root=root, split=split, image_size=SIZE, **options)


def rows(splits: tuple[str, ...] = ("train", "val", "train", "odd"), masks: bool = True) -> list[dict[str, str]]:
    listed = []
    for i, split in enumerate(splits):
        row = {"image": f"images/{i:03d}.png"}
        if masks:
            row["mask"] = f"masks/{i:03d}.png"
        if split:
            row["split"] = split
        listed.append(row)
    return listed


def write(path: Path, listed: list[dict[str, str]]) -> None:
    if path.suffix == ".csv":
        lines = [",".join(listed[0]), *(",".join(row.values()) for row in listed)]
    else:
        lines = [json.dumps(row) for row in listed]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_manifest_says_which_photo_has_which_mask_and_split(root: Path, suffix: str):
    write(root / f"list{suffix}", rows())
    plain = load(root)
    assert plain.targets is not None
    assert official_splits("Folder", root, manifest=f"list{suffix}") == ["train", "val", "odd"]
    for split, expected in {"train": [0, 2], "val": [1], "odd": [3], "all": [0, 1, 2, 3]}.items():
        data = load(root, split, manifest=f"list{suffix}")
        np.testing.assert_array_equal(data.images, plain.images[expected])
        np.testing.assert_array_equal(data.targets, plain.targets[expected])
        assert data.ids == tuple(f"images/{i:03d}" for i in expected)
    assert check_dataset("Folder", root, manifest=f"list{suffix}").clean


def test_its_paths_start_from_its_own_folder_or_are_absolute(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    listed = [{name: str(root / path) if name != "split" else path for name, path in row.items()} for row in rows()]
    (tmp_path / "lists").mkdir()
    write(tmp_path / "lists" / "absolute.jsonl", listed)
    relative = [{n: f"../data/{p}" if n != "split" else p for n, p in row.items()} for row in rows()]
    write(tmp_path / "lists" / "relative.jsonl", relative)
    (tmp_path / "lists" / "classes.json").write_text('["a", "b", "c", "d"]')
    expected = load(root).targets
    for given in (str(tmp_path / "lists" / "absolute.jsonl"), "lists/relative.jsonl"):
        data = load(tmp_path, manifest=given)
        np.testing.assert_array_equal(data.targets, expected)
        assert data.class_names == ("a", "b", "c", "d")
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(load(None, manifest="lists/relative.jsonl").targets, expected)
    (tmp_path / "other.json").write_text('["w", "x", "y", "z"]')
    assert load(tmp_path, manifest="lists/relative.jsonl", classes="other.json").class_names == ("w", "x", "y", "z")


def test_without_splits_a_hash_decides_and_without_masks_there_are_none(root: Path):
    write(root / "list.jsonl", rows(splits=("", "", "", ""), masks=False))
    data = load(root, "all", manifest="list.jsonl", num_classes=3)
    assert data.targets is None
    assert len(data) == 4
    train = load(root, "train", manifest="list.jsonl", num_classes=3)
    assert 0 < len(train) <= 4
    with pytest.raises(DatasetError, match="has no masks/, so the classes cannot be counted"):
        load(root, "train", manifest="list.jsonl")


def test_columns_may_have_other_names_and_further_ones_are_left_alone(root: Path):
    (root / "list.csv").write_text('\ufeffphoto,"label map",weather\n"images/000.png",masks/000.png,"rain, fog"\n')
    data = load(root, manifest="list.csv", images="photo", masks="label map")
    np.testing.assert_array_equal(data.targets, load(root).targets[:1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no photo"),
        ("\n \n", "lists no photo"),
        ('{"image": "a"}\n\n{"mask": "b"}\n', "line 3: no 'image'; the line has mask"),
        ('{"image": "a"}\n{"image": "a"}\n', "line 2: the photo 'a' is listed in line 1 already"),
        ('{"image": "a", "mask": "b"}\n{"image": "c"}\n', "line 2: no 'mask', which line 1 has; give all or none"),
        ('{"image": "a"}\n{"image": "c", "split": "val"}\n', "line 1: no 'split', which line 2 has; give all or none"),
        ('{"image": "a"}\n{"image": 3}\n', "line 2: 'image' must be text, got 3"),
        ('{"image": "a"\n', r"line 1 is no JSON: .*\(A table must end in \.csv\.\)"),
        ("[1]\n", "line 1 must be an object such as"),
        ('{"image": "a", "split": "../x"}\n', "line 1: a split is a name such as 'train', got '../x'"),
        ("[" * 100_000, "line 1 is no JSON"),
        ('{"image": "a\\u0000"}', "line 1: 'image' must be text"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(root: Path, text: str, message: str):
    (root / "list.jsonl").write_text(text)
    with pytest.raises(DatasetError, match=rf"list\.jsonl.*{message}"):
        load(root, manifest="list.jsonl", num_classes=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,mask\na,b\nc\n", "line 3: no 'mask', which line 2 has"),
        ("image,mask\na,b,c\n", "line 2: more values than the first line has names"),
        ("file,mask\na,b\n", "line 2: no 'image'; the line has file, mask"),
        ("image,mask\n", "lists no photo"),
    ],
)
def test_a_wrong_row_of_a_table_is_named_by_its_line(root: Path, text: str, message: str):
    (root / "list.csv").write_text(text)
    with pytest.raises(DatasetError, match=rf"list\.csv.*{message}"):
        load(root, manifest="list.csv", num_classes=3)


def test_a_manifest_that_is_not_there_or_no_text_is_refused(root: Path):
    with pytest.raises(DatasetError, match=r"Cannot read .*nowhere\.jsonl: No such file"):
        load(root, manifest="nowhere.jsonl")
    (root / "list.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match=r"Cannot read .*list\.jsonl"):
        load(root, manifest="list.jsonl")
    with pytest.raises(OptionError, match="manifest must be a path, got 3"):
        load(root, manifest=3)
    with pytest.raises(OptionError, match="manifest and huggingface are two sources"):
        load(root, manifest="list.jsonl", huggingface="x")


def test_a_photo_that_is_listed_and_missing_is_named(root: Path):
    write(root / "list.jsonl", [*rows(), {"image": "images/009.png", "mask": "masks/009.png", "split": "train"}])
    with pytest.raises(DatasetError, match=r"no image .*images/009"):
        load(root, manifest="list.jsonl")
    found = check_dataset("Folder", root, ["train"], manifest="list.jsonl").findings
    assert [Path(finding.file).name for finding in found] == ["009.png", "009.png"]


def outcome(function: Callable[[], Any]) -> tuple[Any, str]:
    """What a function gives, or what its error of the package says."""
    try:
        return function(), ""
    except (DatasetError, OptionError) as error:
        return None, str(error)


@pytest.mark.parametrize("seed", MANIFESTS)
def test_a_damaged_manifest_loads_or_gives_one_error(root: Path, seed: int):
    rng = random.Random(seed)
    path = root / rng.choice(["list.jsonl", "list.csv"])
    write(path, rows())
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content))
        content[at : at + rng.choice([0, 1, 1, 9])] = rng.choice(
            [b"", b"\n", b"\0", b'"', b",", rng.randbytes(2), b"\xff"]
        )
    path.write_bytes(content)
    data, error = outcome(lambda: load(root, "all", manifest=path.name))
    if data is not None:
        assert data.targets is None or data.targets.shape == (len(data), *SIZE)
    report, refused = outcome(lambda: check_dataset("Folder", root, ["all"], manifest=path.name))
    assert "\n" not in error + refused
    without_masks = "so the classes cannot be counted" in error  # a warning of the check
    assert (report is not None and report.clean) == (data is not None or without_masks), (error, refused)
