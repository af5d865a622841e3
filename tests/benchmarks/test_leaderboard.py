from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import leaderboard, leaderboard_report
from benchmarks.judge import Arena, Judge, Verdict
from benchmarks.results_file import read_rows, write_rows
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
        ("exits", "its process died"),
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
    assert verdict.status == "over its time of 0 s"
    assert verdict.seconds < 5


def test_a_failed_run_has_one_row_and_others_one_a_report() -> None:
    failed = leaderboard.rows_of(Verdict("raised\nsomething | bad", queries=7), "mine", ARENA, 1, {"commit": "c"})
    assert len(failed) == 1
    assert (failed[0]["status"], failed[0]["val_miou"], failed[0]["final"]) == ("raised something | bad", "", 1)
    points = [{"reward_queries": q, "seconds": 1.0, "val_miou": 0.1, "val_pixel_accuracy": 0.2} for q in (5, 9)]
    rows = leaderboard.rows_of(Verdict(curve=points, queries=9, mean_score=0.5), "mine", ARENA, 2, {"commit": "c"})
    assert [(row["reward_queries"], row["final"], row["seed"]) for row in rows] == [(5, 0, 2), (9, 1, 2)]


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


def test_every_command_of_the_projects_own_entries_fits_its_budget(tmp_path: Path) -> None:
    for name, (words, samples) in leaderboard.COMMANDS.items():
        command = leaderboard.command_of(name, ARENA, 3, tmp_path)
        if "agents.sb3" in words:
            assert command[command.index("--reward-queries") + 1] == str(ARENA.budget)
        else:
            assert int(command[command.index("--steps") + 1]) * leaderboard.BATCH * samples <= ARENA.budget


def test_unknown_entries_and_missing_files_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for words, said in ((["--only", "mine"], "Unknown entry 'mine'"), (["--entry", "no.py"], "no.py: there is no")):
        monkeypatch.setattr("sys.argv", ["leaderboard", *words])
        with pytest.raises(OptionError, match=said):
            leaderboard.main()
