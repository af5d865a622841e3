"""A lower bound: the same network trained from image tags, that is, from which classes an image contains.

    python -m agents.weak_labels --env-id RSS-Shapes-ImageReward-v0

Multiple-instance learning: an image is a bag of pixels, and it has a class if one of them does. The pixels' logits of a
class are pooled by a smooth maximum (log-sum-exp, Pinheiro and Collobert, CVPR 2015), and the pooled logits are trained
with binary cross-entropy on the tags. Tags and scores are different information: tags are C bits an image, once, and
say what is there but never where; a score says how good a given label map is, as often as one asks. So this bound tells
what image-level supervision without any feedback on label maps is worth on the same images, network and steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import torch
from torch.nn import functional as F

from agents.algorithm import Algorithm, Collected
from agents.arguments import TrainArguments, parse_arguments, run_command
from agents.training import Result, report, train


@dataclass
class WeakLabelsArguments(TrainArguments):
    """Train a policy from image tags."""

    pooling: Literal["log_sum_exp", "max", "mean"] = "log_sum_exp"
    """how the logits of an image's pixels become one a class"""
    sharpness: float = 4.0
    """log_sum_exp: 0 tends to the mean over the pixels, infinity to their maximum"""


class ImageTags(Algorithm):
    """Learning from the tags of images.

    Args:
        args: arguments.
    """

    def __init__(self, args: WeakLabelsArguments) -> None:
        self.args = args

    def collect(
        self,
        logits: torch.Tensor,
        envs: gym.vector.VectorEnv,
        infos: dict[str, Any],
        progress: float,
        generator: torch.Generator,
    ) -> Collected:
        """Takes the tags, float32 (B, C), and goes on to the next images; nothing else of the targets is kept."""
        tags = image_tags(torch.as_tensor(infos["target"]), logits.shape[1]).to(logits.device)
        images, next_infos = envs.reset()
        return Collected(images, next_infos, tags)

    def loss(
        self, logits: torch.Tensor, feedback: torch.Tensor, progress: float
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Binary cross-entropy between the pooled logits and the tags."""
        pooled = pool(logits, self.args.pooling, self.args.sharpness)
        right = ((pooled > 0) == (feedback > 0.5)).float().mean()
        return F.binary_cross_entropy_with_logits(pooled, feedback), {"train/tag_accuracy": right}


def image_tags(targets: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Which classes each image contains: integers (B, H, W), 255 = ignored -> float32 (B, C) of 0 and 1."""
    classes = torch.arange(num_classes, device=targets.device)
    return torch.stack([torch.isin(classes, target) for target in targets]).float()


def pool(logits: torch.Tensor, pooling: str, sharpness: float) -> torch.Tensor:
    """One logit a class and image: (B, C, H, W) -> (B, C).

    Args:
        logits: of the pixels.
        pooling: ``"max"``, ``"mean"``, or ``"log_sum_exp"``, log(mean(exp(r·z))) / r.
        sharpness: r.
    """
    flat = logits.flatten(2)
    if pooling == "max":
        return flat.amax(dim=2)
    if pooling == "mean":
        return flat.mean(dim=2)
    return (torch.logsumexp(sharpness * flat, dim=2) - math.log(flat.shape[2])) / sharpness


def train_weak_labels(args: WeakLabelsArguments) -> Result:
    """Trains on image tags; see ``agents.training.train``."""
    return train(args, ImageTags(args), expose_target=True)


def main() -> int:
    """Runs the command line."""
    args = parse_arguments(WeakLabelsArguments)
    return report(train_weak_labels(args), args)


if __name__ == "__main__":
    run_command(main)
