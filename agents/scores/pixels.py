"""What pixel-level rewards say about the target: the class of a pixel, or classes that it is not.

The likelihood is exact here. If class c earned a reward at pixel i, it is log p_i(c); if the classes that were tried
there earned none, the logarithm of one minus their probabilities.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numpy as np
import torch

UNKNOWN = 255  # in a map of known classes: no class is; classes are 0..254
IGNORED_SHARE = 0.05  # prior probability that a pixel earns nothing whatever its label, as ignored ones do


def classes_found(label_maps: torch.Tensor, rewards: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the pixel-level rewards of K label maps say: a class with a reward above 0 is right, all others are not.

    Args:
        label_maps: uint8 (B, K, H, W).
        rewards: float32 (B, K, H, W).
        classes: C.

    Returns:
        ``known``, uint8 (B, H, W), the class that earned a reward, ``UNKNOWN`` where none did; and ``excluded``, bool
        (B, C, H, W), the classes that were tried and earned nothing.
    """
    batch, samples, height, width = label_maps.shape
    known = torch.full((batch, height, width), UNKNOWN, dtype=torch.uint8, device=label_maps.device)
    excluded = torch.zeros((batch, classes, height, width), dtype=torch.bool, device=label_maps.device)
    for k in range(samples):
        right = rewards[:, k] > 0
        known = torch.where(right, label_maps[:, k], known)
        tried = label_maps[:, k : k + 1].long()
        excluded.scatter_(1, tried, excluded.gather(1, tried) | ~right[:, None])
    return known, excluded


def success_loss(log_probabilities: torch.Tensor, known: torch.Tensor, excluded: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of pixel-level rewards, the mean over all pixels.

    Args:
        log_probabilities: float32 (B, C, H, W), of the belief.
        known: uint8 (B, H, W), the class that earned a reward at each pixel; ``UNKNOWN`` where none has.
        excluded: bool (B, C, H, W), classes that were tried at a pixel and earned nothing.

    Returns:
        Scalar. A pixel may be ignored by the environment and then earns nothing whatever its label; this has the prior
        probability ``IGNORED_SHARE``, so that the loss is bounded where every class was tried in vain.
    """
    found = known != UNKNOWN
    right = log_probabilities.gather(1, known.clamp(max=log_probabilities.shape[1] - 1).long()[:, None])[:, 0]
    in_vain = (log_probabilities.exp() * excluded).sum(dim=1)
    nothing = torch.log1p(-(1 - IGNORED_SHARE) * in_vain.clamp(max=1.0))
    return -torch.where(found, right, nothing).mean()


class PixelMemory:
    """What is known of the pixels of every image: their class, or classes that they are not.

    Args:
        num_classes: C.
        megabytes: most memory used, in MB of 10⁶ bytes; when full, the image that was seen longest ago is forgotten.
        image_size: (H, W) of the stored images; needed only where crops of them are kept.
    """

    def __init__(self, num_classes: int, megabytes: float, image_size: tuple[int, int] = (0, 0)) -> None:
        self.num_classes = num_classes
        self.image_size = image_size
        self.capacity = int(megabytes * 1e6)
        self.nbytes = 0
        self._kept: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()  # known, excluded packed in bits

    def __len__(self) -> int:
        return len(self._kept)

    def recall(self, index: int, crop: tuple[int, ...] | None = None) -> tuple[torch.Tensor, torch.Tensor] | None:
        """What is known of an image.

        Args:
            index: number of the image.
            crop: top, left, height and width of the part that is meant; None for the whole image.

        Returns:
            ``known``, uint8 (H, W), and ``excluded``, bool (C, H, W), of that part; None for a new image.
        """
        if index not in self._kept:
            return None
        known, packed = (array[_place(crop)] for array in self._kept[index])
        excluded = np.unpackbits(packed, axis=0, count=self.num_classes).astype(bool)
        return torch.from_numpy(known.copy()), torch.from_numpy(excluded)

    def store(
        self, index: int, known: torch.Tensor, excluded: torch.Tensor, crop: tuple[int, ...] | None = None
    ) -> None:
        """Keeps what is known now of an image, or of a crop of it; arguments as for ``recall``."""
        entry = known.cpu().numpy().copy(), np.packbits(excluded.cpu().numpy(), axis=0)
        if crop is not None:
            whole = self._kept.get(index)
            if whole is None:
                packed = np.zeros((len(entry[1]), *self.image_size), np.uint8)
                whole = np.full(self.image_size, UNKNOWN, np.uint8), packed
            for array, part in zip(whole, entry, strict=True):
                array[_place(crop)] = part
            entry = whole
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
        """What a checkpoint must hold: tensors only, the image seen longest ago first."""
        if not self._kept:
            return {}
        return {
            "index": torch.tensor(list(self._kept)),
            "known": torch.from_numpy(np.stack([known for known, _ in self._kept.values()])),
            "excluded": torch.from_numpy(np.stack([packed for _, packed in self._kept.values()])),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Adds what ``state_dict()`` holds; what two processes learned about one image is put together.

        Raises:
            ValueError: a known class is none, or the excluded ones are of another number of classes.
        """
        if not state:
            return
        wrong = (state["known"] > self.num_classes - 1) & (state["known"] != UNKNOWN)
        if state["known"].dtype != torch.uint8 or wrong.any():
            raise ValueError(f"known classes must be uint8, 0..{self.num_classes - 1} or {UNKNOWN}")
        if state["excluded"].shape[1] != math.ceil(self.num_classes / 8):
            raise ValueError(
                f"excluded classes must be {self.num_classes} bits of bytes, got {state['excluded'].shape}"
            )
        for index, known, packed in zip(
            state["index"].tolist(), state["known"].numpy(), state["excluded"].numpy(), strict=True
        ):
            if index in self._kept:
                other_known, other_packed = self._kept[index]
                known, packed = np.minimum(known, other_known), packed | other_packed
            self._put(index, (known.copy(), packed.copy()))


def _place(crop: tuple[int, ...] | None) -> tuple[Any, ...]:
    """Where a crop lies in an array (..., H, W)."""
    if crop is None:
        return (...,)
    top, left, height, width = crop
    return ..., slice(top, top + height), slice(left, left + width)
