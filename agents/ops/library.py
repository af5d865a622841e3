"""The operations of ``agents.ops`` as torch knows them: each one node of a compiled graph.

``torch.compile`` cannot look into Numba's or Triton's code, nor follow a choice made by an environment variable. Into
an operation that is registered it does not look: it is told the shapes that come out (the fake kernels) and calls it
as it is, so the implementation is chosen at every call, compiled or not.
"""

from __future__ import annotations

from typing import Any

import torch

from agents.ops.dispatch import backend
from agents.ops.torch_ops import gradient_format

LOGITS = (torch.float32, torch.bfloat16, torch.float16)  # dtypes of logits that compiled code computes with in float32


@torch.library.custom_op("rss::sample_label_maps", mutates_args=())
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
    """See ``agents.ops.torch_ops.sample_label_maps``."""
    kernels = backend(logits, LOGITS)
    return kernels.sample_label_maps(logits, samples, seed, temperature, cell, offset, floor, stratified)


@sample_label_maps.register_fake
def _(logits: torch.Tensor, samples: int, *_: Any) -> torch.Tensor:
    return logits.new_empty((logits.shape[0], samples, *logits.shape[2:]), dtype=torch.uint8)


@torch.library.custom_op("rss::credit", mutates_args=())
def credit(label_maps: torch.Tensor, advantages: torch.Tensor, num_classes: int) -> torch.Tensor:
    """See ``agents.ops.credit``."""
    return backend(advantages).credit(label_maps, advantages, num_classes)


@credit.register_fake
def _(label_maps: torch.Tensor, advantages: torch.Tensor, num_classes: int) -> torch.Tensor:
    batch, _, height, width = label_maps.shape
    return advantages.new_empty((batch, num_classes, height, width))


@torch.library.custom_op("rss::soft_counts", mutates_args=())
def soft_counts(
    probabilities: torch.Tensor, label_maps: torch.Tensor, image: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``agents.ops.soft_counts``."""
    return backend(probabilities).soft_counts(probabilities, label_maps, image)


@soft_counts.register_fake
def _(probabilities: torch.Tensor, label_maps: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    expected = probabilities.new_empty((label_maps.shape[0], probabilities.shape[1]))
    return expected, torch.empty_like(expected)


@torch.library.custom_op("rss::class_credit", mutates_args=())
def class_credit(label_maps: torch.Tensor, image: torch.Tensor, weights: torch.Tensor, batch: int) -> torch.Tensor:
    """See ``agents.ops.class_credit``."""
    return backend(weights).class_credit(label_maps, image, weights, batch)


@class_credit.register_fake
def _(label_maps: torch.Tensor, image: torch.Tensor, weights: torch.Tensor, batch: int) -> torch.Tensor:
    return weights.new_empty((batch, weights.shape[1], *label_maps.shape[1:]))


@torch.library.custom_op("rss::pair_differences", mutates_args=())
def pair_differences(label_maps: torch.Tensor) -> torch.Tensor:
    """See ``agents.ops.pair_differences``."""
    return backend(label_maps, (torch.uint8,)).pair_differences(label_maps)


@pair_differences.register_fake
def _(label_maps: torch.Tensor) -> torch.Tensor:
    batch, samples = label_maps.shape[:2]
    return label_maps.new_empty((batch, samples, samples), dtype=torch.int64)


@torch.library.custom_op("rss::pair_credit", mutates_args=())
def pair_credit(label_maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """See ``agents.ops.pair_credit``."""
    return backend(weights).pair_credit(label_maps, weights)


@pair_credit.register_fake
def _(label_maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return weights.new_empty(label_maps.shape)


@torch.library.custom_op("rss::policy_gradient", mutates_args=())
def policy_gradient(
    logits: torch.Tensor, label_maps: torch.Tensor, advantages: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """See ``agents.ops.torch_ops.policy_gradient``."""
    return backend(logits, LOGITS).policy_gradient(logits.detach(), label_maps, advantages)


@policy_gradient.register_fake
def _(
    logits: torch.Tensor, label_maps: torch.Tensor, advantages: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    loss, log_probability, entropy = (logits.new_empty((), dtype=dtype) for _ in range(3))
    return loss, log_probability, entropy, logits.new_empty(logits.shape, dtype=dtype)


@torch.library.custom_op("rss::policy_gradient_backward", mutates_args=())
def policy_gradient_backward(
    logits: torch.Tensor, weights: torch.Tensor, shares: torch.Tensor | None, gradients: torch.Tensor
) -> torch.Tensor:
    """See ``agents.ops.torch_ops.policy_gradient_backward``."""
    return backend(logits, LOGITS).policy_gradient_backward(logits.detach(), weights, shares, gradients)


@policy_gradient_backward.register_fake
def _(
    logits: torch.Tensor, weights: torch.Tensor, shares: torch.Tensor | None, gradients: torch.Tensor
) -> torch.Tensor:
    return torch.empty_like(logits, memory_format=gradient_format(logits))


def _save(ctx: Any, inputs: tuple[torch.Tensor, ...], output: tuple[torch.Tensor, ...]) -> None:
    logits, label_maps, _ = inputs
    ctx.save_for_backward(logits, label_maps, output[3])
    ctx.set_materialize_grads(False)  # an output that nothing was made of costs nothing


def _backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor, None, None]:
    logits, label_maps, weights = ctx.saved_tensors
    shares = None
    if gradients[1] is not None:
        ones = weights.new_ones((*label_maps.shape[:2], 1, 1))
        shares = credit(label_maps, ones, logits.shape[1])
    zero = weights.new_zeros(())
    given = torch.stack([zero if gradient is None else gradient for gradient in gradients[:3]])
    return policy_gradient_backward(logits, weights, shares, given), None, None


policy_gradient.register_autograd(_backward, setup_context=_save)
