from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed, multiprocessing

from agents.rss import RSS, Feedback, RSSArguments
from agents.sync_an import EPSILON, SyncAN

STEPS, IMAGES, SAMPLES = 3, 2, 4  # accumulation steps, images and samples of each process


def scale_of(*parts: torch.Tensor) -> torch.Tensor:
    synchronised = SyncAN()
    for part in parts:
        synchronised.add(part)
    return synchronised.finish()


shapes = st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple)


@settings(deadline=None)
@given(shape=shapes, seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-3, 1e3), mean=st.floats(-5, 5))
def test_the_scale_is_the_root_mean_square_of_the_advantages(
    shape: tuple[int, ...], seed: int, scale: float, mean: float
) -> None:
    advantages = np.asarray(np.random.default_rng(seed).normal(mean, scale, shape), np.float32)
    expected = np.sqrt(np.mean(advantages.astype(np.float64) ** 2)) + EPSILON
    result = scale_of(torch.from_numpy(advantages))
    assert result.dtype == torch.float64
    assert result.shape == ()
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-13)


@settings(deadline=None)
@given(parts=st.lists(st.tuples(shapes, st.floats(1e-3, 1e3)), min_size=1, max_size=5), seed=st.integers(0, 2**32 - 1))
def test_adding_in_parts_gives_the_scale_of_all_at_once_whatever_their_sizes(
    parts: list[tuple[tuple[int, ...], float]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    tensors = [torch.from_numpy(np.asarray(rng.normal(0, scale, shape))) for shape, scale in parts]
    whole = torch.cat([tensor.flatten() for tensor in tensors])
    torch.testing.assert_close(scale_of(*tensors), scale_of(whole), rtol=1e-13, atol=0)


def test_the_advantages_keep_their_mean_which_counts_in_the_scale() -> None:
    assert scale_of(torch.full((3, 4), 2.0)).item() == 2 + EPSILON


def test_sums_of_many_float32_advantages_are_exact() -> None:
    advantages = torch.full((4, 8, 300, 400), 0.75)
    advantages[0, 0, 0, 0] = 4096.0
    expected = np.sqrt((4096.0**2 + (advantages.numel() - 1) * 0.75**2) / advantages.numel()) + EPSILON
    assert scale_of(advantages).item() == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_advantages_of_which_all_are_zero_have_a_positive_scale(dtype: torch.dtype) -> None:
    zeros = torch.zeros(2, 3, 1, 1, dtype=dtype)
    assert scale_of(zeros).item() == EPSILON > 0
    assert torch.equal((zeros / scale_of(zeros)).double(), torch.zeros(2, 3, 1, 1, dtype=torch.float64))


def test_no_gradient_flows_through_the_scale() -> None:
    assert not scale_of(torch.ones(3, requires_grad=True)).requires_grad


def test_every_update_begins_anew() -> None:
    synchronised = SyncAN()
    for size in (3.0, 5.0):
        synchronised.add(torch.full((2, 2), size))
        assert synchronised.finish().item() == size + EPSILON


def test_an_update_without_advantages_is_an_error() -> None:
    synchronised = SyncAN()
    with pytest.raises(ValueError, match=r"call add\(\) first"):
        synchronised.finish()
    synchronised.add(torch.ones(2))
    synchronised.finish()
    with pytest.raises(ValueError, match=r"call add\(\) first"):
        synchronised.finish()


# Two processes


def draw_rewards(level: str) -> torch.Tensor:
    """float32 (steps, 2·B, K, …): what two processes see of it, each the half of the images, one process sees whole."""
    pixels = (1, 1) if level == "image" else (3, 5)
    rewards = np.random.default_rng(0).random((STEPS, 2 * IMAGES, SAMPLES, *pixels)).astype(np.float32)
    rewards[:, IMAGES:] *= 10  # the halves differ in scale
    return torch.from_numpy(rewards)


def scales_of(rewards: torch.Tensor) -> dict[str, torch.Tensor]:
    """What SyncAN, and the algorithm with it, makes of the rewards (steps, B, K, …)."""
    advantages = [step - step.mean(dim=1, keepdim=True) for step in rewards]
    algorithm = RSS(
        RSSArguments(objective="reinforce", samples_per_image=SAMPLES, cells=(4, 2, 1), cell_schedule="plateau")
    )
    label_maps = torch.zeros(0, dtype=torch.uint8)
    algorithm.prepare(
        [Feedback(label_maps, step, advantages=part) for step, part in zip(rewards, advantages, strict=True)]
    )
    return {
        "SyncAN": scale_of(*advantages),
        "RSS": algorithm.scale,
        "mean reward": torch.tensor(algorithm.state_dict()["cells"]["mean"]),
    }


def run_process(rank: int, folder: str) -> None:
    """What each of two processes does."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    alone = distributed.new_group([0])
    results: dict[str, Any] = {}
    for level in ("image", "pixel"):
        mine = draw_rewards(level)[:, rank * IMAGES : (rank + 1) * IMAGES]
        results[level] = scales_of(mine)
    if rank == 0:
        synchronised = SyncAN(alone)
        synchronised.add(torch.full((3,), 7.0))
        results["alone"] = synchronised.finish()
    torch.save(results, f"{folder}/results-{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_get_the_scale_of_one_with_all_the_images(tmp_path: Path) -> None:
    multiprocessing.spawn(run_process, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"results-{rank}.pt", weights_only=True) for rank in range(2))
    for level in ("image", "pixel"):
        expected = scales_of(draw_rewards(level))
        half = scales_of(draw_rewards(level)[:, :IMAGES])
        for name in expected:
            assert first[level][name] == second[level][name]
            rtol = 1e-6 if name == "mean reward" else 1e-13  # the mean reward is float32
            torch.testing.assert_close(first[level][name], expected[name], rtol=rtol, atol=0)
            assert abs(half[name] - expected[name]) > 0.1 * expected[name]
    assert first["alone"].item() == 7 + EPSILON


def test_what_does_not_count_changes_nothing() -> None:
    advantages = torch.tensor([[1.0, -1.0], [0.0, 0.0], [3.0, -3.0]])
    part, whole = SyncAN(), SyncAN()
    part.add(advantages, torch.tensor([[True], [False], [True]]))
    whole.add(advantages[::2])
    assert part.finish() == whole.finish() == pytest.approx(5**0.5 + EPSILON)
    part.add(advantages, torch.zeros(3, 1, dtype=torch.bool))
    assert part.finish() == EPSILON
