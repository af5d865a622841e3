"""What earlier visits of an image have told: replayed without a new query."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Visit:
    """The K label maps of one image that were scored together.

    Attributes:
        index: number of the image in its split.
        label_maps: uint8 (K, H, W), of the image as it is stored, not mirrored.
        scores: float32 (K,).
        when: number that no other visit has, and that grows with time.
    """

    index: int
    label_maps: torch.Tensor
    scores: torch.Tensor
    when: int

    @property
    def nbytes(self) -> int:
        """Bytes it takes in memory."""
        return self.label_maps.nbytes + self.scores.nbytes


class VisitMemory:
    """The last visits of every image; when full, the oldest of all goes first.

    Args:
        visits: most visits kept of one image; 0 keeps none.
        megabytes: most memory used, in MB of 10⁶ bytes.
    """

    def __init__(self, visits: int, megabytes: float) -> None:
        self.visits = visits
        self.capacity = int(megabytes * 1e6)
        self.nbytes = 0
        self._kept: OrderedDict[int, Visit] = OrderedDict()  # by serial number, oldest first
        self._of_image: dict[int, deque[int]] = defaultdict(deque)  # serial numbers, oldest first
        self._next = 0

    def __len__(self) -> int:
        return len(self._kept)

    def recall(self, index: int) -> list[Visit]:
        """The visits of an image, newest first."""
        return [self._kept[serial] for serial in reversed(self._of_image.get(index, ()))]

    def store(self, visit: Visit) -> None:
        """Keeps a visit, which must not share memory with anything that changes."""
        if not self.visits or visit.nbytes > self.capacity:
            return
        serials = self._of_image[visit.index]
        serials.append(self._next)
        self._kept[self._next] = visit
        self.nbytes += visit.nbytes
        self._next += 1
        if len(serials) > self.visits:
            self._forget(serials[0])
        while self.nbytes > self.capacity:
            self._forget(next(iter(self._kept)))

    def _forget(self, serial: int) -> None:
        visit = self._kept.pop(serial)
        self.nbytes -= visit.nbytes
        serials = self._of_image[visit.index]
        serials.remove(serial)
        if not serials:
            del self._of_image[visit.index]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold: tensors alone, on the CPU, oldest visit first."""
        kept = list(self._kept.values())
        if not kept:
            return {}
        return {
            "index": torch.tensor([visit.index for visit in kept]),
            "label_maps": torch.stack([visit.label_maps.cpu() for visit in kept]),
            "scores": torch.stack([visit.scores.cpu() for visit in kept]),
            "when": torch.tensor([visit.when for visit in kept]),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the visits of ``state_dict()`` and those that are kept together, each once and in the order of time."""
        if not state:
            return
        merged = {visit.when: visit for visit in self._kept.values()}
        columns = (state["index"].tolist(), state["label_maps"], state["scores"], state["when"].tolist())
        for index, maps, scores, when in zip(*columns, strict=True):
            merged[when] = Visit(index, maps.clone(), scores.clone(), when)
        self._kept.clear()
        self._of_image.clear()
        self.nbytes = 0
        for when in sorted(merged):
            self.store(merged[when])


class PixelMemory:
    """What pixel-level rewards have told about every image: the class of a pixel, or classes that it is not.

    Args:
        num_classes: C.
        megabytes: most memory used, in MB of 10⁶ bytes; when full, the image that was seen longest ago is forgotten.
    """

    def __init__(self, num_classes: int, megabytes: float) -> None:
        self.num_classes = num_classes
        self.capacity = int(megabytes * 1e6)
        self.nbytes = 0
        self._kept: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()  # known, excluded packed in bits

    def __len__(self) -> int:
        return len(self._kept)

    def recall(self, index: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """``known``, uint8 (H, W), 255 where it is not, and ``excluded``, bool (C, H, W); None for a new image."""
        if index not in self._kept:
            return None
        known, packed = self._kept[index]
        excluded = np.unpackbits(packed, axis=0, count=self.num_classes).astype(bool)
        return torch.from_numpy(known.copy()), torch.from_numpy(excluded)

    def store(self, index: int, known: torch.Tensor, excluded: torch.Tensor) -> None:
        """Keeps what is known about an image now."""
        entry = known.cpu().numpy().copy(), np.packbits(excluded.cpu().numpy(), axis=0)
        self._put(index, entry)

    def _put(self, index: int, entry: tuple[np.ndarray, np.ndarray]) -> None:
        before = self._kept.pop(index, None)
        if before is not None:
            self.nbytes -= sum(array.nbytes for array in before)
        self._kept[index] = entry
        self.nbytes += sum(array.nbytes for array in entry)
        while self.nbytes > self.capacity:
            _, oldest = self._kept.popitem(last=False)
            self.nbytes -= sum(array.nbytes for array in oldest)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold: tensors alone, the image seen longest ago first."""
        if not self._kept:
            return {}
        return {
            "classes": torch.tensor(self.num_classes),
            "index": torch.tensor(list(self._kept)),
            "known": torch.from_numpy(np.stack([known for known, _ in self._kept.values()])),
            "excluded": torch.from_numpy(np.stack([packed for _, packed in self._kept.values()])),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Adds what ``state_dict()`` holds; what two processes learned about one image is put together."""
        if not state:
            return
        for index, known, packed in zip(
            state["index"].tolist(), state["known"].numpy(), state["excluded"].numpy(), strict=True
        ):
            if index in self._kept:
                other_known, other_packed = self._kept[index]
                known, packed = np.minimum(known, other_known), packed | other_packed
            self._put(index, (known.copy(), packed.copy()))
