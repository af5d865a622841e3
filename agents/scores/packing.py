"""Label maps in less memory: as many labels as fit are the digits of one 32-bit number in base C.

13 labels of 5 classes, 9 of 11, 7 of 21: 3.25, 2.25 and 1.75 times smaller than bytes, whatever the label maps are. So
the size is known before the first one is drawn, and nothing waits for a device. Not much more can be saved of label
maps that are drawn pixel by pixel at a temperature: they hold nearly log₂ C bits a pixel while a policy is young.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..ops.dispatch import backend
from ..ops.torch_ops import labels_a_number


@dataclass(frozen=True)
class PackedMaps:
    """Label maps of one shape.

    Attributes:
        numbers: int32 (M,), unsigned numbers read as signed ones; label i of the flattened label maps is digit i // M,
            the last digit first, of number i % M in base C.
        shape: of the label maps.
        num_classes: C.
    """

    numbers: torch.Tensor
    shape: tuple[int, ...]
    num_classes: int

    @classmethod
    def pack(cls, label_maps: torch.Tensor, num_classes: int) -> PackedMaps:
        """Packs uint8 label maps of values 0..C-1."""
        shape = tuple(label_maps.shape)
        return cls(backend(label_maps, (torch.uint8,)).pack_labels(label_maps, num_classes), shape, num_classes)

    @property
    def nbytes(self) -> int:
        """Bytes it takes in memory."""
        return self.numbers.nbytes


def unpack(packed: Sequence[PackedMaps], out: torch.Tensor) -> torch.Tensor:
    """Writes label maps of one shape and number of classes.

    Args:
        packed: the label maps, V of them, on any device.
        out: contiguous uint8 (V, *shape), on any device.

    Returns:
        ``out``.
    """
    if packed:
        numbers = [maps.numbers.to(out.device, non_blocking=True) for maps in packed]
        backend(out, (torch.uint8,)).unpack_labels(out, numbers, packed[0].num_classes)
    return out


def packed_bytes(labels: int, num_classes: int) -> int:
    """Bytes that so many labels of C classes take."""
    return 4 * math.ceil(labels / labels_a_number(num_classes))
