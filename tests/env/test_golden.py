"""What docs/versioning.md promises to keep: ids, and for equal seeds images, order of episodes, scores and feedback.

golden.json holds what was seen when version v0 of the ids was fixed. If this test fails, results before and after the
change cannot be compared: undo the change, or raise the version of the ids and write the file again with
``python -m tests.env.test_golden``.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

import rss_env
from rss_env.datasets import shapes
from rss_env.rewards import REWARDS
from rss_env.wrappers import FeedbackReward
from tests.extras import is_installed

GOLDEN = Path(__file__).with_name("golden.json")
EPISODES = 12
SMALL: dict[str, Any] = {"image_size": (24, 24), "num_images": 16}
SHAPES: dict[str, dict[str, Any]] = {
    "default": {"image_size": (64, 64), "num_images": 32},
    "easy, mirrored, sequential": {
        "image_size": (32, 48),
        "num_images": 16,
        "difficulty": "easy",
        "augment": "flip",
        "order": "sequential",
    },
    "hard, nine classes": {
        "image_size": (40, 40),
        "num_images": 32,
        "difficulty": "hard",
        "num_classes": 9,
        "dataset_seed": 7,
    },
}


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def label_maps(episode: int, shape: tuple[int, ...], classes: int) -> np.ndarray:
    """Label maps by a formula, so that no random generator has a part in them."""
    return ((np.indices(shape).sum(0) // (3 + episode % 4) + episode) % classes).astype(np.uint8)


def play(env: gym.Env, seed: int) -> dict[str, str]:
    """What the first episodes of a seed show and give."""
    shape, classes = env.action_space.shape, len(env.metadata["class_names"])
    images, indices, flipped, rewards = [], [], [], []
    for episode in range(EPISODES):
        image, info = env.reset(seed=seed if episode == 0 else None)
        images.append(image)
        indices.append(info["index"])
        flipped.append(bool(info.get("flipped", False)))
        rewards.append(env.step(label_maps(episode, shape, classes))[1].hex())
    shown = [f"{i}{' mirrored' if mirror else ''}" for i, mirror in zip(indices, flipped, strict=True)]
    return {"images": digest(np.stack(images)), "shown": ", ".join(shown), "rewards": " ".join(rewards)}


def play_vector(envs: Any, seed: int) -> list[str]:
    """The rewards of each sub-environment; ``play`` has the same for its seed."""
    shape, classes = envs.single_action_space.shape, len(envs.metadata["class_names"])
    envs.reset(seed=seed)
    steps = [envs.step(np.stack([label_maps(e, shape, classes)] * envs.num_envs))[1] for e in range(EPISODES)]
    return [" ".join(float(rewards[b]).hex() for rewards in steps) for b in range(envs.num_envs)]


def seen() -> dict[str, Any]:
    """Everything that golden.json holds, as this installation gives it."""
    found: dict[str, Any] = {"ids": dict.fromkeys(rss_env.ENV_IDS, "registered")}
    found["shapes"] = {
        name: {
            f"seed {seed}": play(gym.make("RSS-Shapes-ImageReward-v0", **options), seed) for seed in (0, 1, 2**31 - 1)
        }
        for name, options in SHAPES.items()
    }
    found["pixel level"] = {"seed 5": play(gym.make("RSS-Shapes-PixelReward-v0", **SMALL), 5)}
    found["rewards"] = {
        name: play(gym.make("RSS-Shapes-ImageReward-v0", **SMALL, reward=name), 3)["rewards"] for name in REWARDS
    }
    found["feedback"] = {
        kind: play(FeedbackReward(gym.make("RSS-Shapes-ImageReward-v0", **SMALL), kind), 3)["rewards"]
        for kind in ("noise:0.1", "stars:5")
    }
    found["crops"] = {
        augment: play(gym.make("RSS-Shapes-ImageReward-v0", **SMALL, augment=augment, crop_size=(16, 20)), 4)
        for augment in ("flip,crop", "flip,crop,scale")
    }
    found["data"] = {}
    for split in shapes.SPLIT_SIZES:
        for difficulty in shapes.DIFFICULTIES:
            data = shapes.load(split, (32, 32), difficulty=difficulty, num_images=12)
            found["data"][f"{split}, {difficulty}"] = [digest(data.images), digest(data.targets)]
    with tempfile.TemporaryDirectory() as folder:
        found["photos"] = {
            resize: play(gym.make("RSS-Folder-ImageReward-v0", resize=resize, **photos(Path(folder))), 0)
            for resize in ("pad", "crop", "stretch")
        }
    return found


def photos(root: Path) -> dict[str, Any]:
    """Arguments of two photos of a formula, as PNG: what a JPEG decoder makes of a file may change with its version."""
    for number, (height, width) in enumerate([(50, 37), (40, 61)]):
        y, x = np.mgrid[:height, :width]
        image = np.stack([x * 4, y * 5, (x * y + 40 * number) // 3], -1) % 256
        for folder, array in (("images", image), ("masks", (x // 9 + y // 7) % 5)):
            (root / folder).mkdir(exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(root / folder / f"{number}.png")
    return {"root": str(root), "split": "all", "image_size": (24, 24), "num_classes": 5}


def test_equal_seeds_show_and_give_what_they_always_did():
    found = seen()
    for part, expected in json.loads(GOLDEN.read_text()).items():  # what is new may be added
        assert {name: found[part][name] for name in expected} == expected, part


def test_vector_environments_of_numpy_and_torch_give_the_same():
    golden = json.loads(GOLDEN.read_text())["shapes"]["default"]
    for device in [None, *(["cpu"] if is_installed("torch") else [])]:
        envs = gym.make_vec("RSS-Shapes-ImageReward-v0", 2, device=device, **SHAPES["default"])
        assert play_vector(envs, 0) == [golden["seed 0"]["rewards"], golden["seed 1"]["rewards"]]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(seen(), indent=1) + "\n")
