"""Every reward a second time, pixel by pixel and in exact fractions, straight from its definition."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

Weights = Sequence[float] | None


def counted_pixels(label_map: np.ndarray, target: np.ndarray) -> list[tuple[int, int]]:
    """(label, target) of every pixel that is not ignored."""
    return [(int(a), int(b)) for a, b in zip(label_map.flat, target.flat, strict=True) if b != 255]


def class_mean(
    score: Callable[[int], Fraction], pixels: list[tuple[int, int]], classes: str, class_weights: Weights
) -> Fraction:
    """Weighted mean of class-wise scores over the classes in the target, or in the target or the label map."""
    chosen = {b for _, b in pixels} | ({a for a, _ in pixels} if classes == "union" else set())
    weights = {c: Fraction(1) if class_weights is None else Fraction(class_weights[c]) for c in chosen}
    total = sum(weights.values(), Fraction(0))
    return sum((weights[c] * score(c) for c in chosen), Fraction(0)) / total if total else Fraction(0)


def mean_iou(
    label_map: np.ndarray, target: np.ndarray, *, classes: str = "union", class_weights: Weights = None
) -> Fraction:
    pixels = counted_pixels(label_map, target)
    return class_mean(lambda c: iou(pixels, c), pixels, classes, class_weights)


def iou(pixels: list[tuple[int, int]], label: int) -> Fraction:
    return Fraction(sum(a == b == label for a, b in pixels), sum(label in pixel for pixel in pixels))


def frequency_weighted_iou(label_map: np.ndarray, target: np.ndarray) -> Fraction:
    pixels = counted_pixels(label_map, target)
    return sum((iou(pixels, b) for _, b in pixels), Fraction(0)) / len(pixels) if pixels else Fraction(0)


def mean_dice(
    label_map: np.ndarray, target: np.ndarray, *, classes: str = "union", class_weights: Weights = None
) -> Fraction:
    pixels = counted_pixels(label_map, target)

    def dice(label: int) -> Fraction:
        sizes = sum((a == label) + (b == label) for a, b in pixels)
        return Fraction(2 * sum(a == b == label for a, b in pixels), sizes)

    return class_mean(dice, pixels, classes, class_weights)


def pixel_accuracy(label_map: np.ndarray, target: np.ndarray, *, class_weights: Weights = None) -> Fraction:
    pixels = counted_pixels(label_map, target)
    weight = [Fraction(1) if class_weights is None else Fraction(class_weights[b]) for _, b in pixels]
    right = sum((w for w, (a, b) in zip(weight, pixels, strict=True) if a == b), Fraction(0))
    return right / sum(weight) if sum(weight) else Fraction(0)


def right_pixels(
    label_map: np.ndarray, target: np.ndarray, *, class_weights: Weights = None
) -> dict[tuple[int, int], Fraction]:
    """The reward of every counted pixel."""
    weight = {
        b: Fraction(1) if class_weights is None else Fraction(class_weights[b])
        for b in np.unique(target[target != 255]).tolist()
    }
    total, counted = Fraction(0), 0
    for _, b in counted_pixels(label_map, target):
        total, counted = total + weight[b], counted + 1
    return {
        place: weight[int(b)] * counted / total if total and label_map[place] == b else Fraction(0)
        for place, b in np.ndenumerate(target)
        if b != 255
    }


def boundary_f1(
    label_map: np.ndarray,
    target: np.ndarray,
    *,
    classes: str = "union",
    class_weights: Weights = None,
    tolerance: float | None = None,
) -> Fraction:
    height, width = target.shape
    radius = math.ceil(0.0075 * math.hypot(height, width)) if tolerance is None else tolerance
    counted = {(y, x) for y, x in np.ndindex(height, width) if target[y, x] != 255}
    edges = [edge_pixels(labels, counted) for labels in (label_map, target)]
    pixels = counted_pixels(label_map, target)

    def f1(label: int) -> Fraction:
        guess, truth = (found.get(label, []) for found in edges)
        if not guess and not truth:
            return Fraction(label in {a for a, _ in pixels} and label in {b for _, b in pixels})
        precision, recall = share_met(guess, truth, radius), share_met(truth, guess, radius)
        return 2 * precision * recall / (precision + recall) if precision + recall else Fraction(0)

    return class_mean(f1, pixels, classes, class_weights)


def edge_pixels(labels: np.ndarray, counted: set[tuple[int, int]]) -> dict[int, list[tuple[int, int]]]:
    """The counted pixels of each class that have a counted neighbour of another class above, below, left or right."""
    found: dict[int, list[tuple[int, int]]] = {}
    for y, x in counted:
        around = {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} & counted
        if any(labels[place] != labels[y, x] for place in around):
            found.setdefault(int(labels[y, x]), []).append((y, x))
    return found


def share_met(places: list[tuple[int, int]], others: list[tuple[int, int]], radius: float) -> Fraction:
    met = sum(any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in others) for y, x in places)
    return Fraction(met, len(places)) if places else Fraction(0)


ORACLES = {
    "mean_iou": mean_iou,
    "frequency_weighted_iou": frequency_weighted_iou,
    "mean_dice": mean_dice,
    "boundary_f1": boundary_f1,
    "pixel_accuracy": pixel_accuracy,
}
PIXEL_ORACLES = {"pixel_accuracy": right_pixels}
