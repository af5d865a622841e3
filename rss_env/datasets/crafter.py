"""Crafter: worlds of a sandbox game, where a label map is scored by what comes of acting on it.

Scenes of the game Crafter, cut from worlds that its own generator makes and drawn with its own textures: a part of the
map with the player in its middle. There is no true label map in the reward: a planner believes the label map, looks for
the shortest way to the nearest water, tree, stone, coal, iron, diamond and cow in it, and the game says what comes of
each plan. See *Worlds* in the documentation. What every pixel really is exists for evaluation
(``expose_target=True``); the player's own cell is ignored.
"""

from __future__ import annotations

import functools
import importlib.metadata

import numpy as np

from rss_env.arguments import is_count, is_integer
from rss_env.datasets.cache import drawn_pairs
from rss_env.datasets.dataset import IGNORE_INDEX, SegmentationDataset, check_split
from rss_env.datasets.info import DatasetInfo
from rss_env.errors import DatasetError
from rss_env.worlds.crafter import CLASSES, PALETTE, WALKABLE, CrafterWorld, game, possible_goals

GENERATOR = 1  # to be raised by every change of what is drawn: cached images of another generator are not read
AREA = 64  # cells on each side of a world, as in the game
SCENES_PER_WORLD = 16
LEAST_GOALS = 2  # in a scene, where a world has as many
SPLIT_SIZES = {"train": 1024, "val": 128, "test": 256}
# Every split owns its own range of worlds, so no world belongs to two of them.
SPLIT_STARTS = {"train": 0, "val": 1 << 30, "test": 1 << 31}


