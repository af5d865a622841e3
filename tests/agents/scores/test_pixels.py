"""What pixel-level rewards say, and its memory, against plain loops."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.scores.pixels import IGNORED_SHARE, UNKNOWN, PixelMemory, classes_found, success_loss


@given(
    size=st.tuples(*(st.integers(1, most) for most in (3, 6, 4, 5))),  # B, K, H, W
    classes=st.integers(2, 255),
    right=st.floats(0, 1),
    ignored=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_class_is_found_where_it_earned_a_reward_and_excluded_where_it_earned_none(
    size: tuple[int, int, int, int], classes: int, right: float, ignored: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    batch, _, height, width = size
    targets = rng.integers(0, classes, (batch, height, width))
    label_maps = np.where(rng.random(size) < right, targets[:, None], rng.integers(0, classes, size))
    counted = rng.random(targets.shape) >= ignored
    rewards = ((label_maps == targets[:, None]) & counted[:, None]).astype(np.float32)
    known, excluded = classes_found(torch.from_numpy(label_maps.astype(np.uint8)), torch.from_numpy(rewards), classes)
    assert (known.dtype, excluded.dtype) == (torch.uint8, torch.bool)
    assert (known.shape, excluded.shape) == ((batch, height, width), (batch, classes, height, width))
    for b, y, x in np.ndindex(batch, height, width):
        tried = set(label_maps[b, :, y, x].tolist())
        found = {targets[b, y, x]} & tried if counted[b, y, x] else set()
        assert known[b, y, x] == (targets[b, y, x] if found else UNKNOWN)
        assert set(excluded[b, :, y, x].nonzero().flatten().tolist()) == tried - found


def draw_belief(seed: int, size: tuple[int, int, int], classes: int) -> tuple[torch.Tensor, ...]:
    """Logits (B, C, H, W), known (B, H, W) and excluded (B, C, H, W); a known class is never excluded."""
    rng = np.random.default_rng(seed)
    batch, height, width = size
    known = rng.integers(0, classes, size)
    known[rng.random(size) < 0.5] = UNKNOWN
    excluded = rng.random((batch, classes, height, width)) < rng.random()
    excluded &= np.arange(classes)[:, None, None] != known[:, None]
    logits = torch.from_numpy(3 * rng.normal(size=excluded.shape))
    return logits, torch.from_numpy(known.astype(np.uint8)), torch.from_numpy(excluded)


@given(
    size=st.tuples(*(st.integers(1, most) for most in (3, 5, 4))),
    classes=st.integers(2, 7),
    seed=st.integers(0, 2**32 - 1),
)
def test_success_loss_is_the_mean_over_pixels_of_what_their_rewards_say(
    size: tuple[int, int, int], classes: int, seed: int
) -> None:
    logits, known, excluded = draw_belief(seed, size, classes)
    total = 0.0
    for b, y, x in np.ndindex(*size):
        weights = [math.exp(logit) for logit in logits[b, :, y, x].tolist()]
        p = [weight / sum(weights) for weight in weights]
        if known[b, y, x] != UNKNOWN:
            total += math.log(p[known[b, y, x]])
        else:
            in_vain = sum(p[c] for c in range(classes) if excluded[b, c, y, x])
            total += math.log(IGNORED_SHARE + (1 - IGNORED_SHARE) * (1 - in_vain))
    loss = success_loss(logits.log_softmax(dim=1), known, excluded)
    assert loss.item() == pytest.approx(-total / math.prod(size), rel=1e-9, abs=1e-12)


def test_the_gradient_of_a_known_pixel_is_that_of_cross_entropy() -> None:
    logits, known, excluded = draw_belief(0, (2, 5, 6), 4)
    counted = known != UNKNOWN
    assert 0 < counted.sum() < known.numel()
    logits.requires_grad_()
    (step,) = torch.autograd.grad(success_loss(logits.log_softmax(dim=1), known, excluded), logits)
    cross_entropy = torch.nn.functional.cross_entropy(logits, known.long(), ignore_index=UNKNOWN, reduction="sum")
    (expected,) = torch.autograd.grad(cross_entropy / known.numel(), logits)
    mask = counted[:, None].expand_as(step)
    torch.testing.assert_close(step[mask], expected[mask], rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sharpness", [0.0, 1.0, 200.0])
def test_a_pixel_where_every_class_was_tried_in_vain_has_a_bounded_loss(dtype: torch.dtype, sharpness: float) -> None:
    logits = sharpness * torch.randn(1, 5, 8, 9, dtype=dtype, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    known = torch.full((1, 8, 9), UNKNOWN, dtype=torch.uint8)
    loss = success_loss(logits.log_softmax(dim=1), known, torch.ones(1, 5, 8, 9, dtype=torch.bool))
    assert loss.item() == pytest.approx(-math.log(IGNORED_SHARE), rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-5  # nothing can be learned there


def test_a_pixel_of_which_nothing_is_known_has_no_loss() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True, generator=torch.Generator().manual_seed(0))
    known = torch.full((1, 4, 4), UNKNOWN, dtype=torch.uint8)
    loss = success_loss(logits.log_softmax(dim=1), known, torch.zeros(1, 3, 4, 4, dtype=torch.bool))
    assert loss.item() == 0
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad.any()


# Memory


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """The state as a checkpoint gives it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def draw_knowledge(rng: np.random.Generator, classes: int, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """What is known of an image: uint8 (H, W), UNKNOWN where nothing is, and bool (C, H, W)."""
    known = rng.integers(0, classes, size)
    known[rng.random(size) < 0.5] = UNKNOWN
    return torch.from_numpy(known.astype(np.uint8)), torch.from_numpy(rng.random((classes, *size)) < 0.3)


def pixel_bytes(classes: int, size: tuple[int, int]) -> int:
    """One byte a pixel for its class and one bit for each class, in whole bytes."""
    return size[0] * size[1] * (1 + -(-classes // 8))


def assert_knows(memory: PixelMemory, index: int, expected: tuple[torch.Tensor, torch.Tensor] | None) -> None:
    recalled = memory.recall(index)
    assert (recalled is None) == (expected is None)
    if recalled is not None and expected is not None:
        assert [tensor.dtype for tensor in recalled] == [torch.uint8, torch.bool]
        assert all(torch.equal(one, other) for one, other in zip(recalled, expected, strict=True))


@given(
    classes=st.integers(2, 33),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    fits=st.integers(0, 4),
    stored=st.lists(st.integers(0, 5), max_size=20),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_pixel_memory_keeps_what_a_plain_list_would(
    classes: int, size: tuple[int, int], fits: int, stored: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    each = pixel_bytes(classes, size)
    memory = PixelMemory(classes, (fits * each + 0.5) / 1e6)
    kept: list[tuple[int, tuple[torch.Tensor, torch.Tensor]]] = []
    for index in stored:
        knowledge = draw_knowledge(rng, classes, size)
        memory.store(index, *knowledge)
        kept = [entry for entry in kept if entry[0] != index] + [(index, knowledge)]
        kept = kept[len(kept) - min(fits, len(kept)) :]
        assert len(memory) == len(kept)
        assert memory.nbytes == len(kept) * each <= memory.capacity
        for image in range(6):
            assert_knows(memory, image, dict(kept).get(image))


@pytest.mark.parametrize("classes", [2, 7, 8, 9, 21, 255])
def test_what_is_known_of_a_pixel_comes_back_for_any_number_of_classes(classes: int) -> None:
    known, excluded = draw_knowledge(np.random.default_rng(classes), classes, (4, 5))
    memory = PixelMemory(classes, 1)
    memory.store(3, known, excluded)
    assert memory.nbytes == pixel_bytes(classes, (4, 5))
    assert_knows(memory, 3, (known, excluded))
    assert memory.recall(2) is None


def test_what_comes_back_shares_no_memory_with_what_is_kept() -> None:
    known, excluded = draw_knowledge(np.random.default_rng(0), 5, (4, 5))
    before = known.clone(), excluded.clone()
    memory = PixelMemory(5, 1)
    memory.store(0, known, excluded)
    recalled = memory.recall(0)
    assert recalled is not None
    for tensor in (known, excluded, *recalled):
        tensor.fill_(1)
    assert_knows(memory, 0, before)


@settings(max_examples=40)
@given(classes=st.integers(2, 20), fits=st.integers(0, 4), seed=st.integers(0, 2**32 - 1))
def test_a_pixel_memory_goes_on_from_a_file_as_if_nothing_had_happened(classes: int, fits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    memory, restored = (PixelMemory(classes, (fits * pixel_bytes(classes, (3, 4)) + 0.5) / 1e6) for _ in range(2))
    for index in rng.integers(0, 6, 8).tolist():
        memory.store(index, *draw_knowledge(rng, classes, (3, 4)))
    restored.load_state_dict(through_a_file(memory.state_dict()))
    for index in [None, *rng.integers(0, 6, 5).tolist()]:
        if index is not None:
            knowledge = draw_knowledge(rng, classes, (3, 4))
            memory.store(index, *knowledge)
            restored.store(index, *knowledge)
        assert (len(restored), restored.nbytes) == (len(memory), memory.nbytes)
        for image in range(6):
            assert_knows(restored, image, memory.recall(image))


@settings(max_examples=40)
@given(classes=st.integers(2, 20), seed=st.integers(0, 2**32 - 1))
def test_what_two_processes_learned_about_an_image_is_put_together(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, (3, 4)).astype(np.uint8)
    learned = []
    for _ in range(2):  # neither knows anything wrong
        known = torch.from_numpy(np.where(rng.random((3, 4)) < 0.5, target, UNKNOWN).astype(np.uint8))
        wrong = np.arange(classes)[:, None, None] != target
        learned.append((known, torch.from_numpy(wrong & (rng.random(wrong.shape) < 0.5))))
    memories = [PixelMemory(classes, 1) for _ in range(2)]
    for rank, memory in enumerate(memories):
        memory.store(5, *learned[rank])
        memory.store(rank, *learned[rank])  # an image that the other has not seen
    both = PixelMemory(classes, 1)
    for memory in memories:
        both.load_state_dict(through_a_file(memory.state_dict()))

    known, excluded = torch.full((3, 4), UNKNOWN, dtype=torch.uint8), learned[0][1] | learned[1][1]
    for y, x in np.ndindex(3, 4):
        for one, _ in learned:
            if one[y, x] != UNKNOWN:
                known[y, x] = one[y, x]
    assert_knows(both, 5, (known, excluded))
    assert_knows(both, 0, learned[0])
    assert_knows(both, 1, learned[1])
    assert both.nbytes == 3 * pixel_bytes(classes, (3, 4))


def test_an_empty_memory_has_an_empty_state() -> None:
    memory = PixelMemory(3, 1)
    assert memory.state_dict() == {}
    memory.load_state_dict({})
    assert (len(memory), memory.nbytes) == (0, 0)
