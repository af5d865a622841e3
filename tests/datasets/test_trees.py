"""What holds for every registered data set, on its tiny tree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rss_env.datasets import DATASETS, IGNORE_INDEX, load_dataset
from tests.trees import WRITERS, dataset_kwargs


def test_every_data_set_has_a_tiny_tree_and_every_tree_a_data_set():
    assert set(WRITERS) == set(DATASETS)


def test_a_data_set_without_a_tiny_tree_fails_loudly(tmp_path: Path):
    with pytest.raises(LookupError, match=r"'Mapillary'.*add a function.*tests/trees.py.*VOC"):
        dataset_kwargs("Mapillary", tmp_path)


@pytest.mark.parametrize("resize", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", DATASETS)
def test_arrays_have_the_promised_shapes_types_and_labels(tmp_path: Path, name: str, split: str, resize: str):
    data = load_dataset(name, split=split, image_size=(24, 40), resize=resize, **dataset_kwargs(name, tmp_path))
    count = len(data)
    assert count > 1
    assert (data.name, data.split, data.image_size) == (name, split, (24, 40))
    assert (data.images.shape, data.images.dtype) == ((count, 24, 40, 3), np.uint8)
    assert (data.targets.shape, data.targets.dtype) == ((count, 24, 40), np.uint8)
    assert set(np.unique(data.targets)) <= {*range(data.num_classes), IGNORE_INDEX}
    assert np.any(data.targets != IGNORE_INDEX, axis=(1, 2)).all()
    assert len(set(data.ids)) == count
    assert len(set(data.class_names)) == data.num_classes
    assert (data.palette.shape, data.palette.dtype) == ((data.num_classes, 3), np.uint8)
    assert not data.images.flags.writeable
    assert not data.targets.flags.writeable


@pytest.mark.parametrize("name", DATASETS)
def test_the_default_size_is_the_one_of_the_registry(tmp_path: Path, name: str):
    data = load_dataset(name, **dataset_kwargs(name, tmp_path))
    assert (data.image_size, data.split) == (DATASETS[name].image_size, "train")


@pytest.mark.parametrize("name", DATASETS)
def test_train_and_val_share_no_image(tmp_path: Path, name: str):
    kwargs = dataset_kwargs(name, tmp_path)
    train, val = (load_dataset(name, split=split, image_size=(24, 40), **kwargs) for split in ("train", "val"))
    assert not {i.tobytes() for i in train.images} & {i.tobytes() for i in val.images}


@pytest.mark.parametrize("name", DATASETS)
def test_the_recipe_loads_the_same_data_set_again(tmp_path: Path, name: str):
    data = load_dataset(name, split="val", image_size=(24, 40), **dataset_kwargs(name, tmp_path))
    again = data.recipe()
    np.testing.assert_array_equal(again.images, data.images)
    np.testing.assert_array_equal(again.targets, data.targets)
    assert again.ids == data.ids
