"""The loss of RSS against the exact gradient of the expected reward, found by enumerating every label map."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from agents import rss
from agents.ops import torch_ops
from agents.plugins import pair_advantages
from agents.rss import RSS
from agents.training import Feedback

HEIGHT, WIDTH, CLASSES = 2, 2, 3
MAPS = np.array(list(itertools.product(range(CLASSES), repeat=4)), np.uint8).reshape(-1, HEIGHT, WIDTH)  # (81, 2, 2)
NUMBER = np.array([27, 9, 3, 1]).reshape(HEIGHT, WIDTH)  # a label map's place in MAPS is (map * NUMBER).sum()


def earn(label_maps: torch.Tensor, scores: np.ndarray) -> Feedback:
    """Feedback of an environment whose score of a label map is looked up.

    Args:
        label_maps: uint8 (B, K, H, W).
        scores: (81,), a score of each label map, or (H, W, C), a reward of each class at each pixel.
    """
    maps, batch = label_maps.numpy(), len(label_maps)
    if scores.ndim == 1:
        given, rewards = scores[(maps * NUMBER).sum(axis=(2, 3))], None
    else:
        y, x = np.indices((HEIGHT, WIDTH))
        rewards = torch.from_numpy(scores[y, x, maps].astype(np.float32))
        given = rewards.mean(dim=(2, 3)).numpy()
    return Feedback(label_maps, torch.as_tensor(given).float(), rewards, list(range(batch)), [False] * batch, {})


def score_table(level: str) -> np.ndarray:
    """Arbitrary scores, multiples of 1/64, which float32 holds exactly; the image-level ones are not additive."""
    shape = (len(MAPS),) if level == "image" else (HEIGHT, WIDTH, CLASSES)
    return np.random.default_rng(7).integers(0, 65, shape) / 64


def expected_reward(logits: torch.Tensor, scores: np.ndarray) -> torch.Tensor:
    """E[reward] of one image by enumeration; at pixel level the sum over pixels. ``logits`` are (1, C, H, W)."""
    probabilities = map_probabilities(logits)
    if scores.ndim == 3:
        y, x = np.indices((HEIGHT, WIDTH))
        scores = scores[y, x, MAPS].sum(axis=(1, 2))
    return (probabilities * torch.from_numpy(scores)).sum()


def map_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """π(a) of all 81 label maps: the product of the pixels' probabilities."""
    chosen = logits.log_softmax(dim=1).expand(len(MAPS), -1, -1, -1).gather(1, torch.from_numpy(MAPS).long()[:, None])
    return chosen.sum(dim=(1, 2, 3)).exp()


