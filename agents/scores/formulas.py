"""What an image-level score is taken for: a formula that is known, or one that is fitted to the scores that were seen.

A formula of either kind predicts the scores of label maps from what the belief expects of them (``models``), says how
far off it was, and may learn from it. The unknown one is our own; maths: docs/likelihood.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..training.distributed import gather_over_processes
from .models import MODEL_OPTIONS, SCORE_MODELS, Prediction, predict_scores
from .rounding import before_rounding, star_levels

FORGET = 0.98  # weight that what was seen keeps at each update
UPDATES = 200  # that the levels of the visits are kept for
FLAT = 10.0  # visits with which a curve that does not bend is believed in
MOST_VALUES = 32  # of scores that are rounded
SEEN = 8  # scores a value before they are taken as rounded
LEAST_SLOPE = 0.05
BASES = ("mean_iou", "pixel_accuracy")  # what a score of unknown formula may be a multiple of
CLEARLY = 1.5  # times what the first one explains that the second one must, to be taken
TOLD = 0.01  # least share of a prediction's variance that a rounded score is taken to decide
TINY = 1e-12


class Formula(ABC):
    """Predicts scores.

    Attributes:
        rounding: variance that rounding adds to the scores.
        is_known: whether there is nothing to learn.
        tells_level: whether it predicts scores and not only their differences within a visit.
        levels: float64, those that scores are rounded to, where it is known before the first score; else None.
    """

    rounding = 0.0
    is_known = True
    tells_level = True
    levels: torch.Tensor | None = None

    @abstractmethod
    def predict(self, expected: torch.Tensor, predicted: torch.Tensor, target: torch.Tensor) -> Prediction:
        """Expected scores and their derivatives: see ``models.predict_scores``."""

    def rivals(self, expected: torch.Tensor, predicted: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """Other predictions, (M,) each, by their name, as long as it is open which is best.

        Args: see ``models.predict_scores``.
        """
        return {}

    def settle(self) -> None:  # noqa: B027  (optional)
        """Ends the choice between rivals: what the policy learns from now on makes the one that is used look best."""

    @abstractmethod
    def scale(self, scores: torch.Tensor) -> torch.Tensor:
        """What the scores of every visit, float64 (V, K), are divided by before they are predicted, (V, 1)."""

    @abstractmethod
    def residuals(
        self, scores: torch.Tensor, mean: torch.Tensor, spread: float | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the prediction left of the scores, divided by their scale.

        Args:
            scores: float64 (V, K).
            mean: float64 (V, K), the predictions.
            spread: standard deviation of residuals before rounding, a number or float64 (V, K).

        Returns:
            Residuals and, for rounded scores, their variance given the interval; float64 (V, K).
        """

    def factors(
        self, scores: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The scores as Gaussian factors: a rounded one tells an interval, and is wide where the belief was as sure.

        Args: see ``residuals``; all float64 (V, K).

        Returns:
            Residuals and their variances without noise: 0 where scores are not rounded; float64 (V, K).
        """
        residual, undecided = self.residuals(scores, mean, spread)
        told = (1 - undecided / spread.square()).clamp(min=TOLD)
        return residual / told, undecided / told

    def learn(self, seen: Sequence[Seen]) -> None:  # noqa: B027  (optional)
        """Learns from the new scores of an update; every process of a job is here at the same time."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  (optional)
        """Continues from ``state_dict()``."""


@dataclass
class Seen:
    """New scores of a micro-batch and what was predicted of them, float64 (B, K), also by rivals."""

    scores: torch.Tensor
    mean: torch.Tensor
    rivals: Mapping[str, torch.Tensor] = field(default_factory=dict)


class KnownFormula(Formula):
    """A score of the environment by its name.

    Args:
        name: key of ``models.SCORE_MODELS``.
        stars: levels from 0 to 1 that the scores are rounded to; 0: they are not.
        **options: of the reward, those of ``models.MODEL_OPTIONS``.
    """

    def __init__(self, name: str, stars: int = 0, **options: Any) -> None:
        self.name, self.options, self.levels = name, options, star_levels(stars) if stars else None
        self.rounding = (1 / (stars - 1)) ** 2 / 12 if stars else 0.0

    def predict(self, expected: torch.Tensor, predicted: torch.Tensor, target: torch.Tensor) -> Prediction:
        return predict_scores(self.name, expected, predicted, target, **self.options)

    def scale(self, scores: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(scores[:, :1])

    def residuals(
        self, scores: torch.Tensor, mean: torch.Tensor, spread: float | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.levels is None:
            return scores - mean, torch.zeros_like(scores)
        exact, undecided = before_rounding(scores, mean, spread, self.levels.to(scores.device))
        return exact - mean, undecided


class UnknownFormula(Formula):
    """A score of any range that is better, more or less, the more pixels are right.

    The prediction is a multiple of the expected mean IoU, or of the expected pixel accuracy if that explains clearly
    more at first, of scores that are divided by what their deviation within a visit should be at the level of the
    visit. So a score that is stretched, shifted or bent is the same to it. Scores that take few values are taken as
    rounded.

    Args:
        num_classes: C.

    Attributes:
        slope: the multiple, in units of that at which the pixels would explain all scores if the targets were known.
    """

    is_known = False
    tells_level = False

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.slope = 1.0
        self.name, self.open = BASES[0], True  # what it is a multiple of, and whether that may change
        # By what predicts: of predictions with slope 1, and of them and the scores.
        self.sums = {f"{of} {name}": 0.0 for name in BASES for of in ("squares", "products")}
        self.visits: list[list[tuple[float, float]]] = []  # level and log deviation of each, by update, oldest first
        self.curve: list[float] = []  # centre and spread of the levels, and the polynomial's three coefficients
        self.values: list[float] | None = []  # that the scores took, in ascending order; None: too many
        self.seen = 0  # scores

    def predict(self, expected: torch.Tensor, predicted: torch.Tensor, target: torch.Tensor) -> Prediction:
        mean, per_right, per_target = predict_scores(self.name, expected, predicted, target)
        weight = self.slope * self._per_unit(predicted)
        return Prediction(weight * mean, weight[:, None] * per_right, weight[:, None] * per_target)

    def rivals(self, expected: torch.Tensor, predicted: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        weight = self._per_unit(predicted)
        return {name: weight * SCORE_MODELS[name](expected, predicted, target) for name in BASES if self.open}

    def settle(self) -> None:
        self.open = False

    def _per_unit(self, predicted: torch.Tensor) -> torch.Tensor:
        """One over what the accuracy of random label maps deviates by, √(q (1 − q) / pixels): the slope's unit."""
        chance = 1 / self.num_classes
        return (predicted.sum(dim=1) / (chance * (1 - chance))).sqrt()

    def scale(self, scores: torch.Tensor) -> torch.Tensor:
        level = scores.mean(dim=1, keepdim=True)
        if not self.curve:
            own = scores.std(dim=1, keepdim=True)
            return torch.where(own > 0, own, 1.0)
        centre, spread, *c = self.curve
        z = ((level - centre) / spread).clamp(-2, 2)
        return (c[0] + c[1] * z + c[2] * z * z).exp()

    def residuals(
        self, scores: torch.Tensor, mean: torch.Tensor, spread: float | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        scale = self.scale(scores)
        predicted = scores.mean(dim=1, keepdim=True) + scale * (mean - mean.mean(dim=1, keepdim=True))
        if not self.is_rounded:
            return (scores - predicted) / scale, torch.zeros_like(scores)
        levels = torch.tensor(self.values, dtype=scores.dtype, device=scores.device)
        exact, undecided = before_rounding(scores, predicted, spread * scale, levels)
        return (exact - predicted) / scale, undecided / scale.square()

    @property
    def is_rounded(self) -> bool:
        """Whether the scores that were seen took so few values that they must have been rounded to them."""
        return self.values is not None and 1 < len(self.values) <= self.seen / SEEN

    def learn(self, seen: Sequence[Seen]) -> None:
        parts = [part for process in gather_over_processes([self._read(part) for part in seen]) for part in process]
        if self.values is not None:
            self.seen += sum(part["scores"] for part in parts)
            self.values = sorted({value for part in parts for value in part["values"]} | set(self.values))
            if len(self.values) > MOST_VALUES:
                self.values = None
        self.rounding = self._rounding()
        self.visits = [*self.visits, [visit for part in parts for visit in part["visits"]]][-UPDATES:]
        self.curve = self._fit_curve()
        for name in self.sums:
            self.sums[name] = FORGET * self.sums[name] + sum(part.get(name, 0.0) for part in parts)
        if self.open:
            ours, other = BASES
            self.name = other if self._explained(other) > CLEARLY * self._explained(ours) else ours
        # A regression through the origin; the prior, a slope of 1, is worth the scores of one update.
        prior = sum(part["compared"] for part in parts)
        if prior:
            products, squares = self.sums[f"products {self.name}"], self.sums[f"squares {self.name}"]
            self.slope = max(LEAST_SLOPE, (products + prior) / (squares + prior))

    def _explained(self, name: str) -> float:
        """The sum of the scores' squares, within visits, that the best multiple of a prediction explains."""
        squares, products = self.sums[f"squares {name}"], self.sums[f"products {name}"]
        return max(products, 0.0) ** 2 / squares if squares else 0.0

    def _read(self, seen: Seen) -> dict[str, Any]:
        """What the new scores of a micro-batch say."""
        scores = seen.scores
        deviation, level = scores.std(dim=1), scores.mean(dim=1)
        varied = deviation > 0  # of a visit whose scores are all equal nothing is learned
        observed = ((scores - level[:, None]) / self.scale(scores))[varied]
        sums = {}
        for name, mean in (seen.rivals or {self.name: seen.mean / self.slope}).items():
            predicted = (mean - mean.mean(dim=1, keepdim=True))[varied]
            sums[f"squares {name}"] = float(predicted.square().sum())
            sums[f"products {name}"] = float((predicted * observed).sum())
        return sums | {
            "scores": scores.numel(),
            "values": [] if self.values is None else scores.unique()[: MOST_VALUES + 1].tolist(),
            "visits": list(zip(level[varied].tolist(), deviation[varied].log().tolist(), strict=True)),
            "compared": observed.numel(),
        }

    def _rounding(self) -> float:
        if self.values is None:
            return 0.0
        if len(self.values) == 1:
            return 1.0  # wherever the next level is, label maps must differ more
        if not self.is_rounded:
            return 0.0
        return ((self.values[-1] - self.values[0]) / (len(self.values) - 1)) ** 2 / 12

    def _fit_curve(self) -> list[float]:
        """Log deviation as a polynomial of the level, a least-squares fit in which later visits count more."""
        seen = [(FORGET**age, *visit) for age, update in enumerate(reversed(self.visits)) for visit in update]
        if not seen:
            return []
        weight, level, deviation = torch.tensor(seen, dtype=torch.float64).T
        centre = (weight * level).sum() / weight.sum()
        spread = ((weight * (level - centre).square()).sum() / weight.sum()).sqrt().clamp(min=TINY)
        z = ((level - centre) / spread).clamp(-2, 2)
        x = torch.stack([torch.ones_like(z), z, z.square()], dim=1)
        matrix = x.T @ (weight[:, None] * x) + torch.diag(torch.tensor([0.0, FLAT, FLAT], dtype=torch.float64))
        coefficients = torch.linalg.solve(matrix, x.T @ (weight * deviation))
        return [float(centre), float(spread), *coefficients.tolist()]

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "num_classes"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "name" not in state:  # of before there was a choice
            sums = self.sums | {f"{of} pixel_accuracy": state["sums"][of] for of in ("squares", "products")}
            state = state | {"name": "pixel_accuracy", "open": False, "sums": sums}
        vars(self).update(state)


def formula_of(
    reward: str | None, options: Mapping[str, Any], stars: int, num_classes: int
) -> tuple[Formula, str | None]:
    """The formula for a reward of the environment.

    Args:
        reward: name of the reward; None where nobody here knows the formula, as for a callable or shaped scores.
        options: of the reward; a formula with others than ``models.MODEL_OPTIONS`` is not known.
        stars: levels that its scores are rounded to; 0: they are not.
        num_classes: C.

    Returns:
        The formula, and a line that says so if it is not known.
    """
    if reward in SCORE_MODELS and set(options) <= set(MODEL_OPTIONS.get(reward, ())):
        return KnownFormula(reward, stars, **options), None
    name = "the score" if reward is None else f"{reward} with {', '.join(options)}" if options else reward
    return UnknownFormula(num_classes), f"The formula of {name} is not known here: it is fitted to the scores."
