"""What a result is: chosen on val, reported on test, within the budget, and in few_visits without an index."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from agents.likelihood import Likelihood
from agents.training import train
from agents.training.command import parse_command
from agents.training.loop import fit
from benchmarks.leaderboard import judge as judging
from benchmarks.leaderboard import own_entries
from benchmarks.leaderboard.own_entries import COMMANDS, Command, samples_of
from benchmarks.memory import PeakMemory
from benchmarks.processes import Processes
from benchmarks.tasks import CRAFTER, FEW_VISITS, SHAPES_32, VISITS, Setting, Task
from rss_env.evaluation import evaluate
from tests.benchmarks.leaderboard.trials import FEW, OPTIONS, REPORT, SETTING, TASK, judge_body

BRIGHTNESS = "(images.mean(-1) > {}).astype(np.uint8)"


def metrics_of(level: int, split: str) -> tuple[float, float]:
    """mIoU and pixel accuracy of an entry that predicts class 1 where it is brighter."""
    options: dict[str, Any] = {"split": split} | TASK.env_options
    result = evaluate(lambda images: (images.mean(-1) > level).astype(np.uint8), TASK.env_id, **options)
    assert result.miou is not None
    assert result.pixel_accuracy is not None
    return round(result.miou, 5), round(result.pixel_accuracy, 5)


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits that the judge evaluates, in turn."""
    splits: list[str] = []

    def spy(predict: Any, task: Task, split: str) -> dict[str, float]:
        splits.append(split)
        return measure(predict, task, split)

    measure = judging.measure
    monkeypatch.setattr(judging, "measure", spy)
    return splits


def test_test_is_evaluated_once_after_the_training_by_the_predict_of_the_last_report(
    tmp_path: Path, evaluated: list[str]
) -> None:
    body = f"""
        seen = []
        def at(level):
            def predict(images):
                seen.append(ended)
                print(level, len(images), ended, flush=True)
                return {BRIGHTNESS.format("level")}
            return predict
        ended = False
        told = [trial.report(at(200)), trial.report(at(90))]
        print("told", *[round(each, 5) for each in told])
        ended = True
    """
    verdict = judge_body(tmp_path, body)
    assert verdict.status == "ok"
    assert evaluated == ["val", "val", "test"]
    val = [metrics_of(level, "val") for level in (200, 90)]
    assert [(point["val_miou"], point["val_pixel_accuracy"]) for point in verdict.curve] == val
    miou, accuracy = metrics_of(90, "test")
    assert verdict.test == {"test_miou": miou, "test_pixel_accuracy": accuracy}
    printed = (tmp_path / "log.txt").read_text().splitlines()
    assert f"told {val[0][0]} {val[1][0]}" in printed  # val, and nothing else
    after = [line.split() for line in printed if line.endswith("True")]
    assert {line[0] for line in after} == {"90"}
    assert sum(int(line[1]) for line in after) == OPTIONS["num_images"]
    assert printed[-1].endswith("True")


def test_the_budget_that_ends_an_entry_leaves_its_last_report_to_be_tested(
    tmp_path: Path, evaluated: list[str]
) -> None:
    body = f"""
        envs = trial.make_envs(num_envs=8, samples_per_image=5)
        envs.reset(seed=0)
        {REPORT}
        while True:
            envs.step(np.zeros((8, 5, 16, 16), np.uint8))
    """
    verdict = judge_body(tmp_path, body)
    assert (verdict.status, verdict.queries, evaluated) == ("ok", 80, ["val", "test"])
    assert verdict.test["test_miou"] > 0


@pytest.mark.parametrize("waits", ["time.sleep(1000)", "while True: pass", "trial._channel.receive()"])
def test_a_late_entry_keeps_its_last_report(tmp_path: Path, waits: str) -> None:
    level = BRIGHTNESS.format(90)
    verdict = judge_body(tmp_path, f"import time\ntrial.report(lambda images: {level})\n{waits}", seconds=0.5)
    assert verdict.status == "ok, over its time of 0.5 s"
    assert verdict.curve[-1]["val_miou"] == metrics_of(90, "val")[0]
    assert verdict.test["test_miou"] == metrics_of(90, "test")[0]
    assert verdict.seconds < 5