def draw_logits() -> torch.Tensor:
    return 1.5 * torch.randn(1, CLASSES, HEIGHT, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def make_algorithm(samples: int = 2, **arguments: Any) -> RSS:
    """The policy gradient only: no entropy bonus, advantages as they are."""
    return RSS(samples_per_image=samples, entropy_gain=0.0, sync_an=False, **arguments)


def take_step(algorithm: RSS, logits: torch.Tensor, scores: np.ndarray, weights: torch.Tensor) -> torch.Tensor:
    """The step that one image's logits (1, C, H, W) get in expectation, with batches of these probabilities (B,)."""
    batch = len(weights)
    logits = logits.detach().requires_grad_()
    copies = logits.expand(batch, -1, -1, -1)
    label_maps = algorithm.act(copies.detach(), 0.0, torch.Generator())
    lesson = algorithm.observe(copies.detach(), earn(label_maps, scores))
    algorithm.synchronise([lesson])
    assert algorithm.scale == 1
    # The loss is a mean over the batch and the pixels; weighted advantages make it the expectation.
    weigh = weights[:, None, None, None] * batch * HEIGHT * WIDTH
    lesson.advantages = lesson.advantages.double() * weigh
    loss, _ = algorithm.loss(copies, lesson, 0.0)
    return torch.autograd.grad(-loss, logits)[0]


def without_normaliser(monkeypatch: pytest.MonkeyPatch, pairs: str) -> None:
    """Has PSD leave out the factor that is not the policy gradient's."""
    monkeypatch.setattr(rss, "pair_advantages", partial(pair_advantages, pairs=pairs, normalise=False))


def all_pairs(items: int) -> torch.Tensor:
    return torch.cartesian_prod(torch.arange(items), torch.arange(items))  # (items², 2)


@pytest.mark.parametrize("level", ["image", "pixel"])
@pytest.mark.parametrize("pairs", [None, "disjoint", "all"], ids=["leave-one-out", "PSD disjoint", "PSD all"])
def test_the_expected_step_over_all_pairs_of_label_maps_is_the_gradient_of_the_expected_reward(
    level: str, pairs: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pairs is not None:
        without_normaliser(monkeypatch, pairs)
    scores = score_table(level)
    logits = draw_logits().requires_grad_()
    (exact,) = torch.autograd.grad(expected_reward(logits, scores), logits)

    both = all_pairs(len(MAPS))  # (6561, 2)
    weights = map_probabilities(logits.detach())[both].prod(dim=1)
    torch.testing.assert_close(weights.sum(), torch.ones((), dtype=torch.float64))
    monkeypatch.setattr(rss, "sample_label_maps", lambda *_, **__: torch.from_numpy(MAPS)[both])  # (6561, 2, H, W)
    algorithm = make_algorithm(advantage="psd" if pairs else "leave_one_out")
    step = take_step(algorithm, logits, scores, weights)
    assert exact.abs().max() > 0.01
    torch.testing.assert_close(step, exact, rtol=0, atol=1e-12)


def test_the_normaliser_of_psd_makes_each_difference_in_reward_count_per_differing_pixel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = score_table("image")
    logits = draw_logits().requires_grad_()
    probabilities = map_probabilities(logits.detach()).numpy()
    chosen = logits.log_softmax(dim=1)[0]
    surrogate = torch.zeros((), dtype=torch.float64)  # its weights count as constants
    rows, columns = np.indices((HEIGHT, WIDTH))
    for a, score_a, p_a in zip(MAPS, scores, probabilities, strict=True):
        weight = np.zeros((HEIGHT, WIDTH))
        for b, score_b, p_b in zip(MAPS, scores, probabilities, strict=True):
            if (differs := a != b).any():
                weight += p_b * (score_a - score_b) * differs / differs.mean()
        surrogate = surrogate + (chosen[a.astype(int), rows, columns] * torch.from_numpy(p_a * weight)).sum()
    (expected,) = torch.autograd.grad(surrogate, logits)

    pairs = all_pairs(len(MAPS))
    weights = torch.from_numpy(probabilities)[pairs].prod(dim=1)
    monkeypatch.setattr(rss, "sample_label_maps", lambda *_, **__: torch.from_numpy(MAPS)[pairs])
    step = take_step(make_algorithm(advantage="psd"), logits, scores, weights)
    torch.testing.assert_close(step, expected, rtol=0, atol=1e-6)  # rewards are float32, and 1 / (3/4) is not exact
    (exact,) = torch.autograd.grad(expected_reward(logits, scores), logits)
    assert (step - exact).abs().max() > 0.01


def draw_law(logits: torch.Tensor, side: int) -> tuple[np.ndarray, np.ndarray]:
    """All that one sample can be when cells of this side share their draw, as draws (M, H, W) and probabilities (M,).

    Draws stand for the interval that gives the same label map; a cell of side 2 is the whole image.
    """
    ends = logits.softmax(dim=1)[0].cumsum(dim=0).flatten(1).T.numpy()  # (H·W, C)
    cuts = ends[:, :-1]
    if side == 2:
        bounds = np.sort(np.concatenate([[0.0], cuts.ravel(), [1.0]]))
        middles, lengths = (bounds[1:] + bounds[:-1]) / 2, np.diff(bounds)
        return np.broadcast_to(middles[:, None, None], (len(middles), HEIGHT, WIDTH)), lengths
    bounds = np.pad(cuts, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1)))  # (H·W, C + 1)
    middles, lengths = (bounds[:, 1:] + bounds[:, :-1]) / 2, np.diff(bounds, axis=1)
    draws = np.array(list(itertools.product(*middles))).reshape(-1, HEIGHT, WIDTH)
    return draws, np.array([np.prod(part) for part in itertools.product(*lengths)])


def invert_draws(logits: torch.Tensor, draws: np.ndarray) -> np.ndarray:
    """The class of every pixel is the number of cumulative probabilities that its draw reaches."""
    ends = logits.softmax(dim=1)[0].cumsum(dim=0).numpy()[:-1]  # (C - 1, H, W)
    return (draws[:, None] >= ends).sum(axis=1).astype(np.uint8)


