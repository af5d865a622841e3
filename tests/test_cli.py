"""The command line: what it prints for people and for programs, and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

from rss_env import ENV_IDS
from rss_env.cli import main
from rss_env.datasets import DATASETS, find_dataset, load_dataset
from rss_env.datasets.decode import decode_pair
from rss_env.errors import DatasetError
from tests.extras import is_installed
from tests.trees import add_pair, dataset_kwargs, save_mask, save_photo, tiny_folder

ROOT = Path(__file__).parents[1]
PHOTOS = [name for name, entry in DATASETS.items() if entry.locate is not None]


@dataclass
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.err == ""
        return json.loads(self.out)


@pytest.fixture
def rss_env(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs ``rss-env`` with these words."""

    def run(*words: object) -> Outcome:
        try:
            code = main([str(word) for word in words])
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def process(*words: object, **options: Any) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "rss_env", *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        **options,
    )


def assert_error(outcome: Outcome, *fragments: str) -> None:
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("error: ") == 1
    for fragment in fragments:
        assert fragment in outcome.err


def test_list_has_a_row_for_every_id(rss_env: Callable[..., Outcome], tmp_path: Path):
    outcome = rss_env("list", "--root", tmp_path)
    assert outcome.code == 0
    heading, *rows = outcome.out.splitlines()
    assert heading.split() == ["id", "data", "set", "level", "classes", "size", "on", "disk"]
    assert [row.split()[0] for row in rows] == list(ENV_IDS)
    for row in rows:
        _, dataset, level, classes, size, on_disk = row.split()
        assert level in DATASETS[dataset].levels
        assert size == "{}×{}".format(*DATASETS[dataset].image_size)
        assert classes == str(len(DATASETS[dataset].info.class_names) or "any")
        library = DATASETS[dataset].library
        always = DATASETS[dataset].locate is None and (library is None or is_installed(library))
        assert on_disk == ("always" if always else "no")
    assert not any(line.endswith(" ") for line in outcome.out.splitlines())


@pytest.mark.parametrize("name", PHOTOS)
def test_list_finds_the_splits_of_a_data_set_on_disk(name: str, rss_env: Callable[..., Outcome], tmp_path: Path):
    root = dataset_kwargs(name, tmp_path)["root"]
    rows = rss_env("list", "--root", root, "--json").json
    assert [row["id"] for row in rows] == list(ENV_IDS)
    for row in (row for row in rows if row["dataset"] == name):
        assert {"train", "val"} <= set(row["on_disk"])
        for split, count in row["on_disk"].items():
            env = gym.make(row["id"], root=root, split=split)
            assert env.metadata["num_images"] == count
            assert [*env.observation_space.shape[:2]] == row["image_size"]  # type: ignore[index]


def test_list_says_that_a_split_is_incomplete(rss_env: Callable[..., Outcome], tmp_path: Path):
    dataset_kwargs("CamVid", tmp_path)
    next((tmp_path / "valannot").iterdir()).unlink()
    row = next(line for line in rss_env("list", "--root", tmp_path).out.splitlines() if "RSS-CamVid-Image" in line)
    assert row.endswith("train, val (incomplete), test")


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_info_describes_the_environment(env_id: str, rss_env: Callable[..., Outcome], tmp_path: Path):
    dataset = env_id.split("-")[1]
    card = DATASETS[dataset].info
    described = rss_env("info", env_id, "--json").json
    assert described["id"] == env_id
    assert [one["name"] for one in described["classes"]] == list(card.class_names)
    assert [one["colour"] for one in described["classes"]] == ([] if card.palette is None else card.palette.tolist())
    assert described["splits"] == dict(card.splits)
    assert described["on_disk"] is None

    env = gym.make(env_id, **dataset_kwargs(dataset, tmp_path))
    assert described["observation_space"] == str(env.observation_space)
    arguments = {one["name"]: one for one in described["arguments"]}
    assert {"split", "image_size", "resize", "reward", "expose_target"} <= set(arguments)
    assert set(DATASETS[dataset].options) <= set(arguments)
    assert ("root" in arguments) == (DATASETS[dataset].locate is not None)
    assert all(one["meaning"] for one in arguments.values())
    default = {"image": "mean_iou", "pixel": "pixel_accuracy"}.get(described["level"])
    assert arguments["reward"]["default"] == default


