"""Pictures of the data sets: of procedural images, and of the colours of the classes of all others.

No photo of a data set is shown: the terms of use of most forbid to pass them on.
"""

from __future__ import annotations

import io
import math
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

from rss_env.datasets import DATASETS, IGNORE_INDEX, load_dataset
from rss_env.datasets.shapes import DIFFICULTIES
from rss_env.registration import env_id

WIDTH = 600
"""Of a cover in pixels, nearly."""
SHOWN, CELL = 84, 8
"""The scene of a world that is acted in, and the side of its cells in pixels."""

ACTED = (
    ("true", "What render() shows of the true map: the image, the map, and a way to the nearest of every kind."),
    ("wrong", "The same with every third cell wrong. A cross is where the player gave up or died."),
)
"""Pictures of a world's page: name and caption."""


def pictures(dataset: str) -> dict[str, tuple[str, bytes]]:
    """The pictures of a data set's page, the first one also that of its card: file name -> (caption, PNG)."""
    info = DATASETS[dataset].info
    shapes = load_dataset("Shapes", split="test", num_images=6)
    assert shapes.targets is not None
    if DATASETS[dataset].levels == ("outcome",):
        cover = "Scenes of the test split; the player is in the middle of each.", png(tiles(scenes(dataset)))
        return {"cover.png": cover} | {f"{name}.png": (caption, png(acted(dataset, name))) for name, caption in ACTED}
    if DATASETS[dataset].generate:
        shown = {"cover.png": ("Images of the test split.", png(tiles(shapes.images)))}
        for level in DIFFICULTIES:
            caption = f'What render() shows with difficulty="{level}", expose_target=True.'
            shown[f"{level}.png"] = caption, png(rendering(dataset, level))
        return shown
    if info.palette is not None:
        caption = f"The colours of its {len(info.palette)} classes."
        return {"cover.png": (caption, png(tiles(info.palette[:, None, None])))}
    folder = np.concatenate([shapes.images[:3], shapes.palette[shapes.targets[:3]]])
    return {"cover.png": ("Three images and below them their masks; here they are procedural.", png(tiles(folder)))}


def tiles(images: np.ndarray) -> np.ndarray:
    """Images in rows, one and a half times as many columns, enlarged to ``WIDTH``; the last one fills what is left.

    Args:
        images: uint8 (n, h, w, 3).
    """
    columns = round(math.sqrt(1.5 * len(images)))
    rows = math.ceil(len(images) / columns)
    filled = np.pad(images, ((0, rows * columns - len(images)), (0, 0), (0, 0), (0, 0)), mode="edge")
    _, height, width, _ = images.shape
    picture = filled.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    factor = WIDTH // (columns * width)
    return picture.repeat(factor, 0).repeat(factor, 1)


def rendering(dataset: str, difficulty: str) -> np.ndarray:
    """What ``render()`` shows after a step whose label map is the target moved by three pixels, uint8 (h, w, 3)."""
    options: dict[str, Any] = {"split": "val", "expose_target": True, "render_mode": "rgb_array"}
    env = gym.make(env_id(dataset, "pixel"), difficulty=difficulty, **options)
    _, info = env.reset(options={"index": 0})
    height, width = info["target"].shape
    env.step(np.pad(info["target"], ((3, 0), (3, 0)), mode="edge")[:height, :width])
    picture = env.render()
    env.close()
    assert isinstance(picture, np.ndarray)
    return picture


def scenes(dataset: str) -> np.ndarray:
    """Six scenes of a world with white space around them, uint8 (6, h, w, 3)."""
    images = load_dataset(dataset, split="test", num_images=96).images[::16]
    return np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=255)


def acted(dataset: str, name: str) -> np.ndarray:
    """What ``render()`` of a world shows after a step whose label map is ``"true"`` or ``"wrong"``, uint8 (h, w, 3)."""
    data = load_dataset(dataset, split="val")
    assert data.targets is not None
    label_map = np.where(data.targets[SHOWN] == IGNORE_INDEX, 0, data.targets[SHOWN])
    if name == "wrong":
        rows, columns = np.indices(label_map.shape) // CELL
        wrong = (rows + 2 * columns) % 3 == 0
        label_map[wrong] = ((5 * rows + 3 * columns) % data.num_classes)[wrong]
    env = gym.make(env_id(dataset, "outcome"), split="val", render_mode="rgb_array")
    env.reset(options={"index": SHOWN})
    env.step(label_map)
    picture = env.render()
    env.close()
    assert isinstance(picture, np.ndarray)
    return picture


def png(picture: np.ndarray) -> bytes:
    """The picture, uint8 (h, w, 3), as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return file.getvalue()
