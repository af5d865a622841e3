"""The part of the rewards page that comes from the rewards' docstrings."""

from __future__ import annotations

from docs.generate.docstrings import Argument, arguments_table, read
from rss_env.rewards import REWARDS, Reward
from rss_env.rewards.mean_iou import mean_iou


def reward_sections() -> str:
    """Markdown: a section of formula, levels and options for every reward."""
    return "\n\n".join(map(_section, REWARDS.values())) + "\n"


def _section(reward: Reward) -> str:
    image = read(reward.formula)
    parts = [f"### `{reward.name}`", image.text]
    if reward.pixel_score is not None:
        parts.append(f"*At pixel level.* {read(reward.pixel_score).text}")
    parts.append(f"*Gives* {image.returns}")
    if reward.options:
        parts.append(arguments_table(_option(image.arguments[name]) for name in reward.options))
    return "\n\n".join(parts)


def _option(own: Argument) -> Argument:
    """The option itself, explained as mean IoU's of that name where its own docstring refers to it."""
    return own if own.meaning else Argument(own.name, own.default, read(mean_iou).arguments[own.name].meaning)
