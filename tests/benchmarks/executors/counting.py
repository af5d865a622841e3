"""A training command that counts, a line a step, and goes on where it was stopped: python -m … --run-dir FOLDER."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--run-dir", type=Path)
parser.add_argument("--no-progress", action="store_true")
parser.add_argument("--resume", action="store_true")
parser.add_argument("--steps", type=int)
args = parser.parse_args()

args.run_dir.mkdir(parents=True, exist_ok=args.resume)
(args.run_dir / "config.json").touch()
steps = args.run_dir / "steps.txt"
done = len(steps.read_text().split()) if steps.exists() else 0
for step in range(done + 1, args.steps + 1):
    time.sleep(0.02)
    with steps.open("a") as file:
        file.write(f"{step}\n")
