"""The decoded cache: decodes once, never serves anything stale, damaged or half-written."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rss_env.datasets import cache as cache_module
from rss_env.datasets import load_dataset
from rss_env.datasets.cache import cache_dir
from rss_env.datasets.dataset import SegmentationDataset
from rss_env.errors import DatasetError
from tests.datasets.plain_user import as_plain_user
from tests.trees import save_photo, tiny_folder, write_camvid, write_lines

SIZE = (6, 8)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "tree")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indices of the pairs decoded so far."""
    indices: list[int] = []
    original = cache_module.decode_pair

    def counting(source, index, *args):
        indices.append(index)
        return original(source, index, *args)

    monkeypatch.setattr(cache_module, "decode_pair", counting)
    return indices


def _load(root: Path, **kwargs: object) -> SegmentationDataset:
    options = {"split": "all", "image_size": SIZE, "num_classes": 3, **kwargs}
    return load_dataset("Folder", root=root, **options)


def _entries(cache: Path) -> list[Path]:
    """Everything in the cache but the remembered digests: whole entries, and temporary folders if any."""
    return sorted(p for p in cache.iterdir() if p.name != "digests")


def _assert_equal(data: SegmentationDataset, expected: SegmentationDataset) -> None:
    np.testing.assert_array_equal(data.images, expected.images)
    np.testing.assert_array_equal(data.targets, expected.targets)
    assert data.ids == expected.ids


# What is remembered


def test_a_second_load_decodes_nothing(tree: Path, cache: Path, decoded: list[int]):
    first = _load(tree)
    assert sorted(decoded) == [0, 1, 2, 3]
    second = _load(tree)
    assert len(decoded) == 4
    _assert_equal(second, first)


def test_arrays_are_memory_mapped_and_read_only(tree: Path, cache: Path):
    for data in (_load(tree), _load(tree)):  # built, then found
        for array in (data.images, data.targets):
            assert isinstance(array, np.memmap)
            assert Path(array.filename).is_relative_to(cache)
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0


def test_a_copy_of_the_tree_elsewhere_shares_the_entry(tree: Path, tmp_path: Path, cache: Path, decoded: list[int]):
    first = _load(tree)
    shutil.copytree(tree, tmp_path / "elsewhere")
    shutil.rmtree(tree)
    _assert_equal(_load(tmp_path / "elsewhere"), first)
    assert len(decoded) == 4
    assert len(_entries(cache)) == 1


@pytest.mark.parametrize(
    "change", [{"image_size": (8, 6)}, {"resize": "crop"}, {"resize": "stretch"}, {"num_classes": 4}], ids=str
)
def test_every_option_that_shapes_the_arrays_has_its_own_entry(
    tree: Path, cache: Path, decoded: list[int], change: dict
):
    _load(tree)
    changed = _load(tree, **change)
    assert len(decoded) == 8
    assert len(_entries(cache)) == 2
    _load(tree)
    _assert_equal(_load(tree, **change), changed)
    assert len(decoded) == 8


def test_a_changed_ignored_label_is_seen(tree: Path, cache: Path):
    for ignored in (3, 255, 4):
        (tree / "classes.json").write_text(f'{{"classes": ["a", "b", "c"], "ignore_label": {ignored}}}')
        _load(tree)
    assert len(_entries(cache)) == 3


def test_new_class_names_need_no_new_entry(tree: Path, cache: Path, decoded: list[int]):
    for names in (["a", "b", "c"], ["x", "y", "z"]):
        (tree / "classes.json").write_text(str(names).replace("'", '"'))
        assert _load(tree).class_names == tuple(names)
    assert len(decoded) == 4


def test_splits_and_orders_have_their_own_entries(tree: Path, cache: Path):
    everything = _load(tree)
    for split, ids in {"one": ["000", "001"], "two": ["001", "000"]}.items():
        write_lines(tree / "splits" / f"{split}.txt", ids)
    np.testing.assert_array_equal(_load(tree, split="one").images, everything.images[:2])
    np.testing.assert_array_equal(_load(tree, split="two").images, everything.images[1::-1])
    write_lines(tree / "splits" / "one.txt", ["003"])
    np.testing.assert_array_equal(_load(tree, split="one").images, everything.images[3:])


