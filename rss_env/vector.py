"""The vector environment: B images at once, NumPy arrays in and out, no Python per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rss_env import rendering
from rss_env.arguments import check_seed, is_count
from rss_env.attributes import SINGLE, PartAttributes, part_metadata, same
from rss_env.episodes import EpisodeStream
from rss_env.errors import OptionError, ResetNeeded
from rss_env.spaces import as_array, batched_space
from rss_env.task import SegmentationTask
from rss_env.turns import Turn


class SegmentationVectorEnv(PartAttributes, VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """B copies of ``SegmentationEnv`` in one: a gather of images and one batched count a step.

    With the same seed, sub-environment b shows the images that ``SegmentationEnv`` seeded with ``seed + b`` shows, and
    gives the same rewards. With ``order="sequential"`` the B sub-environments walk the data set together, B images a
    step.

    Observations are uint8 (B, H, W, 3), actions integers (B, H, W), or (B, K, H, W) with ``samples_per_image=K``;
    rewards are float64 (B,), terminations and truncations bool (B,).

    What the step says beyond the reward (see ``SegmentationEnv``'s *Info*, here with a leading B) is where Gymnasium
    puts it for the autoreset mode: in ``infos["final_info"]`` for SAME_STEP, next to ``infos["final_obs"]``, an object
    array of B read-only images; in ``infos`` itself for NEXT_STEP and DISABLED.

    ``envs.metadata``, which vector wrappers pass on, holds what ``SegmentationEnv`` lists under *Metadata*, and
    ``autoreset_mode``.

    ``get_attr``, ``set_attr`` and ``call`` are those of Gymnasium's ``SyncVectorEnv``. A sub-environment has the spaces
    and metadata of a single environment, ``spec``, ``render_mode``, ``reward_queries`` (its share), ``render``, and
    what ``set_attr`` gave it.

    Reset options: ``index`` (one integer or B of them), ``episode`` and ``images`` (see ``SegmentationEnv``; those of
    the first environment where the order is a common one), and for DISABLED ``reset_mask``, bool (B,).

    Args:
        dataset: name of the data set.
        level: ``"image"`` or ``"pixel"``, or ``"outcome"`` in a world.
        num_envs: B.
        autoreset_mode: when a finished episode is followed by the next: ``"SameStep"`` (the step that ends one already
            returns the next image; the default, as every step ends an episode), ``"NextStep"`` or ``"Disabled"``.
        render_mode: None or ``"rgb_array"``.
        **task_options: as for ``SegmentationEnv``.

    Raises:
        OptionError: an argument is not among the valid values, which are listed.
        UnknownArgumentError: there is no argument of that name; an ``OptionError`` and a ``TypeError``.
        DatasetError: the data set is missing, incomplete or corrupt.

    Example:
        >>> envs = gym.make_vec("RSS-Shapes-ImageReward-v0", num_envs=3, image_size=(32, 32), samples_per_image=4)
        >>> images, _ = envs.reset(seed=0)
        >>> images, rewards, _, _, infos = envs.step(np.zeros((3, 4, 32, 32), np.uint8))
        >>> images.shape, rewards.shape, infos["final_info"]["scores"].shape
        ((3, 32, 32, 3), (3,), (3, 4))
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}
    task_class: type[SegmentationTask] = SegmentationTask

    def __init__(
        self,
        dataset: str = "Shapes",
        level: str = "image",
        *,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        root: str | Path | None = None,
        **task_options: Any,
    ) -> None:
        self.task_class.check_names(type(self), dataset, task_options)
        if not is_count(num_envs):
            raise OptionError(f"num_envs must be an integer of at least 1, got {num_envs!r}.")
        try:
            mode = autoreset_mode if isinstance(autoreset_mode, AutoresetMode) else str(autoreset_mode)
            self.autoreset_mode = AutoresetMode(mode)
        except ValueError:
            valid = ", ".join(repr(mode.value) for mode in AutoresetMode)
            raise OptionError(f"Unknown autoreset_mode {autoreset_mode!r}; valid: {valid}.") from None
        rendering.check_render_mode(render_mode, self.metadata["render_modes"])
        self._task = self.task_class(dataset, level, root=root, **task_options)
        self.metadata = type(self).metadata | {"autoreset_mode": self.autoreset_mode} | self._task.metadata()
        self.num_envs = int(num_envs)
        self.render_mode = render_mode
        self.single_observation_space = self._task.observation_space
        self.single_action_space = self._task.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batched_space(self.single_action_space, self.num_envs)
        self.reward_queries = 0
        """Label maps scored since the environment was made."""
        self._turn = Turn()
        self._part_attributes: dict[str, list[Any]] = {}  # that set_attr gave, B values each
        self._stream = EpisodeStream(self._task.order, len(self._task.dataset), self.num_envs)
        self._keyed: np.ndarray = np.zeros(self.num_envs, bool)
        self._all: np.ndarray = np.ones(self.num_envs, bool)
        self._running: np.ndarray = np.zeros(self.num_envs, bool)
        self._view = self._task.augmentation.plain(np.zeros(self.num_envs, np.int64))
        # For rendering: the first of each environment's last label maps, its pixel reward, and the images they are of.
        self._label_maps: list[np.ndarray | None] = [None] * self.num_envs
        self._pixel_rewards: list[np.ndarray | None] = [None] * self.num_envs
        self._shown = self._view

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Shows the next images; with ``seed`` the order starts again, b with ``seed + b`` or the b-th of a sequence.

        None in a sequence lets that environment's order go on. With ``reset_mask`` seeds and options apply only to the
        environments in the mask.

        Raises:
            OptionError: a seed that is no integer of at least 0, another number of them than B, or a wrong option.
            AlreadyPendingCallError: another thread is in ``reset`` or ``step``.
        """
        chosen = self._task.check_reset_options(options, ("index", "episode", "images", "reset_mask"), self.num_envs)
        mask = self._check_mask(chosen["reset_mask"]) if "reset_mask" in chosen else self._all
        seeds = self._check_seeds(seed)
        with self._turn:
            return self._reset(seeds, mask, chosen)

    def _reset(
        self, seeds: list[int | None], mask: np.ndarray, chosen: Mapping[str, Any]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self._seed(seeds, mask)
        if "images" in chosen:
            self._stream.show_only(int(chosen["images"]), mask)
        if "episode" in chosen:
            self._stream.jump(chosen["episode"], mask)
        if "index" in chosen:
            indices = np.where(mask, chosen["index"], self._view.indices).astype(np.int64)
            self._view = self._view.replaced(mask, self._task.augmentation.plain(indices))
            self._running = self._running | mask
        else:
            self._begin(mask)
        self._show_begun(mask)
        return self._task.images(*self._view), self._infos(mask)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Scores the label maps; every running episode ends.

        Raises:
            InvalidAction: wrong shape, dtype or class.
            ResetNeeded: before the first reset; in DISABLED mode also after the end of an episode.
            AlreadyPendingCallError: another thread is in ``reset`` or ``step``.
        """
        with self._turn:
            return self._step(actions)

    def _step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        if not self._keyed.any():
            raise ResetNeeded("Call reset() before the first step().")
        if not self._running.all():
            if self.autoreset_mode is not AutoresetMode.NEXT_STEP:
                raise ResetNeeded(
                    "An episode has one step: with autoreset_mode='Disabled' call "
                    "reset(options={'reset_mask': finished}) before the next step()."
                )
            return self._reset_step()

        label_maps = self._task.check_label_maps(actions, (self.num_envs,))
        rewards, details = self._task.score(label_maps, *self._view)
        self.reward_queries += label_maps.shape[0] * label_maps.shape[1]
        self._shown = self._view
        if self.render_mode is not None:
            self._label_maps = list(self._host_copy(label_maps[:, 0]))
            if "pixel_reward" in details:
                self._pixel_rewards = list(self._host_copy(details["pixel_reward"].reshape(label_maps.shape)[:, 0]))
        self._running = np.zeros(self.num_envs, bool)
        infos = self._infos(self._all, details)
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            final_obs = self._task.final_images(*self._view)
            self._begin()
            infos = {
                "final_obs": final_obs,
                "_final_obs": self._give(self._all),
                "final_info": infos,
                "_final_info": self._give(self._all),
                **self._infos(self._all),
            }
        observations = self._task.images(*self._view)
        return observations, rewards, self._give(self._all), self._give(~self._all), infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One picture an environment, as ``SegmentationEnv.render`` gives it.

        After a step it is of the episode that the step ended: in SAME_STEP mode too, although the next has begun.
        """
        if self.render_mode is None:
            gym.logger.warn("render() needs render_mode='rgb_array' when the environment is made.")
            return None
        images = self._host_copy(self._task.images(*self._shown))
        task, world = self._task, self._task.dataset.world
        targets = self._host_copy(task.targets(*self._shown)) if task.expose_target or world else [None] * self.num_envs
        return tuple(
            rendering.panels(
                images[i],
                self._label_maps[i],
                targets[i] if task.expose_target else None,
                task.dataset.palette,
                task.dataset.class_names,
                level=task.level,
                pixel_reward=self._pixel_rewards[i],
                outcome=rendering.outcome_panel(world, images[i], self._label_maps[i], targets[i]),
            )
            for i in range(self.num_envs)
        )

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        if name in self._part_attributes:
            return tuple(value(*args, **kwargs) if callable(value) else value for value in self._part_attributes[name])
        if name == "render":
            return self.render(*args, **kwargs) or (None,) * self.num_envs
        if name == "reward_queries":
            value: Any = self.reward_queries // self.num_envs  # a step scores as many label maps of each
        elif name == "metadata":
            value = part_metadata(self.metadata)
        elif name in (*SINGLE, "render_mode", "spec"):
            value = getattr(self, SINGLE.get(name, name))
        else:
            raise AttributeError(
                f"A sub-environment has {', '.join(SINGLE)}, metadata, spec, render_mode, reward_queries, render() and "
                f"what set_attr() gave it, but no {name!r}; reset(), step() and close() are the vector environment's."
            )
        return (value,) * self.num_envs

    def _set_parts(self, name: str, values: list[Any]) -> None:
        if name in (*SINGLE, "metadata", "spec", "render", "reset", "step", "close"):
            raise AttributeError(f"{name} of a sub-environment cannot be set: it follows from the arguments.")
        if name == "reward_queries":
            self.reward_queries = sum(values)
        elif name == "render_mode":
            rendering.check_render_mode(same(name, values), self.metadata["render_modes"])
            self.render_mode = values[0]
        else:
            self._part_attributes[name] = values

    def _check_seeds(self, seed: Any) -> list[int | None]:
        """The seed of each environment, None where there is none."""
        seed = seed.tolist() if isinstance(seed, np.ndarray) else seed
        if not isinstance(seed, Sequence) or isinstance(seed, (str, bytes)):
            first = check_seed(seed)
            return [None if first is None else first + b for b in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise OptionError(f"Expected one seed or {self.num_envs}, got {len(seed)}.")
        return [check_seed(each) for each in seed]

    def _seed(self, seeds: list[int | None], mask: np.ndarray) -> None:
        """Restarts the order of the environments in ``mask`` that are given a seed or never had one."""
        fresh = mask & (np.array([s is not None for s in seeds]) | ~self._keyed)
        if not fresh.any():
            return
        keys = self._stream.keys.copy()
        for b in np.flatnonzero(fresh):
            keys[b] = seeding.np_random(seeds[b])[0].integers(1 << 63, size=1, dtype=np.uint64)[0]
        super().reset(seed=seeds[0])
        self._stream.restart(keys, fresh)
        self._keyed = self._keyed | fresh

    def _begin(self, mask: np.ndarray | None = None) -> None:
        """Begins the next episode of the environments in ``mask``."""
        view = self._task.augmentation.draw(*self._stream.draw(mask))
        if mask is None:
            self._view, self._running = view, self._all.copy()
        else:
            self._view = self._view.replaced(mask, view)
            self._running = self._running | mask

    def _reset_step(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """The step of NEXT_STEP mode that ignores its actions and begins the next episodes."""
        self._begin()
        self._show_begun(self._all)
        observations = self._task.images(*self._view)
        rewards = self._give(np.zeros(self.num_envs))
        return observations, rewards, self._give(~self._all), self._give(~self._all), self._infos(self._all)

    def _show_begun(self, mask: np.ndarray) -> None:
        """Makes the pictures those of the episodes going on; the environments in ``mask`` have no label map yet."""
        self._shown = self._view
        for b in np.flatnonzero(mask):
            self._label_maps[b] = self._pixel_rewards[b] = None

    def _check_mask(self, mask: Any) -> np.ndarray:
        if self.autoreset_mode is not AutoresetMode.DISABLED:
            raise OptionError(
                "reset(options={'reset_mask': m}) is for autoreset_mode='Disabled'; with "
                f"autoreset_mode={self.autoreset_mode.value!r} step() begins the next episodes."
            )
        array = as_array(mask)
        if array.dtype != bool or array.shape != (self.num_envs,) or not array.any():
            raise OptionError(
                f"reset(options={{'reset_mask': m}}) needs a bool array of shape ({self.num_envs},) with a True in it, "
                f"got {mask!r}."
            )
        return array

    def _infos(self, mask: np.ndarray, details: dict[str, np.ndarray] | None = None) -> dict[str, Any]:
        """Gymnasium's form of a vector environment's info: for each key its array, and under ``_key`` who has it."""
        infos: dict[str, Any] = {"index": self._give_on_host(self._view.indices), "_index": self._give_on_host(mask)}
        if "flip" in self._task.augmentation.names:
            infos |= {"flipped": self._give_on_host(self._view.flipped), "_flipped": self._give_on_host(mask)}
        if self._view.crops is not None:
            infos |= {"crop": self._give_on_host(self._view.crops), "_crop": self._give_on_host(mask)}
        if self._task.expose_target:
            infos |= {"target": self._task.targets(*self._view), "_target": self._give(mask)}
        for key, value in (details or {}).items():
            infos |= {key: value, f"_{key}": self._give(mask)}
        return infos

    def _give(self, array: np.ndarray) -> Any:
        """An array of B numbers in the form in which this environment gives everything out, sharing no memory."""
        return array.copy()

    def _give_on_host(self, array: np.ndarray) -> Any:
        """As ``_give``, for what the host decides and an agent may want to look at without waiting for a device."""
        return array.copy()

    def _host_copy(self, array: Any) -> np.ndarray:
        """A NumPy copy of an array that the task gave, for pictures."""
        return np.array(array)
