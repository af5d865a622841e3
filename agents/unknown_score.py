"""Scores of unknown formula: how ``agents.likelihood`` finds out whether it can read them, and learns until it knows.

At first the policy gradient learns, which needs no formula. Meanwhile the policy predicts the scores from its right
pixels (``scores.formulas.UnknownFormula``), and it is measured how much of their variance that explains. If it is
enough, or promises to be, the scores are read as evidence; if it is next to nothing after some updates, or less than
half later on, the policy gradient goes on. This is our own; maths: docs/likelihood.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .rss import RSS, Lesson
from .scores.queries import draw
from .scores.visits import VisitMemory
from .training.feedback import Feedback

if TYPE_CHECKING:
    from .likelihood import ImageLevel, Likelihood, Metrics, ScoreLesson

TRIED = 0.2  # of the training, by which it is decided whether to read the scores
EXPLAINED = 0.25  # share of the scores' variance that right pixels must explain to be read at once
PROMISING = 0.1  # share with which it is tried to read them
FIRST, LAST = 30, 60  # updates of the policy gradient over which that is measured, or a fifth of the training
ENOUGH = 120  # updates before what is read is judged once more, unless two fifths of the training are fewer
KEPT = 0.5  # share that must be explained then; after fewer updates EXPLAINED


class PolicyGradientLevel:
    """The policy gradient of ``agents.rss`` in coarse cells, for scores that no formula of right pixels explains.

    Such are scores of borders: of label maps whose pixels are drawn one by one they tell next to nothing.

    Args:
        options: hyper-parameters.
    """

    STATE = {"policy_gradient": True}
    temperature = 1.0

    def __init__(self, options: Likelihood) -> None:
        self.options = options
        self.rss = RSS(samples_per_image=options.samples_per_image)
        self.memory = VisitMemory(0, 0.0)

    @property
    def learning_rate_factor(self) -> float:
        """√K: the more label maps are compared, the less noise is in a step."""
        return self.options.samples_per_image**0.5

    def side(self, progress: float, shorter: int) -> int:
        """Side of the cells in pixels: a twelfth of the shorter side of the image, at least 4, unless it was chosen."""
        return self.options.schedule.side(progress) if self.options.cells else max(4, shorter // 12)

    def draw(self, logits: torch.Tensor, side: int, numbers: torch.Tensor) -> torch.Tensor:
        """Draws label maps."""
        return draw(logits, self.options.samples_per_image, self.temperature, side, numbers)

    def observe(self, logits: torch.Tensor, feedback: Feedback) -> Lesson:
        return self.rss.observe(logits, feedback)

    def synchronise(self, lessons: Sequence[Lesson]) -> None:
        self.rss.synchronise(lessons)

    def loss(self, logits: torch.Tensor, lesson: Lesson, progress: float) -> tuple[torch.Tensor, torch.Tensor, Metrics]:
        """The policy-gradient loss, with the entropy target of ``agents.rss``."""
        loss, metrics = self.rss.loss(logits, lesson, progress)
        return loss, logits.detach().softmax(dim=1), metrics

    def state_dict(self) -> dict[str, Any]:
        return self.STATE

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to continue from."""


@dataclass
class TrialLesson:
    """What the scores of one micro-batch say, to the policy gradient and as evidence."""

    gradient: Lesson
    scores: ScoreLesson

    @property
    def feedback(self) -> Feedback:
        """From the environment."""
        return self.gradient.feedback


class TrialLevel:
    """A score of unknown formula, as long as it is open whether right pixels explain it.

    The policy gradient learns; what it has scored is remembered, and compared with what the policy expects.

    Args:
        level: reads the scores if they are explained.
        gradient: learns meanwhile, and if they are not.
    """

    NAME = "trial"  # of its part of a checkpoint

    def __init__(self, level: ImageLevel, gradient: PolicyGradientLevel) -> None:
        self.level, self.gradient = level, gradient

    @property
    def learning_rate_factor(self) -> float:
        """That of the policy gradient."""
        return self.gradient.learning_rate_factor

    @property
    def memory(self) -> VisitMemory:
        """Earlier visits, for the time when they are read."""
        return self.level.memory

    def decided(self, progress: float) -> ImageLevel | PolicyGradientLevel | None:
        """What learns from now on; None: it is open."""
        share, judged = self.level.share, self.level.judged
        late = judged >= LAST or progress >= TRIED
        if not late and (share < EXPLAINED or judged < FIRST):
            return None
        if share < PROMISING:
            return self.gradient
        self.level.formula.settle()
        return self.level

    def side(self, progress: float, shorter: int) -> int:
        """Side of the cells in pixels."""
        return self.gradient.side(progress, shorter)

    def draw(self, logits: torch.Tensor, side: int, numbers: torch.Tensor) -> torch.Tensor:
        """Draws label maps, some of them to be scored twice, which measures the noise."""
        return self.level.repeated(self.gradient.draw(logits, side, numbers))

    def observe(self, logits: torch.Tensor, feedback: Feedback) -> TrialLesson:
        """Compares the scores with each other, and with what the policy expects."""
        return TrialLesson(self.gradient.observe(logits, feedback), self.level.read(logits, feedback))

    def synchronise(self, lessons: Sequence[TrialLesson]) -> None:
        """The scale of the policy gradient; the formula learns, and what it explains and the noise are measured."""
        self.gradient.synchronise([lesson.gradient for lesson in lessons])
        self.level.synchronise([lesson.scores for lesson in lessons])

    def loss(
        self, logits: torch.Tensor, lesson: TrialLesson, progress: float
    ) -> tuple[torch.Tensor, torch.Tensor, Metrics]:
        """The policy-gradient loss."""
        loss, probabilities, metrics = self.gradient.loss(logits, lesson.gradient, progress)
        reading = lesson.scores.evidence.reading
        return loss, probabilities, metrics | {"likelihood/explained": reading.explained}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold, next to the memory."""
        return self.level.state_dict() | {self.NAME: True}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from ``state_dict()``."""
        self.level.load_state_dict(state)
