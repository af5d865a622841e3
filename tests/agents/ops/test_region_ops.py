"""The operations on regions against loops, and compiled against torch."""

from __future__ import annotations

import pytest
import torch

from agents.ops import nearest_centres, region_counts

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
    label_maps = torch.randint(3, (4, 7, 5), generator=generator, dtype=torch.uint8)
    regions = torch.randint(6, (7, 5), generator=generator)
    found = region_counts(label_maps, regions, 6, 3)
    assert found.shape == (4, 3, 6)
    assert found.dtype == torch.float32
    for m in range(4):
        for c in range(3):
            for s in range(6):
                assert found[m, c, s] == ((label_maps[m] == c) & (regions == s)).sum()