def test_info_is_for_people_too(rss_env: Callable[..., Outcome]):
    text = rss_env("info", "RSS-VOC-PixelReward-v0").out
    card = DATASETS["VOC"].info
    assert "\x1b" not in text
    plain = " ".join(text.split())
    for expected in (card.title, card.citation, card.licence, card.homepage, card.ignore, *card.class_names):
        assert " ".join(expected.split()) in plain
    for line in card.layout.splitlines():
        assert line.strip() in plain
    assert "train 1,464" in plain
    assert "#c00080 person" in plain or "#c08080 person" in plain
    assert "rss-env download VOC" in plain


def test_info_counts_what_is_below_root(rss_env: Callable[..., Outcome], tmp_path: Path):
    root = dataset_kwargs("CamVid", tmp_path)["root"]
    assert rss_env("info", "CamVid", "--root", root, "--json").json["on_disk"] == {"train": 4, "val": 3, "test": 2}
    assert re.search(r"on disk +train 4, val 3, test 2\n", rss_env("info", "CamVid", "--root", root).out)


@pytest.mark.parametrize("word", ["VOC", "voc", "voc2012", "RSS-VOC-ImageReward-v0", "rss-voc-imagereward-v0"])
def test_a_data_set_stands_for_its_image_level_id_in_whatever_case(word: str, rss_env: Callable[..., Outcome]):
    assert rss_env("info", word, "--json").json["id"] == "RSS-VOC-ImageReward-v0"


@pytest.mark.parametrize("command", [["info"], ["check"], ["render", "-o", "out.png"], ["download"]])
def test_an_unknown_name_lists_the_data_sets(command: list[str], rss_env: Callable[..., Outcome]):
    outcome = rss_env(*command, "RSS-Moon-ImageReward-v0")
    assert_error(outcome, "'RSS-Moon-ImageReward-v0'", *DATASETS)
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("by_name", [True, False])
def test_a_sound_data_set_is_clean(name: str, by_name: bool, rss_env: Callable[..., Outcome], tmp_path: Path):
    root = dataset_kwargs(name, tmp_path)["root"]
    words = (name, "--root", root) if by_name else (root,)
    outcome = rss_env("check", *words, "--json")
    assert outcome.code == 0
    (report,) = outcome.json
    assert (report["dataset"], report["root"], report["clean"]) == (name, root, True)
    assert report["findings"] == []
    assert {"train", "val"} <= {split["split"] for split in report["splits"]}
    for split in report["splits"]:
        data = load_dataset(name, root=root, split=split["split"])
        assert split["images"] == len(data)
        assert [one["name"] for one in split["classes"]] == list(data.class_names)
        assert [one["pixels"] for one in split["classes"]] == pixels_of(name, root, split["split"])
        assert sum(one["share"] for one in split["classes"]) == pytest.approx(1)
        assert sum(one["images"] for one in split["sizes"]) == len(data)
        assert split["never_seen"] == [one["name"] for one in split["classes"] if one["pixels"] == 0]
    text = rss_env("check", *words)
    assert text.code == 0
    assert text.out.splitlines()[0] == f"{name} in {root}"
    assert text.out.splitlines()[-1] == "0 problems, 0 warnings"


def pixels_of(name: str, root: str, split: str) -> list[int]:
    """Pixels of each class in the targets that the loader gives at the size of each photo."""
    locate = DATASETS[name].locate
    assert locate is not None
    source = locate(root, split)
    counts = np.zeros(256, int)
    for i, path in enumerate(source.images):
        with Image.open(path) as photo:
            _, target = decode_pair(source, i, (photo.height, photo.width), "stretch")
        assert target is not None
        counts += np.bincount(target.ravel(), minlength=256)
    return counts[: source.num_classes].tolist()


def test_each_split_is_read_in_its_own_kind_of_labels(rss_env: Callable[..., Outcome], tmp_path: Path):
    root = dataset_kwargs("Cityscapes", tmp_path)["root"]
    for mask in (tmp_path / "gtFine" / "val").rglob("*_labelIds.png"):
        with Image.open(mask) as stored:
            labels = np.asarray(stored) % 19
        save_mask(mask.with_name(mask.name.replace("labelIds", "labelTrainIds")), labels)
        mask.unlink()
    (report,) = rss_env("check", "Cityscapes", "--root", root, "--json").json
    for split in report["splits"]:
        assert [one["pixels"] for one in split["classes"]] == pixels_of("Cityscapes", root, split["split"])
    assert [split["split"] for split in report["splits"]] == ["train", "val"]


def test_a_file_of_two_splits_is_reported_once(rss_env: Callable[..., Outcome], tmp_path: Path):
    dataset_kwargs("VOC", tmp_path)
    mask = tmp_path / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000032.png"
    mask.write_bytes(b"")
    outcome = rss_env("check", tmp_path, "--json")
    assert [one["file"] for one in outcome.json[0]["findings"]] == [str(mask)]
    assert "1 problem, 0 warnings" in rss_env("check", tmp_path).out


