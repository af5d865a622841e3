"""Data sets of the library ``datasets``: the real one where it is installed, and a stand-in with its interface."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rss_env.datasets import load_dataset
from rss_env.datasets.check import check_dataset, official_splits
from rss_env.datasets.dataset import SegmentationDataset
from rss_env.errors import DatasetError
from tests.extras import is_installed

SIZE = (6, 8)
COUNT = 5
RNG = np.random.default_rng(0)
PHOTOS = RNG.integers(0, 256, (COUNT, *SIZE, 3), np.uint8)
LABELS = RNG.integers(0, 3, (COUNT, *SIZE), np.uint8)
LABELS[:, 0, :3] = [0, 1, 2]


def load(name: str, split: str = "all", **options: object) -> SegmentationDataset:
    return load_dataset("Folder", split=split, image_size=SIZE, huggingface=name, **options)


class Pictures:
    """A feature of pictures, as ``datasets.Image``."""

    def __init__(self, decode: bool = True) -> None:
        self.decode = decode


class Table:
    """The part of ``datasets.Dataset`` that is used, over rows in memory."""

    read: list[int] = []  # numbers of rows, each time that rows were read

    def __init__(self, columns: dict[str, list], features: dict[str, Any], fingerprint: str = "f1") -> None:
        self.columns, self.features, self._fingerprint = columns, features, fingerprint

    @property
    def column_names(self) -> list[str]:
        return list(self.columns)

    def cast_column(self, name: str, feature: Any) -> Table:
        return Table(self.columns, {**self.features, name: feature}, self._fingerprint)

    def select_columns(self, names: list[str]) -> Table:
        return Table({name: self.columns[name] for name in names}, self.features, self._fingerprint)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __iter__(self) -> Iterator[dict]:
        self.read.append(len(self))
        for values in zip(*self.columns.values(), strict=True):
            row = dict(zip(self.columns, values, strict=True))
            for name, value in row.items():
                assert not (isinstance(self.features[name], Pictures) and self.features[name].decode), "decoded"
                row[name] = value
            yield row


def stored(array: np.ndarray, form: str = "PNG") -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form)
    return {"bytes": buffer.getvalue(), "path": None}


def table(rows: range = range(COUNT), mask: str = "mask") -> Table:
    columns = {"image": [stored(PHOTOS[i]) for i in rows], mask: [stored(LABELS[i]) for i in rows]}
    return Table(columns, {"image": Pictures(), mask: Pictures()}, f"rows {rows}")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for the library, with ``loaded`` as what it loads."""
    module: Any = ModuleType("datasets")
    given = SimpleNamespace(loaded=table(), names=[])

    def load_any(name: str) -> Any:
        given.names.append(name)
        if isinstance(given.loaded, Exception):
            raise given.loaded
        return given.loaded

    module.load_dataset = module.load_from_disk = load_any
    monkeypatch.setitem(sys.modules, "datasets", module)
    return given


def test_pictures_are_what_is_stored(library: SimpleNamespace, cache: Path):
    data = load("someone/something")
    assert library.names == ["someone/something"]
    np.testing.assert_array_equal(data.images, PHOTOS)
    np.testing.assert_array_equal(data.targets, LABELS)
    assert data.num_classes == 3
    files = sorted((cache / "huggingface").rglob("*.png"))
    assert len(files) == 2 * COUNT
    before, reads = [path.stat().st_mtime_ns for path in files], len(Table.read)
    np.testing.assert_array_equal(load("someone/something").targets, LABELS)
    assert [path.stat().st_mtime_ns for path in files] == before  # written once
    assert len(Table.read) == reads  # and read once
    library.loaded = Table({**table().columns, "image": [stored(255 - photo) for photo in PHOTOS]}, table().features)
    np.testing.assert_array_equal(load("someone/something").images, 255 - PHOTOS)  # another fingerprint


