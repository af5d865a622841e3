"""RN-DPO on label maps: preferences between the samples of an image, each weighed by the pixels in which two differ.

python -m benchmarks.leaderboard --entry benchmarks/leaderboard/entries/rn_dpo.py

Kalisch et al., "Region-Normalized DPO for Medical Image Segmentation under Noisy Judges", 2026 (arXiv 2601.23222).
This is our reading of its abstract: direct preference optimisation (Rafailov et al., 2023, arXiv 2305.18290, equation
7) whose update is normalised by the size of the region in which the two label maps disagree,

    loss = -log sigmoid(beta / |D| · sum over i in D of [log π(w_i)/π_ref(w_i) - log π(l_i)/π_ref(l_i)]),
    D = {i: w_i ≠ l_i},

with the winner w and the loser l. Outside D the two terms are the same and cancel, so plain DPO is this without
1/|D|.

What differs:

- Their label maps are proposed by a segmenter that was trained with a few labels. There are no labels here: the policy
  itself proposes, and the one that has drawn the label maps is the reference of the updates on them.
- Their judge is noisy, and how pairs are mined from its ranking matters to them. Here the scores rank the samples of
  an image, and the best is paired with the worst, the second best with the second worst and so on. Scores decide who
  wins and nothing else; equal ones make no pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn import functional as F

from agents.networks.unet import UNet


@dataclass(frozen=True)
class Settings:
    """``beta`` and pairs are the method's, the rest is the usual."""

    num_envs: int = 8  # images of a rollout
    num_samples: int = 16  # label maps for each image, an even number
    epochs: int = 4  # updates on one rollout
    beta: float = 1.0
    normalised: bool = True  # by the size of the region; False: plain DPO
    judge_noise: float = 0.0  # standard deviation of what is added to the scores before they rank
    learning_rate: float = 1e-3
    max_grad_norm: float = 1.0
    num_reports: int = 10


def policy_of(network: nn.Module, images: Tensor) -> Categorical:
    """uint8 (B, H, W, 3) -> distribution over (B, H, W)."""
    return Categorical(logits=network(images).permute(0, 2, 3, 1))


def pairs_of(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs the samples of each image by rank: (K, B) -> winners and losers, both (K/2, B), and which pairs count."""
    ranked, order = scores.sort(dim=0)
    half = len(scores) // 2
    winners, losers = order.flip(0)[:half], order[:half]
    return winners, losers, ranked.flip(0)[:half] > ranked[:half]


def chosen(values: Tensor, samples: Tensor) -> Tensor:
    """Those of the given samples, (P, B): (K, B, H, W) -> (P, B, H, W)."""
    return values[samples, torch.arange(values.shape[1])]


def margins(log_ratios: Tensor, label_maps: Tensor, winners: Tensor, losers: Tensor, normalised: bool = True) -> Tensor:
    """The log-ratio of the winner less that of the loser, a mean over the pixels in which they differ.

    Args:
        log_ratios: (K, B, H, W), log-probability of each pixel's class less that of the reference.
        label_maps: (K, B, H, W).
        winners: samples, (P, B).
        losers: samples, (P, B).
        normalised: whether it is the mean; else it is the sum, which is plain DPO.

    Returns:
        (P, B); 0 for two equal label maps.
    """
    differ = chosen(label_maps, winners) != chosen(label_maps, losers)
    difference = (chosen(log_ratios, winners) - chosen(log_ratios, losers)) * differ
    total = difference.sum((2, 3))
    return total / differ.sum((2, 3)).clamp(min=1) if normalised else total


def rn_dpo_loss(log_ratios: Tensor, label_maps: Tensor, scores: Tensor, beta: float, normalised: bool = True) -> Tensor:
    """The mean over the pairs of -log sigmoid(beta · margin).

    Args:
        log_ratios: (K, B, H, W), as in ``margins``.
        label_maps: (K, B, H, W).
        scores: (K, B).
        beta: how fast a pair counts less that the policy tells apart already.
        normalised: as in ``margins``.
    """
    winners, losers, counts = pairs_of(scores)
    losses = -F.logsigmoid(beta * margins(log_ratios, label_maps, winners, losers, normalised))
    return (losses * counts).sum() / counts.sum().clamp(min=1)


def train(trial: Any, settings: Settings = Settings()) -> None:
    """The leaderboard's entry point."""
    trial.learning_rate = settings.learning_rate
    torch.manual_seed(trial.seed)
    torch.set_num_threads(1)
    network = UNet(trial.num_classes)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(images)).argmax(1).numpy().astype(np.uint8)

    rollouts = trial.steps_left(settings.num_envs, settings.num_samples)
    paid = trial.budget // (settings.num_envs * settings.num_samples)  # by which the rate falls
    envs = trial.make_envs(num_envs=settings.num_envs, samples_per_image=settings.num_samples)
    images, _ = envs.reset(seed=trial.seed)
    for number in range(rollouts):
        if number % max(1, rollouts // settings.num_reports) == 0:
            trial.report(predict)
        optimiser.param_groups[0]["lr"] = settings.learning_rate * (1 - number / paid)
        shown = torch.from_numpy(images)
        with torch.no_grad():
            policy = policy_of(network, shown)
            label_maps = policy.sample((settings.num_samples,))  # (K, B, H, W)
            reference = policy.log_prob(label_maps)
        images, _, _, _, infos = envs.step(label_maps.transpose(0, 1).numpy())
        scores = torch.as_tensor(infos["final_info"]["scores"], dtype=torch.float32).T
        if settings.judge_noise:
            scores = scores + settings.judge_noise * torch.randn_like(scores)
        for _ in range(settings.epochs):
            log_ratios = policy_of(network, shown).log_prob(label_maps) - reference
            optimiser.zero_grad()
            rn_dpo_loss(log_ratios, label_maps, scores, settings.beta, settings.normalised).backward()
            nn.utils.clip_grad_norm_(network.parameters(), settings.max_grad_norm)
            optimiser.step()
    trial.report(predict)
