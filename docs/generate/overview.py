"""Links from the overview of the environments to the generated pages, which do not exist in the repository."""

from __future__ import annotations

import re

from docs.generate.environment_page import slug
from rss_env.datasets import DATASETS


def link_data_sets(markdown: str) -> str:
    """The text with the data set's name in the first cell of every table row made a link to its page."""

    def link(row: re.Match[str]) -> str:
        name = row[1]
        return f"| [`{name}`](environments/{slug(name)}.md) |" if name in DATASETS else row[0]

    return re.sub(r"^\| `(\w+)` \|", link, markdown, flags=re.MULTILINE)
