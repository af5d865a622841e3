"""How a command prints: one JSON document, or text for people, which a pipe gets plain and uncut."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = Annotated[bool, tyro.conf.arg(name="json", help="print one JSON document instead of text")]
UNCUT = 1_000_000  # columns where the output is not a terminal


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # for main, so that every command ends alike; rich would end the process with 1


def console() -> Console:
    """A rich console on stdout."""
    return _Console(width=None if sys.stdout.isatty() else UNCUT, highlight=False, emoji=False, markup=False)


def print_json(document: Any) -> None:
    """Prints one JSON document and nothing else."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(columns: Iterable[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Prints rows of text under their headings.

    Args:
        columns: headings; one that ends in ``>`` is right-aligned. Only the last column is wrapped if needed.
        rows: one text per column.
    """
    headings = list(columns)
    table = plain_table()
    for heading in headings:
        right, last = heading.endswith(">"), heading is headings[-1]
        table.add_column(heading.rstrip(">"), justify="right" if right else "left", no_wrap=not last, overflow="fold")
    for row in rows:
        table.add_row(*row)
    print_plain(table)


def plain_table(show_header: bool = True) -> Table:
    """A table without lines."""
    space = 2 if console().width > 100 else 1
    return Table(box=None, show_header=show_header, pad_edge=False, padding=(0, space, 0, 0))


def print_plain(table: Table) -> None:
    """Prints a table, in a pipe without the spaces that fill its last column."""
    out = console()
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:
        out.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))
