"""GRPO without the divergence to a reference.

python -m benchmarks.leaderboard --entry benchmarks/leaderboard/variants/grpo_no_penalty.py --tasks shapes-32
"""

from __future__ import annotations

from typing import Any

from benchmarks.leaderboard.entries import grpo


def train(trial: Any) -> None:
    """The leaderboard's entry point."""
    grpo.train(trial, grpo.Settings(divergence=0.0))
