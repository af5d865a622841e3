"""RL4Seg on label maps: PPO with a ratio for every pixel, a U-Net critic and a penalty on leaving a reference policy.

python -m benchmarks.leaderboard --entry benchmarks/leaderboard/entries/rl4seg.py

Judge et al., "Domain Adaptation of Echocardiography Segmentation via Reinforcement Learning", MICCAI 2024 (arXiv
2406.17902), and its published code. What is theirs:

- one step an episode, and for every pixel i a ratio, a clip and an advantage of its own, computed again in every epoch:
  A_i = r_i - d · (log π(a_i) - log π_ref(a_i)) - v_i;
- a critic that is a U-Net with one value a pixel, regressed on the reward without the penalty;
- five epochs on each rollout, no minibatches, a clip of 0.2, gradients clipped to 0.5, an entropy bonus.

What differs, because the task does:

- Their reward is a map, made by a learned network that finds wrong pixels; here it is one number an image, the same
  r_i for all its pixels. So r_i and v_i are divided by the standard deviation of the rollout's r_i - v_i: without that,
  their coefficients of divergence and entropy, which are kept, would be far above the few thousandths by which the
  scores of two samples differ.
- They start from a segmenter that was trained with labels, and it is the reference throughout. An entry has none, so
  the reference is the policy of some rollouts ago.
- Each image gets several label maps, not one: the network runs once for all of them.
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
    """From ``epochs`` to ``entropy`` and the norm of the gradients, these are RL4Seg's."""

    num_envs: int = 8  # images of a rollout
    num_samples: int = 16  # label maps for each image
    epochs: int = 5
    clip: float = 0.2
    divergence: float = 0.35  # coefficient of the penalty
    entropy: float = 0.05  # coefficient of the bonus
    reference_every: int = 10  # rollouts between two copies of the policy as reference
    learning_rate: float = 1e-3
    max_grad_norm: float = 0.5
    num_reports: int = 10


@dataclass
class Rollout:
    """B images with K label maps each."""

    images: Tensor  # uint8 (B, H, W, 3)
    label_maps: Tensor  # (K, B, H, W)
    log_probs: Tensor  # (K, B, H, W), of the policy that drew them
    reference: Tensor  # (K, B, H, W), log-probabilities of the reference policy
    scores: Tensor  # (K, B)


def policy_of(network: nn.Module, images: Tensor) -> Categorical:
    """uint8 (B, H, W, 3) -> distribution over (B, H, W)."""
    return Categorical(logits=network(images).permute(0, 2, 3, 1))


def policy_loss(log_probs: Tensor, entropy: Tensor, values: Tensor, rollout: Rollout, settings: Settings) -> Tensor:
    """The clipped loss over pixels, with the penalty inside the advantage, minus the entropy bonus.

    Args:
        log_probs: (K, B, H, W), of the policy that learns.
        entropy: (B, H, W), its.
        values: (B, H, W), the critic's; no gradient flows into them.
        rollout: label maps, and what the earlier policies thought of them.
        settings: coefficients.
    """
    with torch.no_grad():
        errors = rollout.scores[:, :, None, None] - values  # (K, B, H, W)
        penalty = settings.divergence * (log_probs - rollout.reference)
        advantages = errors / (errors.std() + 1e-8) - penalty
    ratio = (log_probs - rollout.log_probs).exp()
    clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
    return -torch.min(ratio * advantages, clipped * advantages).mean() - settings.entropy * entropy.mean()


def critic_loss(values: Tensor, scores: Tensor) -> Tensor:
    """Mean squared error between the values (B, H, W) and the scores (K, B), which have no penalty in them."""
    return (values - scores[:, :, None, None]).square().mean()


def train(trial: Any, settings: Settings = Settings()) -> None:
    """The leaderboard's entry point."""
    trial.learning_rate = settings.learning_rate
    torch.manual_seed(trial.seed)
    torch.set_num_threads(1)
    actor, critic = UNet(trial.num_classes), UNet(1)
    reference = copy.deepcopy(actor)
    optimiser = torch.optim.Adam(actor.parameters(), lr=settings.learning_rate)
    critic_optimiser = torch.optim.Adam(critic.parameters(), lr=settings.learning_rate)

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return actor(torch.from_numpy(images)).argmax(1).numpy().astype(np.uint8)

    rollouts = trial.steps_left(settings.num_envs, settings.num_samples)
    paid = trial.budget // (settings.num_envs * settings.num_samples)  # by which the rate falls
    envs = trial.make_envs(num_envs=settings.num_envs, samples_per_image=settings.num_samples)
    images, _ = envs.reset(seed=trial.seed)
    for number in range(rollouts):
        if number % max(1, rollouts // settings.num_reports) == 0:
            trial.report(predict)
        if number % settings.reference_every == 0:
            reference.load_state_dict(actor.state_dict())
        for group in (*optimiser.param_groups, *critic_optimiser.param_groups):
            group["lr"] = settings.learning_rate * (1 - number / paid)
        shown = torch.from_numpy(images)
        with torch.no_grad():
            policy = policy_of(actor, shown)
            label_maps = policy.sample((settings.num_samples,))
            log_probs, reference_log_probs = (
                policy.log_prob(label_maps),
                policy_of(reference, shown).log_prob(label_maps),
            )
        images, _, _, _, infos = envs.step(label_maps.transpose(0, 1).numpy())
        scores = torch.as_tensor(infos["final_info"]["scores"], dtype=torch.float32).T
        rollout = Rollout(shown, label_maps, log_probs, reference_log_probs, scores)
        for _ in range(settings.epochs):
            policy, values = policy_of(actor, shown), critic(shown)[:, 0]
            loss = policy_loss(policy.log_prob(label_maps), policy.entropy(), values, rollout, settings)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(actor.parameters(), settings.max_grad_norm)
            optimiser.step()
            critic_optimiser.zero_grad()
            critic_loss(values, scores).backward()
            critic_optimiser.step()
    trial.report(predict)
