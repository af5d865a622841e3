"""Acting in Crafter: the label map is read, a way to every goal is planned, and the game says what comes of it.

The world that is acted in is what the image shows, rebuilt in the game's own engine; its edge is a wall. Who acts
carries the three pickaxes and the iron sword, so that one blow suffices for every goal.
"""

from __future__ import annotations

import collections
import copy
import functools
import importlib
import random
import zlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from rss_env.datasets.dataset import IGNORE_INDEX
from rss_env.errors import DatasetError
from rss_env.rewards.arrays import Array
from rss_env.worlds.drawing import draw_journeys
from rss_env.worlds.planner import distances, majority, nearest, way_to

CLASSES = (
    "grass",
    "sand",
    "path",
    "water",
    "tree",
    "stone",
    "coal",
    "iron",
    "diamond",
    "lava",
    "cow",
    "zombie",
    "skeleton",
)
PALETTE: np.ndarray = np.array(
    [
        (106, 170, 70),  # grass
        (232, 216, 150),  # sand
        (150, 126, 96),  # path
        (60, 130, 220),  # water
        (20, 92, 40),  # tree
        (128, 128, 128),  # stone
        (30, 30, 34),  # coal
        (220, 150, 110),  # iron
        (225, 240, 255),  # diamond
        (240, 80, 10),  # lava
        (160, 60, 160),  # cow
        (0, 190, 160),  # zombie
        (250, 230, 40),  # skeleton
    ],
    np.uint8,
)
WALKABLE = ("grass", "sand", "path")
CREATURES = {"cow": "grass", "zombie": "grass", "skeleton": "path"}
"""Creature -> what is taken to be under it."""
GOALS = {
    "water": "collect_drink",
    "tree": "collect_wood",
    "stone": "collect_stone",
    "coal": "collect_coal",
    "iron": "collect_iron",
    "diamond": "collect_diamond",
    "cow": "eat_cow",
}
"""Class -> the game's achievement for going there and using it."""
EQUIPMENT = ("wood_pickaxe", "stone_pickaxe", "iron_pickaxe", "iron_sword")
MOVES = ("move_up", "move_down", "move_left", "move_right")  # in the order of DIRECTIONS

GOAL_CLASSES = tuple(CLASSES.index(name) for name in GOALS)
CAN_WALK: np.ndarray = np.array([name in WALKABLE for name in CLASSES] + [False] * (256 - len(CLASSES)))


