"""How good the policy is on a split that it does not train on, as numbers and as pictures."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from rss_env.evaluation import Evaluation, check_split, evaluate
from rss_env.rendering import overlay

from ..networks.checkpoints import predict_label_maps
from .arguments import TrainArguments

PICTURES = 6  # images in the picture grid
LOGGED = {"miou": "val/miou", "pixel_accuracy": "val/pixel_accuracy", "score": "val/score"}


def to_log(evaluation: Evaluation) -> dict[str, float]:
    """The numbers of an evaluation under the names that they are logged by."""
    return {LOGGED[name]: value for name, value in evaluation.metrics.items()}


class Validation:
    """Evaluates policies on the validation split of a run: against the masks, or without masks by the run's reward.

    Args:
        run: arguments of the run.
        device: where the policy is.

    Raises:
        OptionError, DatasetError: the split does not exist, or cannot be evaluated on.
    """

    def __init__(self, run: TrainArguments, device: torch.device) -> None:
        self.env_id, self.device = run.env_id, device
        self.limit, self.tile = run.val_images, run.eval_tile
        self.options: dict[str, Any] = run.env_options() | {"split": run.val_split}
        self.options |= {"reward": run.reward, "reward_options": run.reward_options}
        check_split(self.env_id, **self.options)

    def evaluate(self, network: nn.Module) -> Evaluation:
        """Metrics of the most probable label maps over the split, or its first ``val_images`` images."""
        return evaluate(
            lambda images: predict_label_maps(network, images, self.device, self.tile),
            self.env_id,
            limit=self.limit,
            **self.options,
        )

    def picture(self, network: nn.Module) -> np.ndarray:
        """The first images of the split above the policy's label maps laid over them, uint8 (2H, n·W, 3)."""
        envs = gym.make_vec(self.env_id, num_envs=1, order="sequential", **self.options)
        palette = np.array(envs.metadata["palette"], np.uint8)
        count = min(PICTURES, envs.metadata["num_images"])
        images = np.concatenate([envs.reset()[0] for _ in range(count)])
        label_maps = predict_label_maps(network, images, self.device, self.tile)
        overlays = [
            overlay(image, label_map, palette, 0.6) for image, label_map in zip(images, label_maps, strict=True)
        ]
        return np.concatenate([np.concatenate(list(images), 1), np.concatenate(overlays, 1)])
