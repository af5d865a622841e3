"""The entries after published methods: their losses against the papers' formulas, by hand and by enumeration."""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

import rss_env  # noqa: F401  (registers the ids)
from benchmarks.leaderboard.entries import grpo, rl4seg, rn_dpo, template
from benchmarks.tasks import VISITS
from tests.benchmarks.leaderboard.trials import FEW, TASK, judge_file

VARIANTS = sorted((Path(grpo.__file__).parents[1] / "variants").glob("*.py"))
SHAPE = (2, 3, 2, 2)  # K label maps, B images, H, W


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# GRPO -----------------------------------------------------------------------------------------------------------------


def test_advantages_of_a_group_have_mean_0_and_standard_deviation_1() -> None:
    advantages = grpo.group_advantages(torch.tensor([[0.1, 0.5], [0.3, 0.5], [0.8, 0.5]], dtype=torch.float64))
    # The second image's samples are equal and teach nothing; the first: mean 0.4, standard deviation √0.13.
    expected = np.array([[-0.3, 0], [-0.1, 0], [0.4, 0]]) / math.sqrt(0.13)
    np.testing.assert_allclose(advantages, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain"),
    [(1.0, 2.0, 2.0), (1.5, 1.0, 1.2), (1.5, -1.0, -1.5), (0.5, 1.0, 0.5), (0.5, -1.0, -0.8)],
)
def test_grpo_clips_the_ratio_of_a_pixel(ratio: float, advantage: float, gain: float) -> None:
    old = torch.full((1, 1, 1, 1), math.log(0.3))
    new = old + math.log(ratio)
    settings = grpo.Settings(clip=0.2, divergence=0.0)
    loss = grpo.grpo_loss(new, old, old, torch.tensor([[advantage]]), settings)
    assert loss.item() == pytest.approx(-gain, rel=1e-5)


def test_grpos_divergence_is_the_kullback_leibler_divergence_in_the_mean() -> None:
    policy, reference = draw(5).log_softmax(0), draw(5, seed=1).log_softmax(0)
    estimates = grpo.divergence(policy, reference)  # of each class, drawn with its probability
    assert (estimates >= 0).all()
    exact = (policy.exp() * (policy - reference)).sum()
    torch.testing.assert_close((policy.exp() * estimates).sum(), exact)


def test_grpo_is_the_paper_s_objective_pixel_by_pixel() -> None:
    new, old, reference, advantages = draw(*SHAPE), draw(*SHAPE, seed=1), draw(*SHAPE, seed=2), draw(*SHAPE[:2], seed=3)
    settings = grpo.Settings(clip=0.2, divergence=0.04)
    total = 0.0
    for k, b, i, j in np.ndindex(SHAPE):
        ratio = math.exp(new[k, b, i, j] - old[k, b, i, j])
        a = float(advantages[k, b])
        difference = float(reference[k, b, i, j] - new[k, b, i, j])
        total += min(ratio * a, min(max(ratio, 0.8), 1.2) * a) - 0.04 * (math.exp(difference) - difference - 1)
    loss = grpo.grpo_loss(new, old, reference, advantages, settings)
    assert loss.item() == pytest.approx(-total / math.prod(SHAPE))


# RN-DPO ---------------------------------------------------------------------------------------------------------------


def test_the_best_is_paired_with_the_worst_and_equal_scores_make_no_pair() -> None:
    scores = torch.tensor([[0.2, 0.5], [0.9, 0.5], [0.1, 0.5], [0.4, 0.7]])
    winners, losers, counts = rn_dpo.pairs_of(scores)
    assert winners[:, 0].tolist() == [1, 3]
    assert losers[:, 0].tolist() == [2, 0]
    assert counts.tolist() == [[True, True], [True, False]]
    assert winners[0, 1] == 3


def by_hand(log_ratios: Tensor, label_maps: Tensor, winner: int, loser: int, b: int, normalised: bool) -> float:
    """The margin of one pair, from the formula; not normalised: that of plain DPO, over all pixels."""
    ratios, maps = log_ratios[:, b].flatten(1).tolist(), label_maps[:, b].flatten(1).tolist()
    region = [i for i in range(len(maps[winner])) if maps[winner][i] != maps[loser][i]]
    pixels = region if normalised else range(len(maps[winner]))
    total = sum(ratios[winner][i] - ratios[loser][i] for i in pixels)
    return total / max(1, len(region)) if normalised else total


