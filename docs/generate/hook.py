"""The hook by which ``mkdocs build`` adds the generated pages, pictures and places in the navigation."""

from __future__ import annotations

from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from docs.generate.api_pages import api_pages
from docs.generate.environment_page import environment_page, slug
from docs.generate.links import to_site
from docs.generate.overview import link_data_sets
from docs.generate.pictures import pictures
from docs.generate.reward_sections import reward_sections
from docs.generate.source import ROOT
from rss_env.datasets import DATASETS


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts a page a data set and the reference into the navigation of mkdocs.yml."""
    parts: dict[str, list[Any]] = {}
    for part in config.nav or []:
        parts.update({title: pages for title, pages in part.items() if isinstance(pages, list)})
    parts["Environments"] += [{name: f"environments/{slug(name)}.md"} for name in DATASETS]
    parts["API"] += [{title: address} for title, (address, _) in api_pages().items()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what is generated, and copies of the repository's files that pages link to."""
    for name in DATASETS:
        shown = pictures(name)
        for file, (_, data) in shown.items():
            files.append(File.generated(config, f"environments/{slug(name)}/{file}", content=data))
        captions = {f"{slug(name)}/{file}": caption for file, (caption, _) in shown.items()}
        page = environment_page(name, captions)
        files.append(File.generated(config, f"environments/{slug(name)}.md", content=page))
    for address, page in api_pages().values():
        files.append(File.generated(config, address, content=page))
    copies: set[str] = set()
    for address, text in _from_repository().items():
        page, linked = to_site(text, "")
        copies |= linked
        files.append(File.generated(config, address, content=page))
    for path in (ROOT / "docs").glob("*.md"):
        copies |= to_site(path.read_text(encoding="utf-8"), "docs")[1]
    for copy in sorted(copies):
        source = str(ROOT / copy)
        files.append(File.generated(config, f"files/{copy}", abs_src_path=source, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Completes the pages that are written by hand."""
    if page.file.generated_by:
        return markdown
    markdown, _copies = to_site(markdown, "docs")
    if page.file.src_uri == "environments.md":
        return link_data_sets(markdown)
    if page.file.src_uri == "rewards.md":
        return f"{markdown}\n\n{reward_sections()}\n"
    return markdown


def _from_repository() -> dict[str, str]:
    return {"changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")}