def test_the_histogram_counts_the_pixels_of_the_masks_at_their_own_size(
    rss_env: Callable[..., Outcome], tmp_path: Path
):
    labels = np.zeros((10, 20), np.uint8)
    labels[:5], labels[9] = 2, 255
    add_pair(tmp_path, "a", labels)
    add_pair(tmp_path, "b", np.zeros((4, 4), np.uint8))
    (tmp_path / "classes.json").write_text(json.dumps(["ground", "water", "sky"]))
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.txt").write_text("a\nb\n")
    (report,) = rss_env("check", tmp_path, "--json").json
    (split,) = report["splits"]
    assert split["classes"] == [
        {"name": "ground", "pixels": 96, "share": 96 / 196, "images": 2},
        {"name": "water", "pixels": 0, "share": 0.0, "images": 0},
        {"name": "sky", "pixels": 100, "share": 100 / 196, "images": 1},
    ]
    assert split["ignored_share"] == 20 / 216
    assert split["never_seen"] == ["water"]
    assert sorted(map(str, split["sizes"])) == [
        "{'size': [10, 20], 'images': 1}",
        "{'size': [4, 4], 'images': 1}",
    ]


def break_files(folder: Path) -> dict[str, str]:
    """Breaks the files of a tiny Folder of nine pairs; returns the broken file -> what its message must hold."""
    tiny_folder(folder, count=9)
    (folder / "classes.json").write_text(json.dumps(["ground", "water", "sky"]))
    (folder / "splits").mkdir()
    (folder / "splits" / "train.txt").write_text("".join(f"{i:03d}\n" for i in range(10)))
    images, masks = folder / "images", folder / "masks"
    (masks / "000.png").unlink()
    (images / "001.png").write_bytes(b"no picture")
    (masks / "001.png").write_bytes((masks / "001.png").read_bytes()[:40])
    save_mask(masks / "002.png", np.zeros((5, 5), np.uint8))
    save_mask(masks / "003.png", np.full((6, 8), 7, np.uint8))
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(masks / "004.png")
    (images / "005.png").unlink()
    Image.fromarray(np.zeros((6, 8), np.float32)).save(images / "005.tif")
    (images / "006.png").unlink()
    return {
        "masks/000.png": "missing",
        "images/001.png": "Cannot decode",
        "masks/001.png": "Cannot decode",
        "masks/002.png": "5×5",
        "masks/003.png": "holds 7 in 48 pixels",
        "masks/004.png": "holds colours (RGB, 1 of them), and no palette",
        "images/005.tif": "mode 'F'",
        "images/006.jpg": "missing",
        "images/009.jpg": "missing",
        "masks/009.png": "missing",
    }


def test_check_reports_every_problem_of_every_file(rss_env: Callable[..., Outcome], tmp_path: Path):
    expected = break_files(tmp_path)
    outcome = rss_env("check", tmp_path, "--json")
    assert outcome.code == 1
    (report,) = outcome.json
    assert report["clean"] is False
    found = {Path(one["file"]).relative_to(tmp_path).as_posix(): one for one in report["findings"]}
    assert len(found) == len(report["findings"])
    assert set(found) == set(expected)
    for file, fragment in expected.items():
        assert fragment in found[file]["message"]
        assert str(tmp_path / file) in found[file]["message"]
        assert found[file]["kind"] == "problem"
    assert report["splits"][0]["images"] == 10

    text = rss_env("check", tmp_path)
    assert text.code == 1
    assert text.out.splitlines()[-1] == "10 problems, 0 warnings"
    for one in found.values():
        assert f"problem: {one['message']}\n" in text.out


def test_a_mask_without_a_pixel_that_counts_is_a_warning(rss_env: Callable[..., Outcome], tmp_path: Path):
    tiny_folder(tmp_path)
    save_mask(tmp_path / "masks" / "001.png", np.full((6, 8), 255, np.uint8))
    outcome = rss_env("check", tmp_path, "--json")
    assert outcome.code == 0
    (finding,) = outcome.json[0]["findings"]
    assert finding == {
        "kind": "warning",
        "file": str(tmp_path / "masks" / "001.png"),
        "message": f"{tmp_path / 'masks' / '001.png'} has no pixel that counts: all are ignored.",
    }
    assert rss_env("check", tmp_path).out.splitlines()[-1] == "0 problems, 1 warning"


