from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed, multiprocessing

from agents.plugins import SyncAN, leave_one_out
from agents.plugins.sync_an import EPSILON
from agents.rss import RSS
from agents.training import Feedback
from tests.agents.plugins.two_pixels import (
    MAPS,
    draw_problem,
    enumerate_sets,
    expected_score_gradient,
    expected_step,
    look_up,
    map_probabilities,
)

STEPS, IMAGES, SAMPLES = 3, 2, 4  # accumulation steps, images and samples of each process


def scale_of(*parts: torch.Tensor) -> torch.Tensor:
    synchronised = SyncAN()
    for part in parts:
        synchronised.add(part)
    return synchronised.finish()


shapes = st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple)


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


def test_every_update_starts_from_nothing() -> None:
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


def test_what_does_not_count_changes_nothing() -> None:
    advantages = torch.tensor([[1.0, -1.0], [0.0, 0.0], [3.0, -3.0]])
    part, whole = SyncAN(), SyncAN()
    part.add(advantages, torch.tensor([[True], [False], [True]]))
    whole.add(advantages[::2])
    assert part.finish() == whole.finish() == pytest.approx(5**0.5 + EPSILON)
    part.add(advantages, torch.zeros(3, 1, dtype=torch.bool))
    assert part.finish() == EPSILON


# Two processes


def draw_rewards(level: str) -> torch.Tensor:
    """float32 (steps, 2·B, K, …): what two processes see of it, each the half of the images, one process sees whole."""
    pixels = (1, 1) if level == "image" else (3, 5)
    rewards = np.random.default_rng(0).random((STEPS, 2 * IMAGES, SAMPLES, *pixels)).astype(np.float32)
    rewards[:, IMAGES:] *= 10  # the halves differ in scale
    return torch.from_numpy(rewards)


def earn(rewards: torch.Tensor) -> Feedback:
    """Feedback of one accumulation step, whose rewards are (B, K, 1, 1) or (B, K, H, W)."""
    batch, pixel_rewards = len(rewards), None if rewards.shape[2:] == (1, 1) else rewards
    label_maps = torch.zeros(batch, SAMPLES, 3, 5, dtype=torch.uint8)
    return Feedback(label_maps, rewards.mean(dim=(2, 3)), pixel_rewards, list(range(batch)), [False] * batch, {})


def scales_of(rewards: torch.Tensor) -> dict[str, torch.Tensor]:
    """What SyncAN, and the algorithm with it, makes of the rewards (steps, B, K, …)."""
    scales = {"SyncAN": scale_of(*(leave_one_out(step) for step in rewards))}
    for advantage in ("leave_one_out", "batch"):
        algorithm = RSS(samples_per_image=SAMPLES, advantage=advantage)
        algorithm.synchronise([algorithm.observe(torch.zeros(0), earn(step)) for step in rewards])
        scales[f"RSS, {advantage}"] = algorithm.scale
    return scales


def run_process(rank: int, folder: str) -> None:
    """What each of two processes does."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    single = distributed.new_group([0])
    results: dict[str, Any] = {}
    for level in ("image", "pixel"):
        mine = draw_rewards(level)[:, rank * IMAGES : (rank + 1) * IMAGES]
        results[level] = scales_of(mine)
    if rank == 0:
        synchronised = SyncAN(single)
        synchronised.add(torch.full((3,), 7.0))
        results["single"] = synchronised.finish()
    torch.save(results, f"{folder}/results-{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_get_the_scale_of_one_with_all_the_images(tmp_path: Path) -> None:
    multiprocessing.spawn(run_process, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"results-{rank}.pt", weights_only=True) for rank in range(2))
    for level in ("image", "pixel"):
        expected = scales_of(draw_rewards(level))
        half = scales_of(draw_rewards(level)[:, :IMAGES])
        assert expected["SyncAN"] == expected["RSS, leave_one_out"]
        for name in expected:
            assert first[level][name] == second[level][name]
            rtol = 1e-6 if name == "RSS, batch" else 1e-13  # the mean that its rewards are compared with is float32
            torch.testing.assert_close(first[level][name], expected[name], rtol=rtol, atol=0)
            assert abs(half[name] - expected[name]) > 0.1 * expected[name]
    assert first["single"].item() == 7 + EPSILON


# What the scale does to the expected step, by enumeration


def steps(images: int, samples: int, sync_an: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The expected step of a batch that shows one image so many times, and the gradient of its expected score."""
    logits, scores = draw_problem(772)
    chosen, probabilities = enumerate_sets(map_probabilities(logits), images * samples)
    label_maps = MAPS[chosen.unflatten(1, (images, samples))]  # (M, B, K, 1, 2)
    advantages = leave_one_out(look_up(label_maps, scores).flatten(0, 1)).unflatten(0, (-1, images))  # (M, B, K)
    if sync_an:
        advantages = torch.stack([batch / scale_of(batch) for batch in advantages])
    step = torch.zeros_like(logits)
    for b in range(images):
        step += expected_step(logits, label_maps[:, b], advantages[:, b, :, None, None], probabilities) / images
    return step, expected_score_gradient(logits, scores)


def cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(first.flatten(), second.flatten(), dim=0).item()


@pytest.mark.parametrize(("images", "samples"), [(1, 2), (1, 3), (2, 2)])
def test_without_sync_an_the_expected_step_is_the_gradient_of_the_expected_score(images: int, samples: int) -> None:
    step, exact = steps(images, samples, sync_an=False)
    torch.testing.assert_close(step, exact, rtol=0, atol=1e-15)


def test_the_scale_of_the_same_samples_turns_the_expected_step_less_the_more_they_are() -> None:
    # One example of logits and scores; the steps of others are turned less or more.
    found = {shape: cosine(*steps(*shape, sync_an=True)) for shape in ((1, 2), (1, 3), (1, 4), (2, 2))}
    assert found == pytest.approx({(1, 2): 0.951, (1, 3): 0.987, (1, 4): 0.996, (2, 2): 0.990}, abs=1e-3)
