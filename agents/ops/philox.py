"""Uniform random numbers that are computed from where they are used, so that nobody has to store them.

Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) turns a key of 64 bits and a
counter of 128 bits into four numbers of 32 bits. Here the key is the seed and the counter says whose number it is:

    counter = (cell mod 2³², cell div 2³², image, sample div 4);  sample mod 4 chooses one of the four
    uniform = (number div 2⁸) · 2⁻²⁴, one of the 2²⁴ multiples of 2⁻²⁴ in [0, 1)

Pixels of one cell share their numbers. Compiled code does the same arithmetic where it needs a number.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
MASK = 2**32 - 1

Four = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def uniforms(
    shape: tuple[int, int, int, int],
    seed: int | torch.Tensor,
    cell: int = 1,
    offset: Sequence[int] | torch.Tensor = (0, 0),
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """The uniform numbers from which ``ops.sample_label_maps`` draws with the same seed, cells and offset.

    Args:
        shape: (B, K, H, W).
        seed: 0 to 2⁶³ − 1, or an int64 tensor of one.
        cell: side of the cells in pixels; 1: every pixel has a number of its own.
        offset: rows and columns by which the grid of cells is shifted up and left, modulo ``cell``; or an int64 tensor
            of the two.
        device: where the numbers are made.

    Returns:
        float32 (B, K, H, W), multiples of 2⁻²⁴ in [0, 1). Numbers of different cells, images, samples and seeds are
        independent.

    Raises:
        ValueError: a seed or cell out of range.
    """
    batch, samples, height, width = shape
    key = seed_tensor(seed, device)
    cells = cell_numbers(height, width, cell, offset_tensor(offset, cell, device))
    words = _words(batch, samples, cells, key)
    return (words >> 8).float().mul_(2.0**-24).view(shape)


def _words(batch: int, samples: int, cells: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """The numbers of 32 bits of all samples in these cells, int64 (B, K, len(cells))."""
    image = torch.arange(batch, device=cells.device).view(-1, 1, 1)
    group = torch.arange(-(-samples // 4), device=cells.device).view(-1, 1)
    numbers = philox((cells & MASK, cells >> 32, image, group), (key & MASK, key >> 32))  # four (B, ⌈K/4⌉, cells)
    return torch.stack(numbers, dim=2).flatten(1, 2)[:, :samples]


def philox(counter: Four, key: tuple[torch.Tensor, torch.Tensor]) -> Four:
    """Philox-4x32-10 of int64 tensors that hold numbers of 32 bits and can be broadcast.

    Products of 64 bits wrap around, which leaves their lower and, after the mask, their upper half right.
    """
    (a, b, c, d), (left, right) = counter, key
    for _ in range(ROUNDS):
        first, second = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        a, b = (second >> 32 & MASK) ^ b ^ left, second & MASK
        c, d = (first >> 32 & MASK) ^ d ^ right, first & MASK
        left, right = left + KEY_STEPS[0] & MASK, right + KEY_STEPS[1] & MASK
    return a, b, c, d


def cell_numbers(height: int, width: int, cell: int, offset: torch.Tensor) -> torch.Tensor:
    """Number of every pixel's cell, int64 (H·W,): row by row, in rows as long as any offset can make them."""
    rows = (torch.arange(height, device=offset.device) + offset[0]) // cell
    columns = (torch.arange(width, device=offset.device) + offset[1]) // cell
    return (rows[:, None] * cells_in_a_row(width, cell) + columns).flatten()


def cells_in_a_row(width: int, cell: int) -> int:
    """Cells that a row of pixels can touch, whatever the offset."""
    return (width + 2 * (cell - 1)) // cell


def seed_tensor(seed: int | torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """The seed as int64 (1,) on a device; a number gets there without waiting for it.

    Raises:
        ValueError: it is out of range.
    """
    if isinstance(seed, int) and not 0 <= seed < 2**63:
        raise ValueError(f"A seed is a number from 0 to 2**63 - 1, got {seed}.")
    return _send(seed, device).view(1)


def offset_tensor(offset: Sequence[int] | torch.Tensor, cell: int, device: torch.device | str) -> torch.Tensor:
    """The offset of the grid as int64 (2,), each 0..cell-1, on a device; numbers get there without waiting for it.

    Raises:
        ValueError: the side of a cell is out of range.
    """
    if cell < 1:
        raise ValueError(f"The side of a cell is a number of pixels from 1 on, got {cell}.")
    return _send(offset, device).view(2) % cell


def _send(numbers: int | Sequence[int] | torch.Tensor, device: torch.device | str) -> torch.Tensor:
    if isinstance(numbers, torch.Tensor):
        return numbers.to(device, torch.int64)
    return torch.tensor(numbers, dtype=torch.int64).to(device, non_blocking=True)
