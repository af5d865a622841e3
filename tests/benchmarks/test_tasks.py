from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

import rss_env  # noqa: F401  (registers the ids)
from benchmarks import tasks
from benchmarks.leaderboard import report
from benchmarks.tasks import TASKS, find_tasks
from rss_env.datasets import load_dataset
from rss_env.datasets.split_files import read_split
from rss_env.errors import DatasetError, OptionError


def write_pairs(images: Path, masks: Path, ids: list[str]) -> None:
    for folder in (images, masks):
        folder.mkdir(parents=True)
    for number, image_id in enumerate(ids):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(images / f"{image_id}.jpg")
        Image.fromarray(np.full((8, 8), number % 2, np.uint8)).save(masks / f"{image_id}.png")


def write_lists(folder: Path, **splits: list[str]) -> None:
    folder.mkdir(parents=True)
    for name, ids in splits.items():
        (folder / f"{name}.txt").write_text("\n".join(ids))


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """A folder in CamVid's layout, with its drives."""
    splits = {
        "train": [f"0016E5_{n:05}" for n in (3, 9)] + [f"0006R0_{n:05}" for n in range(3)],
        "val": ["0016E5_00005", "0016E5_00006"],
        "test": ["Seq05VD_1", "0001TP_9"],
    }
    root = tmp_path / "camvid"
    write_pairs(root / "images", root / "masks", [each for ids in splits.values() for each in ids])
    write_lists(root / "splits", **splits)
    (root / "classes.json").write_text(json.dumps(["a", "b"]))
    return root


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    home = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    ids = [f"2007_{n:06}" for n in range(20)]
    write_pairs(home / "JPEGImages", home / "SegmentationClass", ids)
    (home / "SegmentationClassAug").symlink_to(home / "SegmentationClass")
    write_lists(home / "ImageSets" / "Segmentation", trainaug=ids[:6], val=ids[6:])
    return tmp_path / "voc"


