"""The operations of this package as torch knows them: each one node of a compiled graph.

``torch.compile`` cannot look into Numba's or Triton's code, nor follow a choice made by an environment variable. Into
an operation that is registered it does not look: it is told the shapes that come out (the fake kernels) and calls it
as it is, so the implementation is chosen at every call, compiled or not.
"""

from __future__ import annotations

from typing import Any

import torch

from .dispatch import backend
from .torch_ops import gradient_format

# The package's own name: where it is imported as ``agents`` from a checkout and as ``rss_agents`` from the wheel, each
# registers its own operations and neither replaces the other's.
NAMESPACE = str(__package__).partition(".")[0]
LOGITS = (torch.float32, torch.bfloat16, torch.float16)  # dtypes of logits that compiled code computes with in float32


@torch.library.custom_op(f"{NAMESPACE}::sample_label_maps", mutates_args=())
def sample_label_maps(
    logits: torch.Tensor,
    samples: int,
    seed: torch.Tensor,
    temperature: float,
    cell: int,
    offset: torch.Tensor,
) -> torch.Tensor:
    """See ``torch_ops.sample_label_maps``."""
    kernels = backend(logits, LOGITS)
    return kernels.sample_label_maps(logits, samples, seed, temperature, cell, offset)


@sample_label_maps.register_fake
def _(logits: torch.Tensor, samples: int, *_: Any) -> torch.Tensor:
    return logits.new_empty((logits.shape[0], samples, *logits.shape[2:]), dtype=torch.uint8)


@torch.library.custom_op(f"{NAMESPACE}::soft_counts", mutates_args=())
def soft_counts(
    probabilities: torch.Tensor, label_maps: torch.Tensor, image: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``agents.ops.soft_counts``."""
    return backend(probabilities).soft_counts(probabilities, label_maps, image)


@soft_counts.register_fake
def _(probabilities: torch.Tensor, label_maps: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    expected = probabilities.new_empty((label_maps.shape[0], probabilities.shape[1]))
    return expected, torch.empty_like(expected)


@torch.library.custom_op(f"{NAMESPACE}::class_credit", mutates_args=())
def class_credit(label_maps: torch.Tensor, image: torch.Tensor, weights: torch.Tensor, batch: int) -> torch.Tensor:
    """See ``agents.ops.class_credit``."""
    return backend(weights).class_credit(label_maps, image, weights, batch)


@class_credit.register_fake
def _(label_maps: torch.Tensor, image: torch.Tensor, weights: torch.Tensor, batch: int) -> torch.Tensor:
    return weights.new_empty((batch, weights.shape[1], *label_maps.shape[1:]))


@torch.library.custom_op(f"{NAMESPACE}::policy_gradient", mutates_args=())
def policy_gradient(
    logits: torch.Tensor, label_maps: torch.Tensor, advantages: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See ``torch_ops.policy_gradient``."""
    return backend(logits, LOGITS).policy_gradient(logits.detach(), label_maps, advantages)


@policy_gradient.register_fake
def _(
    logits: torch.Tensor, label_maps: torch.Tensor, advantages: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    loss, entropy = logits.new_empty((), dtype=dtype), logits.new_empty((), dtype=dtype)
    return loss, entropy, logits.new_empty(logits.shape, dtype=dtype)


@torch.library.custom_op(f"{NAMESPACE}::policy_gradient_backward", mutates_args=())
def policy_gradient_backward(logits: torch.Tensor, weights: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """See ``torch_ops.policy_gradient_backward``."""
    return backend(logits, LOGITS).policy_gradient_backward(logits.detach(), weights, gradients)


@policy_gradient_backward.register_fake
def _(logits: torch.Tensor, weights: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(logits, memory_format=gradient_format(logits))


def _save(ctx: Any, inputs: tuple[torch.Tensor, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.save_for_backward(inputs[0], output[2])
    ctx.set_materialize_grads(False)  # an output that no loss is made of costs nothing


def _backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor, None, None]:
    logits, weights = ctx.saved_tensors
    zero = weights.new_zeros(())
    given = torch.stack([zero if gradient is None else gradient for gradient in gradients[:2]])
    return policy_gradient_backward(logits, weights, given), None, None


policy_gradient.register_autograd(_backward, setup_context=_save)
