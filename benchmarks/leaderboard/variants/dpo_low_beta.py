"""RN-DPO without its normalisation: plain DPO, with a beta as of a mean over some hundred pixels.

python -m benchmarks.leaderboard --entry benchmarks/leaderboard/variants/dpo_low_beta.py --tasks shapes-32
"""

from __future__ import annotations

from typing import Any

from benchmarks.leaderboard.entries import rn_dpo


def train(trial: Any) -> None:
    """The leaderboard's entry point."""
    rn_dpo.train(trial, rn_dpo.Settings(normalised=False, beta=0.003))
