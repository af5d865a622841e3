"""Data-set-level evaluation of anything that turns images into label maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from rss_env.arguments import is_count
from rss_env.errors import OptionError
from rss_env.metrics import ConfusionMatrix
from rss_env.spaces import check_label_maps

METRICS = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "score": "mean score"}  # as they are printed


@dataclass(frozen=True)
class Evaluation:
    """Metrics over the images of a split.

    Attributes:
        miou: mean IoU over the classes of the data-set-level confusion matrix, 0..1; None without masks.
        pixel_accuracy: share of counted pixels that are right, 0..1; None without masks.
        per_class_iou: class name -> IoU; None for a class in no target and no label map; empty without masks.
        images: number of images.
        score: mean score of the label maps by the environment's reward; None if they were not scored.
        queries: label maps scored.
    """

    miou: float | None
    pixel_accuracy: float | None
    per_class_iou: dict[str, float | None]
    images: int
    score: float | None = None
    queries: int = 0

    @property
    def metrics(self) -> dict[str, float]:
        """What there is of ``miou``, ``pixel_accuracy`` and ``score``, by name, in this order."""
        all_of_them = {"miou": self.miou, "pixel_accuracy": self.pixel_accuracy, "score": self.score}
        return {name: value for name, value in all_of_them.items() if value is not None}

    def __str__(self) -> str:
        numbers = ", ".join(f"{METRICS[name]} {value:.4f}" for name, value in self.metrics.items())
        return f"{numbers} on {self.images} images"


def evaluate(
    predict: Callable[[np.ndarray], np.ndarray],
    env_id: str,
    *,
    split: str = "val",
    batch_size: int = 16,
    limit: int | None = None,
    score: bool | None = None,
    **env_options: Any,
) -> Evaluation:
    """Runs ``predict`` over a split, each image once.

    The function keeps the targets to itself, so what it evaluates needs no access to them.

    Args:
        predict: uint8 images (B, H, W, 3) -> integer label maps (B, H, W).
        env_id: id of the environment, either reward level.
        split: name of the split.
        batch_size: B, the most images in one call of ``predict``.
        limit: evaluate the first ``limit`` images only.
        score: whether the environment's reward scores the label maps, one query an image; None: only where there are
            no masks.
        **env_options: further arguments of the environment, such as ``root`` and ``image_size``; whole images are
            shown whatever ``augment`` and ``crop_size`` say.

    Raises:
        OptionError: ``batch_size`` or ``limit`` is less than 1, or an argument of the environment is not valid.
        InvalidAction: ``predict`` gave label maps of a wrong shape, dtype or class.

    Example:
        >>> result = evaluate(lambda images: np.zeros(images.shape[:3], np.uint8), "RSS-Shapes-ImageReward-v0")
        >>> result.images, result.per_class_iou["disk"]
        (128, 0.0)
    """
    for name, value in (("batch_size", batch_size), ("limit", 1 if limit is None else limit)):
        if not is_count(value):
            raise OptionError(f"{name} must be an integer of at least 1, got {value!r}.")
    options = env_options | {"split": split, "augment": "none", "crop_size": None, "samples_per_image": None}
    probe = gym.make_vec(env_id, num_envs=1, **options)
    class_names, num_images = probe.metadata["class_names"], probe.metadata["num_images"]
    measured = options["expose_target"] = probe.metadata["has_targets"]
    scored = not measured if score is None else score
    count = num_images if limit is None else min(limit, num_images)
    size = min(batch_size, count)
    envs = gym.make_vec(env_id, num_envs=size, **options)
    shape, num_classes = (size, *probe.single_action_space.shape), len(class_names)  # type: ignore[misc]
    matrix, total = ConfusionMatrix(num_classes), 0.0
    for start in range(0, count, size):
        indices = np.minimum(np.arange(start, start + size), count - 1)
        fresh = min(size, count - start)  # the last batch repeats the last image instead of changing its shape
        images, infos = envs.reset(options={"index": indices})
        label_maps = check_label_maps(predict(images), shape, num_classes)
        if measured:
            matrix.update(label_maps[:fresh], infos["target"][:fresh])
        if scored:
            if fresh < size:  # no query for an image that is repeated
                envs = gym.make_vec(env_id, num_envs=fresh, **options)
                envs.reset(options={"index": indices[:fresh]})
            total += float(envs.step(label_maps[:fresh])[1].sum())
    mean, queries = (total / count, count) if scored else (None, 0)
    if not measured:
        return Evaluation(None, None, {}, count, mean, queries)
    per_class = {
        name: None if math.isnan(iou) else float(iou)
        for name, iou in zip(class_names, matrix.per_class_iou(), strict=True)
    }
    return Evaluation(matrix.miou(), matrix.pixel_accuracy(), per_class, count, mean, queries)


def check_split(env_id: str, *, split: str = "val", **env_options: Any) -> None:
    """Raises what ``evaluate`` would raise if it cannot run: no such split or folder, no masks and a reward that
    needs them.

    Args:
        env_id: id of the environment.
        split: name of the split.
        **env_options: as for ``evaluate``.
    """
    gym.make_vec(env_id, num_envs=1, split=split, **env_options).close()
