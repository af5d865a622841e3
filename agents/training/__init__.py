"""The training loop and what a run needs around it; ``train`` is the way in, ``Algorithm`` the way to extend it."""

from .algorithm import Algorithm
from .arguments import TrainArguments
from .callbacks import Callback, StopTraining
from .feedback import Feedback
from .loop import Result, train

__all__ = ["Algorithm", "Callback", "Feedback", "Result", "StopTraining", "TrainArguments", "train"]
