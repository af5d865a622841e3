"""Other forms of the feedback, to study and to teach what they do to learning. All are for image-level rewards.

What they change is every *score*: with ``samples_per_image=K`` each of the K in ``info["scores"]``; the reward is the
mean of what they become. They stack: the inner one is applied first. All arguments are JSON-serialisable, so a wrapped
environment can be made again from its ``spec``.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from rss_env.errors import OptionError
from rss_env.wrappers import feedback as kinds


class FeedbackWrapper(gym.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray], RecordConstructorArgs):
    """Passes the scores of an environment through a kind of feedback.

    ``reset(seed=s)`` also seeds the wrapper's own random draws and makes it forget earlier episodes. Wrappers of one
    stack draw independently of each other.

    Args:
        env: a single environment with an image-level reward.
        kind: what becomes of the scores.
        **arguments: of the constructor, as ``spec`` is to keep them.

    Raises:
        OptionError: the reward is a pixel-level one, which would give the clean feedback away.
    """

    def __init__(self, env: gym.Env, kind: kinds.Feedback, **arguments: Any) -> None:
        RecordConstructorArgs.__init__(self, **as_json(arguments))
        super().__init__(env)
        refuse_pixel_level(self, env)
        self.feedback = kind
        self._layer = layers(env, FeedbackWrapper)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's."""
        begun = super().reset(seed=seed, options=options)
        if seed is not None:
            self.feedback.restart(seed, self._layer)
        return begun

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As the environment's, with other scores."""
        observation, reward, terminated, truncated, info = super().step(action)
        if "pixel_reward" in info:
            raise pixel_level(self)
        scores = info["scores"] if "scores" in info else np.array([reward], np.float64)
        given = self.feedback(scores[None])
        if "scores" in info:
            info = info | {"scores": given[0]}
        return observation, float(kinds.mean_score(given)[0]), terminated, truncated, info


def as_json(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with NumPy's numbers as Python's."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in arguments.items()}


def layers(env: Any, of: type) -> int:
    """How many wrappers of a class are around an environment."""
    count = 0
    while hasattr(env, "env"):
        count += isinstance(env, of)
        env = env.env
    return count


def refuse_pixel_level(wrapper: Any, env: Any) -> None:
    """Raises ``OptionError`` if the environment's reward is a pixel-level one."""
    task = getattr(env.unwrapped, "task", None)
    if task is not None and task.level != "image":
        raise pixel_level(wrapper)


def pixel_level(wrapper: Any) -> OptionError:
    """The error of a wrapper around pixel-level rewards."""
    return OptionError(
        f"{type(wrapper).__name__} is for image-level rewards: the pixel reward in info would give the clean "
        "scores away. Use an id that ends in ImageReward-v0."
    )


class NoisyReward(FeedbackWrapper):
    """Adds Gaussian noise to every score: r = s + ``std``·ε, ε ~ N(0, 1), not clipped.

    Args:
        env: an environment with an image-level reward.
        std: standard deviation of the noise, at least 0.
    """

    def __init__(self, env: gym.Env, std: float = 0.05) -> None:
        super().__init__(env, kinds.Noise(std), std=std)


class StarReward(FeedbackWrapper):
    """Rounds every score to one of N equally spaced levels, as people give stars: r = round(s·(N − 1)) / (N − 1).

    Scores that an inner wrapper put outside 0..1 count as 0 or 1; halves round to the even number.

    Args:
        env: an environment with an image-level reward.
        stars: N, at least 2; one star is 0, N stars are 1.
    """

    def __init__(self, env: gym.Env, stars: int = 5) -> None:
        super().__init__(env, kinds.Stars(stars), stars=stars)


class ThresholdReward(FeedbackWrapper):
    """Sparse feedback: r = 1 if s ≥ ``threshold``, else 0.

    Args:
        env: an environment with an image-level reward.
        threshold: the least score that is rewarded.
    """

    def __init__(self, env: gym.Env, threshold: float = 0.5) -> None:
        super().__init__(env, kinds.Threshold(threshold), threshold=threshold)


class DelayedReward(FeedbackWrapper):
    """Withholds the reward of n episodes and pays their sum with the n-th; the others get 0.

    With K samples the mean score of each episode is withheld, and every sample of the n-th is paid the same sum.

    Args:
        env: an environment with an image-level reward.
        episodes: n, at least 1.
    """

    def __init__(self, env: gym.Env, episodes: int = 4) -> None:
        super().__init__(env, kinds.Delay(episodes), episodes=episodes)


class BaselineReward(FeedbackWrapper):
    """The difference to a running mean of earlier episodes: r = s − b, then b ← ``decay``·b + (1 − ``decay``)·mean(s).

    A vector environment keeps a baseline for each sub-environment.

    Args:
        env: an environment with an image-level reward.
        decay: share of the baseline that stays, 0..1.
        initial: the baseline of the first episode.
    """

    def __init__(self, env: gym.Env, decay: float = 0.9, initial: float = 0.0) -> None:
        super().__init__(env, kinds.Baseline(decay, initial), decay=decay, initial=initial)


class PreferenceReward(FeedbackWrapper):
    """Comparisons instead of numbers: r of a sample is the share of the image's other samples that it is preferred to.

    Without temperature the better one is preferred, and a tie counts one half. With temperature τ each pair is drawn
    once from the Bradley-Terry model, P(k before j) = 1 / (1 + exp((s_j − s_k)/τ)). The mean over the samples always is
    1/2.

    Args:
        env: an environment with an image-level reward and ``samples_per_image`` of at least 2.
        temperature: τ, in units of the score; 0: no chance.
    """

    def __init__(self, env: gym.Env, temperature: float = 0.0) -> None:
        refuse_single_samples(self, env)
        super().__init__(env, kinds.Preference(temperature), temperature=temperature)


def refuse_single_samples(wrapper: Any, env: Any) -> None:
    """Raises ``OptionError`` if the environment scores one label map an image only."""
    task = getattr(env.unwrapped, "task", None)
    if task is not None and (task.samples_per_image or 1) < 2:
        raise OptionError(
            f"{type(wrapper).__name__} compares the samples of an image: make the environment with "
            "samples_per_image=K, K at least 2."
        )


class ShapedReward(FeedbackWrapper):
    """A monotone function of every score: r = ``shift`` + ``scale``·f(s).

    f(s) is s (``"affine"``), s^``exponent`` (``"power"``), log max(s, ``epsilon``) (``"log"``) or log(s / (1 − s)) with
    s held between ``epsilon`` and 1 − ``epsilon`` (``"logit"``).

    Args:
        env: an environment with an image-level reward.
        shape: which f.
        scale: factor.
        shift: summand.
        exponent: of ``"power"``, at least 0.
        epsilon: distance from 0 and 1 that ``"log"`` and ``"logit"`` keep, above 0 and at most 0.5.
    """

    def __init__(
        self,
        env: gym.Env,
        shape: str = "affine",
        scale: float = 1.0,
        shift: float = 0.0,
        exponent: float = 1.0,
        epsilon: float = 1e-3,
    ) -> None:
        arguments = {"shape": shape, "scale": scale, "shift": shift, "exponent": exponent, "epsilon": epsilon}
        super().__init__(env, kinds.Shaping(**arguments), **arguments)  # type: ignore[arg-type]
