"""Cross-entropy on the targets: the upper bound that learning from scores is measured against.

    python -m agents.supervised --env-id RSS-Shapes-ImageReward-v0
    python -m agents.supervised --loss lovasz              # what is measured in the end: losses made for the mean IoU
    python -m agents.supervised --split 'train[:64]'       # fewer labelled images

Same network, images, loop, optimiser and schedule as the agents that learn from scores. It sees targets, and it gets
them from an environment made with ``expose_target=True``. Its most probable label maps are scored as well, one an
image, so that its reward can be logged next to theirs; it learns nothing from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import tyro
from torch.nn import functional as F

from rss_env.errors import OptionError

from .training.algorithm import IGNORE_INDEX, Algorithm, score_metrics
from .training.arguments import check_numbers
from .training.command import run_command, train_command
from .training.distributed import mean_over_processes
from .training.feedback import Feedback


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
    """Train a policy from pixel labels, by default with cross-entropy."""

    EARLIER: ClassVar[dict[str, Any]] = {"decay_from": 0.0, "visit_every": 1}

    learning_rate: float = 2e-3
    """peak of the one-cycle schedule"""
    decay_from: float = 0.6
    """share of the steps, below 1, for which the learning rate stays at its peak once it is there"""
    loss_name: Annotated[Literal["cross_entropy", "lovasz", "soft_iou"], tyro.conf.arg(name="loss")] = "cross_entropy"
    """lovasz and soft_iou: 1 - IoU of each class, made smooth, over the images of a micro-batch"""
    cross_entropy_share: float = 0.0
    """lovasz and soft_iou: share of cross-entropy"""
    visit_every: int = 1
    """steps for each in which images are shown; in the others the labels of earlier images are learned again"""

    def __post_init__(self) -> None:
        check_numbers(self, {"visit_every": 1}, ("learning_rate",))
        if self.loss_name not in ("cross_entropy", "lovasz", "soft_iou"):
            raise OptionError(f"Unknown loss {self.loss_name!r}; valid: cross_entropy, lovasz, soft_iou.")
        if not 0 <= self.cross_entropy_share <= 1:
            raise OptionError(f"cross_entropy_share must be between 0 and 1, got {self.cross_entropy_share}.")
        self.pixels = 1.0  # counted pixels, the mean over the micro-batches and processes of the update

    @property
    def updates_a_visit(self) -> int:
        return self.visit_every

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
        """Mean cross-entropy of the counted pixels, or the loss of the micro-batch's regions."""
        counted = lesson.target != IGNORE_INDEX
        loss = self._loss(logits, lesson.target, self.pixels)
        accuracy = ((logits.argmax(dim=1) == lesson.target) & counted).sum() / counted.sum().clamp(min=1)
        return loss, score_metrics(lesson.feedback) | {"train/pixel_accuracy": accuracy}

    def taught(self, lesson: Labels) -> torch.Tensor:
        return lesson.target

    def rehearse(self, logits: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """Mean loss of the counted pixels of these images alone."""
        target = taught.long()
        return self._loss(logits, target, max(1.0, float((target != IGNORE_INDEX).sum())))

    def _loss(self, logits: torch.Tensor, target: torch.Tensor, pixels: float) -> torch.Tensor:
        loss = F.cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction="sum") / pixels
        if self.loss_name != "cross_entropy":
            region_loss = {"lovasz": lovasz_softmax, "soft_iou": soft_iou}[self.loss_name]
            by_regions = region_loss(logits.softmax(dim=1), target)
            loss = self.cross_entropy_share * loss + (1 - self.cross_entropy_share) * by_regions
        return loss


def lovasz_softmax(probabilities: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The Lovász-Softmax loss (Berman et al., CVPR 2018, equations 9 to 12): 1 - IoU of each class, made convex.

    For a class c, pixel i is wrong by m_i = |[target is c] - p_i(c)|. The loss is the Lovász extension of the set
    function that gives 1 - IoU to a set of wrong pixels: m sorted, falling, times the increments of that function along
    the way. It is the mean over the classes that the targets of the whole batch have.

    Args:
        probabilities: (B, C, H, W).
        target: int64 (B, H, W), 255 where a pixel is ignored.

    Returns:
        Scalar, 0..1; 0 if no pixel counts.
    """
    p, members, counted = _by_class(probabilities, target)
    wrong = (members - p).abs() * counted  # (C, N); ignored pixels come last and add nothing
    falling, order = wrong.sort(dim=1, descending=True)
    members = members.gather(1, order)
    size = members.sum(dim=1, keepdim=True)  # (C, 1), pixels of each class
    intersection, union = size - members.cumsum(dim=1), size + (1 - members).cumsum(dim=1)
    lost = 1 - intersection / union  # with the first 1, 2, ... pixels wrong
    steps = lost.diff(dim=1, prepend=torch.zeros_like(size))
    return _mean_over_present((falling * steps).sum(dim=1), size[:, 0])


def soft_iou(probabilities: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - IoU of each class with probabilities in place of memberships (Rahman and Wang, ISVC 2016, equations 3 to 5).

    Intersection Σ p·t, union Σ p + t - p·t over all counted pixels of the batch; the mean over the classes that the
    targets of the whole batch have.

    Args:
        probabilities: (B, C, H, W).
        target: int64 (B, H, W), 255 where a pixel is ignored.

    Returns:
        Scalar, 0..1; 0 if no pixel counts.
    """
    p, members, counted = _by_class(probabilities, target)
    p = p * counted
    intersection, size = (p * members).sum(dim=1), members.sum(dim=1)
    union = p.sum(dim=1) + size - intersection
    return _mean_over_present(1 - intersection / union.clamp(min=1e-6), size)


def _by_class(probabilities: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities (C, N), memberships of 0 and 1 (C, N) and whether a pixel counts (N,), all of one dtype."""
    p = probabilities.transpose(0, 1).flatten(1)
    classes = torch.arange(len(p), device=p.device)[:, None]
    return p, (target.flatten() == classes).to(p.dtype), (target.flatten() != IGNORE_INDEX).to(p.dtype)


def _mean_over_present(losses: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Mean of the losses (C,) of the classes that have pixels, (C,)."""
    present = sizes > 0
    return (losses * present).sum() / present.sum().clamp(min=1)


if __name__ == "__main__":
    run_command(lambda: train_command(Supervised))
