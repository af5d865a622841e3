"""The wrappers of ``rss_env.wrappers`` for vector environments, NumPy or torch, under the same names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorActionWrapper, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from rss_env.attributes import SINGLE, PartAttributes, part_metadata, same
from rss_env.rewards.arrays import Array
from rss_env.spaces import as_array
from rss_env.wrappers.actions import check_shape, coarse_space, flat_space, upsample
from rss_env.wrappers.feedback import Feedback, mean_score
from rss_env.wrappers.feedback_reward import Channel, count_layers, metadata_with
from rss_env.wrappers.forms import as_feedback

__all__ = ["CoarseAction", "FeedbackReward", "FlattenAction"]


class _Twin(PartAttributes, VectorWrapper):
    """What the twins pass on that Gymnasium's own vector wrappers do not."""

    part_attributes: tuple[str, ...] = ()
    """Names of what the single twin of this wrapper has beyond what an environment has."""

    @property
    def autoreset_mode(self) -> AutoresetMode:
        """That of the environment, as TorchRL asks for it."""
        return self.metadata["autoreset_mode"]

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        if name in (*SINGLE, *self.part_attributes):
            return (getattr(self, SINGLE.get(name, name)),) * self.num_envs
        if name == "metadata":
            return (part_metadata(self.metadata),) * self.num_envs
        return self._below().call(name, *args, **kwargs)

    def _set_parts(self, name: str, values: list[Any]) -> None:
        if name in self.part_attributes:
            setattr(self, name, same(name, values))
        else:
            self._below().set_attr(name, values)

    def _below(self) -> Any:
        """The next layer that knows attributes of sub-environments; Gymnasium's wrappers do not."""
        layer = self.env
        while isinstance(layer, VectorWrapper) and not hasattr(layer, "call"):
            layer = layer.env
        return layer


class FlattenAction(_Twin, VectorActionWrapper, RecordConstructorArgs):
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


class CoarseAction(_Twin, VectorActionWrapper, RecordConstructorArgs):
    """Vector twin of ``rss_env.wrappers.CoarseAction``: actions (B, h, w), or (B, K, h, w)."""

    part_attributes = ("cell",)

    def __init__(self, env: VectorEnv, cell: int) -> None:
        RecordConstructorArgs.__init__(self, cell=cell.item() if isinstance(cell, np.generic) else cell)
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


class FeedbackReward(_Twin, RecordConstructorArgs):
    """Vector twin of ``rss_env.wrappers.FeedbackReward``.

    The scores are where the autoreset mode puts them: in ``infos["final_info"]`` for SAME_STEP, else in ``infos``. A
    step of NEXT_STEP that only begins new episodes passes unchanged.
    """

    part_attributes = ("kind",)

    def __init__(self, env: VectorEnv, kind: Feedback | Mapping[str, Any] | str) -> None:
        self.kind = as_feedback(kind)
        RecordConstructorArgs.__init__(self, kind=self.kind.to_dict())
        super().__init__(env)
        self.metadata = metadata_with(env, self.kind)
        self._channel = Channel(self.kind, layer=count_layers(env, FeedbackReward))

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
            self._channel.restart(int(given[0]))
        return begun

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """As the environment's, with other scores."""
        observations, rewards, terminated, truncated, infos = super().step(actions)
        same_step = "final_info" in infos
        if not same_step and self.metadata.get("autoreset_mode") == AutoresetMode.NEXT_STEP and not terminated.any():
            return observations, rewards, terminated, truncated, infos
        ended = infos["final_info"] if same_step else infos
        scores = ended["scores"] if "scores" in ended else rewards[:, None]
        given = self._channel(scores)
        if "scores" in ended:
            ended = ended | {"scores": given}
            infos = infos | {"final_info": ended} if same_step else ended
        return observations, mean_score(given), terminated, truncated, infos


def _as_array(actions: Any) -> Array:
    return actions if hasattr(actions, "reshape") else as_array(actions)
