"""What an algorithm is to the training loop: it draws label maps, sees what they earned, and forms a loss from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from .feedback import Feedback

IGNORE_INDEX = 255  # label of pixels that do not count


@dataclass(eq=False)
class Algorithm(ABC):
    """How a policy learns. A subclass is a dataclass whose fields are its hyper-parameters.

    An update is made of one or more micro-batches. For each: ``act``, a step of the environment, ``observe``; then once
    ``synchronise``; then for each, ``loss`` and its backward pass. With one micro-batch ``observe`` and ``loss`` get
    the same logits; with more, ``loss`` gets those of a second forward pass of the same weights.

    Of these ``act`` and ``loss`` are all that a simple algorithm needs: docs/your_algorithm.md.
    """

    learning_rate: float = 2e-3
    """peak of the one-cycle schedule"""
    decay_from: float = 0.0
    """share of the steps, below 1, for which the learning rate stays at its peak once it is there"""

    @property
    def learning_rate_factor(self) -> float:
        """What the learning rate of the next update is multiplied by."""
        return 1.0

    @property
    def updates_a_visit(self) -> int:
        """Updates for each in which images are shown and scored, at least 1.

        In the others what was ``taught`` is learned again; where that is nothing, such an update does nothing.
        """
        return 1

    @property
    def rehearsal_megabytes(self) -> float:
        """Most memory for images and what was taught of them, in MB, where ``updates_a_visit`` is more than 1."""
        return 2000.0

    def plan(self, steps: int, batch_size: int) -> None:  # noqa: B027  (optional)
        """Sees how long the training is, before anything else, and may choose what it was not given.

        Args:
            steps: updates of the run.
            batch_size: images of an update, over all processes.

        Raises:
            OptionError: the algorithm cannot learn in so many steps.
        """

    def env_options(self) -> dict[str, Any]:
        """Arguments of the training environment that the algorithm needs, ``samples_per_image`` (K) among them."""
        return {"samples_per_image": 1}

    def start(self, metadata: Mapping[str, Any], num_classes: int) -> str | None:
        """Hears what may be known of the environment; called once, before the first step and before ``load_*``.

        Args:
            metadata: ``envs.metadata``: class names, reward level, name of the reward and so on.
            num_classes: C.

        Returns:
            A line that the user should read, or None.

        Raises:
            OptionError: the algorithm cannot learn from this environment.
        """
        return None

    def images(self, scores: int) -> int | None:
        """How many of the training images the next updates should show; asked before the first one and after each.

        An even choice of so many is shown (``reset(options={"images": n})``). Every process of a job must say the same.

        Args:
            scores: label maps that each process has scored in the whole training, past and to come.

        Returns:
            The number, at least 1, or None for all images; more than there are is all of them.
        """
        return None

    @abstractmethod
    def act(self, logits: torch.Tensor, progress: float, generator: torch.Generator) -> torch.Tensor:
        """Draws the label maps that are to be scored.

        Args:
            logits: float32 (B, C, H, W), the policy's, for the images at hand; no gradient flows from here.
            progress: share of the training done, 0 at the first step, 1 after the last.
            generator: source of randomness on the logits' device.

        Returns:
            uint8 (B, K, H, W), values 0..C-1.
        """

    def observe(self, logits: torch.Tensor, feedback: Feedback) -> Any:
        """Makes of the feedback on one micro-batch what ``loss`` needs; by default the feedback itself."""
        return feedback

    def synchronise(self, lessons: Sequence[Any]) -> None:  # noqa: B027  (optional)
        """Sees what ``observe`` gave for all micro-batches; every process of a job is here at the same time."""

    @abstractmethod
    def loss(
        self, logits: torch.Tensor, lesson: Any, progress: float
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """The loss of one micro-batch.

        Args:
            logits: float32 (B, C, H, W), with a gradient.
            lesson: what ``observe`` gave.
            progress: as in ``act``.

        Returns:
            Scalar to minimise, a mean over the micro-batch, and numbers to log, 0-dimensional tensors or floats.
        """

    def taught(self, lesson: Any) -> torch.Tensor | None:
        """What the images of a micro-batch teach whenever they are seen; None: nothing that can be learned again.

        Returns:
            Probabilities of the classes, float (B, C, H, W), or labels, integers (B, H, W): 0..C-1, or 255 where no
            pixel counts.
        """
        return None

    def rehearse(self, logits: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """The loss of images that were learned of before, a scalar: cross-entropy, unless a subclass says otherwise.

        Args:
            logits: float32 (B, C, H, W), with a gradient.
            taught: float16 (B, C, H, W), probabilities, or uint8 (B, H, W), labels.
        """
        if taught.is_floating_point():
            return F.cross_entropy(logits, taught.to(logits.dtype))
        counted = (taught != IGNORE_INDEX).sum().clamp(min=1)
        return F.cross_entropy(logits, taught.long(), ignore_index=IGNORE_INDEX, reduction="sum") / counted

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold of the algorithm, the same in every process."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  (optional)
        """Continues from ``state_dict()``."""

    def memory(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold of this process only, tensors by name; empty if there is nothing."""
        return {}

    def load_memory(self, memory: dict[str, torch.Tensor]) -> None:  # noqa: B027  (optional)
        """Adds what ``memory()`` gave in this or another process."""


def score_metrics(feedback: Feedback) -> dict[str, torch.Tensor | float]:
    """What every algorithm logs of the scores of a micro-batch: see docs/metrics.md."""
    scores = feedback.scores  # (B, K)
    metrics: dict[str, torch.Tensor | float] = {"reward/mean": scores.mean(), "reward/best": scores.amax(1).mean()}
    if scores.shape[1] > 1:
        metrics["reward/std"] = scores.std(dim=1).mean()
    return metrics
