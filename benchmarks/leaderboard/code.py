"""Which code an entry is: SHA-256 of its file and of the files next to it that it imports."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from modulefinder import ModuleFinder
from pathlib import Path


def code_files(entry: Path) -> dict[str, str]:
    """SHA-256 of an entry's file, the first, and of the local modules that it imports, also within functions.

    Imports are found by reading the code, which is not run. An import whose name is made while the code runs is not
    found.

    Args:
        entry: the file; modules are looked for in its folder.

    Returns:
        Path from the folder of the entry -> 64 hexadecimal digits.
    """
    entry = entry.resolve()
    finder = ModuleFinder(path=[str(entry.parent)])
    files = {entry}
    try:
        finder.run_script(str(entry))
        found = (getattr(module, "__file__", None) for module in finder.modules.values())
        files |= {Path(file).resolve() for file in found if file}
    except (SyntaxError, ValueError):  # it will be the status of the entry
        pass
    local = sorted(file for file in files - {entry} if file.is_relative_to(entry.parent))
    return {
        file.relative_to(entry.parent).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (entry, *local)
    }


def digest_of(files: Mapping[str, str]) -> str:
    """16 hexadecimal digits that stand for all these files."""
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()[:16]


def code_digest(entry: Path) -> str:
    """16 hexadecimal digits that stand for the code of an entry."""
    return digest_of(code_files(entry))
