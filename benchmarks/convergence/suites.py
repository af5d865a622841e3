"""The runs of ``benchmarks.convergence``: methods, data sets, sizes and seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rss_env.errors import OptionError

LEVELS = ("image", "pixel")


@dataclass(frozen=True)
class Spec:
    """One training run.

    Attributes:
        dataset: ``"shapes"`` or ``"camvid"``.
        level: reward level, ``"image"`` or ``"pixel"``.
        method: key in ``METHODS``.
        samples: label maps an image (K); 0 where the method scores none.
        seed: of everything random.
        image_size: height and width in pixels.
        steps: optimiser steps.
        batch_size: images a step.
        evaluations: points of the learning curve, at equal distances.
    """

    dataset: str
    level: str
    method: str
    samples: int
    seed: int
    image_size: tuple[int, int]
    steps: int
    batch_size: int = 8
    evaluations: int = 10

    @property
    def key(self) -> tuple[str, ...]:
        """What identifies the run in a results file."""
        return tuple(str(value) for value in self.columns.values())

    @property
    def columns(self) -> dict[str, str | int]:
        """The columns of a results file that describe the run."""
        return {
            "dataset": self.dataset,
            "level": self.level,
            "method": self.method,
            "samples_per_image": self.samples,
            "seed": self.seed,
            "image_size": "x".join(map(str, self.image_size)),
            "steps": self.steps,
            "batch_size": self.batch_size,
        }

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return "-".join(self.key)

    @property
    def cost(self) -> int:
        """The pixels that the network sees, about proportional to the time of the run."""
        return self.steps * self.batch_size * self.image_size[0] * self.image_size[1]

    def command(self, camvid: str | None) -> list[str]:
        """The module and its arguments, without the run folder.

        Args:
            camvid: folder of the CamVid data set.

        Raises:
            OptionError: the run needs CamVid and no folder is given.
        """
        level = "Image" if self.level == "image" else "Pixel"
        module, *further = METHODS[self.method].split()
        words = [module, "--env-id"]
        if self.dataset == "camvid":
            if camvid is None:
                raise OptionError("This suite trains on CamVid: give its folder with --camvid.")
            words += [f"RSS-Folder-{level}Reward-v0", "--root", camvid]
        else:
            words += [f"RSS-Shapes-{level}Reward-v0"]
        words += ["--image-size", *map(str, self.image_size), "--steps", str(self.steps), "--seed", str(self.seed)]
        every = max(1, self.steps // self.evaluations)
        words += ["--batch-size", str(self.batch_size), "--eval-every", str(every)]
        words += ["--log-every", str(math.gcd(every, 10))]  # so that queries and seconds are logged at every evaluation
        if self.samples:
            words += ["--samples-per-image", str(self.samples)]
        return words + further


PIXELS = "agents.likelihood --regions --replay 256 --decay-from 0"
"""Every pixel is judged by itself; the learning rate falls as soon as it is up, as it was when this was measured."""

METHODS = {
    "cross_entropy": "agents.supervised",
    "reinforce": "agents.rss --entropy-gain 0 --no-sync-an --advantage batch",
    "leave_one_out": "agents.rss --entropy-gain 0 --no-sync-an",
    "sync_an": "agents.rss --entropy-gain 0",
    "entropy": "agents.rss",
    "psr": "agents.rss --cells 4 2 1",
    "psd": "agents.rss --cells 4 2 1 --advantage psd",
    "likelihood": "agents.likelihood --regions --replay 0 --decay-from 0",
    "replay": PIXELS,
    "regions": "agents.likelihood",
    "replay_accuracy": f"{PIXELS} --reward pixel_accuracy",
    "replay_stars": f"{PIXELS} --wrap stars:5",
    "replay_noise": f"{PIXELS} --wrap noise:0.05",
    "regions_accuracy": "agents.likelihood --reward pixel_accuracy",
    "regions_stars": "agents.likelihood --wrap stars:5",
    "regions_noise": "agents.likelihood --wrap noise:0.05",
    "entropy_stars": "agents.rss --wrap stars:5",
    "entropy_noise": "agents.rss --wrap noise:0.05",
}
"""Training command of each method; in the ablation each adds to the one before it."""

TITLES = {
    "cross_entropy": "cross-entropy on pixel labels",
    "reinforce": "REINFORCE, batch baseline",
    "leave_one_out": "leave-one-out baseline",
    "sync_an": "leave-one-out, SyncAN",
    "entropy": "leave-one-out, SyncAN, entropy target",
    "psr": "leave-one-out, SyncAN, entropy target, PSR",
    "psd": "leave-one-out, SyncAN, entropy target, PSR, PSD",
    "likelihood": "likelihood, pixel by pixel",
    "replay": "likelihood, pixel by pixel, replay",
    "regions": "likelihood in regions, replay (default)",
    "replay_accuracy": "pixel by pixel, pixel accuracy as the score",
    "replay_stars": "pixel by pixel, five stars",
    "replay_noise": "pixel by pixel, noise 0.05",
    "regions_accuracy": "default, pixel accuracy as the score",
    "regions_stars": "default, five stars",
    "regions_noise": "default, noise 0.05",
    "entropy_stars": "leave-one-out, SyncAN, entropy target, five stars",
    "entropy_noise": "leave-one-out, SyncAN, entropy target, noise 0.05",
}
STEPS = {"sync_an": "+ SyncAN", "entropy": "+ entropy target", "psr": "+ PSR", "psd": "+ PSD"}
"""Titles of these methods next to the one that they add to."""

ABLATION = ("reinforce", "leave_one_out", "sync_an", "entropy", "psr", "psd", "likelihood", "replay", "regions")

SHAPES = Spec("shapes", "image", "", 16, 0, (64, 64), 600)
CAMVID = Spec("camvid", "image", "", 32, 0, (72, 96), 1000)


def headline(seeds: Iterable[int]) -> list[Spec]:
    """The likelihood, in regions and pixel by pixel, against cross-entropy.

    Real photos are learned at both levels, procedural images at image level.

    Photos add the plain policy gradient, procedural images another score, the pixel accuracy. Procedural images get
    more steps, because cross-entropy is still rising on them after 1,000.
    """
    shapes = replace(SHAPES, samples=32, steps=1500)
    runs = []
    for seed in seeds:
        runs += [
            replace(CAMVID, method="cross_entropy", samples=0, seed=seed),
            replace(CAMVID, method="replay", seed=seed),
            replace(CAMVID, method="regions", seed=seed),
            replace(CAMVID, method="entropy", seed=seed),
            replace(CAMVID, method="replay", level="pixel", samples=8, seed=seed),
            replace(shapes, method="cross_entropy", samples=0, seed=seed),
            replace(shapes, method="replay", seed=seed),
            replace(shapes, method="regions", seed=seed),
            replace(shapes, method="replay_accuracy", seed=seed),
            replace(shapes, method="regions_accuracy", seed=seed),
        ]
    return runs


def queries(seeds: Iterable[int]) -> list[Spec]:
    """Few reward queries: the likelihood at small K, both ways, and the plain policy gradient at K = 8 and 64."""
    runs = [("replay", 8), ("entropy", 64), ("replay", 4), ("replay", 16), ("replay", 2), ("entropy", 8)]
    runs += [("regions", samples) for samples in (2, 4, 8)]
    return [replace(CAMVID, method=method, samples=samples, seed=seed) for seed in seeds for method, samples in runs]


def feedback(seeds: Iterable[int]) -> list[Spec]:
    """Scores rounded to five stars, and scores with Gaussian noise."""
    methods = ("replay_stars", "replay_noise", "regions_stars", "regions_noise", "entropy_stars", "entropy_noise")
    return [replace(CAMVID, method=method, seed=seed) for seed in seeds for method in methods]


def ablation(seeds: Iterable[int], quick: bool = False) -> list[Spec]:
    """Every part of the method in turn, on both data sets and at both levels; smaller images than the headline's."""
    shapes = replace(SHAPES, image_size=(32, 32), steps=300, evaluations=6)
    camvid = replace(CAMVID, image_size=(48, 64), steps=300, evaluations=6)
    if quick:
        shapes = replace(shapes, image_size=(32, 32), steps=150, evaluations=3)
        camvid = replace(camvid, image_size=(24, 32), steps=100, samples=16, evaluations=2)
    runs = []
    for seed in seeds:
        for base in (shapes, camvid):
            runs.append(replace(base, method="cross_entropy", samples=0, seed=seed))
            runs += [
                replace(base, method=method, level=level, seed=seed)
                for level in LEVELS
                for method in ABLATION
                if level == "image" or method != "regions"  # which has no meaning where every pixel has its own score
            ]
    return runs


SUITES = {"headline": headline, "ablation": ablation, "queries": queries, "feedback": feedback}
