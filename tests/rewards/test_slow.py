"""Slow callables: calls at the same time, time-outs, retries, and how they end."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rss_env.env import SegmentationEnv
from rss_env.errors import JudgeError, OptionError
from rss_env.rewards import concurrent
from rss_env.vector import SegmentationVectorEnv
from tests.rewards import own

INDICES = np.array([40, 41, 42])


def scores(judge: Any, samples: int = 2, **options: Any) -> list[float]:
    """Asks a concurrent judge for 3 × ``samples`` label maps, whose first pixels are 0, 1, 2, …"""
    label_maps = np.zeros((3, samples, 4, 5), np.uint8)
    label_maps[:, :, 0, 0] = np.arange(3 * samples).reshape(3, samples)
    return judge.scores(np.zeros((3, 4, 5, 3), np.uint8), label_maps, None, INDICES, options)


class Crowd:
    """Counts calls that are running, and knows when as many met as were awaited."""

    def __init__(self, awaited: int) -> None:
        self.now = self.most = 0
        self.awaited, self.lock, self.met = awaited, threading.Lock(), threading.Event()

    def __enter__(self) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            if self.most >= self.awaited:
                self.met.set()

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.now -= 1


def in_threads(body: Callable[[int], float], seconds: float) -> Any:
    def judge(image: Any, label_map: Any, target: Any) -> float:
        given = body(int(label_map[0, 0]))
        time.sleep(seconds)
        return given

    return judge


def in_tasks(body: Callable[[int], float], seconds: float) -> Any:
    async def judge(image: Any, label_map: Any, target: Any) -> float:
        given = body(int(label_map[0, 0]))
        await asyncio.sleep(seconds)
        return given

    return judge


both = pytest.mark.parametrize("kind", [in_threads, in_tasks])


@pytest.mark.parametrize("asynchronous", [False, True])
def test_as_many_calls_as_there_are_workers_run_at_the_same_time(asynchronous: bool) -> None:
    crowd = Crowd(32)  # the first calls wait for each other

    def in_thread(image: Any, label_map: Any, target: Any) -> float:
        with crowd:
            crowd.met.wait(20)
        return float(label_map[0, 0])

    async def in_task(image: Any, label_map: Any, target: Any) -> float:
        with crowd:
            deadline = time.monotonic() + 20
            while not crowd.met.is_set() and time.monotonic() < deadline:
                await asyncio.sleep(0.001)
        return float(label_map[0, 0])

    judge = concurrent(in_task if asynchronous else in_thread, workers=32)
    assert scores(judge, samples=80) == list(range(240))
    assert crowd.most == 32


def test_a_judge_by_any_name_gives_the_scores_of_the_plain_one() -> None:
    options: dict[str, Any] = {"image_size": (8, 10), "num_images": 4, "samples_per_image": 3}
    actions = np.random.default_rng(0).integers(0, 5, (2, 3, 8, 10))
    given = []
    for name in ("agreement", "agreement_of_all", "agreement_in_threads", "agreement_of_tasks"):
        reward = f"tests.rewards.own:{name}"
        envs = SegmentationVectorEnv(num_envs=2, reward=reward, reward_options={"scale": 2, "shift": 1}, **options)
        envs.reset(seed=0)
        given.append(envs.step(actions)[4]["final_info"]["scores"].tolist())
    assert given[0] == given[1] == given[2] == given[3]
    assert all(1 < score < 3 for row in given[0] for score in row)


@both
def test_a_call_that_fails_is_tried_again(kind: Any) -> None:
    tries: Counter[int] = Counter()

    def body(number: int) -> float:
        tries[number] += 1
        if tries[number] < 3:
            raise ConnectionError("not yet")
        return number / 10

    assert scores(concurrent(kind(body, 0), backoff=0.001)) == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert tries == Counter(dict.fromkeys(range(6), 3))


@both
def test_a_call_that_fails_at_every_try_ends_the_step_and_is_named_with_its_cause(kind: Any) -> None:
    def body(number: int) -> float:
        if number == 3:
            raise ConnectionError("refused,\ncome back later")
        return 0.0

    said = r"failed 2 times for image 41, sample 1: ConnectionError: refused, come back later\.$"
    with pytest.raises(JudgeError, match=said) as raised:
        scores(concurrent(kind(body, 0), retries=1, backoff=0))
    assert isinstance(raised.value.__cause__, ConnectionError)
    with pytest.raises(JudgeError, match=r"failed for image 41, sample 1: Conn"):
        scores(concurrent(kind(body, 0), retries=0))


@both
def test_of_several_calls_that_fail_one_is_named_and_the_judge_can_be_asked_again(kind: Any) -> None:
    broken = True

    def body(number: int) -> float:
        if broken:
            raise OSError
        return 0.5

    judge = concurrent(kind(body, 0), backoff=0)
    with pytest.raises(JudgeError, match=r"failed 3 times for image 4\d, sample \d: OSError\."):
        scores(judge)
    broken = False
    assert scores(judge) == [0.5] * 6


@both
def test_a_call_that_takes_too_long_is_tried_again_and_given_up(kind: Any) -> None:
    tries: Counter[int] = Counter()

    def body(number: int) -> float:
        tries[number] += 1
        return number

    with pytest.raises(
        JudgeError, match=r"failed 2 times for image 4\d, sample \d: TimeoutError: no answer within 0.0"
    ):
        scores(concurrent(kind(body, 1), timeout=0.01, retries=1, backoff=0))
    assert max(tries.values()) == 2


def test_what_an_abandoned_call_gives_later_counts_nowhere() -> None:
    release, tries = threading.Event(), Counter[int]()

    def judge(image: Any, label_map: Any, target: Any) -> float:
        number = int(label_map[0, 0])
        tries[number] += 1
        if number == 3 and tries[number] == 1:
            release.wait(10)
            return 0.0
        if number == 3:
            release.set()
            time.sleep(0.05)  # the abandoned call gives its answer now
        return 1.0

    assert scores(concurrent(judge, timeout=0.3, backoff=0.01)) == [1.0] * 6
    assert tries[3] >= 2


@both
@pytest.mark.parametrize("wrong", [None, "0.5", float("nan"), float("inf"), 1j, np.ones(1), [0.5]])
def test_what_is_no_number_is_named_and_not_asked_for_again(kind: Any, wrong: Any) -> None:
    asked: list[int] = []

    def body(number: int) -> Any:
        asked.append(number)
        return wrong if number == 4 else 0.5

    with pytest.raises(OptionError, match=r"must give a finite number .* for image 42, sample 0\.") as raised:
        scores(concurrent(kind(body, 0), backoff=0, workers=1))
    assert repr(wrong) in str(raised.value)
    assert asked == [0, 1, 2, 3, 4]


@both
def test_ctrl_c_ends_the_wait(kind: Any) -> None:
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        scores(concurrent(kind(float, 30), timeout=None))


def test_a_step_works_where_an_event_loop_runs_already() -> None:
    async def step() -> list[float]:
        return scores(concurrent(in_tasks(float, 0)))

    assert asyncio.run(step()) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("sleep", ["time.sleep(1000)", "await asyncio.sleep(1000)"])
def test_a_call_that_never_returns_does_not_hold_up_the_exit(sleep: str) -> None:
    program = f"""
