"""Random faults in folders and servers: what is given is right, or one error of the package says what is wrong."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rss_env.datasets.download as module
from rss_env.datasets import load_dataset
from rss_env.datasets.check import check_dataset
from rss_env.datasets.download import fetch
from rss_env.datasets.info import Archive
from rss_env.errors import DatasetError, OptionError
from tests.datasets.hostile import damage_folder, hostile_answer
from tests.datasets.raw_server import RawServer
from tests.trees import write_voc

FOLDER_SEEDS = range(int(os.environ.get("RSS_TEST_FOLDERS", "40")))
SERVER_SEEDS = range(int(os.environ.get("RSS_TEST_SERVERS", "25")))


def _in_time(function: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What a function gives; a failure if it hangs, which an open named pipe would make it do."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(function())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert result, f"still running after {seconds} s"
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


def _outcome(function: Callable[[], Any], seconds: float = 20.0) -> tuple[Any, str | None]:
    """What a function gives, or what its error of the package says."""
    try:
        return _in_time(function, seconds), None
    except (DatasetError, OptionError) as error:
        return None, str(error)


@pytest.mark.skipif(sys.platform == "win32", reason="the faults need links and named pipes")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # Pillow's own, on odd files
@pytest.mark.parametrize("seed", FOLDER_SEEDS)
def test_a_folder_with_random_faults_loads_right_or_says_what_is_wrong(tmp_path: Path, cache: Path, seed: int):
    root = tmp_path / "root"
    options = damage_folder(root, seed)
    data, error = _outcome(lambda: load_dataset("Folder", root=root, image_size=(6, 8), **options))
    if error is not None:
        assert "\n" not in error or "Expected below root" in error
        assert not [path for path in cache.glob("*") if path.name != "digests"]
    else:
        count, classes = len(data.ids), data.num_classes
        assert len(set(data.ids)) == count > 0
        assert data.images.shape == (count, 6, 8, 3)
        assert data.palette.shape == (classes, 3)
        if data.targets is not None:
            assert data.targets.shape == (count, 6, 8)
            assert set(np.unique(data.targets)) <= {*range(classes), 255}
    split, num_classes = str(options["split"]), options.get("num_classes")
    kwargs = {} if num_classes is None else {"num_classes": num_classes}
    report, refused = _outcome(lambda: check_dataset("Folder", root, [split], **kwargs))
    fine = error is None or "so the classes cannot be counted" in error  # of photos without masks: a warning
    assert (refused is None and report.clean) == fine, (error, refused, report and report.findings)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("voc")
    write_voc(folder / "tree")
    packed = shutil.make_archive(str(folder / "voc"), "tar", folder / "tree", "VOCdevkit")
    return Path(packed).read_bytes()


@pytest.mark.parametrize("seed", SERVER_SEEDS)
def test_a_server_that_sends_random_faults_is_refused_or_sent_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: bytes, seed: int
):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    monkeypatch.setattr(module, "PATIENCE", 2.0)
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    checksum = "sha256:" + hashlib.sha256(archive).hexdigest()
    serving = RawServer(hostile_answer(archive, seed), 0.0)
    root = tmp_path / "root"
    wanted = Archive(serving.url, checksum, 0.0, "VOCdevkit/VOC2012")
    try:
        _, error = _outcome(lambda: fetch(wanted, root, progress=False), 60.0)
    finally:
        serving.close()
    if error is not None:
        assert serving.url in error
        assert not (root / "VOCdevkit").exists()
    else:
        assert (root / "VOCdevkit" / "VOC2012" / "JPEGImages").is_dir()
        assert [path.name for path in root.iterdir()] == ["VOCdevkit"]
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
