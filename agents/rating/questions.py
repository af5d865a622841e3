"""What is asked next: label maps that the policy might draw, where an answer tells most."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from ..ops import sample_label_maps
from .answers import Answer, Question
from .regions import superpixels

Kind = Literal["stars", "pair", "ranking"]
Scope = Literal["part", "whole"]
POOL = 16  # images that a question is chosen from
SAMPLES = {"stars": 4, "pair": 2, "ranking": 4}  # label maps of a question about a whole image
TEMPERATURE = 1.5  # at which they are drawn
COVERED = 0.5  # share of a part that was asked about, from which it is not asked about again


class Questions:
    """Chooses questions.

    A question about a ``part`` of an image shows the policy's label map with the part, a superpixel, in the class that
    is likeliest there, and for a pair also with the second one: "is this part horse?" About a ``whole`` image, label
    maps are drawn from the policy in cells whose pixels share one draw. With the choice ``active`` it is the part, or
    the image, of which the policy is least sure among those of some images; otherwise any.

    Args:
        images: uint8 (n, H, W, 3).
        names: of the images.
        probabilities: the policy's, int64 (B,) numbers of images -> float32 (B, C, H, W).
        kinds: of the questions, in turn.
        scope: of the questions; rankings are always about whole images.
        choice: ``"active"`` or ``"random"``.
        side: of the parts, or of the cells, in pixels.
        seed: of the choice.
    """

    def __init__(
        self,
        images: np.ndarray,
        names: Sequence[str],
        probabilities: Callable[[np.ndarray], torch.Tensor],
        *,
        kinds: Sequence[Kind] = ("pair",),
        scope: Scope = "part",
        choice: Literal["active", "random"] = "active",
        side: int = 12,
        seed: int = 0,
    ) -> None:
        self.images, self.names, self.probabilities = images, list(names), probabilities
        self.kinds, self.scope, self.choice, self.side = tuple(kinds), scope, choice, side
        self.random = np.random.default_rng(seed)
        self.index = {name: number for number, name in enumerate(names)}
        self.covered: dict[int, np.ndarray] = {}  # bool (H, W), pixels of an image that were asked about
        self.asked = 0
        self.parts = lru_cache(maxsize=1024)(lambda number: superpixels(images[number], side))

    def next(self, updates: int, check: bool = False) -> Question:
        """A new question.

        Args:
            updates: of the policy so far.
            check: of any image and part, to see how good the policy is.
        """
        choice = "random" if check else self.choice
        kind = self.kinds[self.asked % len(self.kinds)]
        self.asked += 1
        pool = self.random.permutation(len(self.images))[: POOL if choice == "active" else 1]
        belief = self.probabilities(pool)  # (B, C, H, W)
        about_part = self.scope == "part" and kind != "ranking"
        place, part, label_maps = self._part(pool, belief, kind, choice) if about_part else self._whole(belief, kind)
        number = int(pool[place])
        question = Question(
            secrets.token_hex(8),
            kind,
            self.names[number],
            label_maps,
            part,
            "check" if check else choice,
            updates,
            time.time(),
        )
        self.cover(question)
        return question

    def cover(self, question: Question) -> None:
        """Remembers which part of an image was asked about."""
        number = self.index.get(question.image)
        if number is None or question.part is None:
            return
        if number not in self.covered:
            self.covered[number] = np.zeros(question.part.shape, bool)
        self.covered[number] |= question.part

    def replay(self, answers: Sequence[Answer]) -> None:
        """Remembers what was asked before the program was started."""
        for answer in answers:
            self.cover(answer.question)
        self.asked += len({answer.question.id for answer in answers})

    def _part(
        self, pool: np.ndarray, belief: torch.Tensor, kind: str, choice: str
    ) -> tuple[int, np.ndarray, np.ndarray]:
        """Place in the pool, part and label maps of a question about a part."""
        candidates: list[tuple[float, int, int]] = []  # doubt, place in the pool, number of the part
        means: dict[int, np.ndarray] = {}
        for place, number in enumerate(pool):
            parts = self.parts(int(number)).ravel()
            sizes = np.bincount(parts)
            flat = belief[place].flatten(1).numpy()  # (C, H·W)
            mean = np.stack([np.bincount(parts, p, len(sizes)) for p in flat], axis=1) / sizes[:, None]  # (parts, C)
            # Of the pixels, not of their mean: a part of which one half is surely one class and the other half another
            # is not in doubt, and no answer to it is right.
            entropy = torch.special.entr(belief[place]).sum(dim=0).flatten().numpy()
            doubt = np.bincount(parts, entropy, len(sizes)) / sizes
            if choice == "random":
                doubt = self.random.random(len(sizes))
            covered = self.covered.get(int(number))
            if covered is not None:
                doubt = doubt - 10 * (np.bincount(parts, covered.ravel(), len(sizes)) > COVERED * sizes)
            means[place] = mean
            candidates += [(value, place, part) for part, value in enumerate(doubt)]
        _, place, number = max(candidates)
        part = self.parts(int(pool[place])) == number
        order = np.argsort(-means[place][number], kind="stable")
        tried = order[: 2 if kind == "pair" else 1]
        if kind == "pair":
            tried = self.random.permutation(tried)  # the likelier one may stand on either side
        label_map = belief[place].argmax(dim=0).numpy().astype(np.uint8)
        return place, part, np.where(part, tried[:, None, None].astype(np.uint8), label_map)

    def _whole(self, belief: torch.Tensor, kind: str) -> tuple[int, None, np.ndarray]:
        """The same of a question about a whole image."""
        doubt = torch.special.entr(belief).sum(dim=1).mean(dim=(1, 2))
        place = int(doubt.argmax())
        seed = int(self.random.integers(2**62))
        offset = self.random.integers(self.side, size=2).tolist()
        logits = belief[place : place + 1].clamp(min=1e-6).log()
        drawn = sample_label_maps(logits, SAMPLES[kind], seed, temperature=TEMPERATURE, cell=self.side, offset=offset)
        return place, None, drawn[0].numpy()
