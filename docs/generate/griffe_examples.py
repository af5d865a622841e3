"""An extension of the docstring reader: the section ``Example:`` is read as ``Examples:``, so that it shows as code."""

from __future__ import annotations

import re
from typing import Any

import griffe


class ReadExample(griffe.Extension):
    """Renames the section before the docstring is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every object of the package once its members are known."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
