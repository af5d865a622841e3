"""Functions compiled by Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """The function compiled at its first call; other threads run meanwhile.

    The machine code is kept next to the module, or in the user's cache folder. Where neither may be written every
    process compiles it again.
    """
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # Numba found no folder for it
        return njit(nogil=True)(function)
