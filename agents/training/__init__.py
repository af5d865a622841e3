"""The training loop and what a run needs around it; ``train`` is the way in, ``Algorithm`` the way to extend it."""

from .algorithm import Algorithm
from .arguments import TrainArguments
from .feedback import Feedback
from .loop import Result, train

__all__ = ["Algorithm", "Feedback", "Result", "TrainArguments", "train"]
