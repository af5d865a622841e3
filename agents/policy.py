"""The default policy: a small fully convolutional U-Net from an image to per-pixel class logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3×3 convolutions, each followed by group normalisation and ReLU; (B, inputs, h, w) -> (B, outputs, h, w)."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.GroupNorm(8, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """A U-Net (Ronneberger et al., 2015) with three down-samplings; any image size works.

    Args:
        num_classes: C.
        width: channels of the first level, a multiple of 8; the four levels have width × (1, 2, 4, 4) channels.
    """

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.width = width
        channels = (width, 2 * width, 4 * width, 4 * width)
        self.down = nn.ModuleList(block(i, o) for i, o in zip((3, *channels), channels, strict=False))
        self.up = nn.ModuleList(block(channels[i + 1] + channels[i], channels[i]) for i in reversed(range(3)))
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of every class at every pixel.

        Args:
            images: uint8 (B, H, W, 3), RGB, as the environments give them.

        Returns:
            float (B, C, H, W).
        """
        x = images.permute(0, 3, 1, 2).to(self.head.weight.dtype) / 127.5 - 1.0  # (B, 3, H, W)
        skips = []
        for level, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2, ceil_mode=True) if level else x)
            skips.append(x)
        for up, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = up(torch.cat([x, skip], dim=1))
        return self.head(x)


class CheckpointError(RuntimeError):
    """A checkpoint is missing, unreadable, or does not fit what it is asked to do."""


def save_policy(path: Path, policy: UNet, description: dict[str, Any]) -> None:
    """Writes the weights as safetensors.

    Args:
        path: the file.
        policy: the policy.
        description: what a user of the weights needs beside them, JSON-serialisable; kept as metadata.
    """
    described = description | {"architecture": "UNet", "num_classes": policy.num_classes, "width": policy.width}
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in policy.state_dict().items()}
    save_file(weights, path, metadata={"policy": json.dumps(described)})


def load_policy(path: str | Path, device: torch.device) -> tuple[UNet, dict[str, Any]]:
    """Loads a policy and its description.

    Args:
        path: a run folder (its newest checkpoint), a checkpoint folder, or a ``.safetensors`` file.
        device: where the policy goes.

    Raises:
        CheckpointError: nothing there, not a checkpoint of this project, or of another architecture.
    """
    file = find_weights(Path(path))
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"Cannot read the weights {file}: {error}.") from error
    if "policy" not in metadata:
        raise CheckpointError(f"{file} has no description of its policy; it was not written by this project.")
    described = json.loads(metadata["policy"])
    if described.get("architecture") != "UNet":
        raise CheckpointError(f"{file} holds a {described.get('architecture')!r} policy; only 'UNet' can be loaded.")
    policy = UNet(described["num_classes"], described["width"])
    try:
        policy.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"The weights in {file} do not fit their description: {error}") from error
    return policy.to(device), described


def find_weights(path: Path) -> Path:
    """The ``.safetensors`` file that a run folder, a checkpoint folder or the file itself stands for."""
    if path.is_dir():
        candidates = [path / "weights.safetensors", *sorted(path.glob("checkpoints/step-*/weights.safetensors"))]
        found = [candidate for candidate in candidates if candidate.is_file()]
        if not found:
            raise CheckpointError(
                f"{path} holds no checkpoint: expected weights.safetensors or checkpoints/step-*/weights.safetensors."
            )
        return found[-1]
    if not path.is_file():
        raise CheckpointError(f"No checkpoint at {path}.")
    return path


def check_classes(policy: UNet, num_classes: int, source: str | Path) -> None:
    """Raises ``CheckpointError`` if the policy was made for another number of classes."""
    if policy.num_classes != num_classes:
        raise CheckpointError(
            f"{source} holds a policy for {policy.num_classes} classes, but the environment has {num_classes}."
        )


def predict_label_maps(policy: UNet, images: np.ndarray, device: torch.device) -> np.ndarray:
    """The policy's most probable label maps.

    Args:
        policy: the policy, in any mode.
        images: uint8 (B, H, W, 3).
        device: where the policy is.

    Returns:
        uint8 (B, H, W).
    """
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        logits = policy(torch.from_numpy(images).to(device))
    return logits.argmax(1).to(torch.uint8).cpu().numpy()
