"""PPO in the style of CleanRL on label maps: actor and critic, minibatches, several epochs, a ratio for every pixel.

python -m benchmarks.leaderboard --entry benchmarks/leaderboard/entries/cleanrl_ppo.py

An episode is one step long, so generalised advantage estimation reduces to advantage = score - value(image). Each image
is answered with several label maps: the network runs once for all of them, which is what makes training cheap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical


@dataclass(frozen=True)
class Settings:
    """The usual PPO settings; 256 label maps are scored for each rollout."""

    num_envs: int = 8  # images shown at once
    num_samples: int = 16  # label maps for each image
    num_steps: int = 2  # environment steps in a rollout
    num_minibatches: int = 4  # a minibatch is made of whole images, with all their label maps
    update_epochs: int = 4
    learning_rate: float = 1e-3
    clip_coef: float = 0.2
    entropy_coef: float = 0.003
    value_coef: float = 0.5
    max_grad_norm: float = 1.0
    num_reports: int = 10


class ActorCritic(nn.Module):
    """A small dilated convolutional network with a class distribution for each pixel and one value for the image."""

    def __init__(self, num_classes: int, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 5, padding=2), nn.ReLU()]
        for dilation in (1, 2, 4, 8, 1):
            layers += [
                nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
                nn.GroupNorm(8, width),
                nn.ReLU(),
            ]
        self.features = nn.Sequential(*layers)
        self.actor = nn.Conv2d(width, num_classes, 1)
        self.critic = nn.Sequential(nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, 1))
        nn.init.orthogonal_(self.actor.weight, 0.01)  # start close to the uniform policy
        nn.init.zeros_(self.actor.get_parameter("bias"))

    def forward(self, images: Tensor) -> tuple[Categorical, Tensor]:
        """uint8 (B, H, W, 3) -> distribution over (B, H, W), values (B,)."""
        features = self.features(images.permute(0, 3, 1, 2) / 127.5 - 1)
        # The critic reads the features but does not shape them: its task is easy, and the actor needs the network.
        values = self.critic(features.detach().mean((2, 3))).squeeze(1)
        return Categorical(logits=self.actor(features).permute(0, 2, 3, 1)), values


@dataclass
class Rollout:
    """N images with K label maps each, and what the agent thought of them when it drew them."""

    images: Tensor  # uint8 (N, H, W, 3)
    label_maps: Tensor  # uint8 (N, K, H, W)
    log_probs: Tensor  # (N, K, H, W)
    scores: Tensor  # (N, K)
    values: Tensor  # (N,)


def collect(agent: ActorCritic, envs: Any, images: np.ndarray, settings: Settings) -> tuple[Rollout, np.ndarray]:
    """Plays num_steps steps; gives what happened, and the images that come next."""
    steps = []
    for _ in range(settings.num_steps):
        shown = torch.from_numpy(images)
        with torch.no_grad():
            policy, values = agent(shown)
            label_maps = policy.sample((settings.num_samples,))  # (K, B, H, W)
            log_probs = policy.log_prob(label_maps).transpose(0, 1)
        label_maps = label_maps.transpose(0, 1).to(torch.uint8)
        # Every step ends its episode (SAME_STEP): the images that come back are those of the next episodes.
        images, _, _, _, infos = envs.step(label_maps.numpy())
        scores = torch.as_tensor(infos["final_info"]["scores"], dtype=torch.float32)
        steps.append((shown, label_maps, log_probs, scores, values))
    return Rollout(*(torch.cat(parts) for parts in zip(*steps, strict=True))), images


def ppo_loss(agent: ActorCritic, batch: Rollout, settings: Settings) -> Tensor:
    """Clipped policy loss + value loss - entropy bonus, for one minibatch."""
    policy, values = agent(batch.images)
    advantages = batch.scores - batch.values[:, None]  # (N, K)
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    advantages = advantages[:, :, None, None]

    # The ratio of a whole label map, a product over all its pixels, would always be clipped: each pixel has its own.
    log_probs = policy.log_prob(batch.label_maps.transpose(0, 1)).transpose(0, 1)
    ratio = (log_probs - batch.log_probs).exp()
    clipped = ratio.clamp(1 - settings.clip_coef, 1 + settings.clip_coef)
    policy_loss = -torch.min(ratio * advantages, clipped * advantages).mean()

    # The K label maps of an image share its value, so up to a constant the squared error is that to their mean score.
    value_loss = 0.5 * (values - batch.scores.mean(1)).square().mean()
    return policy_loss + settings.value_coef * value_loss - settings.entropy_coef * policy.entropy().mean()


def update(agent: ActorCritic, optimiser: torch.optim.Optimizer, rollout: Rollout, settings: Settings) -> None:
    """Several epochs of minibatch steps on one rollout."""
    for _ in range(settings.update_epochs):
        for chosen in torch.randperm(len(rollout.images)).chunk(settings.num_minibatches):
            batch = Rollout(*(tensor[chosen] for tensor in vars(rollout).values()))
            optimiser.zero_grad()
            ppo_loss(agent, batch, settings).backward()
            nn.utils.clip_grad_norm_(agent.parameters(), settings.max_grad_norm)
            optimiser.step()


def train(trial: Any) -> None:
    """The leaderboard's entry point."""
    settings = Settings()
    trial.learning_rate = settings.learning_rate
    torch.manual_seed(trial.seed)
    torch.set_num_threads(1)
    agent = ActorCritic(trial.num_classes)
    optimiser = torch.optim.Adam(agent.parameters(), lr=settings.learning_rate, eps=1e-5)

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            policy, _ = agent(torch.from_numpy(images))
        return policy.logits.argmax(-1).numpy().astype(np.uint8)

    iterations = trial.steps_left(settings.num_envs, settings.num_samples) // settings.num_steps
    envs = trial.make_envs(num_envs=settings.num_envs, samples_per_image=settings.num_samples)
    images, _ = envs.reset(seed=trial.seed)
    for iteration in range(iterations):
        if iteration % max(1, iterations // settings.num_reports) == 0:
            trial.report(predict)
        optimiser.param_groups[0]["lr"] = settings.learning_rate * (1 - iteration / iterations)
        rollout, images = collect(agent, envs, images, settings)
        update(agent, optimiser, rollout, settings)
    trial.report(predict)
