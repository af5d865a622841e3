"""The operations of ``agents.ops`` as Triton kernels, for CUDA devices; ``TRITON_INTERPRET=1`` runs them on a CPU.

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

from agents.ops import philox
from agents.ops.philox import cells_in_a_row
from agents.ops.torch_ops import gradient_format

PIXELS = 128  # of a program; a power of two


RANKS: tl.constexpr = tl.constexpr(philox.RANKS)


@triton.jit
def _words(seed, cell, image, group):
    """Numbers of the four samples of a group, uint32: see ``agents.ops.philox``. Tiles of one shape."""
    return tl.philox(seed, cell.to(tl.uint32), (cell >> 32).to(tl.uint32), image, group)


@triton.jit
def _uniform(word):
    """The uniform number, float32, of one of 32 bits."""
    return (word >> 8).to(tl.float32) * (1.0 / 16777216)


@triton.jit
def _comes_first(other, j, own, k, samples):
    """1 where sample j comes before sample k in the order of their numbers, else 0."""
    return (((other < own) | ((other == own) & (j < k))) & (j < samples)).to(tl.int32)


@triton.jit
def _rank(own, k, w0, w1, w2, w3, first, samples):
    """How many of a group of four samples, whose numbers are the w and the first of which is ``first``, precede k."""
    return (
        _comes_first(w0, first, own, k, samples)
        + _comes_first(w1, first + 1, own, k, samples)
        + _comes_first(w2, first + 2, own, k, samples)
        + _comes_first(w3, first + 3, own, k, samples)
    )


@triton.jit
def _stratum(word, rank, samples):
    """The stratified number, float32, of one of 32 bits and the rank of its sample."""
    return (((rank.to(tl.int64) << 24) + (word >> 8).to(tl.int64)) // samples).to(tl.float32) * (1.0 / 16777216)


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
    floor,
    image_stride,
    class_stride,
    pixel_stride,
    BLOCK: tl.constexpr,
    GROUPS: tl.constexpr,
    STRATIFIED: tl.constexpr,
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
    allowed = tl.zeros((BLOCK,), dtype=tl.float32)
    place = begin
    for _ in range(classes):
        z = tl.load(place, mask=inside, other=0.0).to(tl.float32)
        allowed += tl.where(z > float("-inf"), 1.0, 0.0)
        higher = tl.maximum(highest, z)
        total = total * tl.exp((highest - higher) * coldness) + tl.exp((z - higher) * coldness)
        highest = higher
        place += class_stride
    lowest = floor * total / allowed

    key = tl.load(seed)
    row = (pixel // width + tl.load(offset)) // cell
    number = row * columns + (pixel % width + tl.load(offset + 1)) // cell
    tile = tl.zeros((GROUPS, BLOCK), dtype=tl.int32)
    line = tl.zeros((1, BLOCK), dtype=tl.int32)
    numbers, images = tile + number[None, :], (tile + image).to(tl.uint32)
    for first in range(0, samples, 4 * GROUPS):
        group = first // 4 + tl.arange(0, GROUPS)
        groups = (tile + group[:, None]).to(tl.uint32)
        w0, w1, w2, w3 = _words(key, numbers, images, groups)
        if STRATIFIED:
            k = 4 * group[:, None]
            o0, o1, o2, o3 = _words(key, numbers, images, groups + RANKS)
            r0, r1, r2, r3 = tile, tile, tile, tile
            for j in range(0, samples, 4):
                far = (line + j // 4).to(tl.uint32) + RANKS
                x0, x1, x2, x3 = _words(key, line + number[None, :], (line + image).to(tl.uint32), far)
                r0 += _rank(o0, k, x0, x1, x2, x3, j, samples)
                r1 += _rank(o1, k + 1, x0, x1, x2, x3, j, samples)
                r2 += _rank(o2, k + 2, x0, x1, x2, x3, j, samples)
                r3 += _rank(o3, k + 3, x0, x1, x2, x3, j, samples)
            u0, u1 = _stratum(w0, r0, samples), _stratum(w1, r1, samples)
            u2, u3 = _stratum(w2, r2, samples), _stratum(w3, r3, samples)
        else:
            u0, u1, u2, u3 = _uniform(w0), _uniform(w1), _uniform(w2), _uniform(w3)
        u0, u1, u2, u3 = u0 * total[None, :], u1 * total[None, :], u2 * total[None, :], u3 * total[None, :]
        l0, l1, l2, l3 = tile, tile, tile, tile
        reached = tl.zeros((BLOCK,), dtype=tl.float32)
        place = begin
        for c in range(classes):
            z = tl.load(place, mask=inside, other=0.0).to(tl.float32)
            chance = tl.exp((z - highest) * coldness) * (1 - floor)
            chance += tl.where(z > float("-inf"), lowest, 0.0)
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
def _credit(maps, advantages, out, samples, classes, pixels, per_pixel, BLOCK: tl.constexpr, CLASSES: tl.constexpr):
    """One block of pixels of one image: the advantages of all samples, summed into the class that each chose."""
    image = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    number = tl.arange(0, CLASSES)
    total = tl.zeros((BLOCK, CLASSES), dtype=tl.float32)
    for k in range(samples):
        row = image * samples + k
        label = tl.load(maps + row * pixels + pixel, mask=inside, other=255).to(tl.int32)
        if per_pixel:
            value = tl.load(advantages + row * pixels + pixel, mask=inside, other=0.0)
        else:
            value = tl.zeros((BLOCK,), dtype=tl.float32) + tl.load(advantages + row)
        total += tl.where(label[:, None] == number[None, :], value[:, None], 0.0)
    place = out + (image * classes + number[None, :]) * pixels + pixel[:, None]
    tl.store(place, total / samples, mask=inside[:, None] & (number[None, :] < classes))


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
    """One block of pixels of one image: its credit, and its sums of credit, choices and chances times log p."""
    image = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1).to(tl.int64)
    pixel = block * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    number = tl.arange(0, CLASSES)
    total = tl.zeros((BLOCK, CLASSES), dtype=tl.float32)
    times = tl.zeros((BLOCK, CLASSES), dtype=tl.float32)
    for k in range(samples):
        row = image * samples + k
        label = tl.load(maps + row * pixels + pixel, mask=inside, other=0).to(tl.int32)
        if per_pixel:
            value = tl.load(advantages + row * pixels + pixel, mask=inside, other=0.0)
        else:
            value = tl.zeros((BLOCK,), dtype=tl.float32) + tl.load(advantages + row)
        chosen = label[:, None] == number[None, :]
        total += tl.where(chosen, value[:, None], 0.0)
        times += chosen.to(tl.float32)
    total /= samples
    known = inside[:, None] & (number[None, :] < classes)
    tl.store(weights + (image * classes + number[None, :]) * pixels + pixel[:, None], total, mask=known)
    place = _places(image, pixel, image_stride, class_stride, pixel_stride, CLASSES)
    log_p = _log_softmax(logits, place, inside, classes, CLASSES)
    log_p = tl.where(known, log_p, 0.0)
    part = parts + (image * blocks + block) * 3
    tl.store(part, tl.sum(tl.sum(total * log_p, axis=1), axis=0))
    tl.store(part + 1, tl.sum(tl.sum(times * log_p, axis=1), axis=0))
    tl.store(part + 2, tl.sum(tl.sum(tl.exp(log_p) * log_p, axis=1), axis=0))


@triton.jit
def _policy_gradient_backward(
    logits,
    weights,
    shares,
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
    SHARES: tl.constexpr,
    BLOCK: tl.constexpr,
    CLASSES: tl.constexpr,
):
    """One block of pixels of one image: see ``agents.ops.torch_ops.policy_gradient_backward``."""
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
    if SHARES:
        push += tl.load(gradients + 1) * tl.load(shares + place, mask=known, other=0.0)
    push -= tl.load(gradients + 2) * p * log_p
    push -= p * tl.sum(push, axis=1)[:, None]
    spot = _places(image, pixel, out_image_stride, out_class_stride, out_pixel_stride, CLASSES)
    tl.store(out + spot, push.to(out.dtype.element_ty), mask=known)


@triton.jit
def _pair_differences(maps, out, samples, pixels, BLOCK: tl.constexpr, SAMPLES: tl.constexpr):
    """One block of pixels of one image: how many of them differ, for every pair of label maps."""
    image = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    k = tl.arange(0, SAMPLES)
    known = (k < samples)[:, None] & inside[None, :]
    begin = maps + image * samples * pixels
    labels = tl.load(begin + k.to(tl.int64)[:, None] * pixels + pixel[None, :], mask=known, other=0)
    row = begin + pixel
    for j in range(samples):
        other = tl.load(row, mask=inside, other=0)
        row += pixels
        differs = (labels != other[None, :]) & known
        spot = out + (image * samples + j) * samples + k
        tl.atomic_add(spot, tl.sum(differs.to(tl.int32), axis=1), mask=k < samples)


@triton.jit
def _pair_credit(maps, weights, out, samples, pixels, BLOCK: tl.constexpr, SAMPLES: tl.constexpr):
    """One block of pixels of one image: the weights of the label maps that differ, summed for every label map."""
    image = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    k = tl.arange(0, SAMPLES)
    known = (k < samples)[:, None] & inside[None, :]
    begin = image * samples * pixels
    place = begin + k.to(tl.int64)[:, None] * pixels + pixel[None, :]
    labels = tl.load(maps + place, mask=known, other=0)
    total = tl.zeros((SAMPLES, BLOCK), dtype=tl.float32)
    row = maps + begin + pixel
    for j in range(samples):
        other = tl.load(row, mask=inside, other=0)
        row += pixels
        weight = tl.load(weights + (image * samples + k) * samples + j, mask=k < samples, other=0.0)
        total += tl.where(labels != other[None, :], weight[:, None], 0.0)
    tl.store(out + place, total, mask=known)


def sample_label_maps(
    logits: torch.Tensor,
    samples: int,
    seed: torch.Tensor,
    temperature: float,
    cell: int,
    offset: torch.Tensor,
    floor: float,
    stratified: bool,
) -> torch.Tensor:
    """See ``agents.ops.torch_ops.sample_label_maps``; the same label maps but for rounding at the boundaries."""
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
        floor,
        *flat.stride(),
        BLOCK=PIXELS,
        GROUPS=min(4 if stratified else 8, triton.next_power_of_2(triton.cdiv(samples, 4))),
        STRATIFIED=stratified,
    )
    return out


def credit(label_maps: torch.Tensor, advantages: torch.Tensor, num_classes: int) -> torch.Tensor:
    """See ``agents.ops.credit``."""
    batch, samples, height, width = label_maps.shape
    pixels = height * width
    out = torch.empty((batch, num_classes, height, width), dtype=torch.float32, device=label_maps.device)
    per_pixel = advantages.shape[2:] != (1, 1) or pixels == 1
    _credit[batch, _blocks(pixels)](
        label_maps.contiguous(),
        advantages.contiguous(),
        out,
        samples,
        num_classes,
        pixels,
        per_pixel,
        BLOCK=PIXELS,
        CLASSES=triton.next_power_of_2(num_classes),
    )
    return out


def soft_counts(
    probabilities: torch.Tensor, label_maps: torch.Tensor, image: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``agents.ops.soft_counts``."""
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
    """See ``agents.ops.class_credit``."""
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