def load(
    split: str,
    image_size: tuple[int, int],
    *,
    cell_size: int = 8,
    dataset_seed: int = 0,
    num_images: int | None = None,
) -> SegmentationDataset:
    """Draws one split of scenes, once: they are kept in the decoded cache.

    Scene ``i`` of a split depends only on ``(dataset_seed, split, i)`` and the options. Sixteen scenes come from one
    world; no world belongs to two splits. Where the cache cannot be written, a warning is logged and the scenes are
    drawn into memory.

    Args:
        split: ``"train"`` (1,024 scenes), ``"val"`` (128) or ``"test"`` (256).
        image_size: (H, W) in pixels, multiples of ``cell_size``: what is seen has H / ``cell_size`` rows of cells, 3 to
            32, and W / ``cell_size`` columns.
        cell_size: side of a cell of the world in pixels.
        dataset_seed: seed of the worlds, at least 0.
        num_images: how many scenes of the split to draw instead of its full size.

    Returns:
        A data set of uint8 images (n, H, W, 3) and targets (n, H, W), read-only, and the world that scores label maps.

    Raises:
        DatasetError: an option is out of range, or the game is not installed.
    """
    check_split("Crafter", split, SPLIT_SIZES)
    if not is_count(cell_size):
        raise DatasetError(f"cell_size must be an integer of at least 1, got {cell_size!r}.")
    if any(side % cell_size or not 3 <= side // cell_size <= AREA // 2 for side in image_size):
        raise DatasetError(
            f"Crafter shows 3 to {AREA // 2} rows and columns of cells of {cell_size}×{cell_size} pixels: image_size "
            f"must be multiples of {cell_size} from {3 * cell_size} to {AREA // 2 * cell_size}, got {image_size}. "
            "Change it or cell_size."
        )
    if not is_integer(dataset_seed) or dataset_seed < 0:
        raise DatasetError(f"dataset_seed must be an integer of at least 0, got {dataset_seed!r}.")
    count = SPLIT_SIZES[split] if num_images is None else num_images
    if not is_count(count) or count > 1 << 30:
        raise DatasetError(f"num_images must be an integer between 1 and 2**30, got {num_images!r}.")
    shape = image_size[0] // int(cell_size), image_size[1] // int(cell_size)
    game("engine")  # says so if it is missing, whatever the cache holds: label maps are played out in it

    def draw(i: int) -> tuple[np.ndarray, np.ndarray]:
        number, scene = divmod(i, SCENES_PER_WORLD)
        return draw_scene((int(dataset_seed), SPLIT_STARTS[split] + number), scene, shape, int(cell_size))

    ingredients = {
        "generator": GENERATOR,
        "numpy": np.__version__,  # its random streams may change with the version, and so may the game
        "game": {name: importlib.metadata.version(name) for name in ("crafter", "opensimplex")},
        "start": SPLIT_STARTS[split],
        "cell_size": int(cell_size),
        "dataset_seed": int(dataset_seed),
    }
    images, targets = drawn_pairs("Crafter", split, ingredients, draw, int(count), image_size, takes="a minute")
    return SegmentationDataset(
        name="Crafter",
        split=split,
        images=images,
        targets=targets,
        ids=tuple(f"{split}-{i:06d}" for i in range(count)),
        class_names=CLASSES,
        palette=PALETTE,
        world=CrafterWorld(int(cell_size)),
    )


def draw_scene(
    seed: tuple[int, int], scene: int, shape: tuple[int, int], cell_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one scene of a world.

    Args:
        seed: of the world.
        scene: which of its scenes.
        shape: rows and columns of cells.
        cell_size: pixels a side.

    Returns:
        The image, uint8 (H, W, 3), and its target, uint8 (H, W), where the player is ignored.
    """
    engine, objects, constants = game("engine"), game("objects"), game("constants")
    (rows, columns), (materials, creatures) = shape, _world(seed)
    places = _places(seed, shape)
    top, left = places[scene % len(places)]
    window = slice(top, top + rows), slice(left, left + columns)
    world = engine.World((columns, rows), constants.materials, (columns, rows))
    world.daylight = 1.0
    world._mat_map[:] = materials[window].T
    player = objects.Player(world, (columns // 2, rows // 2))
    world.add(player)
    cells = _classes(materials[window], creatures[window])
    for row, column in np.argwhere(creatures[window]):
        kind = CLASSES[cells[row, column]]
        owned = () if kind == "cow" else (player,)
        world.add(getattr(objects, kind.capitalize())(world, (column, row), *owned))
    view = engine.LocalView(world, _textures(), (columns, rows))
    image = view(player, np.array((cell_size, cell_size))).astype(np.uint8).swapaxes(0, 1)
    cells[rows // 2, columns // 2] = IGNORE_INDEX
    return image, cells.repeat(cell_size, 0).repeat(cell_size, 1)


@functools.lru_cache(maxsize=64)
def _world(seed: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A world of the game: number of the material, and class of the creature or 0, of each cell; (rows, columns)."""
    engine, objects, constants = game("engine"), game("objects"), game("constants")
    world = engine.World((AREA, AREA), constants.materials, (12, 12))
    world.reset(seed=int(np.random.SeedSequence(seed).generate_state(1)[0]))
    player = objects.Player(world, (AREA // 2, AREA // 2))
    game("worldgen").generate_world(world, player)
    creatures: np.ndarray = np.zeros((AREA, AREA), np.uint8)
    for thing in world.objects:
        creatures[thing.pos[1], thing.pos[0]] = CLASSES.index(type(thing).__name__.lower())
    return world._mat_map.T.copy(), creatures


def _classes(materials: np.ndarray, creatures: np.ndarray) -> np.ndarray:
    """The class of each cell, uint8, like both arguments of the shape (rows, columns)."""
    names = [None, *game("constants").materials]
    numbers: np.ndarray = np.array([CLASSES.index(name) if name in CLASSES else IGNORE_INDEX for name in names])
    return np.where(creatures > 0, creatures, numbers[materials]).astype(np.uint8)


@functools.lru_cache(maxsize=64)
def _places(seed: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Top left cells of the windows where scenes are, in the order of the scenes; int64 (n, 2)."""
    cells = _classes(*_world(seed))
    rows, columns = shape
    tops, lefts = np.meshgrid(*(np.arange(AREA - side + 1) for side in shape), indexing="ij")
    corners = np.stack([tops.ravel(), lefts.ravel()], 1)
    standing = cells[corners[:, 0] + rows // 2, corners[:, 1] + columns // 2]
    corners = corners[np.isin(standing, [CLASSES.index(name) for name in WALKABLE])]
    windows = np.lib.stride_tricks.sliding_window_view(cells, shape)[corners[:, 0], corners[:, 1]].copy()
    windows[:, rows // 2, columns // 2] = IGNORE_INDEX
    goals = possible_goals(windows).sum(1)
    if not goals.any():
        raise DatasetError(f"No scene of {rows}×{columns} cells has a goal that can be reached; choose larger images.")
    chosen = corners[goals >= min(LEAST_GOALS, goals.max())]
    return np.random.default_rng(seed).permutation(chosen)


@functools.cache
def _textures() -> object:
    return game("engine").Textures(game("constants").root / "assets")


INFO = DatasetInfo(
    title="Crafter",
    homepage="https://github.com/danijar/crafter",
    citation='Hafner, "Benchmarking the Spectrum of Agent Capabilities", ICLR 2022',
    licence="MIT, that of the game, whose textures the images are drawn with.",
    class_names=CLASSES,
    palette=PALETTE,
    splits=SPLIT_SIZES,
    ignore="the cell of the player",
)
