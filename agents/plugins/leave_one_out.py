"""The leave-one-out baseline: every sample is compared with the other samples of its image."""

from __future__ import annotations

import torch

from rss_env.errors import OptionError


def leave_one_out(rewards: torch.Tensor) -> torch.Tensor:
    """Aᵏ = Rᵏ − mean of the other K − 1 rewards of the image: an unbiased advantage without a critic.

    Args:
        rewards: float (B, K, ...): one number a label map, or one a pixel.

    Returns:
        The shape of ``rewards``; the sum over K is 0.

    Raises:
        OptionError: fewer than 2 samples.

    Example:
        >>> leave_one_out(torch.tensor([[0.0, 1.0, 0.5]]))
        tensor([[-0.7500,  0.7500,  0.0000]])
    """
    samples = rewards.shape[1]
    if samples < 2:
        raise OptionError(f"Leave-one-out needs at least 2 samples of each image, got {samples}.")
    return (rewards - rewards.mean(dim=1, keepdim=True)) * (samples / (samples - 1))