def test_the_library_names_the_splits(library: SimpleNamespace, cache: Path):
    library.loaded = {"train": table(range(3)), "validation": table(range(3, COUNT))}
    assert official_splits("Folder", None, huggingface="x") == ["train", "val"]
    np.testing.assert_array_equal(load("x", "val").targets, LABELS[3:])
    np.testing.assert_array_equal(load("x", "train").targets, LABELS[:3])
    assert check_dataset("Folder", None, huggingface="x").clean


def test_masks_may_be_arrays_and_photos_files_of_ones_own(library: SimpleNamespace, cache: Path, tmp_path: Path):
    own = tmp_path / "own.png"
    Image.fromarray(PHOTOS[0]).save(own)
    columns = {
        "image": [{"bytes": None, "path": str(own)}, *(stored(photo) for photo in PHOTOS[1:])],
        "label": [labels.tolist() for labels in LABELS],
    }
    library.loaded = Table(columns, {"image": Pictures(), "label": object()})
    data = load("x", masks="label")
    np.testing.assert_array_equal(data.images, PHOTOS)
    np.testing.assert_array_equal(data.targets, LABELS)


def test_without_the_column_there_are_no_masks(library: SimpleNamespace, cache: Path):
    library.loaded = Table({"image": [stored(photo) for photo in PHOTOS]}, {"image": Pictures()})
    assert load("x", num_classes=3).targets is None
    with pytest.raises(DatasetError, match="has no column 'label', but image"):
        load("x", masks="label", num_classes=3)


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        (Table({"a": [], "b": []}, {}), "has no column 'image', but a, b; name that of the photos with images="),
        (Table({"image": []}, {"image": Pictures()}), "holds no photo"),
        (Table({"image": [None]}, {"image": Pictures()}), "column 'image', row 0 is empty"),
        (Table({"image": [{"bytes": b"x", "path": None}]}, {"image": Pictures()}), "column 'image', row 0 is no pic"),
        (Table({"image": [[1, 2]]}, {"image": 0}), r"row 0 is neither a picture nor an array \(H, W\)"),
        (Table({"image": [[[1], [2, 3]]]}, {"image": 0}), "row 0 is neither a picture nor an array"),
        (Table({"image": [[[256]]]}, {"image": 0}), "row 0 is neither a picture nor an array"),
        (Table({"image": [[[0.5]]]}, {"image": 0}), "row 0 is neither a picture nor an array"),
        (ConnectionError("no\nnet"), "cannot be loaded: ConnectionError: no net"),
    ],
)
def test_what_cannot_be_read_is_one_error(library: SimpleNamespace, cache: Path, loaded: Any, message: str):
    library.loaded = loaded
    with pytest.raises(DatasetError, match=message):
        load("x", num_classes=3)


def test_without_the_library_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DatasetError, match=r"needs the library datasets: pip install 'rss-env\[hf\]'"):
        load("x")


@pytest.mark.skipif(not is_installed("datasets"), reason="needs datasets: pip install 'rss-env[hf]'")
@pytest.mark.filterwarnings("ignore")  # the library's own
def test_the_real_library_gives_the_same(cache: Path, tmp_path: Path):
    datasets: Any = pytest.importorskip("datasets")
    pictures = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    columns = {"image": list(map(Image.fromarray, PHOTOS)), "mask": list(map(Image.fromarray, LABELS))}
    whole = datasets.Dataset.from_dict(columns, features=pictures)
    whole.save_to_disk(str(tmp_path / "one"))
    parts = {"train": whole.select(range(3)), "validation": whole.select(range(3, COUNT))}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "two"))
    arrays = datasets.Features({"image": datasets.Image(), "mask": datasets.Array2D(SIZE, "uint8")})
    columns["mask"] = [labels.tolist() for labels in LABELS]
    datasets.Dataset.from_dict(columns, features=arrays).save_to_disk(str(tmp_path / "arrays"))
    for name in ("one", "two", "arrays"):
        data = load(name, root=tmp_path)
        np.testing.assert_array_equal(data.images, PHOTOS)
        np.testing.assert_array_equal(data.targets, LABELS)
    np.testing.assert_array_equal(load(str(tmp_path / "two"), "val").targets, LABELS[3:])
