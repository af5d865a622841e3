"""Which tensors and arrays are label maps for the torch vector env, and what is said about the others, and when."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.error import InvalidAction

from tests.env.torch_pair import MAP, PATHS, assert_same, on_path, pair, random_maps
from tests.trees import dataset_kwargs


@pytest.fixture(params=PATHS, scope="module", autouse=True)
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test here is done on both paths."""
    with on_path(request.param) as path:
        yield path


INTEGERS = ["uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"]


def spread(maps: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.repeat(maps, 2, axis=-1))[..., ::2]


def transposed(maps: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(maps.swapaxes(-1, -2))).transpose(-1, -2)


def locked(maps: np.ndarray) -> np.ndarray:
    maps.flags.writeable = False
    return maps


LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "tensor": torch.from_numpy,
    "strided tensor": spread,
    "transposed tensor": transposed,
    "array": lambda maps: maps,
    "Fortran array": np.asfortranarray,
    "reversed array": lambda maps: np.ascontiguousarray(maps[..., ::-1])[..., ::-1],
    "read-only array": locked,
    "big-endian array": lambda maps: maps.astype(maps.dtype.newbyteorder(">")),
    "list": lambda maps: maps.tolist(),
}


@pytest.mark.parametrize("samples", [None, 2])
@pytest.mark.parametrize("classes", ["few", "more than an int8 holds"])
def test_every_integer_dtype_and_memory_layout_scores_the_same(samples: int | None, classes: str, tmp_path: Path):
    data = {} if classes == "few" else {"dataset": "ADE20K", **dataset_kwargs("ADE20K", tmp_path)}
    envs, twin = pair(2, samples_per_image=samples, reward="pixel_accuracy", **data)
    envs.reset(seed=0)
    twin.reset(seed=0)
    for number, (dtype, layout) in enumerate(itertools.product(INTEGERS, LAYOUTS)):
        maps = (random_maps(twin, number) % 128).astype(dtype)
        expected = twin.step(maps.copy())
        assert_same(envs.step(LAYOUTS[layout](maps)), expected)


def test_one_label_map_may_be_given_to_all_by_expanding_it():
    envs, twin = pair()
    envs.reset(seed=0)
    twin.reset(seed=0)
    maps = random_maps(twin)[0]
    assert_same(envs.step(torch.from_numpy(maps).expand(3, -1, -1)), twin.step(np.broadcast_to(maps, (3, *MAP))))


SHAPE = (3, *MAP)
WRONG_FORM: dict[str, tuple[Callable[[], Any], str]] = {
    "float": (lambda: torch.zeros(SHAPE), r"must have an integer dtype, got torch\.float32.*argmax.*\.long\(\)"),
    "half": (lambda: torch.zeros(SHAPE).half(), r"must have an integer dtype, got torch\.float16"),
    "with gradient": (lambda: torch.zeros(SHAPE, requires_grad=True), r"must have an integer dtype, got torch\.float"),
    "bool": (lambda: torch.zeros(SHAPE).bool(), r"must have an integer dtype, got torch\.bool"),
    "complex": (lambda: torch.zeros(SHAPE, dtype=torch.complex64), r"must have an integer dtype, got torch\.complex64"),
    "float array": (lambda: np.zeros(SHAPE), "must have an integer dtype, got float64"),
    "None": (lambda: None, "must have an integer dtype, got object"),
    "one number": (lambda: torch.tensor(0), r"Expected label maps of shape \(3, 40, 48\), got \(\)"),
    "class scores": (lambda: torch.zeros(3, 5, *MAP).long(), r"Expected .* \(3, 40, 48\), got \(3, 5, 40, 48\)"),
    "transposed": (lambda: torch.zeros(SHAPE).long().mT, r"Expected .* \(3, 40, 48\), got \(3, 48, 40\)"),
    "empty": (lambda: torch.zeros(3, 40, 0).long(), r"Expected .* \(3, 40, 48\), got \(3, 40, 0\)"),
    "array with a label too large": (lambda: put(5, np.int64), r"holds classes 0\.\.4, got values from 0 to 5"),
    "array with a negative label": (lambda: put(-1, np.int8), r"holds classes 0\.\.4, got values from -1 to 0"),
}  # fmt: skip


def put(value: int, dtype: Any) -> np.ndarray:
    """Zeros with one other label in them."""
    maps = np.zeros(SHAPE, dtype)
    maps[1, 17, 29] = value
    return maps


@pytest.mark.parametrize("wrong", WRONG_FORM)
def test_a_wrong_form_or_wrong_labels_on_the_host_are_refused_at_once_and_cost_nothing(wrong: str):
    envs, twin = pair()
    build, message = WRONG_FORM[wrong]
    envs.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(InvalidAction, match=message):
        envs.step(build())
    assert envs.reward_queries == 0
    maps = random_maps(twin)
    assert_same(envs.step(torch.from_numpy(maps)), twin.step(maps))


WRONG_LABELS = {
    f"{value} as {dtype}": put(value, dtype)
    for dtype, value in (
        ("uint8", 5), ("uint8", 255), ("int8", 5), ("int8", -1), ("int16", 256), ("int32", -256), ("int64", 2**32),
        ("int64", -(2**63)), ("uint16", 256), ("uint32", 2**31), ("uint64", 2**63), ("uint64", 2**64 - 1),
    )
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_LABELS)
@pytest.mark.parametrize("hears", ["step", "reset", "close"])
def test_wrong_labels_are_refused_at_once_on_the_host_and_by_the_next_call_on_an_accelerator(
    wrong: str, hears: str, path: str
):
    envs, twin = pair()
    outcome = envs.reset(seed=0)
    assert_same(outcome, twin.reset(seed=0))
    bad, maps = torch.from_numpy(WRONG_LABELS[wrong]), random_maps(twin)
    if path == "on the host":
        with pytest.raises(InvalidAction, match=r"holds classes 0\.\.4, got values from "):
            envs.step(bad)
    else:
        rewards = envs.step(bad)[1]
        assert ((rewards >= 0) & (rewards <= 1)).all()
        twin.step(np.clip(WRONG_LABELS[wrong], 0, 4))
        calls = {"step": lambda: envs.step(torch.from_numpy(maps)), "reset": envs.reset, "close": envs.close}
        with pytest.raises(InvalidAction, match=r"of an earlier step held values outside 0\.\.4\. .*device=\"cpu\""):
            calls[hears]()
    assert_same(envs.step(torch.from_numpy(maps)), twin.step(maps))  # heard once, and nothing has moved on
    assert_same(envs.reset(seed=2), twin.reset(seed=2))
    envs.close()


def step_and_wait(envs: Any, maps: np.ndarray) -> None:
    envs.step(torch.from_numpy(maps))
    envs._task.check_earlier(wait=True)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_bounds_of_the_labels_are_exact(dtype: str):
    envs, _ = pair()
    envs.reset(seed=0)
    for value in range(5):
        step_and_wait(envs, put(value, dtype))
    for value in (5, 6, -1):
        if value < 0 and dtype.startswith("u"):
            continue
        with pytest.raises(InvalidAction):
            step_and_wait(envs, put(value, dtype))
