"""What a program of your own does while ``train`` runs: watch, plot, notify, stop early."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rss_env.errors import OptionError
from rss_env.evaluation import Evaluation

if TYPE_CHECKING:
    from .interruption import Interruption
    from .loop import Result


class StopTraining(Exception):
    """Raised by a callback, it ends the run after the step at hand, with a checkpoint."""


class Callback:
    """What happens while a run goes on. Derive from it and define the methods that you need.

    In a job of several processes they are called in process 0 only. ``StopTraining``, raised in any of them, ends the
    run as Ctrl-C does: the step at hand ends, a checkpoint is written, and the run can be resumed. Any other exception
    does the same and is then raised by ``train``.

    Example:
        >>> class UntilGood(Callback):
        ...     def on_evaluation(self, step, evaluation, picture):
        ...         if evaluation.miou > 0.5:
        ...             raise StopTraining
    """

    def on_start(self, config: dict[str, Any], step: int) -> None:
        """The run is about to begin.

        Args:
            config: its arguments and the algorithm's, as in config.json; ``config["run_dir"]`` is the run folder.
            step: 0, or that of the checkpoint from which it is resumed.
        """

    def on_log(self, step: int, metrics: dict[str, float]) -> None:
        """Every ``log_every`` steps: the numbers of docs/metrics.md that training measures."""

    def on_evaluation(self, step: int, evaluation: Evaluation, picture: np.ndarray) -> None:
        """Every ``eval_every`` steps and after the last.

        Args:
            step: of the training.
            evaluation: of the policy on the validation split.
            picture: validation images above the policy's label maps, uint8 (2H, n·W, 3).
        """

    def on_checkpoint(self, path: Path) -> None:
        """A checkpoint was written; older ones may be gone."""

    def on_end(self, result: Result | None) -> None:
        """The run is over: as ``train`` returns it, or None if it ends with an error."""


class _Function(Callback):
    """A function as a callback."""

    def __init__(self, function: Callable[[int, dict[str, float]], Any]) -> None:
        self.on_log = function  # type: ignore[method-assign, assignment]


class Callbacks:
    """The callbacks of a run, which it calls by the names of their methods.

    Args:
        given: callbacks, or functions, which are called as ``on_log`` is.

    Attributes:
        error: what a callback raised, other than ``StopTraining``.

    Raises:
        OptionError: something else is given.
    """

    def __init__(self, given: Sequence[Callback | Callable[[int, dict[str, float]], Any]] = ()) -> None:
        if isinstance(given, Callback) or not isinstance(given, Sequence):
            raise OptionError(f"callbacks must be a list of callbacks, got {given!r}.")
        for one in given:
            if isinstance(one, type) or not (isinstance(one, Callback) or callable(one)):
                raise OptionError(
                    f"A callback is an object of a class derived from Callback or a function, got {one!r}."
                )
        self.callbacks = [one if isinstance(one, Callback) else _Function(one) for one in given]
        self.error: Exception | None = None
        self._interruption: Interruption | None = None
        self._begun: list[Callback] = []

    def start(self, interruption: Interruption, config: dict[str, Any], step: int) -> None:
        """Calls ``on_start``; what callbacks raise from now on asks for an interruption."""
        self._interruption = interruption
        for callback in self.callbacks:
            if self.error is None:
                self._begun.append(callback)
                self._try(callback.on_start, config, step)

    def call(self, name: str, *arguments: Any) -> None:
        """Calls one method of every callback; none is called any more after one has failed."""
        for callback in self._begun:
            self._try(getattr(callback, name), *arguments)

    def end(self, result: Result | None) -> None:
        """Calls ``on_end`` of every callback that was started, though others fail."""
        begun, self._begun = self._begun, []
        for callback in begun:
            try:
                callback.on_end(result)
            except StopTraining:
                pass
            except Exception as error:
                if result is None or self.error is not None:
                    traceback.print_exception(error)  # another one is raised
                else:
                    self.error = error

    def raise_error(self) -> None:
        """Raises what a callback raised, with its own traceback."""
        if self.error is not None:
            raise self.error

    def _try(self, method: Callable[..., Any], *arguments: Any) -> None:
        if self.error is not None:
            return
        assert self._interruption is not None
        try:
            method(*arguments)
        except StopTraining:
            self._interruption.requested = True
        except Exception as error:
            self.error = error
            self._interruption.requested = True
