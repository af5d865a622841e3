"""Which label maps to have scored: draws in cells and, where scores are rounded to a few levels, the best of them.

A star tells little if it is known beforehand. With five of them the scores of the label maps that are drawn of an image
are often all nearest to the same one. So more label maps are drawn than are scored, and those are kept whose level the
belief is least certain of, the most where the score that it expects lies in the middle between two levels. As nothing
but the belief decides which are kept, what a score says about the target stays what it was. This is our own; maths:
docs/regions.md.
"""

from __future__ import annotations

import torch

from ..ops import sample_label_maps, soft_counts
from .formulas import Formula

NEXT = 1e-9  # bits that a distance of 1 from the middle between two levels counts


def draw(logits: torch.Tensor, samples: int, temperature: float, side: int, numbers: torch.Tensor) -> torch.Tensor:
    """Draws label maps from hotter or colder probabilities, uint8 (B, samples, H, W), in cells of a side.

    ``numbers`` are three of int64, on the device of the logits: a seed and the offset of the cells' grid.
    """
    return sample_label_maps(logits, samples, numbers[:1], temperature=temperature, cell=side, offset=numbers[1:])


def level_uncertainty(mean: torch.Tensor, spread: float, levels: torch.Tensor) -> torch.Tensor:
    """The entropy in bits of the level that scores are rounded to: what the answer tells on average.

    Args:
        mean: expected scores, any shape; a score is Gaussian around it.
        spread: its standard deviation, above 0.
        levels: float64, two or more in ascending order, on the device of ``mean``.

    Returns:
        float64, 0 to log₂ of the number of levels, shape of ``mean``.
    """
    between = (levels[1:] + levels[:-1]) / 2
    below = torch.special.ndtr((between - mean.double()[..., None]) / spread)  # chance of each level and all before it
    ends = below.new_zeros((*mean.shape, 1)), below.new_ones((*mean.shape, 1))
    chances = torch.cat([below, ends[1]], dim=-1) - torch.cat([ends[0], below], dim=-1)
    return torch.special.entr(chances.clamp(min=0)).sum(dim=-1) / torch.log(levels.new_tensor(2.0))


def most_uncertain(
    belief: torch.Tensor, label_maps: torch.Tensor, samples: int, formula: Formula, spread: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keeps, of the label maps drawn for each image, those whose level the belief is least certain of.

    Args:
        belief: float32 (B, C, H, W), probabilities.
        label_maps: uint8 (B, N, H, W).
        samples: how many of the N are kept, K.
        formula: predicts their scores, and has ``levels``.
        spread: standard deviation of what the belief does not predict of a score before it is rounded.

    Returns:
        uint8 (B, K, H, W), in the order in which they were drawn, and float64 (B,), what their scores are expected to
        tell, in bits a score, each by itself.
    """
    assert formula.levels is not None
    batch, drawn = label_maps.shape[:2]
    image = torch.arange(batch, device=belief.device).repeat_interleave(drawn)
    counts = soft_counts(belief, label_maps.flatten(0, 1), image)
    mean = formula.predict(*counts, belief.sum(dim=(2, 3))[image]).mean.view(batch, drawn)
    levels = formula.levels.to(mean.device)
    told = level_uncertainty(mean, spread, levels)
    # Where none is uncertain by any number that can be held, the score that is nearest to the middle of two levels is.
    from_middle = (mean[..., None] - (levels[1:] + levels[:-1]) / 2).abs().amin(dim=2)
    kept = (told - NEXT * from_middle).topk(samples, dim=1).indices.sort(dim=1).values
    chosen = label_maps.flatten(0, 1)[kept + drawn * torch.arange(batch, device=kept.device)[:, None]]
    return chosen, told.gather(1, kept).mean(dim=1)
