from __future__ import annotations

import errno
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.arguments import run_command
from benchmarks import leaderboard, leaderboard_report
from benchmarks.child import ROOT
from benchmarks.judge import Arena, Judge, Verdict
from benchmarks.results_file import read_rows, replacing, write_rows
from rss_env.errors import OptionError

ARENA = Arena("shapes", "RSS-Shapes-ImageReward-v0", (16, 16), 96, {"num_images": 8, "num_classes": 3})

ENTRIES = {
    "works": """
        envs = trial.make_envs(num_envs=4, samples_per_image=3)
        images, infos = envs.reset(seed=trial.seed)
        assert images.shape == (4, 16, 16, 3) and "target" not in infos
        for expected in (84, 72):
            label_maps = np.zeros((4, 3, 16, 16), np.uint8)
            images, rewards, _, _, infos = envs.step(label_maps)
            assert infos["final_info"]["scores"].shape == (4, 3) and "target" not in infos["final_info"]
            assert trial.queries_left == expected
            miou = trial.report(lambda images: np.zeros(images.shape[:3], np.uint8))
            assert 0 < miou < 1
    """,
    "spends all": """
        envs = trial.make_envs(num_envs=8, samples_per_image=5)
        envs.reset(seed=0)
        trial.report(lambda images: np.zeros(images.shape[:3], np.uint8))
        while True:
            envs.step(np.zeros((8, 5, 16, 16), np.uint8))
    """,
    "raises": "raise ValueError('out of ideas')",
    "hangs": "import time; time.sleep(1000)",
    "exits": "import os; os._exit(3)",
    "calls sys.exit": "import sys; sys.exit(0)",
    "raises deep in a library": "np.zeros(3).reshape(2)",
    "raises what cannot be printed": """
        class Silent(Exception):
            def __str__(self):
                raise ValueError
        raise Silent
    """,
    "forks and dies": """
        import os, time
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(5)
    """,
    "forks": """
        import os, time
        child = os.fork()
        if child == 0:
            time.sleep(1000)
        print(child)
        trial.report(lambda images: np.zeros(images.shape[:3], np.uint8))
    """,
    "sends garbage": "trial._pipe.send_bytes(b'garbage'); import time; time.sleep(1000)",
    "sends no message": "trial.ask(3, None)",
    "returns None": "trial.report(lambda images: None)",
    "returns floats": "envs = trial.make_envs(2); envs.reset(); envs.step(np.zeros((2, 16, 16)))",
    "returns an object": "envs = trial.make_envs(2); envs.reset(); envs.step(None)",
    "negative class": "envs = trial.make_envs(2); envs.reset(); envs.step(np.full((2, 16, 16), -1))",
    "too many environments": "trial.make_envs(97)",
    "no number of environments": "trial.make_envs(2.5)",
    "reset with nonsense": "trial.make_envs(2).reset(seed='moon')",
    "reset for the target": "trial.make_envs(2).reset(options={'expose_target': True})",
    "looks into the infos": "trial.make_envs(2).reset(seed=0)[1]['target']",
    "loads a data set": "from rss_env.datasets import load_dataset; load_dataset('Shapes')",
    "takes the generator": "from rss_env.datasets import DATASETS; DATASETS['Shapes'].generate('val', (16, 16))",
    "evaluates by itself": """
        from rss_env.evaluation import evaluate
        evaluate(lambda images: np.zeros(images.shape[:3], np.uint8), "RSS-Shapes-ImageReward-v0")
    """,
    "asks on in spite of the budget": """
        trial.report(lambda images: np.zeros(images.shape[:3], np.uint8))
        envs = trial.make_envs(8, 12)
        envs.reset(seed=0)
        for _ in range(4):
            try:
                envs.step(np.zeros((8, 12, 16, 16), np.uint8))
            except RuntimeError:
                print(trial.queries_left)
    """,
    "sleeps in its reports": "import time; trial.report(lambda images: time.sleep(1000))",
    "reports nothing": "trial.make_envs()",
    "wrong shape": "envs = trial.make_envs(2); envs.reset(seed=0); envs.step(np.zeros((2, 16, 15), np.uint8))",
    "wrong class": "envs = trial.make_envs(2); envs.reset(seed=0); envs.step(np.full((2, 16, 16), 3, np.uint8))",
    "wrong report": "trial.report(lambda images: np.zeros((1, 2, 3), np.uint8))",
    "raises in its report": "trial.report(lambda images: 1 / 0)",
    "no reset": "trial.make_envs(2).step(np.zeros((2, 16, 16), np.uint8))",
    "asks for the task": "envs = trial.make_envs(2); envs.unwrapped.task.dataset.targets",
    "asks with an option": "trial.ask('make', {'num_envs': 2, 'samples_per_image': None, 'expose_target': True})",
    "makes its own": """
        import gymnasium as gym, rss_env
        gym.make_vec("RSS-Shapes-ImageReward-v0", num_envs=1, expose_target=True)
    """,
    "catches the end": """
        envs = trial.make_envs(2)
        try:
            envs.task
        except Exception:
            pass
        trial.report(lambda images: np.zeros(images.shape[:3], np.uint8))
    """,
}


