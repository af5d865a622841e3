"""Fixtures of the whole suite."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.extras import missing_of


class Skipped(pytest.File):
    """A folder or file of tests that is not imported, because libraries that it needs are not installed."""

    def collect(self) -> list[pytest.Item]:
        missing = ", ".join(missing_of(self.path))
        pytest.skip(f"{self.nodeid} needs {missing}: pip install 'rss-env[dev]'", allow_module_level=True)


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Reports a folder as skipped where libraries are missing; the others are pytest's own matter."""
    return Skipped.from_parent(parent, path=path) if missing_of(path) else None


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """The same for a file."""
    return Skipped.from_parent(parent, path=module_path) if missing_of(module_path) else None


def pytest_configure(config: pytest.Config) -> None:
    """Lets tests send Ctrl-C where the suite was started in the background, which a shell has ignore it.

    No example of hypothesis is too slow: how long one takes is the machine's matter.
    """
    hypothesis.settings.register_profile("rss", deadline=None)
    hypothesis.settings.load_profile("rss")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps the decoded cache of the whole run in one temporary folder, never in the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSS_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for one test alone."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("RSS_CACHE_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of genuine photos; tests that need it are skipped where it is absent."""
    default = Path(__file__).parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("RSS_TEST_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real photos at {folder}; set RSS_TEST_DATA to the folder that holds them")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A chromium without a window; tests that need it are skipped where it is absent."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'rss-env[dev]'")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("needs the browser chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
