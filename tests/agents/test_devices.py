"""The loop with an environment that gives tensors, as it does beside a policy on an accelerator, and compiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from agents import RSS, Likelihood, Supervised, WeakLabels
from agents.networks.unet import UNet
from agents.training.algorithm import Algorithm
from agents.training.loop import Result, read_metrics, train
from agents.training.run_folder import RunFolder
from rss_env.datasets import load_dataset

SHARED: dict[str, Any] = {
    "image_size": (16, 24),
    "env_kwargs": {"num_images": 4},
    "augment": "flip",
    "batch_size": 4,
    "steps": 4,
    "network_options": {"width": 8},
    "log_every": 1,
    "progress": False,
}


KINDS: dict[str, Callable[[], Algorithm]] = {
    "supervised": Supervised,
    "tags": WeakLabels,
    "image": lambda: Likelihood(samples_per_image=4),
    "pixel": lambda: Likelihood(samples_per_image=4),
    "reinforce": lambda: RSS(samples_per_image=4),
}


def run(
    kind: str, run_dir: Path, env_device: str | None = None, **further: Any
) -> tuple[Result, list[dict[str, float]], dict[str, torch.Tensor]]:
    """Trains; gives the result, the logged rows without times, and the weights.

    With ``env_device`` the environment gives tensors, as it does where the policy is on an accelerator.
    """
    algorithm, level = KINDS[kind](), "Pixel" if kind == "pixel" else "Image"
    if env_device is not None:
        options = algorithm.env_options() | {"device": env_device}
        algorithm.env_options = lambda: options  # type: ignore[method-assign]
    result = train(f"RSS-Shapes-{level}Reward-v0", algorithm, run_dir=str(run_dir), **SHARED | further)
    rows = [{k: v for k, v in row.items() if k != "time/seconds"} for row in RunFolder(run_dir).read_metrics()]
    return result, rows, load_file(result.checkpoint / "weights.safetensors")


@pytest.mark.parametrize("kind", ["supervised", "tags", "image", "pixel", "reinforce"])
def test_training_in_an_environment_of_tensors_is_the_same_to_the_bit(tmp_path: Path, kind: str) -> None:
    host, host_rows, host_weights = run(kind, tmp_path / "host")
    device, rows, weights = run(kind, tmp_path / "device", env_device="cpu")
    assert rows == host_rows
    assert len(rows) == 5
    assert device.reward_queries == host.reward_queries
    assert all(torch.equal(weights[name], host_weights[name]) for name in host_weights)


def test_the_compiled_policy_is_one_graph_and_trains_as_the_plain_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []

    def compile_whole(module: nn.Module) -> None:
        compiled.append(type(module))
        original(module, backend="aot_eager", fullgraph=True)

    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", compile_whole)
    _, plain_rows, plain = run("image", tmp_path / "plain")
    assert compiled == []
    _, rows, weights = run("image", tmp_path / "compiled", compile=True)
    assert compiled == [UNet]
    assert weights.keys() == plain.keys()  # the checkpoint does not say how it was trained
    for row, other in zip(rows, plain_rows, strict=True):
        assert row.get("train/loss", 0.0) == pytest.approx(other.get("train/loss", 0.0), rel=1e-3, abs=1e-5)
    assert all(torch.allclose(weights[name], plain[name], atol=1e-3) for name in plain)


def test_metrics_become_numbers_in_their_order() -> None:
    metrics = {"a": torch.tensor(2, dtype=torch.int32), "b": 0.5, "c": torch.tensor(0.1, dtype=torch.float64)}
    assert list(read_metrics(metrics).items()) == [("a", 2.0), ("b", 0.5), ("c", 0.1)]
    assert read_metrics({"b": 0.5}) == {"b": 0.5}
    assert read_metrics({"d": torch.tensor(0.1)})["d"] == pytest.approx(0.1, abs=1e-8)


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_the_numbers_of_the_images_are_known_without_asking_the_device(augment: str) -> None:
    options: dict[str, Any] = {"num_envs": 5, "image_size": (16, 16), "num_images": 9, "augment": augment}
    photos = load_dataset("Shapes", image_size=(16, 16), num_images=9).images
    for device in ({}, {"device": "cpu"}):
        envs: Any = gym.make_vec("RSS-Shapes-ImageReward-v0", **options, **device)
        images, infos = envs.reset(seed=3)
        assert isinstance(images, torch.Tensor) == bool(device)
        for _ in range(4):
            indices = infos["index"].tolist()
            flipped = infos["flipped"].tolist() if augment == "flip" else [False] * len(indices)
            for image, index, mirrored in zip(np.asarray(images), indices, flipped, strict=True):
                np.testing.assert_array_equal(image, photos[index][:, :: -1 if mirrored else 1])
            images, *_, infos = envs.step(np.zeros((5, 16, 16), np.uint8))