def _rewrite(path: Path, image: np.ndarray) -> None:
    """Gives a file other pixels while its size and modification time stay the same."""
    before = path.stat()
    save_photo(path, image, compress_level=0)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of the file system may be coarse
        time.sleep(0.002)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_file_rewritten_with_its_size_and_time_kept_is_seen(tree: Path, cache: Path, decoded: list[int]):
    photo = tree / "images" / "002.png"
    old, new = (np.full((*SIZE, 3), grey, np.uint8) for grey in (10, 20))
    save_photo(photo, old, compress_level=0)
    np.testing.assert_array_equal(_load(tree).images[2], old)
    _rewrite(photo, new)
    np.testing.assert_array_equal(_load(tree).images[2], new)
    assert len(decoded) == 8
    _rewrite(photo, old)
    np.testing.assert_array_equal(_load(tree).images[2], old)
    assert len(decoded) == 8  # the first entry is still there and fits again


def test_a_changed_mask_is_seen(tree: Path, cache: Path):
    before = np.array(_load(tree).targets)
    shutil.copy(tree / "masks" / "000.png", tree / "masks" / "001.png")
    after = _load(tree).targets
    np.testing.assert_array_equal(after[1], before[0])
    np.testing.assert_array_equal(after[[0, 2, 3]], before[[0, 2, 3]])


@pytest.mark.parametrize("content", [b"", b"abc", b"\0" * 64, b"\xff" * 64], ids=["empty", "short", "zeros", "binary"])
def test_damaged_digests_never_lead_to_the_data_of_another_tree(
    tree: Path, tmp_path: Path, cache: Path, decoded: list[int], content: bytes
):
    other = tiny_folder(tmp_path / "other", size=SIZE[::-1])
    expected = [_load(root) for root in (tree, other)]
    for digest in (cache / "digests").iterdir():
        digest.write_bytes(content)
    for root, data in zip((tree, other), expected, strict=True):
        _assert_equal(_load(root), data)
    assert len(decoded) == 8


# Damaged entries


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _garble(path: Path) -> None:
    path.write_bytes(bytes(i % 251 for i in range(path.stat().st_size)))


def _list(path: Path) -> None:
    path.write_text("[]")


def _other_version(path: Path) -> None:
    path.write_text(path.read_text().replace('"version": ', '"version": 9'))


def _other_type(path: Path) -> None:
    np.save(path, np.zeros((4, *SIZE, 3), np.int8))


def _other_shape(path: Path) -> None:
    np.save(path, np.zeros((4, *SIZE[::-1], 3), np.uint8))


def _pickled(path: Path) -> None:
    np.save(path, np.array([{}], object), allow_pickle=True)


DAMAGE = [
    *(
        (name, harm)
        for name in ("images.npy", "targets.npy", "meta.json")
        for harm in (_cut, _empty, _garble, os.remove)
    ),
    *(("meta.json", harm) for harm in (_list, _other_version)),
    *(("images.npy", harm) for harm in (_other_type, _other_shape, _pickled)),
]


@pytest.mark.parametrize(("name", "harm"), DAMAGE, ids=[f"{name}-{harm.__name__}" for name, harm in DAMAGE])
def test_a_damaged_entry_is_built_again(
    tree: Path, cache: Path, decoded: list[int], name: str, harm: Callable[[Path], None]
):
    first = _load(tree)
    images, targets = np.array(first.images), np.array(first.targets)
    del first
    (entry,) = _entries(cache)
    harm(entry / name)
    again = _load(tree)
    assert len(decoded) == 8
    np.testing.assert_array_equal(again.images, images)
    np.testing.assert_array_equal(again.targets, targets)
    _assert_equal(_load(tree), again)
    assert len(decoded) == 8
    assert _entries(cache) == [entry]


@pytest.mark.filterwarnings("ignore")  # NumPy's own, on an odd header
@given(position=st.integers(0, 127), value=st.integers(0, 255))
@example(position=8, value=65)  # a header that says it is shorter than it is
@example(position=8, value=1)  # one cut inside a token
@example(position=21, value=44)  # one that is no longer Python
@example(position=63, value=45)  # a negative side
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_changed_byte_of_an_array_header_changes_the_data(tree: Path, cache: Path, position: int, value: int):
    images = np.array(_load(tree).images)
    (entry,) = _entries(cache)
    with (entry / "images.npy").open("r+b") as file:
        file.seek(position)
        file.write(bytes([value]))
    np.testing.assert_array_equal(_load(tree).images, images)


