"""The part of the rewards page that comes from the rewards' docstrings."""

from __future__ import annotations

from docs.generate.docstrings import arguments_of, arguments_table, returns_of, text_of
from rss_env.rewards import REWARDS, Reward
from rss_env.rewards.mean_iou import mean_iou


def reward_sections() -> str:
    """Markdown: a section of formula, levels and options for every reward."""
    return "\n\n".join(map(_section, REWARDS.values())) + "\n"


def _section(reward: Reward) -> str:
    parts = [f"### `{reward.name}`", text_of(reward.formula)]
    if reward.pixel_score is not None:
        parts.append(f"*At pixel level.* {text_of(reward.pixel_score)}")
    parts.append(f"*Gives* {returns_of(reward.formula)}")
    if reward.options:
        own, shared = arguments_of(reward.formula), arguments_of(mean_iou)  # to which other docstrings refer
        parts.append(arguments_table(own[name] if own[name].meaning else shared[name] for name in reward.options))
    return "\n\n".join(parts)
