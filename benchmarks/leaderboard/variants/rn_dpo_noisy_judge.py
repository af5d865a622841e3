"""RN-DPO with a judge whose scores are noisy.

python -m benchmarks.leaderboard --entry benchmarks/leaderboard/variants/rn_dpo_noisy_judge.py --tasks shapes-32
"""

from __future__ import annotations

from typing import Any

from benchmarks.leaderboard.entries import rn_dpo


def train(trial: Any) -> None:
    """The leaderboard's entry point."""
    rn_dpo.train(trial, rn_dpo.Settings(judge_noise=0.05))
