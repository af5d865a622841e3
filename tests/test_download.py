"""Downloads from a server on this machine: resumed, verified, and extracted without trust."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import rss_env.download as module
from rss_env.datasets import DATASETS, find_dataset, load_dataset
from rss_env.datasets.info import Archive
from rss_env.download import download, extract, fetch
from rss_env.errors import DatasetError, OptionError
from tests.trees import WRITERS, dataset_kwargs

FOLDER = "VOCdevkit/VOC2012"


class Server:
    """Serves files; remembers the Range of every request, and can misbehave."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str | None] = []
        self.cut_after: list[int] = []  # bytes after which the next answers end early
        self.fail_with: list[int] = []  # status codes of the next answers
        self.knows_ranges = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/{name}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.requests.append(wanted)
        body = self.files.get(handler.path.lstrip("/"))
        if self.fail_with or body is None:
            handler.send_error(self.fail_with.pop(0) if self.fail_with else 404)
            return
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.knows_ranges else 0
        if first >= len(body) and first:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(body)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if first else 200)
        if first:
            handler.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        handler.send_header("Content-Length", str(len(body) - first))
        handler.end_headers()
        stop = first + self.cut_after.pop(0) if self.cut_after else len(body)
        handler.wfile.write(body[first:stop])

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    serving = Server()
    yield serving
    serving.close()


