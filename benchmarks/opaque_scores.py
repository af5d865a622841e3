"""Scores whose formula an agent cannot know: functions that ``--reward benchmarks.opaque_scores:NAME`` passes on."""

from __future__ import annotations

from typing import Any

from rss_env.rewards import batched, score_images

WEIGHTS = (0.5, 2.0, 1.0, 3.0, 0.25, 1.0, 2.0, 1.0, 3.0, 0.5, 2.0)


def _score(name: str, label_maps: Any, targets: Any, num_classes: int, **options: Any) -> Any:
    return score_images(name, label_maps, targets, num_classes, **options)


@batched
def mean_iou(images: Any, label_maps: Any, targets: Any, *, num_classes: int) -> Any:
    """The mean IoU."""
    return _score("mean_iou", label_maps, targets, num_classes)


@batched
def weighted_mean_iou(images: Any, label_maps: Any, targets: Any, *, num_classes: int) -> Any:
    """The mean IoU with class weights from 0.25 to 3."""
    return _score("mean_iou", label_maps, targets, num_classes, class_weights=WEIGHTS[:num_classes])


@batched
def cubed_mean_iou(images: Any, label_maps: Any, targets: Any, *, num_classes: int) -> Any:
    """A monotone transform: the mean IoU to the power of three."""
    return _score("mean_iou", label_maps, targets, num_classes) ** 3


@batched
def rating(images: Any, label_maps: Any, targets: Any, *, num_classes: int) -> Any:
    """A rating from 1 to 5: the mean IoU in five steps."""
    return (4 * _score("mean_iou", label_maps, targets, num_classes)).round() + 1


@batched
def boundary_f1(images: Any, label_maps: Any, targets: Any, *, num_classes: int) -> Any:
    """The boundary F1."""
    return _score("boundary_f1", label_maps, targets, num_classes)
