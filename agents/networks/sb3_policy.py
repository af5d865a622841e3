"""A dense policy for Stable-Baselines3's PPO and A2C: a fully convolutional actor and one batched categorical.

SB3's own policy for a label map is a vector of H·W·C logits out of one linear layer and a list of H·W distribution
objects. This one is a network of ``agents.networks`` and a single distribution over all pixels; it is plugged in
through SB3's extension points (a policy class, a distribution, a rollout buffer), so training is SB3's own.

PPO's probability ratio of a whole label map is a product over H·W pixels: a small change of every pixel makes it huge
or tiny, and clipping stops all learning. With ``pixel_ratio`` the log-probabilities stay one a pixel, (B, H·W), through
the rollout buffer and the loss, so each pixel has a ratio, a clip and a share of the loss of its own.

Where several environments show the same image, as with ``agents.sb3 --samples-per-image``, the network sees it once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import RolloutBufferSamples, Schedule
from torch import nn

from ..ops import sample_label_maps
from . import make_network


class PixelCategorical(Distribution):
    """Independent categorical distributions over the pixels of label maps.

    Args:
        logits: (U, C, H, W).
        pixel_ratio: keep log-probabilities apart, (B, H·W), instead of summing them over the pixels, (B,).
        rows: int64 (B,), which of the U rows of the logits is whose; default: B = U, each its own.
    """

    def __init__(self, logits: torch.Tensor, pixel_ratio: bool = False, rows: torch.Tensor | None = None) -> None:
        super().__init__()
        self.log_probabilities = logits.flatten(2).log_softmax(dim=1)  # (U, C, H·W)
        self.pixel_ratio = pixel_ratio
        self.rows = torch.arange(len(logits), device=logits.device) if rows is None else rows

    def proba_distribution_net(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Not needed: the logits come from the policy's network."""
        raise NotImplementedError("The logits of PixelCategorical come from the policy's network.")

    def proba_distribution(self, logits: torch.Tensor) -> PixelCategorical:
        """The distribution with these logits, (B, C, H, W)."""
        return PixelCategorical(logits, self.pixel_ratio)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Log-probability of flat label maps (B, H·W): (B,), or (B, H·W) with ``pixel_ratio``."""
        _, classes, pixels = self.log_probabilities.shape
        places = (self.rows[:, None] * classes + x.long()) * pixels + torch.arange(pixels, device=x.device)
        chosen = self.log_probabilities.flatten().take(places)  # (B, H·W)
        return chosen if self.pixel_ratio else chosen.sum(dim=1)

    def entropy(self) -> torch.Tensor:
        """Mean entropy of the pixels in nats, (B,): a coefficient then means the same at every image size."""
        return -(self.log_probabilities.exp() * self.log_probabilities).sum(dim=1).mean(dim=1)[self.rows]

    def sample(self) -> torch.Tensor:
        """Flat label maps, int64 (B, H·W); their seed is a number of torch's own generator."""
        seed = torch.randint(2**63 - 1, (1,), device=self.log_probabilities.device)
        return sample_label_maps(self.log_probabilities[self.rows, ..., None], 1, seed).flatten(1).long()

    def mode(self) -> torch.Tensor:
        """The most probable flat label maps, int64 (B, H·W)."""
        return self.log_probabilities.argmax(dim=1)[self.rows]

    def actions_from_params(self, logits: torch.Tensor, deterministic: bool = False) -> torch.Tensor:
        """Flat label maps of the distribution with these logits."""
        return self.proba_distribution(logits).get_actions(deterministic)

    def log_prob_from_params(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Flat label maps drawn with these logits, and their log-probability."""
        distribution = self.proba_distribution(logits)
        actions = distribution.sample()
        return actions, distribution.log_prob(actions)


class DensePolicy(ActorCriticPolicy):
    """Actor: a network of ``agents.networks``. Critic: a linear layer on what it is sure of, class by class.

    Args:
        observation_space: uint8 (H, W, 3).
        action_space: MultiDiscrete of H·W entries, all of C classes.
        lr_schedule: SB3's learning-rate schedule.
        network: name of the network.
        network_options: its options.
        pixel_ratio: log-probabilities stay one a pixel; needs ``PixelRolloutBuffer``.
        **kwargs: further arguments of SB3's policy.

    Raises:
        ValueError: the action space is no flat label map of this image.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        network: str = "unet",
        network_options: dict[str, Any] | None = None,
        pixel_ratio: bool = False,
        **kwargs: Any,
    ) -> None:
        assert isinstance(observation_space, spaces.Box)
        # Images come as the environment gives them, or with the channels first, as SB3's VecTransposeImage turns them.
        self.channels_first = observation_space.shape[0] == 3 and observation_space.shape[-1] != 3
        height, width = observation_space.shape[1:] if self.channels_first else observation_space.shape[:2]
        if not isinstance(action_space, spaces.MultiDiscrete) or action_space.nvec.shape != (height * width,):
            raise ValueError(f"DensePolicy needs a flat label map of {height}×{width} pixels, got {action_space}.")
        self.num_classes = int(action_space.nvec[0])
        self.network_name, self.network_options = network, network_options or {}
        self.pixel_ratio = pixel_ratio
        options: dict[str, Any] = {"net_arch": [], "features_extractor_class": FlattenExtractor, "ortho_init": False}
        super().__init__(observation_space, action_space, lr_schedule, **options | kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        self.network = make_network(self.network_name, self.num_classes, self.network_options)
        # What draws at random or mixes the images of a batch gives two copies of one image different logits.
        apart = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
        self.once = not any(isinstance(module, apart) for module in self.network.modules())
        self.value_net = nn.Linear(2 * self.num_classes, 1)
        options: dict[str, Any] = {"lr": lr_schedule(1)} | self.optimizer_kwargs
        self.optimizer = self.optimizer_class(self.parameters(), **options)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        return data | {
            "network": self.network_name,
            "network_options": self.network_options,
            "pixel_ratio": self.pixel_ratio,
        }

    def _evaluate(self, obs: torch.Tensor) -> tuple[PixelCategorical, torch.Tensor]:
        """The distribution of the label maps and the value (B, 1)."""
        images = obs.permute(0, 2, 3, 1) if self.channels_first else obs
        rows = None
        if self.once:
            images, rows = distinct(images)
        logits = self.network(images)  # (U, C, H, W)
        distribution = PixelCategorical(logits, self.pixel_ratio, rows)
        with torch.no_grad():  # the critic looks at the actor's output and leaves its weights alone
            probabilities = logits.softmax(dim=1)
            features = torch.cat([probabilities.mean(dim=(2, 3)), probabilities.square().mean(dim=(2, 3))], dim=1)
        return distribution, self.value_net(features if rows is None else features[rows])

    def forward(
        self, obs: torch.Tensor, deterministic: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Label maps, values and log-probabilities."""
        distribution, values = self._evaluate(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, values, distribution.log_prob(actions)

    def evaluate_actions(  # type: ignore[override]
        self, obs: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Values, log-probabilities of the label maps, and entropies."""
        distribution, values = self._evaluate(obs)
        return values, distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: torch.Tensor) -> PixelCategorical:  # type: ignore[override]
        """The distribution of the label maps."""
        return self._evaluate(obs)[0]

    def predict_values(self, obs: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Values, (B, 1)."""
        return self._evaluate(obs)[1]

    def _predict(self, observation: torch.Tensor, deterministic: bool = False) -> torch.Tensor:  # type: ignore[override]
        return self.get_distribution(observation).get_actions(deterministic=deterministic)


def distinct(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The different images among (B, H, W, 3), and which of them each is, int64 (B,)."""
    known: dict[bytes, int] = {}  # torch.unique would sort the images by their pixels
    rows = [known.setdefault(image.tobytes(), len(known)) for image in images.cpu().numpy()]
    first = dict(zip(reversed(rows), reversed(range(len(rows))), strict=True))  # of each row, its first image
    places = torch.tensor([first[row] for row in range(len(known))], device=images.device)
    return images[places], torch.tensor(rows, device=images.device)


class PixelRolloutBuffer(RolloutBuffer):
    """A rollout buffer whose log-probabilities are one a pixel, and whose advantages meet them as (B, 1)."""

    def reset(self) -> None:
        """Forgets everything."""
        super().reset()
        self.log_probs = np.zeros((self.buffer_size, self.n_envs, self.action_dim), np.float32)

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> RolloutBufferSamples:
        parts = (
            self.observations[batch_inds],
            self.actions[batch_inds],
            self.values[batch_inds].flatten(),
            self.log_probs[batch_inds],
            self.advantages[batch_inds].reshape(-1, 1),
            self.returns[batch_inds].flatten(),
        )
        return RolloutBufferSamples(*map(self.to_torch, parts))
