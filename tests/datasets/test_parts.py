"""Parts of a split by Python's slices: the images that the whole split has at those places, and nothing else."""

from __future__ import annotations

import pickle

import gymnasium as gym
import numpy as np
import pytest

import rss_env  # noqa: F401  (registers the ids)
from rss_env.datasets import load_dataset
from rss_env.errors import DatasetError, UnknownSplitError

OPTIONS = {"image_size": (16, 20), "num_images": 11}


@pytest.mark.parametrize(
    ("part", "chosen"),
    [
        ("[:4]", slice(None, 4)),
        ("[3:7]", slice(3, 7)),
        ("[9:100]", slice(9, 100)),
        ("[::5]", slice(None, None, 5)),
        ("[1:10:4]", slice(1, 10, 4)),
        ("[:]", slice(None)),
    ],
)
def test_a_part_has_the_images_of_the_whole_split_at_those_places(part: str, chosen: slice) -> None:
    whole = load_dataset("Shapes", split="val", **OPTIONS)
    some = load_dataset("Shapes", split=f"val{part}", **OPTIONS)
    for data in (some, pickle.loads(pickle.dumps(some))):
        np.testing.assert_array_equal(data.images, whole.images[chosen])
        np.testing.assert_array_equal(data.targets, whole.targets[chosen])
        assert data.ids == whole.ids[chosen]
        assert data.split == f"val{part}"
    assert not some.images.flags.writeable


@pytest.mark.parametrize("part", ["[11:]", "[:0]", "[5:5]", "[::0]"])
def test_a_part_without_images_is_refused(part: str) -> None:
    with pytest.raises(DatasetError, match=r"holds no image: the split of Shapes has 11\."):
        load_dataset("Shapes", split=f"val{part}", **OPTIONS)


@pytest.mark.parametrize("split", ["nothing[:4]", "val[4]", "val[:-1]", "val[:4", "[:4]", "val[a:b]"])
def test_what_is_no_part_of_a_split_is_an_unknown_split(split: str) -> None:
    with pytest.raises(UnknownSplitError, match="valid: train, val, test"):
        load_dataset("Shapes", split=split, **OPTIONS)


@pytest.mark.parametrize("device", [None, "cpu"])
def test_an_environment_shows_the_images_of_its_part_only(device: str | None) -> None:
    on = {} if device is None else {"device": device}
    envs = gym.make_vec("RSS-Shapes-ImageReward-v0", 16, split="train[2:11:4]", **OPTIONS, **on)
    assert envs.metadata["num_images"] == 3
    whole = load_dataset("Shapes", split="train", **OPTIONS).images
    images, infos = envs.reset(seed=0)
    indices = np.asarray(infos["index"])
    assert set(indices.tolist()) == {0, 1, 2}
    np.testing.assert_array_equal(np.asarray(images), whole[2 + 4 * indices])
