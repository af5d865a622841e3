"""The log of a slow judge's answers: what was answered is not asked again, whatever happened in between."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rss_env.env import SegmentationEnv
from rss_env.errors import JudgeError, OptionError
from rss_env.rewards import concurrent
from tests.extras import is_installed, tensor
from tests.rewards import own

ROOT = Path(__file__).parents[2]
DAMAGES = int(os.environ.get("RSS_TEST_ANSWERS", "20"))


class Judge:
    """Notes what it is asked."""

    def __init__(self, fails: tuple[int, ...] = ()) -> None:
        self.asked: list[int] = []
        self.fails = fails

    def __call__(self, image: Any, label_map: Any, target: Any, **options: Any) -> float:
        number = int(label_map[0, 0])
        self.asked.append(number)
        if number in self.fails:
            raise ConnectionError("gone")
        return number / 7


def scores(judge: Judge, path: Path, first: int = 0, **given: Any) -> list[float]:
    """Asks for 2 × 3 label maps whose first pixels count up from ``first``."""
    label_maps = np.zeros((2, 3, 4, 5), np.uint8)
    label_maps[:, :, 0, 0] = np.arange(first, first + 6).reshape(2, 3)
    arguments = {
        "images": np.stack([np.full((4, 5, 3), b, np.uint8) for b in range(2)]),
        "label_maps": label_maps,
        "targets": np.zeros((2, 4, 5), np.uint8),
        "indices": np.arange(2),
        "options": {},
    }
    settings = {"workers": 2, "retries": 0, "name": "counting", "answers": path}
    settings |= {key: given.pop(key) for key in set(given) & set(settings)}
    return concurrent(judge, **settings).scores(**arguments | given)


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "answers.sqlite"
    first, second = Judge(), Judge()
    assert scores(first, path) == [n / 7 for n in range(6)] == scores(second, path)
    assert (sorted(first.asked), second.asked) == ([0, 1, 2, 3, 4, 5], [])
    assert scores(second, path, first=4) == [n / 7 for n in range(4, 10)]
    # Label maps 4 and 5 were of the other image.
    assert sorted(second.asked) == [4, 5, 6, 7, 8, 9]
    assert sorted(tmp_path.rglob("answers*")) == [path]  # what SQLite has beside it while it is open is gone


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "counting 2"},
        {"options": {"strict": True}},
        {"images": np.full((2, 4, 5, 3), 9, np.uint8)},
        {"targets": np.full((2, 4, 5), 9, np.uint8)},
        {"targets": None},
        {"label_maps": np.full((2, 3, 4, 5), 9, np.uint8)},
        {"images": np.zeros((2, 5, 4, 3), np.uint8), "label_maps": np.zeros((2, 3, 5, 4), np.uint8)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_another_query_is_asked(changed: dict[str, Any], tmp_path: Path) -> None:
    judge = Judge()
    scores(judge, tmp_path / "answers.sqlite")
    scores(judge, tmp_path / "answers.sqlite", **changed)
    assert len(judge.asked) == 12


def test_a_label_map_that_occurs_twice_in_a_step_is_asked_twice_and_found_twice(tmp_path: Path) -> None:
    given = iter(range(100))

    def judge(image: Any, label_map: Any, target: Any) -> float:
        return next(given)

    same = {"label_maps": np.zeros((2, 3, 4, 5), np.uint8), "images": np.zeros((2, 4, 5, 3), np.uint8)}
    answers = scores(judge, tmp_path / "answers.sqlite", **same)  # type: ignore[arg-type]
    assert sorted(answers) == [0, 1, 2, 3, 4, 5]
    assert scores(judge, tmp_path / "answers.sqlite", **same) == answers  # type: ignore[arg-type]


def test_tensors_and_arrays_have_the_same_answers(tmp_path: Path) -> None:
    if not is_installed("torch"):
        pytest.skip("needs torch: pip install 'rss-env[torch]'")
    judge, path = Judge(), tmp_path / "answers.sqlite"
    arrays = {"images": np.zeros((2, 4, 5, 3), np.uint8), "label_maps": np.ones((2, 3, 4, 5), np.uint8)}
    scores(judge, path, **arrays)
    scores(judge, path, **{name: tensor(array) for name, array in arrays.items()})
    assert len(judge.asked) == 6


def test_what_was_answered_beside_a_failure_is_kept(tmp_path: Path) -> None:
    path, first, second = tmp_path / "answers.sqlite", Judge(fails=(4,)), Judge()
    with pytest.raises(JudgeError, match=r"The reward counting failed for image 1, sample 1: ConnectionError: gone\."):
        scores(first, path)
    assert scores(second, path) == [n / 7 for n in range(6)]
    assert not set(first.asked) - {4} & set(second.asked)
    assert {0, 1, 2} <= set(first.asked)


def test_a_wrong_answer_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    for _ in range(2):
        with pytest.raises(OptionError, match="finite number"):
            scores(lambda *_: float("nan"), path)  # type: ignore[arg-type]


KILLED = """
import os, signal, sys, time
import numpy as np
from pathlib import Path
from rss_env.rewards import concurrent

