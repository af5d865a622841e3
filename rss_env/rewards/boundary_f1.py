"""Boundary F1: how well the borders between classes match."""

from __future__ import annotations

import itertools
import math

from rss_env.datasets.dataset import IGNORE_INDEX
from rss_env.rewards.arrays import Array, namespace, quotient, ratio
from rss_env.rewards.classes import class_mean, present
from rss_env.rewards.counting import Counts, count_classes


def boundary_f1(
    counts: Counts,
    label_maps: Array,
    targets: Array,
    *,
    classes: str = "union",
    class_weights: tuple[float, ...] | None = None,
    tolerance: float | None = None,
) -> Array:
    """Mean boundary F1 of every label map (Csurka et al., "What is a good evaluation measure for semantic
    segmentation?", BMVC 2013; the treatment of ignored pixels and of classes without a boundary is our reading).

    A counted pixel is on the boundary of its class if one of its four neighbours counts and is of another class.
    Precision of a class is the share of its boundary pixels in the label map that have one in the target within
    ``tolerance``, recall the share of those in the target that have one in the label map, and F1 their harmonic mean. A
    class that has a boundary in neither scores 1 if both contain it, else 0.

    Args:
        counts: of B images with K label maps each.
        label_maps: uint8 (B, K, H, W), values 0..C-1.
        targets: uint8 (B, H, W), values 0..C-1 or 255 (ignored).
        classes: the mean is over the classes in the label map or the target (``"union"``) or only those in the
            target (``"target"``).
        class_weights: C weights of the mean; None: all equal.
        tolerance: largest Euclidean distance of a match in pixels; None: 0.75 % of the image's diagonal, rounded up.
            Time grows with its square.

    Returns:
        float64 (B, K) in [0, 1]; 0 where every pixel of the image is ignored, or all classes of the mean weigh 0.
    """
    num_classes = counts.target.shape[-1]
    height, width = targets.shape[-2:]
    radius = math.ceil(0.0075 * math.hypot(height, width)) if tolerance is None else tolerance
    truth = targets[:, None]  # (B, 1, H, W)
    guess_edges = _edges(_where(truth != IGNORE_INDEX, label_maps))  # (B, K, H, W)
    truth_edges = _edges(truth)  # (B, 1, H, W)
    truth_edges_each = namespace(truth).broadcast_to(truth_edges, guess_edges.shape)
    guessed = count_classes(guess_edges, num_classes)
    given = count_classes(truth_edges, num_classes)
    precision = ratio(count_classes(_met(guess_edges, truth_edges_each, radius), num_classes), guessed)
    recall = ratio(count_classes(_met(truth_edges_each, guess_edges, radius), num_classes), given)
    f1 = quotient(2 * precision * recall, precision + recall)
    smooth = (guessed + given == 0) & (counts.predicted > 0) & (counts.target > 0)
    return class_mean(f1 + smooth, present(counts, classes), class_weights)


def _edges(labels: Array) -> Array:
    """The class of every boundary pixel and 255 elsewhere, (..., H, W)."""
    edge = labels != labels  # all False, on the labels' device
    for here, there in (_shift(labels, 1, 0), _shift(labels, 0, 1)):
        border = labels[here] != labels[there]
        border &= (labels[here] != IGNORE_INDEX) & (labels[there] != IGNORE_INDEX)
        edge[here] |= border
        edge[there] |= border
    return _where(edge, labels)


def _met(edges: Array, others: Array, radius: float) -> Array:
    """``edges`` where a pixel of the same class in ``others`` is within ``radius``, and 255 elsewhere."""
    met = edges == others
    rows, columns = (int(min(radius, length - 1)) for length in edges.shape[-2:])
    for down, right in itertools.product(range(-rows, rows + 1), range(-columns, columns + 1)):
        if 0 < down * down + right * right <= radius * radius:
            here, there = _shift(edges, down, right)
            met[here] |= edges[here] == others[there]
    return _where(met, edges)


def _where(chosen: Array, labels: Array) -> Array:
    """The labels where ``chosen``, and 255 elsewhere."""
    return namespace(labels).where(chosen, labels, IGNORE_INDEX)


def _shift(array: Array, down: int, right: int) -> tuple[tuple, tuple]:
    """Two indices that lay an (..., H, W) array over itself shifted: pixels that stay inside, and their partners."""
    (top, top_there), (left, left_there) = _overlap(array.shape[-2], down), _overlap(array.shape[-1], right)
    return (..., top, left), (..., top_there, left_there)


def _overlap(length: int, shift: int) -> tuple[slice, slice]:
    back, forth = max(0, -shift), max(0, shift)
    return slice(back, length - forth), slice(forth, length - back)
