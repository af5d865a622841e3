"""What a step of the environment says about the label maps that were tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Crop = tuple[float, ...]
"""Top, left, height and width of a part of a stored image, in its pixels; integers where nothing is scaled."""


@dataclass(frozen=True)
class Feedback:
    """Label maps of one micro-batch and what they earned; all tensors are on the device of the policy.

    Attributes:
        label_maps: uint8 (B, K, H, W), those that were scored.
        scores: float64 (B, K), one number a label map.
        pixel_rewards: float32 (B, K, H, W), one number a pixel; None if the environment scores whole label maps only.
        index: number of each image in its split, B of them.
        flipped: whether each image was shown mirrored left and right, B of them.
        shown: the infos that the environment gave together with the images.
        crops: top, left, height and width of the part of each stored image that was shown, B of them; None if whole
            images were.
        images: uint8 (B, H, W, 3), what was shown, in the kind in which the environment gives its images; None where
            nobody said.
    """

    label_maps: torch.Tensor
    scores: torch.Tensor
    pixel_rewards: torch.Tensor | None
    index: list[int]
    flipped: list[bool]
    shown: dict[str, Any]
    crops: list[Crop] | None = None
    images: torch.Tensor | np.ndarray | None = None


def read_feedback(
    label_maps: torch.Tensor,
    shown: dict[str, Any],
    infos: dict[str, Any],
    images: torch.Tensor | np.ndarray | None = None,
) -> Feedback:
    """Feedback of a step of a vector environment that was made with ``samples_per_image``.

    Args:
        label_maps: uint8 (B, K, H, W), what was acted.
        shown: the infos that came with the images.
        infos: the infos that came back from the step.
        images: that ``shown`` came with.
    """
    final, device = infos["final_info"], label_maps.device
    pixel_rewards = final.get("pixel_reward")
    index = shown["index"].tolist()
    return Feedback(
        label_maps,
        torch.as_tensor(final["scores"]).to(device, torch.float64),
        None if pixel_rewards is None else torch.as_tensor(pixel_rewards).to(device),
        index,
        shown["flipped"].tolist() if "flipped" in shown else [False] * len(index),
        shown,
        [tuple(crop) for crop in shown["crop"].tolist()] if "crop" in shown else None,
        images,
    )


def as_action(label_maps: torch.Tensor, images: torch.Tensor | np.ndarray) -> torch.Tensor | np.ndarray:
    """Label maps in the kind in which the environment gave its images: a tensor or an array."""
    return label_maps if isinstance(images, torch.Tensor) else label_maps.cpu().numpy()
