"""The tasks that algorithms are compared on: an environment, its splits, and what may be spent on it.

An algorithm learns on ``train``; what is chosen, also by a person, is chosen on ``val``; ``test`` is reported.
``docs/leaderboard.md`` lists the tasks for readers.

Every task has the three splits, also where the data set lacks one:

- CamVid as published: ``val`` is 6.7 seconds of one drive (0016E5), and ``train`` has the seconds before and after.
- CamVid by sequence: the frames of 0016E5 that are in ``train`` go to ``val`` and all others of ``train`` stay; the
  published ``val``, 101 frames of 6.7 of these seconds, is left out; ``test`` is the published one.
- VOC: the augmented training split, 10,582 images; of a folder with another number of them the task is called by it,
  as in ``voc-3091``, and is a task of its own. ``val`` is cut in two by its IDs: where the SHA-256 of an ID is even,
  the image is in ``val``, else in ``test``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.results_file import replacing
from rss_env.datasets import voc as voc_layout
from rss_env.datasets.cache import cache_dir
from rss_env.datasets.files import root_path
from rss_env.datasets.layout import find_home
from rss_env.datasets.split_files import read_split
from rss_env.errors import DatasetNotFoundError, OptionError

REVISITED, FEW_VISITS = "revisited", "few_visits"
TRACKS = (REVISITED, FEW_VISITS)
BUDGETS = ("small", "large")
VISITS = 4  # of an image in the track few_visits, at most
VOC_IMAGES = 10_582  # of the whole split trainaug
HELD_OUT = "0016E5"  # the drive of CamVid that is val of camvid-sequences


@dataclass(frozen=True)
class Task:
    """An environment of a comparison.

    Attributes:
        name: in results.
        env_id: id.
        image_size: height and width in pixels.
        budgets: reward queries by the name of the budget, ``"small"`` and ``"large"``.
        options: further arguments of the environment, JSON values.
        train_split: that is learned on; the others are ``"val"`` and ``"test"``.
        metric: what is ranked by and told at a report: ``"miou"``, or ``"score"``, the mean score of one label map an
            image.
        tracks: in which it is offered.
        labels: by the name of the budget, how many label maps it would pay for if all were used that the differences
            between the scores of a visit tell of right pixels (``docs/information.md``); missing where that is as many
            as there are, or not known.
    """

    name: str
    env_id: str
    image_size: tuple[int, int]
    budgets: Mapping[str, int]
    options: Mapping[str, Any] = field(default_factory=dict)
    train_split: str = "train"
    metric: Literal["miou", "score"] = "miou"
    tracks: tuple[str, ...] = TRACKS
    labels: Mapping[str, int] = field(default_factory=dict)

    @property
    def env_options(self) -> dict[str, Any]:
        """Arguments of the environment, without the split."""
        return {"image_size": self.image_size, **self.options}


@dataclass(frozen=True)
class Setting:
    """A task in one of its tracks with one of its budgets: what results are ranked within.

    Attributes:
        task: environment and splits.
        track: ``"revisited"``: images come as often as they are drawn, and infos say their index; ``"few_visits"``: no
            image comes more than ``VISITS`` times, and no index is told.
        budget: name of the budget.
    """

    task: Task
    track: str = REVISITED
    budget: str = "small"

    @property
    def queries(self) -> int:
        """Reward queries in all."""
        return self.task.budgets[self.budget]

    @property
    def labels(self) -> int | None:
        """Label maps that the budget would pay for; None for all, and where it is not known."""
        return self.task.labels.get(self.budget)

    @property
    def names(self) -> tuple[str, str, str]:
        """Task, track and budget, as in results."""
        return self.task.name, self.track, self.budget


SHAPES = "RSS-Shapes-ImageReward-v0"
SHAPES_32 = Task("shapes-32", SHAPES, (32, 32), {"small": 32_000, "large": 256_000}, labels={"small": 900})
SHAPES_64 = Task("shapes-64", SHAPES, (64, 64), {"small": 64_000, "large": 256_000}, labels={"small": 1_080})
CAMVID = Task("camvid", "RSS-Folder-ImageReward-v0", (48, 64), {"small": 64_000, "large": 256_000})
CAMVID_SEQUENCES = Task("camvid-sequences", "RSS-Folder-ImageReward-v0", (48, 64), {"small": 64_000, "large": 256_000})
VOC = Task("voc", "RSS-VOC-ImageReward-v0", (64, 64), {"small": 64_000, "large": 256_000}, train_split="trainaug")
CRAFTER = Task("crafter", "RSS-Crafter-OutcomeReward-v0", (56, 72), {"small": 32_000, "large": 128_000}, metric="score")
TASKS = {task.name: task for task in (SHAPES_32, SHAPES_64, CAMVID, CAMVID_SEQUENCES, VOC, CRAFTER)}
FOLDERS = {"camvid": "camvid", "camvid-sequences": "camvid", "voc": "voc"}  # the flag that names the data of a task


def find_tasks(names: Sequence[str], camvid: str | None = None, voc: str | None = None) -> tuple[list[Task], list[str]]:
    """The tasks with these names, ready to be made.

    Args:
        names: keys of ``TASKS``; ``"all"`` is every task whose data there is.
        camvid: folder of CamVid, in the layout of Folder.
        voc: folder of PASCAL VOC 2012 with the split trainaug.

    Returns:
        The tasks, and a line for each that is left out because a library is missing.

    Raises:
        OptionError: an unknown name, a data folder that is missing, or one that no task needs.
        DatasetError: a data set is not in its folder.
    """
    folders = {"camvid": camvid, "voc": voc}
    for name in names:
        if name not in (*TASKS, "all"):
            raise OptionError(f"Unknown task {name!r}; valid: {', '.join((*TASKS, 'all'))}.")
        if name in FOLDERS and folders[FOLDERS[name]] is None:
            raise OptionError(f"--tasks {name} needs --{FOLDERS[name]} FOLDER, where the data is.")
    if "all" in names:
        names = [name for name in TASKS if name not in FOLDERS or folders[FOLDERS[name]] is not None]
    for flag, folder in folders.items():
        users = [name for name, needed in FOLDERS.items() if needed == flag]
        if folder is not None and not set(users) & set(names):
            raise OptionError(f"--{flag} is for --tasks {' or '.join(users)}; add one, or leave --{flag} out.")
    left_out = [
        f"Task {name} is left out: it needs the library crafter (pip install 'rss-env[crafter]')."
        for name in names
        if name == "crafter" and importlib.util.find_spec("crafter") is None
    ]
    chosen = [name for name in dict.fromkeys(names) if not (name == "crafter" and left_out)]
    return [with_data(TASKS[name], folders.get(FOLDERS.get(name, ""))) for name in chosen], left_out


def with_data(task: Task, folder: str | None) -> Task:
    """The task with the folder of its data and, where the data set lacks one of the splits, lists of them."""
    if folder is None:
        return task
    root = root_path(folder).resolve()
    options: dict[str, Any] = {"root": str(root)}
    if task.name == "camvid-sequences":
        options["splits"] = write_splits(task.name, camvid_by_sequence(root))
    name = task.name
    if name == "voc":
        halves = voc_halves(root)
        options["splits"] = write_splits(name, halves)
        many = len(halves["trainaug"])
        name = name if many == VOC_IMAGES else f"{name}-{many}"
    return replace(task, name=name, options={**task.options, **options})


def task_of(name: str) -> Task | None:
    """The task that results name so, also where they are of a part of its data, as in ``voc-3091``; None if none is."""
    return TASKS.get("voc" if re.fullmatch(r"voc-\d+", name) else name)


def camvid_by_sequence(root: Path) -> dict[str, list[str]]:
    """CamVid's splits by sequence: split -> IDs, in the order of the published lists."""
    published = {split: read_ids(root / "splits" / f"{split}.txt") for split in ("train", "test")}
    return {
        "train": [each for each in published["train"] if not each.startswith(HELD_OUT)],
        "val": [each for each in published["train"] if each.startswith(HELD_OUT)],
        "test": published["test"],
    }


