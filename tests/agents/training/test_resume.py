"""An interrupted and resumed run ends exactly like one that was never interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file

from agents import RSS, Likelihood, Supervised, likelihood
from agents.likelihood import FEWEST
from agents.training.algorithm import Algorithm
from agents.training.loop import Result, train
from agents.training.run_folder import RunFolder

ROOT = Path(__file__).parents[3]
SHARED: dict[str, Any] = {
    "image_size": (16, 17),
    "env_kwargs": {"num_images": 16},
    "augment": "flip",
    "batch_size": 3,
    "network_options": {"width": 8},
    "log_every": 1,
    "progress": False,
}


def as_words(arguments: dict[str, Any]) -> list[str]:
    """The command line that stands for these arguments."""
    words = []
    for name, value in arguments.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            given = [json.dumps(value)] if isinstance(value, dict) else value if isinstance(value, tuple) else [value]
            words += [f"--{flag}", *map(str, given)]
    return words


def run(algorithm: Algorithm, run_dir: Path, interrupt: int | None, **arguments: Any) -> Result:
    options = {"env_id": "RSS-Shapes-ImageReward-v0"} | SHARED | arguments
    return train(options.pop("env_id"), interrupted(algorithm, interrupt), run_dir=str(run_dir), **options)


def run_likelihood(run_dir: Path, interrupt: int | None = None, **arguments: Any) -> Result:
    return run(Likelihood(samples_per_image=4), run_dir, interrupt, **arguments)


def run_few_images(run_dir: Path, interrupt: int | None = None, **arguments: Any) -> Result:
    """Of more images than are shown, whose number grows with every update."""
    algorithm = Likelihood(samples_per_image=4, scores_per_nat=0.003)
    with mock.patch.multiple(likelihood, WIDEN=1.0, SLOW=0.5):
        result = run(algorithm, run_dir, interrupt, **{"env_kwargs": {"num_images": 640}} | arguments)
    shown = [row["train/images"] for row in rows_of(run_dir) if "train/images" in row]
    assert FEWEST < shown[0] < shown[-1] < 640
    assert interrupt is not None or shown[3] < shown[4]  # next to where the other run was interrupted
    return result


def run_pixel_level(run_dir: Path, interrupt: int | None = None, **arguments: Any) -> Result:
    return run_likelihood(run_dir, interrupt, env_id="RSS-Shapes-PixelReward-v0", **arguments)


def run_crops(run_dir: Path, interrupt: int | None = None, **arguments: Any) -> Result:
    """Of two crops an image, so that visits are replayed."""
    crops = {"augment": "flip,crop", "crop_size": (15, 17)}
    result = run_likelihood(run_dir, interrupt, **crops | {"env_kwargs": {"num_images": 4}} | arguments)
    if interrupt is not None:
        memories = [torch.load(file, weights_only=True) for file in result.checkpoint.glob("**/memory*")]
        assert any(len(memory["crop"]) for memory in memories)
    return result


def run_stars(run_dir: Path, interrupt: int | None = None, **arguments: Any) -> Result:
    """Of few images, so that their sums are gone on from."""
    result = run_likelihood(run_dir, interrupt, **{"wrap": ("stars:5",), "env_kwargs": {"num_images": 4}} | arguments)
    if interrupt is not None:
        memories = [torch.load(file, weights_only=True) for file in result.checkpoint.glob("**/memory*")]
        assert any(memory["filter_visits"].max() > 1 for memory in memories)
    return result


def run_scales(run_dir: Path, interrupt: int | None = None, **arguments: Any) -> Result:
    return run_likelihood(
        run_dir, interrupt, augment="flip,crop,scale", crop_size=(12, 12), eval_tile=(9, 9), **arguments
    )


def run_pixels_of_crops(run_dir: Path, interrupt: int | None = None, **arguments: Any) -> Result:
    return run_pixel_level(run_dir, interrupt, augment="flip,crop", crop_size=(12, 12), **arguments)


def run_rss(run_dir: Path, interrupt: int | None = None, **arguments: Any) -> Result:
    return run(RSS(samples_per_image=4, cells=(4, 2, 1), advantage="psd"), run_dir, interrupt, **arguments)


def run_accumulating(run_dir: Path, interrupt: int | None = None, **arguments: Any) -> Result:
    return run_likelihood(run_dir, interrupt, accumulation_steps=3, **arguments)


def run_rehearsing(run_dir: Path, interrupt: int | None = None, **arguments: Any) -> Result:
    """With a visit in every third step."""
    result = run(Likelihood(samples_per_image=4, visit_every=3), run_dir, interrupt, **arguments)
    if interrupt is not None:
        memories = [torch.load(file, weights_only=True) for file in result.checkpoint.glob("**/memory*")]
        assert any(len(memory["rehearsal_index"]) for memory in memories)
    return result


def run_supervised(run_dir: Path, interrupt: int | None = None, **arguments: Any) -> Result:
    return run(Supervised(), run_dir, interrupt, **arguments)


def interrupted(algorithm: Algorithm, step: int | None) -> Algorithm:
    """The algorithm, with a Ctrl-C in the middle of its ``step``-th step."""
    calls = 0

    def signalling(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:
                signal.raise_signal(signal.SIGINT)
            return method(*arguments)

        return call

    algorithm.synchronise = signalling(algorithm.synchronise)  # type: ignore[method-assign]
    algorithm.rehearse = signalling(algorithm.rehearse)  # type: ignore[method-assign]
    return algorithm


def rows_of(run_dir: Path) -> list[dict[str, float]]:
    """The logged rows without the one number that differs between runs."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "time/seconds"} for row in rows]