def drawn_label_maps() -> tuple[Tensor, Tensor]:
    """Label maps (4, 3, 2, 2) of 3 classes, and log-ratios of two policies: equal classes have equal ones."""
    label_maps = torch.randint(0, 3, (4, 3, 2, 2), generator=torch.Generator().manual_seed(5))
    label_maps[3, 0] = label_maps[2, 0]
    by_class = draw(3, 3, 2, 2)  # (C, B, H, W)
    return label_maps, by_class.gather(0, label_maps)


def test_the_margin_of_a_pair_is_a_mean_over_the_pixels_in_which_they_differ() -> None:
    label_maps, log_ratios = drawn_label_maps()
    winners, losers = torch.tensor([[2, 0, 1], [1, 3, 2]]), torch.tensor([[3, 1, 0], [0, 2, 3]])
    margins = rn_dpo.margins(log_ratios, label_maps, winners, losers)
    sums = rn_dpo.margins(log_ratios, label_maps, winners, losers, normalised=False)
    assert margins[0, 0] == 0  # the same label map twice
    for p, b in np.ndindex(2, 3):
        pair = int(winners[p, b]), int(losers[p, b]), b
        assert margins[p, b].item() == pytest.approx(by_hand(log_ratios, label_maps, *pair, normalised=True))
        differ = (label_maps[pair[0], b] != label_maps[pair[1], b]).sum().item()
        plain = by_hand(log_ratios, label_maps, *pair, normalised=False)
        assert margins[p, b].item() * max(1, differ) == pytest.approx(plain)  # the rest of plain DPO's sum cancels
        assert sums[p, b].item() == pytest.approx(plain)


def test_rn_dpo_is_the_mean_of_minus_log_sigmoid_over_the_pairs_that_count() -> None:
    label_maps, log_ratios = drawn_label_maps()
    scores = torch.tensor([[0.1, 0.5, 0.3], [0.2, 0.5, 0.4], [0.3, 0.5, 0.1], [0.4, 0.5, 0.2]])
    pairs = [(3, 0, 0), (2, 1, 0), (1, 2, 2), (0, 3, 2)]  # winner, loser, image; image 1 has none
    expected = [math.log1p(math.exp(-0.7 * by_hand(log_ratios, label_maps, *pair, normalised=True))) for pair in pairs]
    loss = rn_dpo.rn_dpo_loss(log_ratios, label_maps, scores, beta=0.7)
    assert loss.item() == pytest.approx(np.mean(expected))


def test_a_preference_moves_a_pixel_less_the_more_pixels_differ() -> None:
    # From the reference, -log sigmoid falls by beta/2 for each unit of the margin, which is shared by the pixels of D.
    for size in (1, 2, 4):
        label_maps = torch.zeros((2, 1, 2, 2), dtype=torch.long)
        label_maps[0].view(-1)[:size] = 1
        log_ratios = torch.zeros((2, 1, 2, 2), requires_grad=True)
        rn_dpo.rn_dpo_loss(log_ratios, label_maps, torch.tensor([[0.9], [0.1]]), beta=3.0).backward()
        assert log_ratios.grad is not None
        winner, loser = log_ratios.grad.flatten(1)
        assert winner.tolist() == pytest.approx([-1.5 / size] * size + [0.0] * (4 - size))
        assert loser.tolist() == pytest.approx([1.5 / size] * size + [0.0] * (4 - size))


# RL4Seg ---------------------------------------------------------------------------------------------------------------


def test_rl4seg_is_ppo_by_pixel_with_the_penalty_in_the_advantage() -> None:
    new, old, reference = draw(*SHAPE), draw(*SHAPE, seed=1), draw(*SHAPE, seed=2)
    values, scores, entropy = draw(*SHAPE[1:], seed=3), draw(*SHAPE[:2], seed=4), draw(*SHAPE[1:], seed=5)
    settings = rl4seg.Settings(clip=0.2, divergence=0.35, entropy=0.05)
    rollout = rl4seg.Rollout(torch.zeros(0), torch.zeros(0), old, reference, scores)
    errors = {(k, b, i, j): float(scores[k, b] - values[b, i, j]) for k, b, i, j in np.ndindex(SHAPE)}
    scale = np.std(list(errors.values()), ddof=1)
    total = 0.0
    for place, error in errors.items():
        ratio = math.exp(new[place] - old[place])
        advantage = error / scale - 0.35 * float(new[place] - reference[place])
        total += min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
    loss = rl4seg.policy_loss(new, entropy, values, rollout, settings)
    assert loss.item() == pytest.approx(-total / len(errors) - 0.05 * entropy.mean().item())


