"""Reward tuning: cross-entropy on pixel labels first, then the policy gradient of the scores from its weights.

    python -m agents.reward_tuning --env-id RSS-Shapes-ImageReward-v0

Pinto et al., "Tuning computer vision models with task rewards", ICML 2023 (arXiv 2302.08242), section 3: a model of
maximum likelihood is tuned by REINFORCE, where the baseline of a sample is the mean reward of the others. It sees
labels, so it is a bound and no rival of those that see scores only. It is two runs: ``agents.supervised`` in the folder
``labels`` of the run folder, and ``agents.rss --init`` of its weights, with leave-one-out and SyncAN. Queries, seconds
and learning curve of the run folder are those of the second. A command that was stopped in the first stage goes on when
it is started again.

What differs: here each stage has a one-cycle schedule of its own, the second with a lower peak, and advantages have one
scale (SyncAN).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .rss import RSS
from .supervised import Supervised
from .training.arguments import TrainArguments, check_numbers
from .training.command import parse_command, report, run_command
from .training.loop import fit


@dataclass(eq=False)
class RewardTuning(RSS):
    """Train a policy from pixel labels, and then from scores of its label maps."""

    learning_rate: float = 2e-4
    """peak of the one-cycle schedule of the second stage, which has --steps steps"""
    label_steps: int = 500
    """optimiser steps of the first stage"""
    label_learning_rate: float = 2e-3
    """peak of the one-cycle schedule of the first stage"""
    entropy_gain: float = 0.0
    """coefficient of the entropy bonus for each nat that the entropy is below its target; 0: no bonus"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, {"label_steps": 1}, ("label_learning_rate",))


def stages(run: TrainArguments, algorithm: RewardTuning) -> tuple[TrainArguments, TrainArguments]:
    """The arguments of the two runs."""
    assert run.run_dir is not None
    folder = Path(run.run_dir) / "labels"
    begun = (folder / "config.json").exists()
    labels = replace(run, steps=algorithm.label_steps, run_dir=str(folder), resume=begun)
    return labels, replace(run, init=str(folder))


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line; ``words`` in place of that of this process."""
    command = parse_command(RewardTuning, words)
    labels, scores = stages(command.run, command.algorithm)
    if not command.run.resume:  # else the second stage has begun, so the first is done
        first = fit(labels, Supervised(learning_rate=command.algorithm.label_learning_rate))
        if not first.finished:
            print(f"Stopped after step {first.step} of the first stage; the same command goes on.")
            return 130
    return report(fit(scores, command.algorithm), scores)


if __name__ == "__main__":
    run_command(main)
