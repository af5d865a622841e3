"""The random numbers of imperfect feedback."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from rss_env.rewards.arrays import Array, namespace

_SPAWN = 0x525353  # any number that spawn() does not reach


class Draws:
    """Random numbers of the type and on the device of the scores, which no other generator's state changes."""

    def __init__(self) -> None:
        self.restart(None)

    def restart(self, seed: int | None, layer: int = 0) -> None:
        """Starts again, from the system's entropy where the seed is None; the layers of a stack draw differently."""
        # The spawn key keeps the draws apart from an agent's default_rng(seed) and from the stack's other layers.
        self._numpy = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SPAWN, layer)))
        self._torch: Any = None

    def normal(self, like: Array) -> Array:
        """Standard normal numbers of the shape of ``like``."""
        if isinstance(like, np.ndarray):
            return self._numpy.standard_normal(like.shape)
        return namespace(like).randn(like.shape, dtype=like.dtype, device=like.device, generator=self._on(like.device))

    def uniform(self, like: Array) -> Array:
        """Numbers in [0, 1) of the shape of ``like``."""
        if isinstance(like, np.ndarray):
            return self._numpy.random(like.shape)
        return namespace(like).rand(like.shape, dtype=like.dtype, device=like.device, generator=self._on(like.device))

    def _on(self, device: Any) -> Any:
        if self._torch is None:
            self._torch = sys.modules["torch"].Generator(device).manual_seed(int(self._numpy.integers(1 << 62)))
        return self._torch

    def __getstate__(self) -> dict[str, Any]:
        # Generators of an accelerator cannot be copied or pickled, but their states can.
        state = self._torch and (str(self._torch.device), self._torch.get_state())
        return self.__dict__ | {"_torch": state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._torch:
            device, numbers = self._torch
            self._torch = sys.modules["torch"].Generator(device)
            self._torch.set_state(numbers)
