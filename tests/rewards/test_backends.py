"""Every way of counting gives the same counts, and NumPy and torch the same scores to the last bit."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from rss_env.errors import OptionError
from rss_env.rewards import REWARDS, counting, score_images, score_pixels
from rss_env.rewards.counting import numba as count_numba
from rss_env.rewards.counting import numpy as count_numpy
from rss_env.rewards.counting import torch as count_torch
from tests.rewards.cases import Case, cases, random_case
from tests.rewards.test_rewards import PIXEL_REWARDS, reward_options

HOST = [count_numba, count_numpy]


def rows(case: Case) -> tuple[np.ndarray, np.ndarray]:
    maps = case.label_maps.astype(np.uint8)
    return maps.reshape(*maps.shape[:2], -1), case.targets.reshape(len(maps), -1)


@given(case=cases, chunk=st.sampled_from([1, 50, 1 << 26]))
def test_numpy_numba_and_torch_count_alike(case: Case, chunk: int):
    maps, truth = rows(case)
    expected = count_numpy.count_labels(maps, truth, case.classes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(count_torch, "CHUNK", chunk)
        on_torch = count_torch.count_labels(torch.from_numpy(maps), torch.from_numpy(truth), case.classes)
        classes = count_torch.count_classes(torch.from_numpy(truth), case.classes)
    for ours in (count_numba.count_labels(maps, truth, case.classes), [c.numpy() for c in on_torch]):
        for found, right in zip(ours, expected, strict=True):
            assert found.dtype == np.int64
            np.testing.assert_array_equal(found, right)
    by_class = count_numpy.count_classes(truth, case.classes)
    np.testing.assert_array_equal(count_numba.count_classes(truth, case.classes), by_class)
    np.testing.assert_array_equal(classes.numpy(), by_class)


@pytest.mark.parametrize("pixels", [1, 63, 64, 191, 192, 193, 384, 1000, 4096])
@pytest.mark.parametrize("classes", [2, 39, 40, 41, 127, 128, 254, 255])
def test_numba_counts_as_numpy_does_around_its_limits(classes: int, pixels: int):
    case = random_case(classes * pixels, (2, 3, 1, pixels), classes, 0.2, "uint8")
    maps, truth = rows(case)
    for found, right in zip(
        count_numba.count_labels(maps, truth, classes), count_numpy.count_labels(maps, truth, classes), strict=True
    ):
        np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("backend", HOST)
@pytest.mark.parametrize("classes", [3, 200])
def test_targets_may_be_read_where_they_are(backend: Any, classes: int):
    case = random_case(5, (6, 2, 7, 30), classes, 0.2, "uint8")
    maps, truth = rows(case)
    chosen = np.array([4, 0, 4, 5])
    expected = backend.count_labels(maps[:4], truth[chosen], classes)
    for found, right in zip(backend.count_labels(maps[:4], truth, classes, chosen), expected, strict=True):
        np.testing.assert_array_equal(found, right)
    for known in (None, counting.count_classes(case.targets[chosen], classes)):
        whole = counting.count_labels(case.label_maps[:4], case.targets, classes, known, rows=chosen)
        copied = counting.count_labels(case.label_maps[:4], case.targets[chosen], classes)
        for found, right in zip(whole, copied, strict=True):
            np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("backend", HOST)
@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", ">i2", "<u2", ">i4", "<i8", ">i8", "<u8"])
def test_narrow_converts_labels_and_refuses_those_outside(backend: Any, dtype: str):
    maps = np.random.default_rng(0).integers(0, 5, (3, 4, 70)).astype(dtype)[..., ::2]
    narrowed = backend.narrow(maps, 5)
    assert narrowed.dtype == np.uint8
    np.testing.assert_array_equal(narrowed, maps)
    limits = np.iinfo(dtype)
    for wrong in {5, 100, int(limits.max), int(limits.min)} - {0}:
        spoiled = maps.copy()
        spoiled[1, 2, 3] = wrong
        assert backend.narrow(spoiled, 5) is None
    assert backend.narrow(maps[:0], 5).shape == (0, 4, 35)


# NumPy and torch


def as_tensors(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(case.label_maps), torch.from_numpy(case.targets)


def own_options(name: str) -> dict[str, Any]:
    """A value for each of a reward's own options, for five classes."""
    every = {"class_weights": [1.0, 2.0, 0.5, 1.0, 0.0], "classes": "target", "tolerance": 1.5}
    return {key: every[key] for key in REWARDS[name].options}


