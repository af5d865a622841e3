"""The operations of this package as Triton kernels, for CUDA devices; ``TRITON_INTERPRET=1`` runs them on a CPU.

Layout: a program owns a block of pixels of one image or label map. Class probabilities are read where they are; what a
pixel needs of its C classes stays in registers, in tiles of [pixels, next power of two of C]. Nothing of shape
(B, K, C, H, W) exists. Sums over pixels are written per block and added in float64 by torch, so that results are the
same in every run: no atomic additions of floats.
"""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-def"
import torch
import triton
import triton.language as tl

from . import torch_ops
from .philox import cells_in_a_row
from .torch_ops import gradient_format

pack_labels, unpack_labels = torch_ops.pack_labels, torch_ops.unpack_labels  # dense, so torch's own do

PIXELS = 128  # of a program; a power of two


@triton.jit
def _words(seed, cell, image, group):
    """Numbers of the four samples of a group, uint32: see ``philox.py``. Tiles of one shape."""
    return tl.philox(seed, cell.to(tl.uint32), (cell >> 32).to(tl.uint32), image, group)


@triton.jit
def _uniform(word):
    """The uniform number, float32, of one of 32 bits."""
    return (word >> 8).to(tl.float32) * (1.0 / 16777216)


@triton.jit
def _draw(
    logits,
    seed,
    offset,
    out,
    samples,
    classes,
    pixels,
    width,
    cell,
    columns,
    coldness,
    image_stride,
    class_stride,
    pixel_stride,
    BLOCK: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """One block of pixels of one image: its label maps, in tiles of [GROUPS of four samples, BLOCK pixels].

    A pixel's class is the last one that has a probability and whose sum of the ones before it the draw reaches.
    """
    image = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    begin = logits + image * image_stride + pixel * pixel_stride

    highest = tl.full((BLOCK,), -1e30, dtype=tl.float32)  # finite: logits may begin with -inf
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    place = begin
    for _ in range(classes):
        z = tl.load(place, mask=inside, other=0.0).to(tl.float32)
        higher = tl.maximum(highest, z)
        total = total * tl.exp((highest - higher) * coldness) + tl.exp((z - higher) * coldness)
        highest = higher
        place += class_stride

    key = tl.load(seed)
    row = (pixel // width + tl.load(offset)) // cell
    number = row * columns + (pixel % width + tl.load(offset + 1)) // cell
    tile = tl.zeros((GROUPS, BLOCK), dtype=tl.int32)
    numbers, images = tile + number[None, :], (tile + image).to(tl.uint32)
    for first in range(0, samples, 4 * GROUPS):
        group = first // 4 + tl.arange(0, GROUPS)
        groups = (tile + group[:, None]).to(tl.uint32)
        w0, w1, w2, w3 = _words(key, numbers, images, groups)
        u0, u1, u2, u3 = _uniform(w0), _uniform(w1), _uniform(w2), _uniform(w3)
        u0, u1, u2, u3 = u0 * total[None, :], u1 * total[None, :], u2 * total[None, :], u3 * total[None, :]
        l0, l1, l2, l3 = tile, tile, tile, tile
        reached = tl.zeros((BLOCK,), dtype=tl.float32)
        place = begin
        for c in range(classes):
            z = tl.load(place, mask=inside, other=0.0).to(tl.float32)
            chance = tl.exp((z - highest) * coldness)
            bound = tl.where(chance > 0, reached, float("inf"))[None, :]
            l0 = tl.where(u0 >= bound, c, l0)
            l1 = tl.where(u1 >= bound, c, l1)
            l2 = tl.where(u2 >= bound, c, l2)
            l3 = tl.where(u3 >= bound, c, l3)
            reached += chance
            place += class_stride
        k = 4 * group[:, None]
        spot = out + (image * samples + k) * pixels + pixel[None, :]
        tl.store(spot, l0.to(tl.uint8), mask=(k < samples) & inside[None, :])
        tl.store(spot + pixels, l1.to(tl.uint8), mask=(k + 1 < samples) & inside[None, :])
        tl.store(spot + 2 * pixels, l2.to(tl.uint8), mask=(k + 2 < samples) & inside[None, :])
        tl.store(spot + 3 * pixels, l3.to(tl.uint8), mask=(k + 3 < samples) & inside[None, :])


@triton.jit
def _soft_counts(
    belief,
    maps,
    owner,
    right,
    number_of,
    classes,
    pixels,
    blocks,
    image_stride,
    class_stride,
    BLOCK: tl.constexpr,
    CLASSES: tl.constexpr,
):
    """One block of pixels of one label map: expected right pixels and pixels of every class."""
    row = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1).to(tl.int64)
    pixel = block * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    image = tl.load(owner + row)
    label = tl.load(maps + row * pixels + pixel, mask=inside, other=255).to(tl.int64)
    chance = tl.load(belief + image * image_stride + label * class_stride + pixel, mask=inside, other=0.0)
    number = tl.arange(0, CLASSES)
    chosen = (label[:, None] == number[None, :]) & inside[:, None]
    place = (row * blocks + block) * classes + number
    tl.store(right + place, tl.sum(tl.where(chosen, chance[:, None], 0.0), axis=0), mask=number < classes)
    tl.store(number_of + place, tl.sum(chosen.to(tl.float32), axis=0), mask=number < classes)


@triton.jit
def _class_credit(maps, order, begin, weights, out, classes, pixels, BLOCK: tl.constexpr, CLASSES: tl.constexpr):
    """One block of pixels of one image: the weights of all its label maps, summed into the class that each has."""
    image = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    number = tl.arange(0, CLASSES)
    total = tl.zeros((BLOCK, CLASSES), dtype=tl.float32)
    first = tl.load(begin + image)
    last = tl.load(begin + image + 1)
    for place in range(first, last):
        row = tl.load(order + place)
        label = tl.load(maps + row * pixels + pixel, mask=inside, other=255).to(tl.int32)
        weight = tl.load(weights + row * classes + number, mask=number < classes, other=0.0)
        total += tl.where(label[:, None] == number[None, :], weight[None, :], 0.0)
    spot = out + (image * classes + number[None, :]) * pixels + pixel[:, None]
    tl.store(spot, total, mask=inside[:, None] & (number[None, :] < classes))


@triton.jit
def _log_softmax(logits, place, inside, classes, CLASSES: tl.constexpr):
    """Logarithm of the softmax of a block of pixels, float32 [BLOCK, CLASSES]; 0 behind the last class."""
    number = tl.arange(0, CLASSES)
    known = inside[:, None] & (number[None, :] < classes)
    z = tl.load(logits + place, mask=known, other=0.0).to(tl.float32)
    z = tl.where(number[None, :] < classes, z, float("-inf"))
    z -= tl.max(z, axis=1)[:, None]
    return tl.where(number[None, :] < classes, z - tl.log(tl.sum(tl.exp(z), axis=1))[:, None], 0.0)


@triton.jit
def _places(image, pixel, image_stride, class_stride, pixel_stride, CLASSES: tl.constexpr):
    """Offsets of a block of pixels and their classes, int64 [BLOCK, CLASSES]."""
    number = tl.arange(0, CLASSES).to(tl.int64)
    return image * image_stride + number[None, :] * class_stride + pixel[:, None] * pixel_stride


@triton.jit
def _policy_gradient(
    logits,
    maps,
    advantages,
    weights,
    parts,
    samples,
    classes,
    pixels,
    blocks,
    per_pixel,
    image_stride,
    class_stride,
    pixel_stride,
    BLOCK: tl.constexpr,
    CLASSES: tl.constexpr,
):
    """One block of pixels of one image: its credit, and its sums of credit and chances times log p."""
    image = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1).to(tl.int64)
    pixel = block * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    number = tl.arange(0, CLASSES)
    total = tl.zeros((BLOCK, CLASSES), dtype=tl.float32)
    for k in range(samples):
        row = image * samples + k
        label = tl.load(maps + row * pixels + pixel, mask=inside, other=0).to(tl.int32)
        if per_pixel:
            value = tl.load(advantages + row * pixels + pixel, mask=inside, other=0.0)
        else:
            value = tl.zeros((BLOCK,), dtype=tl.float32) + tl.load(advantages + row)
        total += tl.where(label[:, None] == number[None, :], value[:, None], 0.0)
    total /= samples
    known = inside[:, None] & (number[None, :] < classes)
    tl.store(weights + (image * classes + number[None, :]) * pixels + pixel[:, None], total, mask=known)
    place = _places(image, pixel, image_stride, class_stride, pixel_stride, CLASSES)
    log_p = _log_softmax(logits, place, inside, classes, CLASSES)
    log_p = tl.where(known, log_p, 0.0)
    part = parts + (image * blocks + block) * 2
    tl.store(part, tl.sum(tl.sum(total * log_p, axis=1), axis=0))
    tl.store(part + 1, tl.sum(tl.sum(tl.exp(log_p) * log_p, axis=1), axis=0))


