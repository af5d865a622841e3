from __future__ import annotations

import dataclasses
import math
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.training.command import run_command
from benchmarks.leaderboard import __main__ as leaderboard
from benchmarks.leaderboard import own_entries, submission
from benchmarks.leaderboard.report import BOUNDS
from benchmarks.processes import ROOT
from benchmarks.results_file import RESULTS, read_rows
from benchmarks.tasks import FEW_VISITS, SHAPES_32, SHAPES_64, TRACKS, VISITS, Setting, Task
from benchmarks.training_runs import result_file
from rss_env.errors import OptionError
from tests.benchmarks.alive import is_alive
from tests.benchmarks.leaderboard.trials import SETTING, TASK


def test_every_command_of_the_projects_own_entries_fits_its_budget() -> None:
    for name, entry in own_entries.COMMANDS.items():
        command = own_entries.command_of(name, SETTING, 3)
        if "agents.sb3" in entry.words:
            assert command[command.index("--reward-queries") + 1] == str(SETTING.queries)
            continue
        steps = int(command[command.index("--steps") + 1])
        if not entry.asks:
            of_default = own_entries.command_of("RSS", SETTING, 3)
            assert steps == entry.times * int(of_default[of_default.index("--steps") + 1])
            assert "--samples-per-image" not in command
            continue
        samples = entry.samples or int(command[command.index("--samples-per-image") + 1])
        assert steps * own_entries.BATCH * samples <= SETTING.queries


