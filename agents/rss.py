"""RSS: learning to segment from one number per label map, with a plain policy gradient.

    python -m agents.rss --env-id RSS-Shapes-ImageReward-v0
    python -m agents.rss --env-id RSS-Folder-ImageReward-v0 --root data/camvid --image-size 72 96

The policy is a product of categorical distributions, one a pixel: π(a|x) = Πᵢ Cat(aᵢ; softmax zᵢ). One forward pass
gives the logits z of an image; K label maps are drawn from them and scored by the environment. The formulas are our
reading of "Reward in Semantic Segmentation" (arXiv 2505.17905), of which the abstract is public.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch

from agents.arguments import TrainArguments, parse_arguments, run_command
from agents.ops import credit, sample_label_maps
from agents.training import Result, Update, report, train
from rss_env.errors import OptionError


@dataclass
class RSSArguments(TrainArguments):
    """Train a policy from scores of its label maps."""

    samples_per_image: int = 32
    """label maps drawn and scored for each image (K), at least 2"""
    reward: str | None = None
    """name of the reward; default: the environment's"""
    entropy_start: float = 1.2
    """entropy the policy is held to at the first step, in nats a pixel"""
    entropy_end: float = 0.1
    """entropy it is held to at the last step; the target falls linearly in between"""
    entropy_gain: float = 0.05
    """coefficient of the entropy bonus for each nat that the entropy is below its target"""


class RSS:
    """The algorithm: sample, score, compare, follow the gradient."""

    def __init__(self, args: RSSArguments) -> None:
        if args.samples_per_image < 2:
            raise OptionError(
                f"--samples-per-image must be at least 2, got {args.samples_per_image}: "
                "a label map is judged against the other samples of its image."
            )
        self.args = args

    def __call__(
        self,
        logits: torch.Tensor,
        envs: gym.vector.VectorEnv,
        infos: dict[str, Any],
        progress: float,
        generator: torch.Generator,
    ) -> Update:
        """One step; see ``agents.training.Algorithm``."""
        args = self.args
        log_probabilities = logits.log_softmax(dim=1)  # (B, C, H, W)
        probabilities = log_probabilities.exp()

        # 1. Draw K label maps per image and have them scored.
        with torch.no_grad():
            label_maps = sample_label_maps(probabilities, args.samples_per_image, generator)  # (B, K, H, W)
        images, _, _, _, infos = envs.step(label_maps.cpu().numpy())
        rewards = read_rewards(infos["final_info"], logits.device)  # (B, K, 1, 1), or (B, K, H, W) at pixel level

        # 2. Compare each label map with the others of its image, and bring the differences to unit size.
        advantages = normalise(leave_one_out(rewards))

        # 3. Push up the log-probability of what earned more than the others.
        weights = credit(label_maps, advantages, logits.shape[1])  # (B, C, H, W)
        policy_loss = -(weights * log_probabilities).sum(dim=1).mean()

        # 4. Keep exploring: the bonus grows with the shortfall of the entropy from a falling target.
        entropy = -(probabilities * log_probabilities).sum(dim=1).mean()  # nats a pixel
        target = args.entropy_start + (args.entropy_end - args.entropy_start) * progress
        coefficient = args.entropy_gain * (target - entropy.detach()).clamp(min=0)
        loss = policy_loss - coefficient * entropy

        scores = rewards.mean(dim=(2, 3))  # (B, K)
        metrics: dict[str, torch.Tensor | float] = {
            "reward/mean": scores.mean(),
            "reward/best": scores.amax(dim=1).mean(),
            "reward/std": scores.std(dim=1).mean(),
            "policy/entropy": entropy.detach(),
            "policy/entropy_target": target,
            "policy/entropy_coefficient": coefficient,
            "policy/loss": policy_loss.detach(),
        }
        return Update(loss, images, infos, metrics)


def read_rewards(info: dict[str, Any], device: torch.device) -> torch.Tensor:
    """The rewards of a step's label maps, float32: (B, K, H, W) if the environment scores pixels, else (B, K, 1, 1)."""
    if "pixel_reward" in info:
        return torch.from_numpy(info["pixel_reward"]).to(device)
    return torch.from_numpy(info["scores"]).to(device, torch.float32)[:, :, None, None]


def leave_one_out(rewards: torch.Tensor) -> torch.Tensor:
    """Aᵏ = Rᵏ − mean of the other K − 1 rewards of the image: an unbiased advantage without a critic.

    Args:
        rewards: (B, K, ...), K at least 2.

    Returns:
        The shape of ``rewards``; sums to 0 over K.
    """
    samples = rewards.shape[1]
    return (rewards - rewards.mean(dim=1, keepdim=True)) * (samples / (samples - 1))


def normalise(advantages: torch.Tensor) -> torch.Tensor:
    """Â = A / σ over the whole batch, so that the step does not shrink with the number of pixels; 0 where σ is 0."""
    return advantages / advantages.square().mean().sqrt().clamp(min=1e-8)


def train_rss(args: RSSArguments) -> Result:
    """Trains from scores; see ``agents.training.train``."""
    return train(args, RSS(args), samples_per_image=args.samples_per_image, reward=args.reward)


def main() -> int:
    """Runs the command line."""
    args = parse_arguments(RSSArguments)
    return report(train_rss(args), args)


if __name__ == "__main__":
    run_command(main)
