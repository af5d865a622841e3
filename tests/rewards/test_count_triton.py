"""The Triton kernels that count, against scikit-learn's loops; on a CPU they run in Triton's interpreter."""

from __future__ import annotations

import os
from types import ModuleType

import numpy as np
import pytest
import torch

from rss_env.rewards import count_torch, counts
from tests.rewards.cases import random_case

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
DEVICE = torch.device("cuda" if CUDA else "cpu")


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    pytest.importorskip("triton", reason="needs triton: pip install triton")
    from rss_env.rewards import count_triton

    return count_triton


def counts_of(maps: np.ndarray, truth: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Intersections and predictions, one bincount a label map."""
    right, predicted = (np.zeros((*maps.shape[:2], classes), np.int64) for _ in range(2))
    for b, k in np.ndindex(maps.shape[:2]):
        counted = truth[b] != 255
        predicted[b, k] = np.bincount(maps[b, k][counted], minlength=classes)
        right[b, k] = np.bincount(maps[b, k][counted & (maps[b, k] == truth[b])], minlength=classes)
    return right, predicted


@pytest.mark.parametrize("ignored", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (7, 11), (64, 64), (63, 130)], ids=str)
@pytest.mark.parametrize("classes", [2, 5, 16, 21, 255])
def test_counts_are_those_of_a_bincount(
    kernels: ModuleType, classes: int, size: tuple[int, int], ignored: float
) -> None:
    case = random_case(classes, (2, 3, *size), classes, ignored, "uint8")
    maps, truth = case.label_maps.reshape(2, 3, -1), case.targets.reshape(2, -1)
    given = torch.from_numpy(maps).to(DEVICE), torch.from_numpy(truth).to(DEVICE)
    found = kernels.count_labels(*given, classes)
    for ours, theirs in zip(found, counts_of(maps, truth, classes), strict=True):
        assert ours.dtype == torch.int64
        np.testing.assert_array_equal(ours.cpu().numpy(), theirs)
    of_classes = kernels.count_classes(given[1], classes)
    assert of_classes.dtype == torch.int64
    expected = [np.bincount(row[row != 255], minlength=classes) for row in truth]
    np.testing.assert_array_equal(of_classes.cpu().numpy(), expected)


def test_inputs_need_not_be_contiguous(kernels: ModuleType) -> None:
    rng = np.random.default_rng(0)
    maps = torch.from_numpy(rng.integers(0, 4, (50, 2, 3), dtype=np.uint8)).to(DEVICE).permute(2, 1, 0)
    truth = torch.from_numpy(rng.integers(0, 4, (50, 3), dtype=np.uint8)).to(DEVICE).T
    for ours, theirs in zip(
        kernels.count_labels(maps, truth, 4), count_torch.count_labels(maps, truth, 4), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_a_label_out_of_range_changes_nothing_but_its_own_label_map(kernels: ModuleType) -> None:
    maps = torch.zeros((1, 3, 10), dtype=torch.uint8, device=DEVICE)
    truth = torch.zeros((1, 10), dtype=torch.uint8, device=DEVICE)
    maps[0, 1, 4] = 254
    right, predicted = kernels.count_labels(maps, truth, 3)
    assert right[0, :, 0].tolist() == [10, 9, 10]
    assert predicted[0, ::2].tolist() == [[10, 0, 0]] * 2


def test_triton_counts_on_cuda_devices_alone(kernels: ModuleType) -> None:
    assert counts._accelerated("cuda") is kernels
    assert counts._accelerated("mps") is count_torch
