"""Docstrings and signatures as parts of a Markdown page."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import docstring_parser


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


def text_of(thing: object) -> str:
    """Markdown of all that stands before the docstring's Args, Returns, Raises and Example."""
    text = _parsed(thing).description or ""
    return re.sub(r"::(?=\n\n {4})", ":", text.partition("\n\nArgs: see ")[0])  # reStructuredText's mark of a block


def returns_of(thing: object) -> str:
    """Markdown of what the docstring says of the result."""
    returned = _parsed(thing).returns
    assert returned is not None
    return _line(returned.description)


def arguments_of(thing: Callable[..., object]) -> dict[str, Argument]:
    """Name -> argument, those of ``**options`` and the like left out.

    Example:
        >>> from rss_env.env import SegmentationEnv
        >>> arguments_of(SegmentationEnv)["order"].default
        '"random"'
    """
    meanings = {argument.arg_name: _line(argument.description) for argument in _parsed(thing).params}
    return {
        name: Argument(name, "" if p.default is p.empty else _source(p.default), meanings.get(name, ""))
        for name, p in inspect.signature(thing).parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }


def table(rows: Iterable[tuple[str, ...]], header: tuple[str, ...] = ("", "")) -> str:
    """A Markdown table; pipes in the cells are kept as text."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def arguments_table(arguments: Iterable[Argument]) -> str:
    """A table of arguments with their defaults and meanings."""
    rows = ((f"`{a.name}`", a.default and f"`{a.default}`", a.meaning) for a in arguments)
    return table(rows, ("argument", "default", "meaning"))


def _parsed(thing: object) -> docstring_parser.Docstring:
    return docstring_parser.parse(inspect.getdoc(thing) or "", docstring_parser.DocstringStyle.GOOGLE)


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def _source(default: object) -> str:
    return repr(getattr(default, "value", default)).replace("'", '"')
