"""Callbacks for ``train(…, callbacks=[…])``: the base class, and trackers of experiments.

``TensorBoard`` needs none: its files are in every run folder.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from rss_env.errors import OptionError
from rss_env.evaluation import Evaluation

from .training.callbacks import Callback, StopTraining
from .training.loop import Result
from .training.validation import to_log

__all__ = ["Callback", "StopTraining", "Tracker", "Trackio", "WandB"]


class Tracker(Callback):
    """Logs a run to a library with the interface of ``wandb``: ``init``, ``log`` and ``finish``.

    Logged are the arguments of the run and all its numbers at their steps, under the names of docs/metrics.md, and the
    pictures of the validation under ``val/label_maps`` if the library has an ``Image``.

    Args:
        module: the library, or its name; it is imported here.
        project: the name under which it keeps the run with others.
        **options: of its ``init``, such as ``name`` or ``group``; ``name`` is the name of the run folder by default.

    Raises:
        OptionError: it is not installed, or has another interface.
    """

    def __init__(self, module: Any, project: str = "rss-env", **options: Any) -> None:
        self.library = _imported(module) if isinstance(module, str) else module
        missing = [name for name in ("init", "log", "finish") if not callable(getattr(self.library, name, None))]
        if missing:
            raise OptionError(f"{module!r} cannot track a run: it has no {missing[0]}().")
        self.options = {"project": project} | options

    def on_start(self, config: dict[str, Any], step: int) -> None:
        name = config["run_dir"].rstrip("/").rpartition("/")[2]
        self.library.init(**{"name": name, "config": config} | self.options)

    def on_log(self, step: int, metrics: dict[str, float]) -> None:
        self.library.log(metrics, step=step)

    def on_evaluation(self, step: int, evaluation: Evaluation, picture: np.ndarray) -> None:
        logged: dict[str, Any] = to_log(evaluation)
        if hasattr(self.library, "Image"):
            logged["val/label_maps"] = self.library.Image(picture)
        self.library.log(logged, step=step)

    def on_end(self, result: Result | None) -> None:
        self.library.finish()


class WandB(Tracker):
    """Logs a run to Weights & Biases; needs ``pip install wandb``. Arguments: see ``Tracker``."""

    def __init__(self, project: str = "rss-env", **options: Any) -> None:
        super().__init__("wandb", project, **options)


class Trackio(Tracker):
    """Logs a run to trackio, on this machine; needs ``pip install trackio``. Arguments: see ``Tracker``."""

    def __init__(self, project: str = "rss-env", **options: Any) -> None:
        super().__init__("trackio", project, **options)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise OptionError(f"The tracker {name} cannot be imported: {error}. Try: pip install {name}") from None
