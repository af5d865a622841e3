"""A lower bound: the same network trained from image tags, that is, from which classes an image contains.

    python -m agents.weak_labels --env-id RSS-Shapes-ImageReward-v0

Multiple-instance learning: an image is a bag of pixels, and it has a class if one of them does. The pixels' logits of a
class are pooled by a smooth maximum (log-sum-exp, Pinheiro and Collobert, CVPR 2015), and the pooled logits are trained
with binary cross-entropy on the tags. Tags and scores are different information: tags are C bits an image, once, and
say what is there but never where; a score says how good a given label map is, as often as one asks. So this bound says
what image-level supervision without any feedback on label maps is worth on the same images, network and steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional as F

from rss_env.errors import OptionError

from .training.algorithm import Algorithm, score_metrics
from .training.arguments import check_numbers
from .training.command import run_command, train_command
from .training.feedback import Feedback


@dataclass
class Tags:
    """The tags of one micro-batch.

    Attributes:
        feedback: from the environment.
        tags: float32 (B, C), 1 where an image has a class.
    """

    feedback: Feedback
    tags: torch.Tensor


@dataclass(eq=False)
class WeakLabels(Algorithm):
    """Train a policy from image tags."""

    learning_rate: float = 2e-3
    """peak of the one-cycle schedule"""
    pooling: Literal["log_sum_exp", "max", "mean"] = "log_sum_exp"
    """how the logits of an image's pixels become one a class"""
    sharpness: float = 4.0
    """log_sum_exp: 0 tends to the mean over the pixels, infinity to their maximum"""

    def __post_init__(self) -> None:
        check_numbers(self, {}, ("learning_rate", "sharpness"))
        if self.pooling not in ("log_sum_exp", "max", "mean"):
            raise OptionError(f"Unknown pooling {self.pooling!r}; valid: log_sum_exp, max, mean.")

    def env_options(self) -> dict[str, Any]:
        return {"samples_per_image": 1, "expose_target": True}

    def act(self, logits: torch.Tensor, progress: float, generator: torch.Generator) -> torch.Tensor:
        """The most probable label map of each image, uint8 (B, 1, H, W); its score is logged and not learned from."""
        return logits.argmax(dim=1, keepdim=True).to(torch.uint8)

    def observe(self, logits: torch.Tensor, feedback: Feedback) -> Tags:
        """Takes the tags of the images; nothing else of the targets is kept."""
        tags = image_tags(torch.as_tensor(feedback.shown["target"]), logits.shape[1])
        return Tags(feedback, tags.to(logits.device))

    def loss(
        self, logits: torch.Tensor, lesson: Tags, progress: float
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Binary cross-entropy between the pooled logits and the tags."""
        pooled = pool(logits, self.pooling, self.sharpness)
        right = ((pooled > 0) == (lesson.tags > 0.5)).float().mean()
        loss = F.binary_cross_entropy_with_logits(pooled, lesson.tags)
        return loss, score_metrics(lesson.feedback) | {"train/tag_accuracy": right}


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


if __name__ == "__main__":
    run_command(lambda: train_command(WeakLabels))
