"""What the vector env does beyond the single one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import NormalizeReward, RecordEpisodeStatistics

from rss_env import SegmentationEnv, SegmentationVectorEnv
from rss_env.errors import OptionError

MAP = (40, 48)
IMAGES = 16


def make(num_envs: int = 3, mode: str = "SameStep", **options: Any) -> SegmentationVectorEnv:
    options = {"image_size": MAP, "num_images": IMAGES} | options
    return SegmentationVectorEnv(num_envs=num_envs, autoreset_mode=mode, **options)


def random_maps(envs: SegmentationVectorEnv, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 5, envs.action_space.shape)


def shown(envs: SegmentationVectorEnv, episodes: int, **reset: Any) -> np.ndarray:
    """Indices of the next episodes' images, (episodes, B)."""
    first = envs.reset(**reset)[1]["index"]
    return np.stack([first] + [envs.reset()[1]["index"] for _ in range(episodes - 1)])


def copied(value: Any) -> Any:
    """A deep copy that takes object arrays apart."""
    if isinstance(value, dict):
        return {key: copied(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [np.array(inner) for inner in value]
    return np.array(value)


def assert_unchanged(value: Any, before: Any) -> None:
    if isinstance(value, dict):
        assert value.keys() == before.keys()
        for key in value:
            assert_unchanged(value[key], before[key])
    elif isinstance(before, list):
        for inner, kept in zip(value, before, strict=True):
            np.testing.assert_array_equal(inner, kept)
    else:
        np.testing.assert_array_equal(value, before)


# Which images


def test_sequential_order_walks_the_data_set_b_images_a_step():
    envs = make(5, order="sequential")
    indices = [envs.reset()[1]["index"]]
    for _ in range(6):
        indices.append(envs.step(random_maps(envs))[4]["index"])
    np.testing.assert_array_equal(np.concatenate(indices), np.arange(35) % IMAGES)


def test_one_pass_in_sequential_order_shows_every_image_once():
    np.testing.assert_array_equal(shown(make(4, order="sequential"), 4).ravel(), np.arange(IMAGES))


def test_b_seeds_are_those_of_b_single_environments():
    seeds = [71, 5, 900]
    indices = shown(make(), 10, seed=seeds)
    for b, seed in enumerate(seeds):
        env = SegmentationEnv(image_size=MAP, num_images=IMAGES)
        expected = [env.reset(seed=seed)[1]["index"], *(env.reset()[1]["index"] for _ in range(9))]
        assert indices[:, b].tolist() == expected


@pytest.mark.parametrize("seeds", [(4, 5, 6), np.array([4, 5, 6]), [np.int64(4), 5, np.uint8(6)], 4, np.int64(4)])
def test_one_seed_means_that_and_the_following_ones(seeds: Any):
    np.testing.assert_array_equal(shown(make(), 10, seed=seeds), shown(make(), 10, seed=[4, 5, 6]))


def test_no_seed_for_an_environment_lets_its_order_go_on():
    envs = make()
    shown(envs, 3, seed=20)
    mixed = shown(envs, 5, seed=[None, 40, None])
    whole = shown(make(), 8, seed=20)
    np.testing.assert_array_equal(mixed[:, [0, 2]], whole[3:][:, [0, 2]])
    np.testing.assert_array_equal(mixed[:, 1], shown(make(1), 5, seed=40)[:, 0])


def test_environments_never_seeded_differ_from_each_other_and_from_run_to_run():
    # 40 independent draws out of 16 images agree by chance with probability 16**-40
    orders = [tuple(order) for order in (*shown(make(), 40).T, *shown(make(), 40).T)]
    orders += [tuple(order) for order in shown(make(), 40, seed=[0, None, None]).T]
    assert len(set(orders)) == 9


@pytest.mark.parametrize("order", ["random", "sequential"])
@pytest.mark.parametrize("start", [0, 3, 21])
def test_jumping_to_an_episode_is_the_same_as_stepping_there(order: str, start: int):
    walked, jumped = make(order=order, augment="flip"), make(order=order, augment="flip")
    images, infos = walked.reset(seed=6)
    for _ in range(start):
        images, *_, infos = walked.step(random_maps(walked))
    images_again, infos_again = jumped.reset(seed=6, options={"episode": start})
    for _ in range(4):
        np.testing.assert_array_equal(images, images_again)
        np.testing.assert_array_equal(infos["index"], infos_again["index"])
        images, *_, infos = walked.step(random_maps(walked))
        images_again, *_, infos_again = jumped.step(random_maps(jumped))


@pytest.mark.parametrize("index", [7, np.int32(7), [3, 0, 15], np.array([15, 15, 2], np.uint8)])
def test_the_index_option_shows_those_images_unflipped_and_the_order_goes_on_afterwards(index: Any):
    plain = shown(make(augment="flip"), 5, seed=0)
    envs = make(augment="flip", expose_target=True)
    data = envs._task.dataset
    before = shown(envs, 2, seed=0)
    expected = np.broadcast_to(index, 3)
    images, infos = envs.reset(options={"index": index})
    np.testing.assert_array_equal(infos["index"], expected)
    assert infos["index"].dtype == np.int64
    np.testing.assert_array_equal(images, data.images[expected])
    np.testing.assert_array_equal(infos["target"], data.targets[expected])
    np.testing.assert_array_equal(envs.step(data.targets[expected])[1], np.ones(3))
    after = shown(envs, 2)
    np.testing.assert_array_equal(np.concatenate([before, after]), plain[[0, 1, 3, 4]])  # the step began episode 2


def test_flip_mirrors_each_environments_image_and_target_together():
    envs = make(8, augment="flip", expose_target=True)
    data = envs._task.dataset
    mirrored = np.zeros(8, int)
    for episode in range(40):
        images, infos = envs.reset(seed=0) if episode == 0 else envs.reset()
        for b, index in enumerate(infos["index"]):
            step = 1 if np.array_equal(images[b], data.images[index]) else -1
            np.testing.assert_array_equal(images[b], data.images[index][:, ::step])
            np.testing.assert_array_equal(infos["target"][b], data.targets[index][:, ::step])
            mirrored[b] += step == -1
    assert ((mirrored > 0) & (mirrored < 40)).all()  # by chance: 16 · 2**-40


def test_the_mirrored_target_scores_1_in_flipped_episodes():
    envs = make(8, augment="flip", expose_target=True)
    _, infos = envs.reset(seed=0)
    for _ in range(5):
        _, rewards, _, _, infos = envs.step(infos["target"])
        np.testing.assert_array_equal(rewards, np.ones(8))


# What a step returns


def test_every_step_ends_every_episode_and_shows_the_next_images():
    envs = make()
    images, infos = envs.reset(seed=0)
    np.testing.assert_array_equal(images, envs._task.dataset.images[infos["index"]])
    for _ in range(4):
        scored, last = infos["index"], images
        images, rewards, terminations, truncations, infos = envs.step(random_maps(envs))
        assert terminations.dtype == truncations.dtype == bool
        assert terminations.all()
        assert not truncations.any()
        assert (rewards.dtype, rewards.shape) == (np.float64, (3,))
        np.testing.assert_array_equal(images, envs._task.dataset.images[infos["index"]])
        np.testing.assert_array_equal(infos["final_info"]["index"], scored)
        np.testing.assert_array_equal(np.stack(list(infos["final_obs"])), last)


def test_next_step_mode_ignores_the_actions_of_its_resetting_step():
    envs = make(mode="NextStep")
    envs.reset(seed=0)
    _, _, terminations, _, _ = envs.step(random_maps(envs))
    assert terminations.all()
    queries = envs.reward_queries
    images, rewards, terminations, truncations, infos = envs.step(np.full((3, *MAP), -1))
    assert rewards.tolist() == [0, 0, 0]
    assert not terminations.any()
    assert not truncations.any()
    assert envs.reward_queries == queries
    np.testing.assert_array_equal(images, envs._task.dataset.images[infos["index"]])


@pytest.mark.parametrize(("samples", "per_step"), [(None, 3), (1, 3), (4, 12)])
def test_reward_queries_count_the_label_maps_scored(samples: int | None, per_step: int):
    envs = make(samples_per_image=samples)
    envs.reset(seed=0)
    assert envs.reward_queries == 0
    for step in range(1, 4):
        envs.step(random_maps(envs))
        assert envs.reward_queries == step * per_step


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_final_observations_are_read_only_and_share_no_memory_with_observations(augment: str):
    envs = make(augment=augment)
    images, _ = envs.reset(seed=0)
    for _ in range(6):
        before = images
        images, *_, infos = envs.step(random_maps(envs))
        assert (infos["final_obs"].dtype, infos["final_obs"].shape) == (object, (3,))
        for image in infos["final_obs"]:
            assert (image.shape, image.dtype) == ((*MAP, 3), np.uint8)
            assert not image.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                image[0, 0] = 0
            assert not np.shares_memory(image, images)
            assert not np.shares_memory(image, before)


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
@pytest.mark.parametrize("level", ["image", "pixel"])
def test_later_steps_change_nothing_returned_earlier(mode: str, level: str):
    envs = make(mode=mode, level=level, augment="flip", samples_per_image=2, expose_target=True)
    returned, kept = [], []
    for seed in range(5):
        actions = random_maps(envs, seed)
        for outcome in (envs.reset(), envs.step(actions)):
            for part in outcome:
                returned.append(part)
                kept.append(copied(part))
        actions[:] = 0
    envs.reset(seed=0)
    for value, before in zip(returned, kept, strict=True):
        assert_unchanged(value, before)


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
def test_overwriting_what_was_returned_changes_no_later_step(mode: str):
    def overwrite(value: Any) -> None:
        if isinstance(value, dict):
            for inner in value.values():
                overwrite(inner)
        elif value.dtype == object:
            value[:] = None
        else:
            value[:] = 0

    options: dict[str, Any] = {"mode": mode, "level": "pixel", "samples_per_image": 2, "expose_target": True}
    envs, twin = make(**options), make(**options)
    envs.reset(seed=0)
    twin.reset(seed=0)
    for seed in range(5):
        actions = random_maps(envs, seed)
        outcomes = [envs.step(actions), twin.step(actions)]
        if mode == "Disabled":
            outcomes += [envs.reset(), twin.reset()]
        for ours, theirs in zip(*outcomes[:2], strict=True):
            assert_unchanged(ours, copied(theirs))
        for part in (part for outcome in outcomes[::2] for part in outcome):
            overwrite(part)


def test_the_actions_are_not_changed_by_the_step():
    envs = make()
    envs.reset(seed=0)
    actions = random_maps(envs).astype(np.uint8)
    before = actions.copy()
    envs.step(actions)
    np.testing.assert_array_equal(actions, before)


# Resets with a mask, and errors


@pytest.mark.parametrize("options", [{}, {"index": 4}, {"episode": 9}])
def test_in_disabled_mode_the_environments_in_the_mask_alone_begin_anew(options: dict):
    envs = make(mode="Disabled")
    images, _ = envs.reset(seed=0)
    envs.step(random_maps(envs))
    again, infos_again = envs.reset(options={"reset_mask": np.array([False, True, False]), **options})
    np.testing.assert_array_equal(again[[0, 2]], images[[0, 2]])
    assert infos_again["_index"].tolist() == [False, True, False]
    with pytest.raises(ResetNeeded, match=r"reset\(options=\{'reset_mask': finished\}\)"):
        envs.step(random_maps(envs))
    envs.reset(options={"reset_mask": np.array([True, False, True])})
    envs.step(random_maps(envs))
    assert envs.reward_queries == 6


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
def test_stepping_before_the_first_reset_is_an_error(mode: str):
    with pytest.raises(ResetNeeded, match=r"Call reset\(\) before the first step\(\)"):
        make(mode=mode).step(np.zeros((3, *MAP), int))


def test_in_disabled_mode_stepping_after_the_end_is_an_error():
    envs = make(mode="Disabled")
    envs.reset(seed=0)
    envs.step(random_maps(envs))
    with pytest.raises(ResetNeeded, match="An episode has one step"):
        envs.step(random_maps(envs))
    assert envs.reward_queries == 3


@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
def test_a_reset_mask_is_refused_where_step_resets_by_itself(mode: str):
    envs = make(mode=mode)
    envs.reset(seed=0)
    message = rf"'reset_mask': m\}}\) is for autoreset_mode='Disabled'; with autoreset_mode='{mode}'"
    with pytest.raises(OptionError, match=message):
        envs.reset(options={"reset_mask": np.array([True, False, False])})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": [1, 2]}, r"needs one integer or 3, got \[1, 2\]"),
        ({"index": [[1, 2, 3]]}, r"needs one integer or 3, got \[\[1, 2, 3\]\]"),
        ({"index": []}, r"'index'"),
        ({"index": [0, 1, IMAGES]}, r"needs integers from 0 to 15, got \[0, 1, 16\]"),
        ({"index": [0, -1, 1]}, r"needs integers from 0 to 15, got \[0, -1, 1\]"),
        ({"index": 0.0}, r"needs integers from 0 to 15, got 0\.0"),
        ({"index": [True, False, True]}, r"needs integers from 0 to 15"),
        ({"episode": -1}, r"needs an integer from 0 to 2\*\*63 - 1, got -1"),
        ({"episode": [1, 2, 3]}, r"needs an integer from 0 to 2\*\*63 - 1, got \[1, 2, 3\]"),
        ({"seed": 1}, r"Unknown reset option 'seed'; valid: index, episode, images, reset_mask"),
        ({"reset_mask": [1, 0, 1]}, r"needs a bool array of shape \(3,\) with a True in it, got \[1, 0, 1\]"),
        ({"reset_mask": np.ones(2, bool)}, r"needs a bool array of shape \(3,\)"),
        ({"reset_mask": np.zeros(3, bool)}, r"needs a bool array of shape \(3,\) with a True in it"),
        ({"reset_mask": None}, r"needs a bool array of shape \(3,\) with a True in it, got None"),
    ],
)
def test_a_wrong_reset_option_is_an_error_that_changes_nothing(options: dict, message: str):
    envs, twin = make(mode="Disabled"), make(mode="Disabled")
    envs.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(OptionError, match=message):
        envs.reset(seed=1, options=options)
    assert envs.np_random_seed == 0
    np.testing.assert_array_equal(envs.step(random_maps(envs))[1], twin.step(random_maps(twin))[1])
    np.testing.assert_array_equal(shown(envs, 10), shown(twin, 10))


