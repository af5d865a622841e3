"""The errors this package raises on bad input; each message says what was expected, what came and what to do."""

from gymnasium.error import AlreadyPendingCallError, InvalidAction, ResetNeeded

__all__ = [
    "AlreadyPendingCallError",
    "DatasetError",
    "DatasetNotFoundError",
    "EmptySplitError",
    "InvalidAction",
    "JudgeError",
    "OptionError",
    "ResetNeeded",
    "UnknownArgumentError",
    "UnknownSplitError",
]


class OptionError(ValueError):
    """An argument of an environment, reward or data set is not one of the valid values."""


class UnknownArgumentError(OptionError, TypeError):
    """An environment has no argument of that name; a ``TypeError`` too, as Python raises for any other function."""


class JudgeError(RuntimeError):
    """A slow callable reward failed at every try of a call, or the log of its answers cannot be used."""


class DatasetError(ValueError):
    """A data set on disk, or an option of one, is not usable as it is."""


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """The folder layout of a data set was not found."""


class EmptySplitError(DatasetError):
    """No image falls into a split."""


class UnknownSplitError(DatasetError):
    """A data set has no split of that name."""
