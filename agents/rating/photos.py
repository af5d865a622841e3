"""The photos of a split as the policy sees them, and larger for people to look at."""

from __future__ import annotations

import threading
from typing import Any

import gymnasium as gym
import numpy as np

from .answers import image_name

SHOWN = 640  # pixels, about the longer side of what people see
CHUNK = 32  # images at once


class Photos:
    """All images of a split.

    They are known by their numbers only: no path of a file leaves the environment, and none comes in.

    Args:
        env_id: id of the environment.
        **options: its arguments, ``split`` and ``image_size`` among them.

    Attributes:
        images: uint8 (n, H, W, 3), as the policy sees them.
        names: n names that follow from the pixels.
        scale: how many times larger ``shown`` gives them, a whole number.
        has_masks: whether a policy can be measured on the split.
    """

    def __init__(self, env_id: str, **options: Any) -> None:
        envs = gym.make_vec(env_id, num_envs=1, **options)
        self.metadata = envs.metadata
        self.has_masks: bool = envs.metadata["has_targets"]
        count, (height, width) = envs.metadata["num_images"], envs.metadata["image_size"]
        size = min(CHUNK, count)
        envs = gym.make_vec(env_id, num_envs=size, **options)
        self.images = np.empty((count, height, width, 3), np.uint8)
        for start in range(0, count, size):
            index = np.minimum(np.arange(start, start + size), count - 1)
            self.images[index] = envs.reset(options={"index": index})[0]
        self.names = [image_name(image) for image in self.images]
        self.scale = max(1, SHOWN // max(height, width))
        large = (height * self.scale, width * self.scale)
        self._large = gym.make(env_id, **options | {"image_size": large})
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.images)

    def shown(self, number: int) -> np.ndarray:
        """An image for people to look at, uint8 (scale · H, scale · W, 3)."""
        with self._lock:
            image: np.ndarray = self._large.reset(options={"index": number})[0]
        return np.array(image)
