"""The experiments of ``benchmarks.capabilities``: one ability each, at growing difficulty.

Every experiment changes one thing of the setting that all share, ``base``: procedural images on which cross-entropy
comes close to a mean IoU of 1 in a few hundred steps, so that what an agent lacks is that ability and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import opaque_scores

ENV_ID = "RSS-Shapes-ImageReward-v0"


@dataclass(frozen=True)
class Setting:
    """What an agent is trained on, and for how long.

    Attributes:
        side: height and width of the images in pixels.
        classes: C, the background included.
        imbalance: how many times as often the first class of figures is drawn as the last.
        samples: label maps an image (K).
        visits: how often each image is seen, so steps × batch / visits images are there.
        wrap: what becomes of the scores, as ``--wrap`` takes it; empty: nothing.
        reward: a function of ``benchmarks.opaque_scores`` as the score, whose formula no agent knows; empty: the mean
            IoU by name.
        steps: optimiser steps.
        batch: images a step.
    """

    side: int = 24
    classes: int = 4
    imbalance: float = 1.0
    samples: int = 16
    visits: int = 16
    wrap: str = ""
    reward: str = ""
    steps: int = 400
    batch: int = 8

    @property
    def of_bound(self) -> Setting:
        """What it is for cross-entropy, which gets no score: settings that differ in those only are one."""
        return replace(self, samples=0, wrap="", reward="")

    @property
    def data(self) -> dict[str, Any]:
        """Options of Shapes."""
        options: dict[str, Any] = {"difficulty": "easy", "num_classes": self.classes, "imbalance": self.imbalance}
        return options | {"num_images": max(1, self.steps * self.batch // self.visits)}

    @property
    def reward_words(self) -> list[str]:
        """Flags of the training commands for score and feedback."""
        words = ["--wrap", self.wrap] if self.wrap else []
        if self.reward:
            options = json.dumps({"num_classes": self.classes})
            words += ["--reward", f"{opaque_scores.__name__}:{self.reward}", "--reward-options", options]
        return words

    @property
    def cost(self) -> int:
        """The pixels that the network sees, about proportional to the time of the run beyond its start."""
        return self.steps * self.batch * self.side**2


@dataclass(frozen=True)
class Experiment:
    """One ability.

    Attributes:
        name: of the ability.
        tests: what the experiment tests, one sentence.
        unit: what its difficulties are named by.
        difficulties: title of each difficulty and its setting, the easiest first.
    """

    name: str
    tests: str
    unit: str
    difficulties: tuple[tuple[str, Setting], ...]


def experiments(base: Setting = Setting()) -> list[Experiment]:
    """All experiments around a base setting, each with four difficulties."""

    def vary(name: str, unit: str, tests: str, changes: Sequence[tuple[str, dict[str, Any]]]) -> Experiment:
        return Experiment(name, tests, unit, tuple((title, replace(base, **change)) for title, change in changes))

    side, drifts = base.side, (0.1, 0.3, 0.6, 0.9)
    return [
        vary(
            "pixels",
            "height × width",
            "One score has to be credited to ever more pixels.",
            [(f"{s}×{s}", {"side": s}) for s in (side // 2, side, side * 4 // 3, side * 2)],
        ),
        vary(
            "classes",
            "background included",
            "The right class of a pixel has to be found among more and more.",
            [(str(c), {"classes": c}) for c in (2, 4, 6, 9)],
        ),
        vary(
            "imbalance",
            "most frequent figure : rarest",
            "Classes that are seldom seen have to be learned next to frequent ones.",
            [(f"{r}:1", {"imbalance": float(r)}) for r in (1, 3, 10, 30)],
        ),
        vary(
            "samples",
            "K",
            "Few label maps are scored for each image, in as many steps.",
            [(str(k), {"samples": k}) for k in (16, 8, 4, 2)],
        ),
        vary(
            "visits",
            "visits of an image",
            "Images are seen a few times only, so what is remembered of each says little.",
            [(str(v), {"visits": v}) for v in (16, 8, 4, 1)],
        ),
        vary(
            "noise",
            "standard deviation",
            "Scores have Gaussian noise.",
            [(str(s), {"wrap": f"noise:{s}"}) for s in (0.01, 0.03, 0.1, 0.3)],
        ),
        vary(
            "stars",
            "levels",
            "Scores are rounded to a few levels.",
            [(str(n), {"wrap": f"stars:{n}"}) for n in (11, 5, 3, 2)],
        ),
        vary(
            "preference",
            "temperature",
            "Only which of two label maps is better is told, and with temperature not always rightly.",
            [(str(t), {"wrap": f"preference:{t}"}) for t in (0.0, 0.03, 0.1, 0.3)],
        ),
        vary(
            "formula",
            "score",
            "The score is a function of which the agent knows nothing; mIoU is measured all the same.",
            [(name.replace("_", " "), {"reward": name}) for name in FORMULAS],
        ),
        vary(
            "drift",
            "share that is lost",
            "The rater grows stricter and blunter over the training: scores of different times do not compare.",
            [(str(d), {"wrap": f"drift:{-d},{1 - d:g},{base.steps}"}) for d in drifts],
        ),
    ]


FORMULAS = ("mean_iou", "cubed_mean_iou", "weighted_mean_iou", "boundary_f1")


def suite(quick: bool) -> list[Experiment]:
    """The experiments of the full size, or of a quick one: small images, few steps, least and greatest difficulty."""
    if not quick:
        return experiments()
    small = experiments(Setting(side=16, steps=100))
    return [replace(each, difficulties=(each.difficulties[0], each.difficulties[-1])) for each in small]


def settings(chosen: Sequence[Experiment]) -> list[Setting]:
    """The settings of several experiments, each once, in their order."""
    return list(dict.fromkeys(setting for each in chosen for _, setting in each.difficulties))