@triton.jit
def _policy_gradient_backward(
    logits,
    weights,
    gradients,
    out,
    classes,
    pixels,
    image_stride,
    class_stride,
    pixel_stride,
    out_image_stride,
    out_class_stride,
    out_pixel_stride,
    BLOCK: tl.constexpr,
    CLASSES: tl.constexpr,
):
    """One block of pixels of one image: see ``torch_ops.policy_gradient_backward``."""
    image = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    number = tl.arange(0, CLASSES)
    known = inside[:, None] & (number[None, :] < classes)
    place = _places(image, pixel, image_stride, class_stride, pixel_stride, CLASSES)
    log_p = _log_softmax(logits, place, inside, classes, CLASSES)
    p = tl.where(number[None, :] < classes, tl.exp(log_p), 0.0)
    place = (image * classes + number[None, :]) * pixels + pixel[:, None]  # of the credit
    push = -tl.load(gradients) * tl.load(weights + place, mask=known, other=0.0)
    push -= tl.load(gradients + 1) * p * log_p
    push -= p * tl.sum(push, axis=1)[:, None]
    spot = _places(image, pixel, out_image_stride, out_class_stride, out_pixel_stride, CLASSES)
    tl.store(out + spot, push.to(out.dtype.element_ty), mask=known)


def sample_label_maps(
    logits: torch.Tensor,
    samples: int,
    seed: torch.Tensor,
    temperature: float,
    cell: int,
    offset: torch.Tensor,
) -> torch.Tensor:
    """See ``torch_ops.sample_label_maps``; the same label maps but for rounding at the boundaries."""
    batch, classes, height, width = logits.shape
    pixels, flat = height * width, logits.flatten(2)
    out = torch.empty((batch, samples, height, width), dtype=torch.uint8, device=logits.device)
    _draw[batch, _blocks(pixels)](
        flat,
        seed,
        offset,
        out,
        samples,
        classes,
        pixels,
        width,
        cell,
        cells_in_a_row(width, cell),
        1 / temperature,
        *flat.stride(),
        BLOCK=PIXELS,
        GROUPS=min(8, triton.next_power_of_2(triton.cdiv(samples, 4))),
    )
    return out


