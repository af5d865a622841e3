"""Cross-entropy on the targets: the upper bound that learning from scores is measured against.

    python -m agents.supervised --env-id RSS-Shapes-ImageReward-v0

Same network, images, loop, optimiser and schedule as the agents that learn from scores. It sees targets, and it gets
them from an environment made with ``expose_target=True``. Its most probable label maps are scored as well, one an
image, so that its reward can be logged next to theirs; it learns nothing from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from .training.algorithm import Algorithm, score_metrics
from .training.arguments import check_numbers
from .training.command import run_command, train_command
from .training.distributed import mean_over_processes
from .training.feedback import Feedback

IGNORE_INDEX = 255


@dataclass
class Labels:
    """The targets of one micro-batch.

    Attributes:
        feedback: from the environment.
        target: int64 (B, H, W), 255 where a pixel is ignored.
    """

    feedback: Feedback
    target: torch.Tensor


@dataclass(eq=False)
class Supervised(Algorithm):
    """Train a policy from pixel labels by cross-entropy."""

    learning_rate: float = 2e-3
    """peak of the one-cycle schedule"""

    def __post_init__(self) -> None:
        check_numbers(self, {}, ("learning_rate",))
        self.pixels = 1.0  # counted pixels, the mean over the micro-batches and processes of the update

    def env_options(self) -> dict[str, Any]:
        return {"samples_per_image": 1, "expose_target": True}

    def act(self, logits: torch.Tensor, progress: float, generator: torch.Generator) -> torch.Tensor:
        """The most probable label map of each image, uint8 (B, 1, H, W)."""
        return logits.argmax(dim=1, keepdim=True).to(torch.uint8)

    def observe(self, logits: torch.Tensor, feedback: Feedback) -> Labels:
        """Takes the targets of the images."""
        return Labels(feedback, torch.as_tensor(feedback.shown["target"]).to(logits.device).long())

    def synchronise(self, lessons: Sequence[Labels]) -> None:
        """Counts the pixels of the whole update, so that each weighs the same however the images are shared out."""
        counted = [(lesson.target != IGNORE_INDEX).sum().double() for lesson in lessons]
        self.pixels = max(1.0, mean_over_processes(counted))

    def loss(
        self, logits: torch.Tensor, lesson: Labels, progress: float
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Mean cross-entropy of the counted pixels."""
        counted = lesson.target != IGNORE_INDEX
        loss = F.cross_entropy(logits, lesson.target, ignore_index=IGNORE_INDEX, reduction="sum") / self.pixels
        accuracy = ((logits.argmax(dim=1) == lesson.target) & counted).sum() / counted.sum().clamp(min=1)
        return loss, score_metrics(lesson.feedback) | {"train/pixel_accuracy": accuracy}


if __name__ == "__main__":
    run_command(lambda: train_command(Supervised))