@pytest.fixture(params=["as on the host", "as on an accelerator"])
def counted(request: pytest.FixtureRequest) -> Iterator[None]:
    """Also makes tensors of the CPU be counted as those of an accelerator are."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "as on an accelerator":
            patch.setattr(torch.Tensor, "is_cpu", property(lambda tensor: False))
            patch.setattr(count_torch, "CHUNK", 300)
        yield


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("name", REWARDS)
@given(data=st.data(), case=cases)
@settings(max_examples=60)
def test_torch_scores_are_numpys_to_the_last_bit(name: str, data: st.DataObject, case: Case):
    options = data.draw(reward_options(name, case.classes))
    expected = score_images(name, case.label_maps, case.targets, case.classes, **options)
    found = score_images(name, *as_tensors(case), case.classes, **options)
    assert found.dtype == torch.float64
    np.testing.assert_array_equal(found.numpy(), expected)
    if name in PIXEL_REWARDS:
        pixels = score_pixels(name, *as_tensors(case), case.classes, **options)
        assert pixels.dtype == torch.float32
        expected = score_pixels(name, case.label_maps, case.targets, case.classes, **options)
        np.testing.assert_array_equal(pixels.numpy(), expected)


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_arrays_with_gaps_and_swapped_axes_score_as_their_copies(name: str, dtype: str):
    case = random_case(3, (4, 6, 10, 20), 7, 0.2, dtype)
    for change in (lambda a: a[::2, ..., ::2], lambda a: a.swapaxes(-1, -2)):
        gaps = [change(array) for array in case[:2]]
        torch_gaps = [change(tensor) for tensor in as_tensors(case)]
        assert not any(array.flags.c_contiguous for array in gaps)
        assert not any(tensor.is_contiguous() for tensor in torch_gaps)
        scores = [score_images, score_pixels] if name in PIXEL_REWARDS else [score_images]
        for score in scores:
            expected = score(name, *(array.copy() for array in gaps), 7)
            np.testing.assert_array_equal(score(name, *gaps, 7), expected)
            np.testing.assert_array_equal(score(name, *torch_gaps, 7).numpy(), expected)


class NoWaiting(TorchDispatchMode):
    """Fails on operations for which the host would have to wait for an accelerator."""

    WAITING = ("_local_scalar_dense", "nonzero", "item", "masked_select", "unique", "is_nonzero", "equal")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        assert name not in self.WAITING, f"{name} waits for the device"
        if name in ("index", "index_put", "index_put_"):
            assert not any(i is not None and i.dtype == torch.bool for i in args[1]), f"a mask in {name} waits"
        return func(*args, **(kwargs or {}))


def test_the_guard_against_waiting_can_fail():
    for wait in (lambda t: t.max().item(), lambda t: t[t > 1], lambda t: bool(t.any())):
        with pytest.raises(AssertionError, match="waits"), NoWaiting():
            wait(torch.arange(4))


@pytest.mark.parametrize("name", REWARDS)
def test_no_score_waits_for_an_accelerator(name: str, monkeypatch: pytest.MonkeyPatch):
    case = random_case(0, (2, 3, 12, 15), 5, 0.2, "uint8")
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda tensor: False))
    for chosen in ({}, own_options(name)):
        score_images(name, *as_tensors(case), 5, **chosen)  # constants reach the device once
        with NoWaiting():
            score_images(name, *as_tensors(case), 5, **chosen)
            if name in PIXEL_REWARDS:
                score_pixels(name, *as_tensors(case), 5, **chosen)


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_scoring_leaves_its_arguments_alone(name: str, dtype: str):
    case = random_case(1, (2, 3, 12, 15), 5, 0.2, dtype)
    copies = case.label_maps.copy(), case.targets.copy()
    for chosen in ({}, own_options(name)):
        for arrays in (case[:2], as_tensors(case)):
            score_images(name, *arrays, 5, **chosen)
            if name in PIXEL_REWARDS:
                score_pixels(name, *arrays, 5, **chosen)
    np.testing.assert_array_equal(case.label_maps, copies[0])
    np.testing.assert_array_equal(case.targets, copies[1])


@pytest.mark.parametrize("name", REWARDS)
def test_arrays_that_may_not_be_written_to_are_scored(name: str):
    case = random_case(1, (2, 3, 12, 15), 5, 0.2, "uint8")
    expected = score_images(name, case.label_maps, case.targets, 5)
    for array in case[:2]:
        array.flags.writeable = False
    np.testing.assert_array_equal(score_images(name, case.label_maps, case.targets, 5), expected)


# Which backend


@pytest.fixture
def choice(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    counting.backend.cache_clear()
    yield monkeypatch
    counting.backend.cache_clear()


def test_numba_counts_where_it_is_installed_unless_another_is_chosen(choice: pytest.MonkeyPatch):
    choice.delenv("RSS_COUNTS", raising=False)
    assert counting.backend() is count_numba
    counting.backend.cache_clear()
    choice.setenv("RSS_COUNTS", "numpy")
    assert counting.backend() is count_numpy


def test_numpy_counts_where_numba_is_not_installed(choice: pytest.MonkeyPatch):
    choice.delenv("RSS_COUNTS", raising=False)
    choice.setattr(importlib.util, "find_spec", lambda name: None)
    assert counting.backend() is count_numpy


def test_an_unknown_backend_is_an_error_that_lists_the_valid_ones(choice: pytest.MonkeyPatch):
    choice.setenv("RSS_COUNTS", "cupy")
    with pytest.raises(OptionError, match="Unknown RSS_COUNTS='cupy'; valid: numba, numpy, triton, torch"):
        score_images("mean_iou", np.zeros((1, 1, 2, 2), np.uint8), np.zeros((1, 2, 2), np.uint8), 2)
