"""The page of one data set: what its two environments show, take and give, and where the data come from."""

from __future__ import annotations

import inspect

from docs.generate.source import Argument, arguments_table, read, table
from rss_env.datasets import DATASETS, DatasetEntry
from rss_env.registration import env_id
from rss_env.rewards import LEVELS

VERSIONS = {"v0": "first version."}
"""What changed with each version of the ids."""

FIXED_BY_ID = ("dataset", "level")


def slug(dataset: str) -> str:
    """Name of a data set's page and of its folder of pictures, such as ``"voc"``."""
    return dataset.lower()


def environment_page(dataset: str, pictures: dict[str, str]) -> str:
    """Markdown of a data set's page.

    Args:
        dataset: a key of ``DATASETS``.
        pictures: address of each picture, seen from the page -> its caption.
    """
    entry = DATASETS[dataset]
    introduction, _, contract = read("env.SegmentationEnv").text.partition("\n\n## ")
    description, _, layout = read(_loader(entry).__module__.removeprefix("rss_env.")).text.partition("\n\n")
    return "\n\n".join(
        [
            f"# {dataset}",
            description,
            *(f"![{caption}]({address})\n*{caption}*" for address, caption in pictures.items()),
            _summary(dataset, entry),
            introduction,
            f"## Example\n\n```python\n{example(dataset)}```",
            f"## {contract}",
            "## Arguments",
            "Of `gym.make` and `gym.make_vec` ([Rewards](../rewards.md) has every reward and its `reward_options`):",
            arguments_table(_arguments(dataset, entry)),
            "Of `gym.make_vec` alone:",
            arguments_table(vector_arguments()),
            "## Data",
            *_data(dataset, entry, layout),
            "## Version history",
            "\n".join(f"- `{version}`: {change}" for version, change in VERSIONS.items()),
            "",
        ]
    )


def example(dataset: str) -> str:
    """A program that runs one episode; photos are looked for in the folder ``data``."""
    root = "" if DATASETS[dataset].generate else ', root="data"'
    return f"""\
import gymnasium as gym
import numpy as np
import rss_env  # registers the ids

env = gym.make("{env_id(dataset, "image")}"{root})
image, info = env.reset(seed=0)
label_map = np.zeros(env.action_space.shape, np.uint8)  # class 0 everywhere: your agent goes here
_, reward, terminated, truncated, info = env.step(label_map)
print(f"mean IoU: {{reward:.3f}}")

env = gym.make("{env_id(dataset, "pixel")}"{root})
image, info = env.reset(seed=0)
_, reward, terminated, truncated, info = env.step(label_map)
print("share of right pixels:", reward, "of each pixel:", info["pixel_reward"].shape)
"""


def vector_arguments() -> list[Argument]:
    """Those of ``gym.make_vec`` that ``gym.make`` has not."""
    vector = read("vector.SegmentationVectorEnv").arguments
    return [
        vector["num_envs"],
        Argument("autoreset_mode", '"SameStep"', vector["autoreset_mode"].meaning),
        read("registration.make_vector_env").arguments["device"],
        read("torch_task.TorchSegmentationTask").arguments["cache"],
    ]


def _loader(entry: DatasetEntry):  # type: ignore[no-untyped-def]
    loader = entry.locate or entry.generate
    assert loader is not None
    return inspect.unwrap(loader)


def _documented_loader(entry: DatasetEntry) -> dict[str, Argument]:
    loader = _loader(entry)
    return read(f"{loader.__module__.removeprefix('rss_env.')}.{loader.__name__}").arguments


def _arguments(dataset: str, entry: DatasetEntry) -> list[Argument]:
    own = _documented_loader(entry)
    common = read("env.SegmentationEnv").arguments
    shown = {name: argument for name, argument in common.items() if name not in FIXED_BY_ID}
    shown["image_size"] = Argument("image_size", str(entry.image_size), "(H, W) in pixels.")
    if own["split"].meaning:
        shown["split"] = Argument("split", shown["split"].default, own["split"].meaning)
    if entry.generate:
        del shown["root"], shown["resize"]
    return [*shown.values(), *(own[name] for name in entry.options)]


def _summary(dataset: str, entry: DatasetEntry) -> str:
    height, width = entry.image_size
    classes = _number_of_classes(entry)
    ids = [env_id(dataset, level) for level in LEVELS]
    rows = [
        ("ids", " ".join(f"`{name}`" for name in ids)),
        ("observation space", f"`Box(0, 255, ({height}, {width}, 3), uint8)`"),
        ("action space", f"`MultiDiscrete(np.full(({height}, {width}), {classes}))`"),
        ("reward", "a score in [0, 1]; one a pixel too in the second id"),
        ("classes", classes if classes != "C" else "C, yours"),
        ("to make it", f'`gym.make("{ids[0]}")`'),
    ]
    return table(("", ""), rows)


def _number_of_classes(entry: DatasetEntry) -> str:
    default = _documented_loader(entry).get("num_classes")
    if default is not None and default.default.isdigit():
        return default.default
    return str(len(entry.info.class_names)) if entry.info.class_names else "C"


def _data(dataset: str, entry: DatasetEntry, layout: str) -> list[str]:
    info = entry.info
    rows = [
        ("name", f"[{info.title}]({info.homepage})" if info.homepage else info.title),
        ("images", ", ".join(f"`{split}` {count:,}" for split, count in info.splits.items())),
        ("ignored", info.ignore),
        ("licence", info.licence),
        ("to cite", info.citation),
    ]
    parts = [table(("", ""), [row for row in rows if row[1]]), layout]
    if info.archives:
        size = sum(archive.gigabytes for archive in info.archives)
        parts += [f"To get it ({size:.0f} GB):", f"```sh\nrss-env download {dataset} --root data\n```"]
    elif info.steps:
        parts.append("To get it:")
    parts.append(info.steps)
    if entry.locate:
        parts.append("What becomes of each kind of file, and where the decoded images are kept: [Data](../data.md).")
    return [part for part in parts if part]
