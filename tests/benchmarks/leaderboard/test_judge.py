from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.leaderboard.arenas import Arena
from benchmarks.leaderboard.judge import Judge, Verdict
from benchmarks.leaderboard.own_entries import ENTRIES as OWN_ENTRIES
from benchmarks.processes import Processes
from tests.benchmarks.alive import is_alive

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
    "asks for the task": "envs = trial.make_envs(2); envs.unwrapped._task.dataset.targets",
    "asks with an option": "trial.ask('make', {'num_envs': 2, 'samples_per_image': None, 'expose_target': True})",
    "makes its own": """
        import gymnasium as gym, rss_env
        gym.make_vec("RSS-Shapes-ImageReward-v0", num_envs=1, expose_target=True)
    """,
    "catches the end": """
        envs = trial.make_envs(2)
        try:
            envs._task
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


def judge_file(path: Path, log: Path, arena: Arena = ARENA, seconds: float = 60) -> Verdict:
    return Judge(path, arena, 1, seconds, Processes(), log).run()


def judge(folder: Path, name: str, seconds: float = 60) -> Verdict:
    return judge_file(write_entry(folder, name), folder / "log.txt", seconds=seconds)


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
        ("asks for the task", "asked for targets: envs._task"),
        ("asks with an option", "asked for targets: expose_target"),
        ("makes its own", "asked for targets: a data set of its own"),
        ("catches the end", "asked for targets: envs._task"),
    ],
)
def test_what_an_entry_does_wrong_is_its_status(tmp_path: Path, name: str, status: str) -> None:
    assert re.match(status, judge(tmp_path, name).status)


def test_an_entry_that_hangs_is_stopped(tmp_path: Path) -> None:
    verdict = judge(tmp_path, "hangs", seconds=0.5)
    assert verdict.status == "over its time of 0.5 s"
    assert verdict.seconds < 5


def test_reports_have_a_time_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.leaderboard.judge.REPORTING", 0.5)
    assert judge(tmp_path, "sleeps in its reports", seconds=0.6).status.startswith("over ")


def test_no_step_past_the_budget_is_scored(tmp_path: Path) -> None:
    verdict = judge(tmp_path, "asks on in spite of the budget")
    assert (verdict.status, verdict.queries) == ("ok", 96)
    assert (tmp_path / "log.txt").read_text().split() == ["0", "0", "0"]


def test_what_an_entry_starts_ends_with_it(tmp_path: Path) -> None:
    assert judge(tmp_path, "forks").status == "ok"
    assert not is_alive((tmp_path / "log.txt").read_text().strip())


def test_a_file_that_cannot_be_imported_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "entry.py"
    for text, status in (
        ("1 / 0", "raised ZeroDivisionError: division by zero (entry.py, line 1)"),
        ("\ndef train(", "raised SyntaxError: '(' was never closed (entry.py, line 2)"),
        ("import sys\nsys.exit('bye')", "raised SystemExit: bye (entry.py, line 2)"),
        ("", "raised AttributeError: entry.py has no function train(trial)."),
    ):
        path.write_text(text)
        assert judge_file(path, tmp_path / "log.txt").status == status


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
    assert judge_file(path, tmp_path / "log.txt").status == "ok"


@pytest.mark.parametrize("file", ["template.py", "cleanrl_ppo.py"])
def test_the_example_entries_spend_their_budget(tmp_path: Path, file: str) -> None:
    arena = Arena("shapes", "RSS-Shapes-ImageReward-v0", (16, 16), 512, {"num_images": 8, "num_classes": 3})
    verdict = judge_file(OWN_ENTRIES / file, tmp_path / "log.txt", arena)
    assert (verdict.status, verdict.queries) == ("ok", 512)
    assert len(verdict.curve) >= 3
    assert verdict.curve[-1]["reward_queries"] == 512
