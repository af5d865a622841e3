"""Other forms of the action: flat vectors and coarse label maps."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from rss_env.arguments import is_count
from rss_env.errors import OptionError
from rss_env.rewards.arrays import Array
from rss_env.spaces import as_array


class FlattenAction(gym.ActionWrapper[np.ndarray, np.ndarray, np.ndarray], RecordConstructorArgs):
    """Takes label maps as flat vectors, for libraries whose MultiDiscrete must have one axis (Stable-Baselines3).

    Example:
        >>> env = FlattenAction(gym.make("RSS-Shapes-ImageReward-v0", image_size=(32, 32)))
        >>> env.action_space.shape
        (1024,)
    """

    def __init__(self, env: gym.Env) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._shape = env.action_space.shape
        self.action_space = flat_space(env.action_space)

    def action(self, action: np.ndarray) -> np.ndarray:
        """(H·W,) -> (H, W), or (K·H·W,) -> (K, H, W)."""
        flat = as_array(action)
        check_shape("flat label maps", flat, self.action_space)
        return flat.reshape(self._shape)


class CoarseAction(gym.ActionWrapper[np.ndarray, np.ndarray, np.ndarray], RecordConstructorArgs):
    """Takes coarse label maps: each label stands for a cell of ``cell`` × ``cell`` pixels.

    With the cell side shrinking over training this gives progressive scale rewards (PSR, our reading) to any agent.
    Cells at the right and lower border are cut where the side does not divide the image.

    Args:
        env: an environment whose action is a label map, (H, W), or (K, H, W) of them.
        cell: side of a cell in pixels, at least 1.

    Raises:
        OptionError: ``cell`` is no integer of at least 1.
        TypeError: the action is no label map.

    Example:
        >>> env = CoarseAction(gym.make("RSS-Shapes-ImageReward-v0", image_size=(32, 50)), cell=4)
        >>> env.action_space.shape
        (8, 13)
    """

    def __init__(self, env: gym.Env, cell: int) -> None:
        RecordConstructorArgs.__init__(self, cell=cell.item() if isinstance(cell, np.generic) else cell)
        super().__init__(env)
        self.action_space = coarse_space(env.action_space, cell)
        self.cell = cell
        self._shape = env.action_space.shape or ()

    def action(self, action: np.ndarray) -> np.ndarray:
        """(h, w) -> (H, W), or (K, h, w) -> (K, H, W)."""
        coarse = as_array(action)
        check_shape("coarse label maps", coarse, self.action_space)
        return upsample(coarse, self.cell, self._shape[-2:])


def flat_space(space: spaces.Space) -> spaces.MultiDiscrete:
    """The MultiDiscrete space of the same labels in one axis."""
    if not isinstance(space, spaces.MultiDiscrete):
        raise TypeError(f"FlattenAction needs a MultiDiscrete action space, got {_described(space)}.")
    return spaces.MultiDiscrete(space.nvec.ravel(), dtype=space.dtype.type)


def coarse_space(space: spaces.Space, cell: int) -> spaces.MultiDiscrete:
    """The MultiDiscrete space with one label for each cell of the last two axes."""
    if not isinstance(space, spaces.MultiDiscrete) or len(space.shape) < 2:
        raise TypeError(
            f"CoarseAction needs a MultiDiscrete action space of (..., H, W), got {_described(space)}. Coarse "
            "label maps are made flat last: FlattenAction(CoarseAction(env, cell))."
        )
    if not is_count(cell):
        raise OptionError(f"cell must be an integer of at least 1, got {cell!r}.")
    return spaces.MultiDiscrete(space.nvec[..., ::cell, ::cell], dtype=space.dtype.type)


def _described(space: spaces.Space) -> str:
    """Not the space's own text, which has a number for every pixel."""
    return f"{type(space).__name__} of shape {space.shape}"


def check_shape(what: str, actions: Array, space: spaces.Space) -> None:
    """Raises ``InvalidAction`` if actions have another shape than those of the space."""
    if tuple(actions.shape) != space.shape:
        raise gym.error.InvalidAction(f"Expected {what} of shape {space.shape}, got {tuple(actions.shape)}.")


def upsample(labels: Array, cell: int, size: tuple[int, ...]) -> Array:
    """Repeats every label over its cell, (..., h, w) -> (..., H, W); NumPy or torch."""
    rows, columns = min(cell, size[0]), min(cell, size[1])  # a cell larger than the image costs no more memory
    if isinstance(labels, np.ndarray):
        fine = labels.repeat(rows, axis=-2).repeat(columns, axis=-1)
    else:
        fine = labels.repeat_interleave(rows, -2).repeat_interleave(columns, -1)
    return fine[..., : size[0], : size[1]]
