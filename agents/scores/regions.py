"""Parts of an image in which pixels are alike: regions of similar colour, large ones made of smaller ones.

Superpixels after SLIC (Achanta et al., 2012): k-means of colour and place in which a pixel may join the regions of its
own cell of a grid and of the eight around it. The regions of a coarser division are made in the same way of those of
the finer one, so each lies in exactly one. All is done with tensors, for a batch of images at once, and sums are of
integers, so the same image has the same regions on a device of any kind, but for ties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from ..ops import nearest_centres

ROUNDS = 5
COMPACTNESS = 0.75  # weight of the distance in the image against that of the colour
CONTRAST = 8  # added to the standard deviation of the colours, so that faint noise is no colour


@dataclass(frozen=True)
class Regions:
    """Nested divisions of B images, the finest first; a division has as many regions in every image.

    Attributes:
        finest: int64 (B, H, W), the region, 0..S-1, that each pixel lies in; there may be numbers without a pixel.
        parents: int64 (B, D - 1, S), for each of the D - 1 coarser divisions the region of it that each finest region
            lies in.
        counts: number of regions of every division, R in all.
    """

    finest: torch.Tensor
    parents: torch.Tensor
    counts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.finest)

    def __getitem__(self, images: slice | Sequence[int]) -> Regions:
        """Those of some of the images."""
        return Regions(self.finest[images], self.parents[images], self.counts)

    @cached_property
    def within(self) -> torch.Tensor:
        """float32 (B, S, R - S), 1 where a finest region lies in one of a coarser division."""
        starts = torch.tensor([0, *self.counts[1:-1]], device=self.parents.device).cumsum(0)[: self.parents.shape[1]]
        places = (self.parents + starts[:, None]).transpose(1, 2)  # (B, S, D - 1)
        out = torch.zeros(len(self), self.counts[0], sum(self.counts[1:]), device=places.device)
        return out.scatter_(2, places, 1.0)

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Sums over the pixels of each finest region: (B, C, H, W) -> (B, C, S)."""
        out = values.new_zeros((*values.shape[:2], self.counts[0]))
        return out.scatter_add_(2, self.finest.flatten(1)[:, None].expand(-1, values.shape[1], -1), values.flatten(2))

    def means(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of each pixel's finest region: (B, C, H, W) -> (B, C, H, W)."""
        return self.at_pixels(self.sums(values) / self.sizes.clamp(min=1))

    @cached_property
    def sizes(self) -> torch.Tensor:
        """float32 (B, 1, S), number of pixels of each finest region."""
        return self.sums(torch.ones(self.finest.shape, device=self.finest.device)[:, None])

    def in_all(self, values: torch.Tensor) -> torch.Tensor:
        """Sums over the finest regions of each region of all divisions: (B, ..., S) -> (B, ..., R)."""
        return torch.cat(self.in_each(values), dim=-1)

    def in_each(self, values: torch.Tensor) -> list[torch.Tensor]:
        """The same as ``in_all``, a tensor for every division: (B, ..., S) -> those of (B, ..., S_d)."""
        flat, divisions = values.flatten(1, -2), self.within.split(self.counts[1:], dim=2)
        return [values, *(torch.bmm(flat, within).unflatten(1, values.shape[1:-1]) for within in divisions)]

    def over_all(self, values: torch.Tensor) -> torch.Tensor:
        """Sums over the regions that each finest region lies in: (B, C, R) -> (B, C, S)."""
        finest = self.counts[0]
        return values[..., :finest] + torch.bmm(values[..., finest:], self.within.transpose(1, 2))

    def at_pixels(self, values: torch.Tensor) -> torch.Tensor:
        """The value of each pixel's finest region: (B, C, S) -> (B, C, H, W)."""
        index = self.finest.flatten(1)[:, None].expand(-1, values.shape[1], -1)
        return values.gather(2, index).unflatten(2, self.finest.shape[1:])

    def parts(self) -> Regions:
        """Those that are parts of an image: without a last division that is the whole image, if there is another."""
        if self.counts[-1] > 1 or len(self.counts) == 1:
            return self
        return Regions(self.finest, self.parents[:, :-1], self.counts[:-1])

    def division(self, number: int) -> Regions:
        """One of the divisions alone, the finest being number 0."""
        if number == 0:
            return Regions(self.finest, self.parents[:, :0], self.counts[:1])
        of_parent = self.parents[:, number - 1].gather(1, self.finest.flatten(1)).view_as(self.finest)
        return Regions(of_parent, self.parents[:, :0, : self.counts[number]], (self.counts[number],))

    def packed(self) -> Regions:
        """The same in less memory, to be kept: a quarter of it; ``unpacked`` makes them usable again."""
        dtype = torch.int16 if max(self.counts) <= 1 << 15 else torch.int32
        return Regions(self.finest.to(dtype), self.parents.to(dtype), self.counts)

    @property
    def nbytes(self) -> int:
        """Bytes it takes in memory."""
        return self.finest.nbytes + self.parents.nbytes

    @staticmethod
    def unpacked(parts: Sequence[Regions]) -> Regions:
        """One of what ``packed`` gave for several images of a size."""
        finest, parents = (torch.cat(of) for of in zip(*((part.finest, part.parents) for part in parts), strict=True))
        return Regions(finest.long(), parents.long(), parts[0].counts)

    def mirrored(self, flipped: Sequence[bool]) -> Regions:
        """Those of the images as they are shown: some of them mirrored left and right."""
        turned = torch.tensor(flipped, device=self.finest.device)[:, None, None]
        return Regions(torch.where(turned, self.finest.flip(2), self.finest), self.parents, self.counts)


def grid(height: int, width: int, side: float) -> tuple[int, int]:
    """Rows and columns of the cells of about that side that an image is divided into at first."""
    return max(1, round(height / side)), max(1, round(width / side))


def make_regions(images: torch.Tensor, sides: Sequence[float]) -> Regions:
    """Divides images into regions of about the given sides.

    Args:
        images: uint8 (B, H, W, 3).
        sides: of the regions in pixels, from the finest division to the coarsest, each at least 1.
    """
    batch, height, width = images.shape[:3]
    device = images.device
    row, column = torch.arange(height, device=device), torch.arange(width, device=device)
    place = torch.stack(torch.meshgrid(row, column, indexing="ij"), dim=-1).expand(batch, -1, -1, -1)
    sums = torch.cat([images.long(), place], dim=-1).flatten(1, 2)  # (B, H·W, 5)
    size = torch.ones_like(sums[:, :, 0])
    home = place.flatten(1, 2)  # where a point looks for its region: at first the pixel itself
    contrast = images.float().flatten(1).std(dim=1) + CONTRAST
    finest: torch.Tensor | None = None
    parents: list[torch.Tensor] = []
    counts: list[int] = []
    for side in sides:
        rows, columns = grid(height, width, side)
        scale = torch.cat(
            [(1 / contrast)[:, None].expand(-1, 3), contrast.new_full((batch, 2), COMPACTNESS / side)], dim=1
        )
        cell = torch.stack([home[..., 0] * rows // height, home[..., 1] * columns // width], dim=-1)
        label = _cluster(sums, size, cell, (rows, columns), scale)
        if finest is None:
            finest = label.unflatten(1, (height, width))
        else:
            parents.append(label if not parents else label.gather(1, parents[-1]))
        counts.append(rows * columns)
        sums, size = _gather(sums, size, label, rows * columns)
        number = torch.arange(rows * columns, device=device)
        middle = torch.stack(
            [
                (2 * (number // columns) + 1) * height // (2 * rows),
                (2 * (number % columns) + 1) * width // (2 * columns),
            ],
            dim=-1,
        )
        home = middle.expand(batch, -1, -1)
    assert finest is not None
    coarser = torch.stack(parents, dim=1) if parents else finest.new_empty((batch, 0, counts[0]))
    return Regions(finest, coarser, tuple(counts))


def _cluster(
    sums: torch.Tensor, size: torch.Tensor, cell: torch.Tensor, grid: tuple[int, int], scale: torch.Tensor
) -> torch.Tensor:
    """The region, int64 (B, P), that each of P points joins.

    Args:
        sums: int64 (B, P, 5), colours and places of the pixels of each point.
        size: int64 (B, P), their number.
        cell: int64 (B, P, 2), row and column of the cell of the grid that each point is at home in.
        grid: rows and columns.
        scale: float32 (B, 5), what colours and places are multiplied by.
    """
    rows, columns = grid
    points = sums / size.clamp(min=1)[..., None] * scale[:, None]
    label = cell[..., 0] * columns + cell[..., 1]
    for _ in range(ROUNDS):
        total, count = _gather(sums, size, label, rows * columns)
        centres = total / count.clamp(min=1)[..., None] * scale[:, None]
        label = nearest_centres(points, cell, centres.unflatten(1, grid), (count > 0).unflatten(1, grid))
    return label


def _gather(
    sums: torch.Tensor, size: torch.Tensor, label: torch.Tensor, many: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums and sizes of the regions that points have joined."""
    total = sums.new_zeros((len(sums), many, sums.shape[2]))
    total.scatter_add_(1, label[..., None].expand_as(sums), sums)
    return total, size.new_zeros((len(sums), many)).scatter_add_(1, label, size)
