"""The engine for SLURM with jobs of this machine, which submitit starts, ends and queues again as SLURM would."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from threading import Thread

import pytest
import submitit

from benchmarks.executors import make_executor
from rss_env.errors import OptionError
from tests.benchmarks.executors.suites import check_leaderboard, unbroken
from tests.benchmarks.executors.work import Counting, Training

LOCAL = {"cluster": "local"}
STEPS = 300


def test_a_job_that_is_killed_and_one_that_is_preempted_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitit.Job, "_results_timeout_s", 0)  # files are seen at once here
    counting = Counting(tmp_path, steps=150)

    def interfere() -> None:
        counting.wait_for_steps(0, 1)
        workers = dict(counting.begun())
        os.kill(workers[0], signal.SIGKILL)
        os.kill(workers[1], signal.SIGUSR2)  # the signal with which submitit has SLURM tell a job to make room

    thread = Thread(target=interfere)
    thread.start()
    counting.run(2, make_executor("slurm", 2, LOCAL, tmp_path))
    thread.join()
    counting.check_each_step(2, begun_again={0, 1})
    assert "Calling checkpoint method" in "".join(log.read_text() for log in tmp_path.glob("slurm/*.out"))


def test_trainings_whose_jobs_end_early_go_on_from_their_checkpoints_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitit.Job, "_results_timeout_s", 0)  # files are seen at once here
    training = Training(tmp_path / "killed", STEPS)
    training.root.mkdir()

    def interfere() -> None:
        training.wait_for_steps(0, 1)
        workers = dict(training.begun())
        os.kill(workers[0], signal.SIGKILL)
        os.kill(workers[1], signal.SIGUSR2)

    thread = Thread(target=interfere)
    thread.start()
    training.run(2, make_executor("slurm", 2, LOCAL, tmp_path))
    thread.join()
    training.check(unbroken(tmp_path, training), begun_again={0, 1})


def test_a_leaderboard_by_jobs_is_the_one_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_leaderboard("slurm", LOCAL, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"slurm_partitoin": "long"} | LOCAL, "slurm_partitoin"),
        ({"cluster": "moon"}, "moon"),
        ({"timeout_min": "long"} | LOCAL, "timeout_min"),
        ({}, "srun"),
    ],
)
def test_a_wrong_option_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], said: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OptionError, match=f"--engine slurm: .*{said}"):
        make_executor("slurm", 2, options, tmp_path)
