"""The one runner of training commands, as convergence and leaderboard use it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks.processes import ROOT, Processes
from benchmarks.training_runs import RunFailed, log_file, read_curve, result_file, run_all, train
from tests.benchmarks.alive import children_of, end_within, is_alive

TRAINING = ["agents.supervised", "--image-size", "16", "16", "--batch-size", "2", "--steps", "200"]
TRAINING += ["--eval-every", "100", "--log-every", "10"]


@pytest.mark.parametrize(
    "words",
    [
        ["benchmarks.convergence", "--suite", "headline", "--datasets", "shapes"],  # minutes of cross-entropy
        ["benchmarks.leaderboard", "--only", "cross-entropy"],
    ],
    ids=["convergence", "leaderboard"],
)
def test_a_benchmark_that_is_killed_leaves_no_training_process(tmp_path: Path, words: list[str]) -> None:
    paths = ["--run-dir", str(tmp_path / "runs"), "--out", str(tmp_path / "out.csv")]
    with (tmp_path / "log.txt").open("w") as log:
        benchmark = subprocess.Popen(
            [sys.executable, "-m", *words, "--seeds", "1", "--parallel", "1", *paths], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + 120
        while not list(tmp_path.glob("runs/*/metrics.jsonl")):  # it trains
            assert benchmark.poll() is None, (tmp_path / "log.txt").read_text()
            assert time.monotonic() < until
            time.sleep(0.1)
        training = children_of(benchmark.pid)
        assert len(training) == 1
        assert is_alive(training[0])
    finally:
        benchmark.kill()
    assert end_within(training, seconds=5)
    benchmark.wait()


def test_an_interrupted_run_is_resumed_and_its_curve_is_read_back(tmp_path: Path) -> None:
    folder, processes = tmp_path / "run", Processes()

    def interrupt() -> None:
        metrics = folder / "metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.01)
        processes.stop()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(RunFailed, match="stopped with exit code 130"):
        train(TRAINING, folder, processes)
    thread.join()
    before = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(before[-1])["step"] < 200

    train(TRAINING, folder, Processes())
    assert (folder / "metrics.jsonl").read_text().splitlines()[0] == before[0]
    assert [(point["step"], point["reward_queries"]) for point in read_curve(folder)] == [(100, 200), (200, 400)]

    with pytest.raises(RunFailed, match=r"stopped with exit code 2: .*seed"):
        train([*TRAINING, "--seed", "7"], folder, Processes())
    assert "error: " in log_file(folder).read_text()


def test_a_run_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        train(TRAINING, tmp_path / "run", Processes(), seconds=0.1)


def test_a_failure_cancels_what_waits_and_ends_what_is_running(tmp_path: Path) -> None:
    pids: list[int] = []
    finished: list[int] = []
    running = threading.Event()

    def work(run: int, processes: Processes) -> None:
        if run == 1:
            assert running.wait(60)
            raise RunFailed("no")
        process = processes.start("http.server", ["0"], tmp_path / f"{run}.txt")
        pids.append(process.pid)
        running.set()
        process.wait()
        processes.end(process)

    with pytest.raises(RunFailed, match="no"):
        run_numbers(tmp_path, 10, work, finished)
    assert finished == []
    assert len(pids) <= 2  # the thread of the failed run may have taken another
    assert end_within(list(map(str, pids)), seconds=0)


def run_numbers(folder: Path, runs: int, work: Callable[[int, Processes], None], finished: list[int]) -> None:
    """Does runs that are numbers, two at once, and lists those that finish."""
    add = lambda run, _: finished.append(run)  # noqa: E731
    run_all(range(runs), lambda run: folder / f"{run}", lambda _: False, work, add, parallel=2)


def test_ctrl_c_while_runs_are_submitted_ends_those_that_are_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    finished: list[int] = []
    running = threading.Event()

    def work(run: int, processes: Processes) -> None:
        process = processes.start("http.server", ["0"], tmp_path / f"{run}.txt")
        running.set()
        try:
            process.wait(20)
            ended.append(run)
        finally:
            processes.end(process)

    class Interrupted(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            if args[0].run == 1:
                assert running.wait(60)
                signal.raise_signal(signal.SIGINT)
            return super().submit(*args, **kwargs)

    monkeypatch.setattr("benchmarks.executors.threads.ThreadPoolExecutor", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_numbers(tmp_path, 5, work, finished)
    assert ended == [0]  # by Ctrl-C and not after its time
    assert finished == []  # what an interrupted run gives is no result


def test_a_result_whose_taker_was_killed_is_there_for_the_next(tmp_path: Path) -> None:
    done: list[int] = []
    taken: list[tuple[int, Any]] = []

    def work(run: int, processes: Processes) -> dict[str, Any]:
        done.append(run)
        return {"run": run, "score": 0.1}

    def run_two(finished: Callable[[int, Any], None]) -> None:
        run_all(range(2), lambda run: tmp_path / f"{run}", lambda _: False, work, finished, parallel=1)

    def die(run: int, result: Any) -> None:
        if run == 1:
            raise KeyboardInterrupt
        taken.append((run, result))

    with pytest.raises(KeyboardInterrupt):
        run_two(die)
    assert (done, taken) == ([0, 1], [(0, {"run": 0, "score": 0.1})])
    assert not result_file(tmp_path / "0").exists()
    run_two(lambda run, result: taken.append((run, result)))
    assert done == [0, 1, 0]  # these results hold nothing
    assert sorted(taken)[-1] == (1, {"run": 1, "score": 0.1})

    result_file(tmp_path / "1").write_text('{"run": 1, "sc')
    run_two(lambda run, result: taken.append((run, result)))
    assert done == [0, 1, 0, 0, 1]
    assert not list(tmp_path.glob(".*.json"))


def test_a_curve_holds_the_counts_that_were_logged_before_each_evaluation(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = [
        {"step": 1, "train/loss": 1.0, "time/reward_queries": 5, "time/seconds": 1.0},
        {"step": 1, "val/miou": 0.1, "val/pixel_accuracy": 0.2},
        {"step": 2, "train/loss": 1.0, "time/reward_queries": 10, "time/seconds": 2.04},
        {"step": 2, "val/miou": 0.3, "val/pixel_accuracy": 0.4},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_curve(tmp_path) == [
        {"step": 1, "reward_queries": 5, "seconds": 1.0, "val_miou": 0.1, "val_pixel_accuracy": 0.2},
        {"step": 2, "reward_queries": 10, "seconds": 2.0, "val_miou": 0.3, "val_pixel_accuracy": 0.4},
    ]


def test_an_evaluation_whose_queries_were_on_a_damaged_line_is_left_out(tmp_path: Path) -> None:
    rows = [
        b'{"step": 1, "time/reward_queries": 5, "time\xff',
        b'{"step": 1, "val/miou": 0.1, "val/pixel_accuracy": 0.2}',
        b'{"step": 2, "time/reward_queries": 10, "time/seconds": 2.0}',
        b'{"step": 2, "val/miou": 0.3, "val/pixel_accuracy": 0.4}',
    ]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(rows))
    assert [point["step"] for point in read_curve(tmp_path)] == [2]