@given(
    name=st.sampled_from(["images.npy", "targets.npy"]), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7)
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_changed_bit_of_an_array_changes_the_data(tree: Path, cache: Path, name: str, place: float, bit: int):
    images, targets = (np.array(array) for array in (_load(tree).images, _load(tree).targets))
    (entry,) = _entries(cache)
    content = bytearray((entry / name).read_bytes())
    content[128 + int(place * (len(content) - 128))] ^= 1 << bit
    (entry / name).write_bytes(content)
    again = _load(tree)
    np.testing.assert_array_equal(again.images, images)
    np.testing.assert_array_equal(again.targets, targets)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"version": 2}', '{"version": 2, "arrays": {"images": 3}}', "2", "null"]
)
def test_an_odd_description_is_written_again(tree: Path, cache: Path, decoded: list[int], text: str):
    images = np.array(_load(tree).images)
    (entry,) = _entries(cache)
    (entry / "meta.json").write_text(text)
    np.testing.assert_array_equal(_load(tree).images, images)
    assert len(decoded) == 8


def test_a_copied_cache_is_hashed_once_and_then_used_like_any_other(
    tree: Path, cache: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
):
    images = np.array(_load(tree).images)
    (entry,) = _entries(cache)
    for name in ("images.npy", "targets.npy"):
        os.utime(entry / name, (1e9, 1e9))  # what a copy does
    hashed = []
    sha256 = hashlib.sha256

    def counting(content: object) -> object:
        hashed.append(isinstance(content, np.ndarray))
        return sha256(content)

    monkeypatch.setattr(cache_module.hashlib, "sha256", counting)
    for expected in (2, 2):
        np.testing.assert_array_equal(_load(tree).images, images)
        assert sum(hashed) == expected
    assert len(decoded) == 4


@pytest.mark.parametrize("pairs_first", [True, False])
def test_a_pair_and_two_photos_of_the_same_bytes_have_their_own_entries(tmp_path: Path, cache: Path, pairs_first: bool):
    pairs = tiny_folder(tmp_path / "pairs", 1)
    photos = tmp_path / "photos"
    (photos / "images").mkdir(parents=True)
    shutil.copy(pairs / "images" / "000.png", photos / "images" / "000.png")
    shutil.copy(pairs / "masks" / "000.png", photos / "images" / "001.png")
    loaded = {}
    for root in (pairs, photos) if pairs_first else (photos, pairs):
        loaded[root] = _load(root)
    assert (loaded[pairs].images.shape[0], loaded[photos].images.shape[0]) == (1, 2)
    assert loaded[pairs].targets.shape == (1, *SIZE)
    assert loaded[photos].targets is None
    assert len(_entries(cache)) == 2


def test_a_split_may_have_a_long_name(tree: Path, cache: Path):
    write_lines(tree / "splits" / f"{'ü' * 120}.txt", ["000"])
    for _ in range(2):
        assert _load(tree, split="ü" * 120).ids == ("000",)


def test_a_whole_entry_replaced_by_an_empty_folder_is_built_again(tree: Path, cache: Path):
    first = np.array(_load(tree).images)
    (entry,) = _entries(cache)
    shutil.rmtree(entry)
    entry.mkdir()
    np.testing.assert_array_equal(_load(tree).images, first)


# Building

BUILDER = """
import hashlib, sys
from rss_env.datasets import cache, load_dataset

publish = cache._publish

def publish_on_command(*args):
    print("built", flush=True)
    sys.stdin.readline()
    publish(*args)

cache._publish = publish_on_command
data = load_dataset("Folder", root=sys.argv[1], split="all", image_size=(6, 8), num_classes=3)
print(hashlib.sha256(data.images.tobytes() + data.targets.tobytes()).hexdigest(), flush=True)
sys.stdin.readline()
print(hashlib.sha256(data.images.tobytes() + data.targets.tobytes()).hexdigest(), flush=True)
"""


@pytest.mark.parametrize("damaged", [False, True])
def test_two_processes_that_build_at_once_both_get_whole_arrays(tree: Path, cache: Path, damaged: bool):
    if damaged:
        _load(tree)
        (entry,) = _entries(cache)
        _cut(entry / "images.npy")
    command = [sys.executable, "-c", BUILDER, str(tree)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1, "cwd": ROOT}
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as two:
        both = (one, two)
        assert [p.stdout.readline() for p in both] == ["built\n"] * 2  # neither has published yet
        for process in both:
            process.stdin.write("publish\n")
        digests = [p.stdout.readline() for p in both]
        for process in both:
            process.stdin.write("finish\n")
        digests += [p.stdout.readline() for p in both]  # what was mapped stays whole after both are done
    assert [one.returncode, two.returncode] == [0, 0]
    assert len(_entries(cache)) == 1
    data = _load(tree)
    expected = hashlib.sha256(data.images.tobytes() + data.targets.tobytes()).hexdigest()
    assert [digest.strip() for digest in digests] == [expected] * 4
    shutil.rmtree(cache)
    _assert_equal(data, _load(tree))
    assert not list(cache.glob("digests/tmp*"))