@pytest.mark.parametrize("seed", [[1, 2], [1, 2, 3, 4], []])
def test_the_number_of_seeds_must_be_that_of_the_environments(seed: list[int]):
    with pytest.raises(OptionError, match=f"Expected one seed or 3, got {len(seed)}"):
        make().reset(seed=seed)


@pytest.mark.parametrize("seed", [-1, 1.5, [1, -2, 3], [1, 2.5, 3], "abc", [True, 1, 2], {1: 2}, np.array([1.0, 2, 3])])
def test_a_wrong_seed_is_an_error_that_changes_nothing(seed: Any):
    envs = make()
    envs.reset(seed=0)
    with pytest.raises(OptionError, match="seed must be None or an integer of at least 0, got "):
        envs.reset(seed=seed)
    np.testing.assert_array_equal(shown(envs, 10), shown(make(), 11, seed=0)[1:])


# Gymnasium's wrappers, which are not right in every version that rss_env accepts; docs/versioning.md says which are

GYMNASIUM = tuple(int(number) for number in gym.__version__.split(".")[:2])


def played(envs: VectorEnv, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, Any]]]:
    """Rewards, terminations and infos of random label maps, in every autoreset mode."""
    envs.reset(seed=0)
    for seed in range(steps):
        actions = np.random.default_rng(seed).integers(0, 5, envs.action_space.shape)
        _, rewards, terminated, _, infos = envs.step(actions)
        yield rewards, terminated, infos
        if envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED:
            envs.reset(options={"reset_mask": terminated})


