"""One table, data sets and their reward levels, from which every environment id comes."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from rss_env.datasets import DATASETS
from rss_env.errors import OptionError


def env_id(dataset: str, level: str) -> str:
    """The id of a data set at a reward level; a world has the level ``"outcome"`` only.

    Example:
        >>> env_id("VOC", "image")
        'RSS-VOC-ImageReward-v0'
    """
    return f"RSS-{dataset}-{level.capitalize()}Reward-v0"


ENV_IDS = tuple(env_id(dataset, level) for dataset, entry in DATASETS.items() for level in entry.levels)


def register() -> None:
    """Registers every id with Gymnasium; done again it changes nothing."""
    for dataset, entry in DATASETS.items():
        for level in entry.levels:
            name = env_id(dataset, level)
            if name not in gym.registry:
                gym.register(
                    id=name,
                    entry_point="rss_env.env:SegmentationEnv",
                    vector_entry_point="rss_env.registration:make_vector_env",
                    kwargs={"dataset": dataset, "level": level},
                )


def make_vector_env(device: str | None = None, **options: Any) -> VectorEnv:
    """What ``gym.make_vec`` makes: tensors in and out where ``device`` is given, else NumPy arrays.

    Args:
        device: torch device, such as ``"cuda"`` or ``"cpu"``; None for ``SegmentationVectorEnv``.
        **options: those of ``SegmentationVectorEnv`` or ``TorchSegmentationVectorEnv``.

    Raises:
        OptionError: ``device`` without torch.
    """
    if device is None:
        from rss_env.vector import SegmentationVectorEnv

        return SegmentationVectorEnv(**options)
    try:
        from rss_env.torch_vector import TorchSegmentationVectorEnv
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise OptionError(f"device={device!r} needs torch: pip install 'rss-env[torch]'.") from None
    return TorchSegmentationVectorEnv(device=device, **options)
