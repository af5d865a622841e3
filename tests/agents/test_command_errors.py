"""What goes wrong on a command line ends with exit code 2 and a message that says what to do; never a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from agents import Likelihood, Supervised, evaluate, predict
from rss_env import ENV_IDS

SMALL = [
    "--image-size",
    16,
    16,
    "--steps",
    2,
    "--batch-size",
    2,
    "--samples-per-image",
    2,
    "--network-options",
    '{"width": 8}',
    "--no-progress",
]
SMALL_ENV = ["--env-kwargs", '{"num_images": 4}']


def assert_error(outcome: Any, *fragments: str) -> None:
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("error: ") == 1
    assert outcome.err.endswith("\n")
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    for fragment in fragments:
        assert fragment in outcome.err


def assert_one_line(outcome: Any, *fragments: str) -> None:
    assert_error(outcome, *fragments)
    assert len(outcome.err.splitlines()) == 1


def test_an_unknown_env_id_lists_the_ids(command: Callable[..., Any], tmp_path: Path) -> None:
    outcome = command(Likelihood, *SMALL, "--env-id", "RSS-Moon-ImageReward-v0", "--run-dir", tmp_path / "run")
    assert_error(outcome, "'RSS-Moon-ImageReward-v0'", *ENV_IDS)


def test_a_missing_data_set_shows_the_layout_it_needs(command: Callable[..., Any], tmp_path: Path) -> None:
    for words in ([], ["--root", tmp_path / "nowhere"]):
        outcome = command(
            Likelihood, *SMALL, "--env-id", "RSS-VOC-ImageReward-v0", "--run-dir", tmp_path / "run", *words
        )
        assert_error(outcome, "VOC", "JPEGImages/ID.jpg", "ImageSets/Segmentation", "root", *map(str, words[1:]))
    assert not (tmp_path / "run").exists()


WRONG_VALUES: list[tuple[list[Any], list[str]]] = [
    (["--split", "training"], ["'training'", "train, val, test"]),
    (["--val-split", "holdout"], ["'holdout'", "train, val, test"]),
    (["--reward", "dice_of_mars"], ["'dice_of_mars'", "mean_iou", "pixel_accuracy"]),
    (["--reward", "nowhere:judge"], ["'nowhere:judge'", "cannot be imported"]),
    (["--reward", "tests.rewards.own:number"], ["'tests.rewards.own:number' must be callable, got int"]),
    (["--reward-options", "[1]"], ["reward_options must be a JSON object, got [1]"]),
    (["--reward-options", '{"tolerance": 3}'], ["'tolerance'", "'mean_iou'", "classes, class_weights"]),
    (["--reward", "tests.rewards.own:agreement", "--reward-options", '{"strict": 1}'], ["'strict'", "scale, shift"]),
    (["--env-kwargs", "{num_classes: 3}"], ["env_kwargs", "JSON", "{num_classes: 3}"]),
    (["--env-kwargs", "[3]"], ["env_kwargs", "JSON object", "[3]"]),
    (["--env-kwargs", '{"classes": 3}'], ["'classes'", "num_classes"]),
    (["--env-kwargs", '{"split": "val"}'], ["env_kwargs", "'split'"]),
    (["--env-kwargs", '{"num_envs": 3}'], ["env_kwargs", "'num_envs'"]),
    (["--env-kwargs", '{"reward": "mean_iou"}'], ["env_kwargs", "'reward'"]),
    (["--env-kwargs", '{"num_classes": 99}'], ["2 to 9", "99"]),
    (["--samples-per-image", 1], ["samples_per_image must be at least 2, got 1"]),
    (["--network-options", '{"width": 12}'], ["U-Net must be a multiple of 8, got 12"]),
    (["--network-options", '{"width": 0}'], ["U-Net must be a multiple of 8, got 0"]),
    (["--network-options", '{"depth": 3}'], ["'unet'", "depth", "width"]),
    (["--network-options", "8"], ["network_options must be a JSON object, got 8"]),
    (["--network", "segformer"], ["'segformer'", "unet", "module:factory"]),
    (["--network", "nowhere:make"], ["'nowhere:make'", "cannot be imported"]),
    (["--image-size", 0, 16], ["image_size", "(0, 16)"]),
    (["--steps", 0], ["steps must be at least 1, got 0"]),
    (["--batch-size", 0], ["batch_size must be at least 1, got 0"]),
    (["--checkpoint-every", 0], ["checkpoint_every must be at least 1, got 0"]),
    (["--learning-rate", "nan"], ["learning_rate must be positive, got nan"]),
    (["--max-grad-norm", 0], ["max_grad_norm must be positive, got 0"]),
    (["--weight-decay", -1], ["weight_decay must be at least 0, got -1"]),
    (["--seed", -1], ["seed must be at least 0, got -1"]),
    (["--accumulation-steps", 0], ["accumulation_steps must be at least 1, got 0"]),
    (["--accumulation-steps", 3], ["batch_size 2", "1 process(es)", "accumulation_steps 3"]),
    (["--temperature", 0], ["temperature must be positive, got 0"]),
    (["--temperature", "nan"], ["temperature must be positive, got nan"]),
    (["--replay", -1], ["replay must be at least 0, got -1"]),
    (["--replay-megabytes", -1], ["replay_megabytes must be at least 0, got -1"]),
    (["--replay-megabytes", "nan"], ["replay_megabytes must be at least 0, got nan"]),
    (["--replay-megabytes", "inf"], ["replay_megabytes must be at least 0, got inf"]),
    (["--cells", 4, 0], ["Cell sides", "from 1 on", "(4, 0)"]),
    (["--wrap", "noise:-1"], ["std must be a finite number of at least 0, got -1"]),
    (["--wrap", "stars:1"], ["stars", "at least 2", "1"]),
    (["--wrap", "applause"], ["'applause'", "noise", "stars"]),
    (["--env-id", "RSS-Shapes-PixelReward-v0", "--wrap", "noise:0.1"], ["FeedbackReward", "image-level"]),
]


@pytest.mark.parametrize(
    ("words", "fragments"), WRONG_VALUES, ids=[" ".join(map(str, words)) for words, _ in WRONG_VALUES]
)
def test_a_wrong_value_is_named_and_leaves_no_run_behind(
    command: Callable[..., Any], tmp_path: Path, words: list[Any], fragments: list[str]
) -> None:
    assert_one_line(command(Likelihood, *SMALL, "--run-dir", tmp_path / "run", *words), *fragments)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine where torch finds no CUDA device")
def test_cuda_without_a_cuda_device_is_refused(command: Callable[..., Any], tmp_path: Path, finished_run: Path) -> None:
    for main, words in (
        (Likelihood, [*SMALL, "--run-dir", tmp_path / "run"]),
        (evaluate.main, [finished_run]),
        (predict.main, [finished_run, "photo.png"]),
    ):
        assert_one_line(command(main, *words, "--device", "cuda"), "no CUDA device", "use cpu")


def test_a_run_that_diverges_says_so_and_leaves_no_broken_checkpoint(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    words = ["--learning-rate", "1e30", "--steps", 9, "--checkpoint-every", 1, "--log-every", 9]
    outcome = command(Likelihood, *SMALL, *SMALL_ENV, *words, "--run-dir", tmp_path / "run")
    assert_one_line(outcome, "not finite at step", "learning rate")
    for checkpoint in (tmp_path / "run").glob("checkpoints/*/weights.safetensors"):
        assert all(weights.isfinite().all() for weights in load_file(checkpoint).values())


def test_a_run_folder_that_cannot_be_written_is_named(command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = command(Likelihood, *SMALL, *SMALL_ENV, "--run-dir", tmp_path / "file" / "run")
    assert_one_line(outcome, "Cannot write the run folder", str(tmp_path / "file" / "run"))


def test_an_existing_run_is_not_overwritten(command: Callable[..., Any], finished_run: Path) -> None:
    before = (finished_run / "config.json").read_bytes()
    outcome = command(Likelihood, *SMALL, *SMALL_ENV, "--run-dir", finished_run)
    assert_one_line(outcome, "already holds a run", "--resume", "--run-dir")
    assert (finished_run / "config.json").read_bytes() == before


def test_resume_without_a_run_says_what_is_missing(command: Callable[..., Any], tmp_path: Path) -> None:
    outcome = command(Likelihood, "--resume", "--run-dir", tmp_path / "run")
    assert_one_line(outcome, "holds no run", str(tmp_path / "run" / "config.json"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"algorithm": ')
    assert_one_line(command(Likelihood, "--resume", "--run-dir", tmp_path / "run"), "config.json is damaged", "Restore")


def test_resume_with_other_arguments_names_what_changed(command: Callable[..., Any], finished_run: Path) -> None:
    words = ["--batch-size", 5, "--seed", 1, "--learning-rate", 0.5, "--log-every", 3]
    outcome = command(Likelihood, "--resume", "--run-dir", finished_run, *words)
    assert_one_line(outcome, "batch_size 2 -> 5", f"learning_rate {Likelihood.learning_rate} -> 0.5")
    assert "seed" not in outcome.err
    assert "log_every" not in outcome.err


def test_resuming_the_run_of_another_algorithm_is_refused(command: Callable[..., Any], finished_run: Path) -> None:
    outcome = command(Supervised, "--resume", "--run-dir", finished_run)
    assert_one_line(outcome, str(finished_run), "a run of Likelihood, not of Supervised")


def make_broken_weights(folder: Path, source: Path, damage: str) -> Path:
    """A copy of a checkpoint with one thing wrong with it."""
    file = folder / f"{damage}.safetensors"
    weights, whole = load_file(source), source.read_bytes()
    described = {"network": "unet", "network_options": {"width": 8}, "num_classes": 3}
    described |= {"image_size": [16, 24], "resize": "pad"}
    if damage == "truncated":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "undescribed":
        save_file(weights, file)
    elif damage == "another architecture":
        save_file(weights, file, metadata={"policy": json.dumps(described | {"network": "segformer"})})
    elif damage == "other weights":
        save_file(weights, file, metadata={"policy": json.dumps(described | {"network_options": {"width": 16}})})
    return file


@pytest.mark.parametrize(
    ("damage", "fragment"),
    [
        ("truncated", "Cannot read the weights"),
        ("empty", "Cannot read the weights"),
        ("undescribed", "no description of its policy"),
        ("another architecture", "'segformer'"),
        ("other weights", "not those of this network"),
        ("missing", "No checkpoint at"),
    ],
)
@pytest.mark.parametrize("main", [evaluate.main, predict.main], ids=["evaluate", "predict"])
def test_a_checkpoint_that_cannot_be_used_is_named(
    command: Callable[..., Any],
    finished_run: Path,
    tmp_path: Path,
    main: Callable[[], int],
    damage: str,
    fragment: str,
) -> None:
    whole = finished_run / "checkpoints" / "step-00000006" / "weights.safetensors"
    file = make_broken_weights(tmp_path, whole, damage)
    words = ["photo.png", "--out", tmp_path / "out"] if main is predict.main else []
    assert_error(command(main, file, *words), fragment, str(file))
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_checkpoint_says_what_was_expected(command: Callable[..., Any], tmp_path: Path) -> None:
    assert_one_line(
        command(evaluate.main, tmp_path), str(tmp_path), "weights.safetensors", "checkpoints/step-*/weights.safetensors"
    )


def test_a_policy_for_another_number_of_classes_is_refused(command: Callable[..., Any], finished_run: Path) -> None:
    outcome = command(evaluate.main, finished_run, "--env-kwargs", '{"num_classes": 4, "num_images": 4}')
    assert_one_line(outcome, "3 classes", "has 4", str(finished_run))


def test_weights_outside_a_run_need_an_env_id(command: Callable[..., Any], finished_run: Path, tmp_path: Path) -> None:
    whole = finished_run / "checkpoints" / "step-00000006" / "weights.safetensors"
    shutil.copy(whole, tmp_path / "weights.safetensors")
    assert_one_line(command(evaluate.main, tmp_path / "weights.safetensors"), "--env-id")


@pytest.mark.parametrize("words", [["--env-id", "Moon"], ["--split", "moon"], ["--env-kwargs", "{"]])
def test_evaluate_refuses_what_training_refuses(
    command: Callable[..., Any], finished_run: Path, words: list[str]
) -> None:
    assert_error(command(evaluate.main, finished_run, *words), words[1])
