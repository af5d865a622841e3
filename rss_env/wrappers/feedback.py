"""Kinds of imperfect feedback: what becomes of the scores before an agent sees them.

Each is called with the scores of B environments, (B, K), and gives what they turn into, of the same shape, kind (NumPy
or torch) and device. A score that is NaN gives NaN. The wrappers for single and vector environments are thin shells
around these.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from rss_env.errors import OptionError
from rss_env.rewards.arrays import Array, namespace, tree_sum
from rss_env.task import is_count


class Feedback:
    """Leaves the scores as they are; base of all kinds."""

    def restart(self, seed: int | None, layer: int = 0) -> None:
        """Forgets earlier episodes and starts the random draws anew; those of other layers of a stack are others."""

    def __call__(self, scores: Array) -> Array:
        """float64 (B, K) -> float64 (B, K)."""
        return scores


_SPAWN = 0x525353  # any number that spawn() does not reach


class Draws:
    """Random numbers of the kind and on the device of the scores, which no other generator's state changes."""

    def __init__(self) -> None:
        self.restart(None)

    def restart(self, seed: int | None, layer: int = 0) -> None:
        """Starts anew; a seed of None: from the system's entropy."""
        # The spawn key keeps the draws apart from an agent's default_rng(seed) and from the stack's other layers.
        self._numpy = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SPAWN, layer)))
        self._torch: Any = None

    def normal(self, like: Array) -> Array:
        """Standard normal numbers."""
        if isinstance(like, np.ndarray):
            return self._numpy.standard_normal(like.shape)
        return namespace(like).randn(like.shape, dtype=like.dtype, device=like.device, generator=self._on(like.device))

    def uniform(self, like: Array) -> Array:
        """Numbers in [0, 1)."""
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


class Noise(Feedback):
    """Adds Gaussian noise to every score; see ``NoisyReward``."""

    def __init__(self, std: float) -> None:
        self.std = _number("std", std, least=0)
        self._draws = Draws()

    def restart(self, seed: int | None, layer: int = 0) -> None:
        self._draws.restart(seed, layer)

    def __call__(self, scores: Array) -> Array:
        return scores + self.std * self._draws.normal(scores)


class Stars(Feedback):
    """Rounds every score to N levels; see ``StarReward``."""

    def __init__(self, stars: int) -> None:
        if not is_count(stars, least=2):
            raise OptionError(f"stars must be an integer of at least 2, got {stars!r}.")
        self.stars = int(stars)

    def __call__(self, scores: Array) -> Array:
        return (scores.clip(0, 1) * (self.stars - 1)).round() / (self.stars - 1)


class Threshold(Feedback):
    """1 from a threshold on, else 0; see ``ThresholdReward``."""

    def __init__(self, threshold: float) -> None:
        self.threshold = _number("threshold", threshold)

    def __call__(self, scores: Array) -> Array:
        return (scores >= self.threshold) + _nothing(scores)


class Delay(Feedback):
    """Pays for n episodes at once; see ``DelayedReward``."""

    def __init__(self, episodes: int) -> None:
        if not is_count(episodes):
            raise OptionError(f"episodes must be an integer of at least 1, got {episodes!r}.")
        self.episodes = int(episodes)
        self.restart(None)

    def restart(self, seed: int | None, layer: int = 0) -> None:
        self._owed: Array = 0.0
        self._waited = 0

    def __call__(self, scores: Array) -> Array:
        self._owed = self._owed + mean_score(scores)[:, None]
        self._waited += 1
        if self._waited < self.episodes:
            return _nothing(scores)
        paid = self._owed + _nothing(scores)
        self.restart(None)
        return paid


class Baseline(Feedback):
    """The difference to a running mean of the environment's scores; see ``BaselineReward``."""

    def __init__(self, decay: float, initial: float) -> None:
        self.decay = _number("decay", decay, least=0, most=1)
        self.initial = _number("initial", initial)
        self.restart(None)

    def restart(self, seed: int | None, layer: int = 0) -> None:
        self._baseline: Array = self.initial

    def __call__(self, scores: Array) -> Array:
        difference = scores - self._baseline
        self._baseline = self.decay * self._baseline + (1 - self.decay) * mean_score(scores)[:, None]
        return difference


class Preference(Feedback):
    """The share of the image's other samples that a sample is preferred to; see ``PreferenceReward``."""

    def __init__(self, temperature: float) -> None:
        self.temperature = _number("temperature", temperature, least=0)
        self._draws = Draws()

    def restart(self, seed: int | None, layer: int = 0) -> None:
        self._draws.restart(seed, layer)

    def __call__(self, scores: Array) -> Array:
        samples = scores.shape[1]
        if samples < 2:
            raise OptionError(
                "A preference compares samples: make the environment with samples_per_image of at least 2."
            )
        ahead = scores[:, :, None] - scores[:, None]  # (B, K, K): positive where the first is better
        if self.temperature == 0:
            wins = (ahead > 0) * 1.0 + (ahead == 0) * 0.5
            return (wins.sum(2) - 0.5) / (samples - 1) + _nothing(scores)  # without the tie of each with itself
        chance = 0.5 + 0.5 * namespace(ahead).tanh(ahead / (2 * self.temperature))  # 1 / (1 + exp(-ahead / τ))
        first = 1 + (self._draws.uniform(ahead) < chance) * 1.0  # 2 where the first is preferred, 1 where the second is
        pairs = namespace(ahead).triu(first, 1)  # each pair once: above the diagonal
        return ((pairs == 2).sum(2) + (pairs == 1).sum(1)) / (samples - 1) + _nothing(scores)


SHAPES = ("affine", "power", "log", "logit")


class Shaping(Feedback):
    """A monotone function of every score; see ``ShapedReward``."""

    def __init__(self, shape: str, scale: float, shift: float, exponent: float, epsilon: float) -> None:
        if shape not in SHAPES:
            raise OptionError(f"Unknown shape {shape!r}; valid: {', '.join(SHAPES)}.")
        self.shape = shape
        self.scale = _number("scale", scale)
        self.shift = _number("shift", shift)
        self.exponent = _number("exponent", exponent, least=0)
        self.epsilon = _number("epsilon", epsilon, least=0, most=0.5)
        if shape in ("log", "logit") and self.epsilon == 0:
            raise OptionError(f"shape={shape!r} needs an epsilon above 0: the logarithm of 0 is not finite.")

    def __call__(self, scores: Array) -> Array:
        xp = namespace(scores)
        if self.shape == "power":
            scores = scores.clip(0, None) ** self.exponent
        elif self.shape == "log":
            scores = xp.log(scores.clip(self.epsilon, None))
        elif self.shape == "logit":
            inside = scores.clip(self.epsilon, 1 - self.epsilon)
            scores = xp.log(inside) - xp.log(1 - inside)
        return self.shift + self.scale * scores


def mean_score(scores: Array) -> Array:
    """Mean over the samples, (B, K) -> (B,), added in the order in which the environments add."""
    return tree_sum(scores) / scores.shape[-1]


def _nothing(scores: Array) -> Array:
    """Zeros of the scores' kind, shape and device, and NaN where a score is NaN."""
    return 0.0 * scores.clip(0, 1)


def _number(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not least <= value <= most:
        limits = f" from {least:g} to {most:g}" if most < math.inf else f" of at least {least:g}" * (least > -math.inf)
        raise OptionError(f"{name} must be a finite number{limits}, got {value!r}.")
    return float(value)
