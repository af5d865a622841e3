"""Kinds of imperfect feedback: what becomes of the scores before an agent sees them.

A kind is plain data; ``FeedbackReward`` applies it to a single environment, and its twin in ``rss_env.wrappers.vector``
to a vector environment. Both take it in any of three forms: as a kind, as a dict (which is what ``env.spec`` records),
or as text, for a command line:

    Stars(3)                        {"kind": "stars", "stars": 3}                            "stars:3"
    Shaping("log", epsilon=0.01)    {"kind": "shaping", "shape": "log", "epsilon": 0.01}    "shaping:log,epsilon=0.01"

**Your own kind** is a dataclass that derives from ``Feedback``, with JSON values as fields. Called with the scores of B
environments, float64 (B, K), a NumPy array or a torch tensor, it gives what they become: of the same shape, type and
device, and NaN where they are NaN. What it has to remember goes into ``memory``, a dict that ``reset(seed=...)``
empties; random numbers come from ``draws.normal(like=scores)`` and ``draws.uniform(like=scores)``. Each wrapper has a
memory and draws of its own.

    >>> @dataclass
    ... class Fatigue(Feedback):
    ...     '''A rater who tires: every episode's scores count less than those before.'''
    ...
    ...     factor: float = 0.9
    ...
    ...     def __call__(self, scores, memory, draws):
    ...         memory["strength"] = self.factor * memory.get("strength", 1.0)
    ...         return memory["strength"] * scores
    >>> Fatigue(0.5)(np.array([[0.2, 0.8]]), {}, Draws())
    array([[0.1, 0.4]])

In a dict or a text its name is where it is defined: ``"my_package.my_module:Fatigue:0.5"``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from rss_env.arguments import check_choice, is_count, is_number
from rss_env.errors import OptionError
from rss_env.rewards.arrays import Array, namespace, tree_sum
from rss_env.wrappers.draws import Draws


@dataclass
class Feedback:
    """Leaves the scores as they are; base of all kinds.

    Attributes:
        keeps_score: of the class: whether what it gives is the score itself up to noise or rounding. Where it is not,
            the metadata of the wrapped environment names no reward: an agent that knows the formula of ``mean_iou``
            would take what it is given for that.
    """

    keeps_score: ClassVar[bool] = False

    def __call__(self, scores: Array, memory: dict[str, Any], draws: Draws) -> Array:
        """float64 (B, K) -> float64 (B, K)."""
        return scores

    def check(self, metadata: Mapping[str, Any]) -> None:
        """Raises ``OptionError`` if an environment with this metadata cannot have such feedback."""

    def metadata(self) -> dict[str, Any]:
        """What an agent may know of the feedback: goes into the metadata of the wrapped environment."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """The kind's name and arguments as JSON values, from which ``as_feedback`` makes it again."""
        cls = type(self)
        if "__dataclass_fields__" not in vars(cls):
            raise OptionError(f"{cls.__name__} must be a dataclass, so that its arguments can be recorded: @dataclass.")
        named = [name for name, kind in KINDS.items() if kind is cls]
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
        return {"kind": named[0] if named else f"{cls.__module__}:{cls.__qualname__}"} | plain


@dataclass
class Noise(Feedback):
    """Gaussian noise on every score: r = s + ``std``·ε, ε ~ N(0, 1), not clipped.

    Attributes:
        std: standard deviation of the noise, at least 0.
    """

    keeps_score = True
    std: float = 0.05

    def __post_init__(self) -> None:
        self.std = _number("std", self.std, least=0)

    def __call__(self, scores: Array, memory: dict[str, Any], draws: Draws) -> Array:
        return scores + self.std * draws.normal(scores)


@dataclass
class Stars(Feedback):
    """One of N equally spaced levels, as people give stars: r = round(s·(N − 1)) / (N − 1).

    Scores outside 0..1 count as 0 or 1; halves round to the even number. ``metadata["reward_stars"]`` is N.

    Attributes:
        stars: N, at least 2; one star is 0, N stars are 1.
    """

    keeps_score = True
    stars: int = 5

    def __post_init__(self) -> None:
        if not is_count(self.stars, least=2):
            raise OptionError(f"stars must be an integer of at least 2, got {self.stars!r}.")
        self.stars = int(self.stars)

    def __call__(self, scores: Array, memory: dict[str, Any], draws: Draws) -> Array:
        return (scores.clip(0, 1) * (self.stars - 1)).round() / (self.stars - 1)

    def metadata(self) -> dict[str, Any]:
        return {"reward_stars": self.stars}


