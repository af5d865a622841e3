"""Mean intersection over union of one image."""

from __future__ import annotations

import numpy as np

from rss_env.rewards.counts import Counts


def image_score(counts: Counts) -> np.ndarray:
    """Mean IoU of every label map, over the classes present in the label map or the target.

    IoU_c = |map = c and target = c| / |map = c or target = c|, ignored pixels left out on both sides.

    Args:
        counts: of B images with K label maps each.

    Returns:
        float64 (B, K) in [0, 1]; 0 where every pixel of the image is ignored.
    """
    union = counts.predicted + counts.target - counts.intersection  # (B, K, C)
    iou = counts.intersection / np.maximum(union, 1)
    present = np.count_nonzero(union, axis=-1)
    return iou.sum(-1) / np.maximum(present, 1)
