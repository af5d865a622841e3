"""The animation of docs/outcomes.md, from the game only.

    python -m benchmarks.outcomes_picture runs/outcomes/rss-16-600-1

For scenes of the validation split: what is said to be where, by random labels, by a network that learned from outcomes
and by the true map, and how somebody fares who believes it. Writes docs/pictures/outcomes.gif.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from PIL import Image, ImageDraw

from agents.networks.checkpoints import load_policy, predict_label_maps
from agents.training.command import run_command
from rss_env.datasets import IGNORE_INDEX, load_dataset
from rss_env.legend import INK, font_of
from rss_env.rendering import colourise
from rss_env.worlds.crafter import Journey
from rss_env.worlds.drawing import draw_journeys

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
SCALE = 3  # pixels of the animation for each pixel of a scene
TEXT, GAP = 14, 12  # height of the text and space around the panels in pixels
STEP, END = 220, 2200  # milliseconds that a step and the end of a scene are shown
COLOURS = 64


def main(
    run_dir: Annotated[Path, tyro.conf.Positional],
    scenes: tuple[int, ...] = (84, 20, 40, 100),
    out: Path = PICTURES / "outcomes.gif",
) -> None:
    """Write the animation of the page on worlds.

    Args:
        run_dir: run folder of an agent that learned from outcomes.
        scenes: numbers of the scenes in the validation split.
        out: file to write.
    """
    data: Any = load_dataset("Crafter", split="val")
    network, _ = load_policy(run_dir, torch.device("cpu"))
    rng = np.random.default_rng(0)
    frames: list[Image.Image] = []
    durations: list[int] = []
    for scene in scenes:
        image, target = np.array(data.images[scene]), np.array(data.targets[scene])
        maps = {
            "random labels": rng.integers(0, data.num_classes, (7, 9), dtype=np.uint8).repeat(8, 0).repeat(8, 1),
            "learned from outcomes": predict_label_maps(network, image[None], torch.device("cpu"))[0],
            "the true map": np.where(target == IGNORE_INDEX, 0, target),
        }
        columns = [(title, labels, data.world.journeys(labels, target)) for title, labels in maps.items()]
        last = max(len(journey.visited) for _, _, journeys in columns for journey in journeys)
        for step in range(1, last + 2):
            frames.append(frame(image, columns, step, data.palette, data.world.cell_size))
            durations.append(STEP)
        durations[-1] = END
    palette = frames[-1].quantize(COLOURS)
    out.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in frames)
    first.save(out, save_all=True, append_images=rest, duration=durations, loop=0, optimize=True)
    print(f"{out}: {len(frames)} frames, {out.stat().st_size / 1000:.0f} kB")


def frame(
    image: np.ndarray, columns: list[tuple[str, np.ndarray, list[Journey]]], step: int, palette: Any, cell: int
) -> Image.Image:
    """Label maps, and below them how far who believes them is come after some steps."""
    height, width = (SCALE * side for side in image.shape[:2])
    top = GAP + TEXT + GAP // 2
    picture = Image.new("RGB", (len(columns) * (width + GAP) + GAP, top + 2 * (height + GAP)), "white")
    draw = ImageDraw.Draw(picture)
    for number, (title, labels, journeys) in enumerate(columns):
        left = GAP + number * (width + GAP)
        ended = all(len(journey.visited) < step for journey in journeys)
        outcome = sum(journey.outcome for journey in journeys) / len(journeys)
        draw.text((left, GAP), f"{title}: {outcome:.2f}" if ended else title, INK, font_of(TEXT), "lt")
        coloured = colourise(labels, palette).repeat(SCALE, 0).repeat(SCALE, 1)
        picture.paste(Image.fromarray(coloured), (left, top))
        tried = [journey for journey in journeys if journey.way is not None]
        shown = draw_journeys(
            image,
            [journey.way or () for journey in tried],
            [journey.visited[:step] for journey in tried],
            [journey.reached if len(journey.visited) < step else None for journey in tried],
            [palette[journey.goal] for journey in tried],
            cell,
            SCALE,
            "",
        )
        picture.paste(Image.fromarray(shown), (left, top + height + GAP))
    return picture


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, prog="python -m benchmarks.outcomes_picture"))
