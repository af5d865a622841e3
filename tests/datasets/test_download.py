"""Downloads from a server on this machine: resumed, verified, and extracted without trust."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import hashlib
import io
import itertools
import os
import socket
import subprocess
import sys
import tarfile
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

import rss_env.datasets.download as module
from rss_env.datasets import DATASETS, load_dataset
from rss_env.datasets.download import download, extract, fetch
from rss_env.datasets.info import Archive
from rss_env.errors import DatasetError, OptionError
from tests.datasets.raw_server import RawServer
from tests.trees import WRITERS

FOLDER = "VOCdevkit/VOC2012"


class Server:
    """Serves files; remembers the Range of every request, and can misbehave."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str | None] = []
        self.encodings: list[str | None] = []
        self.cut_after: list[int] = []  # bytes after which the next answers end early
        self.fail_with: list[int] = []  # status codes of the next answers
        self.knows_ranges = True
        self.shift = 0  # how far from the byte that was asked for the answers begin
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
        self.encodings.append(handler.headers.get("Accept-Encoding"))
        body = self.files.get(handler.path.lstrip("/"))
        if self.fail_with or body is None:
            handler.send_error(self.fail_with.pop(0) if self.fail_with else 404)
            return
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.knows_ranges else 0
        if first:
            first += self.shift
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


def zip_of(tree: Path, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for path in sorted(tree.rglob("*")):
            archive.write(path, path.relative_to(tree).as_posix())
    return buffer.getvalue()


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    tree = tmp_path / "original"
    WRITERS["VOC"](tree)
    return tree


def workplace(root: Path) -> Path:
    return root / ".voc.tar.download"


def offer(server: Server, name: str, body: bytes) -> Archive:
    server.files[name] = body
    return Archive(server.url(name), "sha256:" + hashlib.sha256(body).hexdigest(), 0.0, FOLDER)


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def offered(server: Server, voc: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bytes], Archive]:
    """Makes an archive on the server the one that VOC is fetched from."""

    def make(name: str, body: bytes) -> Archive:
        archive = offer(server, name, body)
        entry = DATASETS["VOC"]
        card = dataclasses.replace(entry.info, archives=(archive,))
        monkeypatch.setitem(DATASETS, "VOC", dataclasses.replace(entry, info=card))
        return archive

    return make


@pytest.mark.parametrize(("name", "pack"), [("voc.tar", tar_of), ("voc.zip", zip_of)])
def test_a_data_set_is_fetched_extracted_and_loaded(
    server: Server,
    offered: Callable[[str, bytes], Archive],
    voc: Path,
    tmp_path: Path,
    name: str,
    pack: Callable[[Path], bytes],
):
    offered(name, pack(voc))
    root = tmp_path / "new" / "root"
    assert download("voc2012", root, progress=False) == root
    assert files_of(root) == files_of(voc)
    assert [p.name for p in root.iterdir()] == ["VOCdevkit"]  # and neither the archive nor anything temporary
    ours, original = (load_dataset("VOC", root=r, split="train", image_size=(8, 8)) for r in (root, voc))
    assert ours.ids == original.ids
    assert (ours.images == original.images).all()
    assert len(server.requests) == 1
    for path in (root, root / "VOCdevkit", root / FOLDER):  # the loader finds it from each of these
        download("VOC", path, progress=False)
    assert len(server.requests) == 1  # it is there: nothing is asked for again


def test_a_folder_that_misses_files_is_named_and_left_alone(
    server: Server, offered: Callable[[str, bytes], Archive], voc: Path, tmp_path: Path
):
    offered("voc.tar", tar_of(voc))
    photo = next((voc / FOLDER / "JPEGImages").glob("2007_000032*"))
    photo.unlink()
    before = files_of(voc)
    with pytest.raises(DatasetError, match=r"VOC2012 does not hold the whole of VOC: .*2007_000032.*\nMove it away"):
        download("VOC", voc, progress=False)
    (tmp_path / "root" / FOLDER / "SegmentationClassAug").mkdir(parents=True)
    with pytest.raises(DatasetError, match="does not hold the whole of VOC: VOC was not found"):
        download("VOC", tmp_path / "root", progress=False)
    assert files_of(voc) == before
    assert server.requests == []