@functools.cache
def game(module: str) -> ModuleType:
    """A module of the game, such as ``"engine"``.

    Raises:
        DatasetError: the game is not installed.
    """
    try:
        return importlib.import_module(f"crafter.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "crafter":
            raise
        raise DatasetError(
            "The worlds of Crafter are those of the game, which is not installed: pip install 'rss-env[crafter]'."
        ) from None


@dataclass(frozen=True)
class Journey:
    """What came of the plan for one goal.

    Attributes:
        goal: its class.
        way: the plan, numbers of ``DIRECTIONS``; the last step leads into the goal. None where no way was seen.
        visited: the cells (row, column) where the player was, in order.
        steps: steps that the game took.
        health: share of health that is left, 0..1.
        reached: whether the goal was achieved.
        outcome: 0..1.
    """

    goal: int
    way: tuple[int, ...] | None
    visited: tuple[tuple[int, int], ...]
    steps: int
    health: float
    reached: bool
    outcome: float


@dataclass(frozen=True)
class CrafterWorld:
    """Scores label maps by what comes of acting on them; called like a batched reward.

    Args:
        cell_size: side of a cell of the world in pixels.
    """

    cell_size: int
    batched = True

    def __call__(self, images: Array, label_maps: Array, targets: Array) -> np.ndarray:
        """The outcome of label maps: the mean over the goals that can be reached in the true world.

        Args:
            images: are not looked at.
            label_maps: uint8 (B, K, H, W), arrays or tensors.
            targets: uint8 (B, H, W), the true worlds.

        Returns:
            float64 (B, K) in [0, 1].
        """
        maps, truth = _on_host(label_maps), _on_host(targets)
        batch, samples = maps.shape[:2]
        worlds = self._cells(truth)
        starts = np.stack([_start(world) for world in worlds])
        possible = possible_goals(worlds)
        flat = maps.reshape(-1, *maps.shape[2:])
        plans = self._plans(flat, starts.repeat(samples, 0), possible.repeat(samples, 0))
        outcomes = np.zeros((batch, samples))
        for b, world in enumerate(worlds):
            cells, shape = world.tobytes(), world.shape
            for k in range(samples):
                ways = enumerate(plans[b * samples + k])
                outcomes[b, k] = sum(_play(cells, shape, g, way).outcome for g, way in ways if way is not None)
        return outcomes / possible.sum(1, keepdims=True)

    def journeys(self, label_map: np.ndarray, target: np.ndarray) -> list[Journey]:
        """What comes of one label map, goal by goal, of the goals that can be reached in the true world.

        Args:
            label_map: uint8 (H, W).
            target: uint8 (H, W), the true world.
        """
        world = self._cells(target[None])[0]
        start = _start(world)
        possible = possible_goals(world[None])
        ways = self._plans(label_map[None], start[None], possible)[0]
        return [
            Journey(GOAL_CLASSES[g], None, (tuple(start.tolist()),), 0, 1.0, False, 0.0)
            if (way := ways[g]) is None
            else _play(world.tobytes(), world.shape, int(g), way)
            for g in np.flatnonzero(possible[0])
        ]

    def draw(self, image: np.ndarray, label_map: np.ndarray, target: np.ndarray, scale: int) -> np.ndarray:
        """The ways that were planned and gone, over the image, and the outcome, uint8 (scale · H, scale · W, 3).

        Args:
            image: uint8 (H, W, 3).
            label_map: uint8 (H, W).
            target: uint8 (H, W), the true world.
            scale: how much larger than the image the picture is.
        """
        journeys = self.journeys(label_map, target)
        tried = [journey for journey in journeys if journey.way is not None]
        return draw_journeys(
            image,
            [journey.way or () for journey in tried],
            [journey.visited for journey in tried],
            [journey.reached for journey in tried],
            PALETTE[[journey.goal for journey in tried]],
            self.cell_size,
            scale,
            f"{sum(journey.outcome for journey in journeys) / len(journeys):.2f}",
        )

    def _cells(self, targets: np.ndarray) -> np.ndarray:
        """The class of every cell, uint8 (B, rows, columns), of targets; 255 is the player."""
        return np.ascontiguousarray(targets[:, :: self.cell_size, :: self.cell_size])

    def _plans(
        self, label_maps: np.ndarray, starts: np.ndarray, goals: np.ndarray
    ) -> list[list[tuple[int, ...] | None]]:
        """The way to each goal, None where none is seen or asked for.

        Args:
            label_maps: uint8 (N, H, W).
            starts: int (N, 2), row and column of the player.
            goals: bool (N, G), the goals that are asked for.
        """
        classes = majority(label_maps, self.cell_size, len(CLASSES))
        classes[np.arange(len(classes)), starts[:, 0], starts[:, 1]] = IGNORE_INDEX  # where one stands one sees nothing
        walkable, steps = _survey(classes, starts)
        cells = np.where(goals, nearest(classes, steps, GOAL_CLASSES), -1).tolist()
        return [
            [None if cell < 0 else way_to(cell, far, free) for cell in wanted]
            for wanted, far, free in zip(cells, steps.tolist(), walkable.tolist(), strict=True)
        ]


def longest(rows: int, columns: int) -> int:
    """The most steps that a goal may take."""
    return rows + columns


def _on_host(array: Array) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def _start(world: np.ndarray) -> np.ndarray:
    """Row and column of the player in a world, uint8 (rows, columns)."""
    return np.argwhere(world == IGNORE_INDEX)[0]


def _survey(classes: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which cells are walkable and how far each is, of classes (N, rows, columns)."""
    walkable = CAN_WALK[classes]
    # The last of the steps is the blow, so a way is one step shorter.
    return walkable, distances(walkable, starts, longest(*classes.shape[1:]) - 1)


def possible_goals(worlds: np.ndarray) -> np.ndarray:
    """Which goals can be reached in true worlds, bool (B, G), of cells, uint8 (B, rows, columns); 255 is the player."""
    starts = np.stack([_start(world) for world in worlds])
    _, steps = _survey(worlds, starts)
    return nearest(worlds, steps, GOAL_CLASSES) >= 0


@functools.lru_cache(maxsize=1 << 14)
def _play(cells: bytes, shape: tuple[int, int], goal: int, way: tuple[int, ...]) -> Journey:
    """Carries out the plan for a goal, the number of one of ``GOALS``."""
    most = longest(*shape)
    world, player = rebuild(cells, shape)
    whole, achievement = player.health, tuple(GOALS.values())[goal]
    cow, enemies = game("objects").Cow, (game("objects").Zombie, game("objects").Skeleton)
    visited, steps = [_place(player)], 0

    def act(action: str) -> bool:
        """One step of the game, in which cows stand still; whether the player is somewhere else after it."""
        nonlocal steps
        steps += 1
        player.action = action
        for thing in world.objects:
            if not isinstance(thing, cow):
                thing.update()
        place = _place(player)
        if place == visited[-1]:
            return False
        visited.append(place)
        return True

    *walk, into = way
    at = 0
    while at < len(walk) and steps < most and player.health > 0:
        if act(MOVES[walk[at]]):
            at += 1
        elif steps < most and isinstance(world[player.pos + np.array(player.facing)][1], enemies):
            act("do")  # strikes down who stands in the way
        else:
            break
    if at == len(walk) and steps + 2 <= most and player.health > 0 and not act(MOVES[into]) and player.health > 0:
        act("do")
    reached = player.achievements[achievement] > 0
    health = player.health / whole
    outcome = health * (1 - steps / (2 * most)) if reached else 0.0
    return Journey(GOAL_CLASSES[goal], way, tuple(visited), steps, health, reached, outcome)


class Dice(random.Random):
    """What the game asks of its random generator, with the same numbers in every version of NumPy."""

    def randint(self, low: int, high: int) -> int:
        """An integer from ``low`` to ``high - 1``."""
        return low + int((high - low) * self.random())

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number from ``low`` to ``high``."""
        return low + (high - low) * self.random()


def rebuild(cells: bytes, shape: tuple[int, int]) -> tuple[Any, Any]:
    """The world of the game that cells show, with its own random generator, which the cells seed, and its player.

    Args:
        cells: uint8, the classes row by row; 255 is the player.
        shape: rows and columns.

    Returns:
        The game's ``World`` and ``Player``.
    """
    objects = game("objects")
    template, (x, y), creatures = _template(cells, shape)
    world = copy.copy(template)  # not deep: what does not change is shared
    world._mat_map, world._obj_map = template._mat_map.copy(), template._obj_map.copy()
    world._chunks, world._objects = collections.defaultdict(set), [None]
    world.random = Dice(zlib.crc32(cells))
    player = objects.Player(world, (x, y))
    player.inventory.update(dict.fromkeys(EQUIPMENT, 1))
    world.add(player)
    for kind, place in creatures:
        world.add(getattr(objects, kind)(world, place, *(() if kind == "Cow" else (player,))))
    return world, player


@functools.lru_cache(maxsize=1 << 12)
def _template(cells: bytes, shape: tuple[int, int]) -> tuple[Any, tuple[int, int], list[tuple[str, tuple[int, int]]]]:
    """A world without anybody in it; where the player is, as (x, y); and each creature's kind and place."""
    constants = game("constants")
    grid = np.frombuffer(cells, np.uint8).reshape(shape)
    rows, columns = shape
    world = game("engine").World((columns, rows), constants.materials, (columns, rows))
    numbers = np.full(256, world._mat_ids["grass"], np.uint8)
    numbers[: len(CLASSES)] = [world._mat_ids[CREATURES.get(name, name)] for name in CLASSES]
    world._mat_map[:] = numbers[grid.T]
    row, column = _start(grid).tolist()
    creatures = [
        (name.capitalize(), (int(x), int(y))) for name in CREATURES for y, x in np.argwhere(grid == CLASSES.index(name))
    ]
    return world, (column, row), creatures


def _place(thing: Any) -> tuple[int, int]:
    """Row and column of a thing of the game."""
    x, y = thing.pos
    return int(y), int(x)
