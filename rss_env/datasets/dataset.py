"""What every data set is once loaded: images and targets as two uint8 arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rss_env.errors import UnknownSplitError

IGNORE_INDEX = 255
MAX_CLASSES = 255


class World(Protocol):
    """Where somebody acts on a label map, and what comes of it is the score."""

    batched: bool

    def __call__(self, images: Any, label_maps: Any, targets: Any) -> np.ndarray:
        """Scores label maps as a batched reward does: see ``rss_env.rewards.batched``."""

    def draw(self, image: np.ndarray, label_map: np.ndarray, target: np.ndarray, scale: int) -> np.ndarray:
        """A picture of what was planned and what came of it.

        Args:
            image: uint8 (H, W, 3).
            label_map: uint8 (H, W).
            target: uint8 (H, W).
            scale: how much larger than the image the picture is.

        Returns:
            uint8 (scale · H, scale · W, 3).
        """


@dataclass(frozen=True, eq=False)
class SegmentationDataset:
    """One split of a data set, decoded, at one image size.

    Attributes:
        name: registry name, such as ``"VOC"``.
        split: name of the split.
        images: uint8 (n, H, W, 3), RGB, read-only, possibly memory-mapped.
        targets: uint8 (n, H, W), class of each pixel, 0..C-1 or ``IGNORE_INDEX``; read-only. None without masks.
        ids: n names, one per image.
        class_names: C names.
        palette: uint8 (C, 3), the colour of each class.
        world: scores label maps by what comes of acting on them, a batched reward; the targets then are for evaluation
            alone. None where label maps are compared with targets.
        recipe: loads this data set again; pickling sends it instead of the arrays.
    """

    name: str
    split: str
    images: np.ndarray
    targets: np.ndarray | None
    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    palette: np.ndarray
    world: World | None = None
    recipe: Callable[[], SegmentationDataset] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return len(self.class_names)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.images.shape[1], self.images.shape[2]

    def __reduce__(self) -> tuple[Any, ...]:
        if self.recipe is None:
            raise TypeError("Only a data set from load_dataset can be pickled: another has no recipe to load it again.")
        return self.recipe, ()

    def __copy__(self) -> SegmentationDataset:
        return self

    def __deepcopy__(self, memo: dict) -> SegmentationDataset:
        return self  # immutable, so copies of an environment share it


def check_split(dataset: str, split: str, valid: Iterable[str]) -> None:
    """Raises ``UnknownSplitError``, which lists the valid splits, if ``split`` is not among them."""
    names = list(valid)
    if split not in names:
        raise UnknownSplitError(f"Unknown split {split!r} of {dataset}; valid: {', '.join(names) or '(none found)'}.")
