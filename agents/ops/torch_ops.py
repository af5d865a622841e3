"""The operations of this package in plain torch, for any device and dtype: the reference of the compiled ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .philox import uniforms


def sample_label_maps(
    logits: torch.Tensor,
    samples: int,
    seed: torch.Tensor,
    temperature: float,
    cell: int,
    offset: torch.Tensor,
) -> torch.Tensor:
    """See ``ops.sample_label_maps``: a pixel's class is the number of cumulative sums that its draw reaches.

    Args:
        logits: (B, C, H, W).
        samples: K.
        seed: int64 (1,).
        temperature: what the logits are divided by.
        cell: side of the cells in pixels.
        offset: int64 (2,), each 0..cell-1.
    """
    batch, classes, height, width = logits.shape
    sums = probabilities(logits, temperature)
    for c in range(1, classes):  # one after the other: sums formed in another order can fall where a class has none
        sums[:, c] += sums[:, c - 1]
    # Rounding can leave the last sum below 1: scaling the draws to it keeps the classes behind it unreachable.
    draws = uniforms((batch, samples, height, width), seed, cell, offset, logits.device) * sums[:, -1:]
    label_maps = torch.zeros(draws.shape, dtype=torch.uint8, device=draws.device)
    for c in range(classes - 1):
        label_maps += draws >= sums[:, c : c + 1]
    return label_maps


def probabilities(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """What label maps are drawn from, (B, C, H, W), in float32 or float64: see ``ops.sample_label_maps``."""
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature != 1:  # differences of logits are divided: the rounding of large quotients would show
        z = (z - z.amax(dim=1, keepdim=True)).div_(temperature)
    return z.softmax(dim=1)


def credit(label_maps: torch.Tensor, advantages: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Mean advantage earned by each class at each pixel, (1/K) Σ_k Aᵏ [aᵏ = c], (B, C, H, W).

    With it the policy gradient of K label maps is that of one dense weighted log-likelihood, so no log-probability of a
    single sample is ever formed.
    """
    batch, samples, height, width = label_maps.shape
    out = torch.zeros((batch, num_classes, height, width), dtype=advantages.dtype, device=label_maps.device)
    per_pixel = advantages.expand(label_maps.shape)
    for k in range(samples):
        out.scatter_add_(1, label_maps[:, k : k + 1].long(), per_pixel[:, k : k + 1])
    return out / samples


