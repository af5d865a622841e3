"""What each machine of a job does, or one process for comparison: torchrun … -m MODULE NAME RUN_DIR."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from agents.likelihood import Likelihood
from agents.rss import RSS
from agents.training.loop import Result, stream_seed, train

SEED = 1
STEPS = 3  # in which no image is shown twice: a process replays only what it has shown itself
ALGORITHMS: dict[str, Any] = {"rss": RSS, "likelihood": Likelihood}
OPTIONS: dict[str, dict[str, Any]] = {"rss": {}, "likelihood": {"scores_per_nat": 0.0}}  # of all images


class AsTwo:
    """Draws the label maps of the images' halves from the streams of two processes."""

    def act(self, logits: torch.Tensor, progress: float, generator: torch.Generator) -> torch.Tensor:
        if not hasattr(self, "streams"):
            self.streams = [torch.Generator().manual_seed(stream_seed(SEED, rank, 0)) for rank in range(2)]
        halves = zip(logits.chunk(2), self.streams, strict=True)
        return torch.cat([super(AsTwo, self).act(half, progress, stream) for half, stream in halves])  # type: ignore[misc]


def run(name: str, run_dir: Path, as_two: bool = False, **arguments: Any) -> Result:
    """Trains with an algorithm, in this process with the label maps of two if ``as_two``."""
    algorithm = ALGORITHMS[name]
    if as_two:
        algorithm = type(algorithm.__name__, (AsTwo, algorithm), {})
    return train(
        "RSS-Shapes-ImageReward-v0",
        algorithm(samples_per_image=3, **OPTIONS[name]),
        run_dir=str(run_dir),
        image_size=(16, 16),
        env_kwargs={"num_images": 2000},
        augment="flip",
        batch_size=4,
        network_options={"width": 8},
        steps=STEPS,
        seed=SEED,
        log_every=1,
        progress=False,
        **arguments,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(sys.argv[1], Path(sys.argv[2]))
