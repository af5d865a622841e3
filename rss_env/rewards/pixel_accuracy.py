"""Pixel accuracy: the share of counted pixels whose class is right."""

from __future__ import annotations

import numpy as np

from rss_env.datasets.dataset import IGNORE_INDEX
from rss_env.rewards.counts import Counts


def image_score(counts: Counts) -> np.ndarray:
    """Pixel accuracy of every label map.

    Args:
        counts: of B images with K label maps each.

    Returns:
        float64 (B, K) in [0, 1]; 0 where every pixel of the image is ignored.
    """
    correct = counts.intersection.sum(-1)
    counted = np.broadcast_to(counts.target.sum(-1), correct.shape)
    return np.divide(correct, counted, out=np.zeros(correct.shape), where=counted > 0)


def pixel_score(label_maps: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Reward of every pixel: 1 where the class is right, 0 where it is wrong or the pixel is ignored.

    Args:
        label_maps: uint8 (B, K, H, W).
        targets: uint8 (B, H, W), 255 = ignored.

    Returns:
        float32 (B, K, H, W).
    """
    assert IGNORE_INDEX == 255  # a label map holds 0..254, so an ignored pixel never equals its target
    return (label_maps == targets[:, None]).astype(np.float32)
