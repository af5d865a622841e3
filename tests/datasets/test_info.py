"""The card of every data set: complete, and true of what its loader gives."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest

from rss_env.datasets import DATASETS, find_dataset, load_dataset
from rss_env.datasets.info import DatasetInfo
from rss_env.errors import DatasetError, DatasetNotFoundError, OptionError
from tests.trees import dataset_kwargs

PUBLISHED = [name for name, entry in DATASETS.items() if entry.locate and name != "Folder"]
TOTALS = {  # split -> images, as their authors count them
    "VOC": {"trainval": 2913, "trainaug": 10582},
    "PascalContext": {"train + val": 10103},
    "Cityscapes": {"train + val + test": 5000},
    "ADE20K": {"train + val": 22210},
    "COCOStuff": {"train + val": 123287},
    "CamVid": {"train + val + test": 701},
}


@pytest.mark.parametrize("name", DATASETS)
def test_every_card_says_what_it_is_and_under_which_terms(name: str):
    info = DATASETS[name].info
    assert info.title
    assert info.licence.endswith(".")
    assert info.ignore
    assert not info.ignore.endswith(".")  # it is shown as the end of a row, not as a sentence
    assert bool(info.layout) == (DATASETS[name].locate is not None)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_data_set_has_a_home_a_citation_and_a_way_to_get_it(name: str):
    info = DATASETS[name].info
    assert urlparse(info.homepage).scheme in ("http", "https")
    assert re.fullmatch(r'.+, ".+", .+ \d{4}', info.citation)
    assert info.archives or info.steps
    assert info.class_names
    assert info.splits


@pytest.mark.parametrize("name", DATASETS)
def test_every_class_has_a_name_and_a_colour_of_its_own(name: str):
    info = DATASETS[name].info
    assert len(set(info.class_names)) == len(info.class_names)
    if not info.class_names:
        assert info.palette is None
        return
    assert info.palette.dtype == np.uint8
    assert info.palette.shape == (len(info.class_names), 3)
    assert len(np.unique(info.palette, axis=0)) == len(info.class_names)


@pytest.mark.parametrize(
    ("name", "number", "known"),
    [
        ("VOC", 21, {0: "background", 11: "diningtable", 15: "person", 20: "tvmonitor"}),
        ("PascalContext", 59, {0: "aeroplane", 19: "tvmonitor", 20: "bag", 51: "bedclothes", 58: "wood"}),
        ("Cityscapes", 19, {0: "road", 6: "traffic light", 13: "car", 18: "bicycle"}),
        ("ADE20K", 150, {0: "wall", 12: "person", 44: "chest of drawers", 136: "traffic light", 149: "flag"}),
        ("COCOStuff", 171, {0: "person", 79: "toothbrush", 80: "banner", 86: "cabinet", 170: "wood"}),
        ("CamVid", 11, {0: "sky", 4: "pavement", 8: "car", 10: "bicyclist"}),
    ],
)
def test_classes_have_the_names_and_the_order_of_their_authors(name: str, number: int, known: dict[int, str]):
    names = DATASETS[name].info.class_names
    assert len(names) == number
    assert {index: names[index] for index in known} == known
    assert all(re.fullmatch(r"[a-z]+([ -][a-z]+)*", one) for one in names)


@pytest.mark.parametrize("name", [n for n, entry in DATASETS.items() if entry.info.class_names])
def test_a_card_agrees_with_the_loader(name: str, tmp_path: Path):
    data = load_dataset(name, split="train", image_size=(24, 24), **dataset_kwargs(name, tmp_path))
    assert data.class_names == DATASETS[name].info.class_names
    np.testing.assert_array_equal(data.palette, DATASETS[name].info.palette)


def test_pascal_context_with_background_has_one_class_more_than_its_card(tmp_path: Path):
    info = DATASETS["PascalContext"].info
    kwargs = dataset_kwargs("PascalContext", tmp_path)
    data = load_dataset("PascalContext", image_size=(8, 8), background=True, **kwargs)
    assert data.class_names == ("background", *info.class_names)
    assert data.num_classes == 60
    assert "with background=True it is class 0 of 60" in info.ignore


@pytest.mark.parametrize("name", [n for n in DATASETS if n != "Folder"])
def test_the_splits_of_a_card_are_those_of_the_loader(name: str, tmp_path: Path):
    splits = set(DATASETS[name].info.splits)
    with pytest.raises(DatasetError, match="Unknown split") as caught:
        load_dataset(name, split="no such split", **dataset_kwargs(name, tmp_path))
    valid = set(re.search(r"valid: (.*)\.$", str(caught.value))[1].split(", "))
    assert {"train", "val"} <= splits
    assert valid == splits - ({"trainaug"} if name == "VOC" else set())  # the tree of the tests is not augmented


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_numbers_of_images_are_the_published_ones(name: str):
    splits = DATASETS[name].info.splits
    for parts, total in TOTALS[name].items():
        assert sum(splits[part] for part in parts.split(" + ")) == total
    if name == "VOC":
        assert splits["train"] + splits["val"] == splits["trainval"]


def test_the_numbers_of_images_of_shapes_are_those_it_draws():
    splits = DATASETS["Shapes"].info.splits
    drawn = {split: len(load_dataset("Shapes", split=split, image_size=(8, 8))) for split in splits}
    assert drawn == dict(splits)


@pytest.mark.parametrize("name", [n for n, entry in DATASETS.items() if entry.info.archives])
def test_an_archive_has_an_address_a_checksum_and_a_place_in_the_layout(name: str):
    info = DATASETS[name].info
    for archive in info.archives:
        for url in (archive.url, *archive.mirrors):
            address = urlparse(url)
            assert address.scheme in ("http", "https")
            assert address.path.endswith((".tar", ".zip"))
        assert len({archive.url, *archive.mirrors}) == 1 + len(archive.mirrors)
        kind, digest = archive.checksum.split(":")
        assert re.fullmatch(f"[0-9a-f]{{{2 * hashlib.new(kind).digest_size}}}", digest)
        assert 0.1 < archive.gigabytes < 100
        assert any(line.strip().startswith(f"{archive.provides}/") for line in info.layout.splitlines())
    assert len({archive.url for archive in info.archives}) == len(info.archives)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_missing_data_set_names_the_command_that_gets_it(name: str, tmp_path: Path):
    root = tmp_path / "my data"
    fetched = bool(DATASETS[name].info.archives)
    for given, shown in ((root, f"'{root}'"), (None, "data")):
        command = (
            f"To get it: rss-env download {name} --root {shown}" if fetched else f"How to get it: rss-env info {name}"
        )
        with pytest.raises(DatasetNotFoundError) as caught:
            load_dataset(name, root=given)
        assert str(caught.value).splitlines()[-1] == command


def test_photos_of_ones_own_are_gotten_by_no_command_but_found_by_one(tmp_path: Path):
    for root, shown in ((tmp_path / "missing", tmp_path / "missing"), (None, "data")):
        with pytest.raises(DatasetNotFoundError) as caught:
            load_dataset("Folder", root=root)
        assert str(caught.value).splitlines()[-1] == f"Where your files have other names: rss-env check {shown}"
        assert "get it" not in str(caught.value)


def test_data_sets_are_found_by_name_in_any_case_and_by_alias():
    assert {find_dataset(word) for word in ("VOC", "voc", "voc2012", "VOC2012")} == {"VOC"}
    for name, entry in DATASETS.items():
        for word in (name, name.upper(), *entry.info.aliases):
            assert find_dataset(word) == name


def test_no_word_means_two_data_sets():
    words = [word for name, entry in DATASETS.items() for word in (name.lower(), *entry.info.aliases)]
    assert len(set(words)) == len(words)
    assert words == [word.lower() for word in words]


def test_an_unknown_name_lists_the_valid_ones():
    names = ", ".join(DATASETS)
    with pytest.raises(OptionError, match=rf"^Unknown data set 'voc2007'; valid: {names}\.$"):
        find_dataset("voc2007")


@pytest.mark.parametrize(
    ("palette", "message"),
    [
        (
            np.zeros((2, 3)),
            r"of 'Mine': the colour of class 0 must be three integers of 0\.\.255, got \[0\.0, 0\.0, 0\.0\]",
        ),
        ([(0, 0, 0), ("1", "2", "3")], r"the colour of class 1 must be .*, got \('1', '2', '3'\)\.$"),
        ([(0, 0, 0), (0, 0, 256)], r"class 1 must be .*, got \(0, 0, 256\)\.$"),
        (np.full((2, 3), -1), r"class 0 must be .*, got \[-1, -1, -1\]\.$"),
        (np.zeros((2, 4), np.uint8), r"class 0 must be three integers"),
        (np.zeros((3, 3), np.uint8), r"must be 2 colours, one per class, got 3\.$"),
        ("red", r"must be 2 colours, one per class, got 'red'\.$"),
        (np.zeros((), np.uint8), r"must be 2 colours"),
    ],
    ids=str,
)
def test_a_card_with_a_bad_palette_is_refused_with_the_entry(palette: object, message: str):
    with pytest.raises(DatasetError, match=message):
        DatasetInfo(title="Mine", class_names=("a", "b"), palette=palette)


@pytest.mark.parametrize("form", [np.int64, np.uint8, list, tuple])
def test_integers_of_any_form_are_a_palette(form: object):
    colours = [[0, 1, 2], [253, 254, 255]]
    given = (
        np.array(colours, form) if isinstance(form, type) and issubclass(form, np.generic) else form(map(form, colours))
    )
    palette = DatasetInfo(title="Mine", class_names=("a", "b"), palette=given).palette
    assert palette.dtype == np.uint8
    assert palette.tolist() == colours
