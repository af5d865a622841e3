"""The stream of episodes: uniform, independent, and computed from the episode number alone.

The statistical tests run on fixed keys, so they give the same verdict every time. Each rejects at a level of one in a
million: a correct stream would fail one of them with that probability if the keys were chosen anew.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from rss_env import SegmentationEnv
from rss_env.augmentation import read_augment
from rss_env.episodes import EpisodeStream, check_order, even_choice
from rss_env.errors import OptionError

FALSE_ALARM = 1e-6
keys_of = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5)


def stream_of(keys: list[int], order: str = "random", num_images: int = 10) -> EpisodeStream:
    stream = EpisodeStream(order, num_images, len(keys))
    stream.restart(np.array(keys, np.uint64))
    return stream


def assert_uniform(counts: np.ndarray) -> None:
    expected = counts.sum() / counts.size
    assert expected > 20  # so that the statistic follows its chi-squared law
    assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(FALSE_ALARM, counts.size - 1)


def draws(stream: EpisodeStream, episodes: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 (episodes, B) indices and bool (episodes, B) coins."""
    indices, coins, _ = zip(*(stream.draw() for _ in range(episodes)), strict=True)
    return np.stack(indices), np.stack(coins)


@pytest.mark.parametrize("num_images", [2, 7, 32, 100])
@pytest.mark.parametrize("keys", [range(1000), [2**64 - 1 - b for b in range(1000)], [b << 40 for b in range(1000)]])
def test_random_draws_are_uniform_over_images_and_coins(num_images: int, keys: list[int]):
    indices, coins = draws(stream_of(keys, num_images=num_images), episodes=20)
    assert_uniform(np.bincount(indices.ravel() * 2 + coins.ravel(), minlength=2 * num_images))


@pytest.mark.parametrize("keys", [[0], [12345], [2**64 - 1]])
def test_consecutive_episodes_are_independent(keys: list[int]):
    indices, coins = draws(stream_of(keys, num_images=8), episodes=20_000)
    states = indices[:, 0] * 2 + coins[:, 0]
    for lag in (1, 2, 7):
        assert_uniform(np.bincount(states[:-lag] * 16 + states[lag:], minlength=256))


def test_environments_with_neighbouring_seeds_are_independent():
    envs = [SegmentationEnv(image_size=(8, 8), num_images=8) for _ in range(2)]
    counts = np.zeros((8, 8), int)
    for seed in range(2000):
        left, right = (env.reset(seed=seed + b)[1]["index"] for b, env in enumerate(envs))
        counts[left, right] += 1
    assert_uniform(counts.ravel())


@given(keys=keys_of, num_images=st.integers(1, 2**31), start=st.integers(0, 2**62), order=st.sampled_from(["random"]))
def test_a_jump_gives_what_drawing_up_to_there_gives(keys: list[int], num_images: int, start: int, order: str):
    walked, jumped = stream_of(keys, order, num_images), stream_of(keys, order, num_images)
    walked.jump(start)
    for episode in range(start, start + 4):
        expected = walked.draw()
        jumped.jump(episode)
        for left, right in zip(jumped.draw(), expected, strict=True):
            np.testing.assert_array_equal(left, right)
        assert (expected[0] >= 0).all()
        assert (expected[0] < num_images).all()


@given(keys=keys_of, num_images=st.integers(1, 40))
def test_sequential_environments_walk_the_images_together(keys: list[int], num_images: int):
    indices, _ = draws(stream_of(keys, "sequential", num_images), episodes=9)
    np.testing.assert_array_equal(indices.ravel(), np.arange(9 * len(keys)) % num_images)


@given(keys=keys_of, masks=st.data(), order=st.sampled_from(["random", "sequential"]))
def test_a_mask_lets_the_other_environments_wait(keys: list[int], masks: st.DataObject, order: str):
    whole = draws(stream_of(keys, order), episodes=6)
    stream = stream_of(keys, order)
    begun = np.zeros(len(keys), int)
    for _ in range(6):
        mask = np.array(masks.draw(st.lists(st.booleans(), min_size=len(keys), max_size=len(keys))))
        indices, coins, _ = stream.draw(mask)
        for b in np.flatnonzero(mask):
            assert indices[b] == whole[0][begun[b], b]
            assert coins[b] == whole[1][begun[b], b]
        begun += mask


