"""What was asked and what was answered, in a file from which nothing is lost.

The log is an SQLite database. A question is on the disk before it is shown, an answer before it is acknowledged, so
whatever was acknowledged is there after a kill or a power cut, and an answer that comes after one finds its question.
Nothing is deleted: an undo is a row of its own that cancels an answer.

    meta        key, value: the classes and the size of the label maps
    questions   id, kind, image, count, part, label_maps, chosen, updates, asked
    answers     number, question, rater, attempt, answer, seconds, time, checksum of these and of the question
    undos       number of the answer, time, checksum of these and of the answer

Label maps and parts are PNG files of numbers. ``export_lines`` writes the same as JSON lines, ``read_answers`` reads
either.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rss_env.errors import JudgeError, OptionError

STARS = 5
KINDS = ("stars", "pair", "ranking")
WAIT = 60.0  # seconds for another process to finish writing
LONGEST = 86_400.0  # seconds an answer
NAME_LENGTH = 64  # characters of a rater's name
SQLITE = b"SQLite format 3\0"
TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS questions (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, image TEXT NOT NULL, count INTEGER NOT NULL, part BLOB,
    label_maps BLOB NOT NULL, chosen TEXT NOT NULL, updates INTEGER NOT NULL, asked REAL NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    number INTEGER PRIMARY KEY AUTOINCREMENT, question TEXT NOT NULL REFERENCES questions (id), rater TEXT NOT NULL,
    attempt INTEGER NOT NULL, answer TEXT NOT NULL, seconds REAL NOT NULL, time REAL NOT NULL,
    crc INTEGER NOT NULL, UNIQUE (question, rater, attempt));
CREATE TABLE IF NOT EXISTS undos (
    number INTEGER PRIMARY KEY REFERENCES answers (number), time REAL NOT NULL, crc INTEGER NOT NULL);
"""
ANSWERS = """
SELECT a.number, a.rater, a.attempt, a.answer, a.seconds, a.time, a.crc, u.number IS NOT NULL,
       q.id, q.kind, q.image, q.count, q.part, q.label_maps, q.chosen, q.updates, q.asked
FROM answers AS a JOIN questions AS q ON q.id = a.question LEFT JOIN undos AS u ON u.number = a.number
"""


@dataclass(frozen=True, eq=False)
class Question:
    """K label maps of one image, and how they are to be judged.

    Attributes:
        id: name that no other question has.
        kind: ``"stars"``, 1 to 5 of each label map; ``"pair"``, which of two is better; ``"ranking"``, from the best to
            the worst.
        image: name of the image, ``image_name`` of its pixels.
        label_maps: uint8 (K, H, W).
        part: bool (H, W), the pixels that count; None: all.
        chosen: why it is asked: ``"active"``, ``"random"``, or ``"check"``, which is not learned from.
        updates: of the policy that drew the label maps.
        asked: seconds since 1970.
    """

    id: str
    kind: str
    image: str
    label_maps: np.ndarray
    part: np.ndarray | None = None
    chosen: str = "random"
    updates: int = 0
    asked: float = 0.0


@dataclass(frozen=True, eq=False)
class Answer:
    """What a rater said to a question.

    Attributes:
        number: 1, 2, 3, … in the order in which the answers came.
        question: what was asked.
        rater: name.
        answer: ``{"stars": [4, 1, None]}``, None where a label map was not rated; ``{"order": [[1], [0, 2]]}``, groups
            of label maps that are as good as each other, the best first; or ``{"skip": True}``.
        seconds: from when the question was shown to the answer.
        time: of the answer, seconds since 1970.
        attempt: how many answers to the question the rater took back before.
        undone: whether this one was taken back.
    """

    number: int
    question: Question
    rater: str
    answer: Mapping[str, Any]
    seconds: float
    time: float
    attempt: int = 0
    undone: bool = False


