"""The operations of this package compiled by Numba for the CPU: one pass over the label maps each.

What the label maps of an image are added up in is laid out with the classes of a pixel side by side, so that what one
pixel of a label map touches lies in one cache line. Sums of pixels are formed in float32 over blocks of pixels and in
float64 over blocks, which keeps them exact enough at any image size.

What goes through many labels is shared among as many threads as torch uses, image by image or label map by label map,
so the numbers are the same however many there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch

from rss_env.compiled import compiled

from . import philox, torch_ops
from .philox import cell_numbers

policy_gradient_backward = torch_ops.policy_gradient_backward  # dense, so torch's own is as fast

BLOCK = 512  # pixels whose classes stay in the cache while a loop goes through the samples
LANES = 4  # sums of each class that neighbouring pixels are added to in turn
WORTH = 1 << 18  # labels, of all label maps together, that several threads are worth while for
SUMMED = 512 * LANES  # pixels whose float32 sums are added up in float64

# Philox's numbers in the type that it computes in: with Python's own Numba would go over to signed or floating ones.
MASK = np.uint64(philox.MASK)
MULTIPLIERS = (np.uint64(philox.MULTIPLIERS[0]), np.uint64(philox.MULTIPLIERS[1]))
KEY_STEPS = (np.uint64(philox.KEY_STEPS[0]), np.uint64(philox.KEY_STEPS[1]))


def sample_label_maps(
    logits: torch.Tensor,
    samples: int,
    seed: torch.Tensor,
    temperature: float,
    cell: int,
    offset: torch.Tensor,
) -> torch.Tensor:
    """See ``torch_ops.sample_label_maps``; the same label maps: torch's softmax, and all else compiled."""
    batch, _, height, width = logits.shape
    out = torch.empty((batch, samples, height, width), dtype=torch.uint8)
    cells = cell_numbers(height, width, cell, offset).numpy().view(np.uint64)
    chances = _rows(torch_ops.probabilities(logits, temperature))
    key, maps = np.uint64(seed.item()), _rows(out)
    _share(batch, out.numel(), lambda first, last: _draw(chances, cells, key, first, last, maps))
    return out


def credit(label_maps: torch.Tensor, advantages: torch.Tensor, num_classes: int) -> torch.Tensor:
    """See ``torch_ops.credit``."""
    batch, samples, height, width = label_maps.shape
    out: np.ndarray = np.empty((batch, num_classes, height * width), np.float32)
    maps = _rows(label_maps)
    given = advantages.to(torch.float32).reshape(batch, samples, -1).numpy()
    _credit(maps, np.broadcast_to(given, maps.shape), out)
    return torch.from_numpy(out).unflatten(2, (height, width)).to(advantages.dtype)