def test_rl4segs_penalty_descends_the_divergence_from_the_reference() -> None:
    # One pixel, every class drawn as often as its probability says: enumerated, the gradient is d times that of the KL.
    logits = draw(4).requires_grad_()
    reference = draw(4, seed=1).log_softmax(0)
    policy = logits.log_softmax(0)
    settings = rl4seg.Settings(divergence=0.35, entropy=0.0)
    total = torch.zeros((), dtype=torch.float64)
    nothing, equal = torch.zeros(1, 1, 1, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    for c in range(4):
        new = policy[c].expand(2, 1, 1, 1)  # two samples with equal scores: their standard deviation is 0, not unknown
        kept = reference[c].expand(2, 1, 1, 1)
        rollout = rl4seg.Rollout(torch.zeros(0), torch.zeros(0), new.detach(), kept, equal)
        total = total + policy[c].exp().detach() * rl4seg.policy_loss(new, nothing, nothing, rollout, settings)
    (found,) = torch.autograd.grad(total, logits)
    policy = logits.log_softmax(0)
    (expected,) = torch.autograd.grad(0.35 * (policy.exp() * (policy - reference)).sum(), logits)
    torch.testing.assert_close(found, expected)


def test_rl4segs_critic_is_regressed_on_the_score_at_every_pixel_and_the_actor_leaves_it_alone() -> None:
    values, scores = draw(*SHAPE[1:]).requires_grad_(), draw(*SHAPE[:2], seed=1)
    v = values.detach()
    expected = np.mean([float(scores[k, b] - v[b, i, j]) ** 2 for k, b, i, j in np.ndindex(SHAPE)])
    assert rl4seg.critic_loss(values, scores).item() == pytest.approx(expected)
    log_probs = draw(*SHAPE, seed=2).requires_grad_()
    rollout = rl4seg.Rollout(torch.zeros(0), torch.zeros(0), log_probs.detach(), log_probs.detach(), scores)
    rl4seg.policy_loss(log_probs, values.detach(), values, rollout, rl4seg.Settings()).backward()
    assert values.grad is None
    assert log_probs.grad is not None


# All ------------------------------------------------------------------------------------------------------------------


class LocalTrial:
    """What an entry uses of a trial, in this process."""

    environment, num_classes, image_size, seed = "shapes", 3, (16, 16), 1

    def __init__(self, budget: int) -> None:
        self.budget = self.queries_left = budget
        self.reported: list[np.ndarray] = []

    def steps_left(self, num_envs: int, samples_per_image: int) -> int:
        return self.queries_left // (num_envs * samples_per_image)

    def make_envs(self, num_envs: int, samples_per_image: int) -> gym.vector.VectorEnv:
        self.envs = gym.make_vec(
            "RSS-Shapes-ImageReward-v0",
            num_envs,
            image_size=self.image_size,
            samples_per_image=samples_per_image,
            num_classes=self.num_classes,
            num_images=8,
        )
        return self.envs

    def report(self, predict: Callable[[np.ndarray], np.ndarray]) -> None:
        self.reported.append(predict(np.zeros((2, *self.image_size, 3), np.uint8)))


@pytest.mark.parametrize("entry", [grpo, rl4seg, rn_dpo])
def test_an_entry_spends_its_budget_and_learns_something(entry: ModuleType) -> None:
    trial: Any = LocalTrial(budget=256)
    entry.train(trial)
    assert trial.envs.unwrapped.reward_queries == trial.budget
    assert len(trial.reported) >= 3
    for label_maps in trial.reported:
        assert (label_maps.shape, label_maps.dtype) == ((2, 16, 16), np.uint8)
    assert (trial.reported[0] != trial.reported[-1]).any()


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: path.stem)
def test_a_variant_of_a_neighbour_learns_something_else_than_it(path: Path) -> None:
    variant = runpy.run_path(str(path))
    entry = next(value for value in variant.values() if value in (grpo, rl4seg, rn_dpo))
    ended = []
    for train in (entry.train, variant["train"]):
        trial: Any = LocalTrial(budget=1536)
        train(trial)
        ended.append(trial.reported[-1])
    assert (ended[0] != ended[1]).any()


@pytest.mark.parametrize("entry", [grpo, rl4seg, rn_dpo, template])
def test_where_visits_are_few_an_entry_plans_by_them_and_reports_when_they_are_spent(
    tmp_path: Path, entry: ModuleType
) -> None:
    setting = replace(FEW, task=replace(TASK, budgets={"large": 4096}))
    verdict = judge_file(Path(str(entry.__file__)), tmp_path / "log.txt", setting)
    assert verdict.status == "ok"
    assert verdict.most_visits == VISITS
    assert verdict.queries == 32 * 16  # visits × label maps an image
    assert verdict.curve[-1]["reward_queries"] == verdict.queries
    assert verdict.learning_rate == 1e-3
