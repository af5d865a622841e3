"""The likelihoods of answers against enumeration of every target of a 2×2 image, and their gradients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from agents.rating.agreement import agreements, cohens_kappa, kendalls_tau
from agents.rating.answers import Answer, Question
from agents.rating.belief import RaterModel, expected_answer, log_likelihood, outcomes, pair_probabilities, right

PIXELS = 4
LUCE = RaterModel(lapse=0.0, sharpness=1.0, ties=0.0)


def belief(classes: int, seed: int = 0) -> torch.Tensor:
    logits = torch.randn(classes, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.requires_grad_()


def answer(label_maps: list[list[int]], said: dict, part: list[bool] | None = None, kind: str = "pair") -> Answer:
    maps = np.array(label_maps, np.uint8).reshape(-1, 2, 2)
    mask = None if part is None else np.array(part).reshape(2, 2)
    return Answer(1, Question("q", kind, "image", maps, mask), "ann", said, 1.0, 0.0)


def enumerated_share(p: np.ndarray, label_map: np.ndarray, counted: np.ndarray) -> float:
    """Expected share of the counted pixels that are right, over every target."""
    total = 0.0
    for target in itertools.product(range(len(p)), repeat=PIXELS):
        chance = np.prod([p[c, i] for i, c in enumerate(target)])
        total += chance * (np.array(target) == label_map)[counted].mean()
    return total


@pytest.mark.parametrize("classes", [2, 3])
def test_better_and_worse_are_those_of_every_target(classes: int) -> None:
    model = RaterModel(lapse=0.1, sharpness=2.0, ties=0.3)
    p = belief(classes).softmax(0).detach()
    flat = p.numpy().reshape(classes, PIXELS)
    pairs = np.random.default_rng(0).integers(0, classes, (40, 2, PIXELS))
    for a, b in pairs:
        maps, differ = torch.from_numpy(np.stack([a, b])).reshape(2, 2, 2), a != b
        got = pair_probabilities(right(p, maps), maps, None, model)
        if not differ.any():
            assert got is None
            continue
        assert got is not None
        first, second = (enumerated_share(flat, label_map, differ) for label_map in (a, b))
        tie = 0.3 * first * second + max(0.0, 1 - first - second) ** 2
        expected = np.array([first**2, second**2, tie]) / (first**2 + second**2 + tie) * 0.9 + 0.1 / 3
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9)
        assert got.sum() == pytest.approx(1)


def test_of_one_differing_pixel_better_is_cross_entropy() -> None:
    logits = belief(2)
    log_likelihood(logits.softmax(0), answer([[1, 0, 0, 0], [0, 0, 0, 0]], {"order": [[0], [1]]}), 0.0, LUCE).backward()
    gradient = logits.grad.clone()
    logits.grad = None
    logits.log_softmax(0)[1, 0, 0].backward()
    torch.testing.assert_close(gradient, logits.grad)


SAID = [
    (answer([[1, 1, 0, 0], [0, 1, 1, 0]], {"order": [[0], [1]]}), 0.0),
    (answer([[1, 1, 0, 0], [0, 1, 1, 0]], {"order": [[0, 1]]}, [True, False, True, True]), 0.0),
    (answer([[1, 1, 0, 0], [0, 1, 1, 0], [2, 2, 0, 1]], {"order": [[2], [0, 1]]}, kind="ranking"), 0.0),
    (answer([[1, 1, 0, 0], [0, 1, 1, 0]], {"stars": [4, None]}, kind="stars"), 0.3),
    (answer([[1, 1, 0, 0], [0, 1, 1, 0]], {"stars": [5, 1]}, [False, True, True, False], kind="stars"), -0.5),
]


def written_out(p: np.ndarray, given: Answer, shift: float, model: RaterModel) -> float:
    """The log-likelihood once more, in NumPy, from shares that are enumerated."""
    question = given.question
    maps = question.label_maps.reshape(-1, PIXELS)
    part = np.ones(PIXELS, bool) if question.part is None else question.part.ravel()
    total = 0.0
    if "stars" in given.answer:
        for label_map, star in zip(maps, given.answer["stars"], strict=True):
            if star is None:
                continue
            share = enumerated_share(p, label_map, part)
            place = np.log(share / (1 - share)) + shift
            cuts = [-np.inf, *(np.log(c / (1 - c)) for c in (1 / 8, 3 / 8, 5 / 8, 7 / 8)), np.inf]
            latent = stats.logistic(place, model.blur)
            inside = latent.cdf(cuts[star]) - latent.cdf(cuts[star - 1])
            total += np.log((1 - model.lapse) * inside + model.lapse / 5)
        return total
    groups = {k: number for number, group in enumerate(given.answer["order"]) for k in group}
    for i, j in itertools.combinations(range(len(maps)), 2):
        differ = (maps[i] != maps[j]) & part
        a, b = (enumerated_share(p, maps[k], differ) for k in (i, j))
        a, b, neither = a**model.sharpness, b**model.sharpness, max(0.0, 1 - a - b) ** model.sharpness
        tie = model.ties * np.sqrt(a * b) + neither
        said = a if groups[i] < groups[j] else b if groups[j] < groups[i] else tie
        total += np.log((1 - model.lapse) * said / (a + b + tie) + model.lapse / 3) * 2 / len(maps)
    return total


@pytest.mark.parametrize("number", range(len(SAID)))
def test_likelihoods_and_gradients_are_those_of_enumeration(number: int) -> None:
    given, shift = SAID[number]
    model, logits = RaterModel(), belief(3, number)
    value = log_likelihood(logits.softmax(0), given, shift, model)
    value.backward()

    def of(z: np.ndarray) -> float:
        p = np.exp(z) / np.exp(z).sum(0)
        return written_out(p.reshape(3, PIXELS), given, shift, model)

    z = logits.detach().numpy()
    assert float(value.detach()) == pytest.approx(of(z), rel=1e-9)
    for place in np.ndindex(z.shape):
        step = np.zeros_like(z)
        step[place] = 1e-6
        numeric = (of(z + step) - of(z - step)) / 2e-6
        assert float(logits.grad[place]) == pytest.approx(numeric, rel=1e-5, abs=1e-8)


def test_a_skip_says_nothing_and_stars_of_all_levels_sum_to_one() -> None:
    logits = belief(2).detach()
    assert float(log_likelihood(logits.softmax(0), answer([[1] * 4, [0] * 4], {"skip": True}), 0.0, RaterModel())) == 0
    every = [answer([[1, 0, 0, 1]], {"stars": [star]}, kind="stars") for star in range(1, 6)]
    total = sum(log_likelihood(logits.softmax(0), one, 0.7, RaterModel()).exp() for one in every)
    assert float(total) == pytest.approx(1)


def test_certain_beliefs_have_finite_gradients() -> None:
    for given, shift in SAID:
        logits = torch.full((3, 2, 2), -200.0, requires_grad=True)
        with torch.no_grad():
            logits[0] = 200.0
        log_likelihood(logits.softmax(0), given, shift, RaterModel()).backward()
        assert logits.grad.isfinite().all()


@pytest.mark.parametrize("said", [{"order": [[0], [1]]}, {"order": [[1], [0]]}])
def test_learning_from_one_kind_of_answer_makes_it_the_expected_one(said: dict) -> None:
    given = answer([[1] * 4, [0] * 4], said)
    logits = belief(2)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        (-log_likelihood(logits.softmax(0), given, 0.0, RaterModel())).backward()
        optimiser.step()
    p = logits.softmax(0).detach()
    assert expected_answer(p, given, RaterModel()) is True
    other = answer([[1] * 4, [0] * 4], {"order": said["order"][::-1]})
    assert expected_answer(p, other, RaterModel()) is False
    five = answer([[1 - said["order"][0][0]] * 4], {"stars": [5]}, kind="stars")
    assert expected_answer(p, five, RaterModel()) is True


def test_outcomes_of_an_order() -> None:
    assert outcomes({"order": [[2], [0, 1]]}) == [(2, 0, 1), (1, 0, 2), (1, 1, 2)]
    assert outcomes({"skip": True}) == []


def test_agreement_is_that_of_other_libraries() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        said = rng.integers(1, 4, (30, 2))
        said[:10, 1] = said[:10, 0]
        pairs = [tuple(map(int, pair)) for pair in said]
        assert cohens_kappa(pairs) == pytest.approx(cohen_kappa_score(*said.T))
        orders = [
            tuple(int(np.sign(said[i, r] - said[j, r])) for r in (0, 1))
            for i, j in itertools.combinations(range(30), 2)
        ]
        assert kendalls_tau(orders) == pytest.approx(stats.kendalltau(*said.T).statistic)
    assert cohens_kappa([]) is None
    assert cohens_kappa([(1, 1), (1, 1)]) is None
    assert kendalls_tau([(0, 1)]) is None


def test_agreement_of_stars() -> None:
    question = Question("q", "stars", "image", np.zeros((3, 2, 2), np.uint8))
    both = [
        Answer(1, question, "bob", {"stars": [1, 3, 5]}, 1.0, 0.0),
        Answer(2, question, "ann", {"stars": [2, 3, None]}, 1.0, 0.0),
        Answer(3, question, "eve", {"skip": True}, 1.0, 0.0),
    ]
    (agreement,) = agreements(both)
    assert (agreement.first, agreement.second, agreement.questions) == ("ann", "bob", 1)
    assert (agreement.equal, agreement.tau) == (0.5, 1.0)
