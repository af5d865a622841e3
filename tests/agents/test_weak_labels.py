"""The bound that sees which classes an image has."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.training import Feedback, train
from agents.weak_labels import (
    NOBODY,
    Tags,
    WeakLabels,
    image_tags,
    local_network,
    pseudo_labels,
    shared_classes,
    tag_loss,
    tag_scores,
)
from rss_env.errors import OptionError


@given(st.integers(2, 255), st.integers(0, 2**32 - 1))
def test_tags_are_the_classes_that_occur_and_ignored_pixels_are_none(classes: int, seed: int) -> None:
    targets = np.random.default_rng(seed).integers(0, classes, (3, 2, 4))
    targets[0, 0, :] = 255
    tags = image_tags(torch.from_numpy(targets), classes).numpy()
    for b in range(3):
        present = set(targets[b].ravel().tolist()) - {255}
        assert set(np.flatnonzero(tags[b]).tolist()) == present
    assert tags.shape == (3, classes)


def test_shared_classes_are_those_of_every_image_that_has_tags() -> None:
    tags = torch.tensor([[1.0, 0, 1], [1, 1, 0], [0, 0, 0]])
    assert shared_classes(tags).tolist() == [True, False, False]
    assert shared_classes(tags[2:]).tolist() == [True, True, True]  # nothing is told apart


def scores_by_hand(logits: np.ndarray) -> np.ndarray:
    """The scores of one image from their definition; logits (C, N)."""
    p = np.exp(logits) / np.exp(logits).sum(axis=0)
    scores = []
    for c, pixels in enumerate(p):
        mean = sum(p_i * z_i for p_i, z_i in zip(pixels, logits[c], strict=True)) / (1 + sum(pixels))
        size = sum(pixels) / len(pixels)
        scores.append(mean + (1 - size) ** 3 * math.log(0.01 + size))
    return np.array(scores)


@given(st.lists(st.booleans(), min_size=6, max_size=6), st.integers(0, 2), st.integers(0, 2**31))
def test_the_loss_is_minus_the_log_likelihood_of_the_tags(tags: list[bool], shared: int, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 2, (2, 3, 2, 4))
    told = np.array(tags, float).reshape(2, 3)
    by_hand = [scores_by_hand(image.reshape(3, 8)) for image in logits]
    np.testing.assert_allclose(tag_scores(torch.from_numpy(logits)).numpy(), by_hand)
    losses = []
    for b in range(2):
        for c in range(3):
            if told[b].any() and c != shared:
                sign = 1 if told[b, c] else -1
                losses.append(math.log1p(math.exp(-sign * by_hand[b][c])))
    found = tag_loss(torch.from_numpy(logits), torch.from_numpy(told), torch.arange(3) == shared)
    assert found.item() == pytest.approx(np.mean(losses) if losses else 0.0, abs=1e-9)


def test_its_gradient_is_finite_where_all_is_ignored_or_certain_and_none_where_tags_say_nothing() -> None:
    logits = torch.tensor([100.0, 0, 0]).view(1, 3, 1, 1).repeat(2, 1, 2, 2).requires_grad_()
    nothing = torch.zeros(3, dtype=torch.bool)
    tag_loss(logits, torch.tensor([[0.0, 0, 0], [0, 1, 0]]), nothing).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[0] == 0).all()
    assert (logits.grad[1] != 0).any()
    logits.grad = None
    tag_loss(logits, torch.ones(2, 3), ~nothing).backward()
    assert (logits.grad == 0).all()


@settings(max_examples=20)
@given(st.lists(st.booleans(), min_size=8, max_size=8), st.integers(0, 2**31))
def test_pseudo_labels_are_classes_of_the_tags(tags: list[bool], seed: int) -> None:
    told = torch.tensor(tags).view(2, 4).float()
    generator = torch.Generator().manual_seed(seed)
    p = (4 * torch.randn(2, 4, 6, 7, generator=generator)).softmax(dim=1)
    images = torch.randint(0, 256, (2, 6, 7, 3), generator=generator, dtype=torch.uint8)
    labels = pseudo_labels(p, told, shared_classes(told), images)
    for b in range(2):
        assert set(labels[b].unique().tolist()) <= {*told[b].nonzero().flatten().tolist(), NOBODY}


def test_pixels_are_labelled_where_one_class_only_is_confident() -> None:
    images = torch.zeros(1, 6, 6, 3, dtype=torch.uint8)  # two halves of one colour each, which refinement leaves alone
    images[:, :, 3:] = 255
    halves = torch.tensor([0, 0, 0, 1, 1, 1])

    def label(left: list[float], right: list[float], tags: list[float]) -> list[int]:
        p = torch.tensor([left, right])[halves].T[None, :, None].expand(1, 3, 6, 6)
        labels = pseudo_labels(p, torch.tensor([tags]), torch.tensor([True, False, False]), images)
        assert torch.equal(labels, labels[:, :1].expand_as(labels))
        return [int(labels[0, 0, 0]), int(labels[0, 0, 5])]

    assert label([0.8, 0.1, 0.1], [0.2, 0.8, 0.0], [1, 1, 0]) == [0, 1]
    assert label([0.8, 0.1, 0.1], [0.2, 0.0, 0.8], [1, 1, 0]) == [0, 0]  # 1 is nowhere above LEAST, and 2 is no tag
    assert label([0.55, 0.45, 0.0], [0.35, 0.65, 0.0], [1, 1, 0]) == [NOBODY, 1]  # 0.45 is over 0.6 × 0.65
    assert label([0.6, 0.3, 0.1], [0.38, 0.62, 0.0], [1, 1, 0]) == [0, 1]  # 0.38 is not over 0.7 × 0.6 / 0.9


def test_the_local_network_sees_9_by_9_pixels_and_no_border() -> None:
    network = local_network(3)
    images = torch.rand(1, 3, 15, 15, requires_grad=True)
    network(images)[0, :, 7, 7].sum().backward()
    assert images.grad is not None
    seen = images.grad[0].abs().sum(dim=0) > 0
    assert seen[3:12, 3:12].any(dim=0).all()
    assert not seen[:3].any()
    assert not seen[:, 12:].any()
    plain = network(torch.full((1, 3, 12, 12), 0.3))
    assert torch.allclose(plain, plain[..., :1, :1].expand_as(plain), atol=1e-6)


def earn(target: torch.Tensor, score: float) -> Feedback:
    """Feedback on label maps (B, 1, H, W) whatever they are, with the targets (B, H, W) of the images."""
    batch = len(target)
    scores = torch.full((batch, 1), score)
    images = np.random.default_rng(0).integers(0, 256, (*target.shape, 3), dtype=np.uint8)
    shown = {"target": target}
    return Feedback(target[:, None], scores, None, list(range(batch)), [False] * batch, shown, images=images)


def test_it_learns_from_the_tags_only_and_logs_the_scores() -> None:
    target = torch.tensor([[[0, 0, 2]], [[1, 255, 1]]], dtype=torch.uint8)
    logits = torch.randn(2, 4, 1, 3, generator=torch.Generator().manual_seed(0))

    def learn(target: torch.Tensor, score: float) -> tuple[WeakLabels, torch.Tensor, dict[str, Any]]:
        algorithm = WeakLabels()
        algorithm.start({}, 4)
        lesson = algorithm.observe(logits, earn(target, score))
        assert lesson.tags.tolist() == [[1, 0, 1, 0], [0, 1, 0, 0]]
        algorithm.synchronise([lesson])
        return algorithm, *algorithm.loss(logits, lesson, 0.0)

    algorithm, loss, metrics = learn(target, 0.25)
    found = [[float(c in drawn) for c in range(4)] for drawn in logits.argmax(dim=1).flatten(1).tolist()]
    assert float(metrics["train/tag_accuracy"]) == (np.array(found) == [[1, 0, 1, 0], [0, 1, 0, 0]]).mean()
    assert metrics["reward/mean"] == 0.25
    moved, other, metrics = learn(target.flip(2), 0.75)  # the same tags, other places and scores
    assert torch.equal(other, loss)
    assert all(torch.equal(a, b) for a, b in zip(algorithm.local.parameters(), moved.local.parameters(), strict=True))
    assert metrics["reward/mean"] == 0.75


def started() -> WeakLabels:
    """The algorithm before its first update; threads must not start theirs at once, who share one generator."""
    algorithm = WeakLabels()
    algorithm.start({}, 3)
    return algorithm


def learn_in_parts(algorithm: WeakLabels, size: int, process: slice = slice(None)) -> WeakLabels:
    """One update on a process's share of four images, in micro-batches."""
    target = torch.tensor([[[0, 0, 2]], [[0, 1, 1]], [[0, 0, 0]], [[0, 2, 1]]], dtype=torch.uint8)
    whole = algorithm.observe(torch.zeros(4, 3, 1, 3), earn(target, 0.0))
    parts = zip(whole.tags[process].split(size), whole.images[process].split(size), strict=True)
    algorithm.synchronise([Tags(whole.feedback, tags, images) for tags, images in parts])
    assert algorithm.shared.tolist() == [True, False, False]
    return algorithm


