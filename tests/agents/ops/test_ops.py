"""The compiled and the plain operations against float64 oracles, and which of them runs."""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from agents.ops import class_credit, dispatch, library, policy_gradient, sample_label_maps, soft_counts, torch_ops
from rss_env.errors import OptionError

# A test's fixture stays the same for all of its examples.
every_example = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = ["sample_label_maps", "soft_counts", "class_credit", "policy_gradient"]
WITHOUT_NUMBA = importlib.util.find_spec("numba") is None
needs_numba = pytest.mark.skipif(WITHOUT_NUMBA, reason="needs numba: pip install 'rss-env[fast]'")


@pytest.fixture(params=["torch", pytest.param("numba", marks=needs_numba)])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each implementation in turn, while the other one is out of order."""
    monkeypatch.setenv("RSS_OPS", request.param)
    if request.param == "numba":
        put_out_of_order(monkeypatch, torch_ops)
    elif not WITHOUT_NUMBA:
        from agents.ops import numba_ops

        put_out_of_order(monkeypatch, numba_ops)
    return request.param


def put_out_of_order(patch: pytest.MonkeyPatch, module: Any) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError(f"{module.__name__} was used")

    for name in NAMES:
        patch.setattr(module, name, refuse)


def one_hot(label_maps: np.ndarray, classes: int) -> np.ndarray:
    """float64 (M, C, H, W), the tensor that the agent never forms."""
    return (label_maps[:, None] == np.arange(classes)[:, None, None]).astype(np.float64)


def draw_case(
    batch: int, per_image: list[int], classes: int, size: tuple[int, int], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities (B, C, H, W), label maps (M, H, W) and the image of each, in any order."""
    rng = np.random.default_rng(seed)
    weights = rng.gamma(1.0, size=(batch, classes, *size)) + 1e-9
    image = rng.permutation(np.repeat(np.arange(batch), per_image))
    label_maps = rng.integers(0, classes, (len(image), *size)).astype(np.uint8)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32), label_maps, image


cases = st.builds(
    draw_case,
    batch=st.just(3),
    per_image=st.tuples(st.integers(0, 5), st.integers(1, 5), st.integers(0, 5)).map(list),
    classes=st.integers(2, 255),
    size=st.tuples(st.integers(1, 7), st.integers(1, 9)),
    seed=st.integers(0, 2**32 - 1),
)
Case = tuple[np.ndarray, np.ndarray, np.ndarray]


# Soft counts


