"""Rewards by name: pure, batched functions from label maps and targets to scores in [0, 1], for NumPy and torch.

``batched`` and ``concurrent`` mark a reward of your own: see *Your own score*.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rss_env.arguments import check_choice
from rss_env.errors import OptionError
from rss_env.rewards.arrays import Array
from rss_env.rewards.boundary_f1 import boundary_f1
from rss_env.rewards.callables import batched
from rss_env.rewards.checks import OPTION_CHECKS, check_scored
from rss_env.rewards.counting import Counts, count_classes, count_labels
from rss_env.rewards.mean_dice import mean_dice
from rss_env.rewards.mean_iou import frequency_weighted_iou, mean_iou
from rss_env.rewards.pixel_accuracy import pixel_accuracy, right_pixels
from rss_env.rewards.slow import Concurrent, concurrent

__all__ = [
    "LEVELS",
    "REWARDS",
    "Concurrent",
    "Counts",
    "Reward",
    "batched",
    "concurrent",
    "count_classes",
    "count_labels",
    "get_reward",
    "score_images",
    "score_pixels",
]

LEVELS = ("image", "pixel")


@dataclass(frozen=True)
class Reward:
    """One reward.

    Attributes:
        name: key in ``REWARDS``.
        formula: ``(Counts, **options)`` -> float64 (B, K), the score of each label map; with ``reads_maps``
            ``(Counts, label maps, targets, **options)``.
        pixel_score: ``(Counts, label maps, targets, **options)`` -> float32 (B, K, H, W), the score of each pixel,
            whose mean over the counted pixels is that of the label map; None if the reward has none.
        reads_maps: whether the counts do not suffice for ``formula``.
    """

    name: str
    formula: Callable[..., Array]
    pixel_score: Callable[..., Array] | None = None
    reads_maps: bool = False

    def has_level(self, level: str) -> bool:
        """Whether the reward is defined at ``"image"`` or ``"pixel"`` level."""
        return level == "image" or self.pixel_score is not None

    def image_score(self, counts: Counts, label_maps: Array, targets: Array) -> Array:
        """The score of each label map, float64 (B, K); label maps and targets are only read with ``reads_maps``."""
        return self.formula(counts, label_maps, targets) if self.reads_maps else self.formula(counts)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the reward's own options."""
        parameters = inspect.signature(self.formula).parameters.items()
        return tuple(name for name, p in parameters if p.kind is p.KEYWORD_ONLY)

    def bind(self, num_classes: int, options: Mapping[str, Any] | None) -> Reward:
        """The same reward with its own options checked and bound, for C classes.

        Raises:
            OptionError: an unknown option (the valid ones are listed), or a wrong value.
        """
        if not isinstance(options, Mapping | None):
            raise OptionError(f"reward_options must be a dict of the reward's own options, got {options!r}.")
        unknown = sorted(set(options or {}) - set(self.options), key=str)
        if unknown:
            valid = ", ".join(self.options) or "(none)"
            raise OptionError(f"Unknown option {unknown[0]!r} of reward {self.name!r}; its options: {valid}.")
        checked = {key: OPTION_CHECKS[key](value, num_classes) for key, value in (options or {}).items()}
        return dataclasses.replace(
            self,
            formula=functools.partial(self.formula, **checked),
            pixel_score=self.pixel_score and functools.partial(self.pixel_score, **checked),
        )


REWARDS = {
    reward.name: reward
    for reward in (
        Reward("mean_iou", mean_iou),
        Reward("frequency_weighted_iou", frequency_weighted_iou),
        Reward("mean_dice", mean_dice),
        Reward("boundary_f1", boundary_f1, reads_maps=True),
        Reward("pixel_accuracy", pixel_accuracy, right_pixels),
    )
}
DEFAULT_REWARD = {"image": "mean_iou", "pixel": "pixel_accuracy"}


def get_reward(name: str | None, level: str) -> Reward:
    """The reward called ``name`` (None: the level's default).

    Raises:
        OptionError: an unknown level, or no reward of that name at that level; the message lists the valid ones.
    """
    check_choice("reward level", level, LEVELS)
    chosen = DEFAULT_REWARD[level] if name is None else name
    check_choice(f"{level}-level reward", chosen, (n for n, reward in REWARDS.items() if reward.has_level(level)))
    return REWARDS[chosen]


def score_images(reward: str, label_maps: Array, targets: Array, num_classes: int, **options: Any) -> Array:
    """Scores K label maps of each of B images.

    Args:
        reward: name of an image-level reward.
        label_maps: integers (B, K, H, W), values 0..C-1, a NumPy array or a torch tensor.
        targets: integers (B, H, W), values 0..C-1 or 255 (ignored), of the same kind.
        num_classes: C, 2 to 255.
        **options: the reward's own options.

    Returns:
        float64 (B, K) in [0, 1], of the same kind; equal bit for bit whatever the kind and the device.

    Raises:
        OptionError: an unknown reward or a wrong option, or arrays that are not as above; the values of tensors on an
            accelerator are not checked.

    Example:
        >>> maps = np.array([[[[0, 1], [1, 1]]]], np.uint8)
        >>> target = np.array([[[0, 1], [0, 255]]], np.uint8)
        >>> score_images("mean_iou", maps, target, num_classes=3)  # class 0: 1/2, class 1: 1/2, class 2 absent
        array([[0.5]])
    """
    label_maps, targets = check_scored(label_maps, targets, num_classes)
    chosen = get_reward(reward, "image").bind(num_classes, options)
    return chosen.image_score(count_labels(label_maps, targets, num_classes), label_maps, targets)


def score_pixels(reward: str, label_maps: Array, targets: Array, num_classes: int, **options: Any) -> Array:
    """Scores every pixel of K label maps of each of B images.

    Args: see ``score_images``; ``reward`` is the name of a pixel-level one.

    Returns:
        float32 (B, K, H, W), at least 0; ignored pixels score 0.

    Raises: see ``score_images``.
    """
    label_maps, targets = check_scored(label_maps, targets, num_classes)
    chosen = get_reward(reward, "pixel").bind(num_classes, options)
    assert chosen.pixel_score is not None
    return chosen.pixel_score(count_labels(label_maps, targets, num_classes), label_maps, targets)