def test_an_entry_that_is_late_within_a_report_keeps_the_report_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "REPORTING", 3.0)
    body = f"import time\ntrial.report(lambda images: {BRIGHTNESS.format(90)})\ntrial.report(lambda i: time.sleep(99))"
    verdict = judge_body(tmp_path, body, seconds=1)
    assert verdict.status == "ok, over the 3 s of its reports"
    assert len(verdict.curve) == 1
    assert verdict.test["test_miou"] == metrics_of(90, "test")[0]


def test_an_entry_that_will_not_end_has_no_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "REPORTING", 0.5)
    body = f"""
        import signal
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        {REPORT}
        while True: pass
    """
    verdict = judge_body(tmp_path, body, seconds=2)
    assert verdict.status == "over its time of 2 s, and without a test"
    assert len(verdict.curve) == 1
    assert not verdict.test


TESTED = {
    "raises": ("1 / 0", "raised ZeroDivisionError: division by zero"),
    "wrong shape": ("np.zeros((1, 2, 3), np.uint8)", "invalid label maps in test: "),
    "uses the trial": ("trial.report(lambda images: 0)", "raised RuntimeError: predict cannot use the trial"),
    "dies": ("os._exit(3)", r"its process died \(exit code 3\)"),
}


@pytest.mark.parametrize("name", TESTED)
def test_what_goes_wrong_in_the_test_is_the_status(tmp_path: Path, name: str) -> None:
    wrong, status = TESTED[name]
    body = f"""
        import os
        ended = False
        trial.report(lambda images: {wrong} if ended else np.zeros(images.shape[:3], np.uint8))
        ended = True
    """
    verdict = judge_body(tmp_path, body)
    assert len(verdict.curve) == 1
    assert not verdict.test
    assert re.match(status, verdict.status)


VISITING = f"""
    import json
    from pathlib import Path
    {REPORT}
    shown = []
    def visit(num_envs, steps, flip="none"):
        envs = trial.make_envs(num_envs, 1, augment=flip)
        try:
            images, infos = envs.reset(seed=7)
            for step in range(steps):
                shown.append([images.tolist(), [*infos, *infos.get("final_info", [])], trial.visits_left])
                images, _, _, _, infos = envs.step(np.zeros((num_envs, 1, 16, 16), np.uint8))
                if step == 1:
                    images, infos = envs.reset(seed=7)
        finally:
            Path(__file__).with_suffix(".json").write_text(json.dumps(shown))
"""


@pytest.mark.parametrize("calls", ["visit(3, 99)", "visit(8, 99)", "visit(5, 99, 'flip')", "visit(3, 3); visit(4, 99)"])
def test_in_few_visits_no_image_comes_more_than_four_times_and_none_has_an_index(tmp_path: Path, calls: str) -> None:
    verdict = judge_body(tmp_path, VISITING + f"    {calls}", FEW)
    assert verdict.status == "ok"
    shown = json.loads((tmp_path / "my_entry.json").read_text())
    assert not {"index", "_index"} & {name for _, names, _ in shown for name in names}
    images = [np.array(image, np.uint8) for batch, _, _ in shown for image in batch]
    # An image that is mirrored is the same image.
    counts = Counter(min(image.tobytes(), image[:, ::-1].tobytes()) for image in images if image.any())
    assert max(counts.values()) <= VISITS
    assert verdict.most_visits is not None
    assert max(counts.values()) <= verdict.most_visits <= VISITS
    assert len(counts) == OPTIONS["num_images"]
    if calls == "visit(8, 99)":  # whole epochs: one visit of each was spent on the reset
        assert set(counts.values()) == {VISITS - 1}
        assert verdict.queries == 8 * (VISITS - 1)
        assert [left for _, _, left in shown] == [24, 16, 0, 0]  # the last images are black


def test_in_few_visits_an_image_cannot_be_asked_for(tmp_path: Path) -> None:
    body = "trial.make_envs(2).reset(options={'index': 3})"
    assert judge_body(tmp_path, body, FEW).status == "reset: the track few_visits takes no options"
    assert judge_body(tmp_path, body + f"\n{REPORT}").status == "ok"


