"""What somebody plans who believes a label map: the shortest way to the nearest place of every kind.

The planner knows the grid of the world and where it stands, and nothing else but the label map. It is deterministic
and works in whole numbers, so that the same label map means the same plans everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""Steps up, down, left and right as (row, column)."""
FAR = 255
"""Stands for a cell that cannot be reached."""


def majority(label_maps: np.ndarray, cell_size: int, num_classes: int) -> np.ndarray:
    """The most frequent class in every cell of a grid; of classes that are equally frequent, the first.

    Args:
        label_maps: uint8 (N, H, W), classes or 255, which does not vote.
        cell_size: side of a cell in pixels, a divisor of H and W.
        num_classes: C.

    Returns:
        uint8 (N, H / cell_size, W / cell_size); 255 where nothing votes.

    Example:
        >>> majority(np.array([[[0, 1, 2, 2], [1, 1, 2, 0]]], np.uint8), 2, 3)
        array([[[1, 2]]], dtype=uint8)
    """
    count, height, width = label_maps.shape
    rows, columns = height // cell_size, width // cell_size
    blocks = label_maps.reshape(count, rows, cell_size, columns, cell_size)
    cells = np.arange(count * rows * columns).reshape(count, rows, 1, columns, 1) * (num_classes + 1)
    # The last of the C + 1 bins collects what does not vote.
    votes = np.bincount((cells + np.minimum(blocks, num_classes)).ravel(), minlength=cells.size * (num_classes + 1))
    votes = votes.reshape(count, rows, columns, num_classes + 1)[..., :-1]
    return np.where(votes.any(-1), votes.argmax(-1), 255).astype(np.uint8)


def distances(walkable: np.ndarray, starts: np.ndarray, limit: int) -> np.ndarray:
    """Steps from the start to every cell, by breadth-first search over walkable cells.

    A cell that is not walkable has the distance of a step into it from a walkable one: nothing leads on from there.

    Args:
        walkable: bool (N, rows, columns).
        starts: int (N, 2), row and column of the start, from which a step leads on in any case.
        limit: the most steps, less than ``FAR``.

    Returns:
        uint8 (N, rows, columns); ``FAR`` for cells beyond the limit.

    Example:
        >>> distances(np.array([[[True, False, True]]]), np.array([[0, 0]]), limit=9)
        array([[[  0,   1, 255]]], dtype=uint8)
    """
    count, rows, columns = walkable.shape
    found = np.full((count, rows + 2, columns + 2), FAR, np.uint8)  # with a border, which is reached and left aside
    inner = found[:, 1:-1, 1:-1]
    frontier = np.zeros((count, rows + 2, columns + 2), bool)
    frontier[np.arange(count), starts[:, 0] + 1, starts[:, 1] + 1] = True
    found[frontier] = 0
    for step in range(1, limit + 1):
        reached = frontier[:, :-2, 1:-1] | frontier[:, 2:, 1:-1] | frontier[:, 1:-1, :-2] | frontier[:, 1:-1, 2:]
        reached &= inner == FAR
        if not reached.any():
            break
        inner[reached] = step
        frontier[:, 1:-1, 1:-1] = reached & walkable
    return inner


def nearest(classes: np.ndarray, steps: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
    """The nearest cell of every wanted class; of cells that are equally near, the first row by row.

    Args:
        classes: uint8 (N, rows, columns).
        steps: uint8 (N, rows, columns), as ``distances`` gives them.
        wanted: G classes.

    Returns:
        int64 (N, G), number of the cell row by row; -1 where none is reached.
    """
    count = len(classes)
    flat, far = classes.reshape(count, 1, -1), steps.reshape(count, 1, -1)
    wanted_steps = np.where(flat == np.array(wanted, np.uint8)[:, None], far, FAR)  # (N, G, cells)
    cells = wanted_steps.argmin(-1)
    reached = np.take_along_axis(wanted_steps, cells[..., None], -1)[..., 0] < FAR
    return np.where(reached, cells, -1)


def way_to(cell: int, steps: Sequence[Sequence[int]], walkable: Sequence[Sequence[bool]]) -> tuple[int, ...]:
    """A shortest way from the start to a cell that is reached; seen from the cell, directions are tried in order.

    Args:
        cell: number of the cell, row by row.
        steps: of every cell, rows of columns, as ``distances`` gives them.
        walkable: which cells are walkable, likewise.

    Returns:
        Numbers of ``DIRECTIONS``, one a step; the last one leads into the cell.

    Example:
        >>> walkable = np.array([[True, True], [False, True]])
        >>> way_to(2, distances(walkable[None], np.array([[0, 1]]), 9)[0].tolist(), walkable.tolist())
        (2, 1)
    """
    rows, columns = len(steps), len(steps[0])
    row, column = divmod(cell, columns)
    way: list[int] = []
    while steps[row][column]:
        for number, (down, right) in enumerate(DIRECTIONS):
            y, x = row - down, column - right
            if not (0 <= y < rows and 0 <= x < columns):
                continue
            if steps[y][x] == steps[row][column] - 1 and (walkable[y][x] or not steps[y][x]):
                way.append(number)
                row, column = y, x
                break
    return tuple(reversed(way))