import asyncio, time
import numpy as np
from rss_env.errors import JudgeError
from rss_env.rewards import concurrent
{"async " * sleep.startswith("await")}def judge(*_):
    {sleep}
try:
    concurrent(judge, timeout=0.05, retries=0).scores(
        np.zeros((1, 4, 4, 3), np.uint8), np.zeros((1, 3, 4, 4), np.uint8), None, np.zeros(1, int), {{}}
    )
except JudgeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("sample 0: TimeoutError: no answer within 0.05 s.\n")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"workers": 0}, "workers must be an integer of at least 1, got 0"),
        ({"workers": True}, "workers must be an integer of at least 1, got True"),
        ({"retries": -1}, "retries must be an integer of at least 0, got -1"),
        ({"timeout": 0}, "timeout must be None or a positive number of seconds, got 0"),
        ({"timeout": float("nan")}, "timeout must be None or a positive number of seconds, got nan"),
        ({"backoff": -1}, "backoff must be a number of seconds of at least 0, got -1"),
        ({"backoff": "1"}, "backoff must be a number of seconds of at least 0, got '1'"),
    ],
)
def test_a_setting_that_is_out_of_range_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        concurrent(own.agreement, **settings)
    with pytest.raises(OptionError, match=said):
        concurrent(**settings)(own.agreement)


def test_no_callable_is_made_concurrent_twice() -> None:
    with pytest.raises(OptionError, match="concurrent takes a function or another callable, got concurrent"):
        concurrent(own.agreement_in_threads)
    with pytest.raises(OptionError, match="concurrent takes a function or another callable, got 7"):
        concurrent(7)
    with pytest.raises(OptionError, match="is batched, that is called once a step, so it cannot be concurrent"):
        SegmentationEnv(reward=concurrent(own.agreement_of_all), num_images=2, image_size=(8, 8))


@pytest.mark.parametrize("judge", [own.agreement_in_threads, concurrent(own.agreement, workers=3, timeout=7)])
def test_copies_and_pickles_are_asked_like_the_original(judge: Any) -> None:
    for other in (pickle.loads(pickle.dumps(judge)), copy.deepcopy(judge)):
        assert (other.judge, other.workers, other.timeout) == (judge.judge, judge.workers, judge.timeout)
    env = pickle.loads(pickle.dumps(SegmentationEnv(reward=judge, num_images=2, image_size=(8, 8))))
    env.reset(seed=0)
    assert 0 <= env.step(np.zeros((8, 8), int))[1] <= 1


def test_called_by_itself_it_is_the_callable() -> None:
    label_map = np.eye(4, dtype=np.uint8)
    assert own.agreement_in_threads(None, label_map, label_map, scale=3) == 3
    assert own.agreement_in_threads.__name__ == "agreement_in_threads"
