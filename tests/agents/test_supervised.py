"""The losses of the upper bound, against independent definitions."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch.nn import functional as F

from agents.supervised import Supervised, lovasz_softmax, soft_iou
from agents.training import Feedback, train
from agents.training.command import parse_command
from rss_env.errors import OptionError

CLASSES = 3
targets = st.lists(st.sampled_from([0, 1, 2, 255]), min_size=6, max_size=6)


def draw(target: list[int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (2, 3, 1, 3) and targets (2, 1, 3)."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn((2, CLASSES, 1, 3), generator=generator, dtype=torch.float64)
    return logits.softmax(dim=1), torch.tensor(target).view(2, 1, 3)


def counted_pixels(p: torch.Tensor, target: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, C) and classes (N,) of the pixels that count."""
    flat, classes = p.permute(0, 2, 3, 1).reshape(-1, CLASSES).numpy(), target.flatten().numpy()
    return flat[classes != 255], classes[classes != 255]


def convex_closure(wrong: np.ndarray, members: np.ndarray) -> float:
    """The least mean of 1 - IoU over mixtures of sets of wrong pixels that hold pixel i with probability wrong[i].

    The Lovász extension of a submodular set function is its convex closure (Lovász, 1983), which is this linear program
    over all sets; it knows nothing of sorting.
    """
    sets = np.array(list(itertools.product([0, 1], repeat=len(wrong))))
    values = [s.sum() / max(1, (members | s.astype(bool)).sum()) for s in sets]
    equal = np.vstack([sets.T, np.ones(len(sets))])
    return float(linprog(values, A_eq=equal, b_eq=[*wrong, 1.0], bounds=(0, 1)).fun)


@settings(max_examples=25, deadline=None)
@given(targets, st.integers(0, 2**31))
def test_lovasz_softmax_is_the_convex_closure_of_the_jaccard_loss(target: list[int], seed: int) -> None:
    p, shown = draw(target, seed)
    flat, classes = counted_pixels(p, shown)
    by_class = [convex_closure(np.abs((classes == c) - flat[:, c]), classes == c) for c in np.unique(classes)]
    assert lovasz_softmax(p, shown).item() == pytest.approx(np.mean(by_class) if by_class else 0.0, abs=1e-9)


@given(targets, st.integers(0, 2**31))
def test_soft_iou_is_the_quotient_of_the_sums_over_pixels(target: list[int], seed: int) -> None:
    p, shown = draw(target, seed)
    flat, classes = counted_pixels(p, shown)
    by_class = []
    for c in sorted(set(classes.tolist())):
        pairs = [(q, float(t == c)) for q, t in zip(flat[:, c], classes, strict=True)]
        by_class.append(1 - sum(q * t for q, t in pairs) / sum(q + t - q * t for q, t in pairs))
    assert soft_iou(p, shown).item() == pytest.approx(np.mean(by_class) if by_class else 0.0)


@pytest.mark.parametrize("loss", [lovasz_softmax, soft_iou])
@given(targets, st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_of_a_certain_label_map_it_is_one_minus_the_mean_iou(loss: Any, target: list[int], labels: list[int]) -> None:
    shown, label_maps = torch.tensor(target).view(2, 1, 3), torch.tensor(labels).view(2, 1, 3)
    certain = F.one_hot(label_maps, CLASSES).permute(0, 3, 1, 2).double()
    t, a = np.array(target), np.array(labels)
    t, a = t[t != 255], a[t != 255]
    ious = [((t == c) & (a == c)).sum() / ((t == c) | (a == c)).sum() for c in np.unique(t)]
    assert loss(certain, shown).item() == pytest.approx(1 - np.mean(ious) if ious else 0.0, abs=1e-9)


@pytest.mark.parametrize("loss", [lovasz_softmax, soft_iou])
def test_its_gradient_is_right_and_ignored_pixels_have_none(loss: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn((2, CLASSES, 2, 3), generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[[0, 0, 2], [255, 2, 2]], [[255, 0, 2], [0, 0, 0]]])
    assert torch.autograd.gradcheck(lambda z: loss(z.softmax(dim=1), target), logits)
    loss(logits.softmax(dim=1), target).backward()
    assert logits.grad is not None
    moved = logits.grad.abs().sum(dim=1)
    assert torch.equal(moved > 0, target != 255)


@pytest.mark.parametrize(("name", "loss"), [("lovasz", lovasz_softmax), ("soft_iou", soft_iou)])
def test_the_algorithm_takes_the_loss_that_is_asked_for(name: Any, loss: Any) -> None:
    p, target = draw([0, 1, 1, 2, 255, 0], seed=3)
    algorithm = parse_command(Supervised, ["--loss", name]).algorithm
    feedback = Feedback(target[:, None], torch.zeros(2, 1), None, [0, 1], [False] * 2, {"target": target})
    lesson = algorithm.observe(p.log(), feedback)
    algorithm.synchronise([lesson])
    alone = algorithm.loss(p.log(), lesson, 0.0)[0]
    torch.testing.assert_close(alone, loss(p, target))
    algorithm.cross_entropy_share = 0.25
    mixed = 0.25 * F.cross_entropy(p.log(), target, ignore_index=255) + 0.75 * alone
    torch.testing.assert_close(algorithm.loss(p.log(), lesson, 0.0)[0], mixed)


def test_an_unknown_loss_or_share_is_refused() -> None:
    with pytest.raises(OptionError, match=r"cross_entropy_share must be between 0 and 1, got 1\.5"):
        Supervised(loss_name="lovasz", cross_entropy_share=1.5)
    with pytest.raises(OptionError, match="Unknown loss 'dice'; valid: cross_entropy, lovasz, soft_iou"):
        Supervised(loss_name="dice")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["lovasz", "soft_iou"])
def test_it_trains_with_every_augmentation_of_the_agents_and_resumes(name: Any, tmp_path: Path) -> None:
    shared: dict[str, Any] = {"image_size": (16, 20), "augment": "flip,scale,crop", "crop_size": (16, 16)}
    shared |= {"env_kwargs": {"num_images": 8}, "split": "train[:4]", "network_options": {"width": 8}}
    shared |= {"batch_size": 2, "progress": False, "run_dir": str(tmp_path / "run")}
    train("RSS-Shapes-ImageReward-v0", Supervised(loss_name=name), steps=2, **shared)
    result = train("RSS-Shapes-ImageReward-v0", Supervised(loss_name=name), steps=4, resume=True, **shared)
    assert (result.step, result.finished) == (4, True)
