"""The answers of a slow judge in a file, so that what was answered is not asked again: after a crash, or another day.

An answer is found by a digest of everything that it depends on: the judge's name and its options, the image, the label
map and the target. A label map that occurs several times in one step, as where an agent measures the noise of the
scores, is asked and stored as often.

The file is an SQLite database, ``answers.sqlite`` say, with one table, ``answers``. SQLite keeps it whole whenever a
process is killed or the power fails, and lets several processes of one machine write it at once.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from rss_env.errors import JudgeError
from rss_env.rewards.arrays import Array

WAIT = 60.0  # seconds for other processes to finish writing


class Answers:
    """A log of answers, open in a ``with`` block.

    Args:
        path: the file; it is made where there is none, with its folder.

    Raises:
        JudgeError: the file cannot be read or written, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Answers:
        with self._named():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=WAIT)
        try:
            with self._named():
                self._prepare()
        except JudgeError:
            self._database.close()
            raise
        return self

    def _prepare(self) -> None:
        execute = self._database.execute
        if execute("PRAGMA journal_mode").fetchone() != ("wal",):
            execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=FULL")  # an answer that is used is on the disk
        with self._database:
            execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, score REAL, crc INTEGER) WITHOUT ROWID")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    @staticmethod
    def keys(name: str, options: str, images: Array, label_maps: Array, targets: Array | None) -> list[bytes]:
        """The digest of each of B·K queries, image by image; arguments as for ``CallableReward.score``."""
        images, label_maps = _on_host(images), _on_host(label_maps)
        targets = None if targets is None else _on_host(targets)
        digests = []
        for b, image in enumerate(images):
            shown = hashlib.sha256(repr((name, options, image.shape, targets is None)).encode())
            shown.update(image.tobytes())
            if targets is not None:
                shown.update(targets[b].tobytes())
            for label_map in label_maps[b]:
                query = shown.copy()
                query.update(label_map.tobytes())
                digests.append(query.digest())
        seen: Counter[bytes] = Counter()
        keys = []
        for digest in digests:
            keys.append(digest if not seen[digest] else hashlib.sha256(digest + b"%d" % seen[digest]).digest())
            seen[digest] += 1
        return keys

    def find(self, keys: Sequence[bytes]) -> dict[int, float]:
        """The scores that are known, by the position of their key."""
        found: dict[int, float] = {}
        with self._named():
            for number, key in enumerate(keys):
                row = self._database.execute("SELECT score, crc FROM answers WHERE key = ?", (key,)).fetchone()
                if row is None:
                    continue
                if not isinstance(row[0], float) or row[1] != _crc(key, row[0]):
                    raise sqlite3.DatabaseError("a score does not fit its checksum")
                found[number] = row[0]
        return found

    def add(self, scores: Mapping[bytes, float]) -> None:
        """Stores scores by their keys; they are on the disk when it returns."""
        rows = [(key, score, _crc(key, score)) for key, score in scores.items()]
        with self._named(), self._database:
            self._database.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", rows)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Names the file in an error."""
        try:
            yield
        except (OSError, sqlite3.Error, UnicodeError) as error:  # SQLite's messages may quote the damage
            said = "it is damaged" if isinstance(error, UnicodeError) else " ".join(str(error).split())
            raise JudgeError(
                f"Cannot use the answers log {self.path}: {said}. If it is damaged, restore a copy of it, or move it "
                "away to begin another one."
            ) from None


def _crc(key: bytes, score: float) -> int:
    return zlib.crc32(key + struct.pack("<d", score))


def _on_host(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()
