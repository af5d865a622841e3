"""RGB masks: the palette of classes.json says which class each colour is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rss_env.datasets import load_dataset
from rss_env.datasets.check import check_dataset
from rss_env.datasets.decode import ColourError, read_mask
from rss_env.datasets.photos import Colours
from rss_env.errors import DatasetError
from tests.trees import save_mask, save_photo

SIZE = (6, 8)
COLOURS = [[128, 64, 128], [0, 0, 0], [255, 254, 253]]  # of the classes
IGNORED = [9, 9, 9]


def write(root: Path, name: str, labels: np.ndarray, **save: object) -> None:
    """A photo and its RGB mask; 255 gets the ignored colour."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(COLOURS)], table[255] = COLOURS, IGNORED
    save_photo(root / "images" / f"{name}.png", np.zeros((*labels.shape, 3), np.uint8))
    save_photo(root / "masks" / f"{name}.png", table[labels], **save)


def describe(root: Path, **further: object) -> None:
    described = {"classes": ["road", "void", "sky"], "palette": COLOURS, **further}
    (root / "classes.json").write_text(json.dumps(described))


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), SIZE)


def targets(root: Path) -> np.ndarray:
    data = load_dataset("Folder", root=root, split="all", image_size=SIZE)
    assert data.targets is not None
    return data.targets


def test_colours_become_their_classes_and_ignored_ones_255(tmp_path: Path, labels: np.ndarray):
    write(tmp_path, "a", labels)
    describe(tmp_path, ignore_colours=[IGNORED])
    np.testing.assert_array_equal(targets(tmp_path)[0], labels)


def test_masks_of_colours_and_of_numbers_may_be_mixed(tmp_path: Path, labels: np.ndarray):
    write(tmp_path, "a", labels)
    write(tmp_path, "b", labels)
    save_mask(tmp_path / "masks" / "b.png", labels)
    opaque = np.asarray(Image.open(tmp_path / "masks" / "a.png").convert("RGBA"))
    write(tmp_path, "c", labels)
    save_photo(tmp_path / "masks" / "c.png", opaque)
    describe(tmp_path, ignore_colours=[IGNORED])
    assert check_dataset("Folder", tmp_path, ["all"]).clean
    for target in targets(tmp_path):
        np.testing.assert_array_equal(target, labels)


def test_a_changed_palette_is_never_answered_from_the_cache(tmp_path: Path):
    labels = np.arange(48, dtype=np.uint8).reshape(SIZE) % 3
    write(tmp_path, "a", labels)
    describe(tmp_path)
    np.testing.assert_array_equal(targets(tmp_path)[0], labels)
    describe(tmp_path, palette=COLOURS[::-1])
    np.testing.assert_array_equal(targets(tmp_path)[0], 2 - labels)


def test_a_colour_that_is_in_no_class_is_named_with_file_and_count(tmp_path: Path, labels: np.ndarray):
    labels[0, 0] = 255
    write(tmp_path, "a", labels)
    write(tmp_path, "b", np.zeros(SIZE, np.uint8))
    describe(tmp_path)
    count = int((labels == 255).sum())
    message = (
        rf"masks/a\.png holds colours that .*classes\.json gives no class: \[9, 9, 9\] in {count} pixels\. Add them"
    )
    with pytest.raises(DatasetError, match=message):
        targets(tmp_path)
    report = check_dataset("Folder", tmp_path, ["all"])
    (finding,) = report.findings
    assert (finding.kind, finding.file) == ("problem", str(tmp_path / "masks" / "a.png"))
    assert report.splits[0].colours == {(9, 9, 9): (count, 1)}
    assert (report.splits[0].images, report.splits[0].masks) == (2, 1)


def test_without_a_palette_the_check_counts_every_colour(tmp_path: Path, labels: np.ndarray):
    write(tmp_path, "a", labels)
    write(tmp_path, "b", np.full(SIZE, 2, np.uint8))
    report = check_dataset("Folder", tmp_path, ["all"])
    assert not report.clean
    assert [finding.alike for finding in report.findings] == ["colours", "colours"]
    expected = {tuple(colour): int((labels == c).sum()) for c, colour in [*enumerate(COLOURS), (255, IGNORED)]}
    expected[255, 254, 253] += 48
    assert {colour: pixels for colour, (pixels, _) in report.splits[0].colours.items()} == expected
    assert report.splits[0].colours[255, 254, 253][1] == 2


def test_a_mask_of_very_many_colours_is_called_no_label_map(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    save_photo(tmp_path / "images" / "a.png", noise)
    save_photo(tmp_path / "masks" / "a.png", noise)
    describe(tmp_path)
    with pytest.raises(DatasetError, match=r"a\.png holds more than 4,096 colours, so it is no label map"):
        targets(tmp_path)
    report = check_dataset("Folder", tmp_path, ["all"])
    assert (len(report.findings), report.splits[0].colours) == (1, {})


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"ignore_colours": [[0, 0, 0]]}, r'the colour \[0, 0, 0\] of class 1 is in "ignore_colours" too'),
        ({"ignore_colours": [0, 0, 0]}, '"ignore_colours": the colour of class 0 must be three integers'),
        ({"ignore_colours": "black"}, "\"ignore_colours\" must be a list of colours, got 'black'"),
        ({"ignore_colours": [[0, 0, 256]]}, '"ignore_colours": the colour of class 0 must be three integers'),
    ],
)
def test_wrong_ignored_colours_are_refused(tmp_path: Path, labels: np.ndarray, further: dict, message: str):
    write(tmp_path, "a", labels)
    describe(tmp_path, **further)
    with pytest.raises(DatasetError, match=message.replace("the colour of class 0", "colour 0")):
        targets(tmp_path)


def test_ignored_colours_need_a_palette(tmp_path: Path, labels: np.ndarray):
    write(tmp_path, "a", labels)
    (tmp_path / "classes.json").write_text('{"classes": ["a", "b"], "ignore_colours": [[0, 0, 0]]}')
    with pytest.raises(DatasetError, match='has "ignore_colours" but no "palette"'):
        targets(tmp_path)


def test_two_classes_of_one_colour_paint_label_maps_but_read_no_mask(tmp_path: Path, labels: np.ndarray):
    write(tmp_path, "a", labels)
    describe(tmp_path, palette=[COLOURS[0], COLOURS[1], COLOURS[0]])
    with pytest.raises(DatasetError, match=r"\"palette\" gives the classes 0 and 2 one colour"):
        targets(tmp_path)
    save_mask(tmp_path / "masks" / "a.png", labels)
    np.testing.assert_array_equal(targets(tmp_path)[0], labels)


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=2, max_size=20, unique=True), st.integers(0, 2**32 - 1))
def test_any_colours_are_told_apart(tmp_path_factory: pytest.TempPathFactory, colours: list, seed: int):
    """Against looking every pixel up in a dictionary; the last colour is known to nobody."""
    *known, stranger = colours
    picks = np.random.default_rng(seed).integers(0, len(known), (5, 7))
    path = tmp_path_factory.mktemp("colours") / "a.png"
    Image.fromarray(np.array(known, np.uint8)[picks]).save(path)
    table = Colours(path, {colour: label for label, colour in enumerate(known)})
    np.testing.assert_array_equal(np.asarray(read_mask(path, table)), picks)
    painted = np.array(known, np.uint8)[picks]
    painted[2, 3] = stranger
    Image.fromarray(painted).save(path)
    with pytest.raises(ColourError) as caught:
        read_mask(path, table)
    assert caught.value.counts == {stranger: 1}