@pytest.mark.parametrize("name", PHOTOS)
def test_check_names_each_missing_mask_of_every_layout(name: str, rss_env: Callable[..., Outcome], tmp_path: Path):
    root = dataset_kwargs(name, tmp_path)["root"]
    before = rss_env("check", name, "--root", root, "--split", "val", "--json").json[0]["splits"][0]["images"]
    ids = load_dataset(name, root=root, split="val").ids
    last_names = [image_id.rsplit("/", 1)[-1] for image_id in ids]
    masks = [
        path
        for path in tmp_path.rglob("*.png")
        if any(folder in path.as_posix() for folder in ("annot", "masks", "gtFine", "SegmentationClass"))
        and any(last in path.name for last in last_names)
        and ("train" not in path.parts)
    ]
    assert len(masks) == len(ids) == before
    for mask in masks:
        mask.unlink()
    outcome = rss_env("check", name, "--root", root, "--split", "val", "--json")
    assert outcome.code == 1
    assert {one["file"] for one in outcome.json[0]["findings"]} == set(map(str, masks))


def test_a_split_that_cannot_be_listed_is_a_problem_among_the_others(rss_env: Callable[..., Outcome], tmp_path: Path):
    dataset_kwargs("VOC", tmp_path)
    lists = tmp_path / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
    (lists / "val.txt").write_text("")
    outcome = rss_env("check", "voc", "--root", tmp_path, "--json")
    assert outcome.code == 1
    (report,) = outcome.json
    (finding,) = report["findings"]
    assert str(lists / "val.txt") in finding["message"]
    assert {split["split"]: split["images"] for split in report["splits"]} == {"train": 5, "val": 0, "trainval": 9}
    assert report["not_on_disk"] == ["trainaug"]


def test_check_reads_the_files_and_leaves_the_cache_alone(rss_env: Callable[..., Outcome], tmp_path: Path, cache: Path):
    folder = tiny_folder(tmp_path / "data")
    assert rss_env("check", folder).code == 0
    assert not cache.exists()
    (folder / "images" / "002.png").write_bytes(b"")
    assert rss_env("check", folder).code == 1


def test_check_takes_the_splits_and_options_it_is_given(rss_env: Callable[..., Outcome], tmp_path: Path):
    folder = tiny_folder(tmp_path)
    (report,) = rss_env("check", folder, "--split", "all", "--env-kwargs", '{"num_classes": 9}', "--json").json
    assert [(split["split"], split["images"]) for split in report["splits"]] == [("all", 4)]
    assert len(report["splits"][0]["classes"]) == 9
    outcome = rss_env("check", folder, "--split", "all", "--env-kwargs", '{"num_classes": 2}', "--json")
    assert (outcome.code, len(outcome.json[0]["findings"])) == (1, 4)


def test_photos_without_masks_can_be_checked(rss_env: Callable[..., Outcome], tmp_path: Path):
    for mask in (tiny_folder(tmp_path) / "masks").iterdir():
        mask.unlink()
    (tmp_path / "masks").rmdir()
    (tmp_path / "images" / "003.png").write_bytes(b"")
    outcome = rss_env("check", "Folder", "--root", tmp_path, "--split", "all", "--json")
    assert outcome.code == 1
    found = {finding["kind"]: finding for finding in outcome.json[0]["findings"]}
    assert found["problem"]["file"] == str(tmp_path / "images" / "003.png")
    assert found["warning"]["message"].startswith("no masks: the reward must be a callable")
    (tmp_path / "images" / "003.png").unlink()
    outcome = rss_env("check", tmp_path)
    assert outcome.code == 0
    assert "no masks: the reward must be a callable" in outcome.out
    assert "classes.json must say how many classes there are" in outcome.out


def own_names(folder: Path, count: int = 6) -> tuple[Path, np.ndarray]:
    """Photos ``photos/*.JPEG`` with RGB masks ``labels/*_L.png``; returns the folder and the colours of the classes."""
    rng = np.random.default_rng(0)
    colours = np.array([[128, 64, 128], [0, 128, 192], [0, 0, 0]], np.uint8)
    for i in range(count):
        labels = rng.choice(3, (10, 12), p=[0.6, 0.3, 0.1])
        labels.flat[:3] = range(3)
        save_photo(folder / "photos" / f"{i:03d}TP.JPEG", colours[labels])
        save_photo(folder / "labels" / f"{i:03d}TP_L.png", colours[labels])
    return folder, colours


