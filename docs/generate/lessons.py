"""How the lessons of docs/tutorials are ordered and run, and how their formulas are shown."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any, NoReturn

from docutils import nodes
from latex2mathml.converter import convert

from docs.slides import number as by_number

__all__ = ["by_number", "formula", "warnings_are_errors"]  # conf.py names them

_while_running = contextlib.ExitStack()


def warnings_are_errors(gallery_conf: dict[str, Any], lesson: str, when: str) -> None:
    """Called by sphinx-gallery before and after each lesson."""
    _while_running.close()
    if when == "before":
        _while_running.enter_context(warnings.catch_warnings())
        warnings.simplefilter("error")


def formula(writer: Any, node: nodes.math | nodes.math_block) -> NoReturn:
    """Writes a formula as MathML, which browsers show without a script."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    writer.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode
