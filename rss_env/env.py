"""The single environment: one image, one label map, one score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rss_env import rendering
from rss_env.arguments import check_seed
from rss_env.episodes import EpisodeStream
from rss_env.errors import ResetNeeded
from rss_env.task import SegmentationTask
from rss_env.turns import Turn


class SegmentationEnv(gym.Env[np.ndarray, np.ndarray]):
    """Semantic segmentation as a one-step episode: an image in, a label map out, a score back.

    ## Observation
    One RGB image, uint8 (H, W, 3). The terminal observation is a copy of it.

    ## Action
    One label map, integers 0..C-1 of shape (H, W), any integer dtype (the space is int64). With
    ``samples_per_image=K`` it is K label maps of the same image, (K, H, W).

    ## Reward
    A score in [0, 1]. Image level: one number for the label map, by default its mean IoU over the classes present in
    the label map or the target. Pixel level: the mean of ``info["pixel_reward"]`` over the pixels that count. With K
    samples: the mean of the K scores, which are in ``info["scores"]``. Pixels that the target ignores (255) count
    nowhere. In a world: the outcome of acting on the label map, as the page of the world has it.

    ## Episode
    ``terminated`` is True after the only step, ``truncated`` always False.

    ## Info
    - ``index``: number of the image in the data set.
    - ``flipped``: whether what is shown is mirrored left and right; only with ``"flip"``.
    - ``crop``: top, left, height and width of what is shown, in pixels of the stored image, (4,): int64, or float64
      with ``"scale"``; only with ``"crop"``. See docs/environments.md.
    - ``scores``: float64 (K,), if ``samples_per_image`` is set; after the step.
    - ``pixel_reward``: float32 (H, W) or (K, H, W), 1 right (more or less with class weights), 0 wrong or ignored; at
      pixel level, after the step.
    - ``target``: uint8 (H, W); only with ``expose_target=True``.

    ## Metadata
    ``env.metadata``, which wrappers pass on, holds what an agent may know, next to Gymnasium's own keys:

    - ``class_names``: C names, a tuple.
    - ``palette``: the colour of each class, C tuples (r, g, b) of 0..255.
    - ``num_images``: number of images in the split.
    - ``image_size``: height and width of the stored images in pixels.
    - ``augment``: names of the augmentations, a tuple.
    - ``crop_size``: height and width of what is shown, None for whole images.
    - ``resize``: how photos reached their size; see the argument.
    - ``samples_per_image``: K, or None for a single label map without the K axis.
    - ``expose_target``: whether ``info`` holds targets.
    - ``has_targets``: whether the data set has masks; of a world only with ``expose_target``.
    - ``reward_level``: ``"image"`` or ``"pixel"``.
    - ``reward``: name of the reward, None for a callable, a world and where feedback changes the score.
    - ``reward_options``: a dict of the options the reward was given, ``{}`` if none.
    - ``device``: name of the torch device; only in vector environments that were made with one.

    ## Reset options
    - ``index``: show this image (never flipped or scaled, and of crops the middle one); the order goes on afterwards
      where it was.
    - ``episode``: jump to this episode of the seed's order, counted from 0.
    - ``images``: from now on show only so many images, spread evenly over the data set; those of a smaller number are
      among those of a larger one. A reset with a seed shows all again, unless it says how many.

    Args:
        dataset: name of the data set, such as ``"Shapes"``.
        level: ``"image"`` or ``"pixel"``: what the reward is given for; ``"outcome"`` in a world.
        root: folder of the data set; procedural ones take none.
        split: name of the split, or part of it as Python slices, such as ``"train[:64]"`` or ``"train[::8]"``.
        image_size: (H, W) in pixels; None for the data set's default.
        resize: how photos reach that size: ``"pad"``, ``"crop"`` or ``"stretch"``.
        augment: ``"none"``, or some of these as a sequence or joined by commas, such as ``"flip,crop"``: ``"flip"``
            (mirror image and target left and right in half of the episodes), ``"crop"`` (show a part of the image of
            ``crop_size``, uniformly drawn) and with it ``"scale"`` (of the image made larger or smaller).
        crop_size: (H, W) of what is shown with ``"crop"``, and so of the label maps; None without it.
        scale_range: least and greatest factor of ``"scale"``, 1/16 to 16; its logarithm is uniformly drawn.
        reward: name of the reward (a key of ``rss_env.rewards.REWARDS``), None for the level's default, or at image
            level a callable (image, label map, target or None) -> float, which ``rss_env.rewards.batched`` and
            ``concurrent`` may mark, or its name, ``"module:function"``.
        reward_options: the reward's own options, such as ``{"class_weights": [...]}``; keyword arguments of a callable.
        order: ``"random"`` (independent uniform draws) or ``"sequential"`` (0, 1, 2, … and from 0 again).
        samples_per_image: K, or None for a single label map without the K axis.
        expose_target: put the target in ``info`` and into the rendering: for evaluation, never for an agent.
        render_mode: None or ``"rgb_array"``: image | label map (| target) (| pixel reward) above a legend, uint8.
        **dataset_options: the data set's own options, such as ``num_classes``.

    Raises:
        OptionError: an argument is not among the valid values, which are listed.
        UnknownArgumentError: there is no argument of that name; an ``OptionError`` and a ``TypeError``.
        DatasetError: the data set is missing, incomplete or corrupt.

    Example:
        >>> env = gym.make("RSS-Shapes-ImageReward-v0", image_size=(32, 32))
        >>> image, info = env.reset(seed=0)
        >>> image.shape, env.action_space.shape
        ((32, 32, 3), (32, 32))
        >>> _, reward, terminated, truncated, info = env.step(np.zeros((32, 32), int))
        >>> 0 <= reward <= 1, terminated, truncated
        (True, True, False)
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self,
        dataset: str = "Shapes",
        level: str = "image",
        *,
        root: str | Path | None = None,
        split: str = "train",
        image_size: tuple[int, int] | None = None,
        resize: str = "pad",
        augment: str | Sequence[str] = "none",
        crop_size: tuple[int, int] | None = None,
        scale_range: tuple[float, float] = (0.5, 2.0),
        reward: str | Callable[..., Any] | None = None,
        reward_options: Mapping[str, Any] | None = None,
        order: str = "random",
        samples_per_image: int | None = None,
        expose_target: bool = False,
        render_mode: str | None = None,
        **dataset_options: Any,
    ) -> None:
        SegmentationTask.check_names(type(self), dataset, dataset_options)
        rendering.check_render_mode(render_mode, self.metadata["render_modes"])
        self._task = SegmentationTask(
            dataset,
            level,
            root=root,
            split=split,
            image_size=image_size,
            resize=resize,
            augment=augment,
            crop_size=crop_size,
            scale_range=scale_range,
            reward=reward,
            reward_options=reward_options,
            order=order,
            samples_per_image=samples_per_image,
            expose_target=expose_target,
            **dataset_options,
        )
        self.metadata = type(self).metadata | self._task.metadata()
        self.observation_space = self._task.observation_space
        self.action_space = self._task.action_space
        self.render_mode = render_mode
        self.reward_queries = 0
        """Label maps scored since the environment was made."""
        self._turn = Turn()
        self._stream = EpisodeStream(order, len(self._task.dataset), num_envs=1)
        self._keyed = False
        self._running = False
        self._view = self._task.augmentation.plain(np.zeros(1, np.int64))
        # For rendering: the first of the last step's label maps, and its pixel reward.
        self._label_map: np.ndarray | None = None
        self._pixel_reward: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Shows the next image. With ``seed`` the order starts again; see the class for ``options``.

        Raises:
            OptionError: a seed that is no integer of at least 0, or a wrong option.
            AlreadyPendingCallError: another thread is in ``reset`` or ``step``.
        """
        chosen = self._task.check_reset_options(options, ("index", "episode", "images"))
        seed = check_seed(seed)
        with self._turn:
            return self._reset(seed, chosen)

    def _reset(self, seed: int | None, chosen: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None or not self._keyed:
            self._stream.restart(self.np_random.integers(1 << 63, size=1, dtype=np.uint64))
            self._keyed = True
        if "images" in chosen:
            self._stream.show_only(int(chosen["images"]))
        if "episode" in chosen:
            self._stream.jump(chosen["episode"])
        if "index" in chosen:
            self._view = self._task.augmentation.plain(np.array([chosen["index"]], np.int64))
        else:
            self._view = self._task.augmentation.draw(*self._stream.draw())
        self._running = True
        self._label_map = self._pixel_reward = None
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Scores the label map (or the K of them) and ends the episode.

        Raises:
            InvalidAction: wrong shape, dtype or class.
            ResetNeeded: before the first reset, or after the episode's only step.
            OptionError: a callable reward gave no finite number.
            JudgeError: a concurrent one failed.
            AlreadyPendingCallError: another thread is in ``reset`` or ``step``.
        """
        with self._turn:
            return self._step(action)

    def _step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if not self._running:
            raise ResetNeeded("An episode has one step: call reset() before each step().")
        label_maps = self._task.check_label_maps(action, ())
        rewards, details = self._task.score(label_maps, *self._view)
        self.reward_queries += label_maps.shape[1]
        self._running = False
        if self.render_mode is not None:
            self._label_map = label_maps[0, 0].copy()
            if "pixel_reward" in details:
                self._pixel_reward = details["pixel_reward"].reshape(label_maps.shape)[0, 0].copy()
        info = self._info() | {key: value[0] for key, value in details.items()}
        return self._observation(), float(rewards[0]), True, False, info

    def render(self) -> np.ndarray | None:
        """Image | label map | target | pixel reward above a legend, uint8; in a world plans and outcome come last.

        The target is there with ``expose_target``; the pixel reward at pixel level, and with ``expose_target`` at image
        level too, as right and wrong. Panels are grey until ``step`` has been called. All pictures of an environment
        have the same size.
        """
        if self.render_mode is None:
            gym.logger.warn("render() needs render_mode='rgb_array' when the environment is made.")
            return None
        task, image = self._task, self._observation()
        target = task.targets(*self._view)[0] if task.expose_target or task.dataset.world else None
        return rendering.panels(
            image,
            self._label_map,
            target if task.expose_target else None,
            task.dataset.palette,
            task.dataset.class_names,
            level=task.level,
            pixel_reward=self._pixel_reward,
            outcome=rendering.outcome_panel(task.dataset.world, image, self._label_map, target),
        )

    def _observation(self) -> np.ndarray:
        return self._task.images(*self._view)[0]

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {"index": int(self._view.indices[0])}
        if "flip" in self._task.augmentation.names:
            info["flipped"] = bool(self._view.flipped[0])
        if self._view.crops is not None:
            info["crop"] = self._view.crops[0].copy()
        if self._task.expose_target:
            info["target"] = self._task.targets(*self._view)[0]
        return info