def test_from_photos_and_colours_to_a_clean_check_and_a_converted_folder(
    rss_env: Callable[..., Outcome], tmp_path: Path
):
    folder, colours = own_names(tmp_path / "my data")
    first = rss_env("check", folder)
    assert first.code == 1
    lines = first.out.splitlines()
    assert lines[:2] == [
        f"Folder in {folder}",
        "photos photos/*.JPEG, masks labels/*_L.png, splits by a hash of the names",
    ]
    options = {"images": "photos/*.JPEG", "masks": "labels/*_L.png"}
    assert f"To use them: --root '{folder}' --env-kwargs '{json.dumps(options)}'" in lines[2]
    assert re.search(r"^\[128, 64, 128\] +\d+ +\d+\.\d\d% +6$", first.out, flags=re.MULTILINE)
    assert lines[-2].startswith(f"problem: {folder / 'labels'}")
    assert f"And 5 more like it, such as {folder / 'labels'}" in lines[-2]
    assert lines[-1] == "6 problems, 0 warnings"

    start = first.out.index("cat > ")
    skeleton = first.out[start : first.out.index("\nEND\n") + 5]
    subprocess.run(["sh"], input=skeleton, text=True, check=True)
    described = json.loads((folder / "classes.json").read_text())
    assert described["classes"] == ["class 0", "class 1", "class 2"]
    assert described["palette"] == colours.tolist()  # the commonest first

    second = rss_env("check", folder)
    assert (second.code, second.out.splitlines()[-1]) == (0, "0 problems, 0 warnings")
    outcome = rss_env("convert", folder, tmp_path / "converted")
    assert outcome.code == 0
    assert outcome.out.startswith(f"{tmp_path / 'converted'}: 6 images, 6 masks, 3 classes; train ")
    assert rss_env("check", tmp_path / "converted").code == 0
    before = load_dataset("Folder", root=folder, split="all", image_size=(10, 12), **options)
    after = load_dataset("Folder", root=tmp_path / "converted", split="all", image_size=(10, 12))
    np.testing.assert_array_equal(before.targets, after.targets)
    np.testing.assert_array_equal(before.images, after.images)


def test_colours_that_the_palette_lacks_are_listed(rss_env: Callable[..., Outcome], tmp_path: Path):
    folder, colours = own_names(tmp_path)
    (folder / "classes.json").write_text(json.dumps({"classes": ["a", "b"], "palette": colours[:2].tolist()}))
    outcome = rss_env("check", folder)
    assert outcome.code == 1
    assert re.search(r"^\[0, 0, 0\] +\d+ +100\.00% +6$", outcome.out, flags=re.MULTILINE)
    assert "cat >" not in outcome.out
    assert "6 problems, 0 warnings" in outcome.out


def test_check_says_what_a_folder_holds_that_it_does_not_know(rss_env: Callable[..., Outcome], tmp_path: Path):
    assert_error(rss_env("check", tmp_path), "It holds nothing.")
    (tmp_path / "notes.txt").touch()
    assert_error(rss_env("check", tmp_path), "It holds notes.txt, but no picture (.jpg, ")
    for name in ("a/x.jpg", "b/y.jpg"):
        save_photo(tmp_path / name, np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8))
    assert_error(rss_env("check", tmp_path), "It holds a/*.jpg (1), b/*.jpg (1).", '"masks": "labels/*_L.png"')


