"""Makes folders of photos that are wrong in random ways, and answers of servers that mean no good, both from a seed."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.trees import save_mask, tiny_folder, write_lines

NAMES = ["a", ".", "..", "-", "a b", "%s", "{}", "ü", "東京", "x" * 200, "con", "000.", " 000", "a\\b", "a:b", "\u2028"]
WORDS = [
    "",
    "0",
    "-1",
    "null",
    "true",
    "[]",
    "{}",
    "1e999",
    "NaN",
    '"a"',
    "[" * 3000,
    '{"classes":' * 2000,
    "\0",
    "\ufeff[]",
]


def damage_folder(root: Path, seed: int) -> dict[str, object]:
    """Writes a Folder tree with one to three faults below ``root``; returns the options to load it with."""
    rng = random.Random(seed)
    tiny_folder(root, 4)
    if rng.random() < 0.6:
        write_lines(root / "splits" / "train.txt", ["000", "001", "002"])
    if rng.random() < 0.6:
        (root / "classes.json").write_text('{"classes": ["a", "b", "c"], "palette": [[0, 0, 0], [1, 1, 1], [2, 2, 2]]}')
    for _ in range(rng.randint(1, 3)):
        fault = rng.choice(FAULTS)
        with contextlib.suppress(OSError, ValueError, KeyError):  # an earlier fault is in the way, say
            fault(root, rng)
    options: dict[str, object] = {"split": rng.choice(["train", "train", "val", "all", "all", "", "../x", "a\0"])}
    if rng.random() < 0.3:
        options["num_classes"] = rng.choice([2, 3, 255, 0, 256, -1, 3.0, "3", None, True, 10**30])
    options["resize"] = rng.choice(["pad", "crop", "stretch"])
    return options


def _a_file(root: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink()))


def _a_place(root: Path, rng: random.Random) -> Path:
    return rng.choice([root / "images", root / "masks", root / "splits", root / "classes.json", _a_file(root, rng)])


def _flip(root: Path, rng: random.Random) -> None:
    path = _a_file(root, rng)
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)


def _cut(root: Path, rng: random.Random) -> None:
    path = _a_file(root, rng)
    os.truncate(path, rng.randrange(path.stat().st_size + 1))


def _noise(root: Path, rng: random.Random) -> None:
    _a_file(root, rng).write_bytes(rng.randbytes(rng.choice([0, 1, 10, 1000])))


def _swap(root: Path, rng: random.Random) -> None:
    shutil.copy(_a_file(root, rng), _a_file(root, rng))


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _fresh(path: Path) -> Path:
    """A path that may be written: an earlier fault may have put a named pipe there, which would wait for a reader."""
    if not path.is_file():
        _clear(path)
    return path


def _remove(root: Path, rng: random.Random) -> None:
    _clear(_a_place(root, rng))


def _other_kind(root: Path, rng: random.Random) -> None:
    path = _a_place(root, rng)
    _clear(path)
    make: Callable[[], object] = rng.choice(
        [
            path.mkdir,
            path.touch,
            lambda: os.mkfifo(path),
            lambda: path.symlink_to(path),
            lambda: path.symlink_to("gone"),
            lambda: path.symlink_to("/dev/zero"),
            lambda: path.symlink_to(root),
        ]
    )
    make()


def _extra(root: Path, rng: random.Random) -> None:
    name = rng.choice(NAMES)
    for place in rng.sample(["images", "masks", "splits"], rng.randint(1, 3)):
        target = root / place / f"{name}{rng.choice(['.png', '.PNG', '.jpg', '.txt', '', '.tif'])}"
        rng.choice([target.mkdir, target.touch, lambda t=target: shutil.copy(_a_file(root, rng), t)])()


def _lines(root: Path, rng: random.Random) -> None:
    ids = ["000", "001", "./000", "000/", "a//b", "../000", "/etc/passwd", "a\0b", ".", *NAMES]
    (root / "splits").mkdir(exist_ok=True)
    ends = rng.choice(["\n", "\r\n", "\r", "\n\n", "\0"])
    text = ends.join(rng.choices(ids, k=rng.randint(0, 5)))
    _fresh(root / "splits" / "train.txt").write_bytes(text.encode(rng.choice(["utf-8", "utf-16", "utf-8-sig"])))


def _classes(root: Path, rng: random.Random) -> None:
    odd = rng.choice(WORDS)
    text = rng.choice(
        [
            odd,
            f"[{odd}, {odd}]",
            f'{{"classes": {odd}}}',
            f'{{"classes": ["a", "b", "c"], "palette": {odd}}}',
            f'{{"classes": ["a", "b", "c"], "palette": [[0, 0, 0], [0, 0, {odd}], [1, 1, 1]]}}',
            f'{{"classes": ["a", "b", "c"], "ignore_label": {odd}}}',
        ]
    )
    _fresh(root / "classes.json").write_text(text)


def _pixels(root: Path, rng: random.Random) -> None:
    place = rng.choice(["images", "masks"])
    mode = rng.choice(["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I", "I;16", "F", "YCbCr"])
    form = rng.choice(["PNG", "TIFF", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "PPM", "JPEG2000", "TGA", "ICO"])
    size = rng.choice([(8, 6), (8, 6), (1, 1), (6, 8), (3000, 1)])
    image = Image.new(mode, size, rng.choice([0, 1]))
    save = {"compression": rng.choice(["jpeg", "tiff_lzw", "zstd"])} if form == "TIFF" else {}
    with _fresh(root / place / "000.png").open("wb") as file:
        image.save(file, form, **save)


def _labels(root: Path, rng: random.Random) -> None:
    save_mask(_fresh(root / "masks" / "001.png"), np.full((6, 8), rng.choice([2, 3, 200, 254, 255]), np.uint8))


FAULTS = [_flip, _cut, _noise, _swap, _remove, _other_kind, _extra, _lines, _classes, _pixels, _labels]


def hostile_answer(body: bytes, seed: int) -> Callable[[int], Iterator[bytes]]:
    """What a server sends on each connection, by its number: pieces of an answer that is wrong in random ways."""
    rng = random.Random(seed)
    odd = [b"206 Partial", b"204 None", b"302 Found", b"401 No", b"416 Range", b"500 No", b"999 \xff", b"abc", b""]
    status = rng.choice([b"200 OK"] * 6 + [*odd, b"200 " + b"x" * 70_000])
    length = str(rng.choice([len(body)] * 4 + [0, 1, len(body) * 2, -1, 10**30])).encode()
    fields = rng.sample(
        [
            b"Content-Length: " + length,
            b"Content-Length: " + length,
            b"Content-Length: nonsense",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: nonsense",
            b"Content-Encoding: " + rng.choice([b"gzip", b"br", b"deflate", b"nonsense"]),
            b"Content-Range: bytes " + rng.choice([b"0-5/6", b"*/*", b"5-0/1", b"nonsense", b"*/" + b"9" * 5000]),
            b"Location: "
            + rng.choice([b"/voc.tar", b"file:///etc/passwd", b"http://[", b"//", b"\xff\0", b"x" * 70_000]),
            b"X: " + b"y" * rng.choice([1, 70_000]),
            b"no colon",
            b"\xff\xfe\0: \xff",
            *[b"Many: fields"] * 200,
        ][: rng.choice([7, 11, 211])],
        rng.randint(0, 4) if rng.random() < 0.9 else 7,
    )
    end = rng.choice([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"])
    start = b"HTTP/1.1 " + status + end + b"".join(field + end for field in fields) + end
    damaged = bytearray(body)
    damaged[rng.randrange(len(body))] ^= rng.choice([0, 1, 255])
    sent = bytes(
        rng.choice(
            [
                damaged,
                damaged,
                body[: rng.randrange(len(body))],
                body + b"x",
                b"",
                b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
                b"%x\r\n%s" % (len(body) * 2, body),
                b"ffffffffffffffffff\r\n" + body,
                b"nonsense\r\n" + body,
            ]
        )
    )
    start, sent = rng.choice(
        [(start, sent)] * 8 + [(start[: len(start) // 2], b""), (b"", b""), (rng.randbytes(99), b"")]
    )
    step = rng.choice([1 << 30, 1 << 30, 1000])

    def pieces(_: int) -> Iterator[bytes]:
        content = start + sent
        for first in range(0, len(content), step):
            yield content[first : first + step]

    return pieces