def image_name(image: np.ndarray) -> str:
    """A name that follows from the pixels of an image, uint8 (H, W, 3), so that it stays when photos are added."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()[:32]


def check_rater(rater: Any) -> str:
    """The name of a rater without spaces around it.

    Raises:
        OptionError: it is empty, too long, or cannot be printed.
    """
    name = " ".join(rater.split()) if isinstance(rater, str) else ""
    if not name or len(name) > NAME_LENGTH or not name.isprintable():
        raise OptionError(f"A rater needs a name of 1 to {NAME_LENGTH} printable characters.")
    return name


def check_answer(question: Question, answer: Any, seconds: Any) -> tuple[dict[str, Any], float]:
    """What was answered, and in how many seconds, if it fits the question.

    Raises:
        OptionError: it does not.
    """
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not number or not 0 <= seconds <= LONGEST:
        raise OptionError(f"seconds must be a number from 0 to {LONGEST:g}.")
    if not isinstance(answer, dict) or len(answer) != 1:
        raise OptionError('An answer is one of {"stars": [...]}, {"order": [[...], ...]} and {"skip": true}.')
    ((kind, value),) = answer.items()
    count = len(question.label_maps)
    if kind == "skip" and value is True:
        return answer, float(seconds)
    if kind == "stars" and question.kind == "stars":
        fits = isinstance(value, list) and len(value) == count and any(star is not None for star in value)
        if fits and all(star is None or (type(star) is int and 1 <= star <= STARS) for star in value):
            return answer, float(seconds)
        raise OptionError(f"stars must be {count} integers from 1 to {STARS}, or null for those that are not rated.")
    if kind == "order" and question.kind in ("pair", "ranking"):
        groups = isinstance(value, list) and all(isinstance(group, list) and group for group in value)
        flat = [place for group in value for place in group] if groups else []
        if all(type(place) is int for place in flat) and sorted(flat) == list(range(count)):
            return answer, float(seconds)
        raise OptionError(f"order must hold each of 0 to {count - 1} once, in groups from the best to the worst.")
    raise OptionError(f"A question of kind {question.kind!r} cannot be answered with {kind!r}.")


class AnswerLog:
    """The log of a run, which threads of one process may use at the same time.

    Args:
        path: of the file, which is made where there is none.
        class_names: C names of the classes.
        image_size: (H, W) of the label maps.

    Raises:
        JudgeError: the file cannot be read or written, is damaged, or is of other classes or another size.
    """

    def __init__(self, path: str | Path, class_names: Sequence[str], image_size: Sequence[int]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        with _named(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=WAIT, check_same_thread=False, isolation_level=None)
        try:
            with _named(self.path):
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=FULL")  # what was acknowledged is on the disk
                self._database.executescript(TABLES)
            self._check_meta({"classes": list(class_names), "image_size": list(map(int, image_size))})
        except BaseException:
            self._database.close()
            raise

    def _check_meta(self, meta: Mapping[str, Any]) -> None:
        with self._transaction() as execute:
            for key, value in meta.items():
                execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, json.dumps(value)))
            held = {key: json.loads(value) for key, value in execute("SELECT key, value FROM meta")}
        for key, value in meta.items():
            if held[key] != value:
                raise JudgeError(f"The answers in {self.path} are of {key} {held[key]}, not {value}: take another log.")

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._lock, _named(self.path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database.execute
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def ask(self, question: Question) -> None:
        """Keeps a question; it is on the disk when this returns."""
        part = None if question.part is None else as_png(question.part.astype(np.uint8)[None])
        row = (question.id, question.kind, question.image, len(question.label_maps), part, as_png(question.label_maps))
        with self._transaction() as execute:
            execute(
                "INSERT INTO questions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, question.chosen, question.updates, question.asked),
            )

    def question(self, identifier: str) -> Question | None:
        """A question by its id; None if it was never asked."""
        with self._lock, _named(self.path):
            row = self._database.execute("SELECT * FROM questions WHERE id = ?", (identifier,)).fetchone()
            return None if row is None else _question(row)

    def add(self, question: Question, rater: str, answer: Any, seconds: Any, attempt: int = 0) -> tuple[Answer, bool]:
        """Keeps an answer; it is on the disk when this returns.

        The same question, rater and attempt a second time, as when an acknowledgement got lost, change nothing.

        Args:
            question: that was asked.
            rater: name.
            answer: see ``Answer``.
            seconds: from question to answer.
            attempt: how many answers to the question the rater took back before.

        Returns:
            What the log holds, and whether it is new.

        Raises:
            OptionError: the answer does not fit the question, or the attempt is not the next one.
        """
        rater = check_rater(rater)
        answer, seconds = check_answer(question, answer, seconds)
        with self._transaction() as execute:
            rows = execute(
                "SELECT a.number, a.answer, a.seconds, a.time, a.attempt, u.number IS NOT NULL FROM answers AS a "
                "LEFT JOIN undos AS u ON u.number = a.number WHERE question = ? AND rater = ? ORDER BY a.number",
                (question.id, rater),
            ).fetchall()
            for number, held, took, when, of_attempt, undone in rows:
                if of_attempt == attempt:
                    return Answer(number, question, rater, json.loads(held), took, when, attempt, bool(undone)), False
            if attempt != len(rows) or any(not row[5] for row in rows):
                raise OptionError(f"attempt must be {len(rows)}: an answer is taken back before another one is given.")
            when = time.time()
            told = (rater, attempt, json.dumps(answer), seconds, when)
            cursor = execute(
                "INSERT INTO answers (question, rater, attempt, answer, seconds, time, crc) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (question.id, *told, _checksum(question, *told)),
            )
            number = cursor.lastrowid
        return Answer(number, question, rater, answer, seconds, when, attempt), True

    def undo(self, rater: str) -> Answer | None:
        """Takes back the last answer of a rater that stands; returns it, or None if there is none."""
        with self._transaction() as execute:
            row = execute(f"{ANSWERS} WHERE a.rater = ? AND u.number IS NULL ORDER BY a.number DESC LIMIT 1", (rater,))
            found = row.fetchone()
            if found is None:
                return None
            answer, when = _answer(found), time.time()
            execute(
                "INSERT INTO undos VALUES (?, ?, ?)",
                (answer.number, when, _undo_checksum(answer.number, when, found[6])),
            )
            return answer

    def answers(self, undone: bool = False) -> list[Answer]:
        """All answers in the order in which they came; those that were taken back only if ``undone``."""
        where = "" if undone else "WHERE u.number IS NULL"
        with self._lock, _named(self.path):
            _check_undos(self._database)
            rows = self._database.execute(f"{ANSWERS} {where} ORDER BY a.number").fetchall()
            return [_answer(row) for row in rows]

    def answered_by(self, rater: str) -> set[str]:
        """Ids of the questions that a rater has answered, those included whose answers were taken back."""
        with self._lock, _named(self.path):
            rows = self._database.execute("SELECT DISTINCT question FROM answers WHERE rater = ?", (rater,))
            return {name for (name,) in rows}

    def open_question(self, rater: str) -> tuple[Question, int] | None:
        """The question whose answer the rater took back last and did not give again, and the attempt that is due."""
        with self._lock, _named(self.path):
            row = self._database.execute(
                "SELECT q.*, COUNT(*) FROM answers AS a JOIN questions AS q ON q.id = a.question "
                "LEFT JOIN undos AS u ON u.number = a.number WHERE a.rater = ? GROUP BY q.id "
                "HAVING COUNT(*) = COUNT(u.number) ORDER BY MAX(u.time) DESC LIMIT 1",
                (rater,),
            ).fetchone()
            return None if row is None else (_question(row[:-1]), row[-1])

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._database.close()


def export_lines(answers: Iterable[Answer]) -> Iterator[str]:
    """Answers as JSON, one object a line, each ending in a line break; ``read_answers`` reads them again."""
    for answer in answers:
        question = answer.question
        yield (
            json.dumps(
                {
                    "number": answer.number,
                    "rater": answer.rater,
                    "attempt": answer.attempt,
                    "answer": answer.answer,
                    "seconds": answer.seconds,
                    "time": answer.time,
                    "undone": answer.undone,
                    "question": question.id,
                    "kind": question.kind,
                    "image": question.image,
                    "part": None if question.part is None else _base64(question.part.astype(np.uint8)[None]),
                    "label_maps": _base64(question.label_maps),
                    "count": len(question.label_maps),
                    "chosen": question.chosen,
                    "updates": question.updates,
                    "asked": question.asked,
                }
            )
            + "\n"
        )


def read_answers(path: str | Path) -> list[Answer]:
    """The answers that stand in a log: an SQLite file or its export as JSON lines.

    Raises:
        JudgeError: the file cannot be read or is damaged; the line is named.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            is_database = file.read(len(SQLITE)) == SQLITE
        if is_database:
            with _named(path):
                database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=WAIT)
                try:
                    _check_undos(database)
                    rows = database.execute(f"{ANSWERS} WHERE u.number IS NULL ORDER BY a.number").fetchall()
                finally:
                    database.close()
                return [_answer(row) for row in rows]
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise JudgeError(f"Cannot read the answers in {path}: {error}.") from None
    return [answer for number, line in enumerate(lines, 1) if not (answer := _from_line(path, number, line)).undone]


