from __future__ import annotations

import json
import pickle
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from benchmarks.leaderboard import judge as judging
from benchmarks.leaderboard.own_entries import ENTRIES as OWN_ENTRIES
from benchmarks.tasks import Setting, Task
from tests.benchmarks.leaderboard.trials import OPTIONS, REPORT, TASK, judge_body, judge_file


def test_an_entry_that_works_is_evaluated_at_every_report_and_its_queries_and_scores_are_counted(
    tmp_path: Path,
) -> None:
    body = """
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
    """
    verdict = judge_body(tmp_path, body)
    assert verdict.status == "ok"
    assert [point["reward_queries"] for point in verdict.curve] == [12, 24]
    assert verdict.queries == 24
    assert verdict.curve[0]["val_miou"] == verdict.curve[1]["val_miou"] > 0
    assert verdict.mean_score is not None
    assert 0 < verdict.mean_score < 1


SEEN = """
    import pickle
    def seen(envs):
        first = envs.reset(seed=trial.seed, options={"index": np.array([3, 1])})
        again = envs.reset(seed=[7, None])
        label_maps = np.random.default_rng(0).integers(0, 3, (2, 4, 16, 16)).astype(">i2")[..., ::-1]
        return first, again, envs.step(label_maps), envs.step(label_maps.astype(np.uint8))
"""


def test_an_entry_gets_what_the_environment_gives(tmp_path: Path) -> None:
    body = (
        SEEN
        + f"""
    from pathlib import Path
    envs = trial.make_envs(2, 4, augment="flip")
    known = {{k: v for k, v in envs.metadata.items()}}
    samples = [space.seed(1) and space.sample() for space in (envs.observation_space, envs.action_space)]
    spaces = [envs.observation_space, envs.action_space, envs.single_observation_space, envs.single_action_space]
    Path(__file__).with_suffix(".pickle").write_bytes(pickle.dumps((seen(envs), known, samples, spaces)))
    {REPORT}
    """
    )
    assert judge_body(tmp_path, body).status == "ok"
    envs = gym.make_vec(TASK.env_id, num_envs=2, samples_per_image=4, augment="flip", **TASK.env_options)
    scope: dict = {"np": np, "trial": type("Trial", (), {"seed": 1})}
    exec("if True:" + SEEN, scope)
    given, known, samples, spaces = pickle.loads((tmp_path / "my_entry.pickle").read_bytes())
    assert_same(given, scope["seen"](envs))
    assert known == {name: value for name, value in envs.metadata.items() if name in (*judging.KNOWN, "autoreset_mode")}
    assert {"class_names", "palette", "num_images", "reward_level"} <= known.keys()
    theirs = [envs.observation_space, envs.action_space, envs.single_observation_space, envs.single_action_space]
    assert spaces == theirs
    assert_same(samples, [space.seed(1) and space.sample() for space in theirs[:2]])


def assert_same(one: object, other: object) -> None:
    """The same numbers in the same forms and dtypes."""
    if isinstance(other, dict):
        assert isinstance(one, dict)
        assert one.keys() == other.keys()
        for name in other:
            assert_same(one[name], other[name])
    elif isinstance(other, (tuple, list)):
        assert isinstance(one, (tuple, list))
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert isinstance(one, np.ndarray)
        assert isinstance(other, np.ndarray)
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if other.dtype == object:
            assert_same(list(one), list(other))
        else:
            np.testing.assert_array_equal(one, other)


def test_the_budget_ends_an_entry_in_good_order(tmp_path: Path) -> None:
    body = f"""
        envs = trial.make_envs(num_envs=8, samples_per_image=5)
        envs.reset(seed=0)
        {REPORT}
        while True:
            envs.step(np.zeros((8, 5, 16, 16), np.uint8))
    """
    verdict = judge_body(tmp_path, body)
    assert (verdict.status, verdict.queries) == ("ok", 80)  # a third step of 40 would exceed 96
    assert len(verdict.curve) == 1


def test_no_step_past_the_budget_is_scored(tmp_path: Path) -> None:
    body = f"""
        {REPORT}
        envs = trial.make_envs(8, 12)
        envs.reset(seed=0)
        for _ in range(4):
            try:
                envs.step(np.zeros((8, 12, 16, 16), np.uint8))
            except RuntimeError:
                print(trial.queries_left)
    """
    verdict = judge_body(tmp_path, body)
    assert (verdict.status, verdict.queries) == ("ok", 96)
    assert (tmp_path / "log.txt").read_text().split() == ["0", "0", "0"]


