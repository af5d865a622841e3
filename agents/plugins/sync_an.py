"""SyncAN, synchronised advantage normalisation: one scale for all advantages of an update (our reading of the paper).

Without it the step shrinks as 1/√(H·W) with the size of the label maps, and its size depends on how many processes and
how many accumulation steps share an update. So every advantage is divided by the same number,

    Â = A / (σ + ε),    σ² = the mean of A² over every image, sample, accumulation step and process.

σ is the root mean square and not the deviation from the mean: leave-one-out and pair-wise advantages have mean 0, and
subtracting another mean would change what is credited. σ is made of the very advantages that it divides, so the
expected step is no longer exactly in the direction of the gradient: for two pixels and one image with K = 2 their
cosine is 0.97 in the median (docs/agent.md).

One all-reduce of two numbers an update:

    scale = SyncAN()
    for advantages in accumulation_steps:
        scale.add(advantages)
    factor = 1 / scale.finish()
"""

from __future__ import annotations

import torch
from torch import distributed

EPSILON = 1e-8


class SyncAN:
    """Collects the advantages of an update and gives the one number that they are divided by.

    Args:
        group: process group whose members share the update; None: the default one, or this process alone where
            ``torch.distributed`` is not initialised.
    """

    def __init__(self, group: distributed.ProcessGroup | None = None) -> None:
        self.group = group
        self._sums: torch.Tensor | None = None

    def add(self, advantages: torch.Tensor, where: torch.Tensor | None = None) -> None:
        """Counts the advantages of one accumulation step in, without waiting for a device.

        Args:
            advantages: any shape.
            where: bool, can be broadcast to that shape: those that count; None: all.
        """
        squares = advantages.detach().double().square()
        if where is None:
            number = torch.full((), squares.numel(), dtype=squares.dtype, device=squares.device)
        else:
            squares, number = squares * where, where.expand_as(squares).sum().double()
        sums = torch.stack([squares.sum(), number])
        self._sums = sums if self._sums is None else self._sums + sums

    def finish(self) -> torch.Tensor:
        """σ + ε over all accumulation steps and processes, float64 and 0-dimensional; forgets what was added.

        Every process of the group must call it, once an update.

        Raises:
            ValueError: no advantages were added.
        """
        if self._sums is None:
            raise ValueError("SyncAN.finish() needs the advantages of at least one step: call add() first.")
        sums, self._sums = self._sums, None
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(sums, group=self.group)
        return (sums[0] / sums[1].clamp(min=1)).sqrt() + EPSILON