def contents(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def sizes(task: tasks.Task) -> list[int]:
    """Images in train, val and test."""
    splits = (task.train_split, "val", "test")
    envs = (gym.make_vec(task.env_id, num_envs=1, split=split, **task.env_options) for split in splits)
    return [each.metadata["num_images"] for each in envs]


def test_camvid_by_sequence_has_no_drive_in_train_and_val_and_leaves_the_data_alone(camvid: Path) -> None:
    before = contents(camvid)
    published, by_sequence = find_tasks(["camvid", "camvid-sequences"], camvid=str(camvid))[0]
    assert sizes(published) == [5, 2, 2]
    assert sizes(by_sequence) == [3, 2, 2]
    lists = Path(by_sequence.options["splits"])
    drives = {split: {name[:6] for name in read_split(lists / f"{split}.txt")} for split in ("train", "val", "test")}
    assert drives == {"train": {"0006R0"}, "val": {"0016E5"}, "test": {"Seq05V", "0001TP"}}
    assert read_split(lists / "val.txt") == ["0016E5_00003", "0016E5_00009"]  # of train; val's own seconds are left out
    assert contents(camvid) == before


def test_val_of_voc_is_cut_in_two_by_a_rule_of_each_id(voc: Path) -> None:
    before = contents(voc)
    (task,), _ = find_tasks(["voc"], voc=str(voc))
    lists = Path(task.options["splits"])
    assert sizes(task) == [6, len(read_split(lists / "val.txt")), len(read_split(lists / "test.txt"))]
    halves = {split: set(read_split(lists / f"{split}.txt")) for split in ("val", "test")}
    assert halves["val"] | halves["test"] == {f"2007_{n:06}" for n in range(6, 20)}
    assert not halves["val"] & halves["test"]
    assert contents(voc) == before
    assert find_tasks(["voc"], voc=str(voc))[0] == [task]  # the same folder again
    assert tasks.is_odd("2007_000006")  # printf 2007_000006 | sha256sum ends in da7bb
    assert "2007_000006" in halves["test"]


def test_a_part_of_voc_is_a_task_of_its_own(voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (part,), _ = find_tasks(["voc"], voc=str(voc))
    assert part.name == "voc-6"
    assert tasks.task_of(part.name) == TASKS["voc"]
    assert report.title_of((part.name, "revisited", "small")) == "voc-6, revisited, small budget, 64,000 reward queries"
    monkeypatch.setattr(tasks, "VOC_IMAGES", 6)
    (whole,), _ = find_tasks(["voc"], voc=str(voc))
    assert whole.name == "voc"
    assert tasks.task_of("camvid-sequences") == TASKS["camvid-sequences"]
    assert tasks.task_of("elsewhere") is None
    assert tasks.task_of("voc-night") is None


def test_the_splits_of_a_task_are_made_anew_where_the_lists_have_changed(camvid: Path) -> None:
    first = find_tasks(["camvid-sequences"], camvid=str(camvid))[0][0]
    (camvid / "splits" / "test.txt").write_text("0001TP_9")
    second = find_tasks(["camvid-sequences"], camvid=str(camvid))[0][0]
    assert sizes(second) == [3, 2, 1]
    assert sizes(first) == [3, 2, 2]


def test_every_task_has_two_budgets_two_tracks_and_names_its_data() -> None:
    assert {name: tuple(task.budgets) for name, task in TASKS.items()} == dict.fromkeys(TASKS, ("small", "large"))
    for task in TASKS.values():
        assert 0 < task.budgets["small"] < task.budgets["large"]
        assert task.tracks == ("revisited", "few_visits")
    for name, flag in tasks.FOLDERS.items():
        with pytest.raises(OptionError, match=f"--tasks {name} needs --{flag} FOLDER"):
            find_tasks([name])
    with pytest.raises(OptionError, match="Unknown task 'moon'; valid: shapes-32, shapes-64, camvid"):
        find_tasks(["moon"])
    with pytest.raises(OptionError, match="--camvid is for --tasks camvid or camvid-sequences"):
        find_tasks(["shapes-32"], camvid="data")
    with pytest.raises(DatasetError, match="no split file"):
        find_tasks(["camvid-sequences"], camvid="/no/such/folder")


def test_the_world_is_left_out_with_a_line_where_its_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found, said = find_tasks(["all"])
    assert [task.name for task in found] == ["shapes-32", "shapes-64"]
    assert said == ["Task crafter is left out: it needs the library crafter (pip install 'rss-env[crafter]')."]
    monkeypatch.undo()
    if importlib.util.find_spec("crafter"):
        assert [task.name for task in find_tasks(["all"])[0]] == ["shapes-32", "shapes-64", "crafter"]


@pytest.mark.parametrize("num_envs", [1, 3, 8])
def test_in_epochs_every_image_comes_once_before_one_comes_again(num_envs: int) -> None:
    options = {"image_size": (8, 8), "num_images": 12, "order": "epochs", "num_envs": num_envs}
    envs = gym.make_vec("RSS-Shapes-ImageReward-v0", **options)
    infos = envs.reset(seed=5)[1]
    shown = [*infos["index"]]
    while len(shown) < 48:
        infos = envs.step(np.zeros((num_envs, 8, 8), np.uint8))[4]
        shown += [*infos["index"]]
    epochs = [shown[start : start + 12] for start in (0, 12, 24, 36)]
    assert all(Counter(epoch) == Counter(range(12)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4
    assert [*envs.reset(seed=5, options={"episode": 24 // num_envs})[1]["index"]] == shown[24 : 24 + num_envs]
    assert [*envs.reset(seed=6)[1]["index"]] != shown[:num_envs] or num_envs == 1


def test_the_option_splits_names_a_folder_of_lists_and_says_what_is_wrong(tmp_path: Path, camvid: Path) -> None:
    write_lists(tmp_path / "lists", mine=["0006R0_00001"])
    for lists in (str(tmp_path / "lists"), "../lists"):
        data = load_dataset("Folder", root=camvid, split="mine", image_size=(8, 8), splits=lists)
        assert len(data) == 1
    (tmp_path / "m.csv").write_text("image\n")
    for options, said in (
        ({"root": camvid, "splits": "no"}, f"splits='no': there is no folder {camvid / 'no'}"),
        ({"root": camvid, "splits": 3}, "splits must be a path, got 3"),
        ({"manifest": str(tmp_path / "m.csv"), "splits": "x"}, "splits goes with root="),
        ({"root": camvid, "split": "val", "splits": lists}, "valid: mine, all"),
    ):
        with pytest.raises((DatasetError, OptionError), match=re.escape(said)):
            load_dataset("Folder", **options)  # type: ignore[arg-type]
