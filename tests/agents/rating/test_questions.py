"""What is asked: parts that the policy is in doubt of, each once; whole label maps drawn in cells; parts of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.rating.answers import Answer
from agents.rating.pictures import colours_of, mark, outline, overlay
from agents.rating.questions import SAMPLES, Questions
from agents.rating.regions import superpixels

SIZE = (16, 24)


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *SIZE, 3)).astype(np.uint8)


def asking(belief: torch.Tensor, **options) -> Questions:
    """Questions of a policy with this belief, (n, C, H, W), about n images."""
    names = [f"image {number}" for number in range(len(belief))]
    return Questions(images(len(belief)), names, lambda numbers: belief[torch.from_numpy(numbers)], side=8, **options)


def sure(count: int = 3, classes: int = 2) -> torch.Tensor:
    """All pixels are of class 0, nearly surely."""
    belief = torch.full((count, classes, *SIZE), 0.001)
    belief[:, 0] = 1 - 0.001 * (classes - 1)
    return belief


def test_the_part_in_doubt_is_asked_about() -> None:
    belief = sure(classes=3)
    part = superpixels(images()[2], 8) == 1
    belief[2, :, torch.from_numpy(part)] = torch.tensor([0.2, 0.3, 0.5])[:, None]
    question = asking(belief, kinds=("pair",)).next(7)
    assert (question.image, question.kind, question.chosen, question.updates) == ("image 2", "pair", "active", 7)
    np.testing.assert_array_equal(question.part, part)
    inside = {tuple(np.unique(label_map[part])) for label_map in question.label_maps}
    assert inside == {(2,), (1,)}  # the two likeliest classes
    assert (question.label_maps[:, ~part] == 0).all()
    stars = asking(belief, kinds=("stars",)).next(0)
    assert len(stars.label_maps) == 1
    assert (stars.label_maps[0][part] == 2).all()


def test_a_part_of_two_sure_halves_is_not_in_doubt() -> None:
    belief = sure()
    parts = superpixels(images()[0], 8)
    halves = parts == 0
    halves[: np.argwhere(halves).mean(axis=0).astype(int)[0]] = False
    belief[0, :, torch.from_numpy(halves)] = torch.tensor([0.001, 0.999])[:, None]
    belief[1, :, torch.from_numpy(superpixels(images()[1], 8) == 2)] = torch.tensor([0.8, 0.2])[:, None]
    assert asking(belief).next(0).image == "image 1"


@pytest.mark.parametrize("choice", ["active", "random"])
def test_no_part_is_asked_about_twice_while_there_are_others(choice) -> None:
    questions = asking(sure(1), choice=choice)
    count = superpixels(images()[0], 8).max() + 1
    asked = [questions.next(0) for _ in range(count)]
    assert np.sum([question.part for question in asked], axis=0).max() == 1
    again = asking(sure(1), choice=choice)
    again.replay([Answer(n, question, "ann", {"skip": True}, 1.0, 0.0) for n, question in enumerate(asked[:-1])])
    np.testing.assert_array_equal(again.next(0).part, asked[-1].part)


def test_kinds_come_in_turn_and_checks_are_random() -> None:
    questions = asking(sure(), kinds=("pair", "stars", "ranking"))
    kinds = [questions.next(0) for _ in range(6)]
    assert [question.kind for question in kinds] == ["pair", "stars", "ranking"] * 2
    assert [len(question.label_maps) for question in kinds[:3]] == [2, 1, SAMPLES["ranking"]]
    assert questions.next(0, check=True).chosen == "check"


@pytest.mark.parametrize("kind", ["pair", "stars", "ranking"])
def test_whole_label_maps_share_draws_in_cells(kind) -> None:
    belief = sure()
    belief[1] = 0.5
    question = asking(belief, kinds=(kind,), scope="whole").next(0)
    assert (question.image, question.part) == ("image 1", None)
    assert question.label_maps.shape == (SAMPLES[kind], *SIZE)
    assert question.label_maps.dtype == np.uint8
    changes = (question.label_maps[:, 1:] != question.label_maps[:, :-1]).any(axis=(0, 2))
    assert 1 <= changes.sum() <= 2  # borders of cells of 8 pixels in 16 rows
    assert len({label_map.tobytes() for label_map in question.label_maps}) > 1


def test_parts_follow_colours() -> None:
    image = np.zeros((24, 36, 3), np.uint8)
    image[:, 15:] = (250, 200, 20)
    parts = superpixels(image, 12)
    assert parts.shape == (24, 36)
    assert set(np.unique(parts)) == set(range(parts.max() + 1))
    assert not set(np.unique(parts[:, :15])) & set(np.unique(parts[:, 15:]))
    assert superpixels(image[:5, :3], 12).max() == 0
    flat = superpixels(np.full((24, 36, 3), 7, np.uint8), 12)
    assert flat.max() + 1 == 6


@pytest.mark.parametrize("classes", [2, 8, 21, 150])
def test_every_class_has_a_colour_of_its_own(classes: int) -> None:
    colours = colours_of(classes)
    assert colours.shape == (classes, 3)
    assert len(np.unique(colours, axis=0)) > 0.9 * classes
    label_map = np.arange(24, dtype=np.uint8).reshape(4, 6) % classes
    for drawn in (overlay(label_map, colours, 8), outline(label_map, 8), mark(label_map > 0, 8)):
        assert drawn.startswith(b"\x89PNG")