def test_an_archive_without_all_of_the_data_set_is_an_error(
    offered: Callable[[str, bytes], Archive], voc: Path, tmp_path: Path
):
    next((voc / FOLDER / "SegmentationClass").glob("2007_000032*")).unlink()
    offered("voc.tar", tar_of(voc))
    with pytest.raises(DatasetError, match=r"does not hold the whole of VOC: .*2007_000032.*has no mask"):
        download("VOC", tmp_path / "root", progress=False)


def test_what_a_killed_process_left_next_to_a_complete_data_set_is_removed(
    server: Server, offered: Callable[[str, bytes], Archive], voc: Path
):
    offered("voc.tar", tar_of(voc))
    workplace(voc).mkdir()
    (workplace(voc) / "voc.tar").write_bytes(b"the archive")
    download("VOC", voc, progress=False)
    assert [p.name for p in voc.iterdir()] == ["VOCdevkit"]
    assert server.requests == []


def test_a_cut_connection_is_resumed_where_it_stopped(server: Server, voc: Path, tmp_path: Path):
    archive = offer(server, "voc.tar", tar_of(voc))
    server.cut_after = [1000, 500]
    fetch(archive, tmp_path / "root", progress=False)
    assert server.requests == [None, "bytes=1000-", "bytes=1500-"]
    assert set(server.encodings) == {"identity"}  # a range of a compressed answer would count other bytes
    assert files_of(tmp_path / "root") == files_of(voc)


