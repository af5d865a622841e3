"""Pictures of the data sets' pages: renderings of procedural images, and the classes and colours of all others.

No photo of a data set is shown: the terms of use of most forbid to pass them on.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw

from rss_env.datasets import DATASETS, load_dataset
from rss_env.datasets.shapes import DIFFICULTIES
from rss_env.legend import draw_entry, entry_width, row_height
from rss_env.registration import env_id

TEXT_SIZE = 22
MARGIN = 12
WIDEST = 1400
"""Pixels. A page is about 700 wide, so a picture is sharp on screens of two pixels a point too."""


def pictures(dataset: str) -> dict[str, tuple[str, bytes]]:
    """The pictures of a data set's page: file name -> (caption, PNG)."""
    info = DATASETS[dataset].info
    if DATASETS[dataset].generate:
        shown = {
            level: (f'What render() shows with difficulty="{level}", expose_target=True.', {"difficulty": level})
            for level in DIFFICULTIES
        }
        return {f"{level}.png": (text, png(rendering(dataset, **options))) for level, (text, options) in shown.items()}
    if info.palette is not None:
        caption = f"The {len(info.class_names)} classes and their colours."
        return {"classes.png": (caption, png(legend(info.class_names, info.palette)))}
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, RSS_CACHE_DIR=f"{folder}/cache"):
        save_shapes(Path(folder))
        caption = "What render() shows of a folder that images of Shapes were saved in, with expose_target=True."
        return {"rendering.png": (caption, png(rendering(dataset, root=folder)))}


def cover(dataset: str) -> bytes:
    """The picture of a data set's card: a procedural image, or the colours of the classes, as a PNG of 3:2."""
    palette = DATASETS[dataset].info.palette
    if DATASETS[dataset].generate or palette is None:
        shapes = load_dataset("Shapes", split="test", num_images=6)
        assert shapes.targets is not None
        masks = shapes.palette[shapes.targets[:3]]
        shown = shapes.images if DATASETS[dataset].generate else np.concatenate([shapes.images[:3], masks])
        tiles = shown.reshape(2, 3, *shown.shape[1:]).swapaxes(1, 2).reshape(2 * shown.shape[1], -1, 3)
    else:
        columns = next(n for n in range(3, 100, 3) if n * n * 2 // 3 >= len(palette))
        filled = np.pad(palette, ((0, columns * columns * 2 // 3 - len(palette)), (0, 0)), mode="edge")
        tiles = filled.reshape(-1, columns, 3)
    return png(tiles.repeat(600 // len(tiles[0]), 0).repeat(600 // len(tiles[0]), 1))


def rendering(dataset: str, **options: Any) -> np.ndarray:
    """What ``render()`` shows after a step whose label map is the target moved by three pixels, uint8 (h, w, 3)."""
    pixel_level = env_id(dataset, "pixel")
    env = gym.make(pixel_level, split="val", expose_target=True, render_mode="rgb_array", **options)
    _, info = env.reset(options={"index": 0})
    height, width = info["target"].shape
    env.step(np.pad(info["target"], ((3, 0), (3, 0)), mode="edge")[:height, :width])
    picture = env.render()
    env.close()
    assert isinstance(picture, np.ndarray)
    return picture


def save_shapes(folder: Path) -> None:
    """Writes one image of Shapes in the layout of the data set Folder."""
    shapes = load_dataset("Shapes", split="test", num_images=1)
    assert shapes.targets is not None
    for name in ("images", "masks", "splits"):
        (folder / name).mkdir()
    Image.fromarray(shapes.images[0]).save(folder / "images" / "0.png")
    Image.fromarray(shapes.targets[0]).save(folder / "masks" / "0.png")
    (folder / "splits" / "val.txt").write_text("0\n", encoding="utf-8")
    described = {"classes": shapes.class_names, "palette": shapes.palette.tolist()}
    (folder / "classes.json").write_text(json.dumps(described), encoding="utf-8")


def legend(names: tuple[str, ...], palette: np.ndarray) -> np.ndarray:
    """A coloured square, the number and the name of every class, column by column, uint8 (h, w, 3).

    Args:
        names: C names.
        palette: uint8 (C, 3).
    """
    labels = [f"{number}  {name}" for number, name in enumerate(names)]
    column = max(entry_width(label, TEXT_SIZE) for label in labels)
    rows = -(-len(labels) // max(1, (WIDEST - 2 * MARGIN) // column))
    columns = -(-len(labels) // rows)
    size = columns * column + 2 * MARGIN, rows * row_height(TEXT_SIZE) + MARGIN
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for number, label in enumerate(labels):
        place = MARGIN + number // rows * column, MARGIN + number % rows * row_height(TEXT_SIZE)
        draw_entry(draw, place, label, palette[number].tolist(), TEXT_SIZE)
    return np.asarray(picture)


def png(picture: np.ndarray) -> bytes:
    """The picture, uint8 (h, w, 3), as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return file.getvalue()
