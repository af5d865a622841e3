"""Scores against plain loops, scikit-learn, torchmetrics and cases worked out by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from rss_env.errors import OptionError
from rss_env.rewards import DEFAULT_REWARD, LEVELS, REWARDS, count_labels, get_reward, score_images, score_pixels
from tests.extras import tensor
from tests.rewards.cases import Case, cases, random_case
from tests.rewards.oracles import ORACLES, PIXEL_ORACLES, edge_pixels

PIXEL_REWARDS = [name for name, reward in REWARDS.items() if reward.has_level("pixel")]
# Only boundary F1 asks where a pixel is, and it forgives what is within its tolerance, so it may be 1 for a wrong map.
PLACELESS = [name for name in REWARDS if name != "boundary_f1"]
every_reward = pytest.mark.parametrize("name", REWARDS)
every_placeless_reward = pytest.mark.parametrize("name", PLACELESS)
every_weighted_reward = pytest.mark.parametrize(
    "name", [name for name, reward in REWARDS.items() if "class_weights" in reward.options]
)
every_pixel_reward = pytest.mark.parametrize("name", PIXEL_REWARDS)


def score(name: str, case: Case, **options: Any) -> np.ndarray:
    return score_images(name, case.label_maps, case.targets, case.classes, **options)


@st.composite
def reward_options(draw: Callable, name: str, classes: int) -> dict[str, Any]:
    """Some of a reward's own options."""
    weights = st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.0, 1e-3]), min_size=classes, max_size=classes).filter(any)
    values = {
        "classes": st.sampled_from(["union", "target"]),
        "class_weights": st.none() | weights,
        "tolerance": st.none() | st.sampled_from([0, 1, 1.5, 2.9, 100]),
    }
    return draw(st.fixed_dictionaries({}, optional={key: values[key] for key in REWARDS[name].options}))


def present(guess: np.ndarray, truth: np.ndarray) -> list[int]:
    return sorted({*guess.tolist(), *truth.tolist()})


SKLEARN: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "mean_iou": lambda guess, truth: jaccard_score(truth, guess, average="macro"),
    "frequency_weighted_iou": lambda guess, truth: jaccard_score(truth, guess, average="weighted", zero_division=0),
    "mean_dice": lambda guess, truth: f1_score(truth, guess, average="macro"),
    "pixel_accuracy": lambda guess, truth: accuracy_score(truth, guess),
}


def test_every_reward_has_its_oracles():
    assert set(ORACLES) == set(REWARDS)
    assert set(PIXEL_ORACLES) == set(PIXEL_REWARDS)
    assert set(SKLEARN) == set(TORCHMETRICS) == set(PLACELESS)


@every_reward
@given(data=st.data(), case=cases)
@settings(max_examples=100)
def test_scores_are_those_of_plain_loops_for_every_option(name: str, data: st.DataObject, case: Case):
    options = data.draw(reward_options(name, case.classes))
    scores = score(name, case, **options)
    assert (scores.dtype, scores.shape) == (np.float64, case.label_maps.shape[:2])
    for b, k in np.ndindex(scores.shape):
        expected = ORACLES[name](case.label_maps[b, k], case.targets[b], **options)
        assert scores[b, k] == pytest.approx(float(expected), rel=1e-12)


@every_placeless_reward
@given(case=cases)
@settings(max_examples=50)
def test_scores_are_those_of_scikit_learn(name: str, case: Case):
    scores = score(name, case)
    for b, k in np.ndindex(scores.shape):
        counted = case.targets[b] != 255
        if counted.any():
            expected = SKLEARN[name](case.label_maps[b, k][counted], case.targets[b][counted])
            assert scores[b, k] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("name", "metric"), [("mean_iou", jaccard_score), ("mean_dice", f1_score)])
