"""Data-set-level metrics from one confusion matrix."""

from __future__ import annotations

import numpy as np

from rss_env.rewards.counting.numpy import histogram


class ConfusionMatrix:
    """Counts (target, prediction) pairs over many images; ignored pixels are left out.

    Args:
        num_classes: C.

    Attributes:
        counts: int64 (C, C), rows are targets, columns predictions.

    Example:
        >>> matrix = ConfusionMatrix(2)
        >>> matrix.update(np.array([[[0, 1]]], np.uint8), np.array([[[0, 0]]], np.uint8))
        >>> matrix.pixel_accuracy(), matrix.miou()
        (0.5, 0.25)
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def update(self, label_maps: np.ndarray, targets: np.ndarray) -> None:
        """Adds label maps and their targets, both uint8 (B, H, W); target values of C and above are ignored."""
        if label_maps.shape != targets.shape:
            raise ValueError(f"Label maps {label_maps.shape} and targets {targets.shape} differ in shape.")
        if label_maps.size and label_maps.max() >= self.num_classes:
            raise ValueError(f"Label maps must hold 0..{self.num_classes - 1}, got {label_maps.max()}.")
        rows = np.minimum(targets, self.num_classes).astype(np.uint16)
        pairs = (rows * self.num_classes + label_maps).reshape(1, -1)
        bins = (self.num_classes + 1) * self.num_classes
        self.counts += histogram(pairs, bins)[0, : self.num_classes**2].reshape(self.counts.shape)

    def per_class_iou(self) -> np.ndarray:
        """float64 (C,): IoU of each class, NaN for a class in no target and no prediction."""
        intersection = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - intersection
        return np.divide(intersection, union, out=np.full(self.num_classes, np.nan), where=union > 0)

    def miou(self) -> float:
        """Mean IoU over the classes in any target or prediction; NaN if there is none."""
        iou = self.per_class_iou()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")

    def pixel_accuracy(self) -> float:
        """Share of counted pixels that are right; NaN if none is counted."""
        total = self.counts.sum()
        return float(np.diag(self.counts).sum() / total) if total else float("nan")