def pair_differences(label_maps: torch.Tensor) -> torch.Tensor:
    """See ``agents.ops.pair_differences``."""
    batch, samples, height, width = label_maps.shape
    pixels, width_of_tile = height * width, triton.next_power_of_2(samples)
    out = torch.zeros((batch, samples, samples), dtype=torch.int32, device=label_maps.device)
    block = max(32, 4096 // width_of_tile)
    _pair_differences[batch, triton.cdiv(pixels, block)](
        label_maps.contiguous(), out, samples, pixels, BLOCK=block, SAMPLES=width_of_tile
    )
    return out.long()


def pair_credit(label_maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """See ``agents.ops.pair_credit``."""
    batch, samples, height, width = label_maps.shape
    pixels, width_of_tile = height * width, triton.next_power_of_2(samples)
    out = torch.empty(label_maps.shape, dtype=torch.float32, device=label_maps.device)
    block = max(32, 4096 // width_of_tile)
    _pair_credit[batch, triton.cdiv(pixels, block)](
        label_maps.contiguous(), weights.contiguous(), out, samples, pixels, BLOCK=block, SAMPLES=width_of_tile
    )
    return out


def policy_gradient(
    logits: torch.Tensor, label_maps: torch.Tensor, advantages: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """See ``agents.ops.torch_ops.policy_gradient``."""
    batch, samples, height, width = label_maps.shape
    classes, pixels, flat = logits.shape[1], height * width, logits.flatten(2)
    tile = _tile(classes)
    blocks = triton.cdiv(pixels, tile["BLOCK"])
    weights = torch.empty((batch, classes, height, width), dtype=torch.float32, device=logits.device)
    parts = torch.empty((batch, blocks, 3), dtype=torch.float32, device=logits.device)
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
    of_credit, of_choices, of_chances = parts.sum(dim=(0, 1), dtype=torch.float64) / (batch * pixels)
    return (-of_credit).float(), (of_choices / samples).float(), (-of_chances).float(), weights


def policy_gradient_backward(
    logits: torch.Tensor, weights: torch.Tensor, shares: torch.Tensor | None, gradients: torch.Tensor
) -> torch.Tensor:
    """See ``agents.ops.torch_ops.policy_gradient_backward``."""
    batch, classes, height, width = logits.shape
    pixels, tile, flat = height * width, _tile(classes), logits.flatten(2)
    out = torch.empty_like(logits, memory_format=gradient_format(logits))
    given = gradients / (batch * pixels)
    _policy_gradient_backward[batch, triton.cdiv(pixels, tile["BLOCK"])](
        flat,
        weights.contiguous(),
        weights if shares is None else shares.contiguous(),
        given,
        out,
        classes,
        pixels,
        *flat.stride(),
        *out.flatten(2).stride(),
        SHARES=shares is not None,
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
