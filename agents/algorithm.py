"""What an algorithm is to the training loop: it gets feedback on images, then forms a loss from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch


@dataclass
class Collected:
    """What came back from the environment for one micro-batch.

    Attributes:
        images: uint8 (B, H, W, 3), the next images; an array or a tensor, as the environment gives them.
        infos: the environment's infos that came with them.
        feedback: what the algorithm needs to form its loss; its own business.
    """

    images: np.ndarray | torch.Tensor
    infos: dict[str, Any]
    feedback: Any


class Algorithm(ABC):
    """How a policy learns.

    An update is made of one or more micro-batches. For each, ``collect``; then once ``prepare``; then for each,
    ``loss`` and its backward pass. With a single micro-batch both calls get the same logits; with more, those of a
    second forward pass of the same weights.
    """

    @abstractmethod
    def collect(
        self,
        logits: torch.Tensor,
        envs: gym.vector.VectorEnv,
        infos: dict[str, Any],
        progress: float,
        generator: torch.Generator,
    ) -> Collected:
        """Acts on the images at hand.

        Args:
            logits: float32 (B, C, H, W), the policy's, for the images at hand; no gradient may flow from here.
            envs: the vector environment, waiting for label maps.
            infos: the infos that came with the images.
            progress: share of the training done, 0 at the first step, 1 after the last.
            generator: source of randomness on the logits' device.
        """

    def prepare(self, feedbacks: Sequence[Any]) -> None:  # noqa: B027  (optional)
        """Sees the feedback of all micro-batches of the update; every process of a job is here at the same time."""

    @abstractmethod
    def loss(
        self, logits: torch.Tensor, feedback: Any, progress: float
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Scalar to minimise, a mean over the micro-batch, and numbers to log, 0-dimensional tensors or floats."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold of the algorithm, the same in every process."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  (optional)
        """Continues from ``state_dict()``."""

    def memory(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold of this process alone, tensors by name; empty if there is nothing."""
        return {}

    def load_memory(self, memory: dict[str, torch.Tensor]) -> None:  # noqa: B027  (optional)
        """Adds what ``memory()`` gave in this or another process."""
