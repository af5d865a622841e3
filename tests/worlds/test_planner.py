"""What is planned on hand-made maps, and on random ones by an independent search."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rss_env.worlds.planner import DIRECTIONS, FAR, distances, majority, nearest, way_to

UP, DOWN, LEFT, RIGHT = range(4)


def grid(*rows: str) -> np.ndarray:
    """A map of one letter a cell: ``.`` is walkable, ``#`` is not."""
    return np.array([list(row) for row in rows])


def survey(cells: np.ndarray, start: tuple[int, int], limit: int = 99) -> np.ndarray:
    return distances((cells == ".")[None], np.array([start]), limit)[0]


def test_the_most_frequent_class_of_a_cell_is_its_class_and_of_equals_the_first():
    label_map = np.array([[0, 1, 2, 2, 4, 3], [1, 1, 0, 0, 3, 4]], np.uint8)
    assert majority(label_map[None], 2, 5).tolist() == [[[1, 0, 3]]]


def test_pixels_that_are_ignored_have_no_vote():
    label_map = np.array([[255, 255, 255, 255], [255, 2, 255, 255]], np.uint8)
    assert majority(label_map[None], 2, 3).tolist() == [[[2, 255]]]


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_majorities_are_those_of_a_count_cell_by_cell(side: int, rows: int, columns: int, classes: int, seed: int):
    shape = (2, rows * side, columns * side)
    label_maps = np.random.default_rng(seed).integers(0, classes, shape, dtype=np.uint8)
    found = majority(label_maps, side, classes)
    for n, row, column in np.ndindex(found.shape):
        cell = label_maps[n, row * side : (row + 1) * side, column * side : (column + 1) * side]
        votes = Counter(cell.ravel().tolist())
        assert found[n, row, column] == min(votes, key=lambda label: (-votes[label], label))


def test_ways_lead_around_what_is_not_walkable():
    cells = grid(
        "..#.",
        "..#.",
        "....",
    )
    steps = survey(cells, (0, 0))
    assert steps.tolist() == [[0, 1, 2, 7], [1, 2, 3, 6], [2, 3, 4, 5]]
    assert way_to(3, steps.tolist(), (cells == ".").tolist()) == (RIGHT, DOWN, DOWN, RIGHT, RIGHT, UP, UP)


def test_a_way_leads_into_a_cell_that_is_not_walkable_but_not_through_it():
    cells = grid(".#.")
    assert survey(cells, (0, 0)).tolist() == [[0, 1, FAR]]


def test_the_first_step_leads_out_of_a_cell_whatever_it_is():
    cells = grid("#..")
    steps = survey(cells, (0, 0))
    assert steps.tolist() == [[0, 1, 2]]
    assert way_to(2, steps.tolist(), (cells == ".").tolist()) == (RIGHT, RIGHT)


def test_cells_beyond_the_limit_are_far():
    assert survey(grid("....."), (0, 0), limit=3).tolist() == [[0, 1, 2, 3, FAR]]


def test_the_nearest_of_a_class_is_chosen_and_of_equals_the_first_row_by_row():
    classes = np.array([[[7, 0, 5], [0, 0, 0], [5, 0, 7]]], np.uint8)
    steps = distances(classes == 0, np.array([[1, 1]]), 9)
    assert nearest(classes, steps, (5, 7, 9)).tolist() == [[2, 0, -1]]
    assert nearest(classes, distances(classes == 0, np.array([[2, 1]]), 9), (5, 7)).tolist() == [[6, 8]]


@pytest.mark.parametrize("seed", range(20))
def test_distances_and_ways_are_those_of_an_independent_search(seed: int):
    rng = np.random.default_rng(seed)
    rows, columns, limit = rng.integers(1, 8), rng.integers(1, 8), int(rng.integers(1, 20))
    walkable = rng.random((3, rows, columns)) < 0.6
    starts = np.stack([rng.integers(0, rows, 3), rng.integers(0, columns, 3)], 1)
    found = distances(walkable, starts, limit)
    for n in range(3):
        expected = _search(walkable[n], tuple(starts[n].tolist()), limit)
        assert {cell: int(found[n][cell]) for cell in np.ndindex(rows, columns) if found[n][cell] != FAR} == expected
        for cell, steps in expected.items():
            way = way_to(cell[0] * columns + cell[1], found[n].tolist(), walkable[n].tolist())
            assert len(way) == steps
            place = tuple(starts[n].tolist())
            for number, step in enumerate(way):
                assert number == 0 or walkable[n][place]
                place = place[0] + DIRECTIONS[step][0], place[1] + DIRECTIONS[step][1]
            assert place == cell


def _search(walkable: np.ndarray, start: tuple[int, int], limit: int) -> dict[tuple[int, int], int]:
    """Cell -> steps to it, by a queue."""
    found, waiting = {start: 0}, deque([start])
    while waiting:
        cell = waiting.popleft()
        if (cell != start and not walkable[cell]) or found[cell] == limit:
            continue
        for down, right in DIRECTIONS:
            beside = cell[0] + down, cell[1] + right
            inside = 0 <= beside[0] < walkable.shape[0] and 0 <= beside[1] < walkable.shape[1]
            if inside and beside not in found:
                found[beside] = found[cell] + 1
                waiting.append(beside)
    return found
