"""The two pictures of the front page, from procedural images only.

    python -m benchmarks.front_page

Trains ``agents.likelihood`` as ``make demo`` does and writes to docs/pictures:

- ``episode.png``: an image, a label map that an untrained policy tries, and what the trained policy says, each with its
  score;
- ``learning.gif``: held-out images and the policy's label maps over the training.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from PIL import Image, ImageDraw

from agents.likelihood import Likelihood
from agents.networks import make_network
from agents.networks.checkpoints import predict_label_maps
from agents.ops import sample_label_maps
from agents.training.command import run_command
from agents.training.loop import train
from agents.training.run_folder import RunFolder
from rss_env.legend import INK, font_of
from rss_env.rendering import colourise

ENV_ID = "RSS-Shapes-ImageReward-v0"
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
ENLARGED = 4  # pixels of a picture for each pixel of an image
TEXT = 15  # height of the text in pixels
PAPER = (255, 255, 255)


def main(steps: int = 500, image: int = 3, out: Path = PICTURES) -> None:
    """Write the pictures of the front page.

    Args:
        steps: optimiser steps.
        image: number of the image in the validation split.
        out: folder for the pictures.
    """
    out.mkdir(parents=True, exist_ok=True)
    shared: dict[str, Any] = {"image_size": (48, 48), "env_kwargs": {"difficulty": "easy"}}
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        result = train(
            ENV_ID,
            Likelihood(),
            steps=steps,
            batch_size=16,
            eval_every=max(1, steps // 20),
            log_every=5,
            run_dir=str(run_dir),
            **shared,
        )
        frames = learning(run_dir)
    frames[0].save(
        out / "learning.gif",
        save_all=True,
        append_images=frames[1:],
        duration=[400] * (len(frames) - 1) + [3000],
        loop=0,
    )
    episode(result.network, image).save(out / "episode.png", optimize=True)
    print(*(out / name for name in ("episode.png", "learning.gif")), sep="\n")


def episode(network: torch.nn.Module, index: int) -> Image.Image:
    """Image, a first try and the trained policy's label map, with their scores."""
    env = gym.make(ENV_ID, image_size=(48, 48), difficulty="easy", split="val")
    palette = np.array(env.metadata["palette"], np.uint8)
    image, _ = env.reset(options={"index": index})
    torch.manual_seed(1)
    untrained = make_network("unet", len(palette))
    with torch.inference_mode():
        first = sample_label_maps(untrained(torch.from_numpy(image)[None]), 1, seed=1)[0, 0].numpy()
    last = predict_label_maps(network, image[None], torch.device("cpu"))[0]
    panels = [("image: the observation", image)]
    for title, label_map in (("a first label map", first), ("after training", last)):
        env.reset(options={"index": index})
        score = env.step(label_map)[1]
        panels.append((f"{title}: score {score:.2f}", colourise(label_map, palette)))
    return side_by_side(panels)


def side_by_side(panels: list[tuple[str, np.ndarray]]) -> Image.Image:
    """Pictures, uint8 (H, W, 3), enlarged and next to each other, each under its title."""
    side, gap, top = 48 * ENLARGED, 16, 2 * TEXT
    picture = Image.new("RGB", (len(panels) * (side + gap) + gap, top + side + gap), PAPER)
    draw = ImageDraw.Draw(picture)
    for number, (title, panel) in enumerate(panels):
        left = gap + number * (side + gap)
        draw.text((left, TEXT // 2), title, INK, font_of(TEXT))
        picture.paste(Image.fromarray(panel).resize((side, side), Image.Resampling.NEAREST), (left, top))
    return picture


def learning(run_dir: Path) -> list[Image.Image]:
    """The pictures that a run left of its validation images, each under its step, queries and mIoU."""
    rows: dict[int, dict[str, float]] = {}
    for row in RunFolder(run_dir).read_metrics():
        rows[int(row["step"])] = rows.get(int(row["step"]), {}) | row
    frames = []
    for file in sorted((run_dir / "pictures").glob("val-label_maps-step-*.png")):
        row = rows[int(file.stem.rpartition("-")[2])]
        with Image.open(file) as small:
            grid = small.resize((2 * small.width, 2 * small.height), Image.Resampling.NEAREST)
        frame = Image.new("RGB", (grid.width, grid.height + 2 * TEXT), PAPER)
        queries = f"{int(row['time/reward_queries']):,} scores seen"
        title = f"step {int(row['step'])}, {queries}: mIoU {row['val/miou']:.2f} on held-out images"
        ImageDraw.Draw(frame).text((TEXT // 2, TEXT // 2), title, INK, font_of(TEXT))
        frame.paste(grid, (0, 2 * TEXT))
        frames.append(frame)
    return frames


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, prog="python -m benchmarks.front_page"))
