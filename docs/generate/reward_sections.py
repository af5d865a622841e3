"""The part of the rewards page that comes from the rewards' docstrings."""

from __future__ import annotations

from docs.generate.source import Argument, arguments_table, read
from rss_env.rewards import REWARDS, Reward

SHARED_OPTIONS = "rewards.mean_iou.mean_iou"
"""Other rewards' docstrings refer to this one's for the options they share with it."""


def reward_sections() -> str:
    """Markdown: a section of formula, levels and options for every reward."""
    return "\n\n".join(_section(reward) for reward in REWARDS.values())


def _section(reward: Reward) -> str:
    image = read(_path(reward.formula))
    parts = [f"### `{reward.name}`", _without_references(image.text)]
    if reward.pixel_score is not None:
        pixel = read(_path(reward.pixel_score))
        parts += [f"*At pixel level.* {_without_references(pixel.text)}"]
    parts.append(f"*Gives* {image.returns}")
    if reward.options:
        shared = read(SHARED_OPTIONS).arguments
        parts.append(arguments_table([_option(name, image.arguments[name], shared) for name in reward.options]))
    return "\n\n".join(parts)


def _option(name: str, own: Argument, shared: dict[str, Argument]) -> Argument:
    return own if own.meaning else Argument(name, own.default, shared[name].meaning)


def _path(score: object) -> str:
    module, name = score.__module__, score.__name__  # type: ignore[attr-defined]
    return f"{module.removeprefix('rss_env.')}.{name}"


def _without_references(text: str) -> str:
    return text.partition("\n\nArgs: see ")[0]
