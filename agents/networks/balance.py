"""Label maps that give rare classes their due: a policy's logits, less a part of how frequent it finds each class.

The most probable class of every pixel makes the most pixels right. The mean IoU counts every class alike, however few
pixels it has, so there a rare class is worth choosing at less than even odds: the logits are adjusted by −τ log π,
where π_c is the share of class c (Menon et al., Long-tail learning via logit adjustment, 2021). Here π is not counted
in labels, which there may be none of: it is the mean of the policy's own probabilities over the images that it was
trained on (``Shares``), which its checkpoint holds as ``class_shares``. Pixels that nothing was trained on are among
them, such as the border of padded photos: nobody but the reward knows which those are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rss_env.errors import OptionError

from ..errors import CheckpointError

if TYPE_CHECKING:
    from ..training.distributed import Job

LEAST = 1e-4  # share of a class that is not seen at all
SLOW = 0.05  # least weight of a look at the policy in the running mean of its shares


class Balanced(nn.Module):
    """A network whose logits are those of another one, less τ log π.

    Args:
        network: uint8 (B, H, W, 3) -> logits (B, C, H, W).
        shares: π, C of them, 0..1.
        balance: τ, 0 or more.
    """

    def __init__(self, network: nn.Module, shares: Sequence[float], balance: float) -> None:
        super().__init__()
        self.network = network
        offsets = balance * torch.tensor(shares, dtype=torch.float32).clamp(min=LEAST).log()
        self.register_buffer("offsets", offsets[:, None, None], persistent=False)
        self.offsets: torch.Tensor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (B, H, W, 3) -> logits (B, C, H, W)."""
        logits: torch.Tensor = self.network(images)
        return logits - self.offsets


def balanced(network: nn.Module, description: dict[str, Any], balance: float | None = None) -> nn.Module:
    """The network of a checkpoint, balanced.

    Args:
        network: as it was trained.
        description: that of the checkpoint; ``class_shares`` are needed where τ is not 0.
        balance: τ; None: that of the description, or 0.

    Raises:
        OptionError: a negative number, or one that is not finite, or the checkpoint has no shares.
        CheckpointError: it has a balance but no shares, or not as many as classes.
    """
    stored: float = description.get("balance", 0.0)
    wanted = stored if balance is None else balance
    if not 0 <= wanted < math.inf:
        raise OptionError(f"balance must be a number from 0 on, got {balance}.")
    if not wanted:
        return network
    shares, classes = description.get("class_shares"), description["num_classes"]
    if shares is None and balance is not None:
        raise OptionError(
            "balance needs a checkpoint that says how frequent its policy finds each class; those of earlier versions "
            "do not."
        )
    if shares is None:
        raise CheckpointError("The checkpoint has a balance but no class_shares.")
    if len(shares) != classes:
        raise CheckpointError(f"The checkpoint has class_shares of {len(shares)} classes; its policy has {classes}.")
    return Balanced(network, shares, wanted)


def as_trained(network: nn.Module) -> nn.Module:
    """The network without its balance, whose weights are stored."""
    return network.network if isinstance(network, Balanced) else network


class Shares:
    """How frequent a policy finds each class: a running mean that forgets what it found long ago.

    Attributes:
        mean: float32 (C,), or None before the first look.
    """

    def __init__(self) -> None:
        self.mean: torch.Tensor | None = None
        self.looks = 0

    def look(self, logits: Sequence[torch.Tensor]) -> None:
        """Takes in the logits of one visit, (B, C, H, W) of each of its parts."""
        found = torch.stack([part.detach().float().softmax(dim=1).mean(dim=(0, 2, 3)) for part in logits]).mean(dim=0)
        self.mean = found if self.mean is None else torch.lerp(self.mean, found, max(SLOW, 2 / (self.looks + 2)))
        self.looks += 1

    def share_out(self, job: Job) -> None:
        """Takes the mean over the processes of a job, which all must do."""
        if self.mean is not None and job.size > 1:
            found = job.mean({str(c): share for c, share in enumerate(self.mean.tolist())})
            self.mean = self.mean.new_tensor([found[str(c)] for c in range(len(found))])

    @property
    def description(self) -> dict[str, list[float]]:
        """What a checkpoint says of them; nothing before the first look."""
        return {} if self.mean is None else {"class_shares": [round(share, 6) for share in self.mean.tolist()]}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on."""
        return {"mean": None if self.mean is None else self.mean.cpu(), "looks": self.looks}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Goes on from ``state_dict()``."""
        mean = state["mean"]
        self.mean, self.looks = None if mean is None else mean.to(device), int(state["looks"])
