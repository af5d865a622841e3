"""Training on crops: the policy sees crops while it trains and whole images, or tiles of them, when it is evaluated."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import Likelihood, Supervised, evaluate, predict
from agents.networks.checkpoints import load_policy
from agents.networks.unet import UNet
from agents.training.arguments import TrainArguments
from agents.training.given_environment import arguments_of
from agents.training.loop import train
from rss_env.datasets import load_dataset
from rss_env.errors import OptionError

STORED, CROP = (20, 24), (12, 10)
ARGUMENTS: dict[str, Any] = {
    "image_size": STORED,
    "env_kwargs": {"num_images": 8},
    "batch_size": 3,
    "network_options": {"width": 8},
    "log_every": 1,
    "progress": False,
    "augment": "flip,crop",
    "crop_size": CROP,
}


@pytest.mark.parametrize(("tile", "evaluated"), [(None, STORED), ((16, 16), (16, 16)), ((99, 9), (20, 9))])
def test_training_sees_crops_and_evaluation_whole_images_or_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tile: tuple[int, int] | None, evaluated: tuple[int, int]
) -> None:
    sizes: dict[bool, set[tuple[int, ...]]] = {True: set(), False: set()}
    original = UNet.forward

    def forward(network: UNet, images: torch.Tensor) -> torch.Tensor:
        sizes[network.training].add(tuple(images.shape[1:3]))
        return original(network, images)

    monkeypatch.setattr(UNet, "forward", forward)
    train("RSS-Shapes-ImageReward-v0", Supervised(), run_dir=str(tmp_path), steps=2, eval_tile=tile, **ARGUMENTS)
    assert sizes == {True: {CROP}, False: {CROP, evaluated}}  # the network is tried out on both
    assert load_policy(tmp_path, torch.device("cpu"))[1]["image_size"] == list(STORED)


def test_an_algorithm_is_told_which_pixels_were_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    images: list[np.ndarray] = []
    observe, forward = Supervised.observe, UNet.forward

    def note_feedback(algorithm: Supervised, logits: torch.Tensor, feedback: Any) -> Any:
        told.append(feedback)
        return observe(algorithm, logits, feedback)

    def note_images(network: UNet, given: torch.Tensor) -> torch.Tensor:
        if network.training:
            images.append(given.numpy().copy())
        return forward(network, given)

    monkeypatch.setattr(Supervised, "observe", note_feedback)
    monkeypatch.setattr(UNet, "forward", note_images)
    train("RSS-Shapes-ImageReward-v0", Supervised(), run_dir=str(tmp_path), steps=3, **ARGUMENTS)
    photos = load_dataset("Shapes", image_size=STORED, num_images=8).images
    for feedback, shown in zip(told, images, strict=True):
        for b, (top, left, height, width) in enumerate(feedback.crops):
            stored = photos[feedback.index[b], top : top + height, left : left + width]
            np.testing.assert_array_equal(shown[b], stored[:, :: -1 if feedback.flipped[b] else 1])


def test_the_command_line_stores_crops_and_tiles_which_evaluation_goes_by(
    tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--image-size", 20, 24, "--augment", "scale,crop", "--crop-size", 12, 10, "--scale-range", 0.7, 1.5]
    words += ["--eval-tile", 8, 9, "--steps", 1, "--batch-size", 2, "--run-dir", tmp_path, "--no-progress"]
    words += ["--env-kwargs", '{"num_images": 4}', "--network-options", '{"width": 8}', "--samples-per-image", 2]
    outcome = command(Likelihood, *words)
    assert outcome.code == 0, outcome.err
    stored = json.loads((tmp_path / "config.json").read_text())
    assert (stored["augment"], stored["crop_size"], stored["eval_tile"]) == ("scale,crop", [12, 10], [8, 9])
    assert stored["scale_range"] == [0.7, 1.5]
    assert command(Likelihood, "--run-dir", tmp_path, "--resume").code == 0
    tiles = []
    original = evaluate.predict_label_maps
    monkeypatch.setattr(evaluate, "predict_label_maps", lambda *given: (tiles.append(given[3]), original(*given))[1])
    assert command(evaluate.main, tmp_path, "--json").code == 0
    assert command(evaluate.main, tmp_path, "--eval-tile", 7, 7, "--json").code == 0
    assert set(tiles) == {(8, 9), (7, 7)}
    for main, further in ((evaluate.main, ()), (predict.main, ("photo.png",))):
        outcome = command(main, tmp_path, *further, "--eval-tile", 0, 7)
        assert outcome.code != 0
        assert "eval_tile must be two positive integers (H, W), got (0, 7)." in outcome.err


def test_a_combination_may_be_a_tuple_in_python_and_is_stored_as_words() -> None:
    run = TrainArguments(augment=("crop", "flip"), crop_size=(8, 8))  # type: ignore[arg-type]
    run.check()
    assert run.augment == "flip,crop"
    assert TrainArguments(augment=()).augment == "none"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"augment": "rotate"}, "Unknown augment 'rotate'; valid: none, flip, crop, scale"),
        ({"augment": "crop"}, "augment='crop' needs crop_size"),
        ({"crop_size": (8, 8)}, "crop_size=(8, 8) is for augment='crop'"),
        ({"augment": "crop", "crop_size": (0, 8)}, "crop_size must be two positive integers"),
        ({"scale_range": (2.0, 1.0)}, "scale_range must be two factors"),
        ({"eval_tile": (8, 0)}, "eval_tile must be two positive integers"),
    ],
)
def test_wrong_arguments_are_found_before_anything_begins(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        dataclasses.replace(TrainArguments(), **wrong).check()
    assert message in str(caught.value)


def test_a_given_environment_of_crops_is_trained_on_like_one_that_is_described() -> None:
    options: dict[str, Any] = {"augment": ["flip", "scale", "crop"], "crop_size": [8, 9], "scale_range": (0.8, 1.2)}
    given, _ = arguments_of(gym.make_vec("RSS-Shapes-ImageReward-v0", num_envs=2, **options))
    run = TrainArguments(**given)
    run.check()
    assert run.augmentation() == {"augment": "flip,crop,scale", "crop_size": [8, 9], "scale_range": (0.8, 1.2)}