def _from_line(path: Path, number: int, line: str) -> Answer:
    questions: dict[str, Any]
    try:
        held = json.loads(line)
        part = None if held["part"] is None else _from_base64(held["part"], 1)[0].astype(bool)
        label_maps = _from_base64(held["label_maps"], int(held["count"]))
        questions = {name: held[name] for name in ("kind", "image", "chosen", "updates", "asked")}
        question = Question(held["question"], label_maps=label_maps, part=part, **questions)
        if question.kind not in KINDS:
            raise ValueError(f"kind {question.kind!r}")
        answer, seconds = check_answer(question, held["answer"], held["seconds"])
        return Answer(
            int(held["number"]),
            question,
            check_rater(held["rater"]),
            answer,
            seconds,
            float(held["time"]),
            int(held["attempt"]),
            bool(held["undone"]),
        )
    except (AttributeError, KeyError, OSError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        raise JudgeError(f"{path}, line {number}, is no answer: {type(error).__name__}: {error}.") from None


def as_png(label_maps: np.ndarray) -> bytes:
    """Label maps, uint8 (K, H, W), below each other in one grey PNG file."""
    written = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(label_maps.reshape(-1, label_maps.shape[-1]))).save(written, "PNG")
    return written.getvalue()


def from_png(data: bytes, count: int) -> np.ndarray:
    """The inverse of ``as_png`` for ``count`` label maps."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        values = np.array(picture)
    if values.dtype != np.uint8 or values.ndim != 2 or count < 1 or len(values) % count:
        raise ValueError(f"a picture of {count} label maps cannot be {values.dtype} {values.shape}")
    return values.reshape(count, -1, values.shape[-1])


def _base64(label_maps: np.ndarray) -> str:
    return base64.b64encode(as_png(label_maps)).decode()


def _from_base64(text: str, count: int) -> np.ndarray:
    return from_png(base64.b64decode(text, validate=True), count)


def _question(row: Sequence[Any]) -> Question:
    identifier, kind, image, count, part, label_maps, *chosen = row
    mask = None if part is None else from_png(part, 1)[0].astype(bool)
    return Question(identifier, kind, image, from_png(label_maps, count), mask, *chosen)


def _answer(row: Sequence[Any]) -> Answer:
    number, rater, attempt, answer, seconds, when, crc, undone, *asked = row
    question = _question(asked)
    if crc != _checksum(question, rater, attempt, answer, seconds, when):
        raise ValueError(f"answer {number} does not fit its checksum")
    return Answer(number, question, rater, json.loads(answer), seconds, when, attempt, bool(undone))


def _checksum(question: Question, *told: Any) -> int:
    """Of an answer and of its question, but for the answer's number."""
    whole = (question.id, question.kind, question.image, question.chosen, float(question.asked), *told)
    part = b"" if question.part is None else question.part.tobytes()
    return zlib.crc32(repr(whole).encode() + part + question.label_maps.tobytes())


def _undo_checksum(number: int, when: float, crc: int | None) -> int:
    """Of an undo and of its answer's checksum."""
    return zlib.crc32(repr((number, float(when), crc)).encode())


def _check_undos(database: sqlite3.Connection) -> None:
    rows = database.execute(
        "SELECT u.number, u.time, u.crc, a.crc FROM undos AS u LEFT JOIN answers AS a ON a.number = u.number"
    )
    for number, when, crc, of_answer in rows:
        if crc != _undo_checksum(number, when, of_answer):
            raise ValueError(f"what was taken back, answer {number}, does not fit its checksum")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Names the file in an error."""
    try:
        yield
    except (OSError, SyntaxError, TypeError, ValueError, sqlite3.Error) as error:  # Pillow's, of a damaged PNG
        if isinstance(error, (JudgeError, OptionError)):
            raise
        said = " ".join(str(error).split())
        raise JudgeError(
            f"Cannot use the answers in {path}: {said}. If the file is damaged, restore a copy of it, or move it away "
            "to begin another one."
        ) from None