@given(of=st.integers(1, 5000), part=st.floats(0, 1), more=st.floats(0, 1))
def test_an_even_choice_is_even_and_part_of_a_larger_one(of: int, part: float, more: float):
    images = max(1, round(part * of))
    chosen, larger = even_choice(images, of), even_choice(max(images, round(more * of)), of)
    assert len(chosen) == images
    assert (np.diff(chosen.astype(int)) > 0).all()
    assert chosen[-1] < of
    assert np.isin(chosen, larger).all()
    if images > 1:
        gaps = np.diff(chosen.astype(int))
        assert gaps.max() <= 2 * gaps.min()
        assert max(int(chosen[0]), of - 1 - int(chosen[-1])) <= 2 * gaps.max()


def test_an_even_choice_by_hand():
    assert even_choice(4, 16).tolist() == [0, 4, 8, 12]
    assert even_choice(5, 16).tolist() == [0, 2, 4, 8, 12]
    assert even_choice(3, 10).tolist() == [0, 4, 8]  # 0, 8, 4, 12, 2, ... of which 12 is no image
    assert even_choice(7, 7).tolist() == list(range(7))
    assert even_choice(2, 2**30).tolist() == [0, 2**29]


@pytest.mark.parametrize("order", ["random", "sequential", "epochs"])
@pytest.mark.parametrize("images", [1, 3, 10])
def test_only_an_even_choice_is_shown_until_a_restart(order: str, images: int):
    stream = stream_of([1, 2], order)
    coins_of_all = draws(stream, 30)[1]
    stream.restart(np.array([1, 2], np.uint64))
    stream.show_only(images)
    indices, coins = draws(stream, 30)
    np.testing.assert_array_equal(coins, coins_of_all)
    assert np.unique(indices).tolist() == even_choice(images, 10).tolist()
    if order == "sequential":
        assert indices.ravel().tolist() == np.resize(even_choice(images, 10), 60).tolist()
    if order == "epochs":
        for epoch in indices.ravel()[: 60 // images * images].reshape(-1, images):
            assert sorted(epoch) == even_choice(images, 10).tolist()
    stream.restart(np.array([1, 2], np.uint64))
    assert set(draws(stream, 30)[0].ravel()) == set(range(10))


def test_a_choice_is_drawn_from_evenly():
    stream = stream_of(list(range(1000)), num_images=100)
    stream.show_only(7)
    counts = np.bincount(draws(stream, 20)[0].ravel(), minlength=100)
    assert_uniform(counts[even_choice(7, 100)])


@pytest.mark.parametrize("order", ["random", "sequential"])
def test_a_choice_goes_by_the_mask_or_by_the_first_environment_of_a_common_walk(order: str):
    stream = stream_of([1, 2, 3], order)
    stream.show_only(2, np.array([False, True, False]))
    indices = draws(stream, 50)[0]
    assert set(indices[:, 0]) == set(range(10))
    assert set(indices[:, 1]) == (set(even_choice(2, 10)) if order == "random" else set(range(10)))


def test_restart_and_jump_with_a_mask_leave_the_other_environments_alone():
    stream = stream_of([1, 2, 3])
    stream.draw()
    stream.restart(np.array([7, 8, 9], np.uint64), np.array([True, False, False]))
    stream.jump(5, np.array([False, False, True]))
    assert stream.keys.tolist() == [7, 2, 3]
    assert stream.episodes.tolist() == [0, 1, 5]
    assert (stream.keys.dtype, stream.episodes.dtype) == (np.uint64, np.uint64)


def test_an_environment_depends_on_its_own_key_alone():
    together, _ = draws(stream_of([3, 4, 5]), episodes=20)
    for b, key in enumerate([3, 4, 5]):
        alone, _ = draws(stream_of([key]), episodes=20)
        np.testing.assert_array_equal(together[:, b], alone[:, 0])


def test_the_hash_is_splitmix64():
    # The first outputs of the reference implementation for the state 1234567 (Vigna, splitmix64.c).
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    indices, coins = draws(stream_of([1234567], num_images=2**62), episodes=5)
    assert indices[:, 0].tolist() == [value % 2**62 for value in expected]
    assert coins[:, 0].tolist() == [value >= 2**63 for value in expected]


def test_unknown_orders_and_augmentations_list_the_valid_ones():
    for call in (lambda: check_order("x"), lambda: EpisodeStream("x", 4, 1)):
        with pytest.raises(OptionError, match="Unknown order 'x'; valid: random, sequential, epochs"):
            call()
    with pytest.raises(OptionError, match="Unknown augment 'x'; valid: none, flip"):
        read_augment("x")
