"""Counting as a Triton kernel for CUDA devices: label maps are read once, a byte a pixel.

A program makes a histogram of one block of pixels of one label map, in which right, wrong and ignored pixels have bins
of their own, and adds it to the counts of the label map. They are integers, so the order of the additions does not
matter: the result is exact and the same in every run.
"""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-def"
import torch
import triton
import triton.language as tl

from rss_env.datasets.dataset import IGNORE_INDEX

PIXELS = 4096  # of a program; a power of two


@triton.jit
def _count_labels(maps, truth, out, samples, pixels, IGNORED: tl.constexpr, BLOCK: tl.constexpr, BINS: tl.constexpr):
    """Right pixels of a class in the bins from 0 on, wrong ones from BINS on, all others in the bin after those."""
    row = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    label = tl.load(maps + row * pixels + pixel, mask=inside, other=0).to(tl.int32)
    target = tl.load(truth + (row // samples) * pixels + pixel, mask=inside, other=IGNORED).to(tl.int32)
    label = tl.minimum(label, BINS - 1)  # one out of range, which the environment reports later, stays in its bins
    code = tl.where(label == target, label, label + BINS)
    code = tl.where(target == IGNORED, 2 * BINS, code)
    counts = tl.histogram(code, 4 * BINS)
    number = tl.arange(0, 4 * BINS)
    tl.atomic_add(out + row * 2 * BINS + number, counts, mask=(number < 2 * BINS) & (counts > 0))


@triton.jit
def _count_classes(rows, out, pixels, IGNORED: tl.constexpr, BLOCK: tl.constexpr):
    """Pixels of every byte in one block of one row."""
    row = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    label = tl.load(rows + row * pixels + pixel, mask=pixel < pixels, other=IGNORED).to(tl.int32)
    counts = tl.histogram(label, 256)
    number = tl.arange(0, 256)
    tl.atomic_add(out + row * 256 + number, counts, mask=(number != IGNORED) & (counts > 0))


def count_labels(maps: torch.Tensor, truth: torch.Tensor, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Intersections and predictions of every class.

    Args:
        maps: uint8 (B, K, pixels), values 0..C-1; fewer than 2³¹ pixels a label map.
        truth: uint8 (B, pixels), values 0..C-1 or 255 (ignored).
        num_classes: C.

    Returns:
        Two int64 (B, K, C).
    """
    batch, samples, pixels = maps.shape
    bins = triton.next_power_of_2(num_classes)
    counts = torch.zeros((batch, samples, 2, bins), dtype=torch.int32, device=maps.device)
    _count_labels[batch * samples, triton.cdiv(pixels, PIXELS)](
        maps.contiguous(),
        truth.contiguous(),
        counts,
        samples,
        pixels,
        IGNORED=IGNORE_INDEX,
        BLOCK=PIXELS,
        BINS=bins,
    )
    right, wrong = counts[..., :num_classes].long().unbind(2)
    return right, right + wrong


def count_classes(rows: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Pixels of every class: uint8 (n, pixels), values 0..C-1 or 255 (not counted) -> int64 (n, C)."""
    number, pixels = rows.shape
    counts = torch.zeros((number, 256), dtype=torch.int32, device=rows.device)
    _count_classes[number, triton.cdiv(pixels, PIXELS)](
        rows.contiguous(), counts, pixels, IGNORED=IGNORE_INDEX, BLOCK=PIXELS
    )
    return counts[:, :num_classes].long()
