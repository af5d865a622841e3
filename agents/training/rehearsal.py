"""Images and what was last taught of them: the policy learns it again without asking for a score."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch

NAMES = ("rehearsal_index", "rehearsal_when", "rehearsal_image", "rehearsal_taught")  # in a checkpoint


class Kept(NamedTuple):
    """What was taught of an image.

    Attributes:
        when: number of the update.
        image: uint8 (H, W, 3), as it was shown.
        taught: float16 (C, H, W), probabilities of the classes, or uint8 (H, W), labels.
    """

    when: int
    image: torch.Tensor
    taught: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Bytes it takes in memory."""
        return self.image.nbytes + self.taught.nbytes


class Rehearsal:
    """The last lesson on every image; when full, the oldest goes first.

    Args:
        megabytes: most memory used, in MB of 10⁶ bytes; one batch is kept in any case.
    """

    def __init__(self, megabytes: float) -> None:
        self.capacity = int(megabytes * 1e6)
        self.nbytes = 0
        self._kept: OrderedDict[int, Kept] = OrderedDict()  # by index of the image, the one taught last at the end

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, index: Sequence[int], when: int, images: torch.Tensor, taught: torch.Tensor) -> None:
        """Keeps what is taught of a batch in the place of what was taught of its images before.

        Args:
            index: of each image in its split.
            when: number of the update.
            images: uint8 (B, H, W, 3).
            taught: float (B, C, H, W), probabilities, or integers (B, H, W), labels.
        """
        small = taught.half() if taught.is_floating_point() else taught.to(torch.uint8)
        for i, image, of_image in zip(index, images, small, strict=True):
            self._put(i, Kept(when, image.clone(), of_image.clone()))
        least = len(set(index))
        while self.nbytes > self.capacity and len(self._kept) > least:
            self.nbytes -= self._kept.popitem(last=False)[1].nbytes

    def draw(self, number: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Images that are kept, each as likely as the others and none twice as long as there are enough.

        Returns:
            Images, uint8 (number, H, W, 3), and what was taught of them, (number, ...), on the generator's device.
        """
        kept, device = list(self._kept.values()), generator.device
        order = torch.randperm(len(kept), generator=generator, device=device)
        if number > len(kept):
            order = torch.randint(len(kept), (number,), generator=generator, device=device)
        drawn = [kept[place] for place in order[:number].tolist()]
        images = torch.stack([each.image.to(device) for each in drawn])  # those from a checkpoint are on the CPU
        return images, torch.stack([each.taught.to(device) for each in drawn])

    def clear(self) -> None:
        """Forgets everything."""
        self._kept.clear()
        self.nbytes = 0

    def _put(self, index: int, new: Kept) -> None:
        if index in self._kept:
            self.nbytes -= self._kept.pop(index).nbytes
        self._kept[index] = new
        self.nbytes += new.nbytes

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold, on the CPU, oldest first."""
        if not self._kept:
            return {}
        when, images, taught = zip(*self._kept.values(), strict=True)
        values = (
            torch.tensor(list(self._kept)),
            torch.tensor(when),
            torch.stack([image.cpu() for image in images]),
            torch.stack([of_image.cpu() for of_image in taught]),
        )
        return dict(zip(NAMES, values, strict=True))

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Puts what ``state_dict()`` gave to what is kept; of an image that is in both what was taught last."""
        if not state:
            return
        merged = dict(self._kept)
        index, *fields = (state[name] for name in NAMES)
        for i, when, image, taught in zip(index.tolist(), *fields, strict=True):
            if i not in merged or merged[i].when < when:
                merged[i] = Kept(int(when), image.clone(), taught.clone())
        self.clear()
        for i, each in sorted(merged.items(), key=lambda item: item[1].when):
            self._put(i, each)  # what is too much goes with the next visit
