"""RL4Seg without the penalty on leaving a reference policy.

python -m benchmarks.leaderboard --entry benchmarks/leaderboard/variants/rl4seg_no_penalty.py --tasks shapes-32
"""

from __future__ import annotations

from typing import Any

from benchmarks.leaderboard.entries import rl4seg


def train(trial: Any) -> None:
    """The leaderboard's entry point."""
    rl4seg.train(trial, rl4seg.Settings(divergence=0.0))