def test_another_call_goes_on_where_the_last_one_gave_up(
    server: Server, voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    archive = offer(server, "voc.tar", tar_of(voc))
    server.cut_after = [1000]
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    with pytest.raises(DatasetError, match=rf"^Cannot download {archive.url}: the connection ended .*1,000") as caught:
        fetch(archive, tmp_path, progress=False)
    assert f"{workplace(tmp_path)}/voc.tar.part is kept; the next call resumes from there" in str(caught.value)
    assert (workplace(tmp_path) / "voc.tar.part").stat().st_size == 1000
    fetch(archive, tmp_path, progress=False)
    assert server.requests == [None, "bytes=1000-"]
    assert files_of(tmp_path / FOLDER) == files_of(voc / FOLDER)


def test_a_server_that_knows_no_ranges_sends_everything_again(server: Server, voc: Path, tmp_path: Path):
    archive = offer(server, "voc.tar", tar_of(voc))
    server.cut_after, server.knows_ranges = [1000], False
    fetch(archive, tmp_path / "root", progress=False)
    assert server.requests == [None, "bytes=1000-"]
    assert files_of(tmp_path / "root") == files_of(voc)


def test_attempts_that_bring_something_new_do_not_count(server: Server, voc: Path, tmp_path: Path):
    archive = offer(server, "voc.tar", tar_of(voc))
    server.cut_after = [1000] * 3 * module.ATTEMPTS
    fetch(archive, tmp_path / "root", progress=False)
    assert len(server.requests) == 3 * module.ATTEMPTS + 1
    assert files_of(tmp_path / "root") == files_of(voc)


def test_a_server_that_never_gets_further_is_given_up(server: Server, voc: Path, tmp_path: Path):
    archive = offer(server, "voc.tar", tar_of(voc))
    server.cut_after, server.knows_ranges = [1000] * 99, False
    with pytest.raises(DatasetError, match=r"^Cannot download .*: the connection ended after 1,000 of "):
        fetch(archive, tmp_path / "root", progress=False)
    assert server.requests == [None] + ["bytes=1000-"] * (module.ATTEMPTS - 1)


def test_bytes_that_were_not_asked_for_are_thrown_away(server: Server, voc: Path, tmp_path: Path):
    archive = offer(server, "voc.tar", tar_of(voc))
    server.cut_after, server.shift = [1000], -100
    fetch(archive, tmp_path / "root", progress=False)
    assert server.requests == [None, "bytes=1000-", None]
    assert files_of(tmp_path / "root") == files_of(voc)


def test_pauses_between_attempts_double(server: Server, voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    archive = offer(server, "voc.tar", tar_of(voc))
    pauses: list[float] = []
    monkeypatch.setattr(module, "PAUSE", 1.0)
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    server.fail_with = [500, 503, 429, 408]
    fetch(archive, tmp_path / "root", progress=False)
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    assert files_of(tmp_path / "root") == files_of(voc)


def test_a_server_that_cannot_be_reached_is_not_taken_for_a_wrong_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    archive = Archive(f"http://127.0.0.1:{port}/voc.tar", "sha256:" + "0" * 64, 0.0, FOLDER)
    with pytest.raises(DatasetError, match=f"^Cannot download http://127.0.0.1:{port}/voc.tar: .*refused") as caught:
        fetch(archive, tmp_path, progress=False)
    assert "is kept" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_write_to_one_download(server: Server, voc: Path, tmp_path: Path):
    fcntl = pytest.importorskip("fcntl", reason="folders cannot be locked on Windows")
    archive = offer(server, "voc.tar", tar_of(voc))
    workplace(tmp_path).mkdir()
    handle = os.open(workplace(tmp_path), os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        with pytest.raises(DatasetError, match=r"Another process is downloading into .*\.voc\.tar\.download"):
            fetch(archive, tmp_path, progress=False)
        assert server.requests == []
    finally:
        os.close(handle)
    fetch(archive, tmp_path, progress=False)
    assert len(server.requests) == 1


@pytest.mark.parametrize("package", ["pooch", "requests", "tqdm"])
def test_a_missing_package_names_the_extra(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"^Downloads need {package}: pip install 'rss-env\[cli\]'$"):
        download("VOC", tmp_path / "root")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_if_it_is_wanted(
    progress: bool, server: Server, voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    fetch(offer(server, "voc.tar", tar_of(voc)), tmp_path / "root", progress=progress)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("voc.tar: 100%" in shown.err) == progress
    assert progress or shown.err == ""


@pytest.mark.parametrize("more", [0, 7])
def test_a_part_as_long_as_the_file_or_longer_is_handled(server: Server, voc: Path, tmp_path: Path, more: int):
    body = tar_of(voc)
    archive = offer(server, "voc.tar", body)
    workplace(tmp_path / "root").mkdir(parents=True)
    (workplace(tmp_path / "root") / "voc.tar.part").write_bytes(body + b"x" * more)
    fetch(archive, tmp_path / "root", progress=False)
    assert server.requests == [f"bytes={len(body) + more}-"] + [None] * bool(more)
    assert files_of(tmp_path / "root") == files_of(voc)


def test_a_server_in_trouble_is_asked_again_and_a_missing_file_is_not(server: Server, voc: Path, tmp_path: Path):
    archive = offer(server, "voc.tar", tar_of(voc))
    server.fail_with = [500, 503]
    fetch(archive, tmp_path / "root", progress=False)
    assert len(server.requests) == 3
    gone = dataclasses.replace(archive, url=server.url("gone.tar"))
    with pytest.raises(DatasetError, match=r"^Cannot download http://127.0.0.1:\d+/gone.tar: 404"):
        fetch(gone, tmp_path, progress=False)
    assert len(server.requests) == 4
    server.fail_with = [500] * module.ATTEMPTS
    with pytest.raises(DatasetError, match=r"^Cannot download http://127.0.0.1:\d+/voc.tar: 500"):
        fetch(archive, tmp_path / "other", progress=False)
    assert len(server.requests) == 4 + module.ATTEMPTS


def test_a_wrong_checksum_names_both_removes_the_file_and_extracts_nothing(server: Server, voc: Path, tmp_path: Path):
    archive = offer(server, "voc.tar", tar_of(voc))
    actual = archive.checksum.removeprefix("sha256:")
    wrong = dataclasses.replace(archive, checksum="sha256:" + "0" * 64)
    root = tmp_path / "root"
    with pytest.raises(DatasetError, match=f"is not the file that was expected: (?s:.*){'0' * 64}(?s:.*){actual}"):
        fetch(wrong, root, progress=False)
    assert list(root.iterdir()) == []
    fetch(archive, root, progress=False)
    assert server.requests == [None, None]
    assert files_of(root) == files_of(voc)


# Several addresses


def _closed_port() -> int:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return closed.getsockname()[1]


@pytest.fixture
def second(server: Server) -> Iterator[Server]:
    serving = Server()
    yield serving
    serving.close()


def _refused(_: Server, __: bytes) -> str:
    return f"http://127.0.0.1:{_closed_port()}/voc.tar"


def _missing(first: Server, _: bytes) -> str:
    return first.url("gone.tar")


def _wrong(first: Server, body: bytes) -> str:
    first.files["voc.tar"] = body[:-1] + b"x"
    return first.url("voc.tar")


def _page(first: Server, _: bytes) -> str:
    first.files["voc.tar"] = b"<html>This data set has moved.</html>"
    return first.url("voc.tar")


def _broken(first: Server, _: bytes) -> str:
    first.fail_with = [500] * 9
    return first.url("voc.tar")


def _too_much(first: Server, body: bytes) -> str:
    first.files["voc.tar"] = body * 2
    return first.url("voc.tar")


def _no_address(_: Server, __: bytes) -> str:
    return "voc.tar"


DEAD = [_refused, _missing, _wrong, _page, _broken, _too_much, _no_address]


@pytest.mark.parametrize("as_mirror", [False, True])
@pytest.mark.parametrize("dead", DEAD)
def test_the_next_address_serves_where_the_first_does_not(
    server: Server,
    second: Server,
    voc: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    dead: Callable[[Server, bytes], str],
    as_mirror: bool,
):
    body = tar_of(voc)
    archive, first = offer(second, "voc.tar", body), dead(server, body)
    if as_mirror:
        fetch(archive, tmp_path / "root", mirror=first, progress=False)
    else:
        moved = dataclasses.replace(archive, url=first, mirrors=(archive.url,))
        fetch(moved, tmp_path / "root", progress=False)
    assert files_of(tmp_path / "root") == files_of(voc)
    assert [p.name for p in (tmp_path / "root").iterdir()] == ["VOCdevkit"]
    (message,) = (record.getMessage() for record in caplog.records if record.name == module.__name__)
    assert first in message
    assert message.endswith(f" Trying {archive.url}.")
    assert len(server.requests) <= module.ATTEMPTS_BEFORE_ANOTHER
    assert len(second.requests) == 1


def test_where_no_address_serves_the_message_lists_what_was_tried(server: Server, voc: Path, tmp_path: Path):
    body = tar_of(voc)
    server.files["wrong.tar"] = body[:-1]
    wrong, gone, closed = server.url("wrong.tar"), server.url("gone.tar"), f"http://127.0.0.1:{_closed_port()}/voc.tar"
    archive = dataclasses.replace(offer(server, "voc.tar", body), url=closed, mirrors=(gone, wrong))
    with pytest.raises(DatasetError) as caught:
        fetch(archive, tmp_path / "root", mirror=gone, progress=False)  # named twice, tried once
    lines = str(caught.value).splitlines()
    assert lines[0] == "None of 3 addresses served voc.tar:"
    assert lines[1].startswith(f"  Cannot download {gone}: 404 ")
    assert lines[2].startswith(f"  Cannot download {closed}: ")
    assert lines[3].startswith(f"  {wrong} is not the file that was expected: ")
    assert not list((tmp_path / "root").iterdir())


def test_what_one_address_sent_before_it_died_is_not_asked_of_the_next(
    server: Server, second: Server, voc: Path, tmp_path: Path
):
    body = tar_of(voc)
    first = offer(server, "voc.tar", body)
    server.cut_after, server.knows_ranges = [1000] * 9, False
    fetch(dataclasses.replace(first, mirrors=(offer(second, "voc.tar", body).url,)), tmp_path / "root", progress=False)
    assert second.requests == ["bytes=1000-"]
    assert files_of(tmp_path / "root") == files_of(voc)


def test_wrong_bytes_from_before_cost_one_more_request_not_the_download(server: Server, voc: Path, tmp_path: Path):
    archive = offer(server, "voc.tar", tar_of(voc))
    workplace(tmp_path / "root").mkdir(parents=True)
    (workplace(tmp_path / "root") / "voc.tar.part").write_bytes(b"x" * 1000)
    fetch(archive, tmp_path / "root", progress=False)
    assert server.requests == ["bytes=1000-", None]
    assert files_of(tmp_path / "root") == files_of(voc)


def test_one_mirror_cannot_serve_several_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    entry = DATASETS["VOC"]
    card = dataclasses.replace(entry.info, archives=entry.info.archives * 2)
    monkeypatch.setitem(DATASETS, "VOC", dataclasses.replace(entry, info=card))
    with pytest.raises(DatasetError, match="VOC consists of 2 archives, so one mirror cannot serve it"):
        download("VOC", tmp_path, mirror="http://localhost/voc.tar")


# Servers that mean no good


def _drip_body(_: int) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    yield from itertools.repeat(b"x")


def _drip_headers(_: int) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX-Filler: "
    yield from itertools.repeat(b"x")


def _drip_status(_: int) -> Iterator[bytes]:
    yield from itertools.repeat(b"H")


def _drip_chunk_size(_: int) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;"
    yield from itertools.repeat(b"x")


def _drip_redirect(_: int) -> Iterator[bytes]:
    yield b"HTTP/1.1 302 Found\r\nLocation: /voc.tar\r\nContent-Length: 1000000\r\n\r\n"
    yield from itertools.repeat(b"x")


def _a_byte_each_time(number: int) -> Iterator[bytes]:
    if number == 0:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx"
    else:
        yield (
            f"HTTP/1.1 206 Partial\r\nContent-Range: bytes {number}-999999/1000000\r\n"
            f"Content-Length: {1_000_000 - number}\r\n\r\nx"
        ).encode()


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        (_drip_body, "the server sent less than 65,536 bytes in 0.2 seconds"),
        (_drip_headers, "the server sent less than 65,536 bytes in 0.2 seconds"),
        (_drip_status, "the server sent less than 65,536 bytes in 0.2 seconds"),
        (_drip_chunk_size, "the server sent less than 65,536 bytes in 0.2 seconds"),
        (_drip_redirect, "the server redirects more than 10 times"),
        (_a_byte_each_time, "the connection ended after 3 of 1,000,000 bytes"),
    ],
)
def test_a_server_that_drips_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: Callable[[int], Iterator[bytes]], reason: str
):
    monkeypatch.setattr(module, "PAUSE", 0.05 if pieces is _a_byte_each_time else 0.0)
    monkeypatch.setattr(module, "PATIENCE", 60.0 if pieces is _drip_redirect else 0.2)
    monkeypatch.setattr(module, "ATTEMPTS", 3)
    serving = RawServer(pieces, 0.01)
    archive = Archive(serving.url, "sha256:" + "0" * 64, 0.0, FOLDER)
    try:
        with pytest.raises(DatasetError, match=f"^Cannot download {serving.url}: {reason}"):
            fetch(archive, tmp_path, progress=False)
    finally:
        serving.close()
    assert serving.connections == (30 if pieces is _drip_redirect else 3)


@pytest.mark.parametrize("said", [True, False])
def test_a_server_that_sends_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bool):
    def flood(_: int) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 999999999999\r\n" if said else b"") + b"\r\n"
        yield from itertools.repeat(bytes(1 << 20))

    serving = RawServer(flood, 0.0)
    archive = Archive(serving.url, "sha256:" + "0" * 64, 0.0, FOLDER)
    try:
        with pytest.raises(DatasetError, match="is not the file that was expected: it has more than 100,000,000 bytes"):
            fetch(archive, tmp_path, progress=False)
    finally:
        serving.close()
    assert list(tmp_path.iterdir()) == []
    assert serving.connections == 1


