"""Stable-Baselines3: a VecEnv over the native vector environment, so that its agents train at that speed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from rss_env import SegmentationVectorEnv
from rss_env.arguments import check_flag
from rss_env.errors import OptionError
from rss_env.wrappers.actions import flat_space


class SegmentationVecEnv(VecEnv):
    """A Stable-Baselines3 VecEnv: B images at once, flat actions (B, H·W), float32 rewards (B,).

    Every step ends an episode, so ``infos[b]["episode"]`` always holds the episode's return, as SB3's Monitor would
    give it, and the mean reward is logged without one. An info also holds ``index`` and, at pixel level,
    ``pixel_reward``. Only the label maps that SB3 hands over (to check them) and the observations (out of the data set)
    are copied.

    Args:
        envs: id of an environment, or a vector environment that is made already, possibly wrapped by
            ``rss_env.wrappers.vector``; in SAME_STEP mode and with NumPy arrays.
        num_envs: B, if ``envs`` is an id.
        terminal_observation: put the image that an episode ended on into ``infos[b]["terminal_observation"]``. No SB3
            algorithm needs it here: no episode is ever truncated.
        **env_options: arguments of the environment, if ``envs`` is an id.

    Raises:
        OptionError: the environment is not of that kind, draws several samples an image, or exposes targets.

    Example:
        >>> envs = SegmentationVecEnv("RSS-Shapes-ImageReward-v0", 4, image_size=(40, 40))
        >>> envs.reset().shape, envs.action_space.shape
        ((4, 40, 40, 3), (1600,))
    """

    def __init__(
        self, envs: str | VectorEnv, num_envs: int = 1, *, terminal_observation: bool = False, **env_options: Any
    ) -> None:
        if isinstance(envs, str):
            envs = gym.make_vec(envs, num_envs, **env_options)
        elif num_envs != 1 or env_options:
            raise OptionError("num_envs and env_options are for an id; this vector environment is made already.")
        _check(envs)
        self.envs = envs
        self.terminal_observation = check_flag("terminal_observation", terminal_observation)
        self._shape = (envs.num_envs, *(envs.single_action_space.shape or ()))
        self._actions: np.ndarray | None = None
        self._started = time.time()
        super().__init__(envs.num_envs, envs.single_observation_space, flat_space(envs.single_action_space))

    def reset(self) -> VecEnvObs:
        """Shows the next images, uint8 (B, H, W, 3); seeds and options are those set before."""
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        indices = [option["index"] for option in self._options if "index" in option]
        unknown = sorted({key for option in self._options for key in option} - {"index"})
        if unknown or len(indices) not in (0, self.num_envs):
            raise OptionError("set_options takes {'index': i}, for every environment or for none.")
        options = {"index": np.array(indices)} if indices else None
        observations, infos = self.envs.reset(seed=seeds, options=options)  # type: ignore[arg-type]
        self.reset_infos = [{"index": index} for index in infos["index"].tolist()]
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Takes the label maps, integers (B, H·W)."""
        self._actions = np.asarray(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Scores them; every episode ends and the next images are shown."""
        assert self._actions is not None, "step_async() comes first"
        observations, rewards, terminated, truncated, infos = self.envs.step(self._actions.reshape(self._shape))
        ended = infos["final_info"]
        elapsed = round(time.time() - self._started, 6)
        step_infos: list[dict[str, Any]] = [
            {"index": index, "TimeLimit.truncated": False, "episode": {"r": reward, "l": 1, "t": elapsed}}
            for index, reward in zip(ended["index"].tolist(), rewards.tolist(), strict=True)
        ]
        if "pixel_reward" in ended:
            for info, pixel_reward in zip(step_infos, ended["pixel_reward"], strict=True):
                info["pixel_reward"] = pixel_reward
        if self.terminal_observation:
            for info, final in zip(step_infos, infos["final_obs"], strict=True):
                info["terminal_observation"] = final
        return observations, rewards.astype(np.float32), terminated | truncated, step_infos

    def close(self) -> None:
        """Closes the environment."""
        self.envs.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One picture an environment, if it was made with ``render_mode="rgb_array"``."""
        pictures: Any = self.envs.render()
        return [None] * self.num_envs if pictures is None else list(pictures)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the vector environment or of the outermost wrapper that has it; all parts share it."""
        return [getattr(self._owner(attr_name), attr_name)] * len(self._indices(indices))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets an attribute where ``get_attr`` finds it, for all parts: single ones have none of their own."""
        if len(self._indices(indices)) != self.num_envs:
            raise OptionError("The environments share their attributes: set_attr() needs indices=None.")
        setattr(self._owner(attr_name), attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls a method of the vector environment once; its result stands for each of its parts."""
        method = getattr(self._owner(method_name), method_name)
        return [method(*method_args, **method_kwargs)] * len(self._indices(indices))

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """True for SB3's Monitor, whose episode statistics are given, else False: wrappers are those of the whole."""
        return [issubclass(Monitor, wrapper_class)] * len(self._indices(indices))

    def _owner(self, name: str) -> VectorEnv:
        """The outermost layer that has the attribute, else the environment itself: vector wrappers pass none on."""
        layer = self.envs
        while isinstance(layer, VectorWrapper) and not hasattr(layer, name):
            layer = layer.env
        return layer

    def _indices(self, indices: VecEnvIndices) -> Sequence[int]:
        return list(self._get_indices(indices))


def _check(envs: VectorEnv) -> None:
    if not isinstance(envs.unwrapped, SegmentationVectorEnv):
        raise OptionError(f"SegmentationVecEnv needs a native vector environment of this package, got {envs}.")
    if "device" in envs.metadata:
        raise OptionError("SB3 works on NumPy arrays: make the environment without device=.")
    if envs.metadata["autoreset_mode"] is not AutoresetMode.SAME_STEP:
        raise OptionError("SB3 resets in the same step: make the environment with autoreset_mode='SameStep'.")
    if envs.metadata["samples_per_image"] is not None:
        raise OptionError(
            "SB3's algorithms draw one label map an image: leave samples_per_image out and use more environments."
        )
    if envs.metadata["expose_target"]:
        raise OptionError("expose_target=True is for evaluation; an agent must not see targets.")
