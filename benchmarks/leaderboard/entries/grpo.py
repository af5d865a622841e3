"""GRPO on label maps: advantages normalised within the samples of an image, a clipped ratio a pixel, and no critic.

python -m benchmarks.leaderboard --entry benchmarks/leaderboard/entries/grpo.py

Shao et al., "DeepSeekMath", 2024 (arXiv 2402.03300), section 4.1: equation 3, the objective, and equation 4, the
estimate of the Kullback-Leibler divergence to a reference policy. A pixel takes the place of a token and a label map
that of an answer: both are drawn once and scored as a whole, so every pixel of a label map has its advantage, A = (r
- mean of the group) / (standard deviation of the group).

What differs:

- Pixels are independent given the image, so one forward pass draws all of them. The ratio stays one a pixel, as it is
  one a token there. As the product over a label map it would be clipped everywhere after one step
  (docs/baselines.md).
- All label maps of an image have the same number of pixels, so the mean over tokens of an answer, then over answers,
  which is disputed for answers of different lengths, is one mean over everything.
- Their first reference is the fine-tuned model, and each iteration (their algorithm 1) begins with a new one. There
  is no such model here: the first reference is the untrained network, and an iteration is ``iteration`` rollouts.
- Rewards are as they come, without a reward model, and groups have 16 samples in place of 64.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from agents.networks.unet import UNet


@dataclass(frozen=True)
class Settings:
    """The names in brackets are those of the paper."""

    num_envs: int = 8  # images of a rollout
    group: int = 16  # label maps for each image (G)
    updates: int = 4  # on one rollout (mu)
    clip: float = 0.2  # (epsilon)
    divergence: float = 0.04  # coefficient of the divergence (beta)
    iteration: int = 10  # rollouts with the same reference (M)
    learning_rate: float = 1e-3
    max_grad_norm: float = 1.0
    num_reports: int = 10


def policy_of(network: nn.Module, images: Tensor) -> Categorical:
    """uint8 (B, H, W, 3) -> distribution over (B, H, W)."""
    return Categorical(logits=network(images).permute(0, 2, 3, 1))


def group_advantages(scores: Tensor) -> Tensor:
    """(G, B) -> (G, B): each score less the mean of its image's samples, over their standard deviation."""
    return (scores - scores.mean(0)) / (scores.std(0) + 1e-8)


def divergence(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Equation 4: an estimate of KL(policy, reference) from samples of the policy, not negative anywhere."""
    difference = reference - log_probs
    return difference.exp() - difference - 1


def grpo_loss(log_probs: Tensor, old: Tensor, reference: Tensor, advantages: Tensor, settings: Settings) -> Tensor:
    """Minus equation 3.

    Args:
        log_probs: (G, B, H, W), of the policy that learns.
        old: (G, B, H, W), of the policy that drew the label maps.
        reference: (G, B, H, W), of the reference policy.
        advantages: (G, B).
        settings: clip and coefficient.
    """
    advantages = advantages[:, :, None, None]
    ratio = (log_probs - old).exp()
    clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
    gain = torch.min(ratio * advantages, clipped * advantages)
    return -(gain - settings.divergence * divergence(log_probs, reference)).mean()


def train(trial: Any, settings: Settings = Settings()) -> None:
    """The leaderboard's entry point."""
    trial.learning_rate = settings.learning_rate
    torch.manual_seed(trial.seed)
    torch.set_num_threads(1)
    network = UNet(trial.num_classes)
    reference_network = copy.deepcopy(network)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(images)).argmax(1).numpy().astype(np.uint8)

    rollouts = trial.steps_left(settings.num_envs, settings.group)
    paid = trial.budget // (settings.num_envs * settings.group)  # by which the rate falls
    envs = trial.make_envs(num_envs=settings.num_envs, samples_per_image=settings.group)
    images, _ = envs.reset(seed=trial.seed)
    for number in range(rollouts):
        if number % max(1, rollouts // settings.num_reports) == 0:
            trial.report(predict)
        if number % settings.iteration == 0:
            reference_network.load_state_dict(network.state_dict())
        optimiser.param_groups[0]["lr"] = settings.learning_rate * (1 - number / paid)
        shown = torch.from_numpy(images)
        with torch.no_grad():
            policy = policy_of(network, shown)
            label_maps = policy.sample((settings.group,))  # (G, B, H, W)
            old, reference = policy.log_prob(label_maps), policy_of(reference_network, shown).log_prob(label_maps)
        images, _, _, _, infos = envs.step(label_maps.transpose(0, 1).numpy())
        advantages = group_advantages(torch.as_tensor(infos["final_info"]["scores"], dtype=torch.float32).T)
        for _ in range(settings.updates):
            log_probs = policy_of(network, shown).log_prob(label_maps)
            optimiser.zero_grad()
            grpo_loss(log_probs, old, reference, advantages, settings).backward()
            nn.utils.clip_grad_norm_(network.parameters(), settings.max_grad_norm)
            optimiser.step()
    trial.report(predict)
