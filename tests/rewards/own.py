"""Rewards of one's own that tests name as ``tests.rewards.own:NAME``."""

from __future__ import annotations

from typing import Any

import numpy as np

from rss_env.rewards import batched, concurrent

number = 7


def agreement(image: Any, label_map: Any, target: Any, scale: float = 1.0, *, shift: float = 0.0) -> float:
    return scale * float(np.mean(np.asarray(label_map == target))) + shift


@batched
def agreement_of_all(images: Any, label_maps: Any, targets: Any, scale: float = 1.0, *, shift: float = 0.0) -> Any:
    return scale * np.asarray(label_maps == targets[:, None]).mean((2, 3)) + shift


@concurrent(workers=4)
def agreement_in_threads(image: Any, label_map: Any, target: Any, scale: float = 1.0, *, shift: float = 0.0) -> float:
    return agreement(image, label_map, target, scale, shift=shift)


async def agreement_of_tasks(image: Any, label_map: Any, target: Any, scale: float = 1.0, *, shift: float = 0.0) -> Any:
    return agreement(image, label_map, target, scale, shift=shift)


def bright(image: Any, label_map: Any, target: None, *, threshold: int) -> float:
    assert target is None
    return float(((image.mean(-1) > threshold) == (label_map == 1)).mean())


class Agreement:
    def __call__(self, image: Any, label_map: Any, target: Any) -> float:
        return agreement(image, label_map, target)


judge = Agreement()
