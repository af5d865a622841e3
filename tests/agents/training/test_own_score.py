"""A score of one's own as the reward of the training commands, and imperfect feedback around it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from agents import RSS, Likelihood, Supervised, WeakLabels, evaluate, train
from agents.training.algorithm import Algorithm
from agents.training.loop import Result
from rss_env.errors import OptionError
from rss_env.wrappers.feedback import KINDS
from tests.extras import is_installed
from tests.rewards import own
from tests.trees import tiny_folder

ROOT = Path(__file__).parents[3]
STEPS, BATCH, SAMPLES = 7, 2, 4
TINY: dict[str, Any] = {
    "image_size": (16, 17),
    "env_kwargs": {"num_images": 8, "num_classes": 3},
    "batch_size": BATCH,
    "network_options": {"width": 8},
    "steps": STEPS,
    "checkpoint_every": 3,
    "progress": False,
}
WORDS = [
    *("--image-size", "16", "17", "--env-kwargs", json.dumps(TINY["env_kwargs"]), "--batch-size", str(BATCH)),
    *("--network-options", '{"width": 8}', "--steps", str(STEPS), "--checkpoint-every", "3", "--no-progress"),
    *("--samples-per-image", str(SAMPLES)),
]
SCORES = """
import os, signal
from pathlib import Path
from rss_env.rewards import concurrent

@concurrent(workers=1, answers="answers.sqlite", retries=0)
def judge(image, label_map, target, weight=1):
    number = len(asked.read_bytes()) if (asked := Path("asked")).exists() else 0
    if Path("kill_at").exists() and number == int(Path("kill_at").read_text()):
        os.kill(os.getpid(), signal.SIGKILL)
    if Path("broken").exists() and number >= 20:
        raise ConnectionError("the judge is asleep")
    with asked.open("ab") as file:
        file.write(b".")
    return weight * (label_map == target).mean()
"""


@pytest.fixture
def scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The reward of a module in the current folder, which notes each call in the file ``asked``."""
    module = f"scores_{tmp_path.name}"  # another one in every test, as modules are imported once
    (tmp_path / f"{module}.py").write_text(SCORES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return f"{module}:judge"


def weights(run_dir: Path | str) -> dict[str, torch.Tensor]:
    return load_file(Path(run_dir) / "checkpoints" / f"step-{STEPS:08d}" / "weights.safetensors")


def assert_same_weights(one: Path | str, other: Path | str) -> None:
    assert all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(one).items())


def test_a_run_that_is_killed_in_the_middle_of_a_step_asks_nothing_twice_when_it_is_resumed(
    scores: str, tmp_path: Path, command: Callable[..., Any]
) -> None:
    Path("kill_at").write_text("37")  # in the fifth step, the second after the only checkpoint
    words = [*WORDS, "--reward", scores, "--reward-options", '{"weight": 2}']
    killed = subprocess.run(
        [sys.executable, "-m", "agents.likelihood", "--run-dir", "run", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(Path("asked").read_bytes()) == 37
    Path("kill_at").unlink()

    assert command(Likelihood, "--run-dir", "run", "--resume").code == 0
    assert len(Path("asked").read_bytes()) == STEPS * BATCH * SAMPLES
    assert json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])["step"] == STEPS

    Path("asked").write_bytes(b"")
    assert command(Likelihood, "--run-dir", "whole", *words).code == 0  # all answers are in the log
    assert Path("asked").read_bytes() == b""
    assert_same_weights("run", "whole")
    Path("answers.sqlite").unlink()
    assert command(Likelihood, "--run-dir", "uninterrupted", *words).code == 0
    assert len(Path("asked").read_bytes()) == STEPS * BATCH * SAMPLES
    assert_same_weights("run", "uninterrupted")


def test_a_judge_that_fails_ends_the_run_with_one_line_and_it_can_be_resumed(
    scores: str, command: Callable[..., Any]
) -> None:
    Path("broken").touch()
    outcome = command(Likelihood, "--run-dir", "run", *WORDS, "--reward", scores, "--checkpoint-every", 1)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: The reward {scores} failed for image ")
    assert outcome.err.endswith(
        ": ConnectionError: the judge is asleep. Go on from the last checkpoint with --run-dir run --resume.\n"
    )
    assert outcome.err.count("\n") == 1
    Path("broken").unlink()
    assert command(Likelihood, "--run-dir", "run", "--resume").code == 0
    assert len(Path("asked").read_bytes()) == STEPS * BATCH * SAMPLES


def test_the_reward_and_its_options_are_those_of_the_run(command: Callable[..., Any], tmp_path: Path) -> None:
    run = ["--run-dir", tmp_path / "run"]
    words = ["--reward", "tests.rewards.own:agreement", "--reward-options", '{"scale": 2}']
    assert command(Likelihood, *run, *WORDS, *words).code == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["reward"], config["reward_options"]) == ("tests.rewards.own:agreement", {"scale": 2})
    assert command(Likelihood, *run, "--resume").code == 0
    for other, said in (
        (["--reward-options", '{"scale": 3}'], "reward_options {'scale': 2} -> {'scale': 3}"),
        (["--reward", "tests.rewards.own:agreement_of_all"], "reward 'tests.rewards.own:agreement' -> 'tests."),
    ):
        outcome = command(Likelihood, *run, "--resume", *other)
        assert outcome.code == 2
        assert said in outcome.err


