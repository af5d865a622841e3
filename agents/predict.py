"""Segment photos with a checkpoint.

    python -m agents.predict RUN_DIR photo.jpg other.png --out predictions

Writes for each photo its label map as a palette PNG, NAME.png, and laid over the photo, NAME-overlay.png, both of the
photo's size.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

from rss_env.arguments import check_size
from rss_env.datasets.decode import read_image
from rss_env.errors import DatasetError, OptionError
from rss_env.rendering import overlay

from .networks.policy import load
from .training.arguments import choose_device
from .training.command import run_command


@dataclass
class PredictArguments:
    """Segment photos with a checkpoint."""

    checkpoint: Annotated[str, tyro.conf.Positional]
    """run folder (its newest checkpoint), checkpoint or exported folder, .safetensors file, or hub:USER/NAME"""
    images: Annotated[tuple[str, ...], tyro.conf.Positional]
    """photos"""
    out: str = "predictions"
    """folder for the results"""
    eval_tile: tuple[int, int] | None = None
    """height and width of overlapping tiles in which photos, scaled like the training images, are segmented; default:
    whole photos"""
    balance: float | None = None
    """how much rare classes are favoured, 0 or more: 0.5 for a higher mean IoU; default: as it was exported, or 0"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where the policy runs"""
    progress: bool = True
    """show a progress bar"""


def write_label_map(path: Path, label_map: np.ndarray, palette: np.ndarray) -> None:
    """Writes a label map, uint8 (H, W), as a palette PNG."""
    picture = Image.frombytes("P", (label_map.shape[1], label_map.shape[0]), label_map.tobytes())
    picture.putpalette(palette.ravel().tolist())
    picture.save(path)


def main() -> int:
    """Runs the command line; exit code 1 if a photo could not be read (the others are written)."""
    args = tyro.cli(PredictArguments, prog="python -m agents.predict")
    if not args.images:
        raise OptionError("No photo was given.")
    if args.eval_tile is not None:
        check_size("eval_tile", args.eval_tile)
    out = Path(args.out)
    written = Counter(f"{Path(name).stem}{end}.png" for name in args.images for end in ("", "-overlay"))
    twice = [name for name, count in written.items() if count > 1]
    if twice:
        raise OptionError(f"Two photos would both be written as {twice[0]}; segment them in two calls.")
    photos = {Path(name).resolve() for name in args.images}
    lost = [out / name for name in written if (out / name).resolve() in photos]
    if lost:
        raise OptionError(f"{lost[0]} is one of the photos and would be replaced; choose another --out.")
    device = choose_device(args.device)
    policy = load(args.checkpoint, device, args.balance)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"Cannot write to --out {out}: {error}.") from error

    failed = 0
    for name in tqdm(args.images, disable=not args.progress, unit="photo"):
        try:
            photo = read_image(Path(name))
        except DatasetError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        label_map = policy.predict(photo, args.eval_tile)
        write_label_map(out / f"{Path(name).stem}.png", label_map, policy.palette)
        Image.fromarray(overlay(np.asarray(photo), label_map, policy.palette)).save(
            out / f"{Path(name).stem}-overlay.png"
        )
    print(f"{len(args.images) - failed} of {len(args.images)} photos written to {out}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_command(main)