def soft_counts(
    probabilities: torch.Tensor, label_maps: torch.Tensor, image: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``ops.soft_counts``."""
    batch, classes = probabilities.shape[:2]
    belief = probabilities.detach().permute(0, 2, 3, 1).reshape(batch, -1, classes).contiguous().numpy()
    counts: np.ndarray = np.zeros((2, len(label_maps), classes), np.float32)
    maps = label_maps.contiguous().numpy().reshape(len(label_maps), -1)
    of = image.numpy()

    def count(first: int, last: int) -> None:
        _soft_counts(belief, maps[first:last], of[first:last], counts[0, first:last], counts[1, first:last])

    _share(len(maps), maps.size, count)
    return torch.from_numpy(counts[0]), torch.from_numpy(counts[1])


def class_credit(label_maps: torch.Tensor, image: torch.Tensor, weights: torch.Tensor, batch: int) -> torch.Tensor:
    """See ``ops.class_credit``."""
    samples, height, width = label_maps.shape
    out: np.ndarray = np.zeros((batch, height * width, weights.shape[1]), np.float32)
    maps = label_maps.contiguous().numpy().reshape(samples, -1)
    of, given = image.numpy(), weights.contiguous().numpy()
    _share(batch, maps.size, lambda first, last: _class_credit(maps, of, given, first, last, out))
    return _planes(out, height, width)


def policy_gradient(
    logits: torch.Tensor, label_maps: torch.Tensor, advantages: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See ``torch_ops.policy_gradient``: torch's softmax, and what goes through the label maps compiled."""
    log_p = torch_ops.log_probabilities(logits)
    weights = credit(label_maps, advantages.to(log_p.dtype), log_p.shape[1])
    return *torch_ops.means(log_p, weights), weights


def pack_labels(label_maps: torch.Tensor, num_classes: int) -> torch.Tensor:
    """See ``torch_ops.pack_labels``."""
    labels, held = label_maps.contiguous().numpy().reshape(-1), torch_ops.labels_a_number(num_classes)
    numbers: np.ndarray = np.empty(-(-len(labels) // held), np.uint32)
    _pack(labels, np.uint32(num_classes), held, numbers)
    return torch.from_numpy(numbers.view(np.int32))


def unpack_labels(out: torch.Tensor, numbers: Sequence[torch.Tensor], num_classes: int) -> None:
    """See ``torch_ops.unpack_labels``."""
    held = torch_ops.labels_a_number(num_classes)
    labels = out.flatten(1).numpy()

    def write(first: int, last: int) -> None:
        for place in range(first, last):
            _unpack(numbers[place].numpy().view(np.uint32), np.float64(num_classes), held, labels[place])

    _share(len(labels), labels.size, write)


def nearest_centres(
    points: torch.Tensor, cell: torch.Tensor, centres: torch.Tensor, used: torch.Tensor
) -> torch.Tensor:
    """See ``torch_ops.nearest_centres``."""
    label = np.empty(points.shape[:2], np.int64)
    given = points.contiguous().numpy(), cell.contiguous().numpy(), centres.contiguous().numpy(), used.numpy()
    _share(len(label), 9 * label.size, lambda first, last: _nearest_centres(*given, first, last, label))
    return torch.from_numpy(label)


def region_counts(label_maps: torch.Tensor, regions: torch.Tensor, number: int, num_classes: int) -> torch.Tensor:
    """See ``torch_ops.region_counts``."""
    maps, of = _rows(label_maps), regions.contiguous().numpy().reshape(len(regions), -1)
    out = np.zeros((*maps.shape[:2], num_classes, number), np.float32)
    _share(maps.shape[1], maps.size, lambda first, last: _region_counts(maps, of, first, last, out))
    return torch.from_numpy(out)


def centred_features(
    counts: torch.Tensor,
    per_right: torch.Tensor,
    per_target: torch.Tensor,
    sizes: torch.Tensor,
    chances: torch.Tensor,
    weights: torch.Tensor | None,
) -> torch.Tensor:
    """See ``ops.centred_features``."""
    out = np.empty(counts.shape, np.float32)
    given = [part.contiguous().numpy() for part in (counts, per_right, per_target, sizes, chances)]
    scale = torch.ones_like(chances) if weights is None else weights
    given.append(scale.contiguous().numpy())
    _share(counts.shape[1], counts.numel(), lambda first, last: _centred_features(*given, first, last, out))
    return torch.from_numpy(out)


def _share(number: int, labels: int, work: Callable[[int, int], None]) -> None:
    """Does ``work(first, last)`` for ranges that make up 0..number - 1, each in a thread; of few labels all at once."""
    threads = min(torch.get_num_threads(), number) if labels >= WORTH else 1
    if threads < 2:
        work(0, number)
        return
    ends = [number * part // threads for part in range(threads + 1)]
    others = [_threads(os.getpid(), threads - 1).submit(work, *ends[part : part + 2]) for part in range(1, threads)]
    work(0, ends[1])
    for other in others:
        other.result()


@lru_cache(maxsize=1)
def _threads(process: int, number: int) -> ThreadPoolExecutor:
    """Threads of this process; one that was forked has none of its parent's."""
    return ThreadPoolExecutor(number)


def _rows(maps: torch.Tensor) -> np.ndarray:
    """(B, K, H, W) -> (B, K, H·W); K may be C as well."""
    return maps.contiguous().numpy().reshape(*maps.shape[:2], -1)


def _planes(sums: np.ndarray, height: int, width: int) -> torch.Tensor:
    """(B, H·W, C) -> (B, C, H, W)."""
    return torch.from_numpy(sums).unflatten(1, (height, width)).permute(0, 3, 1, 2).contiguous()


@compiled
def _draw(chances, cells, seed, begin, stop, out):  # type: ignore[no-untyped-def]
    _, classes, pixels = chances.shape
    samples = out.shape[1]
    sums, draws = np.empty((classes, BLOCK), np.float32), np.empty(BLOCK, np.float32)
    words, scale = np.empty((4, BLOCK), np.uint32), np.float32(2.0**-24)
    for b in range(begin, stop):
        for start in range(0, pixels, BLOCK):
            end = min(start + BLOCK, pixels)
            sums[0, : end - start] = chances[b, 0, start:end]
            for c in range(1, classes):
                total, before, chance = sums[c], sums[c - 1], chances[b, c, start:end]
                for i in range(end - start):
                    total[i] = before[i] + chance[i]
            total = sums[classes - 1]
            for first in range(0, samples, 4):
                _words(seed, cells[start:end], np.uint64(b), np.uint64(first // 4), words)
                for k in range(first, min(first + 4, samples)):
                    number, labels = words[k - first], out[b, k, start:end]
                    for i in range(end - start):
                        draws[i] = np.float32(np.int32(number[i] >> np.uint32(8))) * scale * total[i]
                    labels[:] = 0
                    for c in range(classes - 1):
                        bound = sums[c]
                        for i in range(end - start):
                            labels[i] += np.uint8(draws[i] >= bound[i])


@compiled
def _words(seed, cells, image, group, out):  # type: ignore[no-untyped-def]
    """Numbers of four samples, uint32 (4, at least len(cells)); all others are uint64: see ``philox.py``."""
    half = np.uint64(32)
    for i in range(len(cells)):
        a, b, c, d = cells[i] & MASK, cells[i] >> half, image, group
        left, right = seed & MASK, seed >> half
        for _ in range(philox.ROUNDS):
            first, second = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
            a, b = (second >> half) ^ b ^ left, second & MASK
            c, d = (first >> half) ^ d ^ right, first & MASK
            left, right = (left + KEY_STEPS[0]) & MASK, (right + KEY_STEPS[1]) & MASK
        for lane, number in enumerate((a, b, c, d)):
            out[lane, i] = number


@compiled
def _credit(maps, advantages, out):  # type: ignore[no-untyped-def]
    batch, classes, pixels = out.shape
    samples = np.float32(maps.shape[1])
    table = np.empty((BLOCK, classes), np.float32)
    for b in range(batch):
        for start in range(0, pixels, BLOCK):
            end = min(start + BLOCK, pixels)
            table[:] = 0
            for k in range(maps.shape[1]):
                labels, given = maps[b, k, start:end], advantages[b, k, start:end]
                for i in range(end - start):
                    table[i, labels[i]] += given[i]
            for c in range(classes):
                for i in range(end - start):
                    out[b, c, start + i] = table[i, c] / samples


@compiled
def _soft_counts(belief, maps, image, expected, predicted):  # type: ignore[no-untyped-def]
    # Neighbours are mostly of one class, and an addition to a sum in memory waits for the one before it. So neighbours
    # are added to different sums, of which every class has LANES. Indices are unsigned: others may count from the end.
    pixels, classes = maps.shape[1], belief.shape[2]
    lanes, stride = np.uint64(LANES), np.uint64(classes)
    right, number = np.empty(LANES * classes, np.float32), np.empty(LANES * classes, np.int32)
    whole, many = np.zeros(expected.shape, np.float64), np.zeros(expected.shape, np.int64)
    for start in range(0, pixels, SUMMED):  # of an image what all its label maps look up stays in the cache
        for m in range(maps.shape[0]):
            label_map = maps[m, start : start + SUMMED]
            chances = belief[image[m], start : start + SUMMED].reshape(-1)
            right[:] = 0
            number[:] = 0
            for group in range(np.uint64(len(label_map)) // lanes):
                for lane in range(lanes):
                    i = group * lanes + lane
                    label = np.uint64(label_map[i])
                    place = lane * stride + label
                    right[place] += chances[i * stride + label]
                    number[place] += np.int32(1)
            for j in range(len(label_map) // LANES * LANES, len(label_map)):
                right[label_map[j]] += chances[j * classes + label_map[j]]
                number[label_map[j]] += 1
            for lane in range(LANES):
                for c in range(classes):
                    whole[m, c] += right[lane * classes + c]
                    many[m, c] += number[lane * classes + c]
    expected[:], predicted[:] = whole, many


@compiled
def _class_credit(maps, image, weights, begin, stop, out):  # type: ignore[no-untyped-def]
    for start in range(0, maps.shape[1], 2 * BLOCK):
        for m in range(maps.shape[0]):
            if not begin <= image[m] < stop:
                continue
            sums, label_map, weight = out[image[m], start:], maps[m, start : start + 2 * BLOCK], weights[m]
            for i in range(len(label_map)):
                label = label_map[i]
                sums[i, label] += weight[label]


@compiled
def _pack(labels, classes, held, numbers):  # type: ignore[no-untyped-def]
    many = len(numbers)
    numbers[:] = 0
    for digit in range(held - 1, -1, -1):
        part = labels[digit * many : (digit + 1) * many]
        for j in range(len(part)):
            numbers[j] = numbers[j] * classes + np.uint32(part[j])


@compiled
def _unpack(numbers, classes, held, labels):  # type: ignore[no-untyped-def]
    # Half of one keeps every quotient away from whole numbers by more than it is rounded by, so all are exact. A number
    # is cut in two first, whose digits single precision is enough for: twice as many at a time.
    many, part = len(numbers), 2048  # numbers that stay in the cache
    half, one = np.float64(0.5), np.float32(classes)
    split = classes ** (held // 2)
    inverse, small, small_half = 1.0 / split, np.float32(1.0 / classes), np.float32(0.5)
    halves = np.empty((2, part), np.float32)
    for first in range(0, many, part):
        length = min(part, many - first)
        for j in range(length):
            number = np.float64(numbers[first + j])
            quotient = np.floor((number + half) * inverse)
            halves[0, j] = np.float32(number - quotient * split)
            halves[1, j] = np.float32(quotient)
        for digit in range(held):
            start = digit * many + first
            left, out = halves[0 if digit < held // 2 else 1], labels[start : start + length]
            for j in range(len(out)):
                rest = np.floor((left[j] + small_half) * small)
                out[j] = np.uint8(np.int32(left[j] - rest * one))
                left[j] = rest


@compiled
def _nearest_centres(points, cell, centres, used, begin, stop, label):  # type: ignore[no-untyped-def]
    _, rows, columns, parts = centres.shape
    for b in range(begin, stop):
        for i in range(points.shape[1]):
            nearest, best = np.float32(np.inf), 0
            for row in range(max(cell[b, i, 0] - 1, 0), min(cell[b, i, 0] + 2, rows)):
                for column in range(max(cell[b, i, 1] - 1, 0), min(cell[b, i, 1] + 2, columns)):
                    distance = np.float32(0)
                    for part in range(parts):
                        off = points[b, i, part] - centres[b, row, column, part]
                        distance += off * off
                    if used[b, row, column] and distance < nearest:
                        nearest, best = distance, row * columns + column
            label[b, i] = best


@compiled
def _region_counts(maps, regions, begin, stop, out):  # type: ignore[no-untyped-def]
    for b in range(maps.shape[0]):
        for m in range(begin, stop):
            label_map, counts = maps[b, m], out[b, m]
            for i in range(len(label_map)):
                counts[label_map[i], regions[b, i]] += np.float32(1)


@compiled
def _centred_features(counts, per_right, per_target, sizes, chances, weights, begin, stop, out):  # type: ignore[no-untyped-def]
    batch, _, classes, number = counts.shape
    mean = np.empty(number, np.float32)
    for b in range(batch):
        for m in range(begin, stop):
            mean[:] = 0
            for c in range(classes):
                right, target, count, chance = per_right[b, m, c], per_target[b, m, c], counts[b, m, c], chances[b, c]
                feature, size = out[b, m, c], sizes[b, 0]
                for s in range(number):
                    feature[s] = count[s] * right + size[s] * target
                    mean[s] += chance[s] * feature[s]
            for c in range(classes):
                feature, weight = out[b, m, c], weights[b, c]
                for s in range(number):
                    feature[s] = weight[s] * (feature[s] - mean[s])
