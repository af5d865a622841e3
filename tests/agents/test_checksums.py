"""The checksums of a checkpoint's files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.checksums import CHECKSUMS, add_checksums, check_file, check_folder
from agents.errors import CheckpointError, DamagedCheckpointError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.pt", "b.safetensors"):
        (tmp_path / name).write_bytes(bytes(range(256)) * 10_000 + name.encode())  # more than a block
    add_checksums([tmp_path / "a.pt", tmp_path / "b.safetensors"])
    return tmp_path


def test_the_list_is_that_of_sha256sum(folder: Path) -> None:
    expected = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}" for n in ("a.pt", "b.safetensors")]
    assert (folder / CHECKSUMS).read_text() == "\n".join(expected) + "\n"


def test_what_is_whole_passes_and_a_list_may_grow(folder: Path) -> None:
    (folder / "c.pt").write_bytes(b"")
    add_checksums([folder / "c.pt"])
    check_folder(folder, ("a.pt", "c.pt"))
    for name in ("a.pt", "b.safetensors", "c.pt"):
        check_file(folder / name)


def replace(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes().replace(old, new, 1)) and None


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a byte": (replace("a.pt", b"\x07", b"\x06"), r"a\.pt is damaged: it does not fit its checksum"),
    "a cut": (replace("a.pt", b"a.pt", b""), r"a\.pt is damaged"),
    "no file": (lambda folder: (folder / "a.pt").unlink(), r"a\.pt is missing"),
    "no list": (lambda folder: (folder / CHECKSUMS).unlink(), r"SHA256SUMS is missing"),
    "an empty list": (lambda folder: (folder / CHECKSUMS).write_text("") and None, r"SHA256SUMS is damaged"),
    "not listed": (replace(CHECKSUMS, b"a.pt", b"b.pt"), r"a\.pt is not listed"),
    "a list of other bytes": (replace(CHECKSUMS, b"a.pt", b"\xff.pt"), r"SHA256SUMS is damaged"),
    "a list of zeros": (replace(CHECKSUMS, b"  a", b"\0\0a"), r"SHA256SUMS is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_or_list_is_named(folder: Path, damage: str) -> None:
    harm, said = DAMAGES[damage]
    harm(folder)
    with pytest.raises(DamagedCheckpointError, match=said):
        check_folder(folder, ["a.pt"])
    with pytest.raises(DamagedCheckpointError, match=rf"{said}.* Restore a copy of it, or use another checkpoint\."):
        check_file(folder / "a.pt")


def test_what_would_be_read_without_a_checksum_is_damage(folder: Path) -> None:
    (folder / "memory-0.pt").write_bytes(b"")
    with pytest.raises(DamagedCheckpointError, match=r"memory-0\.pt is not listed"):
        check_folder(folder, ["a.pt"])


def test_a_file_by_itself_needs_no_list_but_fits_the_one_that_is_there(folder: Path, tmp_path: Path) -> None:
    (folder / "a.pt").write_bytes(b"other")
    with pytest.raises(DamagedCheckpointError, match=r"a\.pt is damaged"):
        check_file(folder / "a.pt", required=False)
    (folder / CHECKSUMS).unlink()
    check_file(folder / "a.pt", required=False)


def test_a_list_that_cannot_be_read_is_no_damage(folder: Path) -> None:
    (folder / CHECKSUMS).unlink()
    (folder / CHECKSUMS).mkdir()
    with pytest.raises(CheckpointError, match=r"Cannot read .*SHA256SUMS") as caught:
        check_folder(folder, [])
    assert not isinstance(caught.value, DamagedCheckpointError)