def write_entry(folder: Path, name: str) -> Path:
    body = "\n".join("    " + line.removeprefix("        ") for line in ENTRIES[name].strip("\n").splitlines())
    path = folder / "entry.py"
    path.write_text(f"import numpy as np\n\n\ndef train(trial):\n{body}\n")
    return path


def judge(folder: Path, name: str, seconds: float = 60) -> Verdict:
    return Judge(write_entry(folder, name), ARENA, 1, seconds).run()


def test_an_entry_that_works_is_evaluated_at_every_report_and_its_queries_and_scores_are_counted(
    tmp_path: Path,
) -> None:
    verdict = judge(tmp_path, "works")
    assert verdict.status == "ok"
    assert [point["reward_queries"] for point in verdict.curve] == [12, 24]
    assert verdict.queries == 24
    assert verdict.curve[0]["val_miou"] == verdict.curve[1]["val_miou"] > 0
    assert verdict.mean_score is not None
    assert 0 < verdict.mean_score < 1


def test_the_budget_ends_an_entry_in_good_order(tmp_path: Path) -> None:
    verdict = judge(tmp_path, "spends all")
    assert (verdict.status, verdict.queries) == ("ok", 80)  # a third step of 40 would exceed 96
    assert len(verdict.curve) == 1


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("raises", r"raised ValueError: out of ideas \(entry.py, line 5\)"),
        ("exits", r"its process died \(exit code 3\)"),
        ("calls sys.exit", r"raised SystemExit: 0 \(entry.py, line 5\)"),
        ("raises deep in a library", r"raised ValueError: cannot reshape .*\(entry.py, line 5\)"),
        ("raises what cannot be printed", r"raised .*Silent: <exception str\(\) failed>"),
        ("forks and dies", r"its process died \(exit code 5\)"),
        ("sends garbage", "sent what cannot be read"),
        ("sends no message", "sent what is no message"),
        ("returns None", "invalid label maps in report: .*dtype, got object"),
        ("returns floats", "invalid label maps: .*dtype, got float64"),
        ("returns an object", "invalid label maps: .*dtype, got object"),
        ("negative class", "invalid label maps: .*from -1"),
        ("too many environments", "make_envs: a step would cost 97 queries of 96"),
        ("no number of environments", "make_envs: num_envs must be an integer of at least 1, got 2.5"),
        ("reset with nonsense", "reset: "),
        ("reset for the target", "reset: Unknown reset option 'expose_target'"),
        ("looks into the infos", "raised KeyError: 'target'"),
        ("loads a data set", "asked for targets: a data set of its own"),
        ("takes the generator", "asked for targets: a data set of its own"),
        ("evaluates by itself", "asked for targets: a data set of its own"),
        ("reports nothing", r"never called trial.report\(\)"),
        ("wrong shape", "invalid label maps: .*shape"),
        ("wrong class", "invalid label maps: .*3"),
        ("wrong report", "invalid label maps in report: "),
        ("raises in its report", "raised ZeroDivisionError: division by zero"),
        ("no reset", "invalid label maps: Call reset"),
        ("asks for the task", "asked for targets: envs.task"),
        ("asks with an option", "asked for targets: expose_target"),
        ("makes its own", "asked for targets: a data set of its own"),
        ("catches the end", "asked for targets: envs.task"),
    ],
)
def test_what_an_entry_does_wrong_is_its_status(tmp_path: Path, name: str, status: str) -> None:
    assert re.match(status, judge(tmp_path, name).status)


