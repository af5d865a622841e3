"""The Triton kernel counts as NumPy does, one label map after the other; on a CPU it runs in Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from rss_env.errors import OptionError
from rss_env.rewards import count_classes, counting, score_images
from rss_env.rewards.counting import numpy as count_numpy
from rss_env.rewards.counting import torch as count_torch
from tests.rewards.cases import Case, cases, random_case

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
DEVICE = torch.device("cuda" if CUDA else "cpu")
every_example = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    pytest.importorskip("triton", reason="needs triton: pip install triton")
    from rss_env.rewards.counting import triton as count_triton

    return count_triton


def oracle(maps: np.ndarray, truth: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Intersections and predictions (B, K, C) of label maps (B, K, pixels) and truth (B, pixels)."""
    counted = np.zeros((2, *maps.shape[:2], classes), np.int64)
    for b, k in np.ndindex(maps.shape[:2]):
        label_map, target = maps[b, k], truth[b]
        counted[0, b, k] = np.bincount(label_map[label_map == target], minlength=classes)[:classes]
        counted[1, b, k] = np.bincount(label_map[target != 255], minlength=classes)[:classes]
    return counted[0], counted[1]


def check(kernels: ModuleType, maps: torch.Tensor, truth: torch.Tensor, classes: int) -> None:
    results = kernels.count_labels(maps.to(DEVICE), truth.to(DEVICE), classes)
    for found, right in zip(results, oracle(maps.numpy(), truth.numpy(), classes), strict=True):
        assert found.dtype == torch.int64
        np.testing.assert_array_equal(found.cpu(), right)


def rows(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    maps, truth = torch.from_numpy(case.label_maps.astype(np.uint8)), torch.from_numpy(case.targets)
    return maps.flatten(2), truth.flatten(1)


@given(case=cases)
@every_example
def test_counts_are_those_of_each_label_map_by_itself(kernels: ModuleType, case: Case) -> None:
    check(kernels, *rows(case), case.classes)


@pytest.mark.parametrize("size", [1, 511, 512, 513, 4095, 4096, 4097, 9001])
@pytest.mark.parametrize("classes", [2, 21, 127, 128, 255])
def test_counts_of_images_around_the_size_of_a_block(kernels: ModuleType, classes: int, size: int) -> None:
    check(kernels, *rows(random_case(classes * size, (2, 2, 1, size), classes, 0.2, "uint8")), classes)


@pytest.mark.parametrize("classes", [2, 21, 255])
def test_images_that_are_ignored_wholly_count_nothing(kernels: ModuleType, classes: int) -> None:
    maps = torch.randint(classes, (2, 3, 700), dtype=torch.uint8, device=DEVICE)
    truth = torch.full((2, 700), 255, dtype=torch.uint8, device=DEVICE)
    for counted in kernels.count_labels(maps, truth, classes):
        assert torch.equal(counted, torch.zeros_like(counted))
    assert not kernels.count_classes(truth, classes).any()


def test_counts_by_hand(kernels: ModuleType) -> None:
    maps = torch.tensor([[[0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]]], dtype=torch.uint8, device=DEVICE)
    truth = torch.tensor([[0, 1, 1, 0, 255, 255]], dtype=torch.uint8, device=DEVICE)
    intersection, predicted = kernels.count_labels(maps, truth, 3)
    assert intersection.tolist() == [[[1, 1, 0], [2, 0, 0]]]
    assert predicted.tolist() == [[[2, 2, 0], [4, 0, 0]]]
    assert kernels.count_classes(truth, 3).tolist() == [[2, 2, 0]]


@pytest.mark.parametrize("classes", [2, 5, 31, 32, 63, 64, 254])
def test_labels_outside_of_the_classes_are_counted_for_none(kernels: ModuleType, classes: int) -> None:
    maps = torch.arange(256, dtype=torch.uint8).repeat(1, 2, 3)  # (1, 2, 768)
    truth = torch.cat([torch.zeros(512, dtype=torch.uint8), torch.arange(256, dtype=torch.uint8)])[None]
    intersection, predicted = (
        counted.cpu() for counted in kernels.count_labels(maps.to(DEVICE), truth.to(DEVICE), classes)
    )
    right = torch.ones(1, 2, classes, dtype=torch.int64)
    right[..., 0] = 3
    assert torch.equal(intersection, right)
    assert torch.equal(predicted, torch.full((1, 2, classes), 3))
    np.testing.assert_array_equal(kernels.count_classes(maps[0].to(DEVICE), classes).cpu(), np.full((2, classes), 3))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[..., ::2],
        lambda t: t.flip(0).transpose(0, -1).contiguous().transpose(0, -1),
        lambda t: t[1:, ..., 3:],
    ],
    ids=["gaps", "swapped axes", "part"],
)
def test_arrays_are_read_where_they_are(kernels: ModuleType, change) -> None:  # type: ignore[no-untyped-def]
    maps, truth = (change(t.to(DEVICE)) for t in rows(random_case(4, (3, 2, 9, 100), 7, 0.2, "uint8")))
    assert not maps.is_contiguous()
    check(kernels, maps.cpu(), truth.cpu(), 7)
    expected = kernels.count_labels(maps.contiguous(), truth.contiguous(), 7)
    for found, right in zip(kernels.count_labels(maps, truth, 7), expected, strict=True):
        assert torch.equal(found, right)