def test_a_file_that_cannot_be_imported_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "entry.py"
    for text, status in (
        ("1 / 0", "raised ZeroDivisionError: division by zero (entry.py, line 1)"),
        ("\ndef train(", "raised SyntaxError: '(' was never closed (entry.py, line 2)"),
        ("import sys\nsys.exit('bye')", "raised SystemExit: bye (entry.py, line 2)"),
        ("import moon", "raised ModuleNotFoundError: No module named 'moon' (entry.py, line 1)"),
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


@pytest.mark.parametrize("name", ["types.py", "my-agent.v2.py"])  # that of a module, and that of none
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_new_processes_find_the_entry(tmp_path: Path, name: str, method: str) -> None:
    (tmp_path / "neighbour.py").write_text("STEP = 2")
    path = tmp_path / name
    path.write_text(
        "import multiprocessing\nimport numpy as np\nfrom neighbour import STEP\n"
        "class Point:\n"
        "    def __init__(self, x): self.x = x\n"
        "def move(point): return Point(point.x + STEP)\n"
        "def train(trial):\n"
        f"    with multiprocessing.get_context({method!r}).Pool(1) as pool:\n"
        "        assert [point.x for point in pool.map(move, [Point(1), Point(2)])] == [3, 4]\n"
        f"    {REPORT}\n"
    )
    assert judge_file(path, tmp_path / "log.txt").status == "ok"


def test_threads_take_turns(tmp_path: Path) -> None:
    body = f"""
        from concurrent.futures import ThreadPoolExecutor
        envs = trial.make_envs(2)
        envs.reset(seed=0)
        def work(number):
            if number % 8 == 7:
                return {REPORT}
            return envs.step(np.zeros((2, 16, 16), np.uint8))[1].sum()
        with ThreadPoolExecutor(8) as pool:
            assert min(pool.map(work, range(48))) > 0
        print(trial.queries_left)
    """
    verdict = judge_body(tmp_path, body)
    assert (verdict.status, verdict.queries, len(verdict.curve)) == ("ok", 84, 6)
    assert (tmp_path / "log.txt").read_text() == "12\n"


def test_a_worker_that_uses_the_trial_disturbs_nobody(tmp_path: Path) -> None:
    body = f"""
        import os
        envs = trial.make_envs(2)
        envs.reset(seed=0)
        if os.fork() == 0:
            envs.reset(seed=0)
        assert os.wait()[1] != 0
        {REPORT}
    """
    assert judge_body(tmp_path, body).status == "ok"
    assert "not its workers" in (tmp_path / "log.txt").read_text()


def test_what_an_entry_is_told_does_not_name_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the seed of the images nor a folder, so images of a seed of the judge's own cannot be drawn again."""
    monkeypatch.setenv("RSS_CACHE_DIR", str(tmp_path / "cache-of-the-judge"))
    monkeypatch.chdir(tmp_path)
    body = f"""
        import json, os, sys
        from pathlib import Path
        envs = trial.make_envs(8)
        images, infos = envs.reset(seed=0)
        told = [vars(trial), envs.metadata, infos, dict(os.environ), os.getcwd(), sys.orig_argv, os.listdir()]
        Path(__file__).with_suffix(".json").write_text(json.dumps([told, images.tolist()], default=str))
        {REPORT}
    """
    shown = []
    for seed in (987654321, 0):
        task = Task("shapes-32", TASK.env_id, (16, 16), TASK.budgets, OPTIONS | {"dataset_seed": seed})
        assert judge_body(tmp_path, body, Setting(task)).status == "ok"
        told, images = json.loads((tmp_path / "my_entry.json").read_text())
        assert "987654321" not in json.dumps(told)
        assert "cache-of-the-judge" not in json.dumps(told)
        assert told[-3] != str(tmp_path)
        assert told[-1] == []
        assert not Path(told[-3]).exists()  # the working folder goes with the entry
        shown.append(images)
    assert shown[0] != shown[1]


def test_an_entry_that_removes_its_log_does_not_stop_the_judge(tmp_path: Path) -> None:
    body = f"import os; os.remove(os.readlink('/proc/self/fd/1')); {REPORT}"
    assert judge_body(tmp_path, body).status == "removed its log"


@pytest.mark.parametrize("file", ["template.py", "cleanrl_ppo.py"])
def test_the_example_entries_spend_their_budget(tmp_path: Path, file: str) -> None:
    verdict = judge_file(OWN_ENTRIES / file, tmp_path / "log.txt", Setting(TASK, budget="large"))
    assert (verdict.status, verdict.queries) == ("ok", 512)
    assert len(verdict.curve) >= 3
    assert verdict.curve[-1]["reward_queries"] == 512
