from __future__ import annotations

import copy
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from agents import rss
from agents.ops import sample_label_maps
from agents.psr import CellSchedule
from agents.rss import RSS, RSSArguments
from rss_env.errors import OptionError

# Label maps in cells


@pytest.mark.parametrize("side", [2, 3, 16])
def test_tied_label_maps_keep_every_pixels_own_distribution(side: int) -> None:
    # A chi-square test of each of the 35 pixels; a correct sampler fails somewhere once in a million seeds.
    samples, classes = 16_000, 5
    weights = np.random.default_rng(side).gamma(2.0, size=(1, classes, 5, 7))
    weights[:, 2, :, ::2] = 0
    p = weights / weights.sum(axis=1, keepdims=True)
    label_maps = sample_label_maps(torch.from_numpy(p).log(), samples, side, cell=side, offset=(1, 1))[0].numpy()
    for y, x in np.ndindex(5, 7):
        possible = p[0, :, y, x] > 0
        observed = np.bincount(label_maps[:, y, x], minlength=classes)
        assert observed[~possible].sum() == 0
        expected = samples * p[0, possible, y, x]
        assert stats.chisquare(observed[possible], expected / expected.sum() * samples).pvalue > 1e-6 / 35


def test_pixels_of_a_cell_that_agree_in_their_probabilities_take_one_class_together() -> None:
    logits = torch.tensor([0.2, 0.5, 0.3]).log().view(1, 3, 1, 1).repeat(1, 1, 6, 6)
    label_maps = sample_label_maps(logits, 50, 0, cell=3)
    cells = label_maps.unflatten(3, (2, 3)).unflatten(2, (2, 3))  # (1, K, 2, 3, 2, 3)
    assert torch.equal(cells.amin(dim=(3, 5)), cells.amax(dim=(3, 5)))
    assert len(cells.unique()) == 3


@pytest.mark.parametrize("side", [2, 3])
def test_an_offset_shifts_the_grid_up_and_left_and_repeats_with_the_side(side: int) -> None:
    for down, right in np.ndindex(2 * side, 2 * side):
        image = sample_label_maps(torch.zeros(1, 255, 2 * side, 2 * side), 20, 0, cell=side, offset=(down, right))[0]
        rows = (image[:, 1:] != image[:, :-1]).any(dim=2).any(dim=0).nonzero()[:, 0] + 1  # where cells begin
        columns = (image[:, :, 1:] != image[:, :, :-1]).any(dim=1).any(dim=0).nonzero()[:, 0] + 1
        assert rows.tolist() == [y for y in range(1, 2 * side) if (y + down) % side == 0]
        assert columns.tolist() == [x for x in range(1, 2 * side) if (x + right) % side == 0]