def test_steps_left_is_what_queries_and_visits_pay_for(tmp_path: Path) -> None:
    body = f"""
        {REPORT}
        print(trial.steps_left(4, 3), trial.steps_left(4, 100), trial.visits, trial.track)
    """
    assert judge_body(tmp_path, body, FEW).status == "ok"
    assert (tmp_path / "log.txt").read_text() == "8 1 32 few_visits\n"  # 32 visits, 512 queries
    assert judge_body(tmp_path, body).status == "ok"
    assert (tmp_path / "log.txt").read_text() == "8 0 None revisited\n"  # 96 queries


def test_a_command_in_few_visits_shows_no_image_more_often_and_remembers_none(tmp_path: Path) -> None:
    setting = Setting(TASK, FEW_VISITS, "large")
    command = own_entries.command_of("RSS", setting, 1)
    words, visits = " ".join(command), VISITS * 8 // own_entries.BATCH
    every = own_entries.STEPS // visits  # what was taught of them is learned again, as often as makes so many steps
    assert f"--order epochs --replay 0 --visit-every {every} --steps {visits * every} " in words
    assert own_entries.visits_of(command, setting) == VISITS
    labels = " ".join(own_entries.command_of("cross-entropy", setting, 1))
    assert f"--visit-every {every} --steps {visits * every} " in labels
    by_pixel = " ".join(own_entries.command_of("RSS, pixel by pixel", setting, 1))
    assert f"--replay 0 --steps {visits} " in by_pixel
    assert not own_entries.is_offered("SB3 A2C, dense", setting)

    class Watched(Likelihood):
        seen: list[int] = []

        def observe(self, logits: Any, feedback: Any) -> Any:
            self.seen.extend(feedback.index)
            return super().observe(logits, feedback)

    algorithm = Watched(samples_per_image=2, replay=0)
    arguments: dict[str, Any] = {"env_kwargs": OPTIONS, "image_size": (16, 16), "order": "epochs", "eval_every": 0}
    train(TASK.env_id, algorithm, steps=4, batch_size=8, run_dir=str(tmp_path), progress=False, **arguments)
    assert Counter(algorithm.seen) == dict.fromkeys(range(8), 4)
    assert not any(len(each) for each in algorithm.memory().values())


def test_commands_are_tested_from_their_last_checkpoint_also_when_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(command: list[str], folder: Path, *_: Any) -> None:  # a process takes long to start
        parsed = parse_command(Likelihood, [*command[1:], "--run-dir", str(folder), "--no-progress"])
        fit(parsed.run, parsed.algorithm)

    monkeypatch.setattr(own_entries, "STEPS", 3)
    monkeypatch.setattr(own_entries, "train", here)
    monkeypatch.setitem(COMMANDS, "RSS", Command("agents.likelihood --learning-rate 0.003"))
    verdict = own_entries.train_entry("RSS", SETTING, 1, tmp_path / "run", 60, Processes())
    assert (verdict.status, verdict.learning_rate, verdict.queries) == ("ok", 0.003, 96)
    predict = own_entries.last_policy(tmp_path / "run")
    assert predict is not None
    assert verdict.test == judging.measure(predict, TASK, "test")
    assert verdict.curve[-1]["val_miou"] == judging.measure(predict, TASK, "val")["val_miou"]

    def too_long(*_: Any) -> None:
        raise own_entries.subprocess.TimeoutExpired("x", 1)

    monkeypatch.setattr(own_entries, "train", too_long)
    late = own_entries.train_entry("RSS", SETTING, 1, tmp_path / "run", 60, Processes())
    assert (late.status, late.test, late.curve) == ("ok, over its time of 60 s", verdict.test, verdict.curve)
    nothing = own_entries.train_entry("RSS", SETTING, 1, tmp_path / "other", 60, Processes())
    assert (nothing.status, nothing.curve) == ("over its time of 60 s", [])


@pytest.mark.parametrize(("queries", "steps", "samples"), [(32_000, None, 4), (64_000, None, 8), (256_000, None, 32)])
def test_the_default_agent_takes_k_from_the_budget(queries: int, steps: int | None, samples: int) -> None:
    assert samples_of(queries, steps) == samples


