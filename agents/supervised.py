"""Cross-entropy on the targets: the upper bound that learning from scores is measured against.

    python -m agents.supervised --env-id RSS-Shapes-ImageReward-v0

Same network, images, optimiser and schedule as ``agents.rss``. It is the one agent that sees targets, and it gets them
from an environment made with ``expose_target=True``. It asks for no reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from torch.nn import functional as F

from agents.algorithm import Algorithm, Collected
from agents.arguments import TrainArguments, parse_arguments, run_command
from agents.distributed import mean_over_processes
from agents.training import Result, report, train

IGNORE_INDEX = 255


@dataclass
class SupervisedArguments(TrainArguments):
    """Train a policy from pixel labels."""


class CrossEntropy(Algorithm):
    """Learning from targets; the environment is asked for no score."""

    pixels: float = 1.0  # counted pixels, the mean over the micro-batches and processes of the update

    def prepare(self, feedbacks: Sequence[torch.Tensor]) -> None:
        """Counts the pixels of the whole update, so that each weighs the same however the images are shared out."""
        counted = [(feedback != IGNORE_INDEX).sum().double() for feedback in feedbacks]
        self.pixels = max(1.0, mean_over_processes(counted))

    def collect(
        self,
        logits: torch.Tensor,
        envs: gym.vector.VectorEnv,
        infos: dict[str, Any],
        progress: float,
        generator: torch.Generator,
    ) -> Collected:
        """Takes the targets, int64 (B, H, W), and goes on to the next images."""
        target = torch.as_tensor(infos["target"]).to(logits.device).long()
        images, next_infos = envs.reset()
        return Collected(images, next_infos, target)

    def loss(
        self, logits: torch.Tensor, feedback: torch.Tensor, progress: float
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Mean cross-entropy of the counted pixels."""
        counted = feedback != IGNORE_INDEX
        loss = F.cross_entropy(logits, feedback, ignore_index=IGNORE_INDEX, reduction="sum") / self.pixels
        accuracy = ((logits.argmax(dim=1) == feedback) & counted).sum() / counted.sum().clamp(min=1)
        return loss, {"train/pixel_accuracy": accuracy}


def train_supervised(args: SupervisedArguments) -> Result:
    """Trains on targets; see ``agents.training.train``."""
    return train(args, CrossEntropy(), expose_target=True)


def main() -> int:
    """Runs the command line."""
    args = parse_arguments(SupervisedArguments)
    return report(train_supervised(args), args)


if __name__ == "__main__":
    run_command(main)
