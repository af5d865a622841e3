"""Mean Dice coefficient, the F1 score of pixels, of one image."""

from __future__ import annotations

from rss_env.rewards.arrays import Array, ratio
from rss_env.rewards.classes import class_mean, present
from rss_env.rewards.counting import Counts


def mean_dice(counts: Counts, *, classes: str = "union", class_weights: tuple[float, ...] | None = None) -> Array:
    """Mean Dice of every label map: Dice_c = 2 |map = c and target = c| / (|map = c| + |target = c|).

    Args: see ``mean_iou``.

    Returns:
        float64 (B, K) in [0, 1]; 0 where every pixel of the image is ignored, or all classes of the mean weigh 0.
    """
    dice = ratio(2 * counts.intersection, counts.predicted + counts.target)
    return class_mean(dice, present(counts, classes), class_weights)
