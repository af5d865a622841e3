"""The agent's loss against the exact gradient of the expected reward, found by enumerating every label map."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from agents import rss
from agents.rss import RSS, RSSArguments

HEIGHT, WIDTH, CLASSES = 2, 2, 3
MAPS = np.array(list(itertools.product(range(CLASSES), repeat=4)), np.uint8).reshape(-1, HEIGHT, WIDTH)  # (81, 2, 2)
NUMBER = np.array([27, 9, 3, 1]).reshape(HEIGHT, WIDTH)  # a label map's place in MAPS is (map * NUMBER).sum()


class TableEnvs:
    """Stands for a vector environment whose score of a label map is looked up.

    Args:
        scores: (81,), a score of each label map, or (H, W, C), a reward of each class at each pixel.
    """

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores

    def step(self, label_maps: np.ndarray) -> tuple[Any, ...]:
        if self.scores.ndim == 1:
            info = {"scores": self.scores[(label_maps * NUMBER).sum(axis=(2, 3))]}
        else:
            y, x = np.indices((HEIGHT, WIDTH))
            info = {"pixel_reward": self.scores[y, x, label_maps].astype(np.float32)}
        return None, None, None, None, {"final_info": info}


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


@pytest.mark.parametrize("level", ["image", "pixel"])
def test_the_expected_step_over_all_pairs_of_label_maps_is_the_gradient_of_the_expected_reward(
    level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = score_table(level)
    logits = draw_logits().requires_grad_()
    (exact,) = torch.autograd.grad(expected_reward(logits, scores), logits)

    pairs = torch.cartesian_prod(torch.arange(len(MAPS)), torch.arange(len(MAPS)))  # (6561, 2)
    weights = map_probabilities(logits.detach())[pairs].prod(dim=1)
    torch.testing.assert_close(weights.sum(), torch.ones((), dtype=torch.float64))
    # The loss is a mean over the batch and the pixels; instead of being normalised, each pair's advantages are
    # weighted so that this mean becomes the expectation.
    weigh = weights[:, None, None, None] * len(pairs) * HEIGHT * WIDTH
    monkeypatch.setattr(rss, "normalise", lambda advantages: advantages.double() * weigh)
    monkeypatch.setattr(rss, "sample_label_maps", lambda *_: torch.from_numpy(MAPS)[pairs])  # (6561, 2, H, W)

    algorithm = RSS(RSSArguments(samples_per_image=2, entropy_gain=0.0))
    envs: Any = TableEnvs(scores)
    update = algorithm(logits.expand(len(pairs), -1, -1, -1), envs, {}, 0.0, torch.Generator())
    (step,) = torch.autograd.grad(-update.loss, logits)
    assert exact.abs().max() > 0.01
    torch.testing.assert_close(step, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("samples", [2, 5])
@pytest.mark.parametrize("level", ["image", "pixel"])
def test_the_mean_step_over_drawn_label_maps_tends_to_the_gradient_of_the_expected_reward(
    level: str, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 5.5 standard errors: one of the twelve numbers is outside once in two million seeds.
    batch = 40_000
    scores = score_table(level)
    single = draw_logits().requires_grad_()
    (exact,) = torch.autograd.grad(expected_reward(single, scores), single)
    monkeypatch.setattr(rss, "normalise", lambda advantages: advantages)

    logits = single.detach().float().repeat(batch, 1, 1, 1).requires_grad_()
    algorithm = RSS(RSSArguments(samples_per_image=samples, entropy_gain=0.0))
    envs: Any = TableEnvs(scores)
    update = algorithm(logits, envs, {}, 0.0, torch.Generator().manual_seed(0))
    (steps,) = torch.autograd.grad(-update.loss * (batch * HEIGHT * WIDTH), logits)  # (batch, C, H, W), one an image
    error = steps.double().std(dim=0) / batch**0.5
    assert error.max() < 0.05 * exact.abs().max()  # small enough to tell a wrong gradient
    assert ((steps.double().mean(dim=0) - exact[0]).abs() < 5.5 * error).all()
