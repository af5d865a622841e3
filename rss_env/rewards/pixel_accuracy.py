"""Pixel accuracy: the share of counted pixels whose class is right, each pixel weighted by its class if asked."""

from __future__ import annotations

from rss_env.datasets.dataset import IGNORE_INDEX
from rss_env.rewards.arrays import Array, as_float32, as_float64, constants, lookup, quotient, ratio, tree_sum
from rss_env.rewards.counting import Counts

assert IGNORE_INDEX == 255  # a label map holds 0..254, so an ignored pixel never equals its target


def pixel_accuracy(counts: Counts, *, class_weights: tuple[float, ...] | None = None) -> Array:
    """Pixel accuracy of every label map, Σ_c w_c |map = c and target = c| / Σ_c w_c |target = c|.

    Args:
        counts: of B images with K label maps each.
        class_weights: C weights w; None: all equal.

    Returns:
        float64 (B, K) in [0, 1]; 0 where no pixel counts, or all that do weigh 0.
    """
    if class_weights is None:
        return ratio(counts.intersection.sum(-1), counts.target.sum(-1))
    weights = constants(class_weights, counts.target)
    return quotient(tree_sum(weights * counts.intersection), tree_sum(weights * counts.target))


def right_pixels(
    counts: Counts, label_maps: Array, targets: Array, *, class_weights: tuple[float, ...] | None = None
) -> Array:
    """Reward of every pixel: 1 where the class is right, 0 where it is wrong or the pixel is ignored.

    With weights a right pixel gets its class's weight over the mean weight of the image's counted pixels, so that the
    mean over them is ``pixel_accuracy``; a rare, heavy class then gets more than 1.

    Args:
        counts: of B images with K label maps each.
        label_maps: uint8 (B, K, H, W).
        targets: uint8 (B, H, W), 255 = ignored.
        class_weights: C weights; None: all equal.

    Returns:
        float32 (B, K, H, W).
    """
    right = label_maps == targets[:, None]
    if class_weights is None:
        return as_float32(right)
    weights = constants(class_weights, counts.target)
    mean_weight = quotient(tree_sum(weights * counts.target), as_float64(counts.target.sum(-1)))  # (B, 1)
    ignored_too = constants((*class_weights, 0.0), counts.target)
    per_pixel = lookup(ignored_too, targets.clip(max=len(class_weights)))  # (B, H, W)
    return as_float32(right * quotient(per_pixel, mean_weight[:, :, None])[:, None])