def test_an_entry_that_hangs_is_stopped(tmp_path: Path) -> None:
    verdict = judge(tmp_path, "hangs", seconds=0.5)
    assert verdict.status == "over its time of 0.5 s"
    assert verdict.seconds < 5


def test_a_failed_run_has_one_row_and_others_one_a_report() -> None:
    failed = leaderboard.rows_of(Verdict("raised\nsomething | bad", queries=7), "mine", ARENA, 1, {"commit": "c"})
    assert len(failed) == 1
    assert (failed[0]["status"], failed[0]["val_miou"], failed[0]["final"]) == ("raised something | bad", "", 1)
    points = [{"reward_queries": q, "seconds": 1.0, "val_miou": 0.1, "val_pixel_accuracy": 0.2} for q in (5, 9)]
    rows = leaderboard.rows_of(Verdict(curve=points, queries=9, mean_score=0.5), "mine", ARENA, 2, {"commit": "c"})
    assert [(row["reward_queries"], row["final"], row["seed"]) for row in rows] == [(5, 0, 2), (9, 1, 2)]


def test_reports_have_a_time_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.judge.REPORTING", 0.5)
    assert judge(tmp_path, "sleeps in its reports", seconds=0.6).status.startswith("over ")


def test_no_step_past_the_budget_is_scored(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    verdict = Judge(write_entry(tmp_path, "asks on in spite of the budget"), ARENA, 1, 60, log=log).run()
    assert (verdict.status, verdict.queries) == ("ok", 96)
    assert log.read_text().split() == ["0", "0", "0"]


def is_alive(pid: str) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_what_an_entry_starts_ends_with_it(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert Judge(write_entry(tmp_path, "forks"), ARENA, 1, 60, log=log).run().status == "ok"
    assert not is_alive(log.read_text().strip())


def test_a_file_that_cannot_be_imported_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "entry.py"
    for text, status in (
        ("1 / 0", "raised ZeroDivisionError: division by zero (entry.py, line 1)"),
        ("\ndef train(", "raised SyntaxError: '(' was never closed (entry.py, line 2)"),
        ("import sys\nsys.exit('bye')", "raised SystemExit: bye (entry.py, line 2)"),
        ("", "raised AttributeError: entry.py has no function train(trial)."),
    ):
        path.write_text(text)
        assert Judge(path, ARENA, 1, 60).run().status == status


def test_an_entry_may_import_its_neighbours_and_start_workers(tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("CLASS = 1")
    path = tmp_path / "entry.py"
    path.write_text(
        "import sys\nimport numpy as np\nfrom torch.utils.data import DataLoader\nfrom neighbour import CLASS\n"
        "def train(trial):\n"
        "    assert sys.argv == [__file__]\n"
        "    assert len(list(DataLoader([1, 2], num_workers=1))) == 2\n"
        "    trial.report(lambda images: np.full(images.shape[:3], CLASS))\n"
    )
    assert Judge(path, ARENA, 1, 60).run().status == "ok"


@pytest.mark.parametrize("file", ["template.py", "cleanrl_ppo.py"])
def test_the_example_entries_spend_their_budget(file: str) -> None:
    arena = Arena("shapes", "RSS-Shapes-ImageReward-v0", (16, 16), 512, {"num_images": 8, "num_classes": 3})
    verdict = Judge(leaderboard.ENTRIES / file, arena, 1, 60).run()
    assert (verdict.status, verdict.queries) == ("ok", 512)
    assert len(verdict.curve) >= 3
    assert verdict.curve[-1]["reward_queries"] == 512


def make_rows() -> list[dict[str, object]]:
    rows = []
    for name, values in {"good": [0.5, 0.6, 0.7], "better": [0.8, 0.8, 0.8]}.items():
        for seed, value in enumerate(values):
            points = [
                {"reward_queries": q, "seconds": q / 10, "val_miou": value * q / 64, "val_pixel_accuracy": 0.9}
                for q in (32, 64)
            ]
            rows += leaderboard.rows_of(Verdict(curve=points, queries=64, mean_score=0.4), name, ARENA, seed, {})
    return rows + leaderboard.rows_of(Verdict("raised <b>a|b</b>"), "bad", ARENA, 0, {})


def test_the_report_ranks_by_miou_and_lists_failures_last(tmp_path: Path) -> None:
    write_rows(tmp_path / "board.csv", make_rows())
    lines = leaderboard_report.ranking(read_rows(tmp_path / "board.csv"))
    assert [line[1] for line in lines] == ["better", "good", "bad"]
    assert lines[1][2:6] == ["0.600", "0.500–0.700", "3", "64"]
    assert lines[0][7] == "0.600"
    assert lines[2][0] == "–"
    markdown = leaderboard_report.write(tmp_path / "board.csv").read_text()
    assert "| 1 | better | 0.800 |" in markdown
    assert "raised <b>a/b</b>" in markdown
    page = (tmp_path / "board.html").read_text()
    assert "raised &lt;b&gt;a|b&lt;/b&gt;" in page
    assert "data:image/png;base64," in page
    assert "http" not in page  # nothing is fetched


def test_bounds_stand_in_the_ranking_and_take_no_place() -> None:
    point = {"reward_queries": 0, "seconds": 1.0, "val_miou": 0.75, "val_pixel_accuracy": 0.9}
    bound = leaderboard.rows_of(Verdict(curve=[point]), "cross-entropy", ARENA, 0, {})
    rows = [{key: str(value) for key, value in row.items()} for row in [*make_rows(), *bound]]
    lines = leaderboard_report.ranking(rows)
    assert [line[:2] for line in lines] == [["1", "better"], ["bound", "cross-entropy"], ["2", "good"], ["–", "bad"]]


def test_every_command_of_the_projects_own_entries_fits_its_budget(tmp_path: Path) -> None:
    for name, (words, samples) in leaderboard.COMMANDS.items():
        command = leaderboard.command_of(name, ARENA, 3, tmp_path)
        if "agents.sb3" in words:
            assert command[command.index("--reward-queries") + 1] == str(ARENA.budget)
        else:
            assert int(command[command.index("--steps") + 1]) * leaderboard.BATCH * samples <= ARENA.budget


@pytest.fixture
def run_leaderboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs the command on a small environment; gives its exit code and what it wrote to stderr."""
    monkeypatch.setattr(leaderboard, "arenas", lambda camvid: [ARENA])

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
    log = (tmp_path / "runs" / "logs" / "bad-shapes-1.txt").read_text()
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
    assert sorted(file.suffix for file in tmp_path.glob("out.*")) == [".csv", ".html", ".md", ".png", ".png"]
    assert not list(tmp_path.glob(".*"))


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


def test_results_that_cannot_be_written_leave_the_old_ones_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_rows(path, [{"a": 1}])

    def fill_the_disk() -> None:
        with replacing(path) as file:
            file.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"cannot write .*rows.csv: No space"):
        fill_the_disk()
    assert read_rows(path) == [{"a": "1"}]
    assert list(tmp_path.iterdir()) == [path]


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
    log = tmp_path / "runs" / "logs" / "hangs-shapes-1.txt"
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


def test_a_report_without_results_says_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"holds no results yet; python -m benchmarks.leaderboard"):
        leaderboard_report.write(tmp_path / "no.csv")


def test_unknown_entries_and_missing_files_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for words, said in ((["--only", "mine"], "Unknown entry 'mine'"), (["--entry", "no.py"], "no.py: there is no")):
        monkeypatch.setattr("sys.argv", ["leaderboard", *words])
        with pytest.raises(OptionError, match=said):
            leaderboard.main()
