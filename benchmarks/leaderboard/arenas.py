"""The environments of the leaderboard and their budgets; ``docs/environments.md`` lists them too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Arena:
    """An environment of the leaderboard with its fixed budget.

    Attributes:
        name: of the environment in results.
        env_id: id.
        image_size: height and width in pixels.
        budget: reward queries.
        options: further arguments of the environment.
    """

    name: str
    env_id: str
    image_size: tuple[int, int]
    budget: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def env_options(self) -> dict[str, Any]:
        """Arguments of the environment, without the split."""
        return {"image_size": self.image_size} | self.options


def arenas(camvid: str | None) -> list[Arena]:
    """The procedural environment, and that of CamVid where its folder is given."""
    shapes = Arena("shapes", "RSS-Shapes-ImageReward-v0", (32, 32), 32_000)
    photos = Arena("camvid", "RSS-Folder-ImageReward-v0", (48, 64), 64_000, {"root": camvid})
    return [shapes, photos] if camvid else [shapes]