def soft_counts(
    probabilities: torch.Tensor, label_maps: torch.Tensor, image: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``ops.soft_counts``."""
    # In float64, because one pixel after the other is added: float32 loses a percent over two million pixels.
    shape, device = (len(label_maps), probabilities.shape[1]), probabilities.device
    expected = torch.zeros(shape, dtype=torch.float64, device=device)
    predicted = torch.zeros_like(expected)
    for m, label_map in enumerate(label_maps.flatten(1).long()):
        chosen = probabilities[image[m]].flatten(1).gather(0, label_map[None])[0].double()  # (H·W,)
        expected[m].scatter_add_(0, label_map, chosen)
        predicted[m].scatter_add_(0, label_map, torch.ones_like(chosen))
    return expected.to(probabilities.dtype), predicted.to(probabilities.dtype)


def class_credit(label_maps: torch.Tensor, image: torch.Tensor, weights: torch.Tensor, batch: int) -> torch.Tensor:
    """See ``ops.class_credit``."""
    height, width = label_maps.shape[1:]
    out = weights.new_zeros((batch, weights.shape[1], height, width))
    for m, label_map in enumerate(label_maps.long()):
        out[image[m]].scatter_add_(0, label_map[None], weights[m][label_map][None])
    return out


def policy_gradient(
    logits: torch.Tensor, label_maps: torch.Tensor, advantages: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See ``ops.policy_gradient``; the third is the credit (B, C, H, W), which the backward pass needs."""
    log_p = log_probabilities(logits)  # (B, C, H, W)
    weights = credit(label_maps, advantages.to(log_p.dtype), log_p.shape[1])
    return *means(log_p, weights), weights


def means(log_p: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and entropy, the means over pixels, of log-probabilities and credit (B, C, H, W)."""
    pixels = log_p[:, 0].numel()
    product = log_p.exp().mul_(log_p)  # (B, C, H, W)
    entropy = -product.sum() / pixels
    loss = -torch.mul(weights, log_p, out=product).sum() / pixels
    return loss, entropy


def policy_gradient_backward(logits: torch.Tensor, weights: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Gradient of the logits from those of the two outputs of ``policy_gradient``.

    With g_c = (−g_loss credit_c − g_entropy p_c log p_c) / (B·N), it is g_c − p_c Σ g: what log-softmax makes of g,
    because the part of the entropy's derivative that is the same for all classes cancels.

    Args:
        logits: (B, C, H, W).
        weights: (B, C, H, W), the credit.
        gradients: (2,), those of the loss and of the entropy.

    Returns:
        (B, C, H, W), dtype and memory format of ``logits``.
    """
    of_loss, of_entropy = gradients / logits[:, 0].numel()
    log_p = log_probabilities(logits)
    push = weights * -of_loss
    push.addcmul_(log_p.exp().mul_(of_entropy), log_p, value=-1)
    gradient = torch.ops.aten._log_softmax_backward_data(push, log_p, 1, log_p.dtype)
    return gradient.to(logits.dtype, memory_format=gradient_format(logits))


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Logarithm of the softmax over classes, (B, C, H, W), in float32 or float64."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=1)


def gradient_format(logits: torch.Tensor) -> torch.memory_format:
    """Memory format of the gradient of the logits: channels last if they are, else contiguous."""
    last = logits.is_contiguous(memory_format=torch.channels_last) and not logits.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def labels_a_number(num_classes: int) -> int:
    """Labels of C classes, 2 to 256, that an unsigned 32-bit number holds as its digits in base C: 32 to 4."""
    held = 1
    while num_classes ** (held + 1) <= 2**32:
        held += 1
    return held


def pack_labels(label_maps: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Labels as digits of 32-bit numbers.

    Args:
        label_maps: uint8, any shape, values 0..C-1.
        num_classes: C.

    Returns:
        int32 (M,), unsigned numbers read as signed ones. Label i of the flattened label maps is digit i // M of number
        i % M, where digit 0 counts the ones, digit 1 the Cs and so on; digits that no label needs are 0.
    """
    labels = label_maps.flatten()
    held = labels_a_number(num_classes)
    many = -(-len(labels) // held)
    places = torch.nn.functional.pad(labels, (0, many * held - len(labels))).view(held, many)
    numbers = torch.zeros(many, dtype=torch.int64, device=labels.device)
    for digit in reversed(places):
        numbers.mul_(num_classes).add_(digit)
    return numbers.to(torch.int32)  # modulo 2³²


def unpack_labels(out: torch.Tensor, numbers: Sequence[torch.Tensor], num_classes: int) -> None:
    """Writes to ``out``, contiguous uint8 (V, …), the labels of each of the V results of ``pack_labels``."""
    for labels, packed in zip(out.flatten(1), numbers, strict=True):
        many, left = len(packed), packed.long() & 0xFFFFFFFF
        for start in range(0, len(labels), max(many, 1)):
            part = labels[start : start + many]
            part.copy_((left % num_classes)[: len(part)])
            left = left // num_classes


def nearest_centres(
    points: torch.Tensor, cell: torch.Tensor, centres: torch.Tensor, used: torch.Tensor
) -> torch.Tensor:
    """See ``ops.nearest_centres``."""
    rows, columns = used.shape[1:]
    flat, there = centres.flatten(1, 2), used.flatten(1)
    nearest = torch.full_like(points[..., 0], torch.inf)
    label = torch.zeros_like(cell[..., 0])
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            row, column = cell[..., 0] + down, cell[..., 1] + right
            inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
            number = torch.where(inside, row * columns + column, 0)
            centre = flat.gather(1, number[..., None].expand_as(points))
            distance = (points - centre).square().sum(dim=-1)
            better = inside & there.gather(1, number) & (distance < nearest)
            nearest = torch.where(better, distance, nearest)
            label = torch.where(better, number, label)
    return label


def region_counts(label_maps: torch.Tensor, regions: torch.Tensor, number: int, num_classes: int) -> torch.Tensor:
    """See ``ops.region_counts``."""
    shape = label_maps.shape[1], num_classes * number
    out = torch.zeros(len(label_maps), *shape, device=label_maps.device)
    for b, of in enumerate(regions.flatten(1)):  # one image at a time: the places take eight bytes a label
        place = label_maps[b].flatten(1).long() * number + of  # (M, N)
        out[b].scatter_add_(1, place, torch.ones_like(place, dtype=out.dtype))
    return out.unflatten(2, (num_classes, number))


def centred_features(
    counts: torch.Tensor,
    per_right: torch.Tensor,
    per_target: torch.Tensor,
    sizes: torch.Tensor,
    chances: torch.Tensor,
    weights: torch.Tensor | None,
) -> torch.Tensor:
    """See ``ops.centred_features``."""
    out = (counts * per_right[..., None]).addcmul_(sizes[:, None], per_target[..., None])
    mean = out[:, :, 0] * chances[:, None, 0]  # over the classes, one after the other: nothing large
    for c in range(1, out.shape[2]):
        mean.addcmul_(out[:, :, c], chances[:, None, c])
    out -= mean[:, :, None]
    return out if weights is None else out.mul_(weights[:, None])
