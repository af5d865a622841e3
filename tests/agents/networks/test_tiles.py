"""Logits of large images from overlapping tiles."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from agents.networks.checkpoints import predict_label_maps
from agents.networks.tiles import tile_starts, tiled_logits


class PixelByPixel(nn.Module):
    """Logits that depend on a pixel's own colour only, so that tiles change nothing."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.movedim(-1, 1).float() / 7


class Counting(nn.Module):
    """Gives the number of its call, and keeps the sizes that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(images.shape[1:3]))
        return torch.full((len(images), 1, *images.shape[1:3]), float(len(self.sizes)))


@given(side=st.integers(1, 300), part=st.integers(1, 300))
def test_tiles_cover_a_side_and_neighbours_share_a_third(side: int, part: int) -> None:
    part = min(side, part)
    starts = tile_starts(side, part)
    assert (starts[0], starts[-1] + part) == (0, side)
    for one, following in itertools.pairwise(starts):
        assert 0 < following - one <= max(1, 2 * part / 3)


@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    tile=st.tuples(st.integers(1, 25), st.integers(1, 25)),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_network_that_sees_no_neighbours_gives_the_logits_of_the_whole_image(
    size: tuple[int, int], tile: tuple[int, int], seed: int
) -> None:
    images = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (2, *size, 3), np.uint8))
    torch.testing.assert_close(tiled_logits(PixelByPixel(), images, tile), PixelByPixel()(images))


def test_logits_are_averaged_where_tiles_overlap() -> None:
    network = Counting()
    logits = tiled_logits(network, torch.zeros(1, 4, 8, 3, dtype=torch.uint8), (9, 6))
    assert network.sizes == [(4, 6), (4, 6)]
    assert logits[0, 0].tolist() == [[1.0, 1.0, 1.5, 1.5, 1.5, 1.5, 2.0, 2.0]] * 4


def test_label_maps_are_those_of_the_averaged_logits() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 10, 12, 3), np.uint8)
    whole, tiled = (predict_label_maps(PixelByPixel(), images, torch.device("cpu"), tile) for tile in (None, (4, 5)))
    np.testing.assert_array_equal(whole, tiled)
    np.testing.assert_array_equal(whole, images.argmax(-1))
