"""Docstrings and signatures as parts of a Markdown page."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType

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


@dataclass(frozen=True)
class Documented:
    """A docstring and a signature.

    Attributes:
        text: Markdown of all that stands before the docstring's Args, Returns, Raises and Example.
        returns: Markdown of the result; empty where the docstring says nothing.
        arguments: name -> argument, those of ``**options`` and the like left out.
    """

    text: str
    returns: str
    arguments: dict[str, Argument]


def read(thing: Callable[..., object] | ModuleType) -> Documented:
    """What a module, class or function says of itself.

    Example:
        >>> from rss_env.env import SegmentationEnv
        >>> read(SegmentationEnv).arguments["split"]
        Argument(name='split', default='"train"', meaning='name of the split.')
    """
    found = docstring_parser.parse(inspect.getdoc(thing) or "", docstring_parser.DocstringStyle.GOOGLE)
    text = (found.description or "").partition("\n\nArgs: see ")[0]
    returned = found.returns.description if found.returns else ""
    meanings = {argument.arg_name: argument.description for argument in found.params}
    parameters = {} if inspect.ismodule(thing) else inspect.signature(thing).parameters
    arguments = {
        name: Argument(name, _source(p.default), " ".join((meanings.get(name) or "").split()))
        for name, p in parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    # Before an indented block reStructuredText has ``::``, Markdown ``:``.
    return Documented(re.sub(r"::(?=\n\n {4})", ":", text), " ".join((returned or "").split()), arguments)


def _source(default: object) -> str:
    if default is inspect.Parameter.empty:
        return ""
    return repr(getattr(default, "value", default)).replace("'", '"')


def table(rows: Iterable[tuple[str, ...]], header: tuple[str, ...] = ("", "")) -> str:
    """A Markdown table; pipes in the cells are kept as text."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def arguments_table(arguments: Iterable[Argument]) -> str:
    """A table of arguments with their defaults and meanings."""
    rows = ((f"`{a.name}`", a.default and f"`{a.default}`", a.meaning) for a in arguments)
    return table(rows, ("argument", "default", "meaning"))
