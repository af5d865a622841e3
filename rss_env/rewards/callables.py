"""A callable as the reward: a person, a simulator or a judge model that scores label maps."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from rss_env.errors import OptionError
from rss_env.named import find_callable, name_of
from rss_env.rewards.arrays import Array
from rss_env.rewards.given import as_score, as_scores, like
from rss_env.rewards.slow import Concurrent, is_asynchronous

Judge = TypeVar("Judge", bound=Callable[..., Any])


def batched(judge: Judge) -> Judge:
    """Marks a callable that scores all label maps of a step in one call; a decorator.

    The callable is called as ``judge(images, label_maps, targets, **reward_options)`` with images uint8 (B, H, W, 3),
    label maps uint8 (B, K, H, W) and targets uint8 (B, H, W), or None where there are no masks: NumPy arrays, or
    tensors on the device of the environment. It gives finite numbers (B, K): an array, a tensor or nested lists. An
    object of a class is marked by ``batched = True`` in the class.

    Raises:
        OptionError: the callable cannot be marked.

    Example:
        >>> @batched
        ... def judge(images, label_maps, targets):
        ...     return (label_maps == targets[:, None]).mean((2, 3))
    """
    try:
        judge.batched = True  # type: ignore[attr-defined]
    except AttributeError:
        raise OptionError(
            f"batched marks a function, or an object of a class; got {judge!r}. Call it in a function of your own."
        ) from None
    return judge


class CallableReward:
    """A callable as the reward of an environment, with its options.

    Args:
        judge: the callable, or ``"module:function"``.
        level: reward level of the environment.
        options: keyword arguments of every call, ``reward_options``; None for none.

    Raises:
        OptionError: the module, or the function in it, cannot be found, it cannot be called in this way, or the
            environment is at pixel level.
    """

    def __init__(self, judge: Callable[..., Any] | str, level: str, options: Mapping[str, Any] | None) -> None:
        if level != "image":
            raise OptionError(
                f"A callable reward gives one score a label map, so it needs an image-level id, not {level!r} level."
            )
        self.judge = find_callable("reward", judge) if isinstance(judge, str) else judge
        self.name = judge if isinstance(judge, str) else name_of(judge)
        if not isinstance(options, Mapping | None):
            raise OptionError(f"reward_options must be a dict of the callable's own options, got {options!r}.")
        self.options = dict(options or {})
        self.batched = _is_batched(self.judge)
        self._check()
        if is_asynchronous(self.judge):
            self.judge = Concurrent(self.judge)

    def _check(self) -> None:
        if inspect.isclass(self.judge):
            raise OptionError(f"The reward {self.name} is a class: pass an object of it, which is called.")
        if self.batched and (isinstance(self.judge, Concurrent) or is_asynchronous(self.judge)):
            raise OptionError(
                f"The reward {self.name} is batched, that is called once a step, so it cannot be concurrent."
            )
        if isinstance(self.judge, Concurrent):
            self.judge.check_options(self.options)
        try:
            signature = inspect.signature(self.judge)
        except (TypeError, ValueError):  # some built-in functions have none
            return
        try:
            signature.bind(None, None, None, **self.options)
        except TypeError as error:
            named = [
                p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            ]
            form = "images, label_maps, targets" if self.batched else "image, label_map, target"
            raise OptionError(
                f"The reward {self.name} is called as ({form}, **reward_options): {error}; its options: "
                f"{', '.join(named[3:]) or 'none'}."
            ) from None

    def score(self, images: Array, label_maps: Array, targets: Array | None, indices: np.ndarray) -> Array:
        """Calls the callable for label maps.

        Args:
            images: uint8 (B, H, W, 3).
            label_maps: uint8 (B, K, H, W).
            targets: uint8 (B, H, W) or None.
            indices: number of each image in its split, (B,), for errors.

        Returns:
            float64 (B, K), of the kind and on the device of the images.

        Raises:
            OptionError: the callable gave something other than finite numbers.
            JudgeError: calls of a concurrent one failed.
        """
        shape = tuple(label_maps.shape[:2])
        if self.batched:
            given = self.judge(images, label_maps, targets, **self.options)
            return as_scores(given, images, shape, indices)
        if isinstance(self.judge, Concurrent):
            numbers = self.judge.scores(images, label_maps, targets, indices, self.options)
        else:
            numbers = [
                as_score(
                    self.judge(image, label_map, None if targets is None else targets[b], **self.options),
                    int(indices[b]),
                    k,
                )
                for b, image in enumerate(images)
                for k, label_map in enumerate(label_maps[b])
            ]
        return like(np.array(numbers, np.float64).reshape(shape), images)


def _is_batched(judge: Any) -> bool:
    while isinstance(judge, functools.partial):
        judge = judge.func
    return getattr(judge, "batched", False) is True
