from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents.likelihood import Likelihood
from agents.networks.checkpoints import load_policy
from agents.networks.unet import UNet
from agents.ops import sample_label_maps
from agents.training.algorithm import Algorithm
from agents.training.feedback import Feedback
from agents.training.loop import Result, one_cycle, stream_seed, train
from rss_env.datasets import load_dataset
from rss_env.errors import OptionError

ROOT = Path(__file__).parents[3]


@dataclass(eq=False)
class Recording(Algorithm):
    """Notes what it is given and drives all logits to 0."""

    def __post_init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def env_options(self) -> dict[str, Any]:
        return {"samples_per_image": 2}

    def act(self, logits: torch.Tensor, progress: float, generator: torch.Generator) -> torch.Tensor:
        assert not logits.requires_grad
        self.calls.append({"progress": progress, "logits": logits, "acted": sample_label_maps(logits, 2, seed=3)})
        return self.calls[-1]["acted"]

    def observe(self, logits: torch.Tensor, feedback: Feedback) -> int:
        assert torch.equal(feedback.label_maps, self.calls[-1]["acted"])
        self.calls[-1] |= {"feedback": feedback, "index": feedback.index}
        return len(self.calls) - 1

    def synchronise(self, lessons: Any) -> None:
        self.calls[-1]["synchronised"] = list(lessons)

    def loss(
        self, logits: torch.Tensor, lesson: int, progress: float
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        assert torch.equal(logits, self.calls[lesson]["logits"])
        assert progress == self.calls[lesson]["progress"]
        return logits.square().mean(), {"mine": 2.5, "micro-batch": torch.tensor(float(lesson))}


def train_recording(
    run_dir: Path, learning_rate: float = 2e-3, **arguments: Any
) -> tuple[Result, list[dict[str, Any]]]:
    """Trains with an algorithm that notes what it is given."""
    algorithm = Recording(learning_rate=learning_rate)
    shared: dict[str, Any] = {"image_size": (16, 16), "env_kwargs": {"num_images": 8}, "batch_size": 3}
    shared |= {"network_options": {"width": 8}, "log_every": 1, "progress": False}
    return train("RSS-Shapes-ImageReward-v0", algorithm, run_dir=str(run_dir), **shared | arguments), algorithm.calls


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_the_label_maps_of_an_algorithm_are_scored_on_the_images_that_it_saw(tmp_path: Path, augment: str) -> None:
    _, calls = train_recording(tmp_path / "run", steps=3, augment=augment)
    env = gym.make("RSS-Shapes-ImageReward-v0", image_size=(16, 16), num_images=8)
    for call in calls:
        feedback = call["feedback"]
        assert feedback.scores.unique().numel() == 3 * 2  # a score that went to another label map would be seen
        for b, (index, mirrored) in enumerate(zip(call["index"], feedback.flipped, strict=True)):
            for k in range(2):
                env.reset(options={"index": index})  # as it is stored
                score = env.step(call["acted"][b, k].numpy()[:, :: -1 if mirrored else 1])[1]
                assert float(feedback.scores[b, k]) == pytest.approx(score, abs=1e-7)


@dataclass(eq=False)
class Growing(Recording):
    """Wants one image at first, and all in the end."""

    def images(self, scores: int) -> int | None:
        assert scores == 12 * 3 * 2
        return (1, 2, 4, None)[len(self.calls) // 3] if len(self.calls) < 12 else None


def test_an_algorithm_says_how_many_images_are_shown(tmp_path: Path) -> None:
    algorithm = Growing()
    data: dict[str, Any] = {"image_size": (16, 16), "env_kwargs": {"num_images": 8}, "network_options": {"width": 8}}
    shared: dict[str, Any] = data | {"batch_size": 3, "steps": 12, "log_every": 1, "eval_every": 0, "progress": False}
    train("RSS-Shapes-ImageReward-v0", algorithm, run_dir=str(tmp_path / "run"), **shared)
    shown = [call["index"] for call in algorithm.calls]
    for step, allowed in zip(range(0, 12, 3), ({0}, {0, 4}, {0, 2, 4, 6}, set(range(8))), strict=True):
        assert set().union(*shown[step : step + 3]) <= allowed
    assert {0, 4} == set().union(*shown[3:6])
    assert {1, 3, 5, 7} & set().union(*shown[9:])
    whole = Recording()
    train("RSS-Shapes-ImageReward-v0", whole, run_dir=str(tmp_path / "whole"), **shared)
    assert shown[9:] == [call["index"] for call in whole.calls[9:]]  # the same episodes
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["train/images"] for row in rows if "train/images" in row] == [1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8]


@dataclass(eq=False)
class TwoMethods(Algorithm):
    """Only what an algorithm must have: it imitates those of its pixels that were right."""

    def act(self, logits: torch.Tensor, progress: float, generator: torch.Generator) -> torch.Tensor:
        probabilities = logits.softmax(dim=1).movedim(1, -1)  # (B, H, W, C)
        drawn = torch.multinomial(probabilities.flatten(0, 2), 1, generator=generator)
        return drawn.view(probabilities.shape[:3])[:, None].to(torch.uint8)

    def loss(
        self, logits: torch.Tensor, lesson: Feedback, progress: float
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        assert lesson.pixel_rewards is not None
        chosen = logits.log_softmax(dim=1).gather(1, lesson.label_maps.long())  # (B, 1, H, W)
        return -(lesson.pixel_rewards * chosen).mean(), {}


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_an_algorithm_with_only_act_and_loss_trains(tmp_path: Path, accumulation_steps: int) -> None:
    data: dict[str, Any] = {"num_images": 16, "num_classes": 3, "difficulty": "easy"}
    arguments: dict[str, Any] = {"image_size": (16, 16), "env_kwargs": data, "network_options": {"width": 8}}
    result = train(
        "RSS-Shapes-PixelReward-v0",
        TwoMethods(learning_rate=1e-2),
        steps=60,
        batch_size=4,
        accumulation_steps=accumulation_steps,
        eval_every=0,
        progress=False,
        run_dir=str(tmp_path / "run"),
        **arguments,
    )
    assert (result.step, result.finished, result.reward_queries) == (60, True, 60 * 4)
    targets = load_dataset("Shapes", split="val", image_size=(16, 16), **data).targets
    assert targets is not None
    constant = max((targets == c).mean() for c in range(3))  # the best that needs no look at the image
    assert result.evaluation is not None
    assert result.evaluation.pixel_accuracy > constant + 0.05


def read_rows(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_an_algorithm_is_told_the_share_of_the_training_that_is_done(tmp_path: Path) -> None:
    result, calls = train_recording(tmp_path / "run", steps=5)
    assert [call["progress"] for call in calls] == [0, 1 / 5, 2 / 5, 3 / 5, 4 / 5]
    assert all(call["logits"].shape == (3, 5, 16, 16) for call in calls)
    assert all(call["logits"].dtype == torch.float32 for call in calls)
    assert [call["synchronised"] for call in calls] == [[0], [1], [2], [3], [4]]
    assert (result.step, result.finished, result.reward_queries) == (5, True, 5 * 3 * 2)


def test_what_an_algorithm_measures_is_logged_beside_the_loss(tmp_path: Path) -> None:
    _, calls = train_recording(tmp_path / "run", steps=2)
    rows = [row for row in read_rows(tmp_path / "run") if "mine" in row]
    assert [(row["mine"], row["micro-batch"]) for row in rows] == [(2.5, 0), (2.5, 1)]
    losses = [call["logits"].square().mean().item() for call in calls]
    assert [row["train/loss"] for row in rows] == pytest.approx(losses, rel=1e-6)


def test_the_learning_rate_rises_for_15_percent_of_the_steps_and_falls_to_zero() -> None:
    assert one_cycle(0) == pytest.approx(0.04)
    assert one_cycle(0.075) == pytest.approx((0.04 + 1) / 2)
    assert one_cycle(0.15) == pytest.approx(1)
    assert one_cycle(0.575) == pytest.approx(0.5)
    assert one_cycle(1) == pytest.approx(0, abs=1e-12)
    curve = np.array([one_cycle(p) for p in np.linspace(0, 1, 201)])
    assert (np.diff(curve[:31]) > 0).all()
    assert (np.diff(curve[30:]) < 0).all()


@pytest.mark.parametrize("decay_from", [0.4, 0.9])
def test_the_learning_rate_stays_at_its_peak_until_it_is_to_fall(decay_from: float) -> None:
    rising, staying = np.linspace(0, 0.15, 20), np.linspace(0.15, decay_from, 20)
    assert [one_cycle(p, decay_from) for p in rising] == [one_cycle(p) for p in rising]
    assert [one_cycle(p, decay_from) for p in staying] == [1.0] * 20
    assert one_cycle((1 + decay_from) / 2, decay_from) == pytest.approx(0.5)
    assert one_cycle(1, decay_from) == pytest.approx(0, abs=1e-12)
    assert [one_cycle(p, 0.1) for p in staying] == [one_cycle(p) for p in staying]  # it cannot fall before it is up


@pytest.mark.parametrize("decay_from", [-0.1, 1.0, math.nan])
def test_a_learning_rate_that_would_never_or_always_fall_is_refused(tmp_path: Path, decay_from: float) -> None:
    with pytest.raises(OptionError, match=f"decay_from must be at least 0 and below 1, got {decay_from}"):
        train("RSS-Shapes-ImageReward-v0", Likelihood(decay_from=decay_from), run_dir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_an_algorithm_says_from_when_on_the_learning_rate_falls(tmp_path: Path) -> None:
    algorithm = Recording(learning_rate=0.01, decay_from=0.5)
    shared: dict[str, Any] = {"image_size": (16, 16), "env_kwargs": {"num_images": 8}, "batch_size": 3}
    train("RSS-Shapes-ImageReward-v0", algorithm, run_dir=str(tmp_path), steps=8, log_every=1, progress=False, **shared)
    rates = [row["train/learning_rate"] for row in read_rows(tmp_path) if "mine" in row]
    assert rates == pytest.approx([0.01 * one_cycle(step / 8, 0.5) for step in range(8)])


def test_every_step_uses_the_learning_rate_of_its_place_in_the_schedule(tmp_path: Path) -> None:
    train_recording(tmp_path / "run", steps=8, learning_rate=0.01)
    rates = [row["train/learning_rate"] for row in read_rows(tmp_path / "run") if "mine" in row]
    assert rates == pytest.approx([0.01 * one_cycle(step / 8) for step in range(8)])


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_images_are_mirrored_only_if_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augment: str
) -> None:
    seen: list[np.ndarray] = []  # by the network while it trains

    def forward(network: UNet, images: torch.Tensor) -> torch.Tensor:
        if network.training:
            seen.append(images.numpy().copy())
        return original(network, images)

    original = UNet.forward
    monkeypatch.setattr(UNet, "forward", forward)
    _, calls = train_recording(tmp_path / "run", steps=8, augment=augment)
    shown = np.concatenate(seen[-8:])  # before those, the network was tried out
    photos = load_dataset("Shapes", image_size=(16, 16), num_images=8).images
    stored = photos[[index for call in calls for index in call["index"]]]
    straight = (shown == stored).all(axis=(1, 2, 3))
    mirrored = (shown == stored[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (straight ^ mirrored).all()
    assert mirrored.tolist() == [flipped for call in calls for flipped in call["feedback"].flipped]
    assert mirrored.any() == (augment == "flip")
    assert straight.any()


def test_the_seed_decides_the_weights_and_the_order_of_the_images(tmp_path: Path) -> None:
    first, same, other = (
        train_recording(tmp_path / name, steps=2, seed=seed, learning_rate=1e-12)[1]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert all(torch.equal(a["logits"], b["logits"]) for a, b in zip(first, same, strict=True))
    weights, other_weights = (load_policy(tmp_path / name, torch.device("cpu"))[0].head.weight for name in ("a", "c"))
    assert (weights - other_weights).abs().max() > 0.01  # at this learning rate they are still the initial ones
    assert [list(call["index"]) for call in first] == [list(call["index"]) for call in same]
    assert [list(call["index"]) for call in first] != [list(call["index"]) for call in other]


@pytest.mark.parametrize(("eval_every", "steps"), [(0, [5]), (2, [2, 4, 5])])
def test_the_policy_is_evaluated_as_often_as_asked_and_at_the_end(
    tmp_path: Path, eval_every: int, steps: list[int]
) -> None:
    result, _ = train_recording(tmp_path / "run", steps=5, eval_every=eval_every)
    rows = [row for row in read_rows(tmp_path / "run") if "val/miou" in row]
    assert [row["step"] for row in rows] == steps
    assert result.evaluation is not None
    assert rows[-1]["val/miou"] == result.evaluation.miou


def test_a_command_names_its_run_folder_after_the_algorithm_the_environment_and_the_seed(tmp_path: Path) -> None:
    words = ["--image-size", "16", "16", "--env-kwargs", '{"num_images": 4}', "--steps", "1", "--batch-size", "2"]
    words += ["--network-options", '{"width": 8}', "--seed", "7", "--no-progress"]
    ended = subprocess.run(
        [sys.executable, "-m", "agents.supervised", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    run_dir = Path("runs") / "supervised-RSS-Shapes-ImageReward-v0-seed7"
    assert json.loads((tmp_path / run_dir / "config.json").read_text())["algorithm"] == "Supervised"
    assert ended.stdout.splitlines()[-1] == str(run_dir / "checkpoints" / "step-00000001")


def test_a_finished_command_tells_its_result_and_where_the_checkpoint_is(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    words = ["--image-size", 16, 16, "--env-kwargs", '{"num_images": 4}', "--steps", 2, "--batch-size", 2]
    words += [
        "--samples-per-image",
        3,
        "--network-options",
        '{"width": 8}',
        "--no-progress",
        "--run-dir",
        tmp_path / "run",
    ]
    outcome = command(Likelihood, *words)
    assert (outcome.code, outcome.err) == (0, "")
    final = next(row for row in read_rows(tmp_path / "run") if "val/miou" in row)
    assert f"mIoU {final['val/miou']:.4f}" in outcome.out
    assert "on 4 images; 12 reward queries" in outcome.out
    assert outcome.out.endswith(f"{tmp_path / 'run' / 'checkpoints' / 'step-00000002'}\n")


def test_processes_and_resumed_jobs_of_another_size_draw_other_label_maps() -> None:
    keys = [(seed, rank, step) for seed in (1, 2) for rank in (0, 1, 2) for step in (0, 500)]
    draws = {tuple(torch.rand(4, generator=torch.Generator().manual_seed(stream_seed(*key))).tolist()) for key in keys}
    assert len(draws) == len(keys)
    assert stream_seed(7, 0, 0) == 7  # one process alone draws what its --seed says
