"""Wrappers that change the form of the action or of the feedback; ``rss_env.wrappers.vector`` holds their twins."""

from rss_env.wrappers.actions import CoarseAction, FlattenAction
from rss_env.wrappers.rewards import (
    BaselineReward,
    DelayedReward,
    NoisyReward,
    PreferenceReward,
    ShapedReward,
    StarReward,
    ThresholdReward,
)

__all__ = [
    "BaselineReward",
    "CoarseAction",
    "DelayedReward",
    "FlattenAction",
    "NoisyReward",
    "PreferenceReward",
    "ShapedReward",
    "StarReward",
    "ThresholdReward",
]