def test_check_says_where_masks_under_other_names_may_be(rss_env: Callable[..., Outcome], tmp_path: Path):
    folder = tiny_folder(tmp_path / "ending")
    for mask in (folder / "masks").iterdir():
        mask.rename(mask.with_name(f"{mask.stem}_m.png"))
    for photo in (folder / "images").iterdir():
        save_photo(photo, np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
        save_mask(folder / "masks" / f"{photo.stem}_m.png", np.zeros((40, 50), np.uint8))
    outcome = rss_env("check", folder)
    assert (outcome.code, outcome.out.splitlines()[1].split(",")[:2]) == (
        0,
        ["photos images/*.png", " masks masks/*_m.png"],
    )
    for mask in (folder / "masks").iterdir():
        mask.rename(mask.with_name(f"{int(mask.stem[:3]) + 10}.png"))
    outcome = rss_env("check", folder)
    assert outcome.code == 1
    assert "No names of photos and masks fit together here: images/*.png (4), masks/*.png (4)" in outcome.out
    for number, mask in enumerate(sorted((folder / "masks").iterdir())):
        Image.open(mask).save(folder / "masks" / f"{number:03d}.jpg")
        mask.unlink()
    assert "One that ends in .jpg is there; masks are PNG files. And 3 more" in rss_env("check", folder).out


def test_check_and_convert_take_a_manifest(rss_env: Callable[..., Outcome], tmp_path: Path):
    root = tiny_folder(tmp_path / "data")
    lines = [f"images/{i:03d}.png,masks/{i:03d}.png,{'train' if i < 3 else 'val'}" for i in range(4)]
    (root / "list.csv").write_text("\n".join(["image,mask,split", *lines]))
    (report,) = rss_env("check", root / "list.csv", "--json").json
    assert report["found"] == "manifest list.csv"
    assert [(split["split"], split["images"], split["masks"]) for split in report["splits"]] == [
        ("train", 3, 3),
        ("val", 1, 1),
    ]
    outcome = rss_env("convert", root / "list.csv", tmp_path / "out")
    assert outcome.out.startswith(f"{tmp_path / 'out'}: 4 images, 4 masks, 3 classes; train 3, val 1.")
    (root / "list.txt").touch()
    assert_error(rss_env("check", root / "list.txt"), "a manifest ends in .jsonl, .ndjson, .csv")


def test_convert_refuses_what_it_must_not_write(rss_env: Callable[..., Outcome], tmp_path: Path):
    folder = tiny_folder(tmp_path / "data")
    assert_error(rss_env("convert", folder, folder / "inside"), "which is only read")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert_error(rss_env("convert", folder, tmp_path / "full"), "full is not empty")
    assert_error(rss_env("convert", folder, tmp_path / "full" / "file"), "is a file")
    assert_error(rss_env("convert", "Shapes", tmp_path / "shapes"), "Shapes is procedural")
    for name in ("VOC", "PascalContext"):
        dataset_kwargs(name, tmp_path / "two")
    assert_error(rss_env("convert", tmp_path / "two", tmp_path / "out"), "VOC, PascalContext")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "full", "two"]


def test_render_shows_photos_without_masks(rss_env: Callable[..., Outcome], tmp_path: Path):
    folder, _ = own_names(tmp_path / "data")
    words = ("--root", folder, "-o", tmp_path / "out.png", "--image-size", 30, 40, "--env-kwargs")
    photos = '{"images": "photos/*.JPEG", "num_classes": 3}'
    outcome = rss_env("render", "Folder", *words, photos)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.rstrip().endswith("there are no masks, so no target is shown")
    assert rss_env("render", "Folder", *words, photos, "--label-map", "random").code == 0
    outcome = rss_env("render", "Folder", *words, photos, "--label-map", "target")
    assert_error(outcome, "--label-map target needs masks, and Folder in ")
    assert_error(rss_env("render", "RSS-Folder-PixelReward-v0", *words, photos), "a pixel-level id needs masks")
    assert_error(rss_env("render", "Folder", *words, '{"images": "photos/*.JPEG"}'), "pass num_classes=")


def test_every_layout_below_a_folder_is_checked(rss_env: Callable[..., Outcome], tmp_path: Path):
    for name in ("VOC", "PascalContext", "Cityscapes"):
        dataset_kwargs(name, tmp_path)
    assert [report["dataset"] for report in rss_env("check", tmp_path, "--json").json] == [
        "VOC",
        "PascalContext",
        "Cityscapes",
    ]


def test_a_procedural_data_set_is_checked_by_generating_it(rss_env: Callable[..., Outcome]):
    words = ("check", "Shapes", "--env-kwargs", '{"num_images": 3, "num_classes": 4}', "--json")
    (report,) = rss_env(*words).json
    assert [(split["split"], split["images"]) for split in report["splits"]] == [("train", 3), ("val", 3), ("test", 3)]
    assert [len(split["classes"]) for split in report["splits"]] == [4, 4, 4]
    assert report["root"] is None


def test_check_of_what_is_not_there_says_what_was_expected(rss_env: Callable[..., Outcome], tmp_path: Path):
    assert_error(rss_env("check", tmp_path), str(tmp_path), "images/ID.jpg", "VOCdevkit/VOC2012/JPEGImages")
    assert_error(rss_env("check", tmp_path / "nowhere"), f"There is no folder {tmp_path / 'nowhere'}.")
    assert_error(rss_env("check", "VOC", "--root", tmp_path), "VOC was not found", "VOCdevkit/VOC2012/JPEGImages")
    folder = tiny_folder(tmp_path / "data")
    assert_error(rss_env("check", folder, "--split", "holdout"), "'holdout'", "train, val")
    assert_error(rss_env("check", folder, "--env-kwargs", "{classes: 3}"), "--env-kwargs", "JSON")
    assert_error(rss_env("check", folder, "--env-kwargs", "[3]"), "--env-kwargs", "object")
    assert_error(rss_env("check", folder, "--env-kwargs", '{"root": "x"}'), "--env-kwargs", "'root'", "num_classes")