def soft_counts(
    probabilities: torch.Tensor, label_maps: torch.Tensor, image: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``ops.soft_counts``."""
    belief, rows, classes = _planes(probabilities), len(label_maps), probabilities.shape[1]
    pixels = label_maps.shape[1] * label_maps.shape[2]
    blocks = _blocks(pixels)
    parts = torch.empty((2, rows, blocks, classes), dtype=torch.float32, device=label_maps.device)
    _soft_counts[rows, blocks](
        belief,
        label_maps.contiguous(),
        image.contiguous(),
        parts[0],
        parts[1],
        classes,
        pixels,
        blocks,
        belief.stride(0),
        belief.stride(1),
        BLOCK=PIXELS,
        CLASSES=triton.next_power_of_2(classes),
    )
    expected, predicted = parts.sum(dim=2, dtype=torch.float64)
    return expected.float(), predicted.float()  # two tensors of their own, as registered operations must give


def class_credit(label_maps: torch.Tensor, image: torch.Tensor, weights: torch.Tensor, batch: int) -> torch.Tensor:
    """See ``ops.class_credit``."""
    height, width = label_maps.shape[1:]
    classes, pixels = weights.shape[1], height * width
    out = torch.empty((batch, classes, height, width), dtype=torch.float32, device=label_maps.device)
    order = torch.argsort(image, stable=True)
    begin = torch.searchsorted(image[order], torch.arange(batch + 1, device=image.device))
    _class_credit[batch, _blocks(pixels)](
        label_maps.contiguous(),
        order,
        begin,
        weights.contiguous(),
        out,
        classes,
        pixels,
        BLOCK=PIXELS,
        CLASSES=triton.next_power_of_2(classes),
    )
    return out


def policy_gradient(
    logits: torch.Tensor, label_maps: torch.Tensor, advantages: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See ``torch_ops.policy_gradient``."""
    batch, samples, height, width = label_maps.shape
    classes, pixels, flat = logits.shape[1], height * width, logits.flatten(2)
    tile = _tile(classes)
    blocks = triton.cdiv(pixels, tile["BLOCK"])
    weights = torch.empty((batch, classes, height, width), dtype=torch.float32, device=logits.device)
    parts = torch.empty((batch, blocks, 2), dtype=torch.float32, device=logits.device)
    _policy_gradient[batch, blocks](
        flat,
        label_maps.contiguous(),
        advantages.float().contiguous(),
        weights,
        parts,
        samples,
        classes,
        pixels,
        blocks,
        advantages.shape[2:] != (1, 1) or pixels == 1,
        *flat.stride(),
        **tile,
    )
    of_credit, of_chances = parts.sum(dim=(0, 1), dtype=torch.float64) / (batch * pixels)
    return (-of_credit).float(), (-of_chances).float(), weights


def policy_gradient_backward(logits: torch.Tensor, weights: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """See ``torch_ops.policy_gradient_backward``."""
    batch, classes, height, width = logits.shape
    pixels, tile, flat = height * width, _tile(classes), logits.flatten(2)
    out = torch.empty_like(logits, memory_format=gradient_format(logits))
    given = gradients / (batch * pixels)
    _policy_gradient_backward[batch, triton.cdiv(pixels, tile["BLOCK"])](
        flat,
        weights.contiguous(),
        given,
        out,
        classes,
        pixels,
        *flat.stride(),
        *out.flatten(2).stride(),
        **tile,
    )
    return out


def _tile(classes: int) -> dict[str, int]:
    """Pixels and warps of a program that keeps a few tiles of [pixels, next power of two of C] in registers.

    16 pixels of float32 are two whole sectors of memory; the warps are as many as leave 8 numbers of a tile a thread.
    """
    width = triton.next_power_of_2(classes)
    block = max(16, 1024 // width)
    return {"BLOCK": block, "CLASSES": width, "num_warps": min(16, max(4, block * width // 256))}


def _blocks(pixels: int) -> int:
    return triton.cdiv(pixels, PIXELS)


def _planes(tensor: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) as (B, C, H·W), copied only if the pixels of a class are not one after the other."""
    flat = tensor.detach().flatten(2)
    return flat if flat.stride(2) == 1 else flat.contiguous()
