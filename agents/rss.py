"""RSS: learning to segment from one number per label map.

    python -m agents.rss --env-id RSS-Shapes-ImageReward-v0
    python -m agents.rss --env-id RSS-Folder-ImageReward-v0 --root data/camvid --image-size 72 96
    torchrun --nproc-per-node=2 -m agents.rss --env-id RSS-Shapes-ImageReward-v0

The policy is a product of categorical distributions, one a pixel: π(a|x) = Πᵢ Cat(aᵢ; softmax zᵢ). One forward pass
gives the logits z of an image; K label maps are drawn from them and scored by the environment. From there two ways:

- ``--objective likelihood``, the default and our own: the policy is a belief about the hidden target, and it is moved
  to where the scores that were seen are more likely (``agents.likelihood``).
- ``--objective reinforce``: the policy gradient of the expected reward, with a leave-one-out baseline and the paper's
  SyncAN and PSD (our reading of arXiv 2505.17905, of which the abstract is public).

PSR, the paper's third plug-in, ties the draws of neighbouring pixels in either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import torch
from torch import distributed

from agents.algorithm import Algorithm, Collected
from agents.arguments import TrainArguments, parse_arguments, run_command
from agents.distributed import mean_over_processes
from agents.likelihood import Evidence, score_evidence, success_loss
from agents.memory import PixelMemory, Visit, VisitMemory
from agents.ops import policy_gradient, sample_label_maps
from agents.psd import pair_advantages
from agents.psr import CellSchedule
from agents.score_models import SCORE_MODELS
from agents.score_noise import EVERY, ScoreNoise, score_twice, scored_twice
from agents.sync_an import EPSILON, SyncAN
from agents.training import Result, report, train
from rss_env.errors import OptionError
from rss_env.wrappers.vector import NoisyReward, StarReward


@dataclass
class RSSArguments(TrainArguments):
    """Train a policy from scores of its label maps."""

    samples_per_image: int = 32
    """label maps drawn and scored for each image (K), at least 2"""
    reward: str | None = None
    """name of the reward; default: the environment's"""
    reward_stars: int = 0
    """image level: scores are rounded to this many levels; 0: not"""
    reward_noise: float = 0.0
    """image level: standard deviation of Gaussian noise on every score; a resumed run draws it from its start again"""
    learning_rate: float = 1e-3
    """peak of the one-cycle schedule"""
    objective: Literal["likelihood", "reinforce"] = "likelihood"
    """what is maximised: the likelihood of the observed scores, or the expected reward"""

    temperature: float | None = None
    """temperature at which label maps are drawn; default: 2 for likelihood; reinforce needs 1"""
    cells: tuple[int, ...] = ()
    """PSR: sides of the cells that share one draw, from the first stage of the training to the last; 1: no cells;
    default: 1, but for likelihood at image level what the noise of the scores demands, which is measured"""
    cell_schedule: Literal["progress", "plateau"] = "progress"
    """PSR: stages of equal length, or the next when the reward no longer rises"""
    cell_patience: int = 100
    """PSR by plateau: updates without a new best mean reward that end a stage"""

    replay: int = 256
    """likelihood: earlier label maps of an image whose scores count again, in whole visits of K; 0: none"""
    replay_megabytes: float = 2000.0
    """likelihood: most memory that they take over all images, in MB; the oldest go first"""

    baseline: Literal["leave_one_out", "batch"] = "leave_one_out"
    """reinforce: what a reward is compared with: the image's other samples, or the mean of the batch"""
    pairs: Literal["none", "disjoint", "all"] = "none"
    """reinforce, PSD: credit differences of reward to the pixels where two label maps differ"""
    pair_normaliser: bool = True
    """reinforce, PSD: share a difference out among the differing pixels"""
    sync_an: bool = True
    """SyncAN: one scale for all advantages of an update, their root mean square; off: none"""
    entropy_start: float = 1.2
    """reinforce: entropy the policy is held to at the first step, in nats a pixel"""
    entropy_end: float = 0.1
    """reinforce: entropy it is held to at the last step; the target falls linearly in between"""
    entropy_gain: float = 0.05
    """reinforce: coefficient of the entropy bonus for each nat that the entropy is below its target"""


