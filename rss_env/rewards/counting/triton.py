"""Counting as a Triton kernel, for CUDA devices; ``TRITON_INTERPRET=1`` runs it on a CPU.

A program owns a block of pixels of one label map. Each pixel gets one of 2C + 1 codes: its class if the label map is
right there, C + its class if it is wrong, 2C if it is not counted. The histogram of the codes is added to that of the
whole label map: sums of integers are the same in whatever order the blocks come.
"""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-def"
import torch
import triton
import triton.language as tl

from rss_env.rewards.counting import torch as count_torch

FEWEST, MOST = 512, 4096  # pixels of a program: enough for its threads to have one each; no more than registers hold


@triton.jit
def _count(
    maps,
    truth,
    codes,
    rows,
    samples,
    classes,
    pixels,
    map_image_stride,
    map_sample_stride,
    map_pixel_stride,
    truth_image_stride,
    truth_pixel_stride,
    BLOCK: tl.constexpr,
    BINS: tl.constexpr,
):
    """One block of pixels of one label map: adds its histogram of codes to int64 (B·K, 2C).

    Label maps come next to each other in the grid, so that those of one image read the same part of its target.
    """
    program = tl.program_id(0)
    row = (program % rows).to(tl.int64)
    image, sample = row // samples, row % samples
    pixel = (program // rows).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    place = image * map_image_stride + sample * map_sample_stride + pixel * map_pixel_stride
    label = tl.load(maps + place, mask=inside, other=255).to(tl.int32)
    target = tl.load(truth + image * truth_image_stride + pixel * truth_pixel_stride, mask=inside, other=255)
    target = target.to(tl.int32)
    code = tl.where(label == target, label, label + classes)
    code = tl.where((target == 255) | (label >= classes), 2 * classes, code)
    number = tl.arange(0, BINS)
    counted = tl.histogram(code, BINS)
    tl.atomic_add(codes + row * 2 * classes + number, counted.to(tl.int64), mask=(number < 2 * classes) & (counted > 0))


def count_labels(maps: torch.Tensor, truth: torch.Tensor, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Intersections and predictions of every class.

    Args:
        maps: uint8 (B, K, pixels) of any strides, values 0..C-1; a pixel of any other value counts as ignored. Other
            integers are counted by ``torch.py``.
        truth: uint8 (B, pixels), values 0..C-1 or 255 (ignored).
        num_classes: C, 2 to 255.

    Returns:
        Two int64 (B, K, C).
    """
    if maps.dtype != torch.uint8:
        return count_torch.count_labels(maps, truth, num_classes)
    batch, samples, pixels = maps.shape
    codes = torch.zeros((batch, samples, 2 * num_classes), dtype=torch.int64, device=maps.device)
    block = max(FEWEST, min(MOST, triton.next_power_of_2(pixels)))
    rows = batch * samples
    # CUDA takes 2³¹ − 1 programs along the first axis of a grid, and 65,535 along the others.
    with torch.cuda.device_of(maps):
        _count[(rows * triton.cdiv(pixels, block),)](
            maps,
            truth,
            codes,
            rows,
            samples,
            num_classes,
            pixels,
            *maps.stride(),
            *truth.stride(),
            BLOCK=block,
            BINS=triton.next_power_of_2(2 * num_classes + 1),
        )
    right, wrong = codes.split(num_classes, dim=2)
    return right, right + wrong


def count_classes(rows: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Pixels of every class: uint8 (n, pixels), values 0..C-1 or 255 (not counted) -> int64 (n, C)."""
    right, _ = count_labels(rows[:, None], rows, num_classes)  # a label map is right about itself
    return right[:, 0]
