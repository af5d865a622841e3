from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from agents import rss
from agents.ops import sample_label_maps, torch_ops
from agents.plugins import CellSchedule, leave_one_out
from agents.rss import RSS
from rss_env.errors import OptionError
from tests.agents.plugins.two_pixels import (
    asymmetry,
    draw_problem,
    enumerate_sets,
    expected_score_gradient,
    expected_step,
    look_up,
    map_probabilities,
)

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
    algorithm, generator = RSS(cells=(side,)), torch.Generator().manual_seed(side)
    for _ in range(steps):
        with pytest.raises(StopIteration):
            algorithm.act(torch.zeros(1, 2, 4, 4), 0.0, generator)
    assert stats.chisquare(found.ravel()).pvalue > 1e-6
    assert len(seeds) == steps


# Schedules


def test_each_side_has_an_equal_share_of_the_training() -> None:
    schedule = CellSchedule((8, 4, 2, 1))
    expected = {0.0: 8, 0.2499: 8, 0.25: 4, 0.4999: 4, 0.5: 2, 0.7499: 2, 0.75: 1, 0.9999: 1, 1.0: 1}
    assert {progress: schedule.side(progress) for progress in expected} == expected
    assert [CellSchedule().side(progress) for progress in (0, 0.5, 1)] == [1, 1, 1]


@given(sides=st.lists(st.integers(1, 64), min_size=1, max_size=6), share=st.integers(1, 40))
def test_stages_by_progress_have_equal_numbers_of_steps(sides: list[int], share: int) -> None:
    schedule, steps = CellSchedule(sides), share * len(sides)
    assert [schedule.side(step / steps) for step in range(steps)] == [side for side in sides for _ in range(share)]


@pytest.mark.parametrize(
    ("sides", "message"),
    [((), r"from 1 on, got \(\)"), ((4, 0), r"from 1 on, got \(4, 0\)"), ((-3,), r"from 1 on, got \(-3,\)")],
)
def test_sides_that_are_none_or_not_positive_are_an_error(sides: tuple[int, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        CellSchedule(sides)


# What the expected step is, by enumeration


def tied_law(logits: torch.Tensor) -> torch.Tensor:
    """P(a) of the nine label maps when both pixels share one number: the part of [0, 1) that gives both classes."""
    p = logits.softmax(dim=1)[0, :, 0]  # (C, 2)
    ends = p.cumsum(dim=0)
    first = torch.maximum((ends - p)[:, None, 0], (ends - p)[None, :, 1])
    last = torch.minimum(ends[:, None, 0], ends[None, :, 1])
    return (last - first).clamp(min=0).flatten()


def field(logits: torch.Tensor, scores: torch.Tensor, law: torch.Tensor) -> torch.Tensor:
    """Σ_a P(a) R(a) ∇ Σ_i log p_i(a_i) of label maps that follow this law, (9,)."""
    logits = logits.detach().requires_grad_()
    return torch.autograd.grad((law * scores * map_probabilities(logits).log()).sum(), logits)[0]


def draw_tied(logits: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, torch.Tensor]:
    """All that ``sample_label_maps`` can draw in a cell of both pixels, (M, 1, 2), and the probabilities (M,)."""
    inner = logits.softmax(dim=1)[0, :, 0].cumsum(dim=0)[:-1].flatten()
    bounds = torch.cat([inner.new_zeros(1), inner.sort().values, inner.new_ones(1)])
    numbers = (bounds[1:] + bounds[:-1]) / 2  # one for all that give the same label map

    def give(shape: tuple[int, ...], seed: torch.Tensor, cell: int, *_: Any) -> torch.Tensor:
        assert cell == 2
        return numbers.view(1, -1, 1, 1).expand(shape)

    with monkeypatch.context() as patch:
        patch.setattr(torch_ops, "uniforms", give)  # of the reference, which float64 logits are left to
        return sample_label_maps(logits, len(numbers), 0, cell=2)[0], bounds.diff()


def tied_step(
    logits: torch.Tensor, scores: torch.Tensor, samples: int, monkeypatch: pytest.MonkeyPatch
) -> torch.Tensor:
    """The expected step with tied draws: of one sample by its score, of several by leave-one-out."""
    drawn, law = draw_tied(logits, monkeypatch)
    chosen, probabilities = enumerate_sets(law, samples)
    label_maps = drawn[chosen]
    rewards = look_up(label_maps, scores)
    advantages = leave_one_out(rewards) if samples > 1 else rewards
    return expected_step(logits, label_maps, advantages[:, :, None, None], probabilities)


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_expected_step_with_tied_draws_is_the_stated_field_with_leave_one_out_too(
    seed: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, scores = draw_problem(seed)
    step = tied_step(logits, scores, samples, monkeypatch)
    torch.testing.assert_close(step, field(logits, scores, tied_law(logits)), rtol=0, atol=1e-15)
    # With independent draws the same field is the gradient of the expected score; with tied ones it is another.
    exact = expected_score_gradient(logits, scores)
    torch.testing.assert_close(field(logits, scores, map_probabilities(logits)), exact, rtol=0, atol=1e-15)
    assert (step - exact).norm() > 0.1 * exact.norm()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_field_of_tied_draws_is_the_gradient_of_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, scores = draw_problem(seed)
    assert asymmetry(lambda z: tied_step(z, scores, 2, monkeypatch), logits) > 0.5
    assert asymmetry(lambda z: field(z, scores, map_probabilities(z)), logits) < 1e-8  # of independent draws
