"""The wrappers of ``rss_env.wrappers`` for vector environments, NumPy or torch, under the same names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorActionWrapper, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from rss_env.rewards.arrays import Array
from rss_env.wrappers import feedback as kinds
from rss_env.wrappers.actions import check_shape, coarse_space, flat_space, upsample
from rss_env.wrappers.rewards import as_json, layers, pixel_level, refuse_pixel_level, refuse_single_samples

__all__ = [
    "BaselineReward",
    "CoarseAction",
    "DelayedReward",
    "FlattenAction",
    "NoisyReward",
    "PreferenceReward",
    "ShapedReward",
    "StarReward",
    "ThresholdReward",
]


class _TellsItsMode(VectorWrapper):
    @property
    def autoreset_mode(self) -> AutoresetMode:
        """That of the environment, as TorchRL asks for it; Gymnasium's own vector wrappers do not pass it on."""
        return self.metadata["autoreset_mode"]


class FlattenAction(_TellsItsMode, VectorActionWrapper, RecordConstructorArgs):
    """Vector twin of ``rss_env.wrappers.FlattenAction``: actions (B, H·W), or (B, K·H·W)."""

    def __init__(self, env: VectorEnv) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._shape = env.single_action_space.shape or ()
        self.single_action_space = flat_space(env.single_action_space)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def actions(self, actions: Array) -> Array:
        """(B, H·W) -> (B, H, W), or (B, K·H·W) -> (B, K, H, W)."""
        flat = _as_array(actions)
        check_shape("flat label maps", flat, self.action_space)
        return flat.reshape(self.num_envs, *self._shape)


class CoarseAction(_TellsItsMode, VectorActionWrapper, RecordConstructorArgs):
    """Vector twin of ``rss_env.wrappers.CoarseAction``: actions (B, h, w), or (B, K, h, w)."""

    def __init__(self, env: VectorEnv, cell: int) -> None:
        RecordConstructorArgs.__init__(self, **as_json({"cell": cell}))
        super().__init__(env)
        self.single_action_space = coarse_space(env.single_action_space, cell)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.cell = cell
        self._size = (env.single_action_space.shape or ())[-2:]

    def actions(self, actions: Array) -> Array:
        """(B, h, w) -> (B, H, W), or (B, K, h, w) -> (B, K, H, W)."""
        coarse = _as_array(actions)
        check_shape("coarse label maps", coarse, self.action_space)
        return upsample(coarse, self.cell, self._size)


class FeedbackWrapper(_TellsItsMode, RecordConstructorArgs):
    """Vector twin of ``rss_env.wrappers.rewards.FeedbackWrapper``.

    The scores are where the autoreset mode puts them: in ``infos["final_info"]`` for SAME_STEP, else in ``infos``. A
    step of NEXT_STEP that only begins new episodes passes unchanged.
    """

    def __init__(self, env: VectorEnv, kind: kinds.Feedback, **arguments: Any) -> None:
        RecordConstructorArgs.__init__(self, **as_json(arguments))
        super().__init__(env)
        refuse_pixel_level(self, env)
        self.feedback = kind
        self._layer = layers(env, FeedbackWrapper)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As the environment's; of several seeds the first that is given seeds the wrapper's own draws.

        Any seed makes the wrapper forget the earlier episodes of all sub-environments.
        """
        begun = super().reset(seed=seed, options=options)  # type: ignore[arg-type]
        seeds: Any = seed  # torch's and NumPy's numbers and arrays of them too
        seeds = seeds.tolist() if hasattr(seeds, "tolist") else seeds
        given = [s for s in (seeds if isinstance(seeds, Sequence) else [seeds]) if s is not None]
        if given:
            self.feedback.restart(int(given[0]), self._layer)
        return begun

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """As the environment's, with other scores."""
        observations, rewards, terminated, truncated, infos = super().step(actions)
        same_step = "final_info" in infos
        if not same_step and self.metadata.get("autoreset_mode") == AutoresetMode.NEXT_STEP and not terminated.any():
            return observations, rewards, terminated, truncated, infos
        ended = infos["final_info"] if same_step else infos
        if "pixel_reward" in ended:
            raise pixel_level(self)
        scores = ended["scores"] if "scores" in ended else rewards[:, None]
        given = self.feedback(scores)
        if "scores" in ended:
            ended = ended | {"scores": given}
            infos = infos | {"final_info": ended} if same_step else ended
        return observations, kinds.mean_score(given), terminated, truncated, infos


class NoisyReward(FeedbackWrapper):
    """Vector twin of ``rss_env.wrappers.NoisyReward``."""

    def __init__(self, env: VectorEnv, std: float = 0.05) -> None:
        super().__init__(env, kinds.Noise(std), std=std)


class StarReward(FeedbackWrapper):
    """Vector twin of ``rss_env.wrappers.StarReward``."""

    def __init__(self, env: VectorEnv, stars: int = 5) -> None:
        super().__init__(env, kinds.Stars(stars), stars=stars)


class ThresholdReward(FeedbackWrapper):
    """Vector twin of ``rss_env.wrappers.ThresholdReward``."""

    def __init__(self, env: VectorEnv, threshold: float = 0.5) -> None:
        super().__init__(env, kinds.Threshold(threshold), threshold=threshold)


class DelayedReward(FeedbackWrapper):
    """Vector twin of ``rss_env.wrappers.DelayedReward``: every sub-environment is paid by itself."""

    def __init__(self, env: VectorEnv, episodes: int = 4) -> None:
        super().__init__(env, kinds.Delay(episodes), episodes=episodes)


class BaselineReward(FeedbackWrapper):
    """Vector twin of ``rss_env.wrappers.BaselineReward``: a baseline for each sub-environment."""

    def __init__(self, env: VectorEnv, decay: float = 0.9, initial: float = 0.0) -> None:
        super().__init__(env, kinds.Baseline(decay, initial), decay=decay, initial=initial)


class PreferenceReward(FeedbackWrapper):
    """Vector twin of ``rss_env.wrappers.PreferenceReward``."""

    def __init__(self, env: VectorEnv, temperature: float = 0.0) -> None:
        refuse_single_samples(self, env)
        super().__init__(env, kinds.Preference(temperature), temperature=temperature)


class ShapedReward(FeedbackWrapper):
    """Vector twin of ``rss_env.wrappers.ShapedReward``."""

    def __init__(
        self,
        env: VectorEnv,
        shape: str = "affine",
        scale: float = 1.0,
        shift: float = 0.0,
        exponent: float = 1.0,
        epsilon: float = 1e-3,
    ) -> None:
        arguments = {"shape": shape, "scale": scale, "shift": shift, "exponent": exponent, "epsilon": epsilon}
        super().__init__(env, kinds.Shaping(**arguments), **arguments)  # type: ignore[arg-type]


def _as_array(actions: Any) -> Array:
    return actions if hasattr(actions, "reshape") else np.asarray(actions)