def test_a_build_that_meets_a_corrupt_photo_leaves_nothing_behind(tree: Path, cache: Path):
    photo = tree / "images" / "003.png"
    whole = photo.read_bytes()
    photo.write_bytes(whole[:-30])
    with pytest.raises(DatasetError, match=r"003\.png"):
        _load(tree)
    assert _entries(cache) == []
    photo.write_bytes(whole)
    assert len(_load(tree)) == 4
    assert len(_entries(cache)) == 1


def test_an_interrupted_build_leaves_nothing_behind(tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "decode_pair", interrupt)
        with pytest.raises(KeyboardInterrupt):
            _load(tree)
    assert _entries(cache) == []
    assert len(_load(tree)) == 4


def _age(folder: Path, seconds: float) -> None:
    for path in (folder, *folder.iterdir()):
        os.utime(path, (time.time() - seconds,) * 2)


def test_what_a_killed_build_leaves_is_never_read_and_is_removed_after_a_day(tree: Path, cache: Path):
    command = [sys.executable, "-c", BUILDER, str(tree)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as builder:
        assert builder.stdout.readline() == "built\n"
        builder.kill()
    (left,) = _entries(cache)
    assert left.name.startswith(".folder-all-")
    _age(left, 23 * 3600)
    data = _load(tree)
    assert len(_entries(cache)) == 2
    _age(left, 25 * 3600)
    os.utime(left / "images.npy")  # a build that goes on for long writes to its files
    _load(tree, resize="crop")
    assert left in _entries(cache)
    _age(left, 25 * 3600)
    _load(tree, resize="stretch")
    assert left not in _entries(cache)
    assert len(_entries(cache)) == 3
    _assert_equal(_load(tree), data)


def test_only_what_builds_leave_is_removed(tree: Path, cache: Path):
    _load(tree)
    (entry,) = _entries(cache)
    kept = [cache / name for name in (".config", ".a-b-c", f".{entry.name}", f"{entry.name}-abcd1234")]
    for folder in kept:
        folder.mkdir()
    for folder in _entries(cache):
        _age(folder, 1e9)
    _load(tree, resize="crop")
    assert set(kept) | {entry} < set(_entries(cache))


def _refuse(number: int) -> Callable:
    def refuse(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("stage", [(os, "posix_fallocate"), (cache_module, "_publish")], ids=["reserve", "publish"])
def test_a_full_disk_is_a_clear_error_and_leaves_nothing_behind(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, stage: tuple[object, str]
):
    monkeypatch.setattr(*stage, _refuse(errno.ENOSPC), raising=False)
    with pytest.raises(DatasetError, match=r"Cannot write the decoded cache under .*cache: .*No space left.*Free some"):
        _load(tree)
    assert _entries(cache) == []


CROWDED = """
import resource, sys
from rss_env.datasets import load_dataset
from rss_env.errors import DatasetError

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for side in (400, 40):
    try:
        data = load_dataset("Folder", root=sys.argv[1], split="all", image_size=(side, side), num_classes=3)
        print(len(data))
    except DatasetError as error:
        print(error)
"""


def test_a_cache_without_room_for_the_arrays_is_a_clear_error_and_smaller_ones_fit(tree: Path, cache: Path):
    done = subprocess.run(
        [sys.executable, "-c", CROWDED, str(tree)], capture_output=True, check=True, cwd=ROOT, text=True
    )
    large, small = done.stdout.splitlines()
    assert re.search(r"Cannot write the decoded cache under .*cache: .*File too large.*Free some space", large)
    assert small == "4"
    assert len(_entries(cache)) == 1


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL, None])
def test_space_is_reserved_also_where_the_system_has_no_call_for_it(
    tree: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
):
    if number is None:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fallocate", _refuse(number), raising=False)
    fresh = tmp_path / "fresh.npy"
    array = np.lib.format.open_memmap(fresh, "w+", np.uint8, (2_500_000,))
    size = fresh.stat().st_size
    cache_module._reserve(array)
    assert fresh.stat().st_size == size <= fresh.stat().st_blocks * 512
    assert not np.load(fresh).any()
    assert len(_load(tree)) == 4


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_cache_that_cannot_be_written_is_a_clear_error(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RSS_CACHE_DIR", str(tmp_path / "file" / below))
    with pytest.raises(DatasetError, match=r"Cannot write the decoded cache under .*file.*set RSS_CACHE_DIR to a wri"):
        _load(tree)
    assert (tmp_path / "file").read_text() == "in the way"


def test_the_folder_of_the_photos_is_only_read(tmp_path: Path, cache: Path):
    write_camvid(tmp_path / "tree")
    paths = sorted([tmp_path / "tree", *(tmp_path / "tree").rglob("*")])
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in paths}
    try:
        for _ in range(2):
            data = as_plain_user(lambda: load_dataset("CamVid", root=tmp_path / "tree", image_size=SIZE))
            assert len(data) == 4
        assert sorted([tmp_path / "tree", *(tmp_path / "tree").rglob("*")]) == paths
        assert {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in paths} == before
    finally:
        for path in paths:
            path.chmod(0o755)