def count_oracle(probabilities: np.ndarray, label_maps: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    chosen = one_hot(label_maps, probabilities.shape[1])
    return (chosen * probabilities.astype(np.float64)[image]).sum(axis=(2, 3)), chosen.sum(axis=(2, 3))


@every_example
@given(case=cases)
def test_soft_counts_are_the_expected_right_pixels_and_the_pixels_of_each_class(backend: str, case: Case) -> None:
    expected, predicted = soft_counts(*map(torch.from_numpy, case))
    right, number = count_oracle(*case)
    assert expected.dtype == predicted.dtype == torch.float32
    np.testing.assert_allclose(expected, right, rtol=2e-6, atol=0)
    np.testing.assert_array_equal(predicted, number)


@pytest.mark.parametrize("layout", ["channels_last", "strided", "gradient"])
def test_soft_counts_take_any_memory_layout(backend: str, layout: str) -> None:
    case = draw_case(3, [2, 4, 1], 6, (5, 8), 0)
    p, label_maps, image = map(torch.from_numpy, case)
    if layout == "channels_last":
        p, image = p.contiguous(memory_format=torch.channels_last), torch.stack([image, image], dim=1)[:, 0]
        assert not image.is_contiguous()
    elif layout == "strided":
        p = torch.stack([p, 1 - p], dim=-1)[..., 0]
        label_maps = label_maps.transpose(1, 2).contiguous().transpose(1, 2)
        assert not label_maps.is_contiguous()
    else:
        p.requires_grad_()
    assert p.is_contiguous() == (layout == "gradient")
    expected, predicted = soft_counts(p, label_maps, image)
    right, number = count_oracle(*case)
    np.testing.assert_allclose(expected.detach(), right, rtol=1e-6, atol=0)
    np.testing.assert_array_equal(predicted.detach(), number)


@pytest.mark.parametrize("classes", [2, 7])
def test_counts_of_large_images_are_exact(backend: str, classes: int) -> None:
    # Multiples of 1/64: float32 holds every sum of 120,000 of them.
    rng = np.random.default_rng(classes)
    p = rng.integers(0, 65, (2, classes, 300, 400)).astype(np.float32) / 64
    label_maps = np.minimum(rng.integers(0, classes * 4, (3, 300, 400)), classes - 1).astype(np.uint8)
    label_maps[2] = 1
    image = np.array([1, 0, 1])
    expected, predicted = soft_counts(*map(torch.from_numpy, (p, label_maps, image)))
    right, number = count_oracle(p, label_maps, image)
    assert number.max() == 120_000
    np.testing.assert_array_equal(predicted, number)
    np.testing.assert_array_equal(expected, right)


@needs_numba
def test_compiled_sums_over_large_images_are_as_good_as_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSS_OPS", "numba")
    p = torch.full((1, 2, 1000, 1200), 1 / 3)
    expected, predicted = soft_counts(p, torch.ones(1, 1000, 1200, dtype=torch.uint8), torch.zeros(1, dtype=torch.long))
    assert predicted.tolist() == [[0, 1_200_000]]
    assert expected[0, 0] == 0
    assert expected[0, 1].item() == pytest.approx(400_000, rel=2e-5)


# Class credit


def class_credit_oracle(label_maps: np.ndarray, image: np.ndarray, weights: np.ndarray, batch: int) -> np.ndarray:
    chosen = one_hot(label_maps, weights.shape[1])
    out = np.zeros((batch, *chosen.shape[1:]))
    for m, b in enumerate(image):
        out[b] += weights[m].astype(np.float64)[:, None, None] * chosen[m]
    return out


@every_example
@given(case=cases, seed=st.integers(0, 2**32 - 1))
def test_class_credit_sums_the_weights_of_the_classes_that_the_label_maps_have(
    backend: str, case: Case, seed: int
) -> None:
    p, label_maps, image = case
    weights = np.random.default_rng(seed).normal(0, 3, (len(image), p.shape[1])).astype(np.float32)
    result = class_credit(torch.from_numpy(label_maps), torch.from_numpy(image), torch.from_numpy(weights), len(p))
    assert result.dtype == torch.float32
    assert result.shape == p.shape
    expected = class_credit_oracle(label_maps, image, weights, len(p))
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def test_class_credit_takes_any_memory_layout(backend: str) -> None:
    _, label_maps, image = draw_case(3, [2, 4, 1], 6, (5, 8), 0)
    weights = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
    strided_maps = torch.from_numpy(label_maps).transpose(1, 2).contiguous().transpose(1, 2)
    strided_weights = torch.from_numpy(weights).T.contiguous().T
    strided_image = torch.from_numpy(np.repeat(image, 2))[::2]
    assert not any(tensor.is_contiguous() for tensor in (strided_maps, strided_weights, strided_image))
    result = class_credit(strided_maps, strided_image, strided_weights, 3)
    expected = class_credit_oracle(label_maps, image, weights, 3)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)


def test_images_without_label_maps_get_no_credit(backend: str) -> None:
    label_maps, image = torch.ones(2, 3, 4, dtype=torch.uint8), torch.tensor([2, 2])
    result = class_credit(label_maps, image, torch.full((2, 3), 0.5), 4)
    expected = torch.zeros(4, 3, 3, 4)
    expected[2, 1] = 1.0
    assert torch.equal(result, expected)


# Both