@dataclass
class Feedback:
    """Label maps of one micro-batch and what they earned.

    Attributes:
        label_maps: uint8 (B, K, H, W).
        rewards: float32 (B, K, 1, 1) at image level, (B, K, H, W) at pixel level.
        cell: side of the cells that the label maps were drawn in, in pixels.
        twice: whether the first label map of every image is its last one as well, to measure the noise.
        advantages: how much better each label map, or pixel, did than expected: reinforce (B, K, 1, 1) or
            (B, K, H, W), likelihood at image level (B, K).
        informative: likelihood at image level: bool (B, 1), whether the scores of a visit differ; None: all count.
        evidence: likelihood at image level: what the scores say about the policy's probabilities.
        old: likelihood at image level: (number in the batch, visit) of every earlier visit that is replayed.
        known: likelihood at pixel level: uint8 (B, H, W), the classes found so far, 255 where none is.
        excluded: likelihood at pixel level: bool (B, C, H, W), classes tried in vain.
    """

    label_maps: torch.Tensor
    rewards: torch.Tensor
    cell: int = 1
    twice: bool = False
    advantages: torch.Tensor | None = None
    informative: torch.Tensor | None = None
    evidence: Evidence | None = None
    old: Sequence[tuple[int, Visit]] = ()
    known: torch.Tensor | None = None
    excluded: torch.Tensor | None = None


