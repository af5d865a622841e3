"""What the single and the vector environment share: the images, the check of an action, and its score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from rss_env.datasets import load_dataset
from rss_env.episodes import check_augment, check_order
from rss_env.errors import InvalidAction, OptionError
from rss_env.rewards import count_labels, count_targets, get_reward


class SegmentationTask:
    """One data set with one reward: shows images and scores label maps, in batches, without any state of episodes.

    Args: see ``SegmentationEnv``.
    """

    def __init__(
        self,
        dataset: str,
        level: str,
        *,
        root: str | Path | None = None,
        split: str = "train",
        image_size: tuple[int, int] | None = None,
        resize: str = "pad",
        augment: str = "none",
        reward: str | None = None,
        order: str = "random",
        samples_per_image: int | None = None,
        expose_target: bool = False,
        **dataset_options: Any,
    ) -> None:
        self.reward = get_reward(reward, level)
        check_order(order)
        check_augment(augment)
        if samples_per_image is not None and not is_count(samples_per_image):
            raise OptionError(f"samples_per_image must be None or an integer of at least 1, got {samples_per_image!r}.")
        self.level = level
        self.order = order
        self.augment = augment
        self.samples_per_image = samples_per_image
        self.expose_target = expose_target
        self.dataset = load_dataset(
            dataset, root=root, split=split, image_size=image_size, resize=resize, **dataset_options
        )
        self.map_shape = (
            self.dataset.image_size
            if samples_per_image is None
            else (
                int(samples_per_image),
                *self.dataset.image_size,
            )
        )
        self.observation_space = spaces.Box(0, 255, (*self.dataset.image_size, 3), np.uint8)
        self.action_space = spaces.MultiDiscrete(np.full(self.map_shape, self.dataset.num_classes))
        self._attach()

    def _attach(self) -> None:
        """Makes the arrays that follow from the data set, which copies and pickles of the task leave out."""
        # Plain ndarray views: indexing np.memmap itself costs a Python call of __array_finalize__ every time.
        self._images = np.asarray(self.dataset.images)
        self._targets = np.asarray(self.dataset.targets)
        self._target_counts: np.ndarray = np.zeros((len(self.dataset), self.dataset.num_classes), np.int64)
        self._counted: np.ndarray = np.zeros(len(self.dataset), bool)

    def __getstate__(self) -> dict[str, Any]:
        derived = ("_images", "_targets", "_target_counts", "_counted")
        return {name: value for name, value in self.__dict__.items() if name not in derived}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._attach()

    def images(self, indices: np.ndarray, flipped: np.ndarray) -> np.ndarray:
        """Copies of images, uint8 (B, H, W, 3); ``flipped``, bool (B,), mirrors left and right."""
        return _flip(self._images[indices], flipped)

    def targets(self, indices: np.ndarray, flipped: np.ndarray) -> np.ndarray:
        """Copies of targets, uint8 (B, H, W), mirrored like their images."""
        return _flip(self._targets[indices], flipped)

    def image_view(self, index: int, flipped: bool) -> np.ndarray:
        """One image, uint8 (H, W, 3), as a read-only view of the data set."""
        image = self._images[index]
        return image[:, ::-1] if flipped else image

    def check_label_maps(self, actions: Any, batch: tuple[int, ...]) -> np.ndarray:
        """Turns actions of shape ``batch + map_shape`` into label maps, uint8 (B, K, H, W).

        Raises:
            InvalidAction: wrong shape, a dtype that is not integer, or a value outside 0..C-1.
        """
        maps = np.asarray(actions)
        expected = (*batch, *self.map_shape)
        if maps.dtype.kind not in "iu":
            raise InvalidAction(
                f"A label map must have an integer dtype, got {maps.dtype}. Convert class scores with "
                "argmax, or whole numbers with .astype(int)."
            )
        if maps.shape != expected:
            raise InvalidAction(f"Expected label maps of shape {expected}, got {maps.shape}.")
        classes = self.dataset.num_classes
        unsigned_type = f"{maps.dtype.str[0]}u{maps.dtype.itemsize}"  # of the same byte order
        unsigned = np.ascontiguousarray(maps).view(unsigned_type)  # a negative label becomes a huge one
        if unsigned.max() >= classes:
            raise InvalidAction(
                f"A label map holds classes 0..{classes - 1}, got values from {maps.min()} to {maps.max()}."
            )
        return unsigned.astype(np.uint8, copy=False).reshape(-1, self.samples_per_image or 1, *self.dataset.image_size)

    def score(
        self, label_maps: np.ndarray, indices: np.ndarray, flipped: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Scores label maps, uint8 (B, K, H, W), of the images ``indices`` (B,), mirrored where ``flipped`` (B,).

        Returns:
            float64 (B,), the mean score of each image's K label maps, and what ``info`` tells beyond it:
            ``"scores"`` (B, K) if ``samples_per_image`` is set; at pixel level ``"pixel_reward"``,
            float32 (B, H, W), or (B, K, H, W) if ``samples_per_image`` is set.
        """
        targets = self.targets(indices, flipped)
        counts = count_labels(label_maps, targets, self.dataset.num_classes, self._count_targets(indices))
        scores = self.reward.image_score(counts)
        details = {}
        if self.samples_per_image is not None:
            details["scores"] = scores
        if self.level == "pixel":
            assert self.reward.pixel_score is not None
            pixel_reward = self.reward.pixel_score(label_maps, targets)
            details["pixel_reward"] = pixel_reward if self.samples_per_image is not None else pixel_reward[:, 0]
        return scores.mean(axis=1), details

    def _count_targets(self, indices: np.ndarray) -> np.ndarray:
        """Pixels of every class in the targets ``indices``, int64 (B, C), counted when an image is first scored."""
        new = np.unique(indices[~self._counted[indices]])
        if new.size:
            self._target_counts[new] = count_targets(self._targets[new], self.dataset.num_classes)
            self._counted[new] = True
        return self._target_counts[indices]

    def check_reset_options(
        self, options: Mapping[str, Any] | None, valid: tuple[str, ...], num_envs: int | None = None
    ) -> Mapping[str, Any]:
        """The options of ``reset`` with their values checked.

        Args:
            options: as given to ``reset``.
            valid: names of the options there are.
            num_envs: B, how many indices may be given instead of one; None if only one may.

        Raises:
            OptionError: an unknown key, an index outside the data set or too many of them, an episode out of range.
        """
        options = {} if options is None else options
        unknown = sorted(set(options) - set(valid))
        if unknown:
            raise OptionError(f"Unknown reset option {unknown[0]!r}; valid: {', '.join(valid)}.")
        if "index" in options:
            index = np.asarray(options["index"])
            if index.dtype.kind not in "iu" or (index.size and not 0 <= index.min() <= index.max() < len(self.dataset)):
                raise OptionError(
                    f"reset(options={{'index': i}}) needs integers from 0 to {len(self.dataset) - 1}, "
                    f"got {options['index']!r}."
                )
            if index.shape not in ((), (num_envs,)):
                count = "one integer" if num_envs is None else f"one integer or {num_envs}"
                raise OptionError(f"reset(options={{'index': i}}) needs {count}, got {options['index']!r}.")
        if "episode" in options and not is_count(options["episode"], least=0):
            raise OptionError(
                f"reset(options={{'episode': t}}) needs an integer from 0 to 2**63 - 1, got {options['episode']!r}."
            )
        return options


def is_count(value: Any, least: int = 1) -> bool:
    """Whether ``value`` is an integer, no bool, from ``least`` to 2**63 - 1."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and least <= int(value) < 1 << 63


def _flip(batch: np.ndarray, flipped: np.ndarray) -> np.ndarray:
    if flipped.any():
        batch[flipped] = batch[flipped, :, ::-1]
    return batch