@pytest.mark.parametrize("side", [2, 3])
def test_the_agent_draws_every_offset_equally_often_and_every_seed_once(
    side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A chi-square test: correct offsets fail once in a million seeds.
    seeds, found, steps = set(), np.zeros((side, side)), 60 * side**2

    def record(logits: torch.Tensor, samples: int, seed: torch.Tensor, **options: Any) -> None:
        assert options["cell"] == side
        seeds.add(seed.item())
        found[tuple(options["offset"] % side)] += 1
        raise StopIteration  # that is all we want to know

    monkeypatch.setattr(rss, "sample_label_maps", record)
    algorithm, generator = RSS(RSSArguments(cells=(side,))), torch.Generator().manual_seed(side)
    envs: Any = SimpleNamespace(unwrapped=None)
    for _ in range(steps):
        with pytest.raises(StopIteration):
            algorithm.collect(torch.zeros(1, 2, 4, 4), envs, {}, 0.0, generator)
    assert stats.chisquare(found.ravel()).pvalue > 1e-6
    assert len(seeds) == steps


# Schedules


def test_each_side_has_an_equal_share_of_the_training() -> None:
    schedule = CellSchedule((8, 4, 2, 1))
    expected = {0.0: 8, 0.2499: 8, 0.25: 4, 0.4999: 4, 0.5: 2, 0.7499: 2, 0.75: 1, 0.9999: 1, 1.0: 1}
    assert {progress: schedule.side(progress) for progress in expected} == expected
    assert CellSchedule((8, 4, 2, 1)).side(0.6) == 2  # whatever was asked before, as a resumed run asks
    assert [CellSchedule().side(progress) for progress in (0, 0.5, 1)] == [1, 1, 1]


@given(sides=st.lists(st.integers(1, 64), min_size=1, max_size=6), share=st.integers(1, 40))
def test_stages_by_progress_have_equal_numbers_of_steps(sides: list[int], share: int) -> None:
    schedule, steps = CellSchedule(sides), share * len(sides)
    assert [schedule.side(step / steps) for step in range(steps)] == [side for side in sides for _ in range(share)]


def test_rewards_do_not_matter_to_a_schedule_by_progress() -> None:
    schedule = CellSchedule((4, 2, 1), patience=1)
    for reward in range(10):
        assert schedule.side(0.0) == 4
        schedule.observe(-float(reward))


@pytest.mark.parametrize("patience", [1, 3, 100])
@pytest.mark.parametrize("rising", [1, 5])
def test_a_stage_ends_after_patience_updates_without_a_new_best_mean(patience: int, rising: int) -> None:
    schedule = CellSchedule((4, 2, 1), "plateau", patience)
    seen = []
    for _ in range(3):  # the counts begin anew with every stage; the last one has none to go on to
        for update in range(rising + patience):
            seen.append(schedule.side(0.0))
            schedule.observe(float(update) if update < rising else -1000.0 - update)
    assert seen == [side for side in (4, 2, 1) for _ in range(rising + patience)]
    for _ in range(3 * patience):
        schedule.observe(-1e6)
    assert schedule.side(0.0) == 1


def test_a_reward_that_stays_the_same_is_no_improvement() -> None:
    schedule = CellSchedule((2, 1), "plateau", patience=5)
    for _ in range(1 + 5):  # the first one is the best so far
        assert schedule.side(0.0) == 2
        schedule.observe(0.0)
    assert schedule.side(0.0) == 1


def test_a_rising_reward_ends_no_stage_before_its_share_of_the_training() -> None:
    schedule = CellSchedule((4, 2, 1), "plateau", patience=2)
    seen = []
    for step in range(30):
        seen.append(schedule.side(step / 30))
        schedule.observe(float(step))
    assert seen == [4] * 10 + [2] * 10 + [1] * 10


def test_the_mean_of_the_reward_has_a_half_life_of_twenty_updates() -> None:
    # After 1 and twenty times 0 the mean is 1/2. The next reward makes it the best of all if it is above this:
    needed = 0.5 + 0.5 / (1 - 0.5 ** (1 / 20))
    for reward, further in ((needed - 0.01, 1), (needed + 0.01, 22)):  # 21 updates without a new best, or none
        schedule = CellSchedule((2, 1), "plateau", patience=22)
        for seen in (1.0, *[0.0] * 20, reward):
            schedule.observe(seen)
        for _ in range(further):
            assert schedule.side(0.0) == 2
            schedule.observe(-100.0)
        assert schedule.side(0.0) == 1


@settings(deadline=None)
@given(
    rewards=st.lists(st.floats(-1, 1), min_size=1, max_size=60),
    patience=st.integers(1, 6),
    stages=st.integers(1, 5),
    moment=st.integers(0, 59),
)
def test_a_schedule_by_plateau_goes_through_every_stage_in_order_and_continues_from_its_state(
    rewards: list[float], patience: int, stages: int, moment: int
) -> None:
    sides = tuple(2**stage for stage in reversed(range(stages)))
    schedule, steps = CellSchedule(sides, "plateau", patience), max(len(rewards), stages)
    resumed: CellSchedule | None = None
    seen = []
    for step, reward in enumerate(rewards):
        if step == moment:
            resumed = CellSchedule(sides, "plateau", patience)
            resumed.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
        seen.append(schedule.side(step / steps))
        if resumed is not None:
            assert resumed.side(step / steps) == seen[-1]
            resumed.observe(reward)
            assert resumed == schedule_after(schedule, reward)
        schedule.observe(reward)
    numbers = [sides.index(side) for side in seen]
    assert numbers[0] == 0
    assert set(np.diff(numbers)) <= {0, 1}
    assert all(number >= step * stages // steps for step, number in enumerate(numbers))


def schedule_after(schedule: CellSchedule, reward: float) -> CellSchedule:
    after = copy.copy(schedule)
    after.observe(reward)
    return after


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((),), r"from 1 on, got \(\)"),
        (((4, 0),), r"from 1 on, got \(4, 0\)"),
        (((-3,),), r"from 1 on, got \(-3,\)"),
        (((2, 1), "luck"), r"'luck'; valid: progress, plateau"),
        (((2, 1), "plateau", 0), r"at least 1 update, got 0"),
        (((2, 1), "progress", -7), r"at least 1 update, got -7"),
    ],
)
def test_bad_options_of_a_schedule_are_named(arguments: tuple, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        CellSchedule(*arguments)
