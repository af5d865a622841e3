"""A lower bound: the same network trained from image tags, that is, from which classes an image contains.

    python -m agents.weak_labels --env-id RSS-Shapes-ImageReward-v0

Multiple-instance learning: an image is a bag of pixels, and it has a class if one of them does. A pixel has one
class, so the policy's probabilities p_i(c), which compete for it, are what both halves of the loss are about:

- no pixel has a class that its image lacks: minus the mean over the pixels of log Σ_{c in tags} p_i(c);
- every class that the image has is somewhere: minus the mean over the tags of log of a smooth maximum of p_i(c) over
  the pixels, (mean_i p_i(c)^r)^(1/r), which is the log-sum-exp pooling of Pinheiro and Collobert (CVPR 2015) of log
  p.

The first is what constrained networks call suppression (Pathak et al., ICCV 2015), the second their lower bound on a
size. Tags and scores are different information: tags are C bits an image, once, and say what is there but never
where; a score says how good a given label map is, as often as one asks. So this bound says what image-level
supervision without any feedback on label maps is worth on the same images, network and steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

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
    sharpness: float = 4.0
    """exponent of the smooth maximum over the pixels: 1 is their mean, infinity their maximum"""

    def __post_init__(self) -> None:
        check_numbers(self, {}, ("learning_rate", "sharpness"))

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
        """Minus the log-likelihood of the tags, pixel by pixel and class by class."""
        tags = lesson.tags
        found = image_tags(logits.argmax(dim=1), logits.shape[1])
        metrics = score_metrics(lesson.feedback) | {"train/tag_accuracy": (found == tags).float().mean()}
        return tag_loss(logits, tags, self.sharpness), metrics


def image_tags(targets: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Which classes each image contains: integers (B, H, W), 255 = ignored -> float32 (B, C) of 0 and 1."""
    classes = torch.arange(num_classes, device=targets.device)
    return torch.stack([torch.isin(classes, target) for target in targets]).float()


def tag_loss(logits: torch.Tensor, tags: torch.Tensor, sharpness: float) -> torch.Tensor:
    """The two halves of the module's loss, in equal parts.

    Args:
        logits: (B, C, H, W).
        tags: (B, C), 1 where an image has a class, else 0; an image without any, all of it ignored, teaches nothing.
        sharpness: r.

    Returns:
        Scalar, at least 0: in nats.
    """
    log_p = logits.flatten(2).log_softmax(dim=1)  # (B, C, N)
    known = tags.any(dim=1)
    possible = log_p.masked_fill((tags == 0)[:, :, None], -1e9).logsumexp(dim=1).mean(dim=1)  # (B,)
    somewhere = (torch.logsumexp(sharpness * log_p, dim=2) - math.log(log_p.shape[2])) / sharpness  # (B, C)
    outside = -(possible * known).sum() / known.sum().clamp(min=1)
    return outside - (somewhere * tags).sum() / tags.sum().clamp(min=1)


if __name__ == "__main__":
    run_command(lambda: train_command(WeakLabels))
