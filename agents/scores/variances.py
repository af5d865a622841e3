"""How wrong a belief is at which size: the variances that the scores of an image are made of.

What a belief does not predict of scores has the covariance (``scores.posterior``)

    K = Σ_d w_d G_d + e V + o O + what is measured,

where G_d is the covariance that the errors of the regions of division d cause, V is diagonal and O the same for all
scores of a visit. The likelihood of the residuals r under N(0, K) says how much there is of each. It is maximised by
the multiplicative steps of Zhou, Hu, Zhou and Lange (MM algorithms for variance components models, 2019), taken a
little at a time, over the images that come by:

    w_d ← w_d · (rᵀ K⁻¹ G_d K⁻¹ r / tr K⁻¹ G_d)^½.

Few scores tell little about them, so a prior holds them near where they start, at v: it adds n (w/v + v/w) to twice the
negative log-likelihood, and n v/w² and n/v to numerator and denominator of that step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PRIOR = 500.0  # scores of the last updates that the prior of one of them is worth
MEMORY = 0.9  # weight that earlier sums keep at each update
RATE = 0.1  # exponent of an update; a whole step is ½
MOST = 100.0  # of what is expected that counts as seen, and its inverse the least
LEAST = 1e-4


class Variances:
    """Running estimates of the weights w_d of D divisions, of single pixels if they shift, of the error and the offset.

    Attributes:
        values: w_1 .. w_D, that of pixels if there is one, e and o; empty until it is known where they start.
    """

    def __init__(self) -> None:
        self.values: list[float] = []
        self._first: list[float] = []
        self._seen: list[float] = []
        self._expected: list[float] = []

    def start(self, first: Sequence[float]) -> list[float]:
        """The values, which start at ``first`` if they have not started there."""
        if self._first != list(first):
            self._first, self.values = list(first), list(first)
            self._seen = self._expected = [0.0] * len(first)
        return self.values

    def observe(self, statistics: Sequence[Sequence[float]]) -> None:
        """Takes what an update saw of every part, rᵀK⁻¹(w G)K⁻¹r, and expected of it, tr K⁻¹(w G); sums over images."""
        seen, expected = statistics
        self._seen = [MEMORY * old + new for old, new in zip(self._seen, seen, strict=True)]
        self._expected = [MEMORY * old + new for old, new in zip(self._expected, expected, strict=True)]
        self.values = [
            max(LEAST, value * min(max(one / other, 1 / MOST), MOST) ** RATE)
            for value, one, other in zip(self.values, *self._with_prior(), strict=True)
        ]

    def _with_prior(self) -> tuple[list[float], list[float]]:
        """What was seen and expected of every part, with what the prior adds."""
        moved = [value / first for value, first in zip(self.values, self._first, strict=True)]
        seen = [one + PRIOR / by for one, by in zip(self._seen, moved, strict=True)]
        return seen, [one + PRIOR * by for one, by in zip(self._expected, moved, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from ``state_dict()``."""
        vars(self).update(state)
