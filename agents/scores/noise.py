"""How noisy the scores are, and how coarsely label maps must differ because of it.

The scores of K label maps whose pixels are drawn one by one differ by very little: thousands of independent pixels
average out. That does no harm while a score is exact, because small differences say as much as large ones. With noise
on the scores, or with scores rounded to a few levels, such differences drown. Pixels that are drawn in cells of s×s
(``plugins.psr``) make them about s times larger; what is lost is where in its cell a pixel was right.

So the side of the cells is the smallest at which the scores' own variance reaches that of the noise. Both are measured:
the noise by label maps that are scored twice, the variance by the K scores of every image. Maths: docs/likelihood.md.

A label map that is scored twice is a query that teaches nothing, so scores that turn out to be exact are hardly
measured again: each measurement that finds no noise doubles the wait until the next one.
"""

from __future__ import annotations

import math
from typing import Any

import torch

EVERY = 8  # updates from one measurement of the noise to the next, while there is noise
MEMORY = 100  # measurements of the noise that its mean goes back
SMALL, LEAST = 0.1, 0.03  # of the variance of the residuals: less noise is none, and is none again
FORGET = 0.98  # weight that an earlier observation of the scores keeps at each update


class ScoreNoise:
    """Running means of the variance of the noise and of the scores' own.

    Args:
        rounding: variance that rounding adds to the scores, a twelfth of the squared distance between two levels.

    Attributes:
        noise: variance of the noise, without rounding.
        residual: variance of what the belief did not predict of the scores before they were rounded, in the formula's
            units.
        unit: the square of such a unit, in that of the scores.
    """

    def __init__(self, rounding: float = 0.0) -> None:
        self.rounding = rounding
        self.noise = 0.0
        self.residual = 0.01
        self.unit: float | None = None
        self._measured = 0  # times the noise was
        self._wait = 0  # updates until it is measured again
        self._pause = EVERY  # updates from the last measurement to the next
        self._mattered = False  # in the last update
        self._sums = 0.0, 0.0  # Σ s²·v and Σ s⁴ over updates, for scores of variance v beyond the noise

    @property
    def known(self) -> bool:
        """Whether there is noise, or rounding, as far as is known."""
        return self.noise + self.rounding > 0

    @property
    def matters(self) -> bool:
        """Whether noise and rounding are more than a small part of what the belief does not predict.

        Once they are, they are until they are a much smaller part: what follows from it changes what is predicted.
        """
        left = self.residual * (1.0 if self.unit is None else self.unit)
        return self.noise + self.rounding > (LEAST if self._mattered else SMALL) * left

    @property
    def due(self) -> bool:
        """Whether the noise is to be measured in this update."""
        return self._wait == 0

    def tick(self) -> None:
        """Ends an update."""
        self._mattered = self.matters
        if self._wait == 0:
            self._wait = self._pause
        self._wait -= 1

    def observe(self, variance: float, side: int, noise: float | None, residual: float, unit: float = 1.0) -> None:
        """Takes the measurements of an update.

        Args:
            variance: of the scores of an image, mean over the images.
            side: of the cells that the label maps were drawn in, in pixels.
            noise: half the squared difference of the two scores of one label map, if some were scored twice.
            residual: variance of the residuals of the scores before they were rounded, in the formula's units.
            unit: mean square of these units.
        """
        if noise is not None:
            self._measured += 1
            self.noise += (noise - self.noise) / min(self._measured, MEMORY)
            self._pause = EVERY if self.noise else 2 * self._pause
        own = variance - self.noise - self.rounding
        self._sums = FORGET * self._sums[0] + side**2 * own, FORGET * self._sums[1] + side**4
        self.residual += 0.05 * (residual - self.residual)
        self.unit = unit if self.unit is None else self.unit + 0.05 * (unit - self.unit)

    def side(self, longest: int, shortest: int = 1, rounded: bool = True) -> int:
        """Side of the cells, shortest..longest, in pixels; ``rounded``: rounding counts as noise.

        The scores' own variance is taken as proportional to s². Its factor is a least-squares fit, in which coarse
        cells count most: there it is seen best.
        """
        total = self.noise + (self.rounding if rounded else 0.0)
        if total <= 0:
            return shortest
        factor = self._sums[0] / max(self._sums[1], 1.0)
        if total >= factor * longest**2:  # also where the scores do not differ by more than the noise at all
            return longest
        return max(shortest, round(math.sqrt(total / factor)))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {name: value for name, value in vars(self).items() if name != "rounding"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from ``state_dict()``."""
        vars(self).update(state)


def score_twice(label_maps: torch.Tensor) -> None:
    """Makes the last label map of an image a copy of its first one, in place; (B, K, H, W).

    Of every image; of the first one only if K is 2, because two scores of one label map compare nothing.
    """
    images = _images(label_maps)
    label_maps[:images, -1] = label_maps[:images, 0]


def scored_twice(scores: torch.Tensor) -> torch.Tensor:
    """Half the mean squared difference of the two scores; its expectation is the variance of the noise. (B, K)."""
    images = _images(scores)
    return (scores[:images, 0] - scores[:images, -1]).square().mean() / 2


def _images(values: torch.Tensor) -> int:
    """How many images of (B, K, ...) have a label map that is scored twice."""
    return 1 if values.shape[1] == 2 else len(values)
