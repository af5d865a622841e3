"""Links that hold in the repository, made to hold on the site too."""

from __future__ import annotations

import re
from pathlib import Path

from docs.generate.source import ROOT

PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
"""File of the repository -> the page of the site that stands for it."""

LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")


def to_site(markdown: str, folder: str) -> tuple[str, set[str]]:
    """Turns relative links for a page at the top of the site.

    A link to a page of ``docs/`` or to one in ``PAGES`` becomes a link to that page, one to another file of the
    repository a link to a copy under ``files/``, and one to a folder its text alone. Others stay.

    Args:
        markdown: text whose links are relative to ``folder``.
        folder: below the repository, ``""`` for its top.

    Returns:
        The text, and the files to copy, as paths below the repository.
    """
    copies: set[str] = set()

    def turn(link: re.Match[str]) -> str:
        if "://" in link["target"] or link["target"].startswith("mailto:"):
            return link[0]
        path = (ROOT / folder / link["target"]).resolve()
        if not path.is_relative_to(ROOT) or not path.exists():
            return link[0]  # a page made by the build, or a mistake, which the strict build reports
        if path.is_dir():
            return link["text"]
        place = path.relative_to(ROOT).as_posix()
        if place in PAGES:
            place = PAGES[place]
        elif place.startswith("docs/"):
            place = place.removeprefix("docs/")
        else:
            copies.add(place)
            place = f"files/{place}"
        return f"{link['image']}[{link['text']}]({place}{link['anchor'] or ''})"

    return LINK.sub(turn, markdown), copies


def section(markdown: str, heading: str) -> str:
    """What stands below ``## heading``, up to the next heading of that rank.

    Raises:
        LookupError: there is no such heading.
    """
    _, found, rest = markdown.partition(f"\n## {heading}\n")
    if not found:
        raise LookupError(f"There is no heading '## {heading}'.")
    return re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0].strip()


def markdown_files() -> list[Path]:
    """The Markdown that is written by hand: at the top of the repository and in ``docs/``."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
