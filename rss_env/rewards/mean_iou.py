"""Mean intersection over union of one image, plain, weighted by class, or weighted by frequency."""

from __future__ import annotations

from rss_env.rewards.arrays import Array, ratio, tree_sum
from rss_env.rewards.classes import class_mean, present
from rss_env.rewards.counting import Counts


def mean_iou(counts: Counts, *, classes: str = "union", class_weights: tuple[float, ...] | None = None) -> Array:
    """Mean IoU of every label map: IoU_c = |map = c and target = c| / |map = c or target = c|.

    Args:
        counts: of B images with K label maps each.
        classes: the mean is over the classes in the label map or the target (``"union"``) or only those in the
            target (``"target"``).
        class_weights: C weights of the mean; None: all equal.

    Returns:
        float64 (B, K) in [0, 1]; 0 where every pixel of the image is ignored, or all classes of the mean weigh 0.
    """
    return class_mean(_iou(counts), present(counts, classes), class_weights)


def frequency_weighted_iou(counts: Counts) -> Array:
    """IoU of every class, weighted by the class's share of the target's pixels (Long et al., CVPR 2015).

    Args:
        counts: of B images with K label maps each.

    Returns:
        float64 (B, K) in [0, 1]; 0 where every pixel of the image is ignored.
    """
    return ratio(tree_sum(counts.target * _iou(counts)), counts.target.sum(-1))


def _iou(counts: Counts) -> Array:
    """IoU of every class, float64 (B, K, C); 0 for an absent one."""
    return ratio(counts.intersection, counts.predicted + counts.target - counts.intersection)