def test_options_of_a_reward_by_name_reach_the_environment_and_the_agent(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    start = Likelihood.start

    def note(self: Likelihood, metadata: Any, num_classes: int) -> str | None:
        seen.append({name: metadata[name] for name in ("reward", "reward_options")})
        return start(self, metadata, num_classes)

    monkeypatch.setattr(Likelihood, "start", note)
    options = {"class_weights": [0.5, 1.0, 1.0]}
    words = ["--reward", "mean_dice", "--reward-options", json.dumps(options)]
    assert command(Likelihood, "--run-dir", tmp_path / "run", *WORDS, "--steps", 1, *words).code == 0
    assert seen == [{"reward": "mean_dice", "reward_options": options}]


def test_from_python_a_function_that_can_be_imported_is_stored_by_its_name(tmp_path: Path) -> None:
    run_dir = str(tmp_path / "run")
    arguments = TINY | {"steps": 1, "reward": own.agreement, "run_dir": run_dir}
    result = train("RSS-Shapes-ImageReward-v0", Likelihood(samples_per_image=2), **arguments)
    assert isinstance(result, Result)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["reward"] == "tests.rewards.own:agreement"
    for judge in (lambda *_: 0.5, own.judge, own.judge.__call__):
        with pytest.raises(OptionError, match="or by a callable that can be imported again"):
            train("RSS-Shapes-ImageReward-v0", Likelihood(), **TINY | {"reward": judge})


@pytest.mark.parametrize(
    "reward", ["agreement_of_all", "agreement_in_threads", "agreement_of_tasks"], ids=lambda name: name
)
def test_batched_and_slow_rewards_train_like_the_plain_one(reward: str, tmp_path: Path) -> None:
    for name in ("agreement", reward):
        arguments = TINY | {"reward": f"tests.rewards.own:{name}", "run_dir": str(tmp_path / name)}
        train("RSS-Shapes-ImageReward-v0", RSS(samples_per_image=SAMPLES), **arguments)
    assert_same_weights(tmp_path / "agreement", tmp_path / reward)


def test_photos_without_masks_are_learned_from_and_validated_by_a_score_of_ones_own(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    shutil.rmtree(tiny_folder(tmp_path / "photos", 4) / "masks")
    words = [
        *(
            "--env-id",
            "RSS-Folder-ImageReward-v0",
            "--root",
            tmp_path / "photos",
            "--split",
            "all",
            "--val-split",
            "all",
        ),
        *("--env-kwargs", '{"num_classes": 4}', "--image-size", 16, 17, "--network-options", '{"width": 8}'),
        *("--reward", "tests.rewards.own:bright", "--reward-options", '{"threshold": 128}', "--no-progress"),
    ]
    likelihood = ["--steps", 2, "--batch-size", 2, "--samples-per-image", 4, "--run-dir", tmp_path / "likelihood"]
    assert command(Likelihood, *words, *likelihood).code == 0
    row = json.loads((tmp_path / "likelihood" / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < row["val/score"] < 1
    measured = command(evaluate.main, tmp_path / "likelihood", "--split", "all", "--json")
    assert json.loads(measured.out)["score"] == row["val/score"]
    other = ["--reward-options", '{"threshold": 300}']
    assert json.loads(command(evaluate.main, tmp_path / "likelihood", "--split", "all", "--json", *other).out) != (
        json.loads(measured.out)
    )
    if not is_installed("stable_baselines3"):
        return
    from agents import sb3

    small = ["--reward-queries", 16, "--images", 2, "--samples-per-image", 4, "--evaluations", 2]
    assert command(sb3.main, *words, *small, "--run-dir", tmp_path / "sb3").code == 0
    rows = [json.loads(line) for line in (tmp_path / "sb3" / "metrics.jsonl").read_text().splitlines()]
    assert [row["time/reward_queries"] for row in rows] == [8 + 4, 16 + 8]
    assert all(0 < row["val/score"] < 1 for row in rows)


FEEDBACK = {"shaping": "shaping:log,epsilon=0.01"}
COMMANDS = [
    *[(kind, Likelihood) for kind in KINDS],
    *[(kind, RSS) for kind in ("threshold", "delay", "preference")],
    ("preference", Supervised),
    ("stars", WeakLabels),
]


@pytest.mark.parametrize(("kind", "algorithm"), COMMANDS)
def test_every_kind_of_feedback_reaches_every_command(
    kind: str, algorithm: type[Algorithm], command: Callable[..., Any], tmp_path: Path
) -> None:
    words = WORDS if algorithm in (Likelihood, RSS) else WORDS[:-2]
    run = ["--run-dir", tmp_path / "run", *words, "--steps", 2, "--log-every", 1]
    outcome = command(algorithm, *run, "--reward", "tests.rewards.own:agreement", "--wrap", FEEDBACK.get(kind, kind))
    if kind == "preference" and words is not WORDS:  # these score one label map an image
        assert (outcome.code, "A preference compares the samples" in outcome.err) == (2, True)
        return
    assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rewards = [row["reward/mean"] for row in rows if "reward/mean" in row]
    assert len(rewards) == 2
    assert kind != "preference" or rewards == pytest.approx([0.5, 0.5])
    assert kind != "delay" or rewards == [0, 0]
