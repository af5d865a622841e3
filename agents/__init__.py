"""Agents that learn to segment from scores: ``from agents import train, RSS, Likelihood``.

A file at the top is a command (``python -m agents.likelihood --help``); a folder holds what commands share. The wheel
has this package under the name ``rss_agents``; needs ``pip install 'rss-env[agents]'``.
"""

from __future__ import annotations

import importlib
from typing import Any

_FROM = {
    "Algorithm": ".training",
    "Callback": ".training",
    "Feedback": ".training",
    "Likelihood": ".likelihood",
    "Policy": ".networks.policy",
    "RSS": ".rss",
    "Result": ".training",
    "StopTraining": ".training",
    "Supervised": ".supervised",
    "WeakLabels": ".weak_labels",
    "load": ".networks.policy",
    "load_policy": ".networks.checkpoints",
    "predict_label_maps": ".networks.checkpoints",
    "push": ".networks.hub",
    "train": ".training",
}
__all__ = sorted(_FROM)


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and torch with it, only then."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_FROM[name], __name__), name)