@pytest.mark.parametrize("queries", [1, 999, 16_000, 10**9])
@pytest.mark.parametrize("most", [None, 1, 300, 10**6])
def test_k_and_steps_are_within_the_budget_and_the_visits(queries: int, most: int | None) -> None:
    samples = samples_of(queries, most)
    assert 2 <= samples <= 32
    steps = min(queries // (own_entries.BATCH * samples), 10**9 if most is None else most)
    if samples < 32:  # more samples would not leave the steps that are needed
        assert queries < own_entries.BATCH * (samples + 1) * min(own_entries.STEPS, most or own_entries.STEPS)
    if samples > 2:
        assert steps >= min(own_entries.STEPS, most or own_entries.STEPS)


def test_the_world_is_ranked_by_its_outcome_with_miou_beside_it() -> None:
    pytest.importorskip("crafter", reason="the world needs the extra crafter")
    small = Task("crafter", CRAFTER.env_id, (56, 72), CRAFTER.budgets, {"num_images": 4}, metric="score")
    options: dict[str, Any] = {"split": "test", "num_envs": 1, "expose_target": True} | small.env_options
    envs = gym.make_vec(small.env_id, **options)
    targets = {}
    for index in range(envs.metadata["num_images"]):
        images, infos = envs.reset(options={"index": index})
        targets[images[0].tobytes()] = infos["target"][0]

    def right(images: np.ndarray) -> np.ndarray:
        found = np.stack([targets[image.tobytes()] for image in images])
        return np.where(found == 255, 0, found)

    metrics = judging.measure(right, small, "test")
    assert metrics["test_miou"] == metrics["test_pixel_accuracy"] == 1.0
    assert 0 < metrics["test_score"] <= 1
    assert "test_score" not in judging.measure(lambda images: np.zeros(images.shape[:3], int), TASK, "test")
    assert SHAPES_32.metric == "miou"


def test_peak_memory_is_that_of_the_whole_tree(tmp_path: Path) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory of a process tree is read from /proc")
    module = tmp_path / "eats.py"
    module.write_text(
        "import os, time\nchild = os.fork() == 0\nblock = bytearray((200 if child else 100) << 20)\n"
        "for place in range(0, len(block), 1024): block[place] = 1\n"
        "time.sleep(1) if child else os.wait()\n"
    )
    processes, peak = Processes(), PeakMemory()
    process = processes.start("eats", [], tmp_path / "log.txt", folder=tmp_path)
    with peak.watching(process.pid):
        process.wait(30)
    processes.end(process)
    assert peak.mebibytes is not None
    assert 300 < peak.mebibytes < 400


@pytest.mark.parametrize("seed", range(int(os.environ.get("RSS_TEST_VISITS", "6"))))
def test_visits_are_counted_whatever_is_called(tmp_path: Path, seed: int) -> None:
    """Random environments, resets and steps; ``RSS_TEST_VISITS`` is their number."""
    rng = np.random.default_rng(seed)
    images = int(rng.integers(2, 20))
    task = Task("shapes-32", TASK.env_id, (16, 16), {"small": 10**6}, {"num_images": images, "num_classes": 3})
    judge = judging.Judge(tmp_path, Setting(task, FEW_VISITS), 1, 60, Processes(), tmp_path / "log.txt")
    seen: Counter[bytes] = Counter()
    shown = 0
    for _ in range(12):
        num_envs = int(rng.integers(1, 8))
        judge._make({"num_envs": num_envs, "augment": "flip"})
        kind, value = judge._reset((int(rng.integers(100)), None))
        for _ in range(int(rng.integers(1, 9))):
            if kind == "spent":
                break
            batch, left = value[0], value[-1]
            if batch.any():
                seen.update(min(image.tobytes(), image[:, ::-1].tobytes()) for image in batch)
                shown += num_envs
            assert left == max(0, VISITS * images - judge.place)
            if rng.random() < 0.2:
                kind, value = judge._reset((None, None))
            else:
                kind, value = judge._step(np.zeros((num_envs, 16, 16), np.uint8))
        else:
            if kind != "spent" and value[0].any():
                seen.update(min(image.tobytes(), image[:, ::-1].tobytes()) for image in value[0])
                shown += num_envs
    assert max(seen.values()) <= VISITS
    assert sorted(seen.values()) == sorted(judge.visits[judge.visits > 0])
    assert judge.visits.sum() == shown <= VISITS * images
