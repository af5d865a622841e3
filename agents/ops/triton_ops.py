"""The operations of this package as Triton kernels, for CUDA devices; ``TRITON_INTERPRET=1`` runs them on a CPU.

Layout: a program owns a block of pixels of one image or label map. Logits, probabilities and label maps are read where
they are, in the dtype and with the strides that they have. What a pixel needs of its classes is kept in registers, in
tiles of [classes, pixels] with 32 classes at most, one pixel a thread: more classes are gone through in chunks, so no
number of them makes a tile that registers cannot hold. Nothing of shape (B, K, C, H, W) exists. Sums over pixels are
written per block and added in float64 by torch, so that results are the same in every run: no atomic additions of
floats.

Programs are numbered along one axis of the grid: CUDA takes 2³¹ − 1 of them there, and 65,535 along the others. Where a
tensor begins for a program is computed with 64 bits; so is the place of a class and of a pixel.
"""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-def"
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from .philox import cells_in_a_row
from .torch_ops import (  # the unused ones are torch's own kernels
    centred_features,  # noqa: F401
    gradient_format,
    labels_a_number,
    nearest_centres,  # noqa: F401
    region_counts,  # noqa: F401
)

PIXELS = 128  # of a tile; a power of two
NUMBERS = 512  # of packed labels, of a program: 16 bytes a thread
FEWER_PIXELS = 32  # the same, see ``softmax_pixels``
CLASSES = 32  # of a tile, at most; a power of two
SPAN = 8192  # most pixels whose sums a program keeps before it writes them; a power of two
UNROLL = 8  # most label maps whose labels are asked for before the first of them is needed; a power of two
MOST_PROGRAMS = MOST_PIXELS = 2**31 - 1
"""What an axis of the grid takes, and what an int32 holds: the number of a pixel of an image."""


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
    blocks,
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
    program = tl.program_id(0)
    image = (program // blocks).to(tl.int64)
    pixel = (program % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
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
    short = (program % blocks) * BLOCK + tl.arange(0, BLOCK)  # the same pixel with 32 bits, for the divisions
    row = (short // width + tl.load(offset).to(tl.int32)) // cell
    number = row * columns + (short % width + tl.load(offset + 1).to(tl.int32)) // cell
    number = number.to(tl.uint32).to(tl.int64)  # unsigned, so that its upper half is known to be 0
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
def _labels(maps, pixel, pixel_stride, inside):
    """Labels of a block of pixels, int32; 255, which no tile of classes has a place for, behind the last pixel."""
    return tl.load(maps + pixel * pixel_stride, mask=inside, other=255).to(tl.int32)


@triton.jit
def _soft_counts(
    belief,
    maps,
    owner,
    right,
    number_of,
    rows,
    classes,
    pixels,
    blocks,
    image_stride,
    class_stride,
    pixel_stride,
    map_stride,
    map_pixel_stride,
    SPAN: tl.constexpr,
    BLOCK: tl.constexpr,
    CLASSES: tl.constexpr,
):
    """SPAN pixels of one label map: expected right pixels and pixels of every class.

    Label maps come next to each other in the grid, so that those of one image read the same part of its belief.
    """
    program = tl.program_id(0)
    row = (program % rows).to(tl.int64)
    block = (program // rows).to(tl.int64)
    belief += tl.load(owner + row) * image_stride
    maps += row * map_stride
    lane, number = tl.arange(0, BLOCK), tl.arange(0, CLASSES)
    place = (row * blocks + block) * classes
    for first in range(0, classes, CLASSES):
        expected = tl.zeros((CLASSES, BLOCK), dtype=tl.float32)
        found = tl.zeros((CLASSES, BLOCK), dtype=tl.int32)
        for begin in range(0, SPAN, BLOCK):
            pixel = block * SPAN + begin + lane
            label = _labels(maps, pixel, map_pixel_stride, pixel < pixels)
            wanted = (label >= first) & (label < first + CLASSES) & (pixel < pixels)
            spot = belief + label.to(tl.int64) * class_stride + pixel * pixel_stride
            chance = tl.load(spot, mask=wanted, other=0.0)
            chosen = label[None, :] == first + number[:, None]
            expected += tl.where(chosen, chance[None, :], 0.0)
            found += chosen.to(tl.int32)
        known = first + number < classes
        tl.store(right + place + first + number, tl.sum(expected, axis=1), mask=known)
        tl.store(number_of + place + first + number, tl.sum(found, axis=1).to(tl.float32), mask=known)


@triton.jit
def _class_credit(
    maps,
    order,
    begin,
    weights,
    out,
    classes,
    pixels,
    blocks,
    chunks,
    map_stride,
    map_pixel_stride,
    BLOCK: tl.constexpr,
    CLASSES: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """A block of pixels of an image and a chunk of its classes: the weights of all its label maps, one after the other.

    The chunks of a block come next to each other in the grid, so that they read the same labels.
    """
    program = tl.program_id(0)
    first = program % chunks * CLASSES
    start = (program // chunks % blocks).to(tl.int64) * BLOCK
    image = (program // chunks // blocks).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    left = (pixels - start).to(tl.int32)  # from the first pixel on
    maps += start * map_pixel_stride
    label = first + tl.arange(0, CLASSES)
    total = tl.zeros((CLASSES, BLOCK), dtype=tl.float32)
    last = tl.load(begin + image + 1)
    for place in range(tl.load(begin + image), last, UNROLL):
        for j in tl.static_range(UNROLL):
            there = last > place + j
            row = tl.load(order + place + j, mask=there, other=0)
            shown = lane < tl.where(there, left, 0)
            chosen = _labels(maps + row * map_stride, lane.to(tl.int64), map_pixel_stride, shown)
            wanted = shown & (chosen >= first) & (chosen < first + CLASSES)
            weight = tl.load(weights + row * classes + chosen, mask=wanted, other=0.0)
            total += tl.where(chosen[None, :] == label[:, None], weight[None, :], 0.0)
    spot = out + start + (image * classes + label[:, None]) * pixels + lane[None, :]
    tl.store(spot, total, mask=(lane < left)[None, :] & (label < classes)[:, None])


@triton.jit
def _chunk(tensor, first, pixel, inside, classes, class_stride, pixel_stride, CLASSES: tl.constexpr):
    """A chunk of classes of a block of pixels of an image, [CLASSES, BLOCK]: their places, and which of them exist."""
    label = first + tl.arange(0, CLASSES)
    place = label.to(tl.int64)[:, None] * class_stride + (pixel * pixel_stride)[None, :]
    return tensor + place, inside[None, :] & (label < classes)[:, None]


@triton.jit
def _softmax(logits, pixel, inside, classes, class_stride, pixel_stride, BLOCK: tl.constexpr, CLASSES: tl.constexpr):
    """Of every pixel the logarithm of the sum that its softmax is divided by, in two parts, and Σ p log p.

    The logarithm of p of a class is its logit less the first part, the largest logit, less the second.
    """
    highest = tl.full((BLOCK,), -1e30, dtype=tl.float32)  # finite: logits may begin with -inf
    total = tl.zeros((BLOCK,), dtype=tl.float32)  # Σ exp(z − highest)
    moment = tl.zeros((BLOCK,), dtype=tl.float32)  # Σ exp(z − highest) (z − highest)
    for first in range(0, classes, CLASSES):
        place, known = _chunk(logits, first, pixel, inside, classes, class_stride, pixel_stride, CLASSES)
        z = tl.load(place, mask=known, other=0.0).to(tl.float32)
        z = tl.where((first + tl.arange(0, CLASSES) < classes)[:, None], z, -1e30)
        higher = tl.maximum(highest, tl.max(z, axis=0))
        z -= higher[None, :]
        chance = tl.exp(z)
        lower = highest - higher
        moment = (moment + lower * total) * tl.exp(lower) + tl.sum(chance * z, axis=0)
        total = total * tl.exp(lower) + tl.sum(chance, axis=0)
        highest = higher
    rest = tl.log(total)
    return highest, rest, moment / total - rest


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
    image_stride,
    class_stride,
    pixel_stride,
    map_image_stride,
    map_stride,
    map_pixel_stride,
    advantage_image_stride,
    advantage_stride,
    advantage_pixel_stride,
    PER_PIXEL: tl.constexpr,
    BLOCK: tl.constexpr,
    CLASSES: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """One block of pixels of one image: its credit, and its sums of credit and chances times log p."""
    program = tl.program_id(0)
    image = (program // blocks).to(tl.int64)
    pixel = (program % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    logits += image * image_stride
    weights += image * classes * pixels
    highest, rest, entropy = _softmax(logits, pixel, inside, classes, class_stride, pixel_stride, BLOCK, CLASSES)
    gained = tl.zeros((BLOCK,), dtype=tl.float32)
    for first in range(0, classes, CLASSES):
        label = first + tl.arange(0, CLASSES)
        total = tl.zeros((CLASSES, BLOCK), dtype=tl.float32)
        map_place = maps + image * map_image_stride
        advantage_place = advantages + image * advantage_image_stride
        for k in range(0, samples, UNROLL):
            for j in tl.static_range(UNROLL):
                there = samples > k + j
                shown = pixel < tl.where(there, pixels, 0)
                chosen = _labels(map_place, pixel, map_pixel_stride, shown)
                if PER_PIXEL:
                    spot = advantage_place + pixel * advantage_pixel_stride
                    value = tl.load(spot, mask=shown, other=0.0)[None, :]
                else:
                    value = tl.load(advantage_place, mask=there, other=0.0)
                total += tl.where(chosen[None, :] == label[:, None], value, 0.0)
                map_place += map_stride
                advantage_place += advantage_stride
        total /= samples
        place, known = _chunk(weights, first, pixel, inside, classes, pixels, 1, CLASSES)
        tl.store(place, total, mask=known)
        place, known = _chunk(logits, first, pixel, inside, classes, class_stride, pixel_stride, CLASSES)
        log_p = tl.load(place, mask=known, other=0.0).to(tl.float32) - highest[None, :] - rest[None, :]
        gained += tl.sum(tl.where(known, total * log_p, 0.0), axis=0)
    tl.store(parts + program.to(tl.int64) * 2, tl.sum(gained, axis=0))
    tl.store(parts + program.to(tl.int64) * 2 + 1, tl.sum(tl.where(inside, entropy, 0.0), axis=0))


@triton.jit
def _policy_gradient_backward(
    logits,
    weights,
    gradients,
    out,
    classes,
    pixels,
    blocks,
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
    program = tl.program_id(0)
    image = (program // blocks).to(tl.int64)
    pixel = (program % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    logits += image * image_stride
    weights += image * classes * pixels
    out += image * out_image_stride
    highest, rest, entropy = _softmax(logits, pixel, inside, classes, class_stride, pixel_stride, BLOCK, CLASSES)
    credit = tl.zeros((BLOCK,), dtype=tl.float32)  # of all classes
    for first in range(0, classes, CLASSES):
        place, known = _chunk(weights, first, pixel, inside, classes, pixels, 1, CLASSES)
        credit += tl.sum(tl.load(place, mask=known, other=0.0), axis=0)
    of_loss, of_entropy = tl.load(gradients), tl.load(gradients + 1)
    pushes = -of_loss * credit - of_entropy * entropy
    for first in range(0, classes, CLASSES):
        place, known = _chunk(logits, first, pixel, inside, classes, class_stride, pixel_stride, CLASSES)
        log_p = tl.load(place, mask=known, other=0.0).to(tl.float32) - highest[None, :] - rest[None, :]
        p = tl.exp(log_p)
        place, known = _chunk(weights, first, pixel, inside, classes, pixels, 1, CLASSES)
        push = -of_loss * tl.load(place, mask=known, other=0.0) - of_entropy * p * log_p - p * pushes[None, :]
        place, known = _chunk(out, first, pixel, inside, classes, out_class_stride, out_pixel_stride, CLASSES)
        tl.store(place, push.to(out.dtype.element_ty), mask=known)


@triton.jit
def _pack_labels(labels, numbers, size, many, CLASSES: tl.constexpr, HELD: tl.constexpr, BLOCK: tl.constexpr):
    """A block of numbers, each made of its HELD digits: see ``torch_ops.pack_labels``."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    number = tl.zeros((BLOCK,), dtype=tl.uint32)
    for digit in tl.static_range(HELD):
        spot = place + tl.cast(many, tl.int64) * (HELD - 1 - digit)
        label = tl.load(labels + spot, mask=(place < many) & (spot < size), other=0)
        number = number * CLASSES + label.to(tl.uint32)
    tl.store(numbers + place, number.to(tl.int32, bitcast=True), mask=place < many)


@triton.jit
def _unpack_labels(numbers, labels, size, many, blocks, CLASSES: tl.constexpr, HELD: tl.constexpr, BLOCK: tl.constexpr):
    """A block of numbers of one row of V, each taken apart into its HELD digits."""
    row = tl.program_id(0) // blocks
    numbers += tl.cast(row, tl.int64) * many
    labels += tl.cast(row, tl.int64) * size
    place = (tl.program_id(0) - row * blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    number = tl.load(numbers + place, mask=place < many, other=0).to(tl.uint32, bitcast=True)
    for digit in tl.static_range(HELD):
        spot = place + tl.cast(many, tl.int64) * digit
        tl.store(labels + spot, (number % CLASSES).to(tl.uint8), mask=(place < many) & (spot < size))
        number = number // CLASSES


Wrapped = Callable[..., Any]


def on_its_device(function: Wrapped) -> Wrapped:
    """Launches kernels on the device of the first tensor, which need not be the current one."""

    @functools.wraps(function)
    def launch(tensor: torch.Tensor, *rest: Any) -> Any:
        with torch.cuda.device_of(tensor):
            return function(tensor, *rest)

    return launch


@on_its_device
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
    blocks = _blocks(pixels)
    out = torch.empty((batch, samples, height, width), dtype=torch.uint8, device=logits.device)
    _draw[_grid(blocks, batch)](
        flat,
        seed,
        offset,
        out,
        samples,
        classes,
        pixels,
        blocks,
        width,
        cell,
        cells_in_a_row(width, cell),
        1 / temperature,
        *flat.stride(),
        **draw_constants(samples),
    )
    return out


@on_its_device
def soft_counts(
    probabilities: torch.Tensor, label_maps: torch.Tensor, image: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``ops.soft_counts``."""
    classes, rows, pixels = probabilities.shape[1], len(label_maps), label_maps[0].numel()
    belief, maps = probabilities.detach().flatten(2), label_maps.flatten(1)
    span = count_span(pixels)
    blocks = _blocks(pixels, span)
    parts = torch.empty((2, rows, blocks, classes), dtype=torch.float32, device=label_maps.device)
    _soft_counts[_grid(blocks, rows)](
        belief,
        maps,
        image.contiguous(),
        parts[0],
        parts[1],
        rows,
        classes,
        pixels,
        blocks,
        *belief.stride(),
        *maps.stride(),
        SPAN=span,
        **tile(classes),
    )
    expected, predicted = parts.sum(dim=2, dtype=torch.float64)
    return expected.float(), predicted.float()  # two tensors of their own, as registered operations must give


@on_its_device
def class_credit(label_maps: torch.Tensor, image: torch.Tensor, weights: torch.Tensor, batch: int) -> torch.Tensor:
    """See ``ops.class_credit``."""
    height, width = label_maps.shape[1:]
    classes, pixels, maps = weights.shape[1], height * width, label_maps.flatten(1)
    blocks, chunks = _blocks(pixels), triton.cdiv(classes, CLASSES)
    out = torch.empty((batch, classes, height, width), dtype=torch.float32, device=label_maps.device)
    order = torch.argsort(image, stable=True)
    begin = torch.searchsorted(image[order], torch.arange(batch + 1, device=image.device))
    _class_credit[_grid(blocks * chunks, batch)](
        maps,
        order,
        begin,
        weights.contiguous(),
        out,
        classes,
        pixels,
        blocks,
        chunks,
        *maps.stride(),
        **tile(classes),
        UNROLL=unroll(triton.cdiv(len(maps), batch)),
    )
    return out


@on_its_device
def policy_gradient(
    logits: torch.Tensor, label_maps: torch.Tensor, advantages: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See ``torch_ops.policy_gradient``."""
    batch, samples, height, width = label_maps.shape
    classes, pixels = logits.shape[1], height * width
    flat, maps, given = logits.flatten(2), label_maps.flatten(2), advantages.float().flatten(2)
    shape = tile(classes, softmax_pixels(flat))
    blocks = _blocks(pixels, shape["BLOCK"])
    weights = torch.empty((batch, classes, height, width), dtype=torch.float32, device=logits.device)
    parts = torch.empty((batch, blocks, 2), dtype=torch.float32, device=logits.device)
    _policy_gradient[_grid(blocks, batch)](
        flat,
        maps,
        given,
        weights,
        parts,
        samples,
        classes,
        pixels,
        blocks,
        *flat.stride(),
        *maps.stride(),
        *given.stride(),
        PER_PIXEL=given.shape[2] > 1,
        **shape,
        UNROLL=unroll(samples),
    )
    of_credit, of_chances = parts.sum(dim=(0, 1), dtype=torch.float64) / (batch * pixels)
    return (-of_credit).float(), (-of_chances).float(), weights


@on_its_device
def policy_gradient_backward(logits: torch.Tensor, weights: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """See ``torch_ops.policy_gradient_backward``."""
    batch, classes, height, width = logits.shape
    pixels, flat = height * width, logits.flatten(2)
    shape = tile(classes, softmax_pixels(flat))
    blocks = _blocks(pixels, shape["BLOCK"])
    out = torch.empty_like(logits, memory_format=gradient_format(logits))
    _policy_gradient_backward[_grid(blocks, batch)](
        flat,
        weights.contiguous(),
        gradients / (batch * pixels),
        out,
        classes,
        pixels,
        blocks,
        *flat.stride(),
        *out.flatten(2).stride(),
        **shape,
    )
    return out


@on_its_device
def pack_labels(label_maps: torch.Tensor, num_classes: int) -> torch.Tensor:
    """See ``torch_ops.pack_labels``."""
    labels, held = label_maps.contiguous(), labels_a_number(num_classes)
    many = triton.cdiv(labels.numel(), held)
    numbers = torch.empty(many, dtype=torch.int32, device=labels.device)
    if many:
        shape = {"CLASSES": num_classes, "HELD": held, "BLOCK": NUMBERS}
        _pack_labels[_grid(triton.cdiv(many, NUMBERS), 1)](labels, numbers, labels.numel(), many, **shape)
    return numbers


@on_its_device
def unpack_labels(out: torch.Tensor, numbers: Sequence[torch.Tensor], num_classes: int) -> None:
    """See ``torch_ops.unpack_labels``."""
    if out.numel():
        packed = torch.stack(list(numbers))  # (V, M): one launch unpacks all
        blocks = triton.cdiv(packed.shape[1], NUMBERS)
        shape = {"CLASSES": num_classes, "HELD": labels_a_number(num_classes), "BLOCK": NUMBERS}
        _unpack_labels[_grid(blocks, len(packed))](packed, out, out[0].numel(), packed.shape[1], blocks, **shape)


def softmax_pixels(logits: torch.Tensor) -> int:
    """Pixels of a program that reads tiles of logits (B, C, H·W).

    Where the classes of a pixel lie side by side, threads read along them and then exchange what they have read, which
    takes registers twice.
    """
    return FEWER_PIXELS if logits.stride(1) < logits.stride(2) else PIXELS


def tile(classes: int, pixels: int = PIXELS) -> dict[str, int]:
    """Shape of the tiles of a program: pixels, and classes of a chunk."""
    return {"BLOCK": pixels, "CLASSES": min(CLASSES, triton.next_power_of_2(classes))}


def unroll(samples: int) -> int:
    """Label maps of an image that a program asks for together."""
    return min(UNROLL, triton.next_power_of_2(samples))


def draw_constants(samples: int) -> dict[str, int]:
    """Shape of the tiles of draws of a program: pixels, and groups of four samples."""
    return {"BLOCK": PIXELS, "GROUPS": min(8, triton.next_power_of_2(triton.cdiv(samples, 4)))}


def count_span(pixels: int) -> int:
    """Pixels of a label map that a program counts."""
    return max(PIXELS, min(SPAN, triton.next_power_of_2(pixels)))


def _blocks(pixels: int, block: int = PIXELS) -> int:
    """Blocks of an image."""
    if pixels > MOST_PIXELS:
        raise ValueError(f"An image has at most {MOST_PIXELS} pixels, got {pixels}.")
    return triton.cdiv(pixels, block)


def _grid(blocks: int, rows: int) -> tuple[int]:
    """The grid of a program for every block of every image or label map."""
    if blocks * rows > MOST_PROGRAMS:
        raise ValueError(f"A kernel has at most {MOST_PROGRAMS} programs, got {rows} × {blocks}: take smaller batches.")
    return (blocks * rows,)
