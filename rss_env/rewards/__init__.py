"""Rewards by name: pure, batched functions from label maps and targets to scores in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rss_env.errors import OptionError
from rss_env.rewards import mean_iou, pixel_accuracy
from rss_env.rewards.counts import Counts, count_labels, count_targets

__all__ = [
    "LEVELS",
    "REWARDS",
    "Counts",
    "Reward",
    "count_labels",
    "count_targets",
    "get_reward",
    "score_images",
    "score_pixels",
]

LEVELS = ("image", "pixel")


@dataclass(frozen=True)
class Reward:
    """One reward.

    Attributes:
        name: key in ``REWARDS``.
        image_score: Counts -> float64 (B, K), the score of each label map.
        pixel_score: (label maps, targets) -> float32 (B, K, H, W), the score of each pixel; None if it has none.
    """

    name: str
    image_score: Callable[[Counts], np.ndarray]
    pixel_score: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None

    def has_level(self, level: str) -> bool:
        """Whether the reward is defined at ``"image"`` or ``"pixel"`` level."""
        return level == "image" or self.pixel_score is not None


REWARDS = {
    reward.name: reward
    for reward in (
        Reward("mean_iou", mean_iou.image_score),
        Reward("pixel_accuracy", pixel_accuracy.image_score, pixel_accuracy.pixel_score),
    )
}
DEFAULT_REWARD = {"image": "mean_iou", "pixel": "pixel_accuracy"}


def get_reward(name: str | None, level: str) -> Reward:
    """The reward called ``name`` (None: the level's default).

    Raises:
        OptionError: an unknown level, or no reward of that name at that level; the message lists the valid ones.
    """
    if level not in LEVELS:
        raise OptionError(f"Unknown reward level {level!r}; valid: {', '.join(LEVELS)}.")
    valid = [n for n, reward in REWARDS.items() if reward.has_level(level)]
    chosen = DEFAULT_REWARD[level] if name is None else name
    if chosen not in valid:
        raise OptionError(f"Unknown {level}-level reward {name!r}; valid: {', '.join(valid)}.")
    return REWARDS[chosen]


def score_images(reward: str, label_maps: np.ndarray, targets: np.ndarray, num_classes: int) -> np.ndarray:
    """Scores K label maps of each of B images.

    Args:
        reward: name of an image-level reward.
        label_maps: uint8 (B, K, H, W), values 0..C-1.
        targets: uint8 (B, H, W), values 0..C-1 or 255 (ignored).
        num_classes: C.

    Returns:
        float64 (B, K) in [0, 1].

    Example:
        >>> maps = np.array([[[[0, 1], [1, 1]]]], np.uint8)
        >>> target = np.array([[[0, 1], [0, 255]]], np.uint8)
        >>> score_images("mean_iou", maps, target, num_classes=3)  # class 0: 1/2, class 1: 1/2, class 2 absent
        array([[0.5]])
    """
    return get_reward(reward, "image").image_score(count_labels(label_maps, targets, num_classes))


def score_pixels(reward: str, label_maps: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Scores every pixel of K label maps of each of B images.

    Args:
        reward: name of a pixel-level reward.
        label_maps: uint8 (B, K, H, W).
        targets: uint8 (B, H, W), 255 = ignored.

    Returns:
        float32 (B, K, H, W) in [0, 1]; ignored pixels score 0.
    """
    pixel_score = get_reward(reward, "pixel").pixel_score
    assert pixel_score is not None
    return pixel_score(label_maps, targets)
