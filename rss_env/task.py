"""What the single and the vector environment share: the images, the check of an action, and its score."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from rss_env.arguments import (
    check_choice,
    check_flag,
    is_count,
    keywords,
    refuse_unknown,
)
from rss_env.augmentation import Augmentation, check_crop_size, check_scale_range, read_augment
from rss_env.datasets import DATASETS, load_dataset
from rss_env.episodes import check_order
from rss_env.errors import DatasetError, OptionError
from rss_env.rewards import LEVELS, count_classes, count_labels, get_reward
from rss_env.rewards.arrays import Array, tree_sum
from rss_env.rewards.callables import CallableReward
from rss_env.spaces import as_array, check_label_maps, label_map_space


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
        augment: str | Sequence[str] = "none",
        crop_size: tuple[int, int] | None = None,
        scale_range: tuple[float, float] = (0.5, 2.0),
        reward: str | Callable[..., Any] | None = None,
        reward_options: Mapping[str, Any] | None = None,
        order: str = "random",
        samples_per_image: int | None = None,
        expose_target: bool = False,
        **dataset_options: Any,
    ) -> None:
        check_choice("reward level", level, DATASETS[dataset].levels if dataset in DATASETS else LEVELS)
        self.judge: CallableReward | None = None
        if level == "outcome":
            _check_world_options(dataset, reward, reward_options, augment)
        elif callable(reward) or (isinstance(reward, str) and ":" in reward):
            self.judge = CallableReward(reward, level, reward_options)
        else:
            self.reward = get_reward(reward, level)
        check_order(order)
        check_crop_size(read_augment(augment), crop_size)
        check_scale_range(scale_range)
        if samples_per_image is not None and not is_count(samples_per_image):
            raise OptionError(f"samples_per_image must be None or an integer of at least 1, got {samples_per_image!r}.")
        self.level = "image" if level == "outcome" else level  # an outcome is one score of the whole label map too
        self.order = order
        self.samples_per_image = None if samples_per_image is None else int(samples_per_image)
        self.expose_target = check_flag("expose_target", expose_target)
        self.resize = resize
        self.dataset = load_dataset(
            dataset, root=root, split=split, image_size=image_size, resize=resize, **dataset_options
        )
        if self.dataset.world is not None:
            self.judge = CallableReward(self.dataset.world, self.level, None)
        if self.judge is None:
            self.reward = self.reward.bind(self.dataset.num_classes, reward_options)
        # Those of a callable stay with it: they are part of a formula that no agent may know.
        self.reward_options = dict(reward_options or {}) if self.judge is None else {}
        self._check_targets()
        self.augmentation = Augmentation(augment, self.dataset.image_size, crop_size, scale_range)
        samples = () if self.samples_per_image is None else (self.samples_per_image,)
        self.map_shape = (*samples, *self.augmentation.size)
        self.observation_space = spaces.Box(0, 255, (*self.augmentation.size, 3), np.uint8)
        self.action_space = label_map_space(self.map_shape, self.dataset.num_classes)
        self._attach()

    @classmethod
    def check_names(cls, environment: type, dataset: str, given: Mapping[str, Any]) -> None:
        """Checks the names of the arguments of an environment that its own ``__init__`` does not name.

        Raises:
            OptionError: there is no such data set, or the argument is for tensors and this environment has none.
            UnknownArgumentError: neither the environment, nor this task, nor the data set has such an argument.
        """
        check_choice("data set", dataset, DATASETS)
        makers = [vars(each)["__init__"] for each in (*environment.__mro__, *cls.__mro__) if "__init__" in vars(each)]
        valid = (*keywords(*makers), *DATASETS[dataset].options)
        for name in given:
            if name in ("device", "cache") and name not in valid:
                raise OptionError(
                    f"{name}={given[name]!r} is for tensors: gym.make_vec(id, device=...) gives them, and "
                    "cache= goes with device=; elsewhere leave both out."
                )
        refuse_unknown(environment.__init__, given, valid)  # type: ignore[misc]

    def _attach(self) -> None:
        """Makes the arrays that follow from the data set, which copies and pickles of the task leave out."""
        # Plain ndarray views: indexing np.memmap itself costs a Python call of __array_finalize__ every time.
        self._images: Array = np.asarray(self.dataset.images)
        self._targets: Array = None if self.dataset.targets is None else np.asarray(self.dataset.targets)
        self._target_counts: Array = np.zeros((len(self.dataset), self.dataset.num_classes), np.int64)
        self._counted: np.ndarray = np.zeros(len(self.dataset), bool)  # images that _target_counts knows
        self._all_counted = False
        self._views: np.ndarray | None = None  # every image by itself

    def metadata(self) -> dict[str, Any]:
        """What an agent may know, freshly made; ``SegmentationEnv`` lists it under *Metadata*."""
        return {
            "class_names": tuple(self.dataset.class_names),
            "palette": tuple(tuple(colour) for colour in self.dataset.palette.tolist()),
            "num_images": len(self.dataset),
            "image_size": tuple(self.dataset.image_size),
            "augment": self.augmentation.names,
            "crop_size": self.augmentation.crop_size,
            "resize": self.resize,
            "samples_per_image": self.samples_per_image,
            "expose_target": self.expose_target,
            # Those of a world are for evaluation alone, and only where they are asked for.
            "has_targets": self.dataset.targets is not None and (self.dataset.world is None or self.expose_target),
            "reward_level": self.level,
            "reward": self.reward.name if self.judge is None else None,
            "reward_options": {
                name: value.tolist() if hasattr(value, "tolist") else copy.deepcopy(value)
                for name, value in self.reward_options.items()
            },
        }

    def _check_targets(self) -> None:
        if self.dataset.targets is not None:
            return
        if self.judge is None:
            raise DatasetError(
                f"{self.dataset.name} has no masks, which reward={self.reward.name!r} needs. Add them, or pass as "
                "reward a callable (image, label_map, target) -> float, which gets None as the target."
            )
        if self.expose_target:
            raise DatasetError(f"{self.dataset.name} has no masks, so there is no target to expose.")

    def __getstate__(self) -> dict[str, Any]:
        derived = ("_images", "_targets", "_target_counts", "_counted", "_all_counted", "_views")
        return {name: value for name, value in self.__dict__.items() if name not in derived}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._attach()

    def images(self, indices: np.ndarray, flipped: np.ndarray, crops: np.ndarray | None = None) -> Array:
        """Copies of what is shown of images, uint8 (B, H, W, 3).

        Args:
            indices: int64 (B,), numbers of the images.
            flipped: bool (B,), which are mirrored left and right.
            crops: (B, 4), the part that is shown, as in ``View``; None for whole images.
        """
        return self._gather(self._images, indices, flipped, crops)

    def targets(self, indices: np.ndarray, flipped: np.ndarray, crops: np.ndarray | None = None) -> Array:
        """Copies of targets, uint8 (B, H, W), cut and mirrored like their images."""
        return self._gather(self._targets, indices, flipped, crops)

    def _gather(self, data: Array, indices: np.ndarray, flipped: np.ndarray, crops: np.ndarray | None) -> Array:
        batch = data[indices] if crops is None else self.augmentation.cut(data, indices, crops)
        if flipped.any():
            batch[flipped] = batch[flipped, :, ::-1]
        return batch

    def final_images(self, indices: np.ndarray, flipped: np.ndarray, crops: np.ndarray | None = None) -> Array:
        """The images as Gymnasium passes on final observations: an object array of B read-only views."""
        if crops is not None:
            views = np.empty(len(indices), object)
            for b, image in enumerate(self.images(indices, flipped, crops)):
                image.flags.writeable = False
                views[b] = image
            return views
        if self._views is None:
            self._views = np.empty(len(self.dataset), object)
            for index, image in enumerate(self._images):
                self._views[index] = image
        views = self._views[indices]
        for b in np.flatnonzero(flipped):
            views[b] = views[b][:, ::-1]
        return views

    def check_label_maps(self, actions: Any, batch: tuple[int, ...]) -> Array:
        """Turns actions of shape ``batch + map_shape`` into label maps, uint8 (B, K, H, W).

        Raises:
            InvalidAction: wrong shape, a dtype that is not integer, or a value outside 0..C-1.
        """
        label_maps = check_label_maps(actions, (*batch, *self.map_shape), self.dataset.num_classes)
        return label_maps.reshape(-1, self.samples_per_image or 1, *self.augmentation.size)

    def score(
        self, label_maps: Array, indices: np.ndarray, flipped: np.ndarray, crops: np.ndarray | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """Scores label maps, uint8 (B, K, H, W), of what ``images`` shows with the same arguments.

        Returns:
            float64 (B,), the mean score of each image's K label maps, and what ``info`` holds beyond it:
            ``"scores"`` (B, K) if ``samples_per_image`` is set; at pixel level ``"pixel_reward"``,
            float32 (B, H, W), or (B, K, H, W) if ``samples_per_image`` is set.
        """
        details = {}
        if self.judge is not None:
            targets = None if self._targets is None else self.targets(indices, flipped, crops)
            scores = self.judge.score(self.images(indices, flipped, crops), label_maps, targets, indices)
        else:
            scores, pixel_reward = self._grade(label_maps, indices, flipped, crops)
            if pixel_reward is not None:
                details["pixel_reward"] = pixel_reward if self.samples_per_image is not None else pixel_reward[:, 0]
        if self.samples_per_image is not None:
            details["scores"] = scores
        return tree_sum(scores) / scores.shape[1], details

    def _grade(
        self, label_maps: Array, indices: np.ndarray, flipped: np.ndarray, crops: np.ndarray | None
    ) -> tuple[Array, Array | None]:
        """The scores, float64 (B, K), and at pixel level the pixel reward, float32 (B, K, H, W)."""
        if crops is not None:
            return self._grade_against(label_maps, self.targets(indices, flipped, crops), None)
        known, classes = self._count_targets(indices), self.dataset.num_classes
        if self.level == "image" and not self.reward.reads_maps and not flipped.any():
            counts = count_labels(label_maps, self._targets, classes, known, rows=indices)
            return self.reward.image_score(counts, label_maps, None), None
        return self._grade_against(label_maps, self.targets(indices, flipped), known)

    def _grade_against(self, label_maps: Array, targets: Array, known: Array | None) -> tuple[Array, Array | None]:
        counts = count_labels(label_maps, targets, self.dataset.num_classes, known)
        scores = self.reward.image_score(counts, label_maps, targets)
        if self.level == "image":
            return scores, None
        assert self.reward.pixel_score is not None
        return scores, self.reward.pixel_score(counts, label_maps, targets)

    def _count_targets(self, indices: np.ndarray) -> Array:
        """Pixels of every class in the targets ``indices``, int64 (B, C), counted when an image is first scored."""
        if not self._all_counted:
            new = np.unique(indices[~self._counted[indices]])
            if new.size:
                counts = count_classes(self.targets(new, np.zeros(len(new), bool)), self.dataset.num_classes)
                self._remember_counts(new, counts)
                self._counted[new] = True
                self._all_counted = bool(self._counted.all())
        return self._known_counts(indices)

    def _remember_counts(self, indices: np.ndarray, counts: Array) -> None:
        self._target_counts[indices] = counts

    def _known_counts(self, indices: np.ndarray) -> Array:
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
            OptionError: no dict, an unknown key, an index outside the data set or too many of them, an episode or a
                number of images out of range.
        """
        options = {} if options is None else options
        if not isinstance(options, Mapping):
            raise OptionError(f"reset(options=...) needs a dict of {', '.join(valid)}, got {options!r}.")
        for name in options:
            check_choice("reset option", name, valid)
        if "index" in options:
            index = as_array(options["index"])
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
        if "images" in options and not (is_count(options["images"]) and options["images"] <= len(self.dataset)):
            raise OptionError(
                f"reset(options={{'images': n}}) needs an integer from 1 to {len(self.dataset)}, "
                f"got {options['images']!r}."
            )
        return options


def _check_world_options(dataset: str, reward: Any, reward_options: Any, augment: Any) -> None:
    """Raises ``OptionError`` if arguments are given that go with a comparison of label maps and targets only."""
    for name, value in (("reward", reward), ("reward_options", reward_options or None)):
        if value is not None:
            raise OptionError(f"The reward of {dataset} is the outcome of acting on the label map: leave out {name}.")
    if "crop" in read_augment(augment):
        raise OptionError(f"{dataset} is acted in as a whole: leave out 'crop' in augment; 'flip' goes.")
