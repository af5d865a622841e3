"""The procedural data set: reproducible, disjoint splits, every class, every option checked."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from rss_env.datasets import cache as cache_module
from rss_env.datasets import load_dataset, shapes
from rss_env.errors import DatasetError, OptionError

# These tests call shapes.load: load_dataset keeps recent results, and comparing a result with itself shows nothing.
SIZE = (16, 20)
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("difficulty", shapes.DIFFICULTIES)
@pytest.mark.parametrize("split", shapes.SPLIT_SIZES)
def test_the_same_call_gives_the_same_bytes(split: str, difficulty: str):
    first, second = (shapes.load(split, SIZE, difficulty=difficulty, num_images=4) for _ in range(2))
    assert first.images is not second.images
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.targets, second.targets)


def test_another_process_draws_the_same_bytes():
    code = (
        "from rss_env.datasets import shapes; d = shapes.load('val', (16, 20), num_images=3);"
        "print(d.images.tobytes().hex(), d.targets.tobytes().hex())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    data = shapes.load("val", SIZE, num_images=3)
    assert run.stdout.split() == [data.images.tobytes().hex(), data.targets.tobytes().hex()]


@given(seed=st.integers(0, 2**40), few=st.integers(1, 4), more=st.integers(0, 4))
@settings(max_examples=20)
def test_an_image_depends_on_its_index_not_on_how_many_are_drawn(seed: int, few: int, more: int):
    short = shapes.load("train", SIZE, dataset_seed=seed, num_images=few)
    long = shapes.load("train", SIZE, dataset_seed=seed, num_images=few + more)
    np.testing.assert_array_equal(long.images[:few], short.images)
    np.testing.assert_array_equal(long.targets[:few], short.targets)
    assert long.ids[:few] == short.ids


def test_no_image_appears_twice_within_or_across_the_splits():
    splits = {split: shapes.load(split, (12, 12)) for split in shapes.SPLIT_SIZES}
    assert {split: len(data) for split, data in splits.items()} == {"train": 2048, "val": 128, "test": 256}
    assert len({image.tobytes() for data in splits.values() for image in data.images}) == 2048 + 128 + 256


def test_another_seed_shares_no_image():
    images = [
        image.tobytes()
        for seed in (0, 1, 2)
        for image in shapes.load("train", SIZE, dataset_seed=seed, num_images=200).images
    ]
    assert len(set(images)) == 3 * 200


@pytest.mark.parametrize("difficulty", shapes.DIFFICULTIES)
@pytest.mark.parametrize("num_classes", range(2, 10))
def test_every_class_appears_and_no_other_label_does(num_classes: int, difficulty: str):
    data = shapes.load("train", (24, 32), num_classes=num_classes, difficulty=difficulty, num_images=64)
    assert set(np.unique(data.targets)) == set(range(num_classes))
    assert data.num_classes == num_classes
    assert data.class_names == ("background", *shapes.KINDS[: num_classes - 1])


@pytest.mark.parametrize(("num_classes", "imbalance"), [(4, 16), (6, 81), (3, 7.5), (4, 1)])
def test_figures_are_as_frequent_as_the_imbalance_says(num_classes: int, imbalance: float):
    rng = np.random.default_rng(0)
    drawn = [shapes._draw_label(rng, num_classes, imbalance) for _ in range(4000)]
    factor = imbalance ** (1 / (num_classes - 2))
    expected = factor ** -np.arange(num_classes - 1.0)  # each class by the same factor rarer than the one before
    counts = np.bincount(drawn, minlength=num_classes)
    assert counts[0] == 0
    assert chisquare(counts[1:], 4000 * expected / expected.sum()).pvalue > 1e-3  # deterministic: the seed is fixed


def test_an_imbalance_reaches_the_scenes():
    even, uneven = (shapes.load("train", SIZE, imbalance=i, num_images=64).targets for i in (1, 1000))
    pixels = [np.bincount(targets.ravel(), minlength=5) for targets in (even, uneven)]
    assert pixels[0][4] > 0.05 * pixels[0][1:].sum()
    assert pixels[1][4] < 0.02 * pixels[1][1:].sum()
    np.testing.assert_array_equal(even, shapes.load("train", SIZE, num_images=64).targets)


def test_harder_scenes_are_noisier():
    noise = []
    for difficulty in ("easy", "medium", "hard"):
        data = shapes.load("train", (32, 32), difficulty=difficulty, num_images=64)
        noise.append(np.abs(np.diff(data.images.astype(int), axis=2)).mean())
    assert noise[0] < noise[1] < noise[2]


@given(height=st.integers(8, 40), width=st.integers(8, 40))
@settings(max_examples=20)
def test_any_size_from_8_pixels_is_drawn(height: int, width: int):
    data = shapes.load("test", (height, width), num_images=2)
    assert (data.images.shape, data.targets.shape) == ((2, height, width, 3), (2, height, width))


def test_figures_have_their_class_labels_and_shapes():
    v, u = np.mgrid[-1.2:1.2:49j, -1.2:1.2:49j]  # v grows downwards like image rows; the middle cell is the centre
    inside = {kind: shapes._inside(kind, u, v) for kind in shapes.KINDS}
    np.testing.assert_array_equal(inside["disk"], np.hypot(u, v) <= 0.9)
    assert {kind for kind, mask in inside.items() if mask[24, 24]} == set(shapes.KINDS) - {"ring", "crescent", "ell"}
    masks = {mask.tobytes() for mask in inside.values()}
    assert len(masks) == len(shapes.KINDS)


def test_the_palette_gives_every_class_a_colour_of_its_own():
    for num_classes in range(2, 10):
        colours = shapes.palette(num_classes)
        assert colours[0].tolist() == [0, 0, 0]
        assert len({tuple(colour) for colour in colours.tolist()}) == num_classes


def test_arrays_are_read_only():
    data = shapes.load("train", SIZE, num_images=1)
    with pytest.raises(ValueError, match="read-only"):
        data.images[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        data.targets[0] = 0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"split": "trian"}, "Unknown split 'trian' of Shapes; valid: train, val, test"),
        ({"num_classes": 1}, "2 to 9 classes, got num_classes=1"),
        ({"num_classes": 10}, "2 to 9 classes, got num_classes=10"),
        ({"num_classes": "5"}, "2 to 9 classes, got num_classes='5'"),
        ({"num_classes": 2.5}, "2 to 9 classes, got num_classes=2.5"),
        ({"difficulty": "insane"}, "Unknown Shapes difficulty 'insane'; valid: easy, medium, hard"),
        ({"imbalance": 0.5}, "imbalance must be a number from 1 to 1,000, got 0.5"),
        ({"imbalance": float("nan")}, "imbalance must be a number from 1 to 1,000, got nan"),
        ({"imbalance": "2"}, "imbalance must be a number from 1 to 1,000, got '2'"),
        ({"dataset_seed": -1}, "dataset_seed must be an integer of at least 0, got -1"),
        ({"dataset_seed": 0.5}, "dataset_seed must be an integer of at least 0, got 0.5"),
        ({"num_images": 0}, r"num_images must be an integer between 1 and 2\*\*30, got 0"),
        ({"num_images": 1.5}, r"num_images must be an integer between 1 and 2\*\*30, got 1.5"),
        ({"image_size": (7, 64)}, r"at least 8×8 pixels, got image_size=\(7, 64\)"),
        ({"root": "data"}, "Shapes is procedural and takes no root, got root='data'"),
    ],
)
def test_an_option_out_of_range_is_refused_with_the_valid_values(option: dict, message: str):
    with pytest.raises(DatasetError, match=message):
        load_dataset("Shapes", **option)


def test_an_unknown_option_is_refused_with_the_valid_ones():
    with pytest.raises(
        OptionError, match=r"'colour'.*Shapes.*num_classes, difficulty, imbalance, dataset_seed, num_images"
    ):
        load_dataset("Shapes", colour=True)


def test_numpy_integers_are_integers():
    expected = shapes.load("train", SIZE, num_classes=3, dataset_seed=7, num_images=2)
    data = shapes.load("train", SIZE, num_classes=np.int64(3), dataset_seed=np.int64(7), num_images=np.int32(2))
    np.testing.assert_array_equal(data.images, expected.images)


# The cache


@pytest.fixture
def always_cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shapes, "LITTLE_WORK", 0)
    return cache


def _drawn(monkeypatch: pytest.MonkeyPatch, **options: object) -> tuple[np.ndarray, np.ndarray]:
    """What is drawn without the cache."""
    with monkeypatch.context() as patch:
        patch.setattr(shapes, "LITTLE_WORK", 1 << 60)
        data = shapes.load(**options)
    assert not isinstance(data.images, np.memmap)
    return data.images, data.targets


BASE = {"split": "train", "image_size": SIZE, "num_images": 5}
CHANGES = [
    {},
    {"split": "val"},
    {"image_size": SIZE[::-1]},
    {"num_images": 6},
    {"num_classes": 4},
    {"difficulty": "easy"},
    {"difficulty": "hard"},
    {"dataset_seed": 1},
    {"dataset_seed": 2**70},
]


def test_cached_images_are_the_bits_that_are_drawn_for_each_value_of_each_option(
    always_cached: Path, monkeypatch: pytest.MonkeyPatch
):
    for number, change in enumerate(CHANGES, 1):
        options = BASE | change
        images, targets = _drawn(monkeypatch, **options)
        for _ in range(2):  # built, then found
            data = shapes.load(**options)
            assert isinstance(data.images, np.memmap)
            np.testing.assert_array_equal(data.images, images)
            np.testing.assert_array_equal(data.targets, targets)
        assert len(list(always_cached.iterdir())) == number


def test_what_is_cached_is_drawn_once(always_cached: Path, monkeypatch: pytest.MonkeyPatch):
    expected = shapes.load(**BASE)

    def refuse(*_: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(shapes, "draw_scene", refuse)
    data = shapes.load(**BASE)
    np.testing.assert_array_equal(data.images, expected.images)
    with pytest.raises(ValueError, match="read-only"):
        data.images[0] = 0
    with pytest.raises(AssertionError, match="drawn again"):
        shapes.load(**BASE | {"num_images": 4})


@pytest.mark.parametrize("part", ["GENERATOR", "DIFFICULTIES", "numpy"])
def test_another_generator_reads_nothing_of_this_one(always_cached: Path, monkeypatch: pytest.MonkeyPatch, part: str):
    shapes.load(**BASE)
    if part == "GENERATOR":
        monkeypatch.setattr(shapes, "GENERATOR", shapes.GENERATOR + 1)
    elif part == "DIFFICULTIES":
        medium = dataclasses.replace(shapes.DIFFICULTIES["medium"], noise=13.0)
        monkeypatch.setitem(shapes.DIFFICULTIES, "medium", medium)
    else:
        monkeypatch.setattr(np, "__version__", "0.0.0")
    shapes.load(**BASE)
    assert len(list(always_cached.iterdir())) == 2


def test_what_generator_1_draws_stays():
    """Whoever changes what is drawn raises GENERATOR and writes the new hash here."""
    digest = hashlib.sha256()
    for difficulty in shapes.DIFFICULTIES:
        data = shapes.load("train", (24, 32), num_classes=9, difficulty=difficulty, num_images=16)
        digest.update(data.images.tobytes() + data.targets.tobytes())
    assert (shapes.GENERATOR, digest.hexdigest()) == (
        1,
        "92ea220ab475ccb902398ded7638ad156839a706ff83827c0c53c2a1c1056647",
    )


@pytest.mark.parametrize("harm", ["payload", "short"])
def test_changed_images_in_the_cache_are_drawn_again(always_cached: Path, harm: str):
    images = np.array(shapes.load(**BASE).images)
    (path,) = always_cached.glob("*/images.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content if harm == "payload" else content[:-1])
    np.testing.assert_array_equal(shapes.load(**BASE).images, images)


@pytest.mark.parametrize("trouble", ["full", "no-folder", "no-home"])
def test_without_a_cache_the_images_are_drawn_and_the_log_says_why(
    always_cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: str
):
    expected, _ = _drawn(monkeypatch, **BASE)
    if trouble == "full":

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(cache_module, "_reserve", full)
    elif trouble == "no-folder":
        (tmp_path / "file").touch()
        monkeypatch.setenv("RSS_CACHE_DIR", str(tmp_path / "file" / "cache"))
    else:
        monkeypatch.setenv("RSS_CACHE_DIR", "~nobody-of-that-name")
    data = shapes.load(**BASE)
    np.testing.assert_array_equal(data.images, expected)
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert message.startswith("Shapes is drawn each time, which may take some seconds: ")
    assert "RSS_CACHE_DIR" in message
    assert not always_cached.exists() or list(always_cached.iterdir()) == []


def test_little_work_leaves_the_cache_alone(cache: Path):
    shapes.load("val", (32, 32))
    shapes.load("train", (8, 8), num_images=100)
    assert not cache.exists()