def tar_of(tree: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(tree / "VOCdevkit", "VOCdevkit")
    return buffer.getvalue()


def zip_of(tree: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(tree.rglob("*")):
            archive.write(path, path.relative_to(tree).as_posix())
    return buffer.getvalue()


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    tree = tmp_path / "original"
    WRITERS["VOC"](tree)
    return tree


def offer(server: Server, name: str, body: bytes) -> Archive:
    server.files[name] = body
    return Archive(server.url(name), "sha256:" + hashlib.sha256(body).hexdigest(), 0.0, FOLDER)


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(("name", "pack"), [("voc.tar", tar_of), ("voc.zip", zip_of)])
def test_a_data_set_is_fetched_extracted_and_loaded(
    server: Server, voc: Path, tmp_path: Path, name: str, pack: Callable[[Path], bytes], monkeypatch: pytest.MonkeyPatch
):
    archive = offer(server, name, pack(voc))
    entry = DATASETS["VOC"]
    card = dataclasses.replace(entry.info, archives=(archive,))
    monkeypatch.setitem(DATASETS, "VOC", dataclasses.replace(entry, info=card))
    root = tmp_path / "new" / "root"
    assert download("VOC", root, progress=False) == root
    assert files_of(root) == files_of(voc)  # and neither the archive nor anything temporary
    ours, original = (load_dataset("VOC", root=r, split="train", image_size=(8, 8)) for r in (root, voc))
    assert ours.ids == original.ids
    assert (ours.images == original.images).all()
    assert len(server.requests) == 1
    download("VOC", root, progress=False)
    assert len(server.requests) == 1  # it is there: nothing is asked for again


def test_a_cut_connection_is_resumed_where_it_stopped(server: Server, voc: Path, tmp_path: Path):
    archive = offer(server, "voc.tar", tar_of(voc))
    server.cut_after = [1000, 500]
    fetch(archive, tmp_path / "root", progress=False)
    assert server.requests == [None, "bytes=1000-", "bytes=1500-"]
    assert files_of(tmp_path / "root") == files_of(voc)


def test_another_call_goes_on_where_the_last_one_gave_up(
    server: Server, voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    archive = offer(server, "voc.tar", tar_of(voc))
    server.cut_after = [1000]
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    with pytest.raises(DatasetError, match=r"the connection .*|Connection.*") as caught:
        fetch(archive, tmp_path, progress=False)
    assert "voc.tar.part is kept; the next call goes on from there" in str(caught.value)
    assert (tmp_path / "voc.tar.part").stat().st_size == 1000
    fetch(archive, tmp_path, progress=False)
    assert server.requests == [None, "bytes=1000-"]
    assert files_of(tmp_path / FOLDER) == files_of(voc / FOLDER)


def test_a_server_that_knows_no_ranges_sends_everything_again(server: Server, voc: Path, tmp_path: Path):
    archive = offer(server, "voc.tar", tar_of(voc))
    server.cut_after, server.knows_ranges = [1000], False
    fetch(archive, tmp_path / "root", progress=False)
    assert server.requests == [None, "bytes=1000-"]
    assert files_of(tmp_path / "root") == files_of(voc)


@pytest.mark.parametrize("more", [0, 7])
def test_a_part_as_long_as_the_file_or_longer_is_handled(server: Server, voc: Path, tmp_path: Path, more: int):
    body = tar_of(voc)
    archive = offer(server, "voc.tar", body)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "voc.tar.part").write_bytes(body + b"x" * more)
    fetch(archive, tmp_path / "root", progress=False)
    assert server.requests == [f"bytes={len(body) + more}-"] + [None] * bool(more)
    assert files_of(tmp_path / "root") == files_of(voc)


def test_a_server_in_trouble_is_asked_again_and_a_missing_file_is_not(server: Server, voc: Path, tmp_path: Path):
    archive = offer(server, "voc.tar", tar_of(voc))
    server.fail_with = [500, 503]
    fetch(archive, tmp_path / "root", progress=False)
    assert len(server.requests) == 3
    gone = dataclasses.replace(archive, url=server.url("gone.tar"))
    with pytest.raises(DatasetError, match=r"Cannot download http://127.0.0.1:\d+/gone.tar: 404"):
        fetch(gone, tmp_path, progress=False)
    assert len(server.requests) == 4
    server.fail_with = [500] * module.ATTEMPTS
    with pytest.raises(DatasetError, match="500"):
        fetch(archive, tmp_path / "other", progress=False)


def test_a_wrong_checksum_names_both_removes_the_file_and_extracts_nothing(server: Server, voc: Path, tmp_path: Path):
    archive = offer(server, "voc.tar", tar_of(voc))
    actual = archive.checksum.removeprefix("sha256:")
    wrong = dataclasses.replace(archive, checksum="sha256:" + "0" * 64)
    root = tmp_path / "root"
    with pytest.raises(DatasetError, match=f"is not the file that was expected: (?s:.*){'0' * 64}(?s:.*){actual}"):
        fetch(wrong, root, progress=False)
    assert files_of(root) == {}


def malicious_tar(add: Callable[[tarfile.TarFile], None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        innocent = tarfile.TarInfo(f"{FOLDER}/innocent.txt")
        innocent.size = 2
        tar.addfile(innocent, io.BytesIO(b"hi"))
        add(tar)
    return buffer.getvalue()


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, target, 4 if kind == tarfile.REGTYPE else 0
        tar.addfile(member, io.BytesIO(b"evil") if kind == tarfile.REGTYPE else None)

    return add


def malicious_zip(name: str, mode: int = 0o100644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{FOLDER}/innocent.txt", "hi")
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        archive.writestr(member, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (malicious_tar(tar_member("/tmp/evil")), "leads out of its folder"),
        (malicious_tar(tar_member("../evil")), "leads out of its folder"),
        (malicious_tar(tar_member(f"{FOLDER}/../../../evil")), "leads out of its folder"),
        (malicious_tar(tar_member("..\\evil")), "leads out of its folder"),
        (malicious_tar(tar_member("C:/evil")), "leads out of its folder"),
        (malicious_tar(tar_member(f"{FOLDER}/link", tarfile.SYMTYPE, "/etc")), "is a link or a device"),
        (malicious_tar(tar_member(f"{FOLDER}/link", tarfile.SYMTYPE, "innocent.txt")), "is a link or a device"),
        (malicious_tar(tar_member(f"{FOLDER}/hard", tarfile.LNKTYPE, "/etc/passwd")), "is a link or a device"),
        (malicious_tar(tar_member(f"{FOLDER}/device", tarfile.CHRTYPE)), "is a link or a device"),
        (malicious_tar(tar_member(f"{FOLDER}/pipe", tarfile.FIFOTYPE)), "is a link or a device"),
        (malicious_zip("/tmp/evil"), "leads out of its folder"),
        (malicious_zip("../evil"), "leads out of its folder"),
        (malicious_zip(f"{FOLDER}/../../../evil"), "leads out of its folder"),
        (malicious_zip(f"{FOLDER}/link", 0o120777), "is a link or a device"),
        (malicious_zip(f"{FOLDER}/device", 0o020666), "is a link or a device"),
    ],
)
def test_a_malicious_archive_is_refused_whole(server: Server, tmp_path: Path, body: bytes, reason: str):
    root = tmp_path / "a" / "b" / "root"
    with pytest.raises(DatasetError, match=f"is refused, and nothing of it was extracted: .* {reason}"):
        fetch(offer(server, "evil.archive", body), root, progress=False)
    left = [p for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert [p.name for p in left] == ["evil.archive"]
    assert not list(root.rglob("innocent.txt"))


def test_a_damaged_archive_and_one_of_something_else_are_errors(tmp_path: Path, voc: Path):
    for name, body in {"a": b"not an archive", "b": b"", "c": tar_of(voc)[:700], "d": zip_of(voc)[:-9]}.items():
        (tmp_path / name).write_bytes(body)
        with pytest.raises(DatasetError, match=r"Is it damaged, or no archive at all\?|does not hold the folder"):
            extract(tmp_path / name, FOLDER, tmp_path)
    (tmp_path / "e").write_bytes(tar_of(voc))
    with pytest.raises(DatasetError, match="does not hold the folder VOCdevkit/VOC2007"):
        extract(tmp_path / "e", "VOCdevkit/VOC2007", tmp_path)
    assert not (tmp_path / "VOCdevkit").exists()


def test_an_interrupted_extraction_leaves_nothing_that_looks_complete(
    server: Server, voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    archive = offer(server, "voc.tar", tar_of(voc))

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    root = tmp_path / "root"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(archive, root, progress=False)
    assert not (root / FOLDER).exists()
    fetch(archive, root, progress=False)  # the archive itself is still there and verified
    assert len(server.requests) == 1
    assert files_of(root) == files_of(voc)


def test_other_years_beside_it_stay(server: Server, voc: Path, tmp_path: Path):
    other = tmp_path / "root" / "VOCdevkit" / "VOC2010" / "mine.txt"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    fetch(offer(server, "voc.tar", tar_of(voc)), tmp_path / "root", progress=False)
    assert other.read_text() == "mine"
    assert files_of(tmp_path / "root" / FOLDER) == files_of(voc / FOLDER)


def test_a_full_disk_says_so(server: Server, voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    archive = offer(server, "voc.tar", tar_of(voc))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    with pytest.raises(DatasetError, match=r"Cannot write to .*No space left.*Free some space there and call again"):
        fetch(archive, tmp_path / "root", progress=False)
    assert not (tmp_path / "root" / FOLDER).exists()


@pytest.mark.parametrize("name", [n for n, entry in DATASETS.items() if entry.locate and not entry.info.archives])
def test_what_cannot_be_fetched_prints_the_steps(name: str, tmp_path: Path):
    with pytest.raises(DatasetError) as caught:
        download(name, tmp_path / "root")
    assert DATASETS[name].info.steps in str(caught.value)
    assert not (tmp_path / "root").exists()


# Cards


@pytest.mark.parametrize("name", DATASETS)
def test_every_card_is_complete(name: str):
    entry, info = DATASETS[name], DATASETS[name].info
    assert info.title
    assert info.licence
    assert info.ignore
    if name in ("Shapes", "Folder"):
        return
    assert info.homepage.startswith("http")
    assert info.citation[-4:].isdigit()
    assert info.layout
    assert info.archives or info.steps
    assert len(set(info.class_names)) == len(info.class_names) == len(info.palette)
    assert info.splits["train"] > 0
    assert info.splits["val"] > 0
    for archive in info.archives:
        kind, digest = archive.checksum.split(":")
        assert len(digest) == 2 * hashlib.new(kind).digest_size
    assert entry.locate is not None


@pytest.mark.parametrize("name", [n for n, entry in DATASETS.items() if entry.info.class_names])
def test_a_card_tells_what_the_loader_gives(name: str, tmp_path: Path):
    data = load_dataset(name, split="train", image_size=(8, 8), **dataset_kwargs(name, tmp_path))
    assert data.class_names == DATASETS[name].info.class_names
    assert (data.palette == DATASETS[name].info.palette).all()


def test_data_sets_are_found_by_name_in_any_case_and_by_alias():
    assert {find_dataset(word) for word in ("VOC", "voc", "voc2012", "VOC2012")} == {"VOC"}
    names = [word for name, entry in DATASETS.items() for word in (name.lower(), *entry.info.aliases)]
    assert len(set(names)) == len(names)
    with pytest.raises(OptionError, match="Unknown data set 'voc2007'; valid: Shapes, VOC, "):
        find_dataset("voc2007")
