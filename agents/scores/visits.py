"""Earlier visits of an image: label maps and their scores, replayed without a new query."""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..ops.torch_ops import labels_a_number
from .packing import PackedMaps, packed_bytes

BLOCK, TOGETHER = 8_000_000, 64  # most bytes, and most visits, that memory is reserved for at once


@dataclass(frozen=True)
class Visit:
    """The K label maps of one image that were scored together.

    Attributes:
        index: number of the image in its split.
        label_maps: (K, H, W), of the image as it is stored, not mirrored.
        scores: float64 (K,).
        when: number that no other visit has, and that grows with time.
        crop: top, left, height and width of the part of the stored image that was shown; None for a whole image.
        belief: float16 (C, H, W), log-probabilities after the visit, of the image as it is stored; None if they are not
            kept, or there was a later visit.
        visits: number of visits that the belief rests on, this one counted in; 0 without a belief.
    """

    index: int
    label_maps: PackedMaps
    scores: torch.Tensor
    when: int
    crop: tuple[float, ...] | None = None
    belief: torch.Tensor | None = None
    visits: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes it takes in memory."""
        belief = 0 if self.belief is None else self.belief.nbytes
        return self.label_maps.nbytes + self.scores.nbytes + belief


def visit_bytes(samples: int, image_size: Sequence[int], num_classes: int) -> int:
    """``Visit.nbytes`` of K label maps of C classes and a height and width."""
    return packed_bytes(samples * math.prod(image_size), num_classes) + 8 * samples


class Slots:
    """Places of one size for tensors that are kept long, many in one block of memory.

    Kept one by one, such tensors lie between those that a training step needs for a moment, and what those leave free
    is too small for the next, so that the memory of a process grows.
    """

    def __init__(self) -> None:
        self._free: list[torch.Tensor] = []
        self._taken = 0

    def keep(self, value: torch.Tensor) -> torch.Tensor:
        """A copy in a free place; all values have one shape and type, and lie on one device."""
        if not self._free:
            many = max(1, min(TOGETHER, BLOCK // max(1, value.nbytes)))
            self._free += value.new_empty((many, *value.shape)).unbind()
        self._taken += 1
        return self._free.pop().copy_(value)

    def give_back(self, place: torch.Tensor) -> None:
        """Frees a place that ``keep`` gave; with the last one the memory goes."""
        self._free.append(place)
        self._taken -= 1
        if self._taken == 0:  # such as that of visits from a checkpoint, which lie on the CPU
            self._free.clear()


class VisitMemory:
    """The last visits of every image; when full, the oldest of all goes first.

    Args:
        visits: most visits kept of one image; 0 keeps none.
        megabytes: most memory used, in MB of 10⁶ bytes.
        num_classes: C of the label maps.
    """

    def __init__(self, visits: int, megabytes: float, num_classes: int = 256) -> None:
        self.visits = visits
        self.capacity = int(megabytes * 1e6)
        self.num_classes = num_classes
        self.nbytes = 0
        self._kept: OrderedDict[int, Visit] = OrderedDict()  # by serial number, oldest first
        self._of_image: dict[int, deque[int]] = defaultdict(deque)  # serial numbers, oldest first
        self._next = 0
        self._slots: dict[tuple[torch.Size, torch.device], Slots] = defaultdict(Slots)  # of label maps

    def __len__(self) -> int:
        return len(self._kept)

    def recall(self, index: int, crop: tuple[float, ...] | None = None) -> list[Visit]:
        """The visits of one crop of an image, newest first; those of other crops are of other pixels.

        They hold until the next one is stored, which may take their place.
        """
        visits = [self._kept[serial] for serial in reversed(self._of_image.get(index, ()))]
        return [visit for visit in visits if visit.crop == crop]

    def store(self, visit: Visit) -> None:
        """Keeps a visit, with a copy of its label maps; its scores must not share memory with anything that changes."""
        if not self.visits or visit.nbytes > self.capacity:
            return
        self._forget_beliefs(visit.index, visit.crop)
        packed = visit.label_maps
        visit = replace(visit, label_maps=replace(packed, numbers=self._slots_of(packed.numbers).keep(packed.numbers)))
        serials = self._of_image[visit.index]
        serials.append(self._next)
        self._kept[self._next] = visit
        self.nbytes += visit.nbytes
        self._next += 1
        if len(serials) > self.visits:
            self._forget(serials[0])
        while self.nbytes > self.capacity:
            self._forget(next(iter(self._kept)))

    def _forget_beliefs(self, index: int, crop: tuple[float, ...] | None) -> None:
        """Leaves earlier visits of a crop of an image without what was believed, which does not know of later ones."""
        for serial in self._of_image.get(index, ()):
            visit = self._kept[serial]
            if visit.belief is not None and visit.crop == crop:
                self._kept[serial] = replace(visit, belief=None, visits=0)
                self.nbytes -= visit.belief.nbytes

    def _slots_of(self, numbers: torch.Tensor) -> Slots:
        return self._slots[numbers.shape, numbers.device]

    def _forget(self, serial: int) -> None:
        visit = self._kept.pop(serial)
        self._slots_of(visit.label_maps.numbers).give_back(visit.label_maps.numbers)
        self.nbytes -= visit.nbytes
        serials = self._of_image[visit.index]
        serials.remove(serial)
        if not serials:
            del self._of_image[visit.index]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold: tensors only, on the CPU, oldest visit first."""
        kept = list(self._kept.values())
        if not kept:
            return {}
        return {
            "index": torch.tensor([visit.index for visit in kept]),
            "label_maps": torch.stack([visit.label_maps.numbers.cpu() for visit in kept]),
            "shape": torch.tensor(kept[0].label_maps.shape),
            "num_classes": torch.tensor(kept[0].label_maps.num_classes),
            "scores": torch.stack([visit.scores.cpu() for visit in kept]),
            "when": torch.tensor([visit.when for visit in kept]),
            **({} if kept[0].crop is None else {"crop": torch.tensor([visit.crop for visit in kept]).double()}),
            **_beliefs(kept),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the visits of ``state_dict()`` and those that are kept together, each once and in the order of time.

        Raises:
            ValueError: the label maps are of another number of classes, not as many as there should be, or no label
                maps; a kernel would take such labels for addresses.
        """
        if not state:
            return
        merged = {visit.when: visit for visit in self._kept.values()}
        shape, num_classes, numbers = tuple(state["shape"].tolist()), int(state["num_classes"]), state["label_maps"]
        if num_classes != self.num_classes:
            raise ValueError(f"the memory is of {num_classes} classes, not of {self.num_classes}")
        if numbers.dtype != torch.int32 or numbers[:1].nbytes != packed_bytes(math.prod(shape), num_classes):
            raise ValueError(f"{numbers.dtype} {tuple(numbers.shape)} are no packed label maps of {shape}")
        highest, limit = (
            int(numbers.numpy().view(np.uint32).max(initial=0)),
            num_classes ** labels_a_number(num_classes),
        )
        if highest >= limit:
            raise ValueError(f"packed label maps hold number {highest}; valid: 0..{limit - 1}")
        crops = [tuple(crop) for crop in state["crop"].tolist()] if "crop" in state else [None] * len(numbers)
        beliefs: list[tuple[torch.Tensor | None, int]] = [(None, 0)] * len(numbers)
        if "believed" in state:
            visits = state.get("visits", torch.ones(len(state["believed"])))  # older files do not say
            for place, belief, many in zip(state["believed"], state["belief"], visits, strict=True):
                beliefs[int(place)] = belief.clone(), int(many)
        columns = (
            state["index"].tolist(),
            state["label_maps"],
            state["scores"],
            state["when"].tolist(),
            crops,
            beliefs,
        )
        for index, numbers, scores, when, crop, known in zip(*columns, strict=True):
            merged[when] = Visit(index, PackedMaps(numbers, shape, num_classes), scores.clone(), when, crop, *known)
        self._kept.clear()
        self._of_image.clear()
        self._slots.clear()
        self.nbytes = 0
        for when in sorted(merged):
            self.store(merged[when])


def _beliefs(visits: Sequence[Visit]) -> dict[str, torch.Tensor]:
    """What was believed after those visits that have it, and which of them they are."""
    known = [(i, visit.belief.cpu(), visit.visits) for i, visit in enumerate(visits) if visit.belief is not None]
    if not known:
        return {}
    places, beliefs, counts = zip(*known, strict=True)
    return {"believed": torch.tensor(places), "belief": torch.stack(beliefs), "visits": torch.tensor(counts)}
