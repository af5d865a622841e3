from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.training.command import run_command
from benchmarks.leaderboard import __main__ as leaderboard
from benchmarks.leaderboard import own_entries
from benchmarks.processes import ROOT
from benchmarks.results_file import read_rows
from rss_env.errors import OptionError
from tests.benchmarks.alive import is_alive
from tests.benchmarks.leaderboard.trials import SETTING, TASK


def test_every_command_of_the_projects_own_entries_fits_its_budget() -> None:
    for name, (words, samples) in own_entries.COMMANDS.items():
        command = own_entries.command_of(name, SETTING, 3)
        if "agents.sb3" in words:
            assert command[command.index("--reward-queries") + 1] == str(SETTING.queries)
        else:
            samples = samples or int(command[command.index("--samples-per-image") + 1])
            assert int(command[command.index("--steps") + 1]) * own_entries.BATCH * samples <= SETTING.queries


@pytest.fixture
def run_leaderboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs the command on a small environment; gives its exit code and what it wrote to stderr."""
    monkeypatch.setattr(leaderboard, "find_tasks", lambda names, camvid, voc: ([TASK], []))

    def run(*words: object) -> tuple[int, str]:
        command = ["leaderboard", "--seeds", 1, "--run-dir", tmp_path / "runs", "--out", tmp_path / "out.csv", *words]
        monkeypatch.setattr("sys.argv", list(map(str, command)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command(leaderboard.main)
        assert ended.value.code in (None, 0, 2, 130)
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


def write_entries(folder: Path, **bodies: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{name}.py" for name in bodies]
    for path, body in zip(paths, bodies.values(), strict=True):
        path.write_text(f"import numpy as np\ndef train(trial):\n    print('hello')\n    {body}\n")
    return paths


REPORT = "trial.report(lambda images: np.zeros(images.shape[:3], int))"


def test_others_go_on_after_an_entry_that_fails_and_only_missing_runs_are_run(
    tmp_path: Path, run_leaderboard: Callable[..., tuple[int, str]]
) -> None:
    entries = write_entries(tmp_path / "mine", bad="raise ValueError('no')", good=REPORT)
    code, said = run_leaderboard("--entry", *entries)
    assert code == 0
    assert "Traceback" not in said
    assert {row["entry"]: row["status"] for row in read_rows(tmp_path / "out.csv")} == {
        "bad": "raised ValueError: no (bad.py, line 4)",
        "good": "ok",
    }
    log = (tmp_path / "runs" / "logs" / "bad-shapes-32-revisited-small-1.txt").read_text()
    assert "hello" in log
    assert "Traceback" in log
    assert "raised ValueError: no" in (tmp_path / "out.md").read_text()

    before = (tmp_path / "out.csv").read_bytes()
    write_entries(tmp_path / "mine", bad=REPORT)
    assert run_leaderboard("--entry", *entries) == (0, "")
    assert (tmp_path / "out.csv").read_bytes() == before
    run_leaderboard("--entry", *entries, "--again", "bad")
    assert [row["entry"] for row in read_rows(tmp_path / "out.csv")] == ["good", "bad"]
    assert {row["status"] for row in read_rows(tmp_path / "out.csv")} == {"ok"}
    assert sorted(file.suffix for file in tmp_path.glob("out.*")) == [".csv", ".md", ".png", ".png"]
    assert {file.suffix for file in tmp_path.glob(".*")} == {".lock"}


def test_a_results_file_that_cannot_be_used_is_one_line_before_the_first_run(
    tmp_path: Path, run_leaderboard: Callable[..., tuple[int, str]]
) -> None:
    (entry,) = write_entries(tmp_path / "mine", good=REPORT)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "bytes.csv").write_bytes(b"a\n\xff")
    for words in (
        ["--out", tmp_path / "other.csv" / "out.csv"],
        ["--out", tmp_path / "folder.csv"],
        ["--out", tmp_path / "other.csv"],
        ["--out", tmp_path / "bytes.csv"],
        ["--out", tmp_path / "out.md"],
        ["--run-dir", tmp_path / "other.csv"],
    ):
        code, said = run_leaderboard("--entry", entry, *words)
        assert code == 2
        assert said.startswith("error: ")
        assert str(words[1]) in said
        assert len(said.splitlines()) == 1
    assert not (tmp_path / "runs" / "logs").exists() or not list((tmp_path / "runs" / "logs").iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seconds", 0], "--seconds must be positive and finite, got 0"),
        (["--seconds", "nan"], "--seconds must be positive and finite, got nan"),
        (["--parallel", 0], "--parallel must be positive"),
        (["--seeds", -1], "--seeds must be integers from 0 on, got -1"),
        (["--seeds"], "--seeds must be integers from 0 on, got none"),
        (["--again", "moon"], "Unknown entry 'moon'"),
    ],
)
def test_a_wrong_value_is_named(
    run_leaderboard: Callable[..., tuple[int, str]], words: list[object], said: str
) -> None:
    code, error = run_leaderboard(*words)
    assert code == 2
    assert error.startswith(f"error: {said}")
    assert len(error.splitlines()) == 1


def test_two_entries_of_one_name_are_refused(tmp_path: Path, run_leaderboard: Callable[..., tuple[int, str]]) -> None:
    entries = write_entries(tmp_path / "a", mine=REPORT) + write_entries(tmp_path / "b", mine=REPORT)
    assert "another entry called 'mine'" in run_leaderboard("--entry", *entries)[1]
    (entry,) = write_entries(tmp_path / "a", random=REPORT)
    assert "another entry called 'random'" in run_leaderboard("--entry", entry)[1]


def test_ctrl_c_is_one_line_and_leaves_no_process_and_no_row(tmp_path: Path) -> None:
    (entry,) = write_entries(
        tmp_path / "mine", hangs="import os, time; print(os.getpid(), flush=True); time.sleep(1000)"
    )
    log = tmp_path / "runs" / "logs" / "hangs-shapes-32-revisited-small-1.txt"
    words = ["--entry", entry, "--seeds", 1, "--run-dir", tmp_path / "runs", "--out", tmp_path / "out.csv"]
    run = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.leaderboard", *map(str, words)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    try:
        while run.poll() is None and (not log.exists() or len(log.read_text().split()) < 2):
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 130
    assert said.splitlines()[-1] == "interrupted"
    assert "Traceback" not in said
    assert not is_alive(log.read_text().split()[1])
    assert not (tmp_path / "out.csv").exists()


def test_unknown_entries_and_missing_files_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for words, said in ((["--only", "mine"], "Unknown entry 'mine'"), (["--entry", "no.py"], "no.py: there is no")):
        monkeypatch.setattr("sys.argv", ["leaderboard", *words])
        with pytest.raises(OptionError, match=said):
            leaderboard.main()
