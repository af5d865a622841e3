"""``rss-env info``."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import docstring_parser
import tyro
from rich.columns import Columns
from rich.text import Text

from rss_env.cli.ids import num_classes, resolve
from rss_env.cli.output import Json, console, plain_table, print_json, print_plain, print_table
from rss_env.datasets import DATASETS
from rss_env.datasets.check import complete_splits
from rss_env.datasets.photos import PhotoSource
from rss_env.env import SegmentationEnv
from rss_env.registration import env_id
from rss_env.rewards import DEFAULT_REWARD

REWARDED = {"image": "the whole label map", "pixel": "every pixel", "outcome": "what comes of acting on the label map"}


def info(
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID")],
    /,
    *,
    root: str | None = None,
    as_json: Json = False,
) -> int:
    """Everything about one environment and its data set.

    Args:
        name: id of the environment, or the name of a data set for its image-level one
        root: folder of the data set, to count the images on disk
    """
    described = describe(*resolve(name), root)
    if as_json:
        print_json(described)
    else:
        _print(described)
    return 0


def describe(dataset: str, level: str, root: str | None) -> dict[str, Any]:
    """What there is to say about an environment, as plain JSON values."""
    entry = DATASETS[dataset]
    card = entry.info
    classes, (height, width) = num_classes(dataset), entry.image_size
    colours = [] if card.palette is None else card.palette.tolist()
    last = "C-1" if classes is None else classes - 1
    on_disk = None
    if root is not None and entry.locate is not None:
        sources = complete_splits(dataset, root)
        on_disk = {s: len(f.images) if isinstance(f, PhotoSource) else str(f) for s, f in sources.items()}
    return {
        "id": env_id(dataset, level),
        "dataset": dataset,
        "level": level,
        "title": card.title,
        "observation_space": f"Box(0, 255, ({height}, {width}, 3), uint8)",
        "action_space": f"MultiDiscrete, shape ({height}, {width}), values 0..{last}",
        "image_size": [height, width],
        "classes": [{"name": n, "colour": c} for n, c in zip(card.class_names, colours, strict=True)],
        "ignored": card.ignore,
        "splits": dict(card.splits),
        "on_disk": on_disk,
        "licence": card.licence,
        "citation": card.citation,
        "homepage": card.homepage,
        "layout": card.layout,
        "download": f"rss-env download {dataset}" if card.archives else None,
        "download_gigabytes": sum(archive.gigabytes for archive in card.archives) or None,
        "steps": card.steps,
        "arguments": _arguments(dataset, level),
    }


def _arguments(dataset: str, level: str) -> list[dict[str, Any]]:
    """The arguments of ``gym.make``: those of every environment, then the data set's own."""
    entry = DATASETS[dataset]
    loader = entry.locate or entry.generate
    assert loader is not None
    known = {"image_size": list(entry.image_size), "reward": DEFAULT_REWARD.get(level)}
    rows = []
    for function, names in ((SegmentationEnv, None), (loader, entry.options)):
        parsed = docstring_parser.parse(inspect.getdoc(function) or "", docstring_parser.DocstringStyle.GOOGLE)
        meanings = {one.arg_name: " ".join((one.description or "").replace("``", "").split()) for one in parsed.params}
        for name, parameter in inspect.signature(function).parameters.items():
            wanted = parameter.kind is parameter.KEYWORD_ONLY if names is None else name in names
            if wanted and not (name == "root" and entry.locate is None):
                rows.append(
                    {
                        "name": name,
                        "default": known.get(name, parameter.default),
                        "meaning": meanings.get(name, ""),
                    }
                )
    return rows


def _print(described: dict[str, Any]) -> None:
    out = console()
    out.print(Text(described["id"], "bold"))
    facts = plain_table(show_header=False)
    facts.add_column(overflow="fold", style="bold")
    facts.add_column(overflow="fold")
    for heading, value in (
        ("data set", f"{described['dataset']}: {described['title']}"),
        ("reward for", REWARDED[described["level"]]),
        ("observation", described["observation_space"]),
        ("action", described["action_space"]),
        ("ignored", described["ignored"]),
        ("splits", _say_counts(described["splits"]) or "those of the folder"),
        ("on disk", None if described["on_disk"] is None else _say_counts(described["on_disk"]) or "no"),
        ("licence", described["licence"]),
        ("citation", described["citation"]),
        ("homepage", described["homepage"]),
        ("layout", described["layout"]),
        ("to get it", "\n".join(filter(None, (described["download"], described["steps"])))),
    ):
        if value:
            facts.add_row(
                heading, inspect.cleandoc(value) if heading != "layout" else value.replace("\n  ", "\n").strip()
            )
    print_plain(facts)
    if described["classes"]:
        out.print(Text(f"\n{len(described['classes'])} classes", "bold"))
        entries = [_class_text(number, **one) for number, one in enumerate(described["classes"])]
        if out.is_terminal:
            out.print(Columns(entries, padding=(0, 2)))
        else:
            for entry in entries:
                out.print(entry)
    out.print(Text("\nArguments of gym.make", "bold"))
    rows = [(one["name"], str(one["default"]), one["meaning"]) for one in described["arguments"]]
    print_table(("argument", "default", "meaning"), rows)


def _class_text(number: int, name: str, colour: list[int]) -> Text:
    code = "#{:02x}{:02x}{:02x}".format(*colour)
    return Text.assemble((f"{number:3d} ", ""), ("██", code), f" {code} {name}")


def _say_counts(splits: dict[str, Any]) -> str:
    return ", ".join(
        f"{split} {count:,}" if isinstance(count, int) else f"{split}: {count}" for split, count in splits.items()
    )
