"""Means over the classes of an image, shared by the class-wise scores."""

from __future__ import annotations

from rss_env.rewards.arrays import Array, constants, quotient, ratio, tree_sum
from rss_env.rewards.counting import Counts

CLASSES = ("union", "target")
"""Which classes of an image a mean is over: those in the label map or the target, or only those in the target."""


def present(counts: Counts, classes: str) -> Array:
    """Which classes count, bool (B, K, C), or (B, 1, C) where all samples agree."""
    return (counts.predicted + counts.target if classes == "union" else counts.target) > 0


def class_mean(scores: Array, chosen: Array, class_weights: tuple[float, ...] | None) -> Array:
    """Weighted mean of class-wise scores over the chosen classes.

    Args:
        scores: float64 (B, K, C).
        chosen: bool (B, K, C) or (B, 1, C).
        class_weights: C numbers of at least 0; None: all equal.

    Returns:
        float64 (B, K); 0 where no class is chosen, or only ones of weight 0.
    """
    if class_weights is None:
        return ratio(tree_sum(scores * chosen), chosen.sum(-1))
    weights = constants(class_weights, scores) * chosen
    return quotient(tree_sum(weights * scores), tree_sum(weights))
