"""RSS: the policy gradient of a label map's score, with the paper's plug-ins.

    python -m agents.rss --env-id RSS-Shapes-ImageReward-v0
    python -m agents.rss --env-id RSS-Folder-ImageReward-v0 --root data/camvid --image-size 72 96 --cells 4 2 1
    torchrun --nproc-per-node=2 -m agents.rss --env-id RSS-Shapes-ImageReward-v0

Our reading of arXiv 2505.17905, of which the abstract is public. The policy is a product of categorical distributions,
one a pixel: π(a|x) = Πᵢ Cat(aᵢ; softmax zᵢ). One forward pass gives the logits z of an image, K label maps are drawn
from them and scored by the environment, and the log-probability of those that did better than the others is pushed up:

    ∇J = (1/K) Σ_k Aᵏ ∇ log π(aᵏ|x),    Aᵏ = Rᵏ − mean of the other samples' rewards    (leave-one-out)

- **PSR**, progressive scale rewards (``--cells 4 2 1``): neighbouring pixels share one draw, in cells that shrink.
- **PSD**, pair-wise spatial difference (``--advantage psd``): the difference in reward of two label maps is credited
  only to the pixels in which they differ.
- **SyncAN**, synchronised advantage normalisation (``--no-sync-an`` switches it off): one scale for all advantages of
  an update, over its images, samples, accumulation steps and processes.
- An **entropy target** that falls over training keeps the policy from settling on the frequent classes.

The defaults are the best known form: SyncAN and the entropy target. PSR and PSD cost mIoU wherever we measured them at
image level (docs/results.md). Maths: docs/agent.md, docs/psr.md, docs/psd.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from rss_env.errors import OptionError

from .ops import policy_gradient, sample_label_maps
from .plugins import CellSchedule, SyncAN, leave_one_out, pair_advantages
from .training.algorithm import Algorithm, score_metrics
from .training.arguments import check_numbers
from .training.command import run_command, train_command
from .training.distributed import mean_over_processes
from .training.feedback import Feedback


@dataclass
class Lesson:
    """What the label maps of one micro-batch earned.

    Attributes:
        feedback: from the environment.
        advantages: how much better each label map, or each pixel of it, did than what it is compared with: float32
            (B, K, 1, 1) or (B, K, H, W).
    """

    feedback: Feedback
    advantages: torch.Tensor


@dataclass(eq=False)
class RSS(Algorithm):
    """Train a policy from scores of its label maps by the policy gradient, with the paper's plug-ins."""

    learning_rate: float = 2e-3
    """peak of the one-cycle schedule"""
    samples_per_image: int = 32
    """label maps drawn and scored for each image (K), at least 2"""
    cells: tuple[int, ...] = (1,)
    """PSR: sides of the cells that share one draw, from the first stage of the training to the last; 1: no cells"""
    advantage: Literal["leave_one_out", "psd", "batch"] = "leave_one_out"
    """what a reward is compared with: the image's other samples; each of them in turn, where the two label maps differ
    (PSD); or the mean of the update"""
    sync_an: bool = True
    """SyncAN: one scale for all advantages of an update, their root mean square; off: none"""
    entropy_start: float = 1.2
    """entropy that the policy is held to at the first step, in nats a pixel"""
    entropy_end: float = 0.1
    """entropy that it is held to at the last step; the target falls linearly in between"""
    entropy_gain: float = 0.05
    """coefficient of the entropy bonus for each nat that the entropy is below its target; 0: no bonus"""

    def __post_init__(self) -> None:
        check_numbers(
            self,
            {"samples_per_image": 2, "entropy_start": 0, "entropy_end": 0, "entropy_gain": 0},
            ("learning_rate",),
        )
        if self.advantage not in ("leave_one_out", "psd", "batch"):
            raise OptionError(f"Unknown advantage {self.advantage!r}; valid: leave_one_out, psd, batch.")
        self.schedule = CellSchedule(self.cells)
        self.side = self.schedule.side(0.0)  # of the cells of this update, in pixels
        self.scale = torch.ones((), dtype=torch.float64)  # of the advantages of this update

    def env_options(self) -> dict[str, Any]:
        return {"samples_per_image": self.samples_per_image}

    def act(self, logits: torch.Tensor, progress: float, generator: torch.Generator) -> torch.Tensor:
        """Draws K label maps an image from the policy, uint8 (B, K, H, W)."""
        self.side = self.schedule.side(progress)
        # A seed and the offset of the cells' grid; they stay on the device.
        drawn = torch.randint(2**63 - 1, (3,), generator=generator, device=generator.device)
        return sample_label_maps(logits, self.samples_per_image, drawn[:1], cell=self.side, offset=drawn[1:])

    def observe(self, logits: torch.Tensor, feedback: Feedback) -> Lesson:
        """Compares the rewards."""
        by_pixel = feedback.pixel_rewards is not None
        rewards = feedback.pixel_rewards if by_pixel else feedback.scores[:, :, None, None]
        assert rewards is not None
        if self.advantage == "leave_one_out":
            return Lesson(feedback, leave_one_out(rewards))
        if self.advantage == "psd":
            given = rewards if by_pixel else feedback.scores.to(logits.dtype)
            return Lesson(feedback, pair_advantages(given, feedback.label_maps))
        return Lesson(feedback, rewards)  # what they are compared with is known when the whole update is

    def synchronise(self, lessons: Sequence[Lesson]) -> None:
        """The mean of the update where rewards are compared with it, and SyncAN's scale."""
        if self.advantage == "batch":
            mean = mean_over_processes([lesson.advantages.mean() for lesson in lessons])
            for lesson in lessons:
                lesson.advantages = lesson.advantages - mean
        if self.sync_an:
            synchronised = SyncAN()
            for lesson in lessons:
                synchronised.add(lesson.advantages)
            self.scale = synchronised.finish()

    def loss(
        self, logits: torch.Tensor, lesson: Lesson, progress: float
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """The policy-gradient loss of one micro-batch, minus the entropy bonus."""
        advantages = (lesson.advantages / self.scale).to(logits.dtype)
        policy_loss, entropy = policy_gradient(logits, lesson.feedback.label_maps, advantages)
        target = self.entropy_start + (self.entropy_end - self.entropy_start) * progress
        coefficient = self.entropy_gain * (target - entropy.detach()).clamp(min=0)
        return policy_loss - coefficient * entropy, score_metrics(lesson.feedback) | {
            "policy/loss": policy_loss.detach(),
            "policy/entropy": entropy.detach(),
            "policy/entropy_target": target,
            "policy/entropy_coefficient": coefficient,
            "policy/advantage_scale": self.scale,
            "policy/cell": float(self.side),
        }


if __name__ == "__main__":
    run_command(lambda: train_command(RSS))
