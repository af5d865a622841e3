"""PSR, progressive scale rewards: label maps drawn in cells that shrink over training (our reading of the paper).

A reward of a whole label map says little about one pixel: with N independent pixels the signal-to-noise ratio of one
pixel's share is √((K − 1) / N). So N is cut: the pixels of a cell, a block of s×s, share one uniform draw. Each pixel
keeps its own distribution, because the draw is inverted through its own cumulative probabilities; only the dependence
between pixels is new. Where neighbours agree in their probabilities, a cell takes one class as a whole. The side s
shrinks while the policy sharpens, and the grid is shifted at random so that no border stays where it is.

    side = CellSchedule((4, 2, 1)).side(progress)
    seed, *offset = torch.randint(2**63 - 1, (3,)).tolist()
    label_maps = sample_label_maps(logits, K, seed, cell=side, offset=offset)

The schedule is here, the draw in cells in ``ops.sample_label_maps``; both fit into any policy-gradient loop.
Maths: docs/psr.md. ``rss_env.wrappers.CoarseAction`` is the same idea as a wrapper, for any agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rss_env.errors import OptionError


@dataclass(frozen=True)
class CellSchedule:
    """Which side the cells have at each moment of training: equal shares of it, one after the other.

    Attributes:
        sides: sides of the cells in pixels, from the first stage to the last; ``(1,)`` is plain sampling.

    Example:
        >>> [CellSchedule((4, 2, 1)).side(progress) for progress in (0.0, 0.3, 0.5, 0.9, 1.0)]
        [4, 4, 2, 1, 1]
    """

    sides: Sequence[int] = (1,)

    def __post_init__(self) -> None:
        if not self.sides or any(side < 1 for side in self.sides):
            raise OptionError(f"Cell sides must be one or more numbers of pixels from 1 on, got {tuple(self.sides)}.")

    def side(self, progress: float) -> int:
        """Side of the cells, in pixels.

        Args:
            progress: share of the training done, 0..1.
        """
        return self.sides[min(int(len(self.sides) * progress), len(self.sides) - 1)]
