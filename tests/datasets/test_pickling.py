"""Pickling a data set sends how to load it, not its arrays; copying shares them."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rss_env.datasets import DATASETS, SegmentationDataset, load_dataset
from rss_env.errors import DatasetNotFoundError
from tests.trees import dataset_kwargs

ROOT = Path(__file__).parents[2]


def _load(name: str, folder: Path) -> SegmentationDataset:
    return load_dataset(name, split="val", image_size=(64, 96), resize="crop", **dataset_kwargs(name, folder))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", DATASETS)
def test_a_pickle_is_small_and_gives_the_same_data_set(tmp_path: Path, name: str, protocol: int):
    data = _load(name, tmp_path)
    sent = pickle.dumps(data, protocol)
    again = pickle.loads(sent)
    assert len(sent) < 10_000 < data.images.nbytes
    np.testing.assert_array_equal(again.images, data.images)
    np.testing.assert_array_equal(again.targets, data.targets)
    np.testing.assert_array_equal(again.palette, data.palette)
    assert again.recipe.keywords == data.recipe.keywords
    for field in ("name", "split", "ids", "class_names"):
        assert getattr(again, field) == getattr(data, field)


def test_another_process_unpickles_the_same_data_set(tmp_path: Path):
    sets = [_load("Folder", tmp_path), _load("Shapes", tmp_path)]
    code = (
        "import hashlib, pickle, sys\n"
        "for data in pickle.load(sys.stdin.buffer):\n"
        "    print(hashlib.sha256(data.images.tobytes() + data.targets.tobytes()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(sets), capture_output=True, check=True, cwd=ROOT
    )
    expected = [hashlib.sha256(data.images.tobytes() + data.targets.tobytes()).hexdigest() for data in sets]
    assert done.stdout.decode().split() == expected


def test_a_data_set_that_load_dataset_did_not_make_cannot_be_pickled(tmp_path: Path):
    data = dataclasses.replace(_load("Folder", tmp_path), recipe=None)
    with pytest.raises(TypeError, match="Only a data set from load_dataset can be pickled"):
        pickle.dumps(data)


@pytest.mark.parametrize("name", DATASETS)
def test_copies_share_the_arrays(tmp_path: Path, name: str):
    data = _load(name, tmp_path)
    for twin in (copy.copy(data), copy.deepcopy(data), copy.deepcopy({"nested": [data]})["nested"][0]):
        assert twin.images is data.images
        assert twin.targets is data.targets


def test_unpickling_where_the_photos_are_gone_says_so(tmp_path: Path):
    sent = pickle.dumps(_load("CamVid", tmp_path / "gone"))
    shutil.rmtree(tmp_path / "gone")
    with pytest.raises(DatasetNotFoundError, match=r"CamVid was not found: .*gone does not exist"):
        pickle.loads(sent)
