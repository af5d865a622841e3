"""A test file imports at its top only what is there with rss_env alone, or what tests/extras.py says that it needs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.extras import AGENTS, CLI, RATE, ROOT, SB3, needed_by

OPTIONAL = {*AGENTS, *CLI, *RATE, *SB3, "matplotlib", "ray", "sphinx", "submitit", "torchmetrics", "torchrl", "triton"}
OPTIONAL -= {"filelock"}
FILES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("test_*.py"))}


def imported(path: Path) -> set[str]:
    """The libraries that a file imports while it is imported."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        found |= {name.split(".")[0] for name in names}
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_which_libraries_it_cannot_be_imported_without(name: str):
    needs = {library for folder in (FILES[name], *FILES[name].parents) for library in needed_by(folder)}
    assert imported(FILES[name]) & OPTIONAL <= needs, f"{name}: add it to NEEDS in tests/extras.py"
