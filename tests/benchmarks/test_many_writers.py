"""Several processes on one results file and one folder of runs: writers, suites, leaderboards; some are killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.convergence import __main__ as convergence
from benchmarks.convergence.suites import SUITES, Spec
from benchmarks.leaderboard import __main__ as leaderboard
from benchmarks.leaderboard import report
from benchmarks.leaderboard.judge import Verdict
from benchmarks.results_file import add_rows, read_rows, replacing
from benchmarks.tasks import Setting, Task
from tests.benchmarks.alive import is_alive

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["benchmarks.convergence.__main__", "benchmarks.leaderboard.__main__"])
METHODS = ("cross_entropy", "entropy", "replay")


@contextmanager
def started(function: Callable[..., None], *arguments: tuple[Any, ...]) -> Iterator[list[BaseProcess]]:
    """A process for each of the arguments; none is left at the end."""
    processes = [CONTEXT.Process(target=function, args=each) for each in arguments]
    try:
        for process in processes:
            process.start()
        yield processes
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def join(processes: list[BaseProcess]) -> list[int | None]:
    """Exit codes of processes that end by themselves."""
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def write(path: Path, writer: int, rows: int) -> None:
    for number in range(rows):
        add_rows(path, [{"writer": writer, "number": number}], ["writer", "number"])


def write_at_once(path: Path, writers: int, rows: int, seed: int) -> None:
    """Starts writers of so many rows each, kills one at a random moment, and reads the file until all have ended.

    The one that is killed would write for ever, so that it is never done before.
    """
    chance = random.Random(seed)
    victim, after = chance.randrange(writers), chance.randrange(1, writers * rows // 2)
    numbers: dict[str, list[str]] = {}
    asked = [10**9 if writer == victim else rows for writer in range(writers)]
    with started(write, *((path, writer, asked[writer]) for writer in range(writers))) as processes:
        while any(process.is_alive() for process in processes):
            before, numbers = numbers, defaultdict(list)
            for row in read_rows(path):
                numbers[row["writer"]].append(row["number"])
            for writer, held in numbers.items():
                assert held == list(map(str, range(len(held)))), "a row is lost or twice"
                assert len(held) >= len(before.get(writer, ()))
            if sum(map(len, numbers.values())) >= after:
                time.sleep(chance.random() / 100)
                processes[victim].kill()
            time.sleep(0.002)
        codes = join(processes)
    assert codes == [0 if writer != victim else -signal.SIGKILL for writer in range(writers)]
    add_rows(path, [{"writer": "last", "number": 0}], ["writer", "number"])
    counts = Counter((row["writer"], row["number"]) for row in read_rows(path))
    assert set(counts.values()) == {1}
    kept = [sum(writer == str(each) for writer, _ in counts) for each in range(writers)]
    assert [count for writer, count in enumerate(kept) if writer != victim] == [rows] * (writers - 1)
    assert sorted(path.parent.iterdir()) == [path.with_name(f".{path.name}.lock"), path]


def test_no_row_of_many_writers_is_lost_or_twice_when_one_is_killed(tmp_path: Path) -> None:
    write_at_once(tmp_path / "rows.csv", writers=8, rows=8, seed=0)


def die_within_a_write(path: Path) -> None:
    with replacing(path) as file:
        file.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_writer_that_dies_within_a_write_holds_up_nobody_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    add_rows(path, [{"a": 1}], ["a"])
    with started(die_within_a_write, (path,)) as processes:
        assert join(processes) == [-signal.SIGKILL]
    assert [file.name for file in tmp_path.glob("*.writing*")] == [".rows.csv.writing.csv"]
    assert read_rows(path) == [{"a": "1"}]
    add_rows(path, [{"a": 2}], ["a"])
    assert read_rows(path) == [{"a": "1"}, {"a": "2"}]
    assert not list(tmp_path.glob("*.writing*"))


def specs(seeds: tuple[int, ...]) -> list[Spec]:
    tiny = Spec("shapes", "image", "", 2, 1, (16, 16), 4, batch_size=2, evaluations=2)
    return [replace(tiny, method=method, seed=seed) for seed in seeds for method in METHODS]


@contextmanager
def doing(folder: Path) -> Iterator[None]:
    """Notes that a run is done, and that nobody else does it at the same time."""
    folder.mkdir(exist_ok=True, parents=True)
    with (folder.parent / "done.txt").open("a") as file:
        file.write(f"{folder.name}\n")
    (folder / str(os.getpid())).touch()
    assert [file.name for file in folder.iterdir() if file.name.isdigit()] == [str(os.getpid())]
    time.sleep(0.1)
    yield
    (folder / str(os.getpid())).unlink()


def train(command: list[str], folder: Path, processes: object) -> None:
    """Leaves the curve of a training run; hangs in the suite that is to hang."""
    for leftover in folder.glob("[0-9]*"):
        assert not is_alive(leftover.name), "another process does this run"
        leftover.unlink()
    with doing(folder):
        if "HANGS" in os.environ:
            time.sleep(1000)
        rows: list[dict[str, float]] = []
        for step in (2, 4):
            rows.append({"step": step, "time/reward_queries": 4 * step, "time/seconds": 1.0})
            rows.append({"step": step, "val/miou": 0.1 * step, "val/pixel_accuracy": 0.5})
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))


def run_command_line(main: Callable[[], None], folder: Path, words: list[str]) -> None:
    paths = ["--parallel", "2", "--run-dir", str(folder / "runs"), "--out", str(folder / "out.csv")]
    sys.argv = ["command", *words, *paths]
    with (folder / f"{os.getpid()}.log").open("w") as log, redirect_stdout(log), redirect_stderr(log):
        main()


def run_suite(folder: Path, seeds: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    SUITES["headline"] = lambda seeds: specs(tuple(seeds))
    convergence.train = train  # type: ignore[attr-defined,assignment]
    convergence.plots.plot = lambda out: []
    run_command_line(convergence.main, folder, ["--datasets", "shapes", "--seeds", *seeds.split()])


def points(path: Path) -> Counter[tuple[str, ...]]:
    return Counter((row["method"], row["seed"], row["step"]) for row in read_rows(path))


def done(folder: Path) -> Counter[str]:
    """How often each run was begun."""
    return Counter((folder / "runs" / "done.txt").read_text().split())


@pytest.mark.parametrize(("first", "second"), [("1", "2"), ("1 2", "2 3")])
def test_suites_at_once_keep_all_rows_and_share_the_runs(first: str, second: str, tmp_path: Path) -> None:
    with started(run_suite, (tmp_path, first, {}), (tmp_path, second, {})) as processes:
        assert join(processes) == [0, 0]
    seeds = {*first.split(), *second.split()}
    assert points(tmp_path / "out.csv") == Counter((m, s, step) for m in METHODS for s in seeds for step in "24")
    assert done(tmp_path) == Counter(spec.name for spec in specs(tuple(map(int, seeds))))


def test_a_run_of_a_suite_that_is_killed_is_done_by_the_other(tmp_path: Path) -> None:
    with started(run_suite, (tmp_path, "1", {"HANGS": "yes"})) as (hanging,):
        wait_for(lambda: (tmp_path / "runs" / "done.txt").exists() and done(tmp_path).total() == 2)
        with started(run_suite, (tmp_path, "1", {})) as (other,):
            wait_for(lambda: bool(read_rows(tmp_path / "out.csv")))
            said = tmp_path / f"{other.pid}.log"
            wait_for(lambda: "Other processes are doing 2 of the runs; waiting for them." in said.read_text())
            assert points(tmp_path / "out.csv").total() == 2  # of the run that was left
            assert other.is_alive()
            hanging.kill()
            assert join([other]) == [0]
    assert points(tmp_path / "out.csv") == Counter((method, "1", step) for method in METHODS for step in "24")
    assert sorted(done(tmp_path).values()) == [1, 2, 2]


class Judge:
    """Takes the place of the judge, whose entries are processes."""

    def __init__(self, path: Path, setting: Setting, seed: int, seconds: float, processes: object, log: Path) -> None:
        self.folder = log.parent.parent / log.stem

    def run(self) -> Verdict:
        with doing(self.folder):
            point = {"reward_queries": 1, "seconds": 1.0, "val_miou": 0.5, "val_pixel_accuracy": 0.5}
            return Verdict(curve=[point, dict(point)], queries=1, seconds=1.0, mean_score=0.5)


def run_leaderboard(folder: Path, words: list[str]) -> None:
    options = {"num_images": 8, "num_classes": 3}
    task = Task("shapes-32", "RSS-Shapes-ImageReward-v0", (16, 16), {"small": 96}, options)
    leaderboard.find_tasks = lambda names, camvid, voc: ([task], [])  # type: ignore[assignment]
    leaderboard.Judge = Judge  # type: ignore[misc,assignment]
    report.draw_curves = lambda rows, path: path  # which takes longer than all of the rest
    entries = [str(folder / f"{name}.py") for name in "abc"]
    run_command_line(leaderboard.main, folder, ["--entry", *entries, *words])


def test_leaderboards_at_once_keep_all_rows_and_share_the_runs(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.py").touch()
    old = [dict.fromkeys(report.COLUMNS, "1") | {"entry": "other", "environment": "shapes", "status": "failed"}]
    add_rows(tmp_path / "out.csv", old, ("entry", "seed"))

    def keys() -> Counter[tuple[str, ...]]:
        return Counter((row["entry"], row["seed"], row["final"]) for row in read_rows(tmp_path / "out.csv"))

    all_keys = Counter((name, seed, final) for name in "abc" for seed in "12" for final in "01")
    all_keys["other", "1", "1"] = 1
    words = ["--seeds", "1", "2"]
    with started(run_leaderboard, (tmp_path, words), (tmp_path, words)) as processes:
        assert join(processes) == [0, 0]
    assert keys() == all_keys
    assert done(tmp_path) == Counter(f"{name}-shapes-32-revisited-small-{seed}" for name in "abc" for seed in "12")
    text = (tmp_path / "out.md").read_text()
    assert all(f"| {name} |" in text for name in ("a", "b", "c", "other"))

    again = [*words, "--again", "a", "b"]
    with started(run_leaderboard, (tmp_path, again), (tmp_path, [*words, "--again", "b", "c"])) as processes:
        assert join(processes) == [0, 0]
    assert keys() == all_keys
    assert all(2 <= count <= 3 for count in done(tmp_path).values())
