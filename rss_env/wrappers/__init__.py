"""Wrappers that change the form of the action or of the feedback; ``rss_env.wrappers.vector`` holds their twins."""

from rss_env.wrappers.actions import CoarseAction, FlattenAction
from rss_env.wrappers.draws import Draws
from rss_env.wrappers.feedback import (
    Baseline,
    Delay,
    Drift,
    Feedback,
    Noise,
    Preference,
    Shaping,
    Stars,
    Threshold,
)
from rss_env.wrappers.feedback_reward import FeedbackReward
from rss_env.wrappers.forms import as_feedback

__all__ = [
    "Baseline",
    "CoarseAction",
    "Delay",
    "Draws",
    "Drift",
    "Feedback",
    "FeedbackReward",
    "FlattenAction",
    "Noise",
    "Preference",
    "Shaping",
    "Stars",
    "Threshold",
    "as_feedback",
]