@pytest.mark.parametrize("label_map", ["target", "random", "background", "none"])
def test_render_writes_the_picture_of_the_environment(label_map: str, rss_env: Callable[..., Outcome], tmp_path: Path):
    root, out = dataset_kwargs("VOC", tmp_path / "data")["root"], tmp_path / "new" / "out.png"
    env_id = "RSS-VOC-PixelReward-v0"
    words = ("--root", root, "--split", "val", "--image-size", 40, 48, "--index", 2, "--seed", 5)
    outcome = rss_env("render", env_id, "-o", out, *words, "--label-map", label_map)
    assert (outcome.code, outcome.err) == (0, "")
    assert "image 2 of VOC's split val" in outcome.out

    env = gym.make(env_id, root=root, split="val", image_size=(40, 48), expose_target=True, render_mode="rgb_array")
    env.action_space.seed(5)
    _, info = env.reset(seed=5, options={"index": 2})
    actions = {
        "target": np.where(info["target"] == 255, 0, info["target"]),
        "random": env.action_space.sample(),
        "background": np.zeros((40, 48), int),
    }
    if label_map in actions:
        env.step(actions[label_map])
    with Image.open(out) as picture:
        np.testing.assert_array_equal(np.asarray(picture), env.render())


def test_render_hides_the_target_where_asked(rss_env: Callable[..., Outcome], tmp_path: Path):
    words = ("--image-size", 32, 32, "--env-kwargs", '{"num_images": 4}', "--label-map", "background")
    sizes = []
    for further in ((), ("--no-expose-target",)):
        assert rss_env("render", "Shapes", "-o", tmp_path / "out.png", *words, *further).code == 0
        with Image.open(tmp_path / "out.png") as picture:
            sizes.append(picture.width)
    assert sizes[0] - sizes[1] == 2 * (256 + 12)


WRONG_RENDERS: list[tuple[list[Any], list[str]]] = [
    (["-o", "out.xyz"], ["out.xyz", ".png"]),
    (["-o", "out"], ["out", ".png"]),
    (["-o", "out.png", "--no-expose-target"], ["--label-map target", "--no-expose-target"]),
    (["-o", "out.png", "--index", 4], ["'index'", "0 to 3"]),
    (["-o", "out.png", "--split", "holdout"], ["'holdout'", "train, val, test"]),
    (["-o", "out.png", "--image-size", 0, 5], ["image_size", "(0, 5)"]),
    (["-o", "out.png", "--env-kwargs", '{"moon": 3}'], ["'moon'", "num_classes"]),
    (["-o", "out.png", "--env-kwargs", '{"reward": "moonlight"}'], ["'moonlight'", "mean_iou"]),
]


