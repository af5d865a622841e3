"""Cross-entropy on the targets: the upper bound that learning from scores is measured against.

    python -m agents.supervised --env-id RSS-Shapes-ImageReward-v0

Same network, images, optimiser and schedule as ``agents.rss``. It is the one agent that sees targets, and it gets them
from an environment made with ``expose_target=True``. It asks for no reward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from torch.nn import functional as F

from agents.arguments import TrainArguments, parse_arguments, run_command
from agents.training import Result, Update, report, train

IGNORE_INDEX = 255


@dataclass
class SupervisedArguments(TrainArguments):
    """Train a policy from pixel labels."""


def cross_entropy_step(
    logits: torch.Tensor,
    envs: gym.vector.VectorEnv,
    infos: dict[str, Any],
    progress: float,
    generator: torch.Generator,
) -> Update:
    """One step; see ``agents.training.Algorithm``."""
    target = torch.from_numpy(infos["target"]).to(logits.device).long()  # (B, H, W)
    counted = target != IGNORE_INDEX
    loss = F.cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction="sum") / counted.sum().clamp(min=1)
    accuracy = ((logits.argmax(dim=1) == target) & counted).sum() / counted.sum().clamp(min=1)
    images, infos = envs.reset()
    return Update(loss, images, infos, {"train/pixel_accuracy": accuracy})


def train_supervised(args: SupervisedArguments) -> Result:
    """Trains on targets; see ``agents.training.train``."""
    return train(args, cross_entropy_step, expose_target=True)


def main() -> int:
    """Runs the command line."""
    args = parse_arguments(SupervisedArguments)
    return report(train_supervised(args), args)


if __name__ == "__main__":
    run_command(main)