@needs_numba
@given(
    size=st.tuples(*(st.integers(1, most) for most in (3, 6, 9, 11))),
    classes=st.integers(2, 255),
    sharpness=st.floats(0, 30),
    channels_last=st.booleans(),
    cell=st.integers(1, 5),
    seed=st.integers(0, 2**63 - 1),
)
def test_both_implementations_draw_the_same_label_maps_from_the_same_seed(
    size: tuple[int, int, int, int], classes: int, sharpness: float, channels_last: bool, cell: int, seed: int
) -> None:
    batch, samples, height, width = size
    logits = sharpness * torch.randn(batch, classes, height, width, generator=torch.Generator().manual_seed(seed))
    if channels_last:
        logits = logits.contiguous(memory_format=torch.channels_last)
    drawn = []
    for name in ("torch", "numba"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RSS_OPS", name)
            drawn.append(sample_label_maps(logits, samples, seed, temperature=1.7, cell=cell, offset=(seed % 3, 1)))
    assert torch.equal(*drawn)


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation gave back, also within our own."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self.implementation = importlib.import_module(f"agents.ops.{backend}_ops")
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == library.NAMESPACE:
            with self:
                return getattr(self.implementation, func.name().removeprefix(f"{library.NAMESPACE}::"))(*args)
        result = func(*args, **(kwargs or {}))
        for output in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(output, torch.Tensor):
                self.most = max(self.most, output.numel())
        return result


def step(logits: torch.Tensor, label_maps: torch.Tensor, advantages: torch.Tensor) -> None:
    """Forward and backward pass of both outputs of the policy gradient."""
    sum(policy_gradient(logits.detach().requires_grad_(), label_maps, advantages)).backward()


BATCH, SAMPLES, CLASSES, HEIGHT, WIDTH = 2, 24, 21, 32, 33
OPERATIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "sample_label_maps": lambda p, maps: sample_label_maps(p, SAMPLES, 0),
    "soft_counts": lambda p, maps: soft_counts(p, maps.flatten(0, 1), torch.arange(BATCH).repeat_interleave(SAMPLES)),
    "class_credit": lambda p, maps: class_credit(
        maps.flatten(0, 1),
        torch.arange(BATCH).repeat_interleave(SAMPLES),
        torch.ones(BATCH * SAMPLES, CLASSES),
        BATCH,
    ),
    "policy_gradient, image level": lambda p, maps: step(p, maps, torch.ones(BATCH, SAMPLES, 1, 1)),
    "policy_gradient, pixel level": lambda p, maps: step(p, maps, torch.ones(BATCH, SAMPLES, HEIGHT, WIDTH)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_operation_forms_an_array_of_all_samples_and_classes(backend: str, name: str) -> None:
    p = torch.full((BATCH, CLASSES, HEIGHT, WIDTH), 1 / CLASSES)
    label_maps = torch.zeros(BATCH, SAMPLES, HEIGHT, WIDTH, dtype=torch.uint8)
    with LargestTensor(backend):
        OPERATIONS[name](p, label_maps)  # whatever is compiled or imported at the first call
    largest = max(p.numel(), label_maps.numel())
    tracemalloc.start()  # sees NumPy's arrays
    try:
        with LargestTensor(backend) as recorder:
            OPERATIONS[name](p, label_maps)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0 < recorder.most <= largest
    assert peak < 3 * 8 * largest < 4 * label_maps.numel() * CLASSES  # three arrays of 8 bytes an element


# Which of them


@pytest.fixture
def choice(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    dispatch.chosen.cache_clear()
    yield monkeypatch
    dispatch.chosen.cache_clear()


def run_every_operation() -> None:
    for operation in OPERATIONS.values():
        operation(
            torch.full((BATCH, CLASSES, HEIGHT, WIDTH), 1 / CLASSES),
            torch.zeros(BATCH, SAMPLES, HEIGHT, WIDTH, dtype=torch.uint8),
        )


def hide_numba(patch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    patch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "numba" else find(name, *rest))
    patch.setitem(sys.modules, "agents.ops.numba_ops", None)  # so that its import fails


@needs_numba
def test_numba_runs_where_it_is_installed_unless_another_is_asked_for(choice: pytest.MonkeyPatch) -> None:
    put_out_of_order(choice, torch_ops)
    choice.delenv("RSS_OPS", raising=False)
    run_every_operation()
    choice.setenv("RSS_OPS", "torch")
    for operation in OPERATIONS.values():
        with pytest.raises(AssertionError, match="torch_ops was used"):
            operation(
                torch.full((BATCH, CLASSES, HEIGHT, WIDTH), 1 / CLASSES),
                torch.zeros(BATCH, SAMPLES, HEIGHT, WIDTH, dtype=torch.uint8),
            )


def test_torch_runs_where_numba_is_not_installed(choice: pytest.MonkeyPatch) -> None:
    hide_numba(choice)
    choice.delenv("RSS_OPS", raising=False)
    run_every_operation()


def test_numba_that_is_not_installed_is_an_error_that_says_how_to_install_it(choice: pytest.MonkeyPatch) -> None:
    hide_numba(choice)
    choice.setenv("RSS_OPS", "numba")
    with pytest.raises(OptionError, match=r"RSS_OPS=numba needs Numba: pip install 'rss-env\[fast\]'"):
        sample_label_maps(torch.zeros(1, 2, 3, 4), 2, 0)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_an_unknown_implementation_is_an_error_that_lists_the_valid_ones(
    choice: pytest.MonkeyPatch, operation: Callable[[torch.Tensor, torch.Tensor], Any]
) -> None:
    choice.setenv("RSS_OPS", "cupy")
    with pytest.raises(OptionError, match=r"RSS_OPS='cupy' is not known; valid: torch, numba, triton"):
        operation(
            torch.full((BATCH, CLASSES, HEIGHT, WIDTH), 1 / CLASSES),
            torch.zeros(BATCH, SAMPLES, HEIGHT, WIDTH, dtype=torch.uint8),
        )


def operations(seed: int) -> list[torch.Tensor]:
    """What the operations that are shared among threads give for the same label maps."""
    from agents.ops import numba_ops

    torch.manual_seed(seed)
    logits, image = torch.randn(5, 3, 7, 9), torch.randint(0, 5, (40,))
    label_maps = torch.randint(0, 3, (40, 7, 9), dtype=torch.uint8)
    unpacked = torch.empty_like(label_maps)
    numba_ops.unpack_labels(unpacked, [numba_ops.pack_labels(label_map, 3) for label_map in label_maps], 3)
    drawn = numba_ops.sample_label_maps(logits, 6, torch.tensor(seed), 1.0, 1, torch.tensor([0, 0]))
    counts = numba_ops.soft_counts(logits.softmax(1), label_maps, image)
    return [unpacked, drawn, *counts, numba_ops.class_credit(label_maps, image, torch.randn(40, 3), 5)]


@needs_numba
def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    from agents.ops import numba_ops

    alone = operations(3)
    monkeypatch.setattr(numba_ops, "WORTH", 1)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            for one, shared in zip(alone, operations(3), strict=True):
                assert torch.equal(one, shared)
    finally:
        torch.set_num_threads(before)


def ranges_of() -> list[tuple[int, int]]:
    from agents.ops import numba_ops

    seen: list[tuple[int, int]] = []
    numba_ops._share(8, numba_ops.WORTH, lambda *ends: seen.append(ends))
    return sorted(seen)


@needs_numba
def test_ranges_make_up_the_whole_and_an_error_in_a_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    from agents.ops import numba_ops

    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    seen: list[tuple[int, int]] = []
    numba_ops._share(8, numba_ops.WORTH, lambda *ends: seen.append(ends))
    assert sorted(seen) == [(0, 2), (2, 5), (5, 8)]
    seen.clear()
    numba_ops._share(8, numba_ops.WORTH - 1, lambda *ends: seen.append(ends))
    numba_ops._share(2, numba_ops.WORTH, lambda *ends: seen.append(ends))
    assert sorted(seen) == [(0, 1), (0, 8), (1, 2)]

    if "fork" in multiprocessing.get_all_start_methods():  # the threads of the parent are not in the child
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.apply_async(ranges_of).get(timeout=60) == [(0, 2), (2, 5), (5, 8)]

    def fail(first: int, last: int) -> None:
        if last == 8:
            raise MemoryError

    with pytest.raises(MemoryError):
        numba_ops._share(8, numba_ops.WORTH, fail)
