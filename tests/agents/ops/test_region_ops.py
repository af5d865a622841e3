"""The operations on regions against loops, and compiled against torch."""

from __future__ import annotations

import itertools

import pytest
import torch

from agents.ops import centred_features, nearest_centres, region_counts

BACKENDS = ["torch", "numba"]


@pytest.mark.parametrize("name", BACKENDS)
def test_the_nearest_of_nine_centres(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(name)
    monkeypatch.setenv("RSS_OPS", name)
    generator = torch.Generator().manual_seed(0)
    points, centres = torch.rand(2, 40, 5, generator=generator), torch.rand(2, 3, 4, 5, generator=generator)
    cell = torch.stack([torch.randint(n, (2, 40), generator=generator) for n in (3, 4)], dim=-1)
    used = torch.rand(2, 3, 4, generator=generator) < 0.8
    found = nearest_centres(points, cell, centres, used)
    for b in range(2):
        for i in range(40):
            row, column = cell[b, i].tolist()
            near = [
                (float((points[b, i] - centres[b, r, c]).double().square().sum()), r * 4 + c)
                for r in range(3)
                for c in range(4)
                if abs(r - row) <= 1 and abs(c - column) <= 1 and used[b, r, c]
            ]
            assert int(found[b, i]) == min(near)[1]


@pytest.mark.parametrize("name", BACKENDS)
def test_counts_of_regions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(name)
    monkeypatch.setenv("RSS_OPS", name)
    generator = torch.Generator().manual_seed(0)
    label_maps = torch.randint(3, (2, 4, 7, 5), generator=generator, dtype=torch.uint8)
    regions = torch.randint(6, (2, 7, 5), generator=generator)
    found = region_counts(label_maps, regions, 6, 3)
    assert found.shape == (2, 4, 3, 6)
    assert found.dtype == torch.float32
    for b, m, c, s in itertools.product(range(2), range(4), range(3), range(6)):
        assert found[b, m, c, s] == ((label_maps[b, m] == c) & (regions[b] == s)).sum()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", BACKENDS)
def test_features_less_their_mean_over_the_classes(name: str, weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(name)
    monkeypatch.setenv("RSS_OPS", name)
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(9, (2, 5, 3, 6), generator=generator).float()
    per_right, per_target = (torch.randn(2, 5, 3, generator=generator) for _ in range(2))
    sizes, weights = (torch.rand(2, n, 6, generator=generator) for n in (1, 3))
    chances = torch.rand(2, 3, 6, generator=generator)
    chances /= chances.sum(dim=1, keepdim=True)
    before = counts.clone()
    found = centred_features(counts, per_right, per_target, sizes, chances, weights if weighted else None)
    assert torch.equal(counts, before)
    for b, m, s in itertools.product(range(2), range(5), range(6)):
        f = [float(counts[b, m, c, s] * per_right[b, m, c] + sizes[b, 0, s] * per_target[b, m, c]) for c in range(3)]
        mean = sum(float(chances[b, c, s]) * f[c] for c in range(3))
        for c in range(3):
            expected = (float(weights[b, c, s]) if weighted else 1.0) * (f[c] - mean)
            assert float(found[b, m, c, s]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads_counts_the_same(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setenv("RSS_OPS", "numba")
    monkeypatch.setattr("agents.ops.numba_ops.WORTH", 1)
    generator = torch.Generator().manual_seed(0)
    label_maps = torch.randint(3, (2, 4, 7, 5), generator=generator, dtype=torch.uint8)
    regions = torch.randint(6, (2, 7, 5), generator=generator)
    rates, chances = torch.randn(2, 4, 3, generator=generator), torch.rand(2, 3, 6, generator=generator)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        counts = region_counts(label_maps, regions, 6, 3)
        features = centred_features(counts, rates, rates, chances[:, :1], chances)
    finally:
        torch.set_num_threads(before)
    monkeypatch.setenv("RSS_OPS", "torch")
    assert torch.equal(counts, region_counts(label_maps, regions, 6, 3))
    torch.testing.assert_close(features, centred_features(counts, rates, rates, chances[:, :1], chances))