@pytest.mark.parametrize("classes", ["union", "target"])
@given(case=cases, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_weighted_means_over_chosen_classes_are_those_of_scikit_learn(
    name: str, metric: Callable, classes: str, case: Case, seed: int
):
    weights = np.random.default_rng(seed).uniform(0.1, 5, case.classes)
    scores = score(name, case, classes=classes, class_weights=weights)
    for b, k in np.ndindex(scores.shape):
        counted = case.targets[b] != 255
        if counted.any():
            guess, truth = case.label_maps[b, k][counted], case.targets[b][counted]
            chosen = np.unique(truth).tolist() if classes == "target" else present(guess, truth)
            each = metric(truth, guess, average=None, labels=chosen, zero_division=0)
            assert scores[b, k] == pytest.approx(np.average(each, weights=weights[chosen]), rel=1e-12)


@given(case=cases, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_weighted_pixel_accuracy_is_that_of_scikit_learn(case: Case, seed: int):
    weights = np.random.default_rng(seed).uniform(0.1, 5, case.classes)
    scores = score("pixel_accuracy", case, class_weights=weights)
    for b, k in np.ndindex(scores.shape):
        counted = case.targets[b] != 255
        if counted.any():
            guess, truth = case.label_maps[b, k][counted], case.targets[b][counted]
            expected = accuracy_score(truth, guess, sample_weight=weights[truth])
            assert scores[b, k] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("size", "tolerance"), [((40, 60), 1), ((160, 180), 2), ((50, 300), 3), ((7, 400), 4)])
@pytest.mark.parametrize("seed", range(3))
def test_boundary_f1_of_whole_images_is_that_of_distance_maps(size: tuple[int, int], tolerance: int, seed: int):
    """The tolerance, 0.75 % of the diagonal, is left to the reward, which asks for whole pixels."""
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[: size[0], : size[1]]
    target = ((rows // 17 + columns // 23) % 3).astype(np.uint8)
    label_map = np.roll(target, (0, 2, 4)[seed], axis=1)
    label_map[rng.random(size) < 0.01] = 1
    target[rng.random(size) < 0.02] = 255
    counted = set(zip(*np.nonzero(target != 255), strict=True))

    def f1(label: int) -> float:
        borders = []
        for labels in (label_map, target):
            border = np.zeros(size, bool)
            border[tuple(np.transpose(edge_pixels(labels, counted)[label]))] = True
            borders.append(border)
        precision, recall = (
            (distance_transform_edt(~other)[border] <= tolerance).mean() for border, other in (borders, borders[::-1])
        )
        return 2 * precision * recall / (precision + recall)

    case = Case(label_map[None, None], target[None], 3)
    found = score("boundary_f1", case).item()
    assert found == pytest.approx(np.mean([f1(label) for label in range(3)]), rel=1e-12)
    assert score("boundary_f1", case, tolerance=tolerance - 1).item() < found


def mean_present(values: Any, guess: Any, truth: Any) -> float:
    return values[present(guess.numpy(), truth.numpy())].mean().item()


TORCHMETRICS: dict[str, Callable[[Any, Any, Any, int], float]] = {
    "mean_iou": lambda m, g, t, c: mean_present(m.multiclass_jaccard_index(g, t, c, average="none"), g, t),
    "frequency_weighted_iou": lambda m, g, t, c: m.multiclass_jaccard_index(g, t, c, average="weighted").item(),
    "mean_dice": lambda m, g, t, c: mean_present(m.multiclass_f1_score(g, t, c, average="none"), g, t),
    "pixel_accuracy": lambda m, g, t, c: m.multiclass_accuracy(g, t, c, average="micro").item(),
}


@every_placeless_reward
@pytest.mark.parametrize("seed", range(12))
def test_scores_are_those_of_torchmetrics(name: str, seed: int):
    metrics = pytest.importorskip("torchmetrics.functional.classification", reason="needs torchmetrics")
    case = random_case(seed, (2, 2, 9, 11), 2 + seed * 3, 0.2, "int64")
    scores = score(name, case)
    for b, k in np.ndindex(scores.shape):
        counted = case.targets[b] != 255
        if counted.any():
            guess, truth = (tensor(a[counted].astype(np.int64)) for a in (case.label_maps[b, k], case.targets[b]))
            assert scores[b, k] == pytest.approx(TORCHMETRICS[name](metrics, guess, truth, case.classes), rel=1e-5)


@every_reward
@pytest.mark.parametrize("classes", [2, 3])
def test_every_map_of_four_pixels_against_every_target(name: str, classes: int):
    label_maps = np.array(list(itertools.product(range(classes), repeat=4)), np.uint8).reshape(1, -1, 2, 2)
    targets = np.array(list(itertools.product([*range(classes), 255], repeat=4)), np.uint8).reshape(-1, 2, 2)
    targets = targets[:: 1 if classes == 2 else 5]
    scores = score_images(name, np.repeat(label_maps, len(targets), axis=0), targets, classes)
    for b, target in enumerate(targets):
        expected = [float(ORACLES[name](label_map, target)) for label_map in label_maps[0]]
        np.testing.assert_allclose(scores[b], expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("label_map", "target", "mean_iou", "mean_dice", "frequency_weighted_iou", "accuracy"),
    [
        ([[0, 1], [1, 1]], [[0, 1], [0, 1]], (1 / 2 + 2 / 3) / 2, (2 / 3 + 4 / 5) / 2, (1 / 2 + 2 / 3) / 2, 3 / 4),
        ([[0, 1], [1, 1]], [[0, 1], [0, 255]], (1 / 2 + 1 / 2) / 2, (2 / 3 + 2 / 3) / 2, 1 / 2, 2 / 3),
        ([[0, 0], [0, 0]], [[0, 0], [0, 0]], 1, 1, 1, 1),
        ([[2, 2], [2, 2]], [[0, 0], [0, 0]], 0, 0, 0, 0),
        # A class only in the label map counts as 0, except where classes weigh by their pixels in the target
        ([[0, 0], [0, 2]], [[0, 0], [0, 0]], (3 / 4 + 0) / 2, (6 / 7 + 0) / 2, 3 / 4, 3 / 4),
        # as does one only in the target.
        ([[0, 0], [0, 0]], [[0, 0], [0, 2]], (3 / 4 + 0) / 2, (6 / 7 + 0) / 2, 3 / 4 * 3 / 4, 3 / 4),
        ([[0, 0], [0, 2]], [[0, 0], [0, 255]], 1, 1, 1, 1),  # predicted where ignored: not present
        ([[0, 1], [2, 0]], [[1, 2], [0, 1]], 0, 0, 0, 0),
        ([[0, 1], [2, 2]], [[0, 1], [2, 2]], 1, 1, 1, 1),
        ([[0, 1], [2, 2]], [[255, 255], [255, 255]], 0, 0, 0, 0),
    ],
)
def test_scores_worked_out_by_hand(
    label_map: list, target: list, mean_iou: float, mean_dice: float, frequency_weighted_iou: float, accuracy: float
):
    maps, targets = np.array([[label_map]], np.uint8), np.array([target], np.uint8)
    assert score_images("mean_iou", maps, targets, 3).tolist() == [[mean_iou]]
    assert score_images("mean_dice", maps, targets, 3) == pytest.approx(mean_dice, rel=1e-15)
    assert score_images("frequency_weighted_iou", maps, targets, 3) == pytest.approx(frequency_weighted_iou, rel=1e-15)
    assert score_images("pixel_accuracy", maps, targets, 3).tolist() == [[accuracy]]


@pytest.mark.parametrize(
    ("label_map", "target", "tolerance", "expected"),
    [
        ([[0, 0, 1, 1]], [[0, 0, 1, 1]], 0, 1.0),
        ([[0, 1, 1, 1]], [[0, 0, 1, 1]], 0, 0.0),  # class 0: pixel 0 against pixel 1; class 1: 1 against 2
        ([[0, 1, 1, 1]], [[0, 0, 1, 1]], 1, 1.0),
        ([[0, 0, 0, 0]], [[0, 0, 0, 0]], 0, 1.0),  # no border in either, and class 0 in both
        ([[1, 1, 1, 1]], [[0, 0, 0, 0]], 9, 0.0),
        ([[0, 0, 0, 0]], [[0, 0, 1, 1]], 9, 0.0),  # a border only in the target
        ([[0, 0, 255, 1]], [[0, 0, 255, 1]], 0, 1.0),  # what is next to an ignored pixel is no border
        ([[0, 0, 0, 1, 0]], [[0, 0, 0, 1, 1]], 0, (2 / 3 + 1) / 2),  # class 0: precision 1/2, recall 1
        ([[0, 1], [1, 1]], [[1, 1], [1, 0]], 1, (0 + 1) / 2),  # the diagonal is √2 pixels long
        ([[0, 1], [1, 1]], [[1, 1], [1, 0]], 1.5, 1.0),
    ],
)
def test_boundary_f1_worked_out_by_hand(label_map: list, target: list, tolerance: float, expected: float):
    maps, targets = np.array([[label_map]], np.uint8), np.array([target], np.uint8)
    maps[maps == 255] = 0
    assert score_images("boundary_f1", maps, targets, 2, tolerance=tolerance) == pytest.approx(expected, rel=1e-15)


def test_weights_and_classes_worked_out_by_hand():
    maps, targets = np.array([[[[0, 0], [0, 2]]]], np.uint8), np.array([[[0, 0], [1, 1]]], np.uint8)
    # IoU: 2/3 of class 0, 0 of class 1, 0 of class 2, which only the label map holds
    assert score_images("mean_iou", maps, targets, 3).item() == pytest.approx(2 / 9)
    assert score_images("mean_iou", maps, targets, 3, classes="target").item() == pytest.approx(1 / 3)
    assert score_images("mean_iou", maps, targets, 3, class_weights=[3, 1, 2]).item() == pytest.approx(1 / 3)
    assert score_images("mean_iou", maps, targets, 3, classes="target", class_weights=[3, 1, 2]).item() == 0.5
    assert score_images("pixel_accuracy", maps, targets, 3, class_weights=[3, 1, 2]).item() == 0.75
    assert score_images("pixel_accuracy", maps, targets, 3, class_weights=[0, 0, 2]).item() == 0.0
    pixels = score_pixels("pixel_accuracy", maps, targets, 3, class_weights=[3, 1, 2])
    assert pixels.tolist() == [[[[1.5, 1.5], [0, 0]]]]  # 3 over the mean weight, 2


# Properties of every reward


@every_reward
@given(data=st.data(), case=cases)
def test_scores_lie_between_0_and_1(name: str, data: st.DataObject, case: Case):
    scores = score(name, case, **data.draw(reward_options(name, case.classes)))
    assert (scores >= 0).all()
    assert (scores <= 1).all()


@every_reward
@given(data=st.data(), case=cases)
@settings(max_examples=50)
def test_a_map_that_is_right_everywhere_scores_1_whatever_the_options(name: str, data: st.DataObject, case: Case):
    options = data.draw(reward_options(name, case.classes))
    if options.get("class_weights"):
        options["class_weights"] = [weight + 0.1 for weight in options["class_weights"]]
    maps = np.where(case.targets == 255, case.label_maps[:, 0], case.targets)[:, None]
    scores = score(name, case._replace(label_maps=maps), **options)
    np.testing.assert_array_equal(scores[:, 0], (case.targets != 255).any(axis=(1, 2)))


@every_reward
@given(case=cases)
@settings(max_examples=50)
def test_mirroring_and_turning_image_and_map_alike_changes_no_score(name: str, case: Case):
    expected = score(name, case)
    for change in (lambda a: a[..., ::-1], lambda a: a[..., ::-1, :], lambda a: a.swapaxes(-1, -2)):
        np.testing.assert_array_equal(
            score(name, Case(change(case.label_maps), change(case.targets), case.classes)), expected
        )


@given(case=cases, tolerances=st.lists(st.floats(0, 40), min_size=2, max_size=2).map(sorted))
@settings(max_examples=50)
def test_a_wider_tolerance_never_lowers_boundary_f1(case: Case, tolerances: list[float]):
    narrow, wide = (score("boundary_f1", case, tolerance=tolerance) for tolerance in tolerances)
    assert (narrow <= wide + 1e-12).all()


@every_weighted_reward
@given(data=st.data(), case=cases, exponent=st.sampled_from([-1060, -30, 1, 1020]))
@settings(max_examples=40)
def test_only_the_proportions_of_class_weights_matter(name: str, data: st.DataObject, case: Case, exponent: int):
    weights = [
        2.0**power for power in data.draw(st.lists(st.integers(-4, 3), min_size=case.classes, max_size=case.classes))
    ]
    scaled = [weight * 2.0**exponent for weight in weights]
    np.testing.assert_array_equal(score(name, case, class_weights=scaled), score(name, case, class_weights=weights))
    if name in PIXEL_REWARDS:
        found, expected = (
            score_pixels(name, case.label_maps, case.targets, case.classes, class_weights=w) for w in (scaled, weights)
        )
        np.testing.assert_array_equal(found, expected)


@every_weighted_reward
@given(case=cases, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_where_every_class_of_the_mean_weighs_0_the_score_is_0(name: str, case: Case, seed: int):
    label = np.random.default_rng(seed).integers(case.classes)
    scores = score(name, case, class_weights=(np.arange(case.classes) == label) * 1.0)
    counted = case.targets != 255
    in_target = ((case.targets == label) & counted).any(axis=(1, 2))[:, None]
    in_map = ((case.label_maps == label) & counted[:, None]).any(axis=(2, 3))
    asked = in_target if name == "pixel_accuracy" else in_target | in_map
    assert not scores[~np.broadcast_to(asked, scores.shape)].any()


@pytest.mark.parametrize("name", [name for name, reward in REWARDS.items() if not reward.reads_maps])
def test_most_rewards_need_only_the_counts(name: str):
    case = random_case(2, (2, 3, 9, 9), 4, 0.2, "uint8")
    counts = count_labels(case.label_maps, case.targets, 4)
    np.testing.assert_array_equal(REWARDS[name].image_score(counts, None, None), score(name, case))


@every_placeless_reward
@given(case=cases, share=st.sampled_from([0.0, 0.02, 0.3]), seed=st.integers(0, 2**32 - 1))
def test_a_score_is_1_exactly_where_every_counted_pixel_is_right(name: str, case: Case, share: float, seed: int):
    targets = case.targets[:, None]
    wrong = np.random.default_rng(seed).random(case.label_maps.shape) < share
    maps = np.where(wrong | (targets == 255), case.label_maps, targets)
    right = ((maps == targets) | (targets == 255)).all(axis=(2, 3)) & (targets != 255).any(axis=(2, 3))
    scores = score(name, case._replace(label_maps=maps))
    np.testing.assert_array_equal(scores == 1, right)


@every_reward
@given(classes=st.integers(2, 255), seed=st.integers(0, 2**32 - 1))
def test_an_image_that_is_wholly_ignored_scores_0(name: str, classes: int, seed: int):
    case = random_case(seed, (2, 3, 5, 7), classes, 1.0, "uint8")
    assert (case.targets == 255).all()
    assert score(name, case).tolist() == [[0, 0, 0], [0, 0, 0]]


@every_reward
@given(case=cases, seed=st.integers(0, 2**32 - 1))
def test_what_is_predicted_where_the_target_is_ignored_does_not_matter(name: str, case: Case, seed: int):
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, case.classes, case.label_maps.shape)
    maps = np.where(case.targets[:, None] == 255, noise, case.label_maps)
    np.testing.assert_array_equal(score(name, case._replace(label_maps=maps)), score(name, case))


@every_reward
@given(case=cases, seed=st.integers(0, 2**32 - 1))
def test_permuting_images_and_samples_permutes_scores(name: str, case: Case, seed: int):
    rng = np.random.default_rng(seed)
    images, samples = (rng.permutation(n) for n in case.label_maps.shape[:2])
    permuted = Case(case.label_maps[images][:, samples], case.targets[images], case.classes)
    np.testing.assert_array_equal(score(name, permuted), score(name, case)[images][:, samples])


@every_reward
@given(case=cases)
def test_the_batch_does_not_change_a_score(name: str, case: Case):
    whole = score(name, case)
    for b, k in np.ndindex(whole.shape):
        alone = Case(case.label_maps[b : b + 1, k : k + 1], case.targets[b : b + 1], case.classes)
        assert score(name, alone).tolist() == [[whole[b, k]]]


@every_placeless_reward
@given(case=cases, seed=st.integers(0, 2**32 - 1))
def test_moving_pixels_and_renaming_classes_changes_no_score(name: str, case: Case, seed: int):
    rng = np.random.default_rng(seed)
    batch, samples, height, width = case.label_maps.shape
    names = np.append(rng.permutation(case.classes), np.zeros(256 - case.classes, int))
    names[255] = 255
    places = rng.permutation(height * width)
    maps = names[case.label_maps].reshape(batch, samples, -1)[..., places].reshape(case.label_maps.shape)
    targets = names[case.targets].reshape(batch, -1)[..., places].reshape(case.targets.shape)
    moved = Case(maps.astype(np.uint8), targets.astype(np.uint8), case.classes)
    np.testing.assert_allclose(score(name, moved), score(name, case), rtol=1e-12)


@every_reward
@given(case=cases, more=st.integers(1, 40))
def test_classes_that_occur_nowhere_change_no_score(name: str, case: Case, more: int):
    wider = case._replace(classes=min(case.classes + more, 255))
    np.testing.assert_allclose(score(name, wider), score(name, case), rtol=1e-12)


# Pixel level


@every_pixel_reward
@given(case=cases)
def test_a_pixel_scores_1_where_it_is_right_and_0_where_it_is_wrong_or_ignored(name: str, case: Case):
    pixels = score_pixels(name, case.label_maps, case.targets, case.classes)
    assert (pixels.dtype, pixels.shape) == (np.float32, case.label_maps.shape)
    for b, k, y, x in itertools.islice(np.ndindex(pixels.shape), 300):
        assert pixels[b, k, y, x] == float(case.label_maps[b, k, y, x] == case.targets[b, y, x])
    ignored = np.broadcast_to(case.targets[:, None] == 255, pixels.shape)
    assert not pixels[ignored].any()


@every_pixel_reward
@given(data=st.data(), case=cases)
@settings(max_examples=50)
def test_pixel_scores_are_those_of_plain_loops_for_every_option(name: str, data: st.DataObject, case: Case):
    options = data.draw(reward_options(name, case.classes))
    pixels = score_pixels(name, case.label_maps, case.targets, case.classes, **options)
    for b, k in np.ndindex(pixels.shape[:2]):
        expected = np.zeros(pixels.shape[2:])
        for place, value in PIXEL_ORACLES[name](case.label_maps[b, k], case.targets[b], **options).items():
            expected[place] = value
        np.testing.assert_allclose(pixels[b, k], expected, rtol=1e-6)


@every_pixel_reward
@given(case=cases)
def test_the_image_score_is_the_mean_of_the_pixel_scores_over_counted_pixels(name: str, case: Case):
    pixels = score_pixels(name, case.label_maps, case.targets, case.classes).astype(np.float64)
    counted = (case.targets != 255).sum(axis=(1, 2))[:, None]
    expected = pixels.sum(axis=(2, 3)) / np.maximum(counted, 1)
    np.testing.assert_array_equal(score(name, case), expected)


# By name


def test_every_level_has_a_default_that_is_defined_there():
    assert DEFAULT_REWARD.keys() == set(LEVELS)
    for level in LEVELS:
        reward = get_reward(None, level)
        assert reward is REWARDS[DEFAULT_REWARD[level]]
        assert reward.has_level(level)
        assert get_reward(reward.name, level) is reward


def test_unknown_names_and_levels_list_the_valid_ones():
    with pytest.raises(OptionError, match="Unknown reward level 'video'; valid: image, pixel"):
        get_reward("mean_iou", "video")
    with pytest.raises(OptionError, match="Unknown image-level reward 'iou'; valid: mean_iou, frequency_"):
        get_reward("iou", "image")
    with pytest.raises(OptionError, match="Unknown pixel-level reward 'mean_iou'; valid: pixel_accuracy"):
        score_pixels("mean_iou", np.zeros((1, 1, 2, 2), np.uint8), np.zeros((1, 2, 2), np.uint8), 2)
    with pytest.raises(OptionError, match="Unknown image-level reward 'iou'"):
        score_images("iou", np.zeros((1, 1, 2, 2), np.uint8), np.zeros((1, 2, 2), np.uint8), 2)