def weights(algorithm: WeakLabels) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(algorithm.local.parameters())


def test_micro_batches_are_one_update() -> None:
    torch.testing.assert_close(weights(learn_in_parts(started(), 4)), weights(learn_in_parts(started(), 2)))


def test_processes_are_one_update(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = weights(learn_in_parts(started(), 4))
    both, given = threading.Barrier(2, timeout=60), dict[bool, Any]()

    def gather(value: Any) -> list[Any]:
        given[threading.current_thread().name.endswith("_0")] = value
        both.wait()
        values = [given[True], given[False]]
        both.wait()
        return values

    monkeypatch.setattr("agents.weak_labels.gather_over_processes", gather)
    with ThreadPoolExecutor(2) as processes:
        halves = [slice(0, 3, 2), slice(1, 4, 2)]
        shares = list(processes.map(learn_in_parts, [started(), started()], [2, 2], halves))
    torch.testing.assert_close(weights(shares[0]), alone)
    torch.testing.assert_close(weights(shares[1]), alone)


def test_it_finds_where_the_classes_of_the_tags_are() -> None:
    rng = np.random.default_rng(0)
    algorithm = WeakLabels()
    algorithm.start({}, 3)
    for _ in range(60):  # a red or a blue square on grey, or none of them
        target = np.zeros((8, 12, 12), np.uint8)
        for b, label in enumerate(rng.integers(0, 3, 8)):
            y, x = rng.integers(0, 8, 2)
            target[b, y : y + 4, x : x + 4] = label
        colours = np.array([[120, 120, 120], [220, 40, 40], [40, 40, 220]])
        images = np.clip(colours[target] + rng.normal(0, 10, (8, 12, 12, 3)), 0, 255).astype(np.uint8)
        shown = {"target": target}
        feedback = Feedback(
            torch.zeros(8, 1, 12, 12), torch.zeros(8, 1), None, [0] * 8, [False] * 8, shown, None, images
        )
        lesson = algorithm.observe(torch.zeros(8, 3, 12, 12), feedback)
        algorithm.synchronise([lesson])
    with torch.no_grad():
        p = algorithm._logits(lesson).softmax(dim=1)
    labels = pseudo_labels(p, lesson.tags, algorithm.shared, lesson.images).numpy()
    labelled = labels != NOBODY
    assert labelled.mean() > 0.8
    assert (labels == target)[labelled].mean() > 0.95
    assert (labels == target)[target > 0].mean() > 0.8


def test_arguments_that_are_out_of_range_are_rejected() -> None:
    with pytest.raises(OptionError, match="learning_rate must be positive, got"):
        WeakLabels(learning_rate=float("inf"))


def test_it_trains_resumes_as_if_uninterrupted_and_its_own_label_maps_are_the_only_ones_scored(tmp_path: Path) -> None:
    def run(name: str, steps: int, **arguments: Any) -> tuple[Any, Any]:
        result = train(
            "RSS-Shapes-ImageReward-v0",
            algorithm := WeakLabels(),
            network_options={"width": 8},
            image_size=(16, 16),
            env_kwargs={"num_images": 8},
            steps=steps,
            batch_size=2,
            run_dir=str(tmp_path / name),
            progress=False,
            **arguments,
        )
        return result, algorithm

    result, whole = run("whole", 4)
    assert (result.step, result.finished, result.reward_queries) == (4, True, 4 * 2)
    run("parts", 2)
    result, parts = run("parts", 4, resume=True)
    assert result.step == 4
    for a, b in zip(whole.local.parameters(), parts.local.parameters(), strict=True):
        torch.testing.assert_close(a, b)
