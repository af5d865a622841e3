"""Regions: nested, of similar colour, and sums over them against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.scores.regions import Regions, make_regions

SIDES = [3, 6, 12]


def photos(batch: int = 2, height: int = 25, width: int = 37) -> torch.Tensor:
    """A bright disc on dark ground, with noise, at another place in each image: uint8 (B, H, W, 3)."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:height, :width]
    images = []
    for number in range(batch):
        disc = (row - 12) ** 2 + (column - 12 - 6 * number) ** 2 < 64
        noise = rng.integers(-9, 10, (height, width, 3))
        images.append(np.where(disc[..., None], (210, 180, 60), (30, 60, 90)) + noise)
    return torch.from_numpy(np.stack(images).astype(np.uint8))


def in_division(regions: Regions, division: int, image: int = 0) -> torch.Tensor:
    """The region of every pixel of an image in a division, (H, W)."""
    finest = regions.finest[image]
    return finest if division == 0 else regions.parents[image, division - 1][finest]


def test_every_division_is_made_of_the_regions_of_the_finer_one() -> None:
    regions = make_regions(photos(), SIDES)
    assert regions.counts == (8 * 12, 4 * 6, 2 * 3)
    for image in range(2):
        for division, count in enumerate(regions.counts):
            labels = in_division(regions, division, image)
            assert int(labels.min()) >= 0
            assert int(labels.max()) < count
            assert labels.unique().numel() > 0.6 * count
        for division in (1, 2):
            finer, coarser = in_division(regions, division - 1, image), in_division(regions, division, image)
            pairs = torch.stack([finer.flatten(), coarser.flatten()], dim=1).unique(dim=0)
            assert len(pairs) == finer.unique().numel()


def test_regions_follow_colours() -> None:
    images = photos()
    regions = make_regions(images, SIDES)
    for image in range(2):
        bright = images[image, ..., 0] > 128
        for division in range(2):
            labels = in_division(regions, division, image)
            assert not set(labels[bright].tolist()) & set(labels[~bright].tolist())


def test_an_image_alone_has_the_same_regions_as_in_a_batch() -> None:
    images = photos()
    regions = make_regions(images, SIDES)
    for image in range(2):
        alone = make_regions(images[image : image + 1], SIDES)
        assert torch.equal(alone.finest, regions[[image]].finest)
        assert torch.equal(alone.parents, regions[[image]].parents)


@pytest.mark.parametrize("image", [torch.zeros(1, 1, 1, 3), torch.full((1, 3, 5, 3), 255), torch.zeros(1, 24, 36, 3)])
def test_images_without_colours_or_pixels_to_divide_have_regions_too(image: torch.Tensor) -> None:
    regions = make_regions(image.to(torch.uint8), SIDES)
    for division, count in enumerate(regions.counts):
        assert int(in_division(regions, division).max()) < count
    if image.shape[1] == 24:
        assert regions.finest.unique().numel() == 8 * 12


@pytest.mark.parametrize("sides", [SIDES, [5]])
def test_sums_are_those_of_loops(sides: list[int]) -> None:
    regions = make_regions(photos(), sides)
    values = torch.rand(2, 3, 25, 37, generator=torch.Generator().manual_seed(0))
    sums = regions.sums(values)
    whole = regions.in_all(sums)
    assert whole.shape == (2, 3, sum(regions.counts))
    together = regions.over_all(whole)
    for image in range(2):
        place, shifts = 0, torch.zeros_like(sums[image])
        for division, count in enumerate(regions.counts):
            labels = in_division(regions, division, image)
            for number in range(count):
                expected = values[image][:, labels == number].sum(dim=1)
                torch.testing.assert_close(whole[image, :, place], expected)
                shifts[:, regions.finest[image][labels == number].unique()] += expected[:, None]
                place += 1
        there = regions.finest[image].unique()
        torch.testing.assert_close(together[image][:, there], shifts[:, there])
        pixels = regions.at_pixels(together)
        torch.testing.assert_close(pixels[image, 1, 4, 7], together[image, 1, regions.finest[image, 4, 7]])
    # The same of label maps, which have another dimension.
    torch.testing.assert_close(regions.in_all(torch.stack([sums, 2 * sums], dim=1)), torch.stack([whole, 2 * whole], 1))


def test_the_parts_of_an_image_are_all_divisions_but_the_whole() -> None:
    images = torch.randint(256, (2, 12, 16, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    with_whole, without, whole = (make_regions(images, sides) for sides in ([3.0, 6.0, 12.0], [3.0, 6.0], [12.0]))
    assert with_whole.counts == (20, 6, 1)
    parts = with_whole.parts()
    assert (parts.counts, without.parts(), whole.parts()) == (without.counts, without, whole)
    assert torch.equal(parts.finest, without.finest)
    assert torch.equal(parts.parents, without.parents)


def test_one_division_alone_is_as_among_all() -> None:
    images = torch.randint(256, (2, 24, 30, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    regions, some = make_regions(images, [4.0, 8.0, 24.0]), torch.randn(2, 3, 24, 30)
    places = [0, *np.cumsum(regions.counts)]
    everything = regions.in_all(regions.sums(some))
    for number in range(3):
        alone = regions.division(number)
        assert alone.counts == regions.counts[number : number + 1]
        of_division = everything[..., places[number] : places[number + 1]]
        torch.testing.assert_close(alone.sums(some), of_division, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(alone.in_all(of_division), of_division)


def test_they_are_mirrored_kept_and_put_together() -> None:
    regions = make_regions(photos(), SIDES)
    shown = regions.mirrored([False, True])
    assert torch.equal(shown.finest, torch.stack([regions.finest[0], regions.finest[1].flip(1)]))
    again = Regions.unpacked([regions[[number]].packed() for number in (1, 0)])
    assert again.finest.dtype == torch.int64
    assert torch.equal(again.finest, regions.finest.flip(0))
    assert torch.equal(again.parents, regions.parents.flip(0))


def test_as_many_regions_as_an_image_may_have_are_kept() -> None:
    finest = torch.tensor([[[0, 1 << 15, 40000]]])
    regions = Regions(finest, torch.zeros(1, 1, 40001, dtype=torch.long), (40001, 1))
    assert torch.equal(Regions.unpacked([regions.packed()]).finest, finest)
