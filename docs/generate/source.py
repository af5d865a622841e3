"""Docstrings and signatures of ``rss_env``, read from its source without importing it."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Argument:
    """One argument of a class or function.

    Attributes:
        name: as it is passed.
        default: source of the default; empty where there is none.
        meaning: Markdown; empty where the docstring says nothing.
    """

    name: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Documented:
    """A docstring and a signature.

    Attributes:
        text: Markdown of all that stands outside of the docstring's Args, Returns, Raises and Example.
        returns: Markdown of the result; empty where the docstring says nothing.
        arguments: name -> argument, those of ``**options`` and the like left out.
    """

    text: str
    returns: str
    arguments: dict[str, Argument]


def read(path: str) -> Documented:
    """What the source says of an object.

    Args:
        path: below ``rss_env``, such as ``"env.SegmentationEnv"``.

    Example:
        >>> read("env.SegmentationEnv").arguments["split"]
        Argument(name='split', default='"train"', meaning='name of the split.')
    """
    thing = _package()[path]
    sections = thing.docstring.parsed if thing.docstring else []
    text = "\n\n".join(section.value for section in sections if section.kind is griffe.DocstringSectionKind.text)
    returned = [s.value for s in sections if s.kind is griffe.DocstringSectionKind.returns]
    described = {
        argument.name: _one_line(argument.description)
        for section in sections
        if section.kind is griffe.DocstringSectionKind.parameters
        for argument in section.value
    }
    declared = {
        p.name: str(p.default or "").replace("'", '"')
        for p in getattr(thing, "parameters", ())
        if p.kind is griffe.ParameterKind.keyword_only or p.kind is griffe.ParameterKind.positional_or_keyword
    }
    names = [name for name in {**described, **declared} if name != "self" and not name.startswith("*")]
    return Documented(
        text=plain_blocks(text),
        returns=_one_line(returned[0][0].description) if returned else "",
        arguments={name: Argument(name, declared.get(name, ""), described.get(name, "")) for name in names},
    )


def plain_blocks(text: str) -> str:
    """The text with ``::`` before an indented block, as reStructuredText has it, made the ``:`` of Markdown."""
    return re.sub(r"::(?=\n\n? {4})", ":", text)


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; pipes in the cells are kept as text."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def arguments_table(arguments: list[Argument]) -> str:
    """A table of arguments with their defaults and meanings."""
    rows = [(f"`{a.name}`", f"`{a.default}`" if a.default else "", a.meaning) for a in arguments]
    return table(("argument", "default", "meaning"), rows)


def _cell(text: str) -> str:
    # Within code a pipe divides no cells and a backslash would be shown.
    parts = re.split(r"(`+[^`]+`+)", text)
    return "".join(part if part.startswith("`") else part.replace("|", "\\|") for part in parts)


def _one_line(text: str) -> str:
    return " ".join(text.split())


@functools.cache
def _package() -> griffe.Object | griffe.Alias:
    return griffe.load(
        "rss_env",
        search_paths=[ROOT],
        docstring_parser="google",
        docstring_options={"warnings": False, "returns_multiple_items": False, "returns_named_value": False},
        allow_inspection=False,
    )
