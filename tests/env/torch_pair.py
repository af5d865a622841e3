"""The vector env on the device "cpu" beside NumPy's, and the comparison of what the two give."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from rss_env import SegmentationVectorEnv
from rss_env.torch_task import TorchSegmentationTask
from rss_env.torch_vector import TorchSegmentationVectorEnv

MAP = (40, 48)
SHAPES: dict[str, Any] = {"dataset": "Shapes", "num_images": 6}
PATHS = ("on the host", "as on an accelerator")


@contextmanager
def on_path(path: str) -> Iterator[str]:
    """With ``"as on an accelerator"`` the CPU is treated as accelerators are, for which nobody waits."""
    with pytest.MonkeyPatch.context() as patch:
        if path == "as on an accelerator":
            patch.setattr(TorchSegmentationTask, "on_host", False)
            patch.setattr(torch.Tensor, "is_cpu", property(lambda tensor: False))
        yield path


def pair(
    num_envs: int = 3, cache: str = "device", **options: Any
) -> tuple[TorchSegmentationVectorEnv, SegmentationVectorEnv]:
    """The env on the device "cpu", and NumPy's."""
    options = {"num_envs": num_envs, "image_size": MAP, **(options if "dataset" in options else SHAPES | options)}
    return TorchSegmentationVectorEnv(**options, device="cpu", cache=cache), SegmentationVectorEnv(**options)


def random_maps(envs: Any, seed: int = 0) -> np.ndarray:
    last = envs.unwrapped.single_action_space.nvec.flat[0]
    return np.random.default_rng(seed).integers(0, last, envs.action_space.shape)


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor of an outcome; it holds nothing else."""
    if isinstance(value, dict):
        value = value.values()
    elif isinstance(value, torch.Tensor):
        yield value
        return
    for inner in value:
        yield from tensors(inner)


def assert_same(ours: Any, theirs: Any) -> None:
    """The same tuples, dicts, keys, dtypes, shapes and values, ours as tensors on the CPU."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, tuple):
        for mine, other in zip(ours, theirs, strict=True):
            assert_same(mine, other)
    else:
        other = np.stack(list(theirs)) if theirs.dtype == object else theirs  # final observations: B views
        assert type(ours) is torch.Tensor
        assert ours.device == torch.device("cpu")
        assert not ours.requires_grad
        assert ours.numpy().dtype == other.dtype
        np.testing.assert_array_equal(ours.numpy(), other)


def run_alike(envs: TorchSegmentationVectorEnv, twin: SegmentationVectorEnv, steps: int = 4) -> None:
    """Resets and steps both, and compares everything that comes out."""
    assert_same(envs.reset(seed=5), twin.reset(seed=5))
    before = envs.reward_queries, twin.reward_queries
    for seed in range(steps):
        maps = random_maps(twin, seed)
        assert_same(envs.step(torch.from_numpy(maps).to(torch.uint8)), twin.step(maps))
        if twin.autoreset_mode is AutoresetMode.DISABLED:
            assert_same(envs.reset(), twin.reset())
    assert envs.reward_queries - before[0] == twin.reward_queries - before[1] > 0
