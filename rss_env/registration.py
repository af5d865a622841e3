"""One table, data sets × reward levels, from which every environment id comes."""

from __future__ import annotations

import gymnasium as gym

from rss_env.datasets import DATASETS
from rss_env.rewards import LEVELS


def env_id(dataset: str, level: str) -> str:
    """The id of a data set at a reward level.

    Example:
        >>> env_id("VOC", "image")
        'RSS-VOC-ImageReward-v0'
    """
    return f"RSS-{dataset}-{level.capitalize()}Reward-v0"


ENV_IDS = tuple(env_id(dataset, level) for dataset in DATASETS for level in LEVELS)


def register() -> None:
    """Registers every id with Gymnasium; done again it changes nothing."""
    for dataset in DATASETS:
        for level in LEVELS:
            name = env_id(dataset, level)
            if name not in gym.registry:
                gym.register(
                    id=name,
                    entry_point="rss_env.env:SegmentationEnv",
                    vector_entry_point="rss_env.vector:SegmentationVectorEnv",
                    kwargs={"dataset": dataset, "level": level},
                )