class RSS(Algorithm):
    """The algorithm: sample, score, and learn from what the scores tell.

    Args:
        args: the arguments.

    Raises:
        OptionError: arguments that do not go together, or a number out of range.
    """

    def __init__(self, args: RSSArguments) -> None:
        check(args)
        self.args = args
        self.temperature = args.temperature or (2.0 if args.objective == "likelihood" else 1.0)
        self.cells = CellSchedule(args.cells or (1,), args.cell_schedule, args.cell_patience)
        self.noise = ScoreNoise(args.reward_stars)
        self.visits = VisitMemory(
            max(1, args.replay // args.samples_per_image) if args.replay else 0, args.replay_megabytes
        )
        self.collected = 0  # micro-batches so far, the same number in every process
        self.updates = 0  # so far
        self.pixels: PixelMemory | None = None  # made when the number of classes is known
        self.scale = torch.ones((), dtype=torch.float64)  # of the advantages of this update

    def collect(
        self,
        logits: torch.Tensor,
        envs: gym.vector.VectorEnv,
        infos: dict[str, Any],
        progress: float,
        generator: torch.Generator,
    ) -> Collected:
        """Draws K label maps per image and has them scored."""
        args = self.args
        self.collected += 1
        height, width = logits.shape[2:]
        by_noise = args.objective == "likelihood" and not args.cells and not scores_pixels(envs)
        side = self.noise.side(max(1, min(height, width) // 2)) if by_noise else self.cells.side(progress)
        drawn = torch.randint(2**63 - 1, (3,), generator=generator, device=generator.device)  # stays on the device
        label_maps = sample_label_maps(
            logits, args.samples_per_image, drawn[:1], temperature=self.temperature, cell=side, offset=drawn[1:]
        )  # uint8 (B, K, H, W)
        twice = by_noise and self.updates % EVERY == 0
        if twice:
            score_twice(label_maps)
        keys = image_keys(envs, infos) if args.objective == "likelihood" else ([], [])
        on_device = any(isinstance(value, torch.Tensor) for value in infos.values())
        images, _, _, _, next_infos = envs.step(label_maps if on_device else label_maps.cpu().numpy())
        rewards = read_rewards(next_infos["final_info"], logits.device)  # (B, K, 1, 1), or (B, K, H, W) at pixel level
        feedback = Feedback(label_maps, rewards, side, twice)
        if args.objective == "reinforce":
            feedback.advantages = self._advantages(rewards, label_maps)
        elif rewards.shape[2:] == (1, 1):
            self._recall_visits(feedback, keys)
            self._weigh_scores(logits, feedback)
        else:
            self._recall_pixels(feedback, keys, logits.shape[1])
        return Collected(images, next_infos, feedback)

    def prepare(self, feedbacks: Sequence[Feedback]) -> None:
        """SyncAN's scale of the update, and the schedule of the cells."""
        if self.args.cell_schedule == "plateau" or self.args.baseline == "batch":
            mean = mean_over_processes([feedback.rewards.mean() for feedback in feedbacks])
            self.cells.observe(mean)
            if self.args.baseline == "batch":
                for feedback in feedbacks:
                    feedback.advantages = feedback.rewards - mean
        if feedbacks[0].evidence is not None and (feedbacks[0].twice or self.noise.known):
            self._measure_noise(feedbacks)
        if feedbacks[0].advantages is not None and self.args.sync_an:
            synchronised = SyncAN()
            for feedback in feedbacks:
                assert feedback.advantages is not None
                synchronised.add(feedback.advantages, feedback.informative)
            self.scale = synchronised.finish()
        self.updates += 1

    def loss(
        self, logits: torch.Tensor, feedback: Feedback, progress: float
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """The loss of one micro-batch; see ``agents.algorithm.Algorithm``."""
        if self.args.objective == "reinforce":
            loss, metrics = self._reinforce(logits, feedback, progress)
        else:
            log_probabilities = logits.log_softmax(dim=1)  # (B, C, H, W)
            given = log_probabilities.detach()
            form = self._score_likelihood if feedback.known is None else self._success_likelihood
            loss, metrics = form(log_probabilities, feedback)
            metrics["policy/entropy"] = -(given.exp() * given).sum(dim=1).mean()  # nats a pixel
        scores = feedback.rewards.mean(dim=(2, 3))  # (B, K)
        return loss, metrics | {
            "reward/mean": scores.mean(),
            "reward/best": scores.amax(dim=1).mean(),
            "reward/std": scores.std(dim=1).mean(),
            "policy/cell": float(feedback.cell),
        }

    # Likelihood of the scores, image level ----------------------------------------------------------------------------

    def _recall_visits(self, feedback: Feedback, keys: Keys) -> None:
        """Adds the earlier visits of the batch's images, then remembers this one."""
        indices, flipped = keys
        feedback.old = [(b, visit) for b, index in enumerate(indices) for visit in self.visits.recall(index)]
        feedback.old = [(b, mirror(visit) if flipped[b] else visit) for b, visit in feedback.old]
        rank = distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
        for b, index in enumerate(indices):
            label_maps, scores = feedback.label_maps[b].clone(), feedback.rewards[b, :, 0, 0].clone()
            visit = Visit(index, label_maps, scores, (self.collected << 32) + (rank << 16) + b)
            self.visits.store(mirror(visit) if flipped[b] else visit)

    def _measure_noise(self, feedbacks: Sequence[Feedback]) -> None:
        """Updates the running means that the cells follow, with what all processes saw."""
        evidences = [feedback.evidence for feedback in feedbacks if feedback.evidence is not None]
        scores = [feedback.rewards[:, :, 0, 0] for feedback in feedbacks]
        self.noise.observe(
            variance=mean_over_processes([part.var(dim=1).mean() for part in scores]),
            side=feedbacks[0].cell,
            noise=mean_over_processes([scored_twice(part) for part in scores]) if feedbacks[0].twice else None,
            residual=mean_over_processes([evidence.variance for evidence in evidences]),
        )

    def _weigh_scores(self, logits: torch.Tensor, feedback: Feedback) -> None:
        """Finds what the scores of this and the earlier visits say about the policy's probabilities."""
        device, batch = logits.device, len(logits)
        old_maps = [visit.label_maps[None].to(device) for _, visit in feedback.old]
        old_scores = [visit.scores[None].to(device) for _, visit in feedback.old]
        label_maps = torch.cat([feedback.label_maps, *old_maps])  # (V, K, H, W)
        scores = torch.cat([feedback.rewards[:, :, 0, 0], *old_scores])  # (V, K)
        image = torch.tensor([*range(batch), *(b for b, _ in feedback.old)]).to(device, non_blocking=True)
        model = score_model(self.args.reward)
        feedback.evidence = score_evidence(
            logits.softmax(dim=1),
            label_maps,
            scores,
            image,
            batch,
            model,
            self.args.reward_stars,
            self.noise.residual**0.5,
        )
        fresh = feedback.evidence.advantages[:batch]
        feedback.advantages = fresh
        feedback.informative = fresh.any(dim=1, keepdim=True)  # equal scores say nothing about the variance

    def _score_likelihood(
        self, log_probabilities: torch.Tensor, feedback: Feedback
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Moves the probabilities to where the observed scores are more likely: see docs/likelihood.md."""
        evidence = feedback.evidence
        assert evidence is not None
        informative = self.scale > 2 * EPSILON  # else no new score differed from another
        precision = torch.where(informative, self.scale.square().reciprocal(), 0.0)
        direction = (evidence.direction * precision).to(evidence.direction.dtype)
        loss = -(direction * log_probabilities.exp()).sum(dim=1).mean()
        return loss, {
            "policy/advantage_scale": self.scale,
            "likelihood/explained": evidence.explained,
            "likelihood/offset": evidence.offset,
            "likelihood/noise": self.noise.noise**0.5,
            "replay/visits": len(feedback.old) / len(log_probabilities),
        }

    # Likelihood of the rewards, pixel level ---------------------------------------------------------------------------

    def _recall_pixels(self, feedback: Feedback, keys: Keys, classes: int) -> None:
        """Puts together what this and the earlier visits of the batch's images told about every pixel."""
        if self.pixels is None:
            self.pixels = PixelMemory(classes, self.args.replay_megabytes)
        known, excluded = classes_found(feedback.label_maps, feedback.rewards, classes)
        indices, flipped = keys
        if self.args.replay:
            for b, index in enumerate(indices):
                before = self.pixels.recall(index)
                turn = (lambda maps: maps.flip(-1)) if flipped[b] else (lambda maps: maps)
                if before is not None:
                    known[b] = torch.minimum(known[b], turn(before[0]).to(known.device))
                    excluded[b] |= turn(before[1]).to(known.device)
                self.pixels.store(index, turn(known[b]), turn(excluded[b]))
        feedback.known, feedback.excluded = known, excluded

    def _success_likelihood(
        self, log_probabilities: torch.Tensor, feedback: Feedback
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        assert feedback.known is not None
        assert feedback.excluded is not None
        loss = success_loss(log_probabilities, feedback.known, feedback.excluded)
        return loss, {"likelihood/known": (feedback.known != UNKNOWN).float().mean()}

    # Expected reward --------------------------------------------------------------------------------------------------

    def _advantages(self, rewards: torch.Tensor, label_maps: torch.Tensor) -> torch.Tensor:
        """How much better each label map, or pixel, did than what it is compared with."""
        args = self.args
        if args.pairs != "none":
            flat = rewards[:, :, 0, 0] if rewards.shape[2:] == (1, 1) else rewards
            return pair_advantages(flat, label_maps, args.pairs, args.pair_normaliser)
        return leave_one_out(rewards)

    def _reinforce(
        self, logits: torch.Tensor, feedback: Feedback, progress: float
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Pushes up the log-probability of what earned more, and keeps exploring: see docs/agent.md."""
        args = self.args
        assert feedback.advantages is not None
        advantages = (feedback.advantages / self.scale).to(feedback.advantages.dtype)
        policy_loss, _, entropy = policy_gradient(logits, feedback.label_maps, advantages)
        target = args.entropy_start + (args.entropy_end - args.entropy_start) * progress
        coefficient = args.entropy_gain * (target - entropy.detach()).clamp(min=0)
        return policy_loss - coefficient * entropy, {
            "policy/loss": policy_loss.detach(),
            "policy/entropy": entropy.detach(),
            "policy/advantage_scale": self.scale,
            "policy/entropy_target": target,
            "policy/entropy_coefficient": coefficient,
        }

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "cells": self.cells.state_dict(),
            "noise": self.noise.state_dict(),
            "collected": self.collected,
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.cells.load_state_dict(state["cells"])
        self.noise.load_state_dict(state["noise"])
        self.collected = state["collected"]
        self.updates = state["updates"]

    def memory(self) -> dict[str, torch.Tensor]:
        return self.visits.state_dict() if self.pixels is None else self.pixels.state_dict()

    def load_memory(self, memory: dict[str, torch.Tensor]) -> None:
        if "known" in memory:
            if self.pixels is None:
                self.pixels = PixelMemory(int(memory["classes"]), self.args.replay_megabytes)
            self.pixels.load_state_dict(memory)
        else:
            self.visits.load_state_dict(memory)


Keys = tuple[list[int], list[bool]]  # number of each image in its split, whether it is mirrored
UNKNOWN = 255
ONLY_FOR = {
    "likelihood": ("replay", "replay_megabytes"),
    "reinforce": ("baseline", "pairs", "pair_normaliser", "entropy_start", "entropy_end", "entropy_gain"),
}
"""Arguments that one objective alone knows; the other refuses them."""


def classes_found(label_maps: torch.Tensor, rewards: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the pixel-level rewards of K label maps tell: a class with a reward above 0 is right, all others are not.

    Args:
        label_maps: uint8 (B, K, H, W).
        rewards: float32 (B, K, H, W).
        classes: C.

    Returns:
        ``known``, uint8 (B, H, W), the class that earned a reward, 255 where none did; and ``excluded``, bool
        (B, C, H, W), the classes that were tried and earned nothing.
    """
    batch, samples, height, width = label_maps.shape
    known = torch.full((batch, height, width), UNKNOWN, dtype=torch.uint8, device=label_maps.device)
    excluded = torch.zeros((batch, classes, height, width), dtype=torch.bool, device=label_maps.device)
    for k in range(samples):
        right = rewards[:, k] > 0
        known = torch.where(right, label_maps[:, k], known)
        tried = label_maps[:, k : k + 1].long()
        excluded.scatter_(1, tried, excluded.gather(1, tried) | ~right[:, None])
    return known, excluded


def read_rewards(info: dict[str, Any], device: torch.device) -> torch.Tensor:
    """The rewards of a step's label maps, float32: (B, K, H, W) if the environment scores pixels, else (B, K, 1, 1)."""
    if "pixel_reward" in info:
        return torch.as_tensor(info["pixel_reward"]).to(device)
    return torch.as_tensor(info["scores"]).to(device, torch.float32)[:, :, None, None]


def scores_pixels(envs: gym.vector.VectorEnv) -> bool:
    """Whether the environment's reward is a pixel-level one."""
    task = getattr(envs.unwrapped, "task", None)
    return task is not None and task.level == "pixel"


def leave_one_out(rewards: torch.Tensor) -> torch.Tensor:
    """Aᵏ = Rᵏ − mean of the other K − 1 rewards of the image: an unbiased advantage without a critic.

    Args:
        rewards: (B, K, ...), K at least 2.

    Returns:
        The shape of ``rewards``; sums to 0 over K.
    """
    samples = rewards.shape[1]
    return (rewards - rewards.mean(dim=1, keepdim=True)) * (samples / (samples - 1))


def score_model(reward: str | None) -> str:
    """Key in ``agents.score_models.SCORE_MODELS`` for a reward; accuracy stands in for one that is not there."""
    name = reward or "mean_iou"
    return name if name in SCORE_MODELS else "pixel_accuracy"


def image_keys(envs: gym.vector.VectorEnv, infos: dict[str, Any]) -> Keys:
    """Number of each image in its split, and whether it is shown mirrored; without waiting for a device."""
    shown: Any = envs.unwrapped
    index, flipped = (
        shown.showing if isinstance(infos["index"], torch.Tensor) else (infos["index"], infos.get("flipped"))
    )
    return index.tolist(), [False] * len(index) if flipped is None else flipped.tolist()


def mirror(visit: Visit) -> Visit:
    """The visit with its label maps mirrored left and right."""
    return Visit(visit.index, visit.label_maps.flip(-1), visit.scores, visit.when)


def check(args: RSSArguments) -> None:
    """Raises ``OptionError`` if the algorithm's arguments are out of range or do not go together."""
    if args.samples_per_image < 2:
        raise OptionError(
            f"--samples-per-image must be at least 2, got {args.samples_per_image}: "
            "a label map is judged against the other samples of its image."
        )
    if args.temperature is not None and not 0 < args.temperature < math.inf:
        raise OptionError(f"--temperature must be positive and finite, got {args.temperature}.")
    if args.replay < 0 or not 0 <= args.replay_megabytes < math.inf:
        raise OptionError(
            "--replay and --replay-megabytes must be at least 0 and finite, "
            f"got {args.replay} and {args.replay_megabytes}."
        )
    if args.reward_stars and args.reward_stars < 2:
        raise OptionError(f"--reward-stars must be 0 or at least 2, got {args.reward_stars}.")
    if args.objective == "reinforce":
        if args.temperature not in (None, 1.0):
            raise OptionError(
                "--objective reinforce needs label maps drawn from the policy itself: --temperature must be 1, "
                f"got {args.temperature}."
            )
        if args.pairs == "disjoint" and args.samples_per_image % 2:
            raise OptionError(f"--pairs disjoint needs an even --samples-per-image, got {args.samples_per_image}.")
        if args.pairs != "none" and args.baseline != "leave_one_out":
            raise OptionError("--pairs compares the samples of an image with each other; it takes no other --baseline.")
    for objective, names in ONLY_FOR.items():
        for name in names if objective != args.objective else ():
            if getattr(args, name) != getattr(RSSArguments, name):
                raise OptionError(f"--{name.replace('_', '-')} is for --objective {objective}.")


def train_rss(args: RSSArguments) -> Result:
    """Trains from scores; see ``agents.training.train``."""

    def wrap(envs: gym.vector.VectorEnv) -> gym.vector.VectorEnv:
        if args.objective == "likelihood" and args.reward is not None and args.reward not in SCORE_MODELS:
            print(f"There is no score model of {args.reward}: its scores are predicted by the expected pixel accuracy.")
        if args.reward_noise:
            envs = NoisyReward(envs, args.reward_noise)
        return StarReward(envs, args.reward_stars) if args.reward_stars else envs

    return train(args, RSS(args), wrap, samples_per_image=args.samples_per_image, reward=args.reward)


def main() -> int:
    """Runs the command line."""
    args = parse_arguments(RSSArguments)
    return report(train_rss(args), args)


if __name__ == "__main__":
    run_command(main)
