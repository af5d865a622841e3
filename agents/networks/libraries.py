"""Networks of other libraries: imported when they are asked for, their errors in one line."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from rss_env.errors import OptionError

IMAGENET = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}  # red, green, blue, 0 to 255


def import_library(name: str, extra: str) -> Any:
    """Imports a library.

    Raises:
        OptionError: it, or what it needs, is not installed or does not fit; ``extra`` of this project installs it.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise OptionError(f"The library {name}: {one_line(error)}; pip install 'rss-env[{extra}]'.") from error


@contextmanager
def errors_of(library: str) -> Iterator[None]:
    """Turns what a library raises when it cannot make a network into ``OptionError``."""
    try:
        yield
    except (OSError, ImportError, RuntimeError, LookupError, TypeError, ValueError, AssertionError) as error:
        raise OptionError(f"The library {library} cannot make the network: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """What an error says, in one line."""
    said = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(said.split())


class Preprocessing(nn.Module):
    """Images, uint8 (B, H, W, 3), RGB -> what a network was trained with, float (B, 3, H, W).

    Args:
        mean: taken from the three channels, from 0 to 255.
        std: then divides them.
        bgr: blue comes first in the output; ``mean`` and ``std`` are in the output's order.

    Raises:
        OptionError: there are not three of each, or one is out of range.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], bgr: bool = False) -> None:
        super().__init__()
        self.bgr = bgr
        for name, values in (("mean", mean), ("std", std)):
            try:
                tensor = torch.tensor(values, dtype=torch.float32).reshape(3, 1, 1)
            except (TypeError, ValueError, RuntimeError):
                raise OptionError(f"preprocessing: {name} must be three numbers, got {values!r}.") from None
            if not tensor.isfinite().all() or (name == "std" and not (tensor > 0).all()):
                raise OptionError(f"preprocessing: {name} is out of range, got {values!r}.")
            self.register_buffer(name, tensor, persistent=False)  # they are options, not weights

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.permute(0, 3, 1, 2)
        return ((x.flip(1) if self.bgr else x) - self.mean) / self.std


def make_preprocessing(values: Any) -> Preprocessing:
    """``Preprocessing`` of an option, a dict of its arguments."""
    try:
        return Preprocessing(**values)
    except TypeError:
        raise OptionError(f"preprocessing must have mean, std and perhaps bgr, got {values!r}.") from None