def voc_halves(root: Path) -> dict[str, list[str]]:
    """VOC's augmented training split, and its ``val`` cut in two."""
    lists = (
        find_home("VOC", root, ("VOCdevkit/VOC2012", "VOC2012", ""), voc_layout.LISTS, voc_layout.INFO)
        / voc_layout.LISTS
    )
    halves: dict[str, list[str]] = {"trainaug": read_ids(lists / "trainaug.txt"), "val": [], "test": []}
    for image_id in read_ids(lists / "val.txt"):
        halves["test" if is_odd(image_id) else "val"].append(image_id)
    return halves


def is_odd(image_id: str) -> bool:
    """Whether the SHA-256 of an ID is an odd number."""
    return hashlib.sha256(image_id.encode()).digest()[-1] % 2 == 1


def read_ids(path: Path) -> list[str]:
    """The IDs in a split file."""
    if not path.is_file():
        raise DatasetNotFoundError(f"There is no split file {path}, from which the splits of a task are made.")
    return read_split(path)


def write_splits(name: str, splits: Mapping[str, Iterable[str]]) -> str:
    """Writes split files into the cache; gives their folder, whose name holds a hash of what is in them."""
    texts = {split: "\n".join(ids) + "\n" for split, ids in splits.items()}
    digest = hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()[:16]
    folder = cache_dir().resolve() / "splits" / f"{name}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    for split, text in texts.items():
        file = folder / f"{split}.txt"
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            with replacing(file) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return str(folder)
