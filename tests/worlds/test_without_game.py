"""A world whose game is not installed."""

from __future__ import annotations

import sys

import gymnasium as gym
import pytest

import rss_env  # noqa: F401  (registers the ids)
from rss_env.errors import DatasetError
from rss_env.worlds import crafter


def test_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    for name in {"crafter", "crafter.engine", *(name for name in sys.modules if name.startswith("crafter."))}:
        monkeypatch.setitem(sys.modules, name, None)
    crafter.game.cache_clear()
    for make in (gym.make, gym.make_vec):
        with pytest.raises(DatasetError, match=r"not installed: pip install 'rss-env\[crafter\]'"):
            make("RSS-Crafter-OutcomeReward-v0", num_images=7)
