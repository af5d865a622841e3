"""A bound of another kind: the same network trained from image tags, that is, from which classes an image contains.

    python -m agents.weak_labels --env-id RSS-Shapes-ImageReward-v0

After Araslanov and Roth, Single-Stage Semantic Segmentation from Image Labels (CVPR 2020), without pretrained weights:
``tag_loss`` judges an image's tags by the pixels that have the class; ``pseudo_labels`` are the pixels whose class is
then plain, among those of the tags and along the image's colours. The policy learns these by cross-entropy.

One network does both in the paper. Here the tags train a small one that sees only the 9×9 pixels around each pixel, as
in bags of local features (Brendel and Bethge, ICLR 2019). A policy that sees the whole image, and zeros around it, need
not find a class in order to know that it is there: trained on the tags directly it writes them into a border, or swaps
a class with the background. A look at 9×9 pixels knows of neither.

The paper's background has a constant logit. Here the background is a class like others, so, our reading, every class
that all images of an update have gets that logit: no tag tells such classes apart. Where they are nearly all the
classes, as on CamVid, tags say next to nothing.

Tags and scores are different information: tags are C bits an image, once, and say what is there but never where; a
score says how good a given label map is, as often as one asks. So this bound says what image-level supervision without
any feedback on label maps is worth on the same images, network and steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .networks.colour_refinement import refine
from .training.algorithm import Algorithm, score_metrics
from .training.arguments import check_numbers
from .training.command import run_command, train_command
from .training.distributed import gather_over_processes
from .training.feedback import Feedback

FOCAL_POWER, FOCAL_OFFSET = 3, 0.01  # of the size-focal penalty: p and λ of the paper
CONFIDENT, CONFIDENT_SHARED = 0.6, 0.7  # times a class's largest probability in the image; of classes all images have
LEAST = 0.2  # probability of a pseudo label
NOBODY = 255  # of a pixel without one
CHANNELS = 32  # of the local network
LOCAL_LEARNING_RATE = 2e-3


@dataclass
class Tags:
    """The tags of one micro-batch.

    Attributes:
        feedback: from the environment.
        tags: float32 (B, C), 1 where an image has a class.
        images: uint8 (B, H, W, 3), on the policy's device.
    """

    feedback: Feedback
    tags: torch.Tensor
    images: torch.Tensor


@dataclass(eq=False)
class WeakLabels(Algorithm):
    """Train a policy from image tags."""

    learning_rate: float = 2e-3
    """peak of the one-cycle schedule"""

    def __post_init__(self) -> None:
        check_numbers(self, {}, ("learning_rate",))

    def env_options(self) -> dict[str, Any]:
        return {"samples_per_image": 1, "expose_target": True}

    def start(self, metadata: Mapping[str, Any], num_classes: int) -> None:
        """Makes the local network, the same in every process."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.local = local_network(num_classes)
        self.optimiser = torch.optim.Adam(self.local.parameters(), LOCAL_LEARNING_RATE)
        self.shared = torch.zeros(num_classes, dtype=torch.bool)  # whether all images of the update have a class
        self.tag_loss = torch.zeros(())  # of the last update, in this process

    def act(self, logits: torch.Tensor, progress: float, generator: torch.Generator) -> torch.Tensor:
        """The most probable label map of each image, uint8 (B, 1, H, W); its score is logged and not learned from."""
        return logits.argmax(dim=1, keepdim=True).to(torch.uint8)

    def observe(self, logits: torch.Tensor, feedback: Feedback) -> Tags:
        """Takes the images and their tags; nothing else of the targets is kept."""
        tags = image_tags(torch.as_tensor(feedback.shown["target"]), logits.shape[1])
        return Tags(feedback, tags.to(logits.device), torch.as_tensor(feedback.images).to(logits.device))

    def synchronise(self, lessons: Sequence[Tags]) -> None:
        """Trains the local network on the tags of the whole update, the same in every process."""
        device = lessons[0].tags.device
        if next(self.local.parameters()).device != device:
            self.local.to(device)
            self.optimiser.load_state_dict(self.optimiser.state_dict())  # moves it as well
        shared = shared_classes(torch.cat([lesson.tags for lesson in lessons])).cpu()
        self.shared = torch.stack(gather_over_processes(shared)).all(dim=0).to(device)
        self.optimiser.zero_grad()
        losses = [tag_loss(self._logits(lesson), lesson.tags, self.shared) / len(lessons) for lesson in lessons]
        total = torch.stack(losses).sum()
        total.backward()
        parameters = list(self.local.parameters())
        everyone = gather_over_processes([p.grad.cpu() for p in parameters if p.grad is not None])
        for parameter, *gradients in zip(parameters, *everyone, strict=True):
            parameter.grad = torch.stack(gradients).mean(dim=0).to(device)
        self.optimiser.step()
        self.tag_loss = total.detach()

    def loss(
        self, logits: torch.Tensor, lesson: Tags, progress: float
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Cross-entropy on the pseudo labels, a mean over all pixels."""
        with torch.no_grad():
            probabilities = self._logits(lesson).softmax(dim=1)
            labels = pseudo_labels(probabilities, lesson.tags, self.shared, lesson.images)
        loss = F.cross_entropy(logits, labels, ignore_index=NOBODY, reduction="sum") / labels.numel()
        found = image_tags(logits.argmax(dim=1), logits.shape[1])
        return loss, score_metrics(lesson.feedback) | {
            "train/tag_accuracy": (found == lesson.tags).float().mean(),
            "train/tag_loss": self.tag_loss,
            "train/pseudo_labels": (labels != NOBODY).float().mean(),
        }

    def state_dict(self) -> dict[str, Any]:
        """The local network and its optimiser."""
        return {"local": self.local.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from ``state_dict()``."""
        self.local.load_state_dict(state["local"])
        self.optimiser.load_state_dict(state["optimiser"])

    def _logits(self, lesson: Tags) -> torch.Tensor:
        """What the local network makes of the images, (B, C, H, W): 1 for the classes that all images have."""
        logits = self.local(lesson.images.permute(0, 3, 1, 2).float() / 127.5 - 1)
        return torch.where(self.shared[:, None, None], torch.ones_like(logits), logits)


def local_network(num_classes: int) -> nn.Sequential:
    """Images (B, 3, H, W) -> logits (B, C, H, W), each of 9×9 pixels; padding repeats pixels, to mark none."""
    layers: list[nn.Module] = []
    for inputs, dilation in ((3, 1), (CHANNELS, 1), (CHANNELS, 2)):
        layers += [
            nn.Conv2d(inputs, CHANNELS, 3, padding=dilation, dilation=dilation, padding_mode="replicate"),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Conv2d(CHANNELS, num_classes, 1))


def image_tags(targets: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Which classes each image contains: integers (B, H, W), 255 = ignored -> float32 (B, C) of 0 and 1."""
    classes = torch.arange(num_classes, device=targets.device)
    return torch.stack([torch.isin(classes, target) for target in targets]).float()


def shared_classes(tags: torch.Tensor) -> torch.Tensor:
    """Which classes all images have: tags (B, C) -> bool (C,). An image without a tag, all of it ignored, is none."""
    return (tags > 0)[tags.any(dim=1)].all(dim=0)


def tag_scores(logits: torch.Tensor) -> torch.Tensor:
    """How much an image seems to have each class: the paper's classification scores.

    With p = softmax(logits), Σ_i p_i(c) · logit_i(c) / (1 + Σ_i p_i(c)), the normalised global weighted pooling, plus
    (1 - m)^3 · log(0.01 + m), the size-focal penalty, where m is the mean of p_i(c) over the pixels.

    Args:
        logits: (B, C, H, W).

    Returns:
        (B, C), log-odds of the tags.
    """
    z = logits.flatten(2)  # (B, C, N)
    p = z.softmax(dim=1)
    size = p.mean(dim=2)
    return (p * z).sum(dim=2) / (1 + p.sum(dim=2)) + (1 - size) ** FOCAL_POWER * (FOCAL_OFFSET + size).log()


def tag_loss(logits: torch.Tensor, tags: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
    """Minus the mean log-likelihood of the tags.

    Args:
        logits: (B, C, H, W).
        tags: (B, C), 1 where an image has a class, else 0; an image without any, all of it ignored, teaches nothing.
        shared: bool (C,), classes whose tags teach nothing.

    Returns:
        Scalar, at least 0: in nats a tag.
    """
    counted = tags.any(dim=1)[:, None] & ~shared  # (B, C)
    losses = F.binary_cross_entropy_with_logits(tag_scores(logits), tags, reduction="none")
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def pseudo_labels(
    probabilities: torch.Tensor, tags: torch.Tensor, shared: torch.Tensor, images: torch.Tensor
) -> torch.Tensor:
    """Classes of the pixels where exactly one is confident, only such as the image has.

    Args:
        probabilities: (B, C, H, W).
        tags: (B, C), 1 where an image has a class, else 0.
        shared: bool (C,), classes that all images have.
        images: uint8 (B, H, W, 3).

    Returns:
        int64 (B, H, W), 255 where no class is confident or several are.
    """
    possible = probabilities * tags[:, :, None, None]
    possible = refine(possible / possible.sum(dim=1, keepdim=True).clamp(min=1e-6), images)
    enough = possible.amax(dim=(2, 3)) * torch.where(shared, CONFIDENT_SHARED, CONFIDENT)  # (B, C)
    confident = possible > enough.clamp(min=LEAST)[:, :, None, None]
    return torch.where(confident.sum(dim=1) == 1, confident.int().argmax(dim=1), NOBODY)


if __name__ == "__main__":
    run_command(lambda: train_command(WeakLabels))
