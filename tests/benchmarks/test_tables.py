from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.tables import PAGES, ROOT, TABLES, fill, main
from rss_env.errors import OptionError

BEGIN, END = "<!-- table: kernels -->\n", "<!-- end -->"


def test_the_tables_of_every_page_are_those_of_the_committed_results() -> None:
    assert set(PAGES) == {ROOT / "README.md", *(ROOT / "docs").glob("*.md")}
    for page in PAGES:
        text = page.read_text()
        assert fill(text) == text, f"{page}: run python -m benchmarks.tables"


def test_a_table_is_written_between_its_lines_and_nothing_else_changes() -> None:
    rows = [f"| {' | '.join(cells)} |" for cells in TABLES["kernels"]()]
    whole = "\n".join([rows[0], "|" + "---|" * len(TABLES["kernels"]()[0]), *rows[1:]]) + "\n"
    text = fill(f"one\n{BEGIN}old\n{END}\ntwo\n{BEGIN}{END}\n{END}three")
    assert text == f"one\n{BEGIN}{whole}{END}\ntwo\n{BEGIN}{whole}{END}\n{END}three"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"<!-- table: kernel -->\n{END}", "There is no table 'kernel'; valid: .*kernels"),
        (BEGIN, "A table is not between the lines"),
        (f"{BEGIN}{BEGIN}{END}", "A table is not between the lines"),
        (f"text <!-- table: kernels --> text\n{END}", "A table is not between the lines"),
    ],
)
def test_a_table_that_is_not_there_is_an_error_that_names_the_page(text: str, said: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(OptionError, match=f"page.md: {said}"):
        main((page,))
    assert page.read_text() == text