def test_bounds_see_labels_and_only_where_they_are_others_than_the_rest() -> None:
    assert {name for name, entry in own_entries.COMMANDS.items() if not entry.asks} | {"reward tuning"} == set(BOUNDS)
    long, few = "cross-entropy, 4 times the steps", "cross-entropy, few labels"
    revisited, visits = Setting(SHAPES_32), Setting(SHAPES_32, FEW_VISITS)
    assert own_entries.is_offered(long, revisited)
    assert not own_entries.is_offered(long, visits)  # visits are what limits the steps
    assert own_entries.is_offered(few, visits)
    assert not own_entries.is_offered(few, Setting(SHAPES_32, budget="large"))  # it pays for all labels
    command = own_entries.command_of(few, visits, 1)
    assert command[command.index("--split") + 1] == "train[:900]"
    assert command[command.index("--visit-every") + 1] == "2"
    assert command[command.index("--steps") + 1] == str(2 * VISITS * 900 // own_entries.BATCH)
    assert own_entries.visits_of(command, visits) == VISITS
    assert "--split" not in own_entries.command_of("cross-entropy", visits, 1)


FEW_IMAGES = dataclasses.replace(SHAPES_64, options={"num_images": 367})  # as many as CamVid has


@pytest.mark.parametrize("task", [SHAPES_32, SHAPES_64, FEW_IMAGES])
def test_both_stages_of_reward_tuning_together_show_no_image_more_often(task: Task) -> None:
    setting = Setting(task, FEW_VISITS)
    command = own_entries.command_of("reward tuning", setting, 1)
    steps = [int(command[command.index(flag) + 1]) for flag in ("--label-steps", "--steps")]
    visits = [math.ceil(many * own_entries.BATCH / own_entries.number_of_images(task)) for many in steps]
    assert own_entries.visits_of(command, setting) == sum(visits) <= VISITS
    assert min(visits) == 2
    assert own_entries.number_of_images(FEW_IMAGES) == 367
    assert "--label-steps 500 " in " ".join(own_entries.command_of("reward tuning", Setting(task), 1))


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
    result_file(tmp_path / "runs" / "bad-shapes-32-revisited-small-1").write_text("[]")  # a killed one left it
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
        (["--engine-options", "3"], "engine_options must be a JSON object, got 3"),
        (["--engine-options", '{"num_gpus": 1}'], "--engine-options are for --engine ray and slurm"),
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


def test_results_go_outside_of_the_committed_ones_unless_one_says_so() -> None:
    args = leaderboard.LeaderboardArguments()
    assert RESULTS.resolve() not in Path(args.out).resolve().parents
    assert (args.tasks, args.tracks, args.budget, args.seeds) == (("shapes-32",), ("revisited",), "small", (1, 2, 3))


def test_a_new_entry_is_written_once_and_runs(tmp_path: Path, run_leaderboard: Callable[..., tuple[int, str]]) -> None:
    path = tmp_path / "my_agent.py"
    assert run_leaderboard("--new", path) == (0, "")
    text = path.read_text()
    assert f"--entry {path} --quick" in text
    assert len([line for line in text.splitlines() if line.lstrip().startswith("#")]) >= 4
    code, said = run_leaderboard("--new", path)
    assert (code, said) == (2, f"error: --new {path}: there is a file already; choose another name.\n")
    assert path.read_text() == text
    assert "must be a .py file" in run_leaderboard("--new", tmp_path / "agent")[1]


def test_quick_is_one_seed_of_few_entries_with_the_small_budget(tmp_path: Path) -> None:
    args = leaderboard.LeaderboardArguments(quick=True)
    runs = leaderboard.find_runs(args, leaderboard.choose(args)[1])
    assert {run.entry for run in runs} == {"one class", "PPO template", "RSS"}
    assert {(run.setting.names, run.seed) for run in runs} == {(("shapes-32", "revisited", "small"), 1)}
    (entry,) = write_entries(tmp_path, mine=REPORT)
    args = leaderboard.LeaderboardArguments(entry=(str(entry),), quick=True)
    assert [run.entry for run in leaderboard.find_runs(args, leaderboard.choose(args)[1])] == ["mine"]


def test_tasks_tracks_and_budgets_are_chosen_and_the_run_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(TASK, name="other")
    monkeypatch.setattr(leaderboard, "find_tasks", lambda names, camvid, voc: ([TASK, other], []))
    args = leaderboard.LeaderboardArguments(only=("RSS", "SB3 A2C, dense"), tracks=TRACKS, budget="large", seeds=(4,))
    keys = [run.key for run in leaderboard.find_runs(args, leaderboard.choose(args)[1])]
    assert keys == [
        ("RSS", "shapes-32", "revisited", "large", "4"),
        ("SB3 A2C, dense", "shapes-32", "revisited", "large", "4"),
        ("RSS", "shapes-32", "few_visits", "large", "4"),
        ("RSS", "other", "revisited", "large", "4"),
        ("SB3 A2C, dense", "other", "revisited", "large", "4"),
        ("RSS", "other", "few_visits", "large", "4"),
    ]


def test_work_can_be_sent_to_another_process() -> None:
    run = leaderboard.Run("mine", SETTING, 1)
    work = leaderboard.Work({"mine": Path("mine.py")}, "runs", 9.0, Path("out.csv"), {"commit": "abc"}, {"mine": "1"})
    assert pickle.loads(pickle.dumps((work, run))) == (work, run)


def test_a_submission_is_written_checked_and_run_again(
    tmp_path: Path, run_leaderboard: Callable[..., tuple[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (entry,) = write_entries(tmp_path / "mine", good=REPORT)
    file = tmp_path / "good.json"
    assert run_leaderboard("--entry", entry, "--submission", file)[0] == 0
    problems = submission.check(file, entry)
    assert problems == ["shapes-32, revisited, small: no result of seed 2, 3."]

    words = ["leaderboard", "--check", file, "--entry", entry]

    def check(*more: object) -> tuple[int, str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", list(map(str, [*words, "--run-dir", tmp_path / "runs", *more])))
            capsys.readouterr()
            code = leaderboard.main()
        return code, capsys.readouterr().out

    assert check() == (1, f"{file}: {problems[0]}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submission, "SEEDS", (1,))
        patch.setattr(submission, "find_tasks", lambda names, camvid, voc: ([TASK], []))
        assert check() == (0, f"{file}: no problem was found.\n")
        code, said = check("--rerun")
        assert code == 0
        assert "seed 1, again: test_miou " in said
        entry.write_text(entry.read_text() + "\n")
        code, said = check("--rerun")
        assert (code, said) == (1, f"{file}: code: good.py differs from what was submitted.\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tasks", "moon"], "Unknown task 'moon'; valid: shapes-32"),
        (["--tasks", "camvid"], "--tasks camvid needs --camvid FOLDER"),
        (["--camvid", "data"], "--camvid is for --tasks camvid or camvid-sequences"),
        (["--tasks"], "--tasks must name at least one"),
        (["--submission", "x.json"], "--submission is of one entry"),
        (["--rerun"], "--rerun goes with --check FILE"),
        (["--check", "x.json", "--rerun"], "--check takes the file of the entry by --entry, which --rerun needs"),
        (["--quick", "--budget", "large"], "--quick has the small budget"),
    ],
)
def test_words_that_do_not_go_together_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    run_dir = ["--run-dir", str(tmp_path), "--out", str(tmp_path / "out.csv")]
    monkeypatch.setattr("sys.argv", ["leaderboard", *run_dir, *words])
    with pytest.raises(OptionError, match=said):
        leaderboard.main()