@pytest.mark.parametrize(("words", "fragments"), WRONG_RENDERS, ids=lambda value: " ".join(map(str, value)))
def test_a_picture_that_cannot_be_made_is_an_error(
    words: list[Any],
    fragments: list[str],
    rss_env: Callable[..., Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    given = [] if "--env-kwargs" in words else ["--env-kwargs", '{"num_images": 4}']
    assert_error(rss_env("render", "Shapes", *words, *given), *fragments)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_written_is_an_error(rss_env: Callable[..., Outcome], tmp_path: Path):
    (tmp_path / "file").touch()
    outcome = rss_env("render", "Shapes", "-o", tmp_path / "file" / "out.png", "--env-kwargs", '{"num_images": 4}')
    assert_error(outcome, f"Cannot write {tmp_path / 'file' / 'out.png'}")


def test_download_fetches_into_root_and_says_where(
    rss_env: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = []

    def fetch(name: str, root: str, *, mirror: str | None, progress: bool) -> Path:
        calls.append((name, root, mirror, progress))
        return tmp_path / "VOCdevkit"

    monkeypatch.setattr("rss_env.datasets.download.download", fetch)
    outcome = rss_env("download", "voc2012", "--root", tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert str(tmp_path / "VOCdevkit") in outcome.out
    assert f"rss-env check VOC --root {tmp_path}" in outcome.out
    assert rss_env("download", "VOC", "--no-progress", "--mirror", "http://localhost/voc.tar").code == 0
    assert calls == [("VOC", str(tmp_path), None, True), ("VOC", "data", "http://localhost/voc.tar", False)]


def test_a_download_that_fails_says_why(rss_env: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch):
    def fetch(*words: object, **options: object) -> Path:
        raise DatasetError("The server is on holiday.")

    monkeypatch.setattr("rss_env.datasets.download.download", fetch)
    assert_error(rss_env("download", "VOC"), "The server is on holiday.")


def test_a_data_set_that_cannot_be_fetched_prints_the_steps(rss_env: Callable[..., Outcome], tmp_path: Path):
    by_hand = [name for name in PHOTOS if not DATASETS[name].info.archives]
    assert "Cityscapes" in by_hand
    for name in by_hand:
        outcome = rss_env("download", name, "--root", tmp_path / "data")
        assert_error(outcome)
        assert " ".join(DATASETS[name].info.steps.split()) in " ".join(outcome.err.split())
    assert not (tmp_path / "data").exists()
    assert_error(rss_env("download", "Shapes"), "procedural")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_complete_the_commands(shell: str, rss_env: Callable[..., Outcome]):
    outcome = rss_env("--tyro-print-completion", shell)
    assert outcome.code == 0
    for word in ("list", "info", "check", "render", "download", "--label-map", "--json"):
        assert word in outcome.out
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=outcome.out, text=True, check=True)


def test_a_script_that_cannot_be_written_is_an_error(rss_env: Callable[..., Outcome], tmp_path: Path):
    file = tmp_path / "nowhere" / "rss-env"
    assert_error(rss_env("--tyro-write-completion", "bash", file), str(file))


def test_words_that_are_not_understood_end_with_2_and_a_hint(rss_env: Callable[..., Outcome]):
    for words in ([], ["moon"], ["info"], ["list", "--moon"], ["render", "Shapes"], ["check", "x", "--split"]):
        outcome = rss_env(*words)
        assert outcome.code == 2
        assert outcome.out == ""
        assert "Traceback" not in outcome.err
        assert words == ["check", "x", "--split"] or "--help" in outcome.err


def test_help_describes_every_command(rss_env: Callable[..., Outcome]):
    outcome = rss_env("--help")
    assert outcome.code == 0
    for name in ("list", "info", "check", "render", "download"):
        assert re.search(rf"• {name} +\w", outcome.out)
        assert rss_env(name, "--help").code == 0


def test_an_interrupted_command_ends_quietly(rss_env: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch):
    def interrupt(*words: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rss_env.cli.commands.tyro.extras.subcommand_cli_from_dict", interrupt)
    assert rss_env("list") == Outcome(130, "", "")


def test_without_the_extra_the_command_says_how_to_install_it(tmp_path: Path):
    for library in ("tyro", "rich", "tqdm"):
        code = f"import sys; sys.modules[{library!r}] = None; from rss_env.cli import main; sys.exit(main(['list']))"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"error: rss-env needs {library}, which is not installed: pip install 'rss-env[cli]'\n"


def test_a_piped_process_gets_plain_uncut_text(tmp_path: Path):
    done = process("check", break_and_return(tmp_path / ("long" * 40)))
    assert (done.returncode, done.stderr) == (1, "")
    assert "\x1b" not in done.stdout
    assert sum(line.startswith("problem: ") for line in done.stdout.splitlines()) == 10
    assert "long" * 40 + "/masks/000.png is missing" in done.stdout


def break_and_return(folder: Path) -> Path:
    break_files(folder)
    return folder


@pytest.mark.parametrize("words", ["info ADE20K", "list --json"])
def test_a_reader_that_leaves_early_causes_no_noise(words: str):
    command = f"{{ sleep 0.1; {sys.executable} -m rss_env {words}; }} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.stderr == ""
    assert done.returncode == 141


def test_list_starts_without_torch(tmp_path: Path):
    code = "import sys; from rss_env.cli import main; main(['list']); print([m for m in sys.modules if m == 'torch'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.count("RSS-") == len(ENV_IDS)


def test_the_entry_point_is_the_module_that_runs():
    done = process("list", "--json")
    assert [row["id"] for row in json.loads(done.stdout)] == list(ENV_IDS)
    assert find_dataset("voc2012") == "VOC"


def test_the_script_finds_a_reward_in_the_current_folder(tmp_path: Path):
    """A script has its own folder on its path, not the current one as ``python -m`` has."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rss-env").write_text("import sys\nfrom rss_env.cli import main\nsys.exit(main())\n")
    (tmp_path / "my_scores.py").write_text("def judge(image, label_map, target):\n    print('asked')\n    return 0.5\n")
    options = json.dumps({"num_images": 2, "reward": "my_scores:judge"})
    command = ["bin/rss-env", "render", "Shapes", "-o", "x.png", "--env-kwargs", options]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("asked\nx.png: image ")
