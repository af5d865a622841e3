"""What comes of acting on a label map in Crafter: worked out by hand in small worlds, and in scenes of the game."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rss_env.datasets import IGNORE_INDEX, load_dataset
from rss_env.datasets.crafter import SCENES_PER_WORLD, _world
from rss_env.errors import DatasetError, OptionError
from rss_env.evaluation import evaluate
from rss_env.worlds import crafter
from rss_env.worlds.crafter import CLASSES, GOALS, CrafterWorld, possible_goals
from tests.extras import ON_TORCH

ID = "RSS-Crafter-OutcomeReward-v0"
SIDE = 2
LETTERS = dict(zip(".s_~TS*io!CZK", range(len(CLASSES)), strict=True)) | {"@": IGNORE_INDEX}
WORLD = CrafterWorld(SIDE)


def cells(*rows: str) -> np.ndarray:
    """A label map, uint8 (H, W), of one letter a cell; ``@`` is the player, and in a label map ignored."""
    return np.array([[LETTERS[letter] for letter in row] for row in rows], np.uint8).repeat(SIDE, 0).repeat(SIDE, 1)


def outcome(label_map: np.ndarray, world: np.ndarray) -> float:
    return float(WORLD(None, label_map[None, None], world[None])[0, 0])


TREE = cells(
    ".....",
    "@..T.",
    ".....",
)


def test_a_goal_that_is_reached_earns_less_the_more_steps_it_takes():
    [journey] = WORLD.journeys(TREE, TREE)
    assert CLASSES[journey.goal] == "tree"
    assert journey.reached
    assert journey.steps == 4  # two steps, one against the tree, one blow
    assert journey.visited == ((1, 0), (1, 1), (1, 2))
    assert outcome(TREE, TREE) == journey.outcome == 1 - 4 / 16  # of at most 3 + 5 steps


def test_the_mean_is_over_the_goals_that_the_true_world_makes_possible():
    world = cells(
        "..~..",
        "@..T.",
        "!!!!!",
        "CCCCC",  # out of reach
    )
    assert outcome(world, world) == np.mean([1 - 4 / 18, 1 - 4 / 18])
    without_water = np.where(world == CLASSES.index("water"), CLASSES.index("stone"), world)
    assert outcome(without_water, world) == (1 - 4 / 18) / 2


def test_a_cell_has_the_class_of_most_of_its_pixels():
    label_map = TREE.copy()
    label_map[2, 6] = CLASSES.index("water")  # one of the four pixels of the tree
    assert outcome(label_map, TREE) == outcome(TREE, TREE)


@pytest.mark.parametrize("label_map", [
    cells(".....", "@....", "....."),  # no tree is seen
    cells("T....", "@....", "....."),  # one is seen where there is none
    cells(".....", "@~.S.", "....."),
    cells("!!!!!", "@!.T.", "!!!!!"),  # no way is seen
    cells("~~~~~", "~~~~~", "~~~~~"),
])  # fmt: skip
def test_who_is_told_of_no_way_to_the_goal_earns_nothing(label_map: np.ndarray):
    assert outcome(label_map, TREE) == 0


def test_walkable_classes_mean_the_same():
    assert outcome(cells("sss_.", "@s_T.", "....."), TREE) == outcome(TREE, TREE)


def test_who_bumps_into_something_gives_up():
    world = cells(
        ".....",
        "@.ST.",
        ".....",
    )
    label_map = cells(
        "!!!!!",
        "@..T.",
        "!!!!!",
    )
    tree, stone = WORLD.journeys(label_map, world)
    assert (tree.reached, tree.steps, tree.visited, tree.outcome) == (False, 2, ((1, 0), (1, 1)), 0)
    assert stone.way is None
    assert outcome(label_map, world) == 0


def test_another_thing_than_was_seen_is_used_in_vain():
    world = cells(
        "..T..",
        "@.~..",
        ".....",
    )
    water_as_tree = cells(
        ".....",
        "@.T..",
        ".....",
    )
    water, tree = WORLD.journeys(water_as_tree, world)
    assert water.way is None
    assert (tree.reached, tree.steps, tree.outcome) == (False, 3, 0)


@pytest.mark.parametrize("label_map", [cells("@.T"), cells("@~.")])
def test_lava_kills_who_walks_into_it(label_map: np.ndarray):
    world = cells(
        "@!T",
        "...",
        "..~",
    )
    label_map = np.concatenate([label_map, cells("!!!", "!!!")])
    journeys = [journey for journey in WORLD.journeys(label_map, world) if journey.way is not None]
    assert [(j.health, j.reached, j.outcome, j.visited[-1]) for j in journeys] == [(0, False, 0, (0, 1))]


def test_a_zombie_that_hurts_lowers_the_outcome():
    world = cells(
        "!Z!!",
        "@.T!",
        "!!!!",
    )
    [journey] = WORLD.journeys(world, world)
    assert (journey.steps, journey.reached) == (3, True)
    assert journey.health == 7 / 9  # it strikes once, when the player stands below it, and cannot move
    assert outcome(world, world) == 7 / 9 * (1 - 3 / 14)


def test_a_zombie_in_the_way_is_struck_down():
    world = cells(
        "!!!!!",
        "T@ZT!",
        "!!!!!",
    )
    label_map = cells(
        "!!!!!",
        "!@.T!",
        "!!!!!",
    )
    [journey] = WORLD.journeys(label_map, world)
    assert (journey.steps, journey.reached, journey.health) == (5, True, 7 / 9)
    assert journey.outcome == 7 / 9 * (1 - 5 / 16)


@pytest.mark.parametrize("kind", GOALS)
def test_every_goal_can_be_achieved(kind: str):
    world = TREE.copy()
    world[world == CLASSES.index("tree")] = CLASSES.index(kind)
    assert outcome(world, world) == 0.75


@pytest.mark.parametrize("seed", range(12))
def test_in_any_world_the_outcome_is_a_number_from_0_to_1_and_always_the_same(seed: int):
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(3, 9, 2)
    likely = np.where(np.isin(CLASSES, ["grass", "path"]), 8, 1) + 2 * np.isin(CLASSES, ["zombie", "skeleton"])
    world = rng.choice(len(CLASSES), (rows, columns), p=likely / likely.sum()).astype(np.uint8)
    world[rows // 2, columns // 2] = IGNORE_INDEX
    world[rows // 2 - 1, columns // 2] = CLASSES.index("tree")
    maps = np.where(rng.random((30, rows, columns)) < rng.random((30, 1, 1)), rng.integers(0, 13), world)
    maps = np.where(maps == IGNORE_INDEX, 0, maps).astype(np.uint8).repeat(SIDE, 1).repeat(SIDE, 2)
    target = world.repeat(SIDE, 0).repeat(SIDE, 1)
    first = WORLD(None, maps[None], target[None])
    assert (first >= 0).all()
    assert (first <= 1).all()
    crafter._play.cache_clear()
    np.testing.assert_array_equal(WORLD(None, maps[None, ::-1], target[None]), first[:, ::-1])


@pytest.fixture(scope="module")
def scenes() -> Any:
    return load_dataset("Crafter", split="val", num_images=40)


def filled(targets: np.ndarray) -> np.ndarray:
    return np.where(targets == IGNORE_INDEX, 0, targets).astype(np.uint8)


def test_scenes_have_goals_and_the_true_map_earns_nearly_all_of_what_can_be_had(scenes: Any):
    goals = possible_goals(scenes.targets[:, ::8, ::8])
    assert goals.sum(1).min() >= 2
    assert goals.any(0)[: len(GOALS) - 2].all()  # diamonds are rare
    true = scenes.world(None, filled(scenes.targets)[:, None], scenes.targets)[:, 0]
    assert true.min() > 0.5
    assert true.mean() > 0.8
    random = np.random.default_rng(0).integers(0, len(CLASSES), (40, 4, 56, 72), dtype=np.uint8)
    assert scenes.world(None, random, scenes.targets).mean() < 0.1


def test_a_wrong_cell_never_pays_on_average(scenes: Any):
    """Of every scene the same cell is given every class in turn."""
    true = scenes.world(None, filled(scenes.targets)[:, None], scenes.targets).mean()
    rng = np.random.default_rng(0)
    losses = []
    for row, column in rng.permutation(list(np.ndindex(7, 9)))[:12]:
        maps = filled(scenes.targets)[:, None].repeat(len(CLASSES), 1)
        maps[:, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = np.arange(len(CLASSES))[:, None, None]
        losses.append(true - scenes.world(None, maps, scenes.targets).mean())
    assert min(losses) >= 0
    assert max(losses) > 0.001


def test_what_the_target_says_is_what_the_image_shows(scenes: Any):
    """Of a class without creatures every cell has one picture."""
    for name in ("water", "tree", "stone", "lava", "coal"):
        shown = {
            scenes.images[n, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8].tobytes()
            for n, row, column in np.argwhere(scenes.targets[:, ::8, ::8] == CLASSES.index(name))
        }
        assert len(shown) == 1, name
    player = scenes.images[:, 24:32, 32:40]
    assert (scenes.targets[:, 24:32, 32:40] == IGNORE_INDEX).all()
    assert len({cell.tobytes() for cell in player}) <= 3  # on grass, sand or path


def test_larger_cells_show_the_same_scenes():
    small, large = (
        load_dataset("Crafter", split="val", num_images=4, image_size=(7 * side, 9 * side), cell_size=side)
        for side in (8, 16)
    )
    np.testing.assert_array_equal(small.targets, large.targets[:, ::2, ::2])
    scores = [data.world(None, filled(data.targets)[:, None], data.targets) for data in (small, large)]
    np.testing.assert_array_equal(*scores)


def test_no_world_belongs_to_two_splits(scenes: Any):
    worlds = [_world((0, start + number))[0].tobytes() for start in (0, 1 << 30, 1 << 31) for number in range(2)]
    assert len(set(worlds)) == 6
    assert SCENES_PER_WORLD == 16


@pytest.mark.parametrize("form", [{}, ON_TORCH])
def test_the_same_label_map_has_the_same_outcome_on_every_path(form: dict[str, str]):
    options = {"split": "val", "num_images": 40, "augment": "flip"}
    envs = gym.make_vec(ID, num_envs=3, samples_per_image=4, **options, **form)
    _, infos = envs.reset(seed=5)
    singles = [gym.make(ID, **options) for _ in range(3)]
    targets = load_dataset("Crafter", split="val", num_images=40).targets
    for episode in range(8):
        maps = np.random.default_rng(episode).integers(0, 4, (3, 4, 7, 9), dtype=np.uint8)
        maps = maps.repeat(8, 2).repeat(8, 3)
        for b in range(3):  # K label maps: the truth, one with a wrong row, and two of random cells
            target = targets[int(infos["index"][b])]
            maps[b, :2] = filled(target[:, ::-1] if infos["flipped"][b] else target)
            maps[b, 1, :8] = 3
        infos = envs.step(maps)[4]
        scores = np.asarray(infos["final_info"]["scores"])
        for b, single in enumerate(singles):
            alone = []
            for k in range(4):
                single.reset(seed=5 + b, options={"episode": episode})
                alone.append(single.step(maps[b, k])[1])
            assert scores[b].tolist() == alone
        assert scores[:, 0].min() > 0.5


def test_an_agent_is_told_of_no_target_and_of_no_formula():
    env = gym.make(ID, num_images=6)
    assert not env.metadata["has_targets"]
    assert env.metadata["reward"] is None
    target = load_dataset("Crafter", num_images=6).targets[0]
    assert target.tobytes() not in pickle.dumps(env)
    assert gym.make(ID, num_images=6, expose_target=True).metadata["has_targets"]


def test_evaluation_is_by_outcome_and_against_the_true_maps_only_if_asked():
    options = {"num_images": 20, "split": "val"}
    targets = load_dataset("Crafter", **options).targets
    images = load_dataset("Crafter", **options).images

    def predict(shown: np.ndarray) -> np.ndarray:
        return np.stack([filled(targets[next(i for i in range(20) if (images[i] == one).all())]) for one in shown])

    result = evaluate(predict, ID, **options)
    assert set(result.metrics) == {"score"}
    assert result.score > 0.75
    result = evaluate(predict, ID, expose_target=True, score=True, **options)
    assert result.miou == 1
    assert result.score > 0.75


def test_scenes_and_outcomes_stay_what_they_are():
    """What docs/versioning.md promises; a change needs a new version of the id."""
    data: Any = load_dataset("Crafter", split="val", num_images=3)
    assert hashlib.sha256(data.images.tobytes() + data.targets.tobytes()).hexdigest()[:16] == "8e600bc2ce409b8c"
    maps = filled(data.targets)[:, None].repeat(5, 1)
    rows, columns = np.indices((56, 72)) // 8
    for k in range(1, 5):  # more and more cells are wrong
        maps[:, k, (3 * rows + 5 * columns) % 11 < k] = k
    scores = data.world(None, maps, data.targets)
    assert scores.round(6).tolist() == [
        [0.867188, 0.867188, 0.640625, 0.375, 0.234375],
        [0.875, 0.875, 0.875, 0.828125, 0.4375],
        [0.914062, 0.914062, 0.679688, 0.445312, 0.234375],
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": "mean_iou"}, "is the outcome of acting on the label map: leave out reward"),
        ({"reward_options": {"classes": "all"}}, "leave out reward_options"),
        ({"augment": "crop", "crop_size": (24, 24)}, "acted in as a whole: leave out 'crop'"),
    ],
)
def test_arguments_of_a_comparison_with_targets_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        gym.make(ID, **options)
    with pytest.raises(OptionError, match=message):
        gym.make_vec(ID, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (56, 70)}, r"image_size must be multiples of 8 from 24 to 256, got \(56, 70\)"),
        ({"image_size": (16, 72)}, "3 to 32 rows and columns"),
        ({"cell_size": 0}, "cell_size must be an integer of at least 1, got 0"),
        ({"dataset_seed": -1}, "dataset_seed must be"),
        ({"num_images": 0}, "num_images must be"),
        ({"root": "data"}, "is procedural and takes no root"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str):
    with pytest.raises(DatasetError, match=message):
        gym.make(ID, **options)