def assert_equal(one: Any, other: Any) -> None:
    """Equal to the last bit, tensors in lists and dictionaries too."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_equal(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


def assert_same_end(one: Path, other: Path) -> None:
    """The two runs logged the same numbers and hold the same last checkpoint, bit for bit."""
    assert rows_of(one) == rows_of(other)
    checkpoints = [RunFolder(folder).latest_checkpoint() for folder in (one, other)]
    assert checkpoints[0] is not None
    assert checkpoints[1] is not None
    assert checkpoints[0].name == checkpoints[1].name
    weights, other_weights = (load_file(checkpoint / "weights.safetensors") for checkpoint in checkpoints if checkpoint)
    assert weights.keys() == other_weights.keys()
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    state, other_state = (
        torch.load(checkpoint / "state.pt", weights_only=True) for checkpoint in checkpoints if checkpoint
    )
    assert state["reward_queries"] == other_state["reward_queries"]
    assert_equal(state["generators"], other_state["generators"])
    assert_equal(state["algorithm"], other_state["algorithm"])
    moments, other_moments = state["optimiser"]["state"], other_state["optimiser"]["state"]
    assert moments.keys() == other_moments.keys()
    assert len(moments) == len(weights)
    for name in moments:
        assert all(torch.equal(moments[name][key], other_moments[name][key]) for key in moments[name])


RUNS = (
    run_likelihood,
    run_stars,
    run_few_images,
    run_rehearsing,
    run_pixel_level,
    run_rss,
    run_accumulating,
    run_supervised,
)
OF_CROPS = (run_crops, run_scales, run_pixels_of_crops)


@pytest.mark.parametrize(
    ("run", "interrupt"),  # at a checkpoint and between two
    [*((run, interrupt) for run in RUNS for interrupt in (4, 5)), *((run, 5) for run in OF_CROPS)],
)
def test_a_run_interrupted_half_way_and_resumed_ends_like_an_uninterrupted_one(
    run: Callable[..., Result], interrupt: int, tmp_path: Path
) -> None:
    schedule = {"steps": 8, "eval_every": 4, "checkpoint_every": 4}
    whole = run(tmp_path / "whole", **schedule)
    half = run(tmp_path / "parts", interrupt=interrupt, **schedule)
    assert (half.step, half.finished) == (interrupt, False)
    assert (half.evaluation is None) == (interrupt == 5)  # there is one of step 4
    assert half.checkpoint.name == f"step-{interrupt:08d}"
    resumed = run(tmp_path / "parts", resume=True, **schedule)
    assert (resumed.step, resumed.finished, resumed.evaluation) == (8, True, whole.evaluation)
    assert resumed.reward_queries == whole.reward_queries
    assert resumed.seconds > half.seconds
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_a_run_can_be_interrupted_and_resumed_again_and_again(tmp_path: Path) -> None:
    run_likelihood(tmp_path / "whole", steps=6, eval_every=2)
    for resume in (False, True, True):
        assert not run_likelihood(
            tmp_path / "parts", interrupt=2 - resume, steps=6, eval_every=2, resume=resume
        ).finished
    assert run_likelihood(tmp_path / "parts", steps=6, eval_every=2, resume=True).finished
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    whole = run_likelihood(tmp_path / "run", steps=3)
    before = rows_of(tmp_path / "run")
    again = run_likelihood(tmp_path / "run", steps=3, resume=True)
    assert (again.step, again.finished, again.evaluation) == (3, True, whole.evaluation)
    assert again.reward_queries == whole.reward_queries
    assert rows_of(tmp_path / "run") == before


def test_a_run_interrupted_in_its_last_step_is_finished(tmp_path: Path) -> None:
    assert run_likelihood(tmp_path / "run", interrupt=3, steps=3).finished


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_over(tmp_path: Path) -> None:
    run_likelihood(tmp_path / "whole", steps=4)
    folder = RunFolder(tmp_path / "parts")
    folder.create({"algorithm": "Likelihood"})
    folder.log(1, {"train/loss": 1.0})
    folder.close()
    run_likelihood(tmp_path / "parts", steps=4, resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_resume_takes_its_arguments_from_the_run_and_may_raise_the_steps(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    run_likelihood(tmp_path / "run", interrupt=2, steps=4)
    for steps in (5, 6):  # the second time on a run that was itself resumed
        outcome = command(Likelihood, "--run-dir", tmp_path / "run", "--resume", "--steps", steps)
        assert outcome.code == 0
        stored = json.loads((tmp_path / "run" / "config.json").read_text())
        assert (stored["steps"], stored["batch_size"], stored["augment"]) == (steps, 3, "flip")
        assert [row["step"] for row in rows_of(tmp_path / "run") if "train/loss" in row] == list(range(1, steps + 1))


STEPS, EVERY = 100, 7
IN_PROCESS: dict[str, Any] = {"steps": STEPS, "checkpoint_every": EVERY, "eval_every": 50}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    assert run_likelihood(folder, **IN_PROCESS).finished
    return folder


def start_and_signal(run_dir: Path, after_step: int, number: signal.Signals) -> tuple[int, str]:
    """Runs the command in a process of its own, signals it once a step is logged; its exit code and output."""
    command = [sys.executable, "-m", "agents.likelihood", "--run-dir", str(run_dir), "--samples-per-image", "4"]
    process = subprocess.Popen(
        command + as_words(SHARED | IN_PROCESS),
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        deadline = time.monotonic() + 120
        while logged_steps(run_dir) < after_step:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"The run did not come to step {after_step}:\n{process.communicate()[0]}")
            time.sleep(0.005)
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
    return process.returncode, output


def logged_steps(run_dir: Path) -> int:
    metrics = run_dir / "metrics.jsonl"
    return len([line for line in metrics.read_text().splitlines() if "train/loss" in line]) if metrics.exists() else 0


def last_checkpoint_step(run_dir: Path) -> int:
    checkpoint = RunFolder(run_dir).latest_checkpoint()
    assert checkpoint is not None
    return int(checkpoint.name.removeprefix("step-"))


def test_ctrl_c_ends_the_command_with_a_checkpoint_and_tells_how_to_go_on(
    tmp_path: Path, uninterrupted: Path, command: Callable[..., Any]
) -> None:
    code, output = start_and_signal(tmp_path / "run", 10, signal.SIGINT)
    assert code == 130
    step = last_checkpoint_step(tmp_path / "run")
    assert 10 <= step < STEPS
    assert step == logged_steps(tmp_path / "run")  # nothing is lost
    assert output.splitlines()[-1] == (
        f"Stopped after step {step} of {STEPS}; continue with --run-dir {tmp_path / 'run'} --resume"
    )
    assert "Traceback" not in output
    assert command(Likelihood, "--run-dir", tmp_path / "run", "--resume", "--no-progress").code == 0
    assert_same_end(uninterrupted, tmp_path / "run")


def test_a_killed_run_loses_at_most_one_checkpoint_interval_and_resumes(
    tmp_path: Path, uninterrupted: Path, command: Callable[..., Any]
) -> None:
    code, _ = start_and_signal(tmp_path / "run", 3 * EVERY, signal.SIGKILL)
    assert code == -signal.SIGKILL
    step = last_checkpoint_step(tmp_path / "run")
    assert step % EVERY == 0
    assert step < STEPS
    assert 0 <= logged_steps(tmp_path / "run") - step <= EVERY
    # What a kill in the middle of writing leaves behind:
    metrics, unfinished = tmp_path / "run" / "metrics.jsonl", tmp_path / "run" / "checkpoints" / ".writing-abc"
    metrics.write_text(metrics.read_text() + '{"step": 99, "train/lo')
    unfinished.mkdir()
    (unfinished / "state.pt").write_bytes(b"half")

    outcome = command(Likelihood, "--run-dir", tmp_path / "run", "--resume", "--no-progress")
    assert outcome.code == 0
    assert "mIoU" in outcome.out
    assert not unfinished.exists()
    assert [row["step"] for row in rows_of(tmp_path / "run") if "train/loss" in row] == list(range(1, STEPS + 1))
    assert_same_end(uninterrupted, tmp_path / "run")
