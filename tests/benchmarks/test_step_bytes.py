"""The bytes of a step on paper are those that its operations move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from agents.likelihood import Likelihood
from agents.training import Feedback
from benchmarks.step_bytes import STEP, bytes_table

BATCH, SAMPLES, CLASSES, SIDE = 2, 3, 40, 32
DENSE = 4 * BATCH * CLASSES * SIDE * SIDE
OBSERVED = {  # by torch's name of the operation, what the table calls it
    "_softmax": "softmax",
    "soft_counts": "soft counts",
    "sum": "target pixels of every class: a sum",
    "class_credit": "class credit",
}


class MovedBytes(TorchDispatchMode):
    """Adds up the inputs and outputs of every operation that is no view."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
            # What is broadcast is read where it is.
            count = sum(min(tensor.nbytes, tensor.untyped_storage().nbytes()) for tensor in tensors)
            self.moved[func.overloadpacket.__name__] += count
        return result


def dense(function: Callable[[], Any]) -> tuple[Any, Counter[str], float]:
    """A function's result, its bytes by operation, and all of them as multiples of a tensor of logits."""
    with MovedBytes() as recorder:
        result = function()
    return result, recorder.moved, sum(recorder.moved.values()) / DENSE


def test_the_step_moves_the_bytes_of_the_table() -> None:
    by_name = {part.name: part.dense for part in STEP}
    algorithm = Likelihood(samples_per_image=SAMPLES, replay=0, cells=(1,), regions=())
    metadata = {"reward_level": "image", "reward": "mean_iou", "reward_options": {}, "num_images": BATCH}
    algorithm.start(metadata | {"image_size": (SIDE, SIDE)}, CLASSES)
    logits = torch.randn(BATCH, CLASSES, SIDE, SIDE, requires_grad=True)
    label_maps = algorithm.act(logits.detach(), 0.0, torch.Generator().manual_seed(0))
    scores = torch.rand(BATCH, SAMPLES, dtype=torch.float64)
    feedback = Feedback(label_maps, scores, None, list(range(BATCH)), [False] * BATCH, {})

    lesson, moved, _ = dense(lambda: algorithm.observe(logits.detach(), feedback))
    for name, part in OBSERVED.items():
        assert moved[name] / DENSE == pytest.approx(by_name[part], rel=0.15), name
    algorithm.synchronise([lesson])

    (loss, _), _, forward = dense(lambda: algorithm.loss(logits, lesson, 0.0))
    parts = ["loss: softmax, product with the direction, sum", "entropy, a metric: p log p, sum"]
    assert forward == pytest.approx(sum(by_name[part] for part in parts), rel=0.03)

    _, _, backward = dense(loss.backward)
    assert backward == pytest.approx(by_name["backward: product, softmax"], rel=0.03)


def test_the_sums_of_the_table_are_those_of_its_lines() -> None:
    heading, *lines = bytes_table()
    assert all(len(line) == len(heading) for line in lines)
    *parts, kernels, torch_code, everything = lines
    for column in range(2, len(heading)):
        total = sum(float(line[column]) for line in parts if line[column])
        assert float(everything[column]) == pytest.approx(total, abs=0.1)
        assert float(kernels[column]) + float(torch_code[column]) == pytest.approx(total, abs=0.1)
    # By hand: 22 tensors of logits and four of the label maps.
    assert float(everything[2]) == pytest.approx((22 * 4 * 16 * 21 * 2**18 + 4 * 16 * 32 * 2**18) / 1e9, abs=0.05)
