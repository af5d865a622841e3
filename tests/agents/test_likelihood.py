"""The likelihood of scores and of pixel rewards: the loss, the draws, and what is remembered."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import rss_env  # noqa: F401  registers the ids
from agents import likelihood
from agents.likelihood import ImageLevel, Likelihood, PixelLesson, PixelLevel, ScoreLesson
from agents.rss import RSS
from agents.scores.formulas import KnownFormula
from agents.scores.models import predict_scores
from agents.scores.noise import EVERY, ScoreNoise
from agents.scores.packing import unpack
from agents.scores.pixels import UNKNOWN, classes_found
from agents.scores.posterior import ONE_CLASS, PIXELS_TOO, SHIFTS, Errors, Posterior, recall_belief, region_posterior
from agents.scores.queries import most_uncertain
from agents.scores.regions import Regions, make_regions
from agents.training import Feedback, train
from agents.training.arguments import from_config
from agents.training.feedback import read_feedback
from agents.unknown_score import ENOUGH, EXPLAINED, FIRST, KEPT, LAST, PROMISING, TRIED, PolicyGradientLevel, TrialLevel
from rss_env.datasets import load_dataset
from rss_env.errors import OptionError
from rss_env.rewards import score_images
from rss_env.wrappers.vector import FeedbackReward
from tests.agents.scores.oracle import draw_problem, log_likelihood

MEAN_IOU: dict[str, Any] = {
    "reward_level": "image",
    "reward": "mean_iou",
    "reward_options": {},
    "num_images": 4,
    "image_size": (8, 9),
}


REGIONS = (12, 6, 3)
both = pytest.mark.parametrize("regions", [(), REGIONS], ids=["pixels", "regions"])


def make(metadata: Mapping[str, Any] = MEAN_IOU, num_classes: int = 3, **arguments: Any) -> Likelihood:
    """The algorithm, ready for an environment; every pixel is judged by itself unless regions are given."""
    algorithm = Likelihood(**{"regions": ()} | arguments)
    algorithm.start(metadata, num_classes)
    return algorithm


def earn(label_maps: torch.Tensor, scores: torch.Tensor) -> Feedback:
    """Feedback of an environment that gives these scores (B, K) to these label maps (B, K, H, W)."""
    batch, _, height, width = label_maps.shape
    assert label_maps.shape[:2] == scores.shape
    images = torch.randint(256, (batch, height, width, 3), generator=torch.Generator().manual_seed(0))
    given = label_maps, scores.double(), None, list(range(batch)), [False] * batch, {}
    return Feedback(*given, images=images.to(torch.uint8))


def update(
    algorithm: Likelihood, logits: torch.Tensor, scores: np.ndarray, progress: float = 0.0
) -> tuple[torch.Tensor, dict[str, Any], ScoreLesson]:
    """Loss, metrics and lesson of an update of one micro-batch whose label maps earn these scores (B, K)."""
    label_maps = algorithm.act(logits.detach(), progress, torch.Generator().manual_seed(0))
    lesson = algorithm.observe(logits.detach(), earn(label_maps, torch.from_numpy(scores)))
    algorithm.synchronise([lesson])
    return *algorithm.loss(logits, lesson, progress), lesson


# What it knows of the environment


def image_level(algorithm: Likelihood) -> ImageLevel:
    """What reads the scores, or may come to."""
    level = algorithm.level.level if isinstance(algorithm.level, TrialLevel) else algorithm.level
    assert isinstance(level, ImageLevel)
    return level


@pytest.mark.parametrize(
    ("reward", "options", "model", "said"),
    [
        ("mean_iou", {}, "mean_iou", None),
        ("mean_dice", {}, "mean_dice", None),
        ("mean_iou", {"classes": "target"}, "mean_iou", None),
        ("pixel_accuracy", {"class_weights": [1.0, 2.0, 0.5]}, None, "pixel_accuracy with class_weights is not known"),
        ("boundary_f1", {}, None, "The formula of boundary_f1 is not known here"),
        (None, {}, None, "The formula of the score is not known here"),
    ],
)
def test_it_says_which_formula_it_does_not_know(
    reward: str | None, options: dict[str, Any], model: str | None, said: str | None
) -> None:
    algorithm = Likelihood()
    line = algorithm.start(MEAN_IOU | {"reward": reward, "reward_options": options}, 3)
    level = image_level(algorithm)
    assert (getattr(level.formula, "name", None) if level.formula.is_known else None) == model
    assert (line is None) == (said is None)
    assert said is None or (line is not None and said in line and "\n" not in line)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, None),
        ({"reward_options": {"classes": "target"}}, None),
        ({"reward": "boundary_f1"}, "The formula of boundary_f1 is not known"),
        ({"reward": lambda image, label_map, target: 0.5}, "The formula of the score is not known"),
    ],
    ids=["the default", "options", "boundary F1", "a callable"],
)
def test_the_environments_own_metadata_say_enough(options: dict[str, Any], said: str | None) -> None:
    envs = gym.make_vec("RSS-Shapes-ImageReward-v0", num_envs=2, samples_per_image=2, num_images=4, **options)
    algorithm = Likelihood(samples_per_image=2)
    line = algorithm.start(envs.metadata, 5)
    level = image_level(algorithm)
    assert level.formula.is_known == (said is None)
    assert (line is None) == (said is None)
    assert said is None or (line is not None and line.startswith(said))


@pytest.mark.parametrize(
    ("kind", "model"),
    [("noise:0.1", "mean_iou"), ("stars:5", "mean_iou"), ("threshold:0.5", None), ("preference", None)],
)
def test_of_scores_that_feedback_made_something_else_it_knows_no_formula(kind: str, model: str | None) -> None:
    envs = gym.make_vec("RSS-Shapes-ImageReward-v0", num_envs=2, samples_per_image=2, num_images=4)
    algorithm = Likelihood(samples_per_image=2)
    line = algorithm.start(FeedbackReward(envs, kind).metadata, 5)
    level = image_level(algorithm)
    assert (getattr(level.formula, "name", None) if level.formula.is_known else None) == model
    assert (line is None) == (model is not None)
    assert line is None or line.startswith("The formula of the score is not known here: ")


def test_pixel_rewards_need_no_score_model() -> None:
    algorithm = Likelihood()
    assert algorithm.start(MEAN_IOU | {"reward_level": "pixel", "reward": None}, 3) is None
    assert isinstance(algorithm.level, PixelLevel)


# The loss


@pytest.mark.parametrize("reward", ["mean_iou", "mean_dice", "pixel_accuracy"])
def test_the_loss_has_the_gradient_of_the_likelihood_with_one_variance_for_the_update(reward: str) -> None:
    problem = draw_problem(3, (2, 0, 4, 5), 3, 4, torch.float32)
    logits = problem["probabilities"].log().requires_grad_()
    algorithm = make(MEAN_IOU | {"reward": reward}, samples_per_image=4)
    lesson = algorithm.observe(logits.detach(), earn(problem["label_maps"], problem["scores"]))
    algorithm.synchronise([lesson])
    algorithm.loss(logits, lesson, 0.0)[0].backward()

    name = reward
    variance = lesson.evidence.reading.advantages.double().square().mean()
    exact = logits.detach().double().requires_grad_()
    likelihood = log_likelihood(name, problem, exact.softmax(dim=1)) / variance
    (expected,) = torch.autograd.grad(-likelihood / (2 * 4 * 5), exact)  # the mean over images and pixels
    assert logits.grad is not None
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(logits.grad.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_equal_scores_of_an_image_teach_nothing_and_do_not_count_in_the_scale() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    algorithm = make(samples_per_image=3, replay=0)
    loss, metrics, lesson = update(algorithm, logits, np.array([[0.4, 0.4, 0.4], [0.1, 0.5, 0.3]]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[0].any()
    assert gradient[1].any()
    assert float(metrics["policy/advantage_scale"]) == pytest.approx(
        lesson.evidence.reading.advantages[1].square().mean().sqrt().item(), rel=1e-6
    )

    loss, metrics, _ = update(algorithm, logits, np.full((2, 3), 0.4))
    assert not torch.autograd.grad(loss, logits)[0].any()
    assert float(metrics["likelihood/explained"]) == 0


def test_metrics_describe_the_scores_of_the_step() -> None:
    scores = np.array([[0.1, 0.3, 0.8], [0.2, 0.2, 0.2]])
    algorithm = make(samples_per_image=3, cells=(4, 2))
    metrics = update(algorithm, torch.zeros(2, 3, 4, 4), scores, progress=0.75)[1]
    assert float(metrics["reward/mean"]) == pytest.approx(scores.mean())
    assert float(metrics["reward/best"]) == pytest.approx(0.5)
    assert float(metrics["reward/std"]) == pytest.approx(scores.std(axis=1, ddof=1).mean())
    assert float(metrics["policy/entropy"]) == pytest.approx(np.log(3))
    assert metrics["policy/cell"] == 2


# Regions


def observe_images(algorithm: Likelihood, images: torch.Tensor, index: list[int], flipped: list[bool]) -> Regions:
    """The regions that an update with images (B, H, W, 3), as they are shown, makes use of."""
    batch, height, width = images.shape[:3]
    label_maps = torch.zeros(batch, 2, height, width, dtype=torch.uint8)
    feedback = Feedback(label_maps, torch.zeros(batch, 2).double(), None, index, flipped, {}, images=images)
    assert isinstance(algorithm.level, ImageLevel)
    return algorithm.level._regions(feedback)


def test_a_mirrored_image_has_the_regions_of_the_stored_one_mirrored() -> None:
    stored = torch.randint(256, (3, 16, 20, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    shown = torch.stack([stored[0], stored[1].flip(1), stored[2].flip(1)])
    algorithm = make(regions=REGIONS)
    expected = make_regions(stored, [16 / 6, 16 / 3])
    for _ in range(2):  # made, and remembered
        regions = observe_images(algorithm, shown, [7, 1, 4], [False, True, True])
        assert regions.counts == (6 * 8, 3 * 4)
        assert torch.equal(regions.finest[0], expected.finest[0])
        assert torch.equal(regions.finest[1:], expected.finest[1:].flip(2))
        assert torch.equal(regions.parents, expected.parents)
    again = observe_images(algorithm, stored[1:2], [1], [False])
    assert torch.equal(again.finest, expected.finest[1:2])


def test_regions_that_were_made_first_are_forgotten_first_and_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two bytes for each pixel, and for each of the 48 finest regions the one of the coarser division that it lies in.
    monkeypatch.setattr(likelihood, "REMEMBERED", 2 * 2 * (16 * 20 + 48))
    images = torch.randint(256, (4, 16, 20, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    algorithm = make(regions=REGIONS)
    expected = make_regions(images, [16 / 6, 16 / 3])
    for index in ([0, 1], [0, 2], [3, 1, 0, 2]):
        regions = observe_images(algorithm, images[index], index, [False] * len(index))
        assert torch.equal(regions.finest, expected.finest[index])
        assert len(algorithm.level.known_regions) == 2  # type: ignore[union-attr]


def test_without_images_there_are_no_regions() -> None:
    label_maps = torch.zeros(1, 2, 8, 9, dtype=torch.uint8)
    feedback = Feedback(label_maps, torch.zeros(1, 2).double(), None, [0], [False], {})
    with pytest.raises(ValueError, match="the feedback has no images, from which regions are made"):
        make(regions=REGIONS).observe(torch.zeros(1, 3, 8, 9), feedback)


def test_the_loss_is_the_cross_entropy_towards_the_belief_that_knows_the_scores() -> None:
    logits = torch.randn(2, 3, 16, 20, generator=torch.Generator().manual_seed(1), requires_grad=True)
    algorithm = make(samples_per_image=3, regions=REGIONS)
    loss, metrics, lesson = update(algorithm, logits, np.array([[0.4, 0.2, 0.3], [0.1, 0.5, 0.3]]))
    belief = lesson.evidence.probabilities  # type: ignore[union-attr]
    (gradient,) = torch.autograd.grad(loss, logits)
    expected = (logits.softmax(dim=1) - belief).detach() / belief[:, 0].numel()
    torch.testing.assert_close(gradient, expected, atol=1e-8, rtol=0)
    assert float(metrics["likelihood/moved"]) > 1e-3
    assert float(metrics["reward/mean"]) == pytest.approx(0.3)


def learn_halves(regions: tuple[int, ...], visits: int) -> tuple[float, list[dict[str, Any]]]:
    """Pixel accuracy of a table of logits after some visits to four images, each of two halves of other colours.

    The second are the metrics of every visit.
    """
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    targets = np.zeros((4, 12, 16), np.uint8)
    for target in targets:
        left, right = rng.choice(3, 2, replace=False)
        border = rng.integers(5, 12)
        target[:, :border], target[:, border:] = left, right
    colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])
    images = torch.from_numpy((colours[targets] + rng.integers(-20, 21, (4, 12, 16, 3))).astype(np.uint8))
    algorithm = make(samples_per_image=4, regions=regions)
    logits = torch.zeros(4, 3, 12, 16, requires_grad=True)
    optimiser, rows = torch.optim.Adam([logits], lr=0.1), []
    for step in range(visits):
        label_maps = algorithm.act(logits.detach(), step / visits, generator)
        scores = torch.from_numpy(score_images("mean_iou", label_maps.numpy(), targets, 3))
        feedback = Feedback(label_maps, scores, None, list(range(4)), [False] * 4, {}, images=images)
        lesson = algorithm.observe(logits.detach(), feedback)
        algorithm.synchronise([lesson])
        optimiser.zero_grad()
        loss, metrics = algorithm.loss(logits, lesson, step / visits)
        loss.backward()
        optimiser.step()
        rows.append(metrics)
    return float((logits.argmax(dim=1) == torch.from_numpy(targets)).float().mean()), rows


def test_with_regions_a_hundred_scores_an_image_find_the_targets() -> None:
    # Seeds 0, 1 and 2: all pixels are right, and about half of them where every pixel is judged by itself.
    assert learn_halves(REGIONS, 25)[0] > 0.95
    assert learn_halves((), 25)[0] < 0.7


def test_a_belief_that_has_found_the_targets_stays_there() -> None:
    # Its covariance is small, so that Newton's method would go far beyond what the scores say.
    accuracy, metrics = learn_halves(REGIONS, 70)
    assert accuracy == 1
    assert all(float(row["likelihood/moved"]) < 0.1 for row in metrics[30:])


# The draws


def test_the_label_maps_of_a_stage_are_drawn_in_its_cells() -> None:
    algorithm = make(samples_per_image=8, cells=(64, 1))
    logits = torch.zeros(2, 4, 6, 7)  # every pixel has the same probabilities, so that a cell is of one class
    for progress, borders in ((0.0, {0, 1}), (0.5, {5})):  # between rows: cells of 64 pixels have one at most
        label_maps = algorithm.act(logits, progress, torch.Generator().manual_seed(0))
        found = (label_maps[:, :, 1:] != label_maps[:, :, :-1]).any(dim=3).sum(dim=2)
        assert set(found.flatten().tolist()) <= borders


@pytest.mark.parametrize(("arguments", "temperature"), [({"temperature": 4.0}, 4.0), ({}, 2.0)], ids=str)
def test_label_maps_are_drawn_at_the_temperature_asked_for(arguments: dict[str, float], temperature: float) -> None:
    # The share of a class in 80,000 draws: 5.3 standard deviations are exceeded once in ten million seeds.
    logits = torch.zeros(1, 2, 40, 40)
    logits[:, 1] = 3.0
    label_maps = make(samples_per_image=50, cells=(1,), **arguments).act(logits, 0.0, torch.Generator().manual_seed(0))
    share = 1 / (1 + np.exp(-3.0 / temperature))
    error = np.sqrt(share * (1 - share) / label_maps.numel())
    assert abs(label_maps.double().mean().item() - share) < 5.3 * error


@pytest.mark.parametrize("samples", [1, 0, -2])
def test_fewer_than_two_samples_are_rejected(samples: int) -> None:
    with pytest.raises(OptionError, match=rf"samples_per_image must be at least 2, got {samples}\."):
        Likelihood(samples_per_image=samples)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": -1.0}, r"learning_rate must be positive, got -1\.0"),
        ({"temperature": 0.0}, r"temperature must be positive, got 0\.0"),
        ({"temperature": float("nan")}, "temperature must be positive, got nan"),
        ({"temperature": float("inf")}, "temperature must be positive, got inf"),
        ({"replay": -1}, "replay must be at least 0, got -1"),
        ({"replay_megabytes": -0.5}, r"replay_megabytes must be at least 0, got -0\.5"),
        ({"replay_megabytes": float("inf")}, "replay_megabytes must be at least 0, got inf"),
        ({"cells": (4, 0)}, r"got \(4, 0\)"),
        ({"regions": (4, 0)}, r"regions must be numbers from 1 on, .*, got \(4, 0\)"),
        ({"regions": (2, 4)}, r"each less than the one before, got \(2, 4\)"),
        ({"regions": (4, 4)}, r"each less than the one before, got \(4, 4\)"),
    ],
    ids=str,
)
def test_arguments_that_are_out_of_range_are_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Likelihood(**arguments)


# With an environment


def play(
    level: str,
    updates: int,
    size: tuple[int, int],
    num_envs: int,
    wrap: tuple[str, ...] = (),
    env: dict[str, Any] | None = None,
    **arguments: Any,
) -> tuple[Likelihood, list[tuple[Any, int]]]:
    """Updates with a uniform policy: the algorithm, and the lesson and the side of the cells of every update."""
    algorithm, generator = Likelihood(**{"regions": ()} | arguments), torch.Generator().manual_seed(0)
    options = {"image_size": size, "num_classes": 5} | algorithm.env_options() | (env or {})
    envs: Any = gym.make_vec(f"RSS-Shapes-{level}Reward-v0", num_envs=num_envs, **options)
    for kind in wrap:
        envs = FeedbackReward(envs, kind)
    algorithm.start(envs.metadata, 5)
    images, shown = envs.reset(seed=0)
    logits = torch.zeros(num_envs, 5, *envs.single_observation_space.shape[:2])
    played = []
    for _ in range(updates):
        label_maps = algorithm.act(logits, 0.0, generator)
        following, _, _, _, infos = envs.step(label_maps.numpy())
        lesson = algorithm.observe(logits, read_feedback(label_maps, shown, infos, images))
        images, shown = following, infos
        algorithm.synchronise([lesson])
        algorithm.loss(logits, lesson, 0.0)
        played.append((lesson, algorithm.side))
    return algorithm, played


def play_noise(updates: int, level: str = "Image", **arguments: Any) -> tuple[Likelihood, list[tuple[Any, int]]]:
    """On images that are hardly ever seen again."""
    return play(level, updates, (16, 20), 4, samples_per_image=4, **arguments)


def play_memory(level: str, steps: int, **arguments: Any) -> tuple[Likelihood, list[Any]]:
    """On mirrored and straight images of a small data set."""
    env = {"augment": "flip", "num_images": 4}
    algorithm, played = play(level, steps, (8, 9), 2, env=env, samples_per_image=3, **arguments)
    return algorithm, [lesson for lesson, _ in played]


# Noise: some label maps are scored twice, and the cells follow

LEAST_SIDE = {(): 1, REGIONS: 8}  # of the cells on images of 16×20 pixels, of a policy that knows nothing


def scored_twice(lesson: Any) -> list[bool]:
    """Whether the first label map of each image is its last one."""
    label_maps = lesson.feedback.label_maps
    return (label_maps[:, 0] == label_maps[:, -1]).flatten(1).all(dim=1).tolist()


@both
def test_exact_scores_need_no_coarse_cells_and_are_measured_ever_less(regions: tuple[int, ...]) -> None:
    algorithm, played = play_noise(7 * EVERY, regions=regions)
    measured = [u for u, (lesson, _) in enumerate(played) if any(scored_twice(lesson))]
    assert measured == [0, 2 * EVERY, 6 * EVERY]
    assert all(scored_twice(played[u][0]) == [True] * 4 for u in measured)
    assert {side for _, side in played} == {LEAST_SIDE[regions]}
    assert isinstance(algorithm.level, ImageLevel)
    assert algorithm.level.noise.noise == 0


@both
def test_two_label_maps_an_image_are_compared_even_where_the_noise_is_measured(regions: tuple[int, ...]) -> None:
    algorithm, played = play("Image", 20, (8, 9), 2, env={"num_images": 3}, samples_per_image=2, regions=regions)
    assert [u for u, (lesson, _) in enumerate(played) if any(scored_twice(lesson))] == [0, 2 * EVERY]
    for u, (lesson, _) in enumerate(played):
        taught = lesson.evidence.reading.advantages.any(dim=1).tolist()
        assert taught == [u not in (0, 2 * EVERY), *[True] * (len(taught) - 1)]  # also of old ones
        assert lesson.evidence.moved > 0 if regions else lesson.evidence.direction.any()
    assert len(visits_of(algorithm)) == 2 * 20 - 2


def test_an_update_whose_own_scores_say_nothing_still_learns_from_earlier_ones() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    algorithm = make(samples_per_image=3)
    _, before, _ = update(algorithm, logits, np.array([[0.4, 0.2, 0.3], [0.1, 0.5, 0.3]]))
    loss, metrics, lesson = update(algorithm, logits, np.full((2, 3), 0.4))
    assert lesson.replayed == 2
    assert not lesson.evidence.reading.advantages[:2].any()
    assert torch.autograd.grad(loss, logits)[0].any()
    assert float(metrics["policy/advantage_scale"]) == float(before["policy/advantage_scale"]) > 0


def test_the_first_update_moves_nothing_if_its_scores_say_nothing() -> None:
    logits = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss, _, _ = update(make(samples_per_image=3), logits, np.full((2, 3), 0.4))
    assert not torch.autograd.grad(loss, logits)[0].any()


def test_scores_that_differ_by_less_than_single_precision_are_told_apart() -> None:
    logits = torch.zeros(1, 3, 4, 4, requires_grad=True)
    scores = 0.5 + 1e-10 * np.array([[0.0, 1.0, 2.0, 0.0]])
    _, metrics, lesson = update(make(samples_per_image=4, cells=(1,)), logits, scores)
    assert float(metrics["reward/std"]) == pytest.approx(1e-10 * np.std([0, 1, 2, 0], ddof=1), rel=1e-3)
    # One belief expects the same of label maps with as many pixels of each class: their residuals are the scores.
    assert lesson.feedback.scores.dtype == lesson.evidence.reading.advantages.dtype == torch.float64


@both
def test_noisy_scores_make_the_cells_grow(regions: tuple[int, ...]) -> None:
    algorithm, played = play_noise(10 * EVERY, wrap=("noise:0.05",), regions=regions)
    assert [u for u, (lesson, _) in enumerate(played) if any(scored_twice(lesson))] == [*range(0, 10 * EVERY, EVERY)]
    assert played[0][1] == LEAST_SIDE[regions]
    assert played[-1][1] >= 4
    # From 40 pairs: a standard deviation of 22 % in the variance; a fixed seed.
    assert isinstance(algorithm.level, ImageLevel)
    assert math.sqrt(algorithm.level.noise.noise) == pytest.approx(0.05, rel=0.5)


def test_what_is_wrong_at_which_size_is_learned_in_every_update_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "PAIRS", 0)
    algorithm = make(samples_per_image=4, regions=REGIONS, recall=0.0)
    assert isinstance(algorithm.level, ImageLevel)
    rng = np.random.default_rng(0)
    values = []
    for _ in range(3):
        update(algorithm, torch.zeros(2, 3, 16, 20), rng.uniform(size=(2, 4)))
        values.append(list(algorithm.level.variances.values))
    assert len(values[0]) == 2 + 2  # of twelve, six and three regions along 16 pixels those of 2.5 pixels and more
    assert all((np.array(one) != other).all() for one, other in pairwise(values))
    again = make(samples_per_image=4, regions=REGIONS, recall=0.0)
    again.load_state_dict(algorithm.state_dict())
    assert isinstance(again.level, ImageLevel)
    assert again.level.variances.values == values[-1]


def test_a_run_from_before_there_were_regions_goes_on_without() -> None:
    before = {"samples_per_image": 4, "learning_rate": 0.001, "replay": 256}
    assert from_config(Likelihood, before, "config.json").regions == ()
    assert from_config(Likelihood, before | {"regions": [8, 4]}, "config.json").regions == (8, 4)
    assert Likelihood().regions == (12, 6, 3, 1)
    once = from_config(Likelihood, before, "config.json")
    assert (once.decay_from, once.recall, once.scores_per_nat) == (0.0, 0.0, 0.0)
    assert (Likelihood().decay_from, Likelihood().recall, Likelihood().scores_per_nat) == (0.6, 0.8, 3.0)


@pytest.mark.parametrize(("stars", "finest"), [(0, 2), (5, 4)])
def test_with_regions_the_cells_become_finer_as_the_policy_learns(stars: int, finest: int) -> None:
    algorithm = make(samples_per_image=3, regions=REGIONS, recall=0.0)
    assert isinstance(algorithm.level, ImageLevel)
    algorithm.level.formula = KnownFormula("mean_iou", stars)
    sides = []
    for certainty in (0.0, 1.5, 4.0):
        logits = torch.zeros(2, 3, 16, 20)
        logits[:, 0] = certainty
        update(algorithm, logits, np.array([[0.4, 0.2, 0.4], [0.1, 0.5, 0.1]]))  # no noise
        sides.append(algorithm.level.side(0.0, 16))
    assert sides == [8, 4, finest]


def show(
    algorithm: Likelihood, flipped: bool, crop: tuple[int, ...] | None, logits: torch.Tensor, best: float = 0.4
) -> torch.Tensor:
    """What is believed, as the image is stored, after a visit in which the first label map of three scored ``best``."""
    image = torch.randint(256, (1, 16, 20, 3), generator=torch.Generator().manual_seed(0))
    halves = torch.zeros(1, 3, 16, 20, dtype=torch.uint8)
    halves[0, 1], halves[0, 2, :, :7] = 1, 2
    scores = torch.tensor([[best, 0.1, 0.2]], dtype=torch.float64)
    image, logits, halves = (of.flip(axis) if flipped else of for of, axis in ((image, 2), (logits, 3), (halves, 3)))
    crops = None if crop is None else [crop]
    lesson = algorithm.observe(logits, Feedback(halves, scores, None, [7], [flipped], {}, crops=crops, images=image))
    algorithm.synchronise([lesson])
    found = lesson.evidence.probabilities
    return found.flip(3) if flipped else found


def test_what_was_believed_of_an_image_is_recalled_mirrored_or_not() -> None:
    logits = torch.randn(1, 3, 16, 20, generator=torch.Generator().manual_seed(1))
    believed = {}
    for recall, flips in [(0.8, (False, False)), (0.8, (True, True)), (0.8, (False, True)), (0.0, (False, False))]:
        algorithm = make(samples_per_image=3, regions=(4, 2, 1), replay=3, recall=recall)
        for flipped in flips:
            found = show(algorithm, flipped, None, logits)
        believed[recall, flips] = found
    once = believed.pop((0.0, (False, False)))
    one, *others = believed.values()
    for other in others:
        torch.testing.assert_close(one, other, rtol=0, atol=2e-3)
    assert (one - once).abs().max() > 0.02


@pytest.mark.parametrize(
    ("replay", "recall", "counted"),
    [
        (12, 0.8, [0, 1, 2, *[2] * 8, 1, 1, 1]),  # after n visits of 3 scores round(4 (1 − 0.8 · 3 n / (3 n + 9)))
        (3, 0.8, [0, *[1] * 13]),
        (12, 0.4, [0, 1, 2, *[3] * 11]),
        (12, 0.0, [0, 1, 2, 3, *[4] * 10]),
    ],
)
def test_the_more_scores_what_is_recalled_rests_on_the_fewer_of_the_earlier_visits_count_again_the_newest(
    replay: int, recall: float, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[float]] = []

    def noted(*arguments: Any) -> Posterior:
        seen.append(arguments[2][:, 0].tolist())
        return region_posterior(*arguments)

    monkeypatch.setattr(likelihood, "region_posterior", noted)
    monkeypatch.setattr(likelihood, "TOLD", 9)
    algorithm = make(samples_per_image=3, regions=(4, 2, 1), replay=replay, recall=recall)
    for visit in range(14):
        show(algorithm, False, None, torch.zeros(1, 3, 16, 20), best=visit / 20)
    assert seen == [[visit / 20 for visit in range(last, last - 1 - many, -1)] for last, many in enumerate(counted)]


@pytest.mark.parametrize(
    ("recall", "few", "settled"), [(0.8, 11, [False] * 4 + [True] * 2), (0.0, 11, [False] * 6), (0.8, 2, [False] * 6)]
)
def test_an_image_is_settled_once_many_scores_are_recalled(
    recall: float, few: int, settled: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def noted(*arguments: Any) -> Posterior:
        seen.extend(arguments[-1])
        return region_posterior(*arguments)

    monkeypatch.setattr(likelihood, "region_posterior", noted)
    monkeypatch.setattr(likelihood, "SETTLED", 9)  # as many as those of three visits
    monkeypatch.setattr(likelihood, "FEW", few)
    algorithm = make(samples_per_image=3, regions=(4, 2, 1), recall=recall)
    for _ in range(6):
        show(algorithm, False, None, torch.zeros(1, 3, 16, 20))
    assert seen == settled


@pytest.mark.parametrize("crop", [None, (0, 1, 16, 20)])
def test_with_a_recall_of_nearly_all_the_belief_goes_on_from_where_it_was(
    crop: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "HALF", 1e-9)
    algorithm = make(samples_per_image=3, regions=(4, 2, 1), replay=3, recall=0.999)
    logits = torch.randn(1, 3, 16, 20, generator=torch.Generator().manual_seed(1))
    for _ in range(12):
        before, after = show(algorithm, False, crop, logits), show(algorithm, False, crop, torch.zeros_like(logits))
    torch.testing.assert_close(after, before, rtol=0, atol=0.02)  # of logits that say nothing, and the same scores


@pytest.mark.parametrize(("noise", "recalled"), [(0.0, True), (0.05, False)])
def test_noisy_scores_are_not_counted_again_through_what_was_believed(
    noise: float, recalled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[tuple[int, float]] = []

    def noted(*arguments: Any) -> torch.Tensor:
        times.append((sum(of is not None for of in arguments[1]), arguments[2][0]))
        return recall_belief(*arguments)

    monkeypatch.setattr(likelihood, "recall_belief", noted)
    algorithm = make(samples_per_image=3, regions=(4, 2, 1), recall=0.8)
    assert isinstance(algorithm.level, ImageLevel)
    for _ in range(3):
        algorithm.level.noise.noise = noise**2
        show(algorithm, False, None, torch.zeros(1, 3, 16, 20))
    weights = [0.8 * visits / (visits + likelihood.HALF) for visits in range(3)]
    assert times == ([(0, 0.0), (1, weights[1]), (1, weights[2])] if recalled else [])


@pytest.mark.parametrize("arguments", [{"regions": ()}, {"replay": 0}, {"replay_megabytes": 0.0}, {"recall": 0.0}])
def test_without_regions_or_replay_nothing_is_recalled(arguments: dict[str, Any]) -> None:
    given: dict[str, Any] = {"samples_per_image": 3, "regions": (4, 2, 1)}
    assert make(**given).level.recalls  # type: ignore[union-attr]
    assert image_level(make(UNKNOWN_SCORE, **given)).recalls
    assert not make(**given | arguments).level.recalls  # type: ignore[union-attr]


def test_a_recall_leaves_something_to_the_policy() -> None:
    with pytest.raises(OptionError, match="recall must be below 1, got 1"):
        Likelihood(recall=1.0)


@pytest.mark.parametrize(
    ("noise", "stars", "recall", "model"),
    [
        (0.0, 0, 0.0, SHIFTS),
        (0.0, 0, 0.8, PIXELS_TOO),
        (0.05, 0, 0.0, ONE_CLASS),
        (0.05, 0, 0.8, ONE_CLASS),
        (0.0, 5, 0.8, ONE_CLASS),
    ],
)
def test_noise_and_rounding_decide_how_the_belief_is_taken_to_be_wrong(
    noise: float, stars: int, recall: float, model: Errors, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, list[float], Errors]] = []

    def noted(*arguments: Any) -> Posterior:
        regions, variances, errors = arguments[6:9]
        given.append((regions.counts[-1], variances.tolist(), errors))
        return region_posterior(*arguments)

    monkeypatch.setattr(likelihood, "region_posterior", noted)
    monkeypatch.setattr(likelihood, "PAIRS", 0)  # where there are too many for a filter
    algorithm = make(samples_per_image=3, regions=(4, 2, 1), recall=recall)
    assert isinstance(algorithm.level, ImageLevel)
    algorithm.level.formula = KnownFormula("mean_iou", stars)
    algorithm.level.noise.rounding, algorithm.level.noise.noise = algorithm.level.formula.rounding, noise**2
    update(algorithm, torch.zeros(2, 3, 16, 20), np.array([[0.5, 0.25, 0.5], [0.0, 0.5, 0.25]]))
    whole, counts = model is not ONE_CLASS, {False: 2 * 2, True: 1}
    assert given == [(counts[whole], model.variances(2 + whole), model)]


NOISY = {"samples_per_image": 3, "regions": (4, 2, 1)}


@pytest.mark.parametrize(
    ("metadata", "arguments", "filters"),
    [
        ({}, {}, True),
        ({}, {"regions": (12, 6)}, True),
        ({}, {"regions": ()}, False),
        ({}, {"replay": 0}, False),
        ({}, {"replay_megabytes": 0.0}, False),
        ({"reward": None}, {}, False),
        ({"crop_size": (8, 8), "augment": "crop"}, {}, False),
        ({"image_size": (600, 900)}, {"regions": (40,)}, False),  # too many
        ({}, {"regions": (2, 1)}, False),  # too few
        ({"num_images": 100}, {"replay_megabytes": 20 * 4e-6 * 60 * 62}, False),  # room for 20 images, not for 32
        ({"num_images": 20}, {"replay_megabytes": 20.1 * 4e-6 * 60 * 62}, True),
        ({"num_images": 100}, {"replay_megabytes": 32.1 * 4e-6 * 60 * 62}, True),
        ({"num_images": 100}, {"replay_megabytes": 99 * 4e-6 * 60 * 62, "scores_per_nat": 0.0}, False),  # not for all
    ],
)
def test_all_that_noisy_scores_said_is_kept_where_regions_and_formula_are_the_same_at_every_visit(
    metadata: dict[str, Any], arguments: dict[str, Any], filters: bool
) -> None:
    algorithm = make(MEAN_IOU | {"image_size": (16, 20)} | metadata, **NOISY | arguments)
    level = image_level(algorithm)
    assert not level.filters  # of exact scores
    make_noisy(level)
    assert level.filters == filters


def make_noisy(level: ImageLevel, stars: int = 0, noise: float = 0.05) -> None:
    """Scores of five stars or with noise, as they are known to be after the first update."""
    if stars:
        level.formula = KnownFormula("mean_iou", stars)
    level.noise.rounding, level.noise.noise = level.formula.rounding, 0.0 if stars else noise**2
    level.loud = True


def test_noise_is_loud_until_it_is_much_less() -> None:
    algorithm = make(samples_per_image=3, regions=(4, 2, 1))
    level, loud = algorithm.level, []
    assert isinstance(level, ImageLevel)
    for noise in (0.02, 0.03, 0.022, 0.015, 0.022):
        level.noise.noise = noise**2
        level.noise._wait = 5  # nothing is measured
        update(algorithm, torch.zeros(2, 3, 16, 20), np.array([[0.5, 0.25, 0.5], [0.0, 0.5, 0.25]]))
        loud.append(level.loud)
    assert loud == [False, True, True, False, False]
    assert make(MEAN_IOU | {"reward_stars": 5}).level.loud  # type: ignore[union-attr]
    assert not make(MEAN_IOU | {"reward_stars": 50}).level.loud  # type: ignore[union-attr]
    again = make()
    again.load_state_dict(algorithm.state_dict() | {"loud": True})
    assert again.level.loud  # type: ignore[union-attr]


def test_the_filter_has_the_finest_regions_that_are_few_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = make(MEAN_IOU | {"image_size": (60, 90)}, regions=(12, 6, 3, 1))
    assert isinstance(algorithm.level, ImageLevel)
    found = []
    for most in (3 * 12 * 18, 3 * 12 * 18 - 1, 3 * 3 * 4, 3 * 3 * 4 - 1, 1):
        monkeypatch.setattr(likelihood, "PAIRS", most)
        found.append(algorithm.level._filtered)
    assert found == [0, 1, 2, None, None]  # not the whole image


@pytest.mark.parametrize("stars", [0, 5])
def test_a_mirrored_visit_adds_to_the_same_sums(stars: int) -> None:
    logits, sums = torch.randn(1, 3, 16, 20, generator=torch.Generator().manual_seed(1)), []
    for flips in ((False, False), (True, True), (False, True)):
        algorithm = make(MEAN_IOU | {"image_size": (16, 20)}, **NOISY)
        assert isinstance(algorithm.level, ImageLevel)
        level = algorithm.level
        for flipped in flips:
            make_noisy(level, stars)
            believed = show(algorithm, flipped, None, logits)
        assert len(level.filter) == 1
        assert len(level.memory) == 0
        sums.append((level.filter.state_dict() | {"believed": believed}, algorithm))
    for name, value in sums[0][0].items():
        torch.testing.assert_close(sums[1][0][name], value, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(sums[2][0][name], value, rtol=1e-3, atol=1e-3)
    again = make(MEAN_IOU | {"image_size": (16, 20)}, **NOISY)
    again.load_state_dict(sums[0][1].state_dict())
    again.load_memory(sums[0][1].memory())
    assert isinstance(again.level, ImageLevel)
    torch.testing.assert_close(again.level.filter.state_dict(), sums[0][1].level.filter.state_dict())  # type: ignore[union-attr]


def test_noise_that_is_small_next_to_what_is_not_predicted_is_none() -> None:
    noise = ScoreNoise()
    assert not noise.matters
    noise.noise = 0.05 * noise.residual
    assert noise.known
    assert not noise.matters
    noise.noise = 0.5 * noise.residual
    assert noise.matters
    noise.tick()  # once it does, a part that is small enough otherwise is not
    noise.noise = 0.05 * noise.residual
    assert noise.matters
    restored = ScoreNoise()
    restored.load_state_dict(noise.state_dict())
    assert restored.matters
    noise.noise = 0.02 * noise.residual
    assert not noise.matters
    noise.tick()
    noise.noise = 0.05 * noise.residual
    assert not noise.matters
    assert ScoreNoise(rounding=noise.residual).matters


@both
def test_few_stars_need_the_coarsest_cells_from_the_start(regions: tuple[int, ...]) -> None:
    (_, first), (_, second) = play_noise(2, wrap=("stars:5",), regions=regions)[1]
    assert first == 8  # half of the shorter side
    assert second >= 4  # measured


def expected_stars(belief: torch.Tensor, label_maps: torch.Tensor) -> torch.Tensor:
    """Expected scores of the label maps of every image, in steps between two stars, (B, N)."""
    rows = []
    for p, maps in zip(belief, label_maps, strict=True):
        classes = torch.stack([maps == c for c in range(len(p))], dim=1).float()
        counts = (classes * p).sum(dim=(2, 3)), classes.sum(dim=(2, 3)), p.sum(dim=(1, 2)).expand(len(maps), -1)
        rows.append(predict_scores("mean_iou", *counts).mean * 4)
    return torch.stack(rows)


def with_stars(stars: int = 5, residual: float = 1e-4, **arguments: Any) -> tuple[Likelihood, ImageLevel]:
    """An algorithm that asks for stars and has measured its residuals; no label map is due to be scored twice."""
    algorithm = make(samples_per_image=8, regions=REGIONS, **arguments)
    level = algorithm.level
    assert isinstance(level, ImageLevel)
    level.formula = KnownFormula("mean_iou", stars)
    level.noise.rounding, level.noise.residual, level.unsure = level.formula.rounding, residual, 0.2
    level.noise.tick()
    return algorithm, level


def test_with_stars_the_label_maps_are_scored_whose_star_is_least_certain() -> None:
    logits = 2 * torch.randn(2, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    distances = []
    for stars in (0, 5):
        algorithm, _ = with_stars(stars, 1e-3)
        maps = algorithm.act(logits, 0.0, torch.Generator().manual_seed(1))
        assert maps.shape == (2, 8, 16, 20)
        mean = expected_stars((logits / ONE_CLASS.heat).softmax(dim=1), maps)
        distances.append((mean - mean.floor() - 0.5).abs().mean().item())
    assert distances[1] < 0.6 * distances[0]
    _, metrics, _ = update(algorithm, logits, np.random.default_rng(0).integers(0, 5, (2, 8)) / 4)
    assert 0 < float(metrics["likelihood/bits"]) <= math.log2(5)


def test_with_stars_the_cells_are_a_half_of_the_side_until_a_fifth_is_known_and_a_fourth_from_then_on() -> None:
    _, level = with_stars()
    sides = []
    for level.unsure in (1.0, 0.85, 0.75, 0.1):
        sides.append(level.side(0.0, 16))
    assert sides == [8, 8, 4, 4]


def test_where_the_stars_would_tell_little_label_maps_are_drawn_colder_and_coarser() -> None:
    algorithm, level = with_stars()
    generator = torch.Generator().manual_seed(0)
    logits = torch.stack([torch.zeros(3, 16, 20), 2.5 * torch.randn(3, 16, 20, generator=generator)])
    belief, numbers = (logits / ONE_CLASS.heat).softmax(dim=1), torch.randint(2**63 - 1, (3,), generator=generator)
    fine, coarse = (
        most_uncertain(belief, likelihood.draw(logits, 32, *how, numbers), 8, level.formula, 0.01)
        for how in ((2.0, 4), (1.0, 8))
    )
    assert fine[1][0] < 0.3 <= fine[1][1]
    assert fine[1][0] < coarse[1][0]
    maps = algorithm.level.draw(logits, 4, numbers)
    assert torch.equal(maps[0], coarse[0][0])
    assert torch.equal(maps[1], fine[0][1])
    by_hand, _ = with_stars(cells=(4,))
    assert torch.equal(by_hand.level.draw(logits, 4, numbers), fine[0])


def test_what_is_drawn_colder_and_coarser_is_not_asked_if_it_tells_even_less() -> None:
    _, level = with_stars()
    sure = torch.zeros(1, 3, 16, 20)
    sure[:, 0] = 11.0
    sure[:, :, 5, :8] = torch.tensor([0.0, 11.0, 0.0])[:, None]
    for seed in range(5):
        numbers = torch.randint(2**63 - 1, (3,), generator=torch.Generator().manual_seed(seed))
        belief = (sure / ONE_CLASS.heat).softmax(dim=1)
        fine, coarse = (
            most_uncertain(belief, likelihood.draw(sure, 32, *how, numbers), 8, level.formula, 0.01)
            for how in ((2.0, 4), (1.0, 8))
        )
        assert torch.equal(
            level.draw(sure, 4, numbers), fine[0] if fine[1] >= min(0.3, coarse[1].item()) else coarse[0]
        )


def test_noise_before_rounding_is_measured_by_a_label_map_that_was_not_chosen() -> None:
    _, level = with_stars()
    logits = 2 * torch.randn(2, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    numbers = torch.randint(2**63 - 1, (3,), generator=torch.Generator().manual_seed(0))
    chosen = level.draw(logits, 4, numbers)
    level.noise = ScoreNoise(level.formula.rounding)
    level.noise.residual = 1e-4
    maps = level.draw(logits, 4, numbers)
    assert level.twice
    any_map = likelihood.draw(logits, 1, 2.0, 4, numbers)
    assert torch.equal(maps[:, 0], any_map[:, 0])
    assert torch.equal(maps[:, -1], any_map[:, 0])
    assert torch.equal(maps[:, 1:-1], chosen[:, 1:-1])


@pytest.mark.parametrize(("level", "arguments"), [("Pixel", {}), ("Image", {"cells": (2,)})])
def test_pixel_rewards_and_cells_by_hand_leave_the_draws_as_they_are(level: str, arguments: dict[str, Any]) -> None:
    _, played = play_noise(EVERY + 1, level, **arguments)
    assert not any(any(scored_twice(lesson)) for lesson, _ in played)
    assert {side for _, side in played} == {2 if "cells" in arguments else 1}


# Memory, with images that are mirrored at random


def visits_of(algorithm: Likelihood) -> Any:
    assert isinstance(algorithm.level, ImageLevel)
    return algorithm.level.memory


def test_a_replay_of_fewer_label_maps_than_a_visit_has_keeps_one_visit() -> None:
    assert visits_of(make(samples_per_image=300, replay=256)).visits == 1
    assert visits_of(make(samples_per_image=300, replay=0)).visits == 0
    assert visits_of(make(samples_per_image=32, replay=256)).visits == 8


def record_visits(regions: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> list[list[torch.Tensor]]:
    """A list that gets the label maps, the scores and the image of all visits whenever they are read."""
    given: list[list[torch.Tensor]] = []
    name = "region_posterior" if regions else "score_evidence"
    read = getattr(likelihood, name)

    def record(*arguments: Any) -> Any:
        given.append([tensor.clone() for tensor in arguments[1:4]])  # the memory of the label maps is used again
        return read(*arguments)

    monkeypatch.setattr(likelihood, name, record)
    return given


@both
def test_visits_of_mirrored_images_are_kept_unmirrored_and_replayed_as_the_image_is_shown(
    regions: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = record_visits(regions, monkeypatch)
    algorithm, lessons = play_memory("Image", 8, regions=regions)
    targets = load_dataset("Shapes", image_size=(8, 9), num_images=4, num_classes=5).targets
    assert targets is not None
    flips = np.concatenate([lesson.feedback.flipped for lesson in lessons])
    assert flips.any()
    assert not flips.all()
    for index in range(4):
        visits = visits_of(algorithm).recall(index)
        assert len(visits) == sum(lesson.feedback.index.count(index) for lesson in lessons)
        for visit in visits:
            label_maps = unpack([visit.label_maps], torch.empty(1, 3, 8, 9, dtype=torch.uint8))[0]
            scores = score_images("mean_iou", label_maps[None].numpy(), targets[index : index + 1], 5)[0]
            np.testing.assert_array_equal(visit.scores.numpy(), scores)

    seen: list[int] = []
    for lesson, visited in zip(lessons, given, strict=True):
        index, flipped = lesson.feedback.index, lesson.feedback.flipped
        assert lesson.replayed == sum(seen.count(number) for number in index)
        assert visited[2].tolist()[:2] == [0, 1]
        assert len(visited[2]) == 2 + lesson.replayed
        for label_maps, scores, b in zip(*visited, strict=True):
            shown = targets[index[b]][:, ::-1] if flipped[b] else targets[index[b]]
            expected = score_images("mean_iou", label_maps[None].numpy(), np.ascontiguousarray(shown)[None], 5)[0]
            np.testing.assert_array_equal(scores.numpy(), expected)
        seen += index


CROPPED: dict[str, Any] = {"augment": "flip,crop", "num_images": 3, "crop_size": (7, 8)}  # 4 crops of 8×9 pixels


@both
def test_a_visit_is_replayed_on_the_crop_that_it_was_scored_on_and_on_no_other(
    regions: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = record_visits(regions, monkeypatch)
    monkeypatch.setattr(likelihood, "TOLD", 1)
    _, played = play("Image", 20, (8, 9), 2, env=CROPPED, samples_per_image=3, replay=24, regions=regions)
    targets = load_dataset("Shapes", image_size=(8, 9), num_images=3, num_classes=5).targets
    assert targets is not None
    seen: list[tuple[int, tuple[float, ...]]] = []
    cut = False
    rests: Counter[tuple[int, tuple[float, ...]]] = Counter()  # visits that what is believed of a crop rests on
    for (lesson, _), (label_maps, scores, image) in zip(played, given, strict=True):
        feedback = lesson.feedback
        for maps, told, b in zip(label_maps, scores, image, strict=True):
            top, left, height, width = map(int, feedback.crops[b])
            target = targets[feedback.index[b], top : top + height, left : left + width]
            target = target[:, ::-1] if feedback.flipped[b] else target
            expected = score_images("mean_iou", maps[None].numpy(), np.ascontiguousarray(target)[None], 5)[0]
            np.testing.assert_array_equal(told.numpy(), expected)
        shown = list(zip(feedback.index, feedback.crops, strict=True))
        kept = [[crop for number, crop in seen if number == index][-8:] for index, _ in shown]
        again = []
        for crops, which in zip(kept, shown, strict=True):
            there = crops.count(which[1])
            rests[which] *= there > 0
            recalled = 0.8 * 3 * rests[which] / (3 * rests[which] + 1) if regions else 0.0
            again.append(min(there, round(8 * (1 - recalled))))
        assert lesson.replayed == sum(again)
        cut |= again != [crops.count(crop) for crops, (_, crop) in zip(kept, shown, strict=True)]
        rests.update(shown)
        seen += shown
    assert cut is bool(regions)
    assert {crop for _, crop in seen} == {(top, left, 7, 8) for top in (0, 1) for left in (0, 1)}
    assert 0 < sum(lesson.replayed for lesson, _ in played) < sum(min(8, len(seen)) for _ in seen)


@pytest.mark.parametrize(
    ("level", "augment", "said"),
    [("Image", "crop", "12"), ("Image", "crop,scale", "endless"), ("Pixel", "crop,scale", "endless")],
)
def test_nothing_is_replayed_where_hardly_a_crop_returns(level: str, augment: str, said: str) -> None:
    env = {"augment": augment, "num_images": 3, "crop_size": (5, 7)}  # 4·3 crops of 8×9 pixels
    algorithm, _played = play(level, 3, (8, 9), 2, env=env, samples_per_image=3, replay=9 * 3)
    assert len(algorithm.level.memory) == 0
    envs = gym.make_vec(f"RSS-Shapes-{level}Reward-v0", image_size=(8, 9), **env)
    line = Likelihood(samples_per_image=3, replay=9 * 3).start(envs.metadata, 5)
    assert line == (
        f"No earlier visit is replayed: each image has {said} crops, and what was scored on one is not carried over to "
        "another."
    )
    assert Likelihood(samples_per_image=3, replay=0).start(envs.metadata, 5) is None


@pytest.mark.parametrize("level", ["image", "pixel"])
def test_it_says_when_the_memory_has_no_room_for_the_replay(level: str) -> None:
    facts = MEAN_IOU | {"reward_level": level, "num_images": 14640, "image_size": (512, 512)}

    def said(**options: Any) -> str | None:
        return Likelihood(**{"samples_per_image": 64, "replay": 256, "recall": 0.0} | options).start(facts, 21)

    line = said()
    assert line is not None
    share, size, needed = {"image": ("0.0036", "38.3", 561444), "pixel": ("0.13", "1.05", 15352)}[level]
    assert f"2,000 MB holds {share} of what --replay asks for: 14,640 images of {size} MB" in line
    assert line.endswith(f"--replay-megabytes {needed} would hold all.")
    assert "\n" not in line
    assert said(replay_megabytes=needed) is None
    assert said(replay_megabytes=needed - 1) is not None
    assert (said(replay_megabytes=needed, recall=0.8) is None) == (level == "pixel")
    assert said(replay=0) is None


@pytest.mark.parametrize("recall", [0.0, 0.5])
def test_the_room_that_is_asked_for_is_enough(recall: float) -> None:
    for level in ("Image", "Pixel"):
        algorithm, _ = play_memory(level, 40, replay=9, recall=recall, regions=REGIONS if recall else ())
        assert len(algorithm.level.memory) == {"Image": 4 * 3, "Pixel": 4}[level]
        assert algorithm.level.memory.nbytes == 4 * algorithm.level.image_bytes((8, 9))


@pytest.mark.parametrize("crop_size", [None, (5, 7)])
def test_what_is_known_of_the_pixels_of_mirrored_images_and_crops_adds_up_where_they_are_stored(
    crop_size: tuple[int, int] | None,
) -> None:
    env = {"augment": "flip" if crop_size is None else "flip,crop", "num_images": 4, "crop_size": crop_size}
    algorithm, played = play("Pixel", 8, (8, 9), 2, env=env, samples_per_image=3)
    lessons = [lesson for lesson, _ in played]
    targets = torch.tensor(load_dataset("Shapes", image_size=(8, 9), num_images=4, num_classes=5).targets)
    flips = np.concatenate([lesson.feedback.flipped for lesson in lessons])
    assert flips.any()
    assert not flips.all()

    known = torch.full((4, 8, 9), UNKNOWN, dtype=torch.uint8)
    excluded = torch.zeros((4, 5, 8, 9), dtype=torch.bool)
    for lesson in lessons:
        for b, index in enumerate(lesson.feedback.index):
            axes = [-1] if lesson.feedback.flipped[b] else []
            top, left, height, width = (0, 0, 8, 9) if crop_size is None else map(int, lesson.feedback.crops[b])
            place = (..., slice(top, top + height), slice(left, left + width))
            target, found, ruled_out = targets[index][place], known[index][place], excluded[index][place]  # views
            for label_map in lesson.feedback.label_maps[b].flip(axes):  # as the image is stored
                found[label_map == target] = label_map[label_map == target]
                for c in range(5):
                    ruled_out[c] |= (label_map == c) & (target != c)
            assert torch.equal(lesson.known[b], found.flip(axes))
            assert torch.equal(lesson.excluded[b], ruled_out.flip(axes))
    assert isinstance(algorithm.level, PixelLevel)
    for index in range(4):
        recalled = algorithm.level.memory.recall(index)
        assert recalled is not None
        assert torch.equal(recalled[0], known[index])
        assert torch.equal(recalled[1], excluded[index])


@both
def test_without_replay_no_score_is_remembered(regions: tuple[int, ...]) -> None:
    algorithm, lessons = play_memory("Image", 4, replay=0, regions=regions)
    assert algorithm.memory() == {}
    assert [lesson.replayed for lesson in lessons] == [0] * 4


def test_without_replay_nothing_is_remembered_of_pixels() -> None:
    algorithm, lessons = play_memory("Pixel", 4, replay=0)
    assert algorithm.memory() == {}
    for lesson in lessons:
        assert isinstance(lesson, PixelLesson)
        assert lesson.feedback.pixel_rewards is not None
        known, excluded = classes_found(lesson.feedback.label_maps, lesson.feedback.pixel_rewards, 5)
        assert torch.equal(lesson.known, known)
        assert torch.equal(lesson.excluded, excluded)


# A score of unknown formula

UNKNOWN_SCORE = MEAN_IOU | {"reward": None}


def run_unknown(
    explained: bool, regions: tuple[int, ...] = (), updates: int = 60, levels: int = 0, **arguments: Any
) -> Likelihood:
    """Updates with scores that are the accuracy, stretched, of a belief that is right, or are at random.

    With levels, they are rounded to so many.
    """
    algorithm = make(UNKNOWN_SCORE, samples_per_image=8, replay=0, regions=regions, **arguments)
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.integers(0, 3, (2, 8, 9)))
    logits = 3.0 * torch.nn.functional.one_hot(target, 3).permute(0, 3, 1, 2).float()
    generator = torch.Generator().manual_seed(0)
    for step in range(updates):
        label_maps = algorithm.act(logits, step / 400, generator)
        right = (label_maps == target[:, None]).float().mean(dim=(2, 3)).double()
        scores = 2 + 3 * right if explained else torch.from_numpy(rng.random(right.shape))
        if levels:
            scores = (scores * (levels - 1)).round() / (levels - 1)
        algorithm.synchronise([algorithm.observe(logits, earn(label_maps, scores))])
    return algorithm


@both
def test_a_score_that_right_pixels_do_not_explain_is_learned_by_the_policy_gradient_in_cells(
    regions: tuple[int, ...],
) -> None:
    algorithm = run_unknown(False, regions, updates=LAST - 1)
    logits = torch.zeros(2, 3, 60, 72, requires_grad=True)
    for progress, level in ((0.19, TrialLevel), (0.2, PolicyGradientLevel)):
        loss, metrics, _ = update(algorithm, logits, np.random.default_rng(0).random((2, 8)), progress)
        assert isinstance(algorithm.level, level)  # open until a fifth, or 60 updates
        assert metrics["policy/cell"] == 5  # a twelfth of the shorter side
        assert algorithm.learning_rate_factor == pytest.approx(8**0.5)  # K = 8
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.abs().sum() > 0

    again = make(UNKNOWN_SCORE, samples_per_image=8, replay=0)
    again.load_state_dict(algorithm.state_dict())
    assert isinstance(again.level, PolicyGradientLevel)
    again.load_memory(algorithm.memory())


@both
def test_one_that_they_explain_is_read_as_soon_as_that_is_seen_and_to_the_end(regions: tuple[int, ...]) -> None:
    algorithm = run_unknown(True, regions, updates=FIRST - 1)
    trial = algorithm.level
    assert isinstance(trial, TrialLevel)
    assert trial.level.share > 0.8
    algorithm = run_unknown(True, regions, updates=FIRST + 1)
    again = make(UNKNOWN_SCORE, samples_per_image=8, replay=0, regions=regions)
    again.load_state_dict(algorithm.state_dict())
    for learner in (algorithm, again):
        for progress in (0.1, 0.2, 0.9):
            learner.act(torch.zeros(2, 3, 8, 9), progress, torch.Generator())
            assert isinstance(learner.level, ImageLevel)


@both
@pytest.mark.parametrize("levels", [3, 5, 11])
def test_scores_at_random_that_are_rounded_are_not_taken_to_be_explained(regions: tuple[int, ...], levels: int) -> None:
    algorithm = run_unknown(False, regions, updates=LAST + 1, levels=levels)
    assert isinstance(algorithm.level, PolicyGradientLevel)


def test_updates_in_which_all_scores_are_equal_decide_nothing() -> None:
    algorithm, trial = (made := make(UNKNOWN_SCORE, samples_per_image=4)), made.level
    assert isinstance(trial, TrialLevel)
    for _ in range(2 * LAST):
        label_maps = algorithm.act(torch.zeros(2, 3, 8, 9), 0.1, torch.Generator())
        algorithm.synchronise([algorithm.observe(torch.zeros(2, 3, 8, 9), earn(label_maps, torch.ones(2, 4)))])
    assert algorithm.level is trial
    assert trial.level.judged == 0


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e5])
def test_whether_noise_matters_does_not_depend_on_the_unit_of_the_scores(unit: float) -> None:
    rng = np.random.default_rng(3)
    target = torch.from_numpy(rng.integers(0, 3, (2, 8, 9)))
    logits, recalled = torch.zeros(2, 3, 8, 9), []
    for deviation in (0.0, 0.2):
        algorithm = make(UNKNOWN_SCORE, samples_per_image=8, replay=16, regions=(2, 1))
        generator = torch.Generator().manual_seed(0)
        for _ in range(FIRST):
            label_maps = algorithm.act(logits, 0.05, generator)
            right = (label_maps == target[:, None]).float().mean(dim=(2, 3)).double()
            scores = unit * (right + deviation * torch.from_numpy(rng.standard_normal(right.shape)))
            if deviation == 0 and isinstance(algorithm.level, TrialLevel) and algorithm.level.level.twice:
                scores[:, -1] = scores[:, 0]
            algorithm.synchronise([algorithm.observe(logits, earn(label_maps, scores))])
        recalled.append(image_level(algorithm).recalls)
    assert recalled == [True, False]


def test_while_it_is_open_the_policy_gradient_s_loss_is_that_of_agents_rss_and_what_was_scored_is_remembered() -> None:
    algorithm = make(UNKNOWN_SCORE, samples_per_image=4, replay=8, regions=(2, 1))
    logits = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(1)).requires_grad_()
    label_maps = algorithm.act(logits.detach(), 0.0, torch.Generator())
    feedback = earn(label_maps, torch.rand(2, 4, generator=torch.Generator().manual_seed(1)))
    lesson, rss = algorithm.observe(logits.detach(), feedback), RSS(samples_per_image=4)
    algorithm.synchronise([lesson])
    loss, metrics = algorithm.loss(logits, lesson, 0.0)
    expected = rss.observe(logits.detach(), feedback)
    rss.synchronise([expected])
    assert torch.equal(loss, rss.loss(logits, expected, 0.0)[0])
    assert float(metrics["likelihood/explained"]) <= 1
    trial = algorithm.level
    assert isinstance(trial, TrialLevel)
    remembered = trial.memory.recall(int(feedback.index[0]), None)
    assert len(remembered) == 1
    assert torch.equal(remembered[0].scores, feedback.scores[0])

    again = make(UNKNOWN_SCORE, samples_per_image=4, replay=8, regions=(2, 1))
    again.load_state_dict(algorithm.state_dict())
    again.load_memory(algorithm.memory())
    assert isinstance(again.level, TrialLevel)
    assert (again.level.level.share, again.level.level.judged) == (trial.level.share, 1)
    assert len(again.level.memory.recall(int(feedback.index[0]), None)) == 1


@pytest.mark.parametrize(
    ("share", "judged", "progress", "expected"),
    [
        (0.9 * EXPLAINED, LAST - 1, 0.1, None),
        (1.1 * EXPLAINED, FIRST - 1, 0.1, None),
        (1.1 * EXPLAINED, FIRST, 0.1, ImageLevel),
        (1.1 * PROMISING, LAST, 0.1, ImageLevel),
        (0.9 * PROMISING, LAST, 0.1, PolicyGradientLevel),
        (1.1 * PROMISING, 1, TRIED, ImageLevel),
        (0.9 * PROMISING, 1, TRIED, PolicyGradientLevel),
    ],
)
def test_it_is_decided_by_a_running_mean_that_few_updates_do_not_lower(
    share: float, judged: int, progress: float, expected: type | None
) -> None:
    trial = make(UNKNOWN_SCORE).level
    assert isinstance(trial, TrialLevel)
    trial.level.explained, trial.level.judged = share * (1 - 0.95**judged), judged
    level = trial.decided(progress)
    assert level is None if expected is None else isinstance(level, expected)


@pytest.mark.parametrize(("share", "expected"), [(1.1 * EXPLAINED, ImageLevel), (0.9 * EXPLAINED, PolicyGradientLevel)])
def test_what_is_promising_and_not_kept_after_few_updates_is_given_up_by_two_fifths(
    share: float, expected: type
) -> None:
    algorithm = make(UNKNOWN_SCORE, samples_per_image=4)
    trial = algorithm.level
    assert isinstance(trial, TrialLevel)
    algorithm.level = trial.level
    for progress, now in ((1.9 * TRIED, ImageLevel), (2 * TRIED, expected)):
        trial.level.explained, trial.level.judged = share * (1 - 0.95**50), 50
        algorithm.act(torch.zeros(2, 3, 8, 9), progress, torch.Generator())
        assert isinstance(algorithm.level, now)


@pytest.mark.parametrize(("share", "expected"), [(1.1 * KEPT, ImageLevel), (0.9 * KEPT, PolicyGradientLevel)])
def test_what_is_promising_and_not_kept_by_a_fifth_is_given_up(share: float, expected: type) -> None:
    algorithm = make(UNKNOWN_SCORE, samples_per_image=4)
    trial = algorithm.level
    assert isinstance(trial, TrialLevel)
    algorithm.level = level = trial.level
    for progress, judged, now in (
        (TRIED - 0.01, ENOUGH, ImageLevel),
        (TRIED, ENOUGH - 1, ImageLevel),
        (TRIED, ENOUGH, expected),
        (0.9, ENOUGH, expected),
    ):
        level.explained, level.judged = share * (1 - 0.95**judged), judged
        algorithm.act(torch.zeros(2, 3, 8, 9), progress, torch.Generator())
        assert isinstance(algorithm.level, now)


def test_a_known_formula_is_never_judged() -> None:
    algorithm = make(samples_per_image=8)
    for progress in (0.1, 0.2, 0.5):
        algorithm.act(torch.zeros(2, 3, 8, 9), progress, torch.Generator())
        assert isinstance(algorithm.level, ImageLevel)


def known(level: ImageLevel, share: float) -> None:
    """Makes it believe that so much is known of the images."""
    level.unknown = math.log(level.num_classes) * (1 - share)


def test_as_many_images_are_shown_as_the_scores_pay_for() -> None:
    metadata = MEAN_IOU | {"image_size": (60, 90)}
    algorithm = make(metadata, regions=(12, 6), scores_per_nat=2.0, samples_per_image=4, replay=8)
    level = algorithm.level
    assert isinstance(level, ImageLevel)
    nats = 12 * 18 * math.log(3)  # finest regions of side 5, of which nothing is known
    assert algorithm.images(round(2 * nats * 100)) == pytest.approx(100, abs=1)
    known(level, 0.08)  # one in eleven more would be paid for: too few for a change
    assert algorithm.images(round(2 * nats * 100)) == pytest.approx(100, abs=1)
    known(level, 0.5)
    assert algorithm.images(round(2 * nats * 100)) == pytest.approx(200, abs=1)
    known(level, 0.2)  # what was shown is shown on
    assert algorithm.images(round(2 * nats * 100)) == pytest.approx(200, abs=1)
    known(level, 0.5)
    level.noise.observe(variance=1.0, side=1, noise=0.9, residual=1.0)  # most of what scores differ by is noise
    level.loud = True
    assert level.noise.matters
    assert algorithm.images(round(2 * nats * 800)) == pytest.approx(200, abs=1)
    assert algorithm.images(round(2 * nats * 80)) == likelihood.FEWEST
    known(level, 1.0)
    room = level.filter.fits(3 * 12 * 18)
    assert algorithm.images(round(0.8 * room)) == round(0.8 * room)
    assert algorithm.images(10 * room) == room  # whose sums are kept
    level.noise.noise = 0.0
    assert algorithm.images(10 * room) == 10 * room
    assert algorithm.images(1234) == 1234
    other = make(metadata, regions=(12, 6), scores_per_nat=2.0, samples_per_image=4, replay=8)
    other.load_state_dict(algorithm.state_dict())
    known(other.level, 0.996)  # type: ignore[arg-type]
    assert other.images(1234) == 1234  # what was shown is part of the state


def test_rounded_scores_pay_for_fewer_images_from_the_first_on() -> None:
    exact, rounded = (make(MEAN_IOU | more, regions=(2,)) for more in ({}, {"reward_stars": 5}))
    of_exact, of_rounded = exact.images(10**5), rounded.images(10**5)
    assert of_exact is not None
    assert of_rounded == pytest.approx(of_exact / likelihood.UNCERTAIN, abs=1)


@pytest.mark.parametrize(
    ("metadata", "options"),
    [
        ({}, {"replay": 0}),  # no score of an image is there any more when it comes again
        ({}, {"replay_megabytes": 0.0}),
        ({}, {"scores_per_nat": 0.0}),
        ({}, {"regions": ()}),
        ({"reward_level": "pixel"}, {}),
        ({"augment": ("crop", "scale"), "crop_size": (4, 4)}, {}),
    ],
)
def test_all_images_are_shown_where_scores_do_not_add_up(metadata: dict[str, Any], options: dict[str, Any]) -> None:
    assert make(MEAN_IOU | metadata, **{"regions": (2,)} | options).images(1000) is None


@pytest.mark.parametrize(
    ("budget", "steps", "every", "samples"),
    [
        (32_000, 1000, 1, 4),
        (32_000, 1000, 4, 16),
        (16_000, 1000, 1, 2),
        (47_999, 1000, 1, 5),  # what is left of the budget pays for no further label map of every image
        (256_000, 100, 1, 32),  # no more than can be used
        (64 * 8, 10, 3, 16),  # four visits
    ],
)
def test_a_budget_chooses_the_label_maps_of_an_image(budget: int, steps: int, every: int, samples: int) -> None:
    algorithm = Likelihood(reward_queries=budget, visit_every=every)
    algorithm.plan(steps, batch_size=8)
    assert (algorithm.env_options()["samples_per_image"], algorithm.reward_queries) == (samples, 0)
    algorithm.plan(2 * steps, batch_size=8)  # of a run that goes on: K stays
    assert algorithm.samples_per_image == samples


def test_a_budget_that_pays_for_nothing_is_refused_and_none_changes_nothing() -> None:
    with pytest.raises(OptionError, match=r"of 15,999 pay for less than 2 .* 8,000 images .*: --steps 999 is the most"):
        Likelihood(reward_queries=15_999).plan(1000, batch_size=8)
    algorithm = Likelihood(samples_per_image=7)
    algorithm.plan(1, batch_size=8)
    assert algorithm.samples_per_image == 7
    with pytest.raises(OptionError, match="reward_queries"):
        Likelihood(reward_queries=-1)


def test_a_run_keeps_to_its_budget_and_says_what_it_pays_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"steps": 5, "batch_size": 4, "image_size": (16, 16), "run_dir": str(tmp_path)}
    options |= {"env_kwargs": {"num_images": 8}}
    result = train("RSS-Shapes-ImageReward-v0", Likelihood(reward_queries=215), **options)
    assert result.reward_queries == 200
    assert "215 reward queries: 10 label maps for each of the 20 images shown." in capsys.readouterr().out
    options |= {"steps": 6, "resume": True}
    assert train("RSS-Shapes-ImageReward-v0", Likelihood(samples_per_image=10), **options).reward_queries == 240
