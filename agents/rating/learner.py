"""Trains a policy from the answers that have come so far, while more are coming.

Every update is one step of AdamW on the negative log-likelihood (``belief``) of all answers to the images of a batch;
every answer is replayed for as long as the training goes on. What is shown, evaluated and saved is a running mean of
the weights.
"""

from __future__ import annotations

import copy
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..networks.balance import Shares
from ..networks.checkpoints import predict_logits
from ..networks.fine_tuning import make_optimiser
from .answers import Answer
from .belief import RaterModel, expected_answer, log_likelihood, shift_penalty

CHUNK = 16  # images in one forward pass
WARM_UP = 20  # updates


@dataclass
class LearnerOptions:
    """How the policy learns.

    Attributes:
        learning_rate: of AdamW, after a short rise.
        weight_decay: of AdamW.
        batch_size: most images an update.
        mean_of: updates that the running mean of the weights goes back, about.
        seed: of the choice of images.
    """

    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    batch_size: int = 8
    mean_of: int = 50
    seed: int = 1


class Learner:
    """A policy and what it learns from; its methods may be called from several threads.

    Args:
        network: the policy, with its first weights.
        images: uint8 (n, H, W, 3).
        names: of the images, ``answers.image_name``.
        options: how it learns.
        model: of the raters.
        device: where it learns.

    Attributes:
        policy: the running mean, which predicts.
        weights: held by whoever reads or changes the policy.
        updates: done so far.
    """

    def __init__(
        self,
        network: nn.Module,
        images: np.ndarray,
        names: Sequence[str],
        options: LearnerOptions,
        model: RaterModel,
        device: torch.device,
        num_classes: int = 2,
    ) -> None:
        self.options, self.model, self.device, self.images = options, model, device, images
        self.index = {name: number for number, name in enumerate(names)}
        self.num_classes = num_classes
        self.network = network.to(device).train()
        self.policy = copy.deepcopy(self.network).eval()
        self.updates = 0
        self.shifts: dict[str, nn.Parameter] = {}  # by rater
        self.optimiser, self.factors = make_optimiser(self.network, options.learning_rate, options.weight_decay)
        self.random = np.random.default_rng(options.seed)
        self._answers: dict[int, dict[int, Answer]] = defaultdict(dict)  # image -> number of the answer
        self._lock = threading.Lock()  # of the answers
        self.weights = threading.Lock()  # of the policy

    def add(self, answer: Answer) -> None:
        """Learns from an answer from now on; a skip, or an image that is not here, teaches nothing."""
        number = self.index.get(answer.question.image)
        if number is not None and "skip" not in answer.answer:
            with self._lock:
                self._answers[number][answer.number] = answer

    def remove(self, answer: Answer) -> None:
        """Learns from an answer no longer."""
        number = self.index.get(answer.question.image)
        with self._lock:
            if number in self._answers:
                self._answers[number].pop(answer.number, None)
                if not self._answers[number]:
                    del self._answers[number]

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._answers.values()))

    def _batch(self) -> tuple[list[int], list[list[Answer]]]:
        """Images, the likelier the more answers they have, and all answers to each."""
        with self._lock:
            numbers = sorted(self._answers)
            if not numbers:  # the only answer was taken back
                return [], []
            weights = np.array([len(self._answers[number]) for number in numbers], float)
            size = min(self.options.batch_size, len(numbers))
            chosen = self.random.choice(numbers, size, replace=False, p=weights / weights.sum()).tolist()
            return chosen, [[self._answers[number][k] for k in sorted(self._answers[number])] for number in chosen]

    def update(self, rate: float = 1.0) -> dict[str, float]:
        """One step of the optimiser; without answers none.

        Args:
            rate: factor of the learning rate.

        Returns:
            Numbers to log.
        """
        chosen, answers = self._batch()
        if not chosen:
            return {}
        images = torch.from_numpy(self.images[chosen]).to(self.device)
        flipped = torch.from_numpy(self.random.random(len(chosen)) < 0.5).to(self.device)[:, None, None, None]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.network(torch.where(flipped, images.flip(2), images))
        logits = logits.float()
        probabilities = torch.where(flipped, logits.flip(3), logits).softmax(dim=1)
        count = sum(map(len, answers))
        total = probabilities.new_zeros(())
        for belief, of_image in zip(probabilities, answers, strict=True):
            for answer in of_image:
                total = total + log_likelihood(belief, answer, self._shift(answer.rater), self.model)
        loss = -total / count
        penalty = sum((shift_penalty(shift) for shift in self.shifts.values()), torch.zeros((), device=self.device))
        self.optimiser.zero_grad(set_to_none=True)
        (loss + penalty / max(len(self), 1)).backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        warm = min(1.0, (self.updates + 1) / WARM_UP) * rate
        for group, factor in zip(self.optimiser.param_groups, self.factors, strict=False):
            group["lr"] = factor * warm * self.options.learning_rate
        self.optimiser.step()
        self.updates += 1
        self._follow()
        return {"train/loss": float(loss.detach()), "train/grad_norm": float(norm)}

    def _shift(self, rater: str) -> nn.Parameter:
        if rater not in self.shifts:
            self.shifts[rater] = nn.Parameter(torch.zeros((), device=self.device))
            self.optimiser.add_param_group({"params": [self.shifts[rater]], "lr": 1e-2, "weight_decay": 0.0})
        return self.shifts[rater]

    def _follow(self) -> None:
        """Moves the running mean."""
        keep = 1 - 1 / min(self.options.mean_of, self.updates)
        with self.weights, torch.no_grad():
            own, mean = self.network.state_dict(), self.policy.state_dict()
            for name, value in mean.items():
                if value.is_floating_point():
                    value.lerp_(own[name], 1 - keep)
                else:
                    value.copy_(own[name])

    def probabilities(self, images: np.ndarray) -> torch.Tensor:
        """The policy's belief, uint8 (B, H, W, 3) -> float32 (B, C, H, W) on the CPU."""
        parts = []
        for start in range(0, len(images), CHUNK):
            with self.weights:
                logits = predict_logits(self.policy, images[start : start + CHUNK], self.device)
            parts.append(logits.float().softmax(dim=1).cpu())
        return torch.cat(parts)

    def shares(self, most: int) -> Shares:
        """How frequent the policy finds each class in an even choice of at most so many photos."""
        shares = Shares()
        shares.look([self.probabilities(self.images[:: -(-len(self.images) // most)]).log()])
        return shares

    def label_maps(self, images: np.ndarray) -> np.ndarray:
        """The policy's most probable label maps, uint8 (B, H, W)."""
        return self.probabilities(images).argmax(dim=1).to(torch.uint8).numpy()

    def foresees(self, answer: Answer) -> bool | None:
        """Whether the policy would have answered the same; None where that cannot be said."""
        number = self.index.get(answer.question.image)
        if number is None or "skip" in answer.answer:
            return None
        return expected_answer(self.probabilities(self.images[[number]])[0], answer, self.model)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from, next to the policy and the answers; tensors and numbers only."""
        return {
            "updates": self.updates,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "shifts": {rater: shift.detach().clone() for rater, shift in self.shifts.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from ``state_dict()``."""
        for rater, shift in state["shifts"].items():
            self._shift(rater).data.copy_(shift)
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.updates = int(state["updates"])
