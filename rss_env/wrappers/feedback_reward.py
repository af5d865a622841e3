"""The wrapper that gives imperfect feedback, and what it shares with its vector twin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from rss_env.errors import OptionError
from rss_env.rewards.arrays import Array
from rss_env.wrappers.draws import Draws
from rss_env.wrappers.feedback import Feedback, mean_score
from rss_env.wrappers.forms import as_feedback


class FeedbackReward(gym.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray], RecordConstructorArgs):
    """Passes every score through a kind of imperfect feedback, to study and to teach what it does to learning.

    With ``samples_per_image=K`` each of the K scores in ``info["scores"]`` changes, and the reward is the mean of what
    they become. Wrappers stack: the inner one is applied first, and each draws independently of the others.
    ``reset(seed=s)`` also seeds the wrapper's draws and makes it forget earlier episodes. A wrapped environment can be
    made again from its ``spec``.

    Args:
        env: an environment with an image-level reward.
        kind: what becomes of the scores, such as ``Stars(5)``, ``{"kind": "stars", "stars": 5}`` or ``"stars:5"``; see
            ``rss_env.wrappers.feedback`` for all kinds and for how to write one.

    Attributes:
        kind: the kind, such as ``Stars(stars=5)``.

    Raises:
        OptionError: no such kind, a wrong argument of it, or an environment that cannot have such feedback: a
            pixel-level reward would give the clean scores away.

    Example:
        >>> env = FeedbackReward(gym.make("RSS-Shapes-ImageReward-v0", image_size=(32, 32)), "stars:5")
        >>> _ = env.reset(seed=0)
        >>> env.step(env.action_space.sample())[1] in (0.0, 0.25, 0.5, 0.75, 1.0)
        True
    """

    def __init__(self, env: gym.Env, kind: Feedback | Mapping[str, Any] | str) -> None:
        self.kind = as_feedback(kind)
        RecordConstructorArgs.__init__(self, kind=self.kind.to_dict())
        super().__init__(env)
        self.metadata = metadata_with(env, self.kind)
        self._channel = Channel(self.kind, layer=count_layers(env, FeedbackReward))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's."""
        begun = super().reset(seed=seed, options=options)
        if seed is not None:
            self._channel.restart(seed)
        return begun

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As the environment's, with other scores."""
        observation, reward, terminated, truncated, info = super().step(action)
        scores = info["scores"] if "scores" in info else np.array([reward], np.float64)
        given = self._channel(scores[None])
        if "scores" in info:
            info = info | {"scores": given[0]}
        return observation, float(mean_score(given)[0]), terminated, truncated, info


class Channel:
    """A kind of feedback at work, with its memory and its random draws.

    Args:
        kind: what becomes of the scores.
        layer: how many others of its stack are below it.
    """

    def __init__(self, kind: Feedback, layer: int) -> None:
        self.kind, self.layer = kind, layer
        self.memory: dict[str, Any] = {}
        self.draws = Draws()

    def restart(self, seed: int) -> None:
        """Forgets earlier episodes and seeds the draws, which differ between the layers of a stack."""
        self.memory.clear()
        self.draws.restart(seed, self.layer)

    def __call__(self, scores: Array) -> Array:
        """float64 (B, K) -> float64 (B, K)."""
        return self.kind(scores, self.memory, self.draws)


def metadata_with(env: Any, kind: Feedback) -> dict[str, Any]:
    """The environment's metadata with what the feedback adds.

    Raises:
        OptionError: the environment cannot have such feedback.
    """
    if env.metadata.get("reward_level", "image") != "image":
        raise OptionError(
            "FeedbackReward is for image-level rewards: the pixel reward in info would give the clean scores away. Use "
            "an id that ends in ImageReward-v0."
        )
    kind.check(env.metadata)
    inner = {key: value for key, value in env.metadata.items() if key != "reward_stars"}  # no longer what is given
    formula: dict[str, Any] = {} if kind.keeps_score else {"reward": None, "reward_options": {}}
    return inner | formula | kind.metadata()


def count_layers(env: Any, of: type) -> int:
    """How many wrappers of a class are around an environment."""
    count = 0
    while hasattr(env, "env"):
        count += isinstance(env, of)
        env = env.env
    return count
