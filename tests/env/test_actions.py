"""Which actions are label maps, and what is said about the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.error import InvalidAction
from gymnasium.utils.env_checker import data_equivalence
from hypothesis import given, settings
from hypothesis import strategies as st

from rss_env import SegmentationEnv, SegmentationVectorEnv

MAP = (40, 48)
CLASSES = 5
ENVS = {
    "one label map": (SegmentationEnv, {}, MAP),
    "K samples": (SegmentationEnv, {"samples_per_image": 3}, (3, *MAP)),
    "vector": (SegmentationVectorEnv, {"num_envs": 2}, (2, *MAP)),
    "vector, K samples": (SegmentationVectorEnv, {"num_envs": 2, "samples_per_image": 3}, (2, 3, *MAP)),
}
every_env = pytest.mark.parametrize("name", ENVS)


def make(name: str) -> Any:
    kind, options, _ = ENVS[name]
    return kind("Shapes", image_size=MAP, num_images=8, num_classes=CLASSES, **options)


def put(value: Any, dtype: Any) -> Callable[[tuple[int, ...]], np.ndarray]:
    """A function from a shape to zeros of that dtype with one other value somewhere inside."""

    def build(shape: tuple[int, ...]) -> np.ndarray:
        action = np.zeros(shape, dtype)
        action[(-1,) * (len(shape) - 2) + (17, 29)] = value
        return action

    return build


WRONG = {
    "float": (lambda s: np.zeros(s), "must have an integer dtype, got float64.*argmax.*astype"),
    "float32": (lambda s: np.ones(s, np.float32), "must have an integer dtype, got float32"),
    "NaN": (lambda s: np.full(s, np.nan), "must have an integer dtype, got float64"),
    "infinity": (lambda s: np.full(s, np.inf), "must have an integer dtype, got float64"),
    "bool": (lambda s: np.zeros(s, bool), "must have an integer dtype, got bool"),
    "complex": (lambda s: np.zeros(s, complex), "must have an integer dtype, got complex128"),
    "object": (lambda s: np.zeros(s, object), "must have an integer dtype, got object"),
    "text": (lambda s: np.full(s, "0"), "must have an integer dtype, got <U1"),
    "time": (lambda s: np.zeros(s, "timedelta64[s]"), "must have an integer dtype, got timedelta64"),
    "None": (lambda s: None, "must have an integer dtype, got object"),
    "too large": (put(CLASSES, np.int64), r"holds classes 0\.\.4, got values from 0 to 5"),
    "ignore index": (put(255, np.uint8), r"holds classes 0\.\.4, got values from 0 to 255"),
    "wraps to 0 as uint8": (put(256, np.int64), r"holds classes 0\.\.4, got values from 0 to 256"),
    "wraps to 0 as uint32": (put(2**32, np.int64), r"holds classes 0\.\.4, got values from 0 to 4294967296"),
    "huge": (put(2**64 - 1, np.uint64), r"holds classes 0\.\.4, got values from 0 to 18446744073709551615"),
    "negative": (put(-1, np.int64), r"holds classes 0\.\.4, got values from -1 to 0"),
    "negative int8": (put(-1, np.int8), r"holds classes 0\.\.4, got values from -1 to 0"),
    "most negative": (put(-(2**63), np.int64), r"holds classes 0\.\.4, got values from -9223372036854775808 to 0"),
    "negative, big-endian": (put(-256, ">i2"), r"holds classes 0\.\.4, got values from -256 to 0"),
    "one number": (lambda s: 0, r"Expected label maps of shape \(.*40, 48\), got \(\)"),
    "flat": (lambda s: np.zeros(int(np.prod(s)), int), r"Expected label maps of shape \(.*40, 48\), got \(\d+,\)"),
    "transposed": (lambda s: np.zeros(s, int).swapaxes(-1, -2), r"shape \(.*40, 48\), got \(.*48, 40\)"),
    "one axis too many": (lambda s: np.zeros((1, *s), int), r"Expected label maps of shape \(.*40, 48\), got \(1,"),
    "one axis too few": (lambda s: np.zeros(s[1:], int), r"Expected label maps of shape \(.*40, 48\), got \("),
    "one row too few": (lambda s: np.zeros((*s[:-2], 39, 48), int), r"shape \(.*40, 48\), got \(.*39, 48\)"),
    "empty": (lambda s: np.zeros((*s[:-1], 0), int), r"shape \(.*40, 48\), got \(.*40, 0\)"),
}


@every_env
@pytest.mark.parametrize("wrong", WRONG)
def test_an_invalid_action_is_refused_and_costs_nothing(name: str, wrong: str):
    env, twin = make(name), make(name)
    build, message = WRONG[wrong]
    shape = ENVS[name][2]
    good = np.random.default_rng(0).integers(0, CLASSES, shape)
    env.reset(seed=0)
    twin.reset(seed=0)
    for _ in range(2):
        with pytest.raises(InvalidAction, match=message):
            env.step(build(shape))
        assert env.reward_queries == 0
    outcome, expected = env.step(good), twin.step(good)
    assert env.reward_queries == twin.reward_queries > 0
    assert data_equivalence(outcome, expected, exact=True)


@every_env
@settings(max_examples=60)
@given(
    kind=st.sampled_from(["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]),
    order=st.sampled_from("<>"),
    layout=st.sampled_from(["C", "F", "strided", "reversed", "read-only", "list"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_integer_dtype_and_memory_layout_scores_the_same(
    name: str, kind: str, order: str, layout: str, seed: int
):
    shape = ENVS[name][2]
    plain = np.random.default_rng(seed).integers(0, CLASSES, shape)
    action: Any = plain.astype(np.dtype(kind).newbyteorder(order))
    if layout == "F":
        action = np.asfortranarray(action)
    elif layout == "strided":
        action = np.repeat(action, 2, axis=-1)[..., ::2]
    elif layout == "reversed":
        action = np.ascontiguousarray(action[..., ::-1])[..., ::-1]
    elif layout == "read-only":
        action.flags.writeable = False
    elif layout == "list":
        action = action.tolist()
    env, twin = _cached(name)
    env.reset(seed=seed)
    twin.reset(seed=seed)
    assert data_equivalence(env.step(action), twin.step(plain), exact=True)


_made: dict[str, tuple[Any, Any]] = {}


def _cached(name: str) -> tuple[Any, Any]:
    if name not in _made:
        _made[name] = make(name), make(name)
    return _made[name]


@settings(max_examples=100)
@given(value=st.integers(-(2**63), 2**63 - 1), row=st.integers(0, 39), column=st.integers(0, 47))
def test_a_label_is_valid_exactly_from_0_to_c_minus_1(value: int, row: int, column: int):
    env, _ = _cached("one label map")
    env.reset(seed=0)
    action = np.zeros(MAP, np.int64)
    action[row, column] = value
    if 0 <= value < CLASSES:
        env.step(action)
    else:
        with pytest.raises(InvalidAction, match=r"holds classes 0\.\.4"):
            env.step(action)


@pytest.mark.parametrize("value", range(-1, CLASSES + 1))
def test_the_bounds_of_the_labels_are_exact(value: int):
    env, _ = _cached("one label map")
    env.reset(seed=0)
    action = np.full(MAP, value)
    if 0 <= value < CLASSES:
        assert 0 <= env.step(action)[1] < 1
    else:
        with pytest.raises(InvalidAction, match=f"got values from {value} to {value}"):
            env.step(action)