@dataclass
class Threshold(Feedback):
    """Sparse feedback: r = 1 if s ≥ ``threshold``, else 0.

    Attributes:
        threshold: the least score that is rewarded.
    """

    threshold: float = 0.5

    def __post_init__(self) -> None:
        self.threshold = _number("threshold", self.threshold)

    def __call__(self, scores: Array, memory: dict[str, Any], draws: Draws) -> Array:
        return (scores >= self.threshold) + _zeros(scores)


@dataclass
class Delay(Feedback):
    """Withholds the reward of n episodes and pays their sum with the n-th; the others get 0.

    With K samples the mean score of each episode is withheld, and every sample of the n-th is paid the same sum. A
    vector environment pays every sub-environment by itself.

    Attributes:
        episodes: n, at least 1.
    """

    episodes: int = 4

    def __post_init__(self) -> None:
        if not is_count(self.episodes):
            raise OptionError(f"episodes must be an integer of at least 1, got {self.episodes!r}.")
        self.episodes = int(self.episodes)

    def __call__(self, scores: Array, memory: dict[str, Any], draws: Draws) -> Array:
        owed = memory.get("owed", 0.0) + mean_score(scores)[:, None]  # (B, 1)
        waited = memory.get("waited", 0) + 1
        if waited < self.episodes:
            memory.update(owed=owed, waited=waited)
            return _zeros(scores)
        memory.clear()
        return owed + _zeros(scores)


@dataclass
class Baseline(Feedback):
    """The difference to a running mean of earlier episodes: r = s − b, then b ← ``decay``·b + (1 − ``decay``)·mean(s).

    A vector environment keeps a baseline for each sub-environment.

    Attributes:
        decay: share of the baseline that stays, 0..1.
        initial: the baseline of the first episode.
    """

    decay: float = 0.9
    initial: float = 0.0

    def __post_init__(self) -> None:
        self.decay = _number("decay", self.decay, least=0, most=1)
        self.initial = _number("initial", self.initial)

    def __call__(self, scores: Array, memory: dict[str, Any], draws: Draws) -> Array:
        baseline = memory.get("baseline", self.initial)  # (B, 1)
        memory["baseline"] = self.decay * baseline + (1 - self.decay) * mean_score(scores)[:, None]
        return scores - baseline


@dataclass
class Drift(Feedback):
    """A rater whose standard moves: r = g·s + b, g from 1 to ``gain`` and b from 0 to ``offset`` in equal steps.

    The standard begins to move in the first episode and stays where it is after ``episodes`` of them. All
    sub-environments of a vector environment have the same rater.

    Attributes:
        offset: b at the end; below 0 the rater grows stricter.
        gain: g at the end; between 0 and 1 the rater tells label maps apart less and less, below 0 the worse ones come
            to be preferred.
        episodes: how long it takes, at least 1.
    """

    offset: float = -0.5
    gain: float = 1.0
    episodes: int = 1000

    def __post_init__(self) -> None:
        self.offset = _number("offset", self.offset)
        self.gain = _number("gain", self.gain)
        if not is_count(self.episodes):
            raise OptionError(f"episodes must be an integer of at least 1, got {self.episodes!r}.")
        self.episodes = int(self.episodes)

    def __call__(self, scores: Array, memory: dict[str, Any], draws: Draws) -> Array:
        memory["episode"] = memory.get("episode", 0) + 1
        share = min(1.0, memory["episode"] / self.episodes)
        return (1 + (self.gain - 1) * share) * scores + self.offset * share


