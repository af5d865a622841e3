"""Which implementation of the operations runs: by device and dtype, or as ``RSS_OPS`` says."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from types import ModuleType

import torch

from rss_env.errors import OptionError

BACKENDS = {"torch": "", "numba": "pip install 'rss-env[fast]'", "triton": "pip install triton"}


def backend(tensor: torch.Tensor, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> ModuleType:
    """The implementation for tensors like this one: compiled for these dtypes, else torch."""
    name = chosen(os.environ.get("RSS_OPS", ""), tensor.device.type)
    if tensor.dtype not in dtypes or (name == "numba" and tensor.device.type != "cpu"):
        name = "torch"
    return importlib.import_module(f".{name}_ops", __package__)


@functools.cache
def chosen(name: str, device: str) -> str:
    """The implementation asked for by name, or the fastest for a type of device if the name is empty.

    Raises:
        OptionError: it is unknown or not installed.
    """
    if name not in ("", *BACKENDS):
        raise OptionError(f"RSS_OPS={name!r} is not known; valid: {', '.join(BACKENDS)}.")
    if name not in ("", "torch") and importlib.util.find_spec(name) is None:
        raise OptionError(f"RSS_OPS={name} needs {name.capitalize()}: {BACKENDS[name]}")
    usual = {"cpu": "numba", "cuda": "triton"}.get(device, "torch")
    return name or (usual if usual == "torch" or importlib.util.find_spec(usual) is not None else "torch")
