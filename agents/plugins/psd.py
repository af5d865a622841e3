"""PSD, pair-wise spatial difference: a pair's difference in reward goes to the pixels where it differs (our reading).

Two label maps a and b of one image differ in the pixels D = [a ≠ b], and only there can the difference of their rewards
come from. So it is credited there alone, shared out among the differing pixels:

    A_a = (R_a − R_b) · D / |D| · H·W,    A_b = −A_a.

Without the normaliser 1/|D| this changes nothing: where two samples agree, +A and −A meet the same log-probability and
cancel, so the estimate is that of leave-one-out with K = 2, to float precision. The normaliser weighs pairs: two maps
that differ in few pixels say much about each of them. With it the estimate is no longer the gradient of anything: it is
the field of a comparison game in which the better map of a pair wins (R_a − R_b) / |D| (docs/psd.md).

    advantages = pair_advantages(rewards, label_maps)        # (B, K, H, W), in place of leave-one-out's
"""

from __future__ import annotations

import torch

from rss_env.errors import OptionError


def pair_advantages(
    rewards: torch.Tensor, label_maps: torch.Tensor, pairs: str = "all", normalise: bool = True
) -> torch.Tensor:
    """Advantages per pixel from the pairs of an image's samples.

    Args:
        rewards: float (B, K), one number a label map, or (B, K, H, W), one a pixel (then each pixel's own difference).
        label_maps: uint8 (B, K, H, W).
        pairs: ``"disjoint"``: samples 0 and 1, 2 and 3, …: K is even; ``"all"``: each sample with every other, the mean
            over its K − 1 pairs.
        normalise: divide by the share of pixels that differ, |D| / (H·W), so that a pair's total credit does not grow
            with the number of pixels in which it differs; the mean over the pixels of a pair's credit is R_a − R_b.

    Returns:
        Of the dtype of ``rewards``, (B, K, H, W); pairs of equal label maps give 0.

    Raises:
        OptionError: fewer than 2 samples, an odd number for disjoint pairs, or an unknown kind of pairs.
    """
    samples = label_maps.shape[1]
    if pairs not in ("disjoint", "all"):
        raise OptionError(f"Unknown kind of pairs {pairs!r}; valid: disjoint, all.")
    if samples < 2 or (pairs == "disjoint" and samples % 2):
        needed = "an even number of samples" if pairs == "disjoint" else "at least 2 samples"
        raise OptionError(f"PSD with pairs={pairs!r} needs {needed} of each image, got {samples}.")
    group = 2 if pairs == "disjoint" else samples  # label maps of which each is paired with every other
    maps = label_maps.reshape(-1, group, *label_maps.shape[2:])
    given = rewards.reshape(-1, group, *rewards.shape[2:])
    credited = (_by_label_map if rewards.ndim == 2 else _by_pixel)(given, maps, normalise)
    return credited.reshape(label_maps.shape)


def _by_label_map(rewards: torch.Tensor, label_maps: torch.Tensor, normalise: bool) -> torch.Tensor:
    """One reward a label map, (groups, G): the weight of a pair is the same wherever it differs."""
    weights = (rewards[:, :, None] - rewards[:, None, :]) / (rewards.shape[1] - 1)  # (groups, G, G)
    if normalise:
        share = pair_differences(label_maps).clamp(min=1).double() / label_maps.shape[2:].numel()
        weights = (weights / share).to(rewards.dtype)
    out = weights.new_zeros(label_maps.shape)
    for j in range(label_maps.shape[1]):
        out += weights[:, :, j, None, None] * (label_maps != label_maps[:, j : j + 1])
    return out


def pair_differences(label_maps: torch.Tensor) -> torch.Tensor:
    """|D|, the number of pixels in which the label maps of an image differ, pair by pair.

    Args:
        label_maps: uint8 (B, K, H, W).

    Returns:
        int64 (B, K, K), symmetric, 0 on the diagonal, at most H·W.
    """
    rows = [(label_maps[:, k : k + 1] != label_maps).sum(dim=(2, 3)) for k in range(label_maps.shape[1])]
    return torch.stack(rows, dim=1)


def _by_pixel(rewards: torch.Tensor, label_maps: torch.Tensor, normalise: bool) -> torch.Tensor:
    """One reward a pixel, (groups, G, H, W): label maps are paired with those that stand ``shift`` behind them."""
    group = label_maps.shape[1]
    out = torch.zeros_like(rewards)
    for shift in range(1, group):
        weights = (label_maps != label_maps.roll(-shift, dims=1)).to(rewards.dtype)  # D, (groups, G, H, W)
        if normalise:
            weights /= weights.mean(dim=(2, 3), keepdim=True).clamp(min=1e-12)
        out.addcmul_(rewards - rewards.roll(-shift, dims=1), weights, value=1 / (group - 1))
    return out
