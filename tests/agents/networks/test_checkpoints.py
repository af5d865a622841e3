"""Weights on disk, and what a loaded policy predicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from agents.networks.checkpoints import load_policy, predict_label_maps, save_policy
from agents.networks.unet import UNet


def make_policy(num_classes: int = 4, width: int = 8) -> UNet:
    torch.manual_seed(0)
    return UNet(num_classes, width)


def draw_images(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))


def test_label_maps_are_the_most_probable_classes() -> None:
    policy, images = make_policy(), draw_images(3, 9, 11)
    label_maps = predict_label_maps(policy, images.numpy(), torch.device("cpu"))
    assert label_maps.dtype == np.uint8
    with torch.inference_mode():
        logits = policy(images).numpy()
    chosen = np.take_along_axis(logits, label_maps[:, None].astype(np.int64), axis=1)[:, 0]
    np.testing.assert_array_equal(chosen, logits.max(axis=1))
    assert len(np.unique(label_maps)) > 1


def test_a_saved_policy_comes_back_with_its_weights_and_description(tmp_path: Path) -> None:
    policy, file = make_policy(7, 16), tmp_path / "weights.safetensors"
    description = {"network": "unet", "network_options": {"width": 16}, "num_classes": 7, "resize": "pad"}
    save_policy(file, policy, description)
    loaded, described = load_policy(file, torch.device("cpu"))
    assert isinstance(loaded, UNet)
    assert described == description
    assert loaded.state_dict().keys() == policy.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[name], weights) for name, weights in policy.state_dict().items())
