"""PSR, progressive scale rewards: label maps drawn in cells that shrink over training (our reading of the paper).

A reward of a whole label map says little about one pixel: with N independent pixels the signal-to-noise ratio of one
pixel's share is √((K − 1) / N). So N is cut: the pixels of a cell, a block of s×s, share one uniform draw. Each pixel
keeps its own distribution, because the draw is inverted through its own cumulative probabilities; only the dependence
between pixels is new. Where neighbours agree in their probabilities, a cell takes one class as a whole. The side s
shrinks while the policy sharpens, and the grid is shifted at random so that no border stays where it is.

    side = CellSchedule((4, 2, 1)).side(progress)
    seed, *offset = torch.randint(2**63 - 1, (3,)).tolist()
    label_maps = agents.ops.sample_label_maps(logits, K, seed, cell=side, offset=offset)

The schedule is here, the draw in cells in ``agents.ops.sample_label_maps``; both fit into any policy-gradient loop.
Maths: docs/psr.md. ``rss_env.wrappers.CoarseAction`` is the same idea as a wrapper, for any agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rss_env.errors import OptionError


@dataclass
class CellSchedule:
    """Which side the cells have at each moment of training.

    Attributes:
        sides: sides of the cells in pixels, from the first stage to the last; ``(1,)`` is plain sampling.
        by: ``"progress"``: equal shares of the training for every stage; ``"plateau"``: the next stage begins when the
            mean reward has not risen for ``patience`` updates, at the latest at its share of the training.
        patience: updates without a new best running mean of the reward (half-life 20 updates) that end a stage.
    """

    sides: Sequence[int] = (1,)
    by: str = "progress"
    patience: int = 100
    _stage: int = field(default=0, init=False)
    _mean: float | None = field(default=None, init=False)
    _best: float = field(default=float("-inf"), init=False)
    _waited: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not self.sides or any(side < 1 for side in self.sides):
            raise OptionError(f"Cell sides must be one or more numbers of pixels from 1 on, got {tuple(self.sides)}.")
        if self.by not in ("progress", "plateau"):
            raise OptionError(f"Unknown cell schedule {self.by!r}; valid: progress, plateau.")
        if self.patience < 1:
            raise OptionError(f"The patience of a cell schedule must be at least 1 update, got {self.patience}.")

    def side(self, progress: float) -> int:
        """Side of the cells, in pixels.

        Args:
            progress: share of the training done, 0..1.
        """
        latest = min(int(len(self.sides) * progress), len(self.sides) - 1)
        if self.by == "progress" or latest > self._stage:
            self._enter(latest)
        return self.sides[self._stage]

    def observe(self, reward: float) -> None:
        """Takes the mean reward of an update; by ``"plateau"``, ends a stage that no longer improves."""
        keep = 0.5 ** (1 / 20)
        self._mean = reward if self._mean is None else keep * self._mean + (1 - keep) * reward
        if self._mean > self._best:
            self._best, self._waited = self._mean, 0
        else:
            self._waited += 1
        if self.by == "plateau" and self._waited >= self.patience and self._stage < len(self.sides) - 1:
            self._enter(self._stage + 1)

    def _enter(self, stage: int) -> None:
        if stage != self._stage:
            self._stage, self._mean, self._best, self._waited = stage, None, float("-inf"), 0

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"stage": self._stage, "mean": self._mean, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from ``state_dict()``."""
        self._stage, self._mean = state["stage"], state["mean"]
        self._best, self._waited = state["best"], state["waited"]