def test_a_cache_that_may_only_be_read_serves_what_it_has_and_says_that_it_takes_no_more(tree: Path, cache: Path):
    expected = _load(tree)
    before = sorted(cache.rglob("*"))
    for remembered in (True, False):  # whether the cache knows the digest of the files
        if not remembered:
            os.utime(tree / "images" / "000.png")
        folders = [cache, *(path for path in before if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        try:
            _assert_equal(as_plain_user(lambda: _load(tree)), expected)
            with pytest.raises(DatasetError, match=r"Cannot write the decoded cache .*Permission denied.*set RSS_CA"):
                as_plain_user(lambda: _load(tree, resize="crop"))
        finally:
            for folder in folders:
                folder.chmod(0o755)
        assert sorted(cache.rglob("*")) == before


def test_the_log_says_when_images_are_decoded_and_where_to(tree: Path, cache: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "rss_env"):
        _load(tree)
        (entry,) = _entries(cache)
        reading, decoding = caplog.messages
        assert reading == "Reading 8 files to see whether they are cached."
        assert decoding == f"Writing 4 images of Folder all into {entry} (0.0 MB), once."
        caplog.clear()
        _load(tree)
        assert caplog.messages == []


def test_other_users_can_read_what_is_cached(tree: Path, cache: Path):
    old = os.umask(0o022)
    try:
        _load(tree)
    finally:
        os.umask(old)
    for path in (p for folder in [*_entries(cache), cache / "digests"] for p in [folder, *folder.rglob("*")]):
        assert path.stat().st_mode & 0o044 == 0o044, path


# Where it is


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("RSS_CACHE_DIR", "~/chosen")
    assert cache_dir() == Path("/home/someone/chosen")
    monkeypatch.setenv("RSS_CACHE_DIR", "")
    assert cache_dir() == Path("/xdg/rss_env")
    monkeypatch.delenv("RSS_CACHE_DIR")
    assert cache_dir() == Path("/xdg/rss_env")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path("/home/someone/.cache/rss_env")


def test_a_user_without_a_home_is_told_what_to_set(tree: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("HOME", "USERPROFILE", "HOMEPATH", "HOMEDRIVE", "XDG_CACHE_HOME", "RSS_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)

    def unknown(*_: object) -> None:
        raise KeyError

    pwd = pytest.importorskip("pwd", reason="Windows has no table of users")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(
        DatasetError, match=r"^The decoded cache has no place: .*\. Set RSS_CACHE_DIR to a writable folder"
    ):
        _load(tree)
    monkeypatch.setenv("RSS_CACHE_DIR", "~nobody-of-that-name/cache")
    with pytest.raises(DatasetError, match=r"^The decoded cache has no place: .*Set RSS_CACHE_DIR"):
        _load(tree)


# Progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("patience", "terminal", "shown"), [(0.0, True, True), (60.0, True, False), (0.0, False, False)]
)
def test_a_bar_appears_on_a_terminal_where_it_takes_long(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, patience: float, terminal: bool, shown: bool
):
    pytest.importorskip("tqdm", reason="without tqdm there is no bar")
    err = _Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(cache_module, "PATIENCE", patience)
    _load(tree)
    assert ("Folder all, once: " in err.getvalue()) == shown


def test_without_tqdm_or_stderr_the_arrays_are_made_all_the_same(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "stderr", _Terminal())
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert len(_load(tree)) == 4
    monkeypatch.setattr(sys, "stderr", None)
    assert len(_load(tree, resize="crop")) == 4