@dataclass
class Preference(Feedback):
    """Comparisons instead of numbers: r of a sample is the share of the image's other samples that it is preferred to.

    Without temperature the better one is preferred, and a tie counts one half. With temperature τ each pair is drawn
    once from the Bradley-Terry model, P(k before j) = 1 / (1 + exp((s_j − s_k)/τ)). The mean over the samples always is
    1/2. The environment needs ``samples_per_image`` of at least 2.

    Attributes:
        temperature: τ, in units of the score; 0: no chance.
    """

    temperature: float = 0.0

    def __post_init__(self) -> None:
        self.temperature = _number("temperature", self.temperature, least=0)

    def check(self, metadata: Mapping[str, Any]) -> None:
        if "samples_per_image" in metadata and (metadata["samples_per_image"] or 1) < 2:
            raise OptionError(
                "A preference compares the samples of an image: make the environment with samples_per_image=K, K at "
                "least 2."
            )

    def __call__(self, scores: Array, memory: dict[str, Any], draws: Draws) -> Array:
        samples = scores.shape[1]
        self.check({"samples_per_image": samples})
        ahead = scores[:, :, None] - scores[:, None]  # (B, K, K): positive where the first is better
        if self.temperature == 0:
            wins = (ahead > 0) * 1.0 + (ahead == 0) * 0.5
            return (wins.sum(2) - 0.5) / (samples - 1) + _zeros(scores)  # without the tie of each with itself
        chance = 0.5 + 0.5 * namespace(ahead).tanh(ahead / (2 * self.temperature))  # 1 / (1 + exp(-ahead / τ))
        first = 1 + (draws.uniform(ahead) < chance) * 1.0  # 2 where the first is preferred, 1 where the second is
        pairs = namespace(ahead).triu(first, 1)  # each pair once: above the diagonal
        return ((pairs == 2).sum(2) + (pairs == 1).sum(1)) / (samples - 1) + _zeros(scores)


SHAPES = ("affine", "power", "log", "logit")


@dataclass
class Shaping(Feedback):
    """A monotone function of every score: r = ``shift`` + ``scale``·f(s).

    f(s) is s (``"affine"``), s^``exponent`` (``"power"``), log max(s, ``epsilon``) (``"log"``) or log(s / (1 − s)) with
    s held between ``epsilon`` and 1 − ``epsilon`` (``"logit"``).

    Attributes:
        shape: which f.
        scale: factor.
        shift: summand.
        exponent: of ``"power"``, at least 0.
        epsilon: distance from 0 and 1 that ``"log"`` and ``"logit"`` keep, above 0 and at most 0.5.
    """

    shape: str = "affine"
    scale: float = 1.0
    shift: float = 0.0
    exponent: float = 1.0
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        check_choice("shape", self.shape, SHAPES)
        self.scale = _number("scale", self.scale)
        self.shift = _number("shift", self.shift)
        self.exponent = _number("exponent", self.exponent, least=0)
        self.epsilon = _number("epsilon", self.epsilon, least=0, most=0.5)
        if self.shape in ("log", "logit") and self.epsilon == 0:
            raise OptionError(f"shape={self.shape!r} needs an epsilon above 0: the logarithm of 0 is not finite.")

    def __call__(self, scores: Array, memory: dict[str, Any], draws: Draws) -> Array:
        xp = namespace(scores)
        if self.shape == "power":
            scores = scores.clip(0, None) ** self.exponent
        elif self.shape == "log":
            scores = xp.log(scores.clip(self.epsilon, None))
        elif self.shape == "logit":
            inside = scores.clip(self.epsilon, 1 - self.epsilon)
            scores = xp.log(inside) - xp.log(1 - inside)
        return self.shift + self.scale * scores


KINDS: dict[str, type[Feedback]] = {
    "noise": Noise,
    "stars": Stars,
    "threshold": Threshold,
    "delay": Delay,
    "baseline": Baseline,
    "drift": Drift,
    "preference": Preference,
    "shaping": Shaping,
}


def mean_score(scores: Array) -> Array:
    """Mean over the samples, (B, K) -> (B,), added in the order in which the environments add."""
    return tree_sum(scores) / scores.shape[-1]


def _zeros(scores: Array) -> Array:
    """Zeros of the scores' type, shape and device, and NaN where a score is NaN."""
    return 0.0 * scores.clip(0, 1)


def _number(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    if not is_number(value) or not least <= value <= most:
        limits = f" from {least:g} to {most:g}" if most < math.inf else f" of at least {least:g}" * (least > -math.inf)
        raise OptionError(f"{name} must be a finite number{limits}, got {value!r}.")
    return float(value)
