"""Photos without masks work in every kind of environment, at every way to resize, with a callable as the reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import rss_env  # noqa: F401  (registers the ids)
from rss_env.datasets import load_dataset
from rss_env.datasets.decode import RESIZES
from rss_env.errors import DatasetError
from tests.extras import ON_TORCH, tensor
from tests.trees import SIZES, save_photo

ID = "RSS-Folder-ImageReward-v0"
SIZE = (24, 28)


def judge(image: Any, label_map: Any, target: Any) -> float:
    """How well a label map tells bright from dark pixels; arrays or tensors."""
    assert target is None
    bright = np.asarray(image).mean(axis=2) > 128
    return float((bright == (np.asarray(label_map) == 1)).mean())


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    for i, size in enumerate(SIZES):
        save_photo(tmp_path / "shots" / f"{i}.JPG", rng.integers(0, 256, (*size, 3), np.uint8), format="JPEG")
    own = {"root": str(tmp_path), "images": "shots/*.JPG", "num_classes": 3}
    return {**own, "split": "all", "image_size": SIZE, "reward": judge}


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("kind", [None, {}, ON_TORCH])
def test_a_callable_scores_them(options: dict[str, Any], resize: str, kind: dict[str, Any] | None):
    shown = load_dataset("Folder", resize=resize, **{k: v for k, v in options.items() if k != "reward"}).images
    rng = np.random.default_rng(1)
    if kind is None:
        env = gym.make(ID, resize=resize, order="sequential", samples_per_image=2, render_mode="rgb_array", **options)
        for image in shown:
            observation, info = env.reset()
            np.testing.assert_array_equal(observation, image)
            assert "target" not in info
            label_maps = rng.integers(0, 3, (2, *SIZE))
            _, reward, terminated, _, info = env.step(label_maps)
            assert info["scores"].tolist() == [judge(image, one, None) for one in label_maps]
            assert reward == info["scores"].mean()
            assert terminated
            assert env.render().dtype == np.uint8
        return
    envs = gym.make_vec(ID, len(shown), resize=resize, order="sequential", **options, **kind)
    images = np.asarray(envs.reset(seed=0)[0]).copy()
    assert sorted(image.tobytes() for image in images) == sorted(image.tobytes() for image in shown)
    label_maps = rng.integers(0, 3, (len(shown), *SIZE))
    given = tensor(label_maps) if kind else label_maps
    rewards = np.asarray(envs.step(given)[1]).tolist()
    assert rewards == pytest.approx([judge(*pair, None) for pair in zip(images, label_maps, strict=True)])


def test_the_other_rewards_say_what_they_miss(options: dict[str, Any]):
    del options["reward"]
    with pytest.raises(DatasetError, match="Folder has no masks, which reward='mean_iou' needs"):
        gym.make(ID, **options)
    with pytest.raises(DatasetError, match="Folder has no masks, which reward="):
        gym.make("RSS-Folder-PixelReward-v0", **options)
