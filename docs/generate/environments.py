"""The pages of the data sets: what their environments show, take and give, and where the data come from."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from docs.generate.docstrings import Argument, arguments_of, arguments_table, table, text_of
from rss_env.datasets import DATASETS, DatasetEntry
from rss_env.datasets.info import DatasetInfo
from rss_env.env import SegmentationEnv
from rss_env.registration import env_id, make_vector_env
from rss_env.torch_task import TorchSegmentationTask
from rss_env.vector import SegmentationVectorEnv

VERSIONS = {"v0": "first version."}
"""What changed with each version of the ids."""

REWARDED = {
    False: "a score in [0, 1]; one a pixel too in the second id",
    True: "what comes of acting on the label map, in [0, 1]",
}
COMPARING = ("crop_size", "scale_range", "reward", "reward_options")
"""Arguments that a world does not take, as no label map is compared with a target."""


def is_world(entry: DatasetEntry) -> bool:
    """Whether the reward is what comes of acting on the label map."""
    return entry.levels == ("outcome",)


def environment_page(dataset: str, pictures: dict[str, str]) -> str:
    """Markdown of a data set's page.

    Args:
        dataset: a key of ``DATASETS``.
        pictures: address of each picture, seen from the page -> its caption.
    """
    entry = DATASETS[dataset]
    introduction, _, contract = text_of(SegmentationEnv).partition("\n\n## ")
    description, _, layout = text_of(_module(entry)).partition("\n\n")
    parts = [
        f"# {dataset}",
        description,
        *(f"![{caption}]({address}){{.picture}}\n\n*{caption}*" for address, caption in pictures.items()),
        _classes(entry.info),
        _summary(dataset, entry),
        introduction,
        f"## Example\n\n```python\n{example(dataset)}```",
        f"## {contract}",
        "## Arguments",
        "Of `gym.make` and `gym.make_vec` ([Rewards](../rewards.md) has every reward and its `reward_options`):",
        arguments_table(_arguments(entry)),
        "Of `gym.make_vec` alone:",
        arguments_table(_vector_arguments()),
        "## Data",
        *_data(dataset, entry, layout),
        "## Version history",
        "\n".join(f"- `{version}`: {change}" for version, change in VERSIONS.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def gallery() -> str:
    """Markdown of the cards of the data sets, and of their places in the navigation."""
    cards, pages = "", ""
    for name, entry in DATASETS.items():
        page, picture = f"environments/{name.lower()}", f"environments/{name.lower()}/cover.png"
        summary = text_of(_module(entry)).partition("\n")[0].removeprefix(f"{name}: ")
        options = f":img-top: {picture}\n:img-alt: {name}\n:link: {page}\n:link-type: doc\n"
        cards += f":::{{grid-item-card}} {name}\n{options}\n{summary[0].upper()}{summary[1:]}\n:::\n"
        pages += f"{name} <{page}>\n"
    return f"::::{{grid}} 2 2 3 4\n:gutter: 3\n\n{cards}::::\n\n```{{toctree}}\n:hidden:\n\n{pages}```\n"


def example(dataset: str) -> str:
    """A program that runs one episode; photos are looked for in the folder ``data``."""
    root = "" if DATASETS[dataset].generate else ', root="data"'
    level, *further = DATASETS[dataset].levels
    measured = "outcome" if level == "outcome" else "mean IoU"
    program = f"""\
import gymnasium as gym
import numpy as np
import rss_env  # registers the ids

env = gym.make("{env_id(dataset, level)}"{root})
image, info = env.reset(seed=0)
label_map = np.zeros(env.action_space.shape, np.uint8)  # your agent goes here
_, reward, terminated, truncated, info = env.step(label_map)
print(f"{measured}: {{reward:.3f}}")
"""
    if not further:
        return program
    return f"""\
{program}
env = gym.make("{env_id(dataset, "pixel")}"{root})
image, info = env.reset(seed=0)
_, reward, terminated, truncated, info = env.step(label_map)
print("share of right pixels:", reward, "of each pixel:", info["pixel_reward"].shape)
"""


def _loader(entry: DatasetEntry) -> Callable[..., object]:
    return inspect.unwrap(entry.locate or entry.generate)  # type: ignore[arg-type]


def _module(entry: DatasetEntry) -> object:
    return inspect.getmodule(_loader(entry))


def _arguments(entry: DatasetEntry) -> list[Argument]:
    own, shown = arguments_of(_loader(entry)), arguments_of(SegmentationEnv)
    fixed = ("dataset", "level", *(("root", "resize") if entry.generate else ()), *(COMPARING * is_world(entry)))
    for name in fixed:
        del shown[name]
    shown["image_size"] = Argument("image_size", str(entry.image_size), "(H, W) in pixels.")
    if own["split"].meaning:
        shown["split"] = Argument("split", shown["split"].default, own["split"].meaning)
    return [*shown.values(), *(own[name] for name in entry.options)]


def _vector_arguments() -> list[Argument]:
    """Those of ``gym.make_vec`` that ``gym.make`` has not."""
    vector, made = arguments_of(SegmentationVectorEnv), arguments_of(make_vector_env)
    cache = arguments_of(TorchSegmentationTask)["cache"]
    return [vector["num_envs"], vector["autoreset_mode"], made["device"], cache]


def _summary(dataset: str, entry: DatasetEntry) -> str:
    height, width = entry.image_size
    option = arguments_of(_loader(entry)).get("num_classes")
    default = option.default if option and option.default.isdigit() else "C"
    classes = str(len(entry.info.class_names) or default)
    ids = [env_id(dataset, level) for level in DATASETS[dataset].levels]
    rows = [
        ("ids", " ".join(f"`{name}`" for name in ids)),
        ("observation space", f"`Box(0, 255, ({height}, {width}, 3), uint8)`"),
        ("action space", f"`MultiDiscrete(np.full(({height}, {width}), {classes}))`"),
        ("reward", REWARDED[is_world(entry)]),
        ("classes", classes if classes != "C" else "C, yours"),
        ("to make it", f'`gym.make("{ids[0]}")`'),
    ]
    return table(rows)


def _data(dataset: str, entry: DatasetEntry, layout: str) -> list[str]:
    info = entry.info
    rows = [
        ("name", f"[{info.title}]({info.homepage})" if info.homepage else info.title),
        ("images", ", ".join(f"`{split}` {count:,}" for split, count in info.splits.items())),
        ("ignored", info.ignore),
        ("licence", info.licence),
        ("to cite", info.citation),
    ]
    parts = [table(row for row in rows if row[1]), layout]
    if info.archives:
        size = sum(archive.gigabytes for archive in info.archives)
        parts += [f"To get it ({size:.0f} GB):", f"```sh\nrss-env download {dataset} --root data\n```"]
    elif info.steps:
        parts.append("To get it:")
    parts.append(info.steps)
    if entry.locate:
        parts.append("What becomes of each kind of file, and where the decoded images are kept: [Data](../data.md).")
    return [part for part in parts if part]


def _classes(info: DatasetInfo) -> str:
    """The classes by number, each next to its colour."""
    if info.palette is None:
        return ""
    squares = [
        f'<span><span style="background: rgb({red} {green} {blue})"></span>{number} {name}</span>'
        for number, (name, (red, green, blue)) in enumerate(zip(info.class_names, info.palette, strict=True))
    ]
    return "\n".join(['<div class="classes">', *squares, "</div>"])
