"""Photos and masks that patterns, a manifest or a library list, with the splits that they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pairs:
    """Every photo that was found.

    Attributes:
        ids: n names, each once.
        images: n paths of photos.
        masks: n paths of their masks, there or not; empty if there are none.
        splits: n names of splits; empty if nothing says which photo belongs to which.
        found: where they were found, in a few words.
    """

    ids: tuple[str, ...]
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    splits: tuple[str, ...]
    found: str

    def rows(self, split: str) -> list[int]:
        """The numbers of the photos of a split; ``"all"`` is every one."""
        return [row for row, name in enumerate(self.splits) if split in (name, "all")]