SAME_STEP = pytest.param(
    AutoresetMode.SAME_STEP,
    marks=pytest.mark.xfail(GYMNASIUM < (1, 4), reason="Gymnasium before 1.4 loses these returns", strict=True),
)


@pytest.mark.parametrize("samples", [None, 2])
@pytest.mark.parametrize("mode", [SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_episode_statistics_are_the_rewards_of_single_steps(samples: int | None, mode: AutoresetMode):
    options = {"image_size": MAP, "num_images": IMAGES, "samples_per_image": samples, "autoreset_mode": mode}
    envs = RecordEpisodeStatistics(gym.make_vec("RSS-Shapes-ImageReward-v0", num_envs=3, **options))
    returns: list[float] = []
    for rewards, terminated, infos in played(envs, 5):
        if terminated.any():  # NEXT_STEP has steps that only begin episodes
            assert infos["_episode"].tolist() == [True] * 3
            assert infos["episode"]["r"].tolist() == rewards.tolist()
            assert infos["episode"]["l"].tolist() == [1] * 3
            returns += rewards.tolist()
    assert envs.episode_count == len(returns) == (9 if mode is AutoresetMode.NEXT_STEP else 15)
    assert list(envs.return_queue) == returns
    assert set(envs.length_queue) == {1}


@pytest.mark.xfail(GYMNASIUM == (1, 3), reason="Gymnasium 1.3 stops counting after the first step", strict=True)
def test_normalised_rewards_follow_every_step():
    envs = NormalizeReward(make())
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    seen = [rewards for rewards, _, _ in played(make(), 5)]
    for _ in played(envs, 5):
        pass
    assert envs.return_rms.count == pytest.approx(np.size(seen), abs=1e-3)
    assert envs.return_rms.mean == pytest.approx(np.mean(seen), abs=1e-3)
