"""Wrappers that change the form of the action."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class FlattenAction(gym.ActionWrapper[np.ndarray, np.ndarray, np.ndarray]):
    """Takes label maps as flat vectors, for libraries whose MultiDiscrete must have one axis (Stable-Baselines3).

    Example:
        >>> env = FlattenAction(gym.make("RSS-Shapes-ImageReward-v0", image_size=(32, 32)))
        >>> env.action_space.shape
        (1024,)
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        inner = env.action_space
        if not isinstance(inner, spaces.MultiDiscrete):
            raise TypeError(f"FlattenAction needs a MultiDiscrete action space, got {inner}.")
        self._shape = inner.shape
        self.action_space = spaces.MultiDiscrete(inner.nvec.ravel(), dtype=inner.dtype.type)

    def action(self, action: np.ndarray) -> np.ndarray:
        """(H·W,) -> (H, W), or (K·H·W,) -> (K, H, W)."""
        return np.asarray(action).reshape(self._shape)
