"""Training on a CUDA device: it runs, resumes to the same bits, and its policies are used on any device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from agents import RSS, Likelihood, Supervised, WeakLabels, evaluate
from agents.networks.checkpoints import WEIGHTS
from agents.training.algorithm import Algorithm
from agents.training.loop import train
from agents.training.run_folder import RunFolder
from rss_env.rewards import LEVELS, batched, concurrent
from tests.agents.training.test_resume import interrupted

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

ALGORITHMS: dict[str, Callable[[], Algorithm]] = {
    "rss": lambda: RSS(samples_per_image=4),
    "rss with PSR and PSD": lambda: RSS(samples_per_image=4, cells=(4, 1), advantage="psd"),
    "likelihood": lambda: Likelihood(samples_per_image=4),
    "likelihood, pixel by pixel": lambda: Likelihood(samples_per_image=4, regions=()),
    "likelihood, visits in every third step": lambda: Likelihood(samples_per_image=4, visit_every=3),
    "supervised": Supervised,
    "weak labels": WeakLabels,
}
OPTIONS: dict[str, Any] = {
    "image_size": (24, 33),
    "env_kwargs": {"num_images": 8},
    "batch_size": 4,
    "network_options": {"width": 8},
    "log_every": 1,
    "progress": False,
    "device": "cuda",
}


def run(name: str, run_dir: Path, level: str = "image", **options: Any) -> Path:
    result = train(
        f"RSS-Shapes-{level.title()}Reward-v0", ALGORITHMS[name](), run_dir=str(run_dir), **OPTIONS | options
    )
    assert result.finished
    assert next(result.network.parameters()).is_cuda
    return result.checkpoint


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_trains(name: str, level: str, tmp_path: Path) -> None:
    if (name, level) in (("rss with PSR and PSD", "pixel"), ("weak labels", "pixel")):
        pytest.skip(f"{name}: for image-level scores")
    run(name, tmp_path, level, steps=8)
    losses = [row["train/loss"] for row in RunFolder(tmp_path).read_metrics() if "train/loss" in row]
    assert len(losses) == 8
    assert len(set(losses)) > 1


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without it torch adds up gradients of a bilinear resizing, among others, in an order that varies."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)  # the value of the cross-entropy loss varies in any case
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.filterwarnings("ignore:nll_loss2d_forward")
@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("rss", ()),
        ("likelihood", ()),
        ("likelihood", ("stars:5",)),
        ("likelihood, visits in every third step", ()),
        ("supervised", ()),
    ],
)
def test_a_resumed_run_ends_with_the_same_weights(
    name: str, wrap: tuple[str, ...], tmp_path: Path, deterministic: None
) -> None:
    whole = run(name, tmp_path / "whole", steps=8, wrap=wrap)
    options = OPTIONS | {"steps": 8, "run_dir": str(tmp_path / "parts"), "wrap": wrap}
    assert not train("RSS-Shapes-ImageReward-v0", interrupted(ALGORITHMS[name](), 4), **options).finished
    parts = run(name, tmp_path / "parts", steps=8, wrap=wrap, resume=True)
    one, other = load_file(whole / WEIGHTS), load_file(parts / WEIGHTS)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_its_checkpoint_is_evaluated_on_either_device(tmp_path: Path, command: Callable[..., Any]) -> None:
    run("supervised", tmp_path, steps=8)
    for device in ("cpu", "cuda"):
        outcome = command(evaluate.main, tmp_path, "--device", device)
        assert (outcome.code, outcome.err) == (0, "")
        assert "mIoU" in outcome.out


def agreement(image: torch.Tensor, label_map: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    assert all(part.is_cuda for part in (image, label_map, target))
    return (label_map == target).double().mean()


async def agreement_of_tasks(image: torch.Tensor, label_map: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return agreement(image, label_map, target)


@batched
def agreement_of_all(images: torch.Tensor, label_maps: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    assert all(part.is_cuda for part in (images, label_maps, targets))
    return (label_maps == targets[:, None]).double().mean((2, 3))


@pytest.mark.parametrize("reward", [agreement, concurrent(agreement, retries=0), agreement_of_tasks, agreement_of_all])
def test_a_reward_of_ones_own_is_given_tensors_of_the_device(reward: Any) -> None:
    options: dict[str, Any] = {"num_images": 8, "image_size": (24, 33), "samples_per_image": 4, "augment": "flip"}
    envs = gym.make_vec("RSS-Shapes-ImageReward-v0", 3, device="cuda", reward=reward, **options)
    twin = gym.make_vec("RSS-Shapes-ImageReward-v0", 3, reward="pixel_accuracy", **options)
    label_maps = np.random.default_rng(0).integers(0, 5, (3, 4, 24, 33), np.uint8)
    for one in (envs, twin):
        one.reset(seed=0)
    scores = envs.step(torch.from_numpy(label_maps).cuda())[4]["final_info"]["scores"]
    assert scores.is_cuda
    np.testing.assert_allclose(scores.cpu(), twin.step(label_maps)[4]["final_info"]["scores"], rtol=1e-12)