@pytest.mark.parametrize("level", ["image", "pixel"])
@pytest.mark.parametrize("side", [1, 2])
def test_the_expected_step_with_tied_draws_is_the_gradient_of_the_surrogate_under_their_joint_law(
    side: int, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = score_table(level)
    logits = draw_logits().requires_grad_()
    draws, law = draw_law(logits.detach(), side)
    maps = invert_draws(logits.detach(), draws)
    assert len(maps) == {1: CLASSES**4, 2: HEIGHT * WIDTH * (CLASSES - 1) + 1}[side]
    assert law.min() > 1e-6  # of what float32 can tell apart
    one_hot = (maps[:, None] == np.arange(CLASSES)[:, None, None]).astype(np.float64)  # (M, C, H, W)
    marginals = np.tensordot(law, one_hot, axes=1)
    np.testing.assert_allclose(marginals, logits.detach().softmax(dim=1)[0], rtol=0, atol=1e-14)

    log_probabilities = torch.from_numpy(one_hot) * logits.log_softmax(dim=1)  # of each label map's classes
    if level == "image":
        weight = (law * scores[(maps * NUMBER).sum(axis=(1, 2))])[:, None, None]
    else:
        rows, columns = np.indices((HEIGHT, WIDTH))
        weight = law[:, None, None] * scores[rows, columns, maps]
    (surrogate,) = torch.autograd.grad((torch.from_numpy(weight) * log_probabilities.sum(dim=1)).sum(), logits)

    pairs = all_pairs(len(maps))
    sides = []

    def give_draws(shape: tuple[int, ...], seed: torch.Tensor, side: int, *_: Any) -> torch.Tensor:
        sides.append(side)
        assert shape == (len(pairs), 2, HEIGHT, WIDTH)
        return torch.from_numpy(draws.copy()).float()[pairs]

    monkeypatch.setattr(torch_ops, "uniforms", give_draws)  # of the reference, which float64 logits are left to
    step = take_step(make_algorithm(cells=(side,)), logits, scores, torch.from_numpy(law)[pairs].prod(dim=1))
    assert sides == [side]
    torch.testing.assert_close(step, surrogate, rtol=0, atol=1e-12)

    (exact,) = torch.autograd.grad(expected_reward(logits, scores), logits)
    if side == 2 and level == "image":
        assert (step - exact).abs().max() > 0.01
    else:  # one number a pixel needs only the marginals, which tied draws keep
        torch.testing.assert_close(step, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("level", "samples", "arguments", "pairs"),
    [
        ("image", 2, {}, None),
        ("image", 5, {}, None),
        ("image", 5, {"advantage": "batch"}, None),
        ("pixel", 2, {}, None),
        ("pixel", 5, {}, None),
        ("pixel", 5, {"cells": (2,)}, None),
        ("image", 4, {"advantage": "psd"}, "disjoint"),
        ("image", 5, {"advantage": "psd"}, "all"),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else str(value),
)
def test_the_mean_step_over_drawn_label_maps_tends_to_the_gradient_of_the_expected_reward(
    level: str, samples: int, arguments: dict[str, Any], pairs: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pairs is not None:
        without_normaliser(monkeypatch, pairs)
    # 5.5 standard errors: one of the twelve numbers is outside once in two million seeds.
    batch = 40_000
    scores = score_table(level)
    single = draw_logits().requires_grad_()
    (exact,) = torch.autograd.grad(expected_reward(single, scores), single)

    logits = single.detach().float().repeat(batch, 1, 1, 1).requires_grad_()
    algorithm = make_algorithm(samples, **arguments)
    label_maps = algorithm.act(logits.detach(), 0.0, torch.Generator().manual_seed(0))
    lesson = algorithm.observe(logits.detach(), earn(label_maps, scores))
    algorithm.synchronise([lesson])
    loss, _ = algorithm.loss(logits, lesson, 0.0)
    (steps,) = torch.autograd.grad(-loss * (batch * HEIGHT * WIDTH), logits)  # (batch, C, H, W), one an image
    error = steps.double().std(dim=0) / batch**0.5
    assert error.max() < 0.05 * exact.abs().max()  # small enough to tell a wrong gradient
    assert ((steps.double().mean(dim=0) - exact[0]).abs() < 5.5 * error).all()