def test_one_label_map_for_all_images_and_samples(kernels: ModuleType) -> None:
    maps, truth = rows(random_case(4, (3, 2, 9, 100), 7, 0.2, "uint8"))
    check(kernels, maps[:1, :1].expand(3, 4, -1), truth, 7)
    check(kernels, maps, truth[:1].expand(3, -1), 7)


def test_offsets_may_pass_two_to_the_thirty_first(kernels: ModuleType) -> None:
    # Pages that nobody touches cost no memory.
    far = torch.empty(3 * 2**30 + 600, dtype=torch.uint8, device=DEVICE)
    expected, truth = rows(random_case(4, (4, 1, 1, 600), 7, 0.2, "uint8"))
    for shape, stride in (((4, 1, 600), (2**30, 600, 1)), ((1, 4, 600), (600, 2**30, 1))):
        maps = far.as_strided(shape, stride)
        maps.copy_(expected.reshape(shape))
        check(kernels, maps.cpu(), truth[: shape[0]], 7)
        for found, right in zip(
            kernels.count_labels(maps, truth[: shape[0]].to(DEVICE), 7),
            kernels.count_labels(maps.contiguous(), truth[: shape[0]].to(DEVICE), 7),
            strict=True,
        ):
            assert torch.equal(found, right)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64])
def test_other_integers_are_counted_by_torch(
    kernels: ModuleType, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    original = count_torch.count_labels
    monkeypatch.setattr(count_torch, "count_labels", lambda *args: called.append(1) or original(*args))
    maps, truth = rows(random_case(4, (3, 2, 9, 10), 7, 0.2, "uint8"))
    check(kernels, maps.to(dtype), truth, 7)
    assert called == [1]
    check(kernels, maps, truth, 7)
    assert called == [1]


# Which of them


@pytest.fixture
def choice(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    counting.backend.cache_clear()
    monkeypatch.delenv("RSS_COUNTS", raising=False)
    yield monkeypatch
    counting.backend.cache_clear()


def hide_triton(patch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    patch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "triton" else find(name, *rest))
    for name in ("triton", "rss_env.rewards.counting.triton"):
        patch.setitem(sys.modules, name, None)  # so that its import fails


def test_triton_counts_on_cuda_devices_unless_another_is_chosen(
    kernels: ModuleType, choice: pytest.MonkeyPatch
) -> None:
    assert counting.backend("cuda") is kernels
    assert counting.backend("mps") is count_torch
    host = counting.backend()
    for name, on_cuda in (("torch", count_torch), ("triton", kernels), ("numpy", kernels)):
        counting.backend.cache_clear()
        choice.setenv("RSS_COUNTS", name)
        assert counting.backend("cuda") is on_cuda
        assert counting.backend() is (count_numpy if name == "numpy" else host)


def test_torch_counts_where_triton_is_not_installed(choice: pytest.MonkeyPatch) -> None:
    hide_triton(choice)
    assert counting.backend("cuda") is count_torch
    counting.backend.cache_clear()
    choice.setenv("RSS_COUNTS", "triton")
    with pytest.raises(OptionError, match="RSS_COUNTS=triton needs Triton: pip install triton"):
        counting.backend("cuda")


def test_scores_of_tensors_on_an_accelerator_are_made_of_the_kernels_counts(
    kernels: ModuleType, choice: pytest.MonkeyPatch
) -> None:
    case = random_case(4, (3, 2, 9, 10), 7, 0.2, "uint8")
    expected = score_images("mean_iou", case.label_maps, case.targets, 7)
    choice.setenv("RSS_COUNTS", "triton")
    choice.setattr(torch.Tensor, "is_cpu", property(lambda tensor: False))
    called = []
    original = kernels.count_labels
    choice.setattr(kernels, "count_labels", lambda *args: called.append(1) or original(*args))
    label_maps, targets = (torch.from_numpy(array).to(DEVICE) for array in case[:2])
    np.testing.assert_array_equal(score_images("mean_iou", label_maps, targets, 7).cpu(), expected)
    assert len(called) == 2  # of label maps, and of targets
    by_class = count_classes(targets[:, None], 7)
    np.testing.assert_array_equal(by_class.cpu(), counting.count_classes(case.targets[:, None], 7))