@pytest.mark.parametrize("link", ["symbolic", "hard", "pipe"])
@pytest.mark.parametrize("name", ["voc.tar.part", "voc.tar", "voc.tar.extracting"])
def test_nothing_is_written_through_a_link_in_the_work_folder(
    server: Server, voc: Path, tmp_path: Path, link: str, name: str
):
    outside, place = tmp_path / "outside", workplace(tmp_path / "root") / name
    outside.write_text("mine")
    place.parent.mkdir(parents=True)
    if link == "symbolic":
        place.symlink_to(outside)
    elif link == "hard":
        place.hardlink_to(outside)
    else:
        if not hasattr(os, "mkfifo"):
            pytest.skip("this system has no named pipes")
        os.mkfifo(place)
    fetch(offer(server, "voc.tar", tar_of(voc)), tmp_path / "root", progress=False)
    assert outside.read_text() == "mine"
    assert files_of(tmp_path / "root") == files_of(voc)


def test_a_work_folder_that_is_a_link_is_refused(server: Server, voc: Path, tmp_path: Path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "root").mkdir()
    workplace(tmp_path / "root").symlink_to(tmp_path / "outside")
    with pytest.raises(DatasetError, match=r"\.voc\.tar\.download is a link; remove it and call again\.$"):
        fetch(offer(server, "voc.tar", tar_of(voc)), tmp_path / "root", progress=False)
    assert list((tmp_path / "outside").iterdir()) == []
    assert server.requests == []


