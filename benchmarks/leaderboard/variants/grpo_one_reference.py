"""GRPO whose reference stays the untrained network: a single iteration of its algorithm 1.

python -m benchmarks.leaderboard --entry benchmarks/leaderboard/variants/grpo_one_reference.py --tasks shapes-32
"""

from __future__ import annotations

from typing import Any

from benchmarks.leaderboard.entries import grpo


def train(trial: Any) -> None:
    """The leaderboard's entry point."""
    grpo.train(trial, grpo.Settings(iteration=10**9))
