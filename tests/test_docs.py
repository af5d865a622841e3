"""The docs name what the code has."""

import re
from pathlib import Path

from rss_env.datasets import DATASETS

ROOT = Path(__file__).parent.parent
LOGGED = r"(?:reward|policy|train|time|val)/[a-z_]+"


def test_every_logged_number_is_defined_and_every_defined_one_is_logged():
    code = "".join(path.read_text() for path in (ROOT / "agents").glob("*.py"))
    logged = set(re.findall(rf'"({LOGGED})"', code))
    defined = set(re.findall(rf"^\| `({LOGGED})` \|", (ROOT / "docs" / "metrics.md").read_text(), flags=re.MULTILINE))
    assert len(logged) > 10
    assert logged == defined


def test_every_data_set_has_a_row_in_the_environments_page():
    rows = re.findall(r"^\| `(\w+)` \| \S", (ROOT / "docs" / "environments.md").read_text(), flags=re.MULTILINE)
    assert set(DATASETS) <= set(rows)