@pytest.mark.parametrize("root", ["~nobody-of-that-name", "x" * 5000, "a\0b"])
def test_a_root_that_cannot_be_is_one_line(root: str):
    with pytest.raises(DatasetError, match=r"^root=.* is not a path that can be used: .*\.$"):
        download("VOC", root, progress=False)


def malicious_tar(*adds: Callable[[tarfile.TarFile], None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        innocent = tarfile.TarInfo(f"{FOLDER}/innocent.txt")
        innocent.size = 2
        tar.addfile(innocent, io.BytesIO(b"hi"))
        for add in adds:
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
        (
            malicious_tar(tar_member(f"{FOLDER}/link", tarfile.SYMTYPE, "../../.."), tar_member(f"{FOLDER}/link/evil")),
            "is a link or a device",
        ),
        (malicious_tar(tar_member(f"{FOLDER}/link", tarfile.SYMTYPE, "innocent.txt")), "is a link or a device"),
        (malicious_tar(tar_member(f"{FOLDER}/hard", tarfile.LNKTYPE, "/etc/passwd")), "is a link or a device"),
        (malicious_tar(tar_member(f"{FOLDER}/device", tarfile.CHRTYPE)), "is a link or a device"),
        (malicious_tar(tar_member(f"{FOLDER}/pipe", tarfile.FIFOTYPE)), "is a link or a device"),
        (malicious_zip("/tmp/evil"), "leads out of its folder"),
        (malicious_zip("../evil"), "leads out of its folder"),
        (malicious_zip(f"{FOLDER}/../../../evil"), "leads out of its folder"),
        (malicious_zip("..\\evil"), "leads out of its folder"),
        (malicious_zip("C:/evil"), "leads out of its folder"),
        (malicious_zip(f"{FOLDER}/link", 0o120777), "is a link or a device"),
        (malicious_zip(f"{FOLDER}/device", 0o020666), "is a link or a device"),
    ],
    ids=itertools.count(),  # the bytes hold the time, and processes that share the tests must agree on their names
)
def test_a_malicious_archive_is_refused_whole(server: Server, tmp_path: Path, body: bytes, reason: str):
    root = tmp_path / "a" / "b" / "root"
    with pytest.raises(DatasetError, match=f"is refused, and nothing of it was extracted: .* {reason}"):
        fetch(offer(server, "evil.archive", body), root, progress=False)
    left = [p for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert [p.name for p in left] == ["evil.archive"]
    assert not list(root.rglob("innocent.txt"))


def test_a_damaged_archive_and_one_of_something_else_are_errors(tmp_path: Path, voc: Path):
    whole, packed = tar_of(voc), gzip.compress(tar_of(voc))
    encrypted = bytearray(zip_of(voc))
    for flags in (encrypted.rindex(b"PK\x03\x04") + 6, encrypted.rindex(b"PK\x01\x02") + 8):
        encrypted[flags] |= 1  # of the last member, in both of its headers
    flipped, undecodable = bytearray(zip_of(voc)), bytearray(zip_of(voc, zipfile.ZIP_DEFLATED))
    flipped[len(flipped) // 2] ^= 255
    data, end = undecodable.rindex(b"PK\x03\x04") + 100, undecodable.index(b"PK\x01\x02")  # in the last member
    undecodable[data:end] = b"\xff" * (end - data)
    cut = [whole[: len(whole) // 2], packed[: len(packed) // 2], zip_of(voc)[:-9]]
    bodies = [b"not an archive", b"", *cut, flipped, undecodable, encrypted]
    for number, body in enumerate(bodies):
        (tmp_path / f"{number}").write_bytes(body)
        with pytest.raises(DatasetError, match=rf"(?s)^Cannot extract {tmp_path}/{number}: .*\. Is it damaged"):
            extract(tmp_path / f"{number}", FOLDER, tmp_path)
    (tmp_path / "other").write_bytes(whole)
    with pytest.raises(DatasetError, match="does not hold the folder VOCdevkit/VOC2007"):
        extract(tmp_path / "other", "VOCdevkit/VOC2007", tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [*map(str, range(len(bodies))), "original", "other"]


def test_pythons_without_tar_filters_extract_the_same(tmp_path: Path, voc: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "voc.tar").write_bytes(tar_of(voc))
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons ask for a filter
        extract(tmp_path / "voc.tar", FOLDER, tmp_path / "root")
    assert files_of(tmp_path / "root") == files_of(voc)


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


@pytest.mark.parametrize("moment", ["rename", "mkdir"])
def test_a_process_killed_in_an_extraction_leaves_nothing_that_looks_complete(voc: Path, tmp_path: Path, moment: str):
    root = tmp_path / "root"
    workplace(root).mkdir(parents=True)
    path = workplace(root) / "voc.tar"
    path.write_bytes(tar_of(voc))
    program = (
        "import os, pathlib, sys\n"
        "from rss_env.datasets.download import extract\n"
        f"pathlib.Path.{moment} = lambda *_, **__: os._exit(9)\n"
        "extract(pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3]))"
    )
    killed = subprocess.run([sys.executable, "-c", program, path, FOLDER, root], cwd=Path(__file__).parents[2])
    assert killed.returncode == 9
    assert [p.name for p in root.iterdir() if p != workplace(root)] in ([], ["VOCdevkit"])
    assert not (root / FOLDER).exists()
    extract(path, FOLDER, root)
    assert files_of(root / FOLDER) == files_of(voc / FOLDER)
    assert list(workplace(root).iterdir()) == [path]


def test_other_years_next_to_it_stay(server: Server, voc: Path, tmp_path: Path):
    other = tmp_path / "root" / "VOCdevkit" / "VOC2010" / "mine.txt"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    fetch(offer(server, "voc.tar", tar_of(voc)), tmp_path / "root", progress=False)
    assert other.read_text() == "mine"
    assert files_of(tmp_path / "root" / FOLDER) == files_of(voc / FOLDER)


@pytest.mark.parametrize("moment", ["downloading", "extracting"])
def test_a_full_disk_says_so(moment: str, server: Server, voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    archive = offer(server, "voc.tar", tar_of(voc))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((tarfile.TarFile, "extractall") if moment == "extracting" else (tqdm, "update")), full)
        with pytest.raises(DatasetError, match=r"Cannot write to .*No space left.*Free some space there and call"):
            fetch(archive, tmp_path / "root", progress=False)
    assert not (tmp_path / "root" / FOLDER).exists()
    fetch(archive, tmp_path / "root", progress=False)
    assert server.requests[1:] == ([] if moment == "extracting" else [f"bytes={module.CHUNK}-"])
    assert files_of(tmp_path / "root") == files_of(voc)


def test_a_root_that_is_no_folder_says_so(server: Server, voc: Path, tmp_path: Path):
    (tmp_path / "root").write_text("a file")
    with pytest.raises(DatasetError, match=r"Cannot write to .*root: .* Choose a folder that can be written"):
        fetch(offer(server, "voc.tar", tar_of(voc)), tmp_path / "root", progress=False)


@pytest.mark.parametrize("name", [n for n, entry in DATASETS.items() if entry.locate and not entry.info.archives])
def test_what_cannot_be_fetched_prints_the_steps(name: str, tmp_path: Path):
    with pytest.raises(DatasetError) as caught:
        download(name, tmp_path / "root")
    assert DATASETS[name].info.steps in str(caught.value)
    assert not (tmp_path / "root").exists()


def test_what_is_procedural_or_unknown_is_not_fetched(tmp_path: Path):
    with pytest.raises(DatasetError, match="Shapes is procedural: there is nothing to download"):
        download("shapes", tmp_path)
    with pytest.raises(OptionError, match="Unknown data set 'voc2007'; valid: Shapes, VOC, "):
        download("voc2007", tmp_path)