path, asked, kill_at = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

def judge(image, label_map, target):
    if len(asked.read_bytes()) == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    with asked.open("ab") as file:
        file.write(bytes([label_map[0, 0]]))
    return label_map[0, 0] / 7

label_maps = np.zeros((2, 8, 4, 5), np.uint8)
label_maps[:, :, 0, 0] = np.arange(16).reshape(2, 8)
images = np.zeros((2, 4, 5, 3), np.uint8)
slow = concurrent(judge, workers=1, answers=path, name="counting")
print(slow.scores(images, label_maps, None, np.arange(2), {}) == [n / 7 for n in range(16)])
"""


def start(program: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_step_that_was_killed_goes_on_with_its_first_unanswered_query(tmp_path: Path) -> None:
    (tmp_path / "asked").write_bytes(b"")
    for kill_at, code in ((5, -signal.SIGKILL), (11, -signal.SIGKILL), (-1, 0)):
        process = start(KILLED, tmp_path / "answers.sqlite", tmp_path / "asked", kill_at)
        said, complaint = process.communicate(timeout=60)
        assert process.returncode == code, complaint
    assert said == "True\n"
    assert (tmp_path / "asked").read_bytes() == bytes(range(16))


MANY = """
import sys
import numpy as np
from rss_env.rewards import concurrent

path, number, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sys.stdin.readline()  # all at once
slow = concurrent(lambda image, label_map, target: label_map[0, 0] / 7 + label_map[0, 1], answers=path, name="counting")
for step in range(steps):
    label_maps = np.zeros((1, 8, 4, 5), np.uint8)
    label_maps[0, :, 0, 0], label_maps[0, :, 0, 1] = np.arange(8), step % 200
    label_maps[0, 4:, 0, 2] = number  # half of them are asked by all processes
    given = slow.scores(np.zeros((1, 4, 5, 3), np.uint8), label_maps, None, np.arange(1), {})
    assert given == [n / 7 + step % 200 for n in range(8)], given
"""


def test_several_processes_share_a_log(tmp_path: Path) -> None:
    path, number, steps = tmp_path / "answers.sqlite", 4, 5
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MANY, path, str(one), str(steps)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for one in range(1, number + 1)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        assert process.communicate(timeout=60)[1] == ""
    with sqlite3.connect(path) as database:
        (rows,) = database.execute("SELECT count(*) FROM answers").fetchone()
    database.close()
    assert rows == steps * 4 * (1 + number)


def test_a_damaged_log_gives_one_line_or_the_right_scores(tmp_path: Path) -> None:
    path, draw = tmp_path / "answers.sqlite", random.Random(0)
    for first in range(0, 240, 6):
        scores(Judge(), path, first=first)
    whole, refused = path.read_bytes(), 0
    for _ in range(DAMAGES):
        damaged = bytearray(whole)
        if draw.random() < 0.3:
            damaged = damaged[: draw.randrange(len(whole))]
        for _ in range(draw.choice((1, 10, 1000)) if damaged else 0):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        said = ""
        try:
            for first in range(0, 240, 6):
                assert scores(Judge(), path, first=first) == [n / 7 for n in range(first, first + 6)]
        except JudgeError as error:
            refused += 1
            said = str(error)
        assert not said or said.startswith(f"Cannot use the answers log {path}: ")
        assert "\n" not in said
        for beside in tmp_path.glob("answers.sqlite-*"):
            beside.unlink()
    assert refused > 0


def test_a_score_that_was_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    scores(Judge(), path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE answers SET score = score + 1e-12 WHERE score > 0.7")
    database.close()
    with pytest.raises(JudgeError, match=r"a score does not fit its checksum\. If it is damaged, restore"):
        scores(Judge(), path)


def test_what_is_no_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("These are my answers. " * 100)
    with sqlite3.connect(tmp_path / "other") as database:
        database.execute("CREATE TABLE answers (question TEXT)")
    database.close()
    for path, said in (
        (tmp_path / "text", "file is not a database"),
        (tmp_path / "other", "no such column: score"),
        (tmp_path, "unable to open database file"),
        (tmp_path / "text" / "answers.sqlite", "File exists|Not a directory"),
    ):
        with pytest.raises(JudgeError, match=rf"Cannot use the answers log {path}: .*({said})"):
            scores(Judge(), path)


def test_the_log_asks_for_a_name_where_the_callable_has_none_of_its_own(tmp_path: Path) -> None:
    for judge in (Judge(), lambda *_: 0.0, own.judge.__call__):
        with pytest.raises(OptionError, match=r"answers needs name=\.\.\."):
            concurrent(judge, answers=tmp_path / "answers.sqlite")
    assert concurrent(own.agreement, answers="a").name == "tests.rewards.own:agreement"


def test_options_that_are_no_json_are_refused_when_the_environment_is_made(tmp_path: Path) -> None:
    judge = concurrent(Judge(), answers=tmp_path / "answers.sqlite", name="counting")
    with pytest.raises(OptionError, match="With an answers log reward_options must be JSON values"):
        SegmentationEnv(reward=judge, reward_options={"model": object()}, num_images=2, image_size=(8, 8))
