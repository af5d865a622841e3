"""Parts of an image that belong together, in which a rater is asked about many pixels at once."""

from __future__ import annotations

import numpy as np
import torch

from ..scores.regions import make_regions


def superpixels(image: np.ndarray, side: int) -> np.ndarray:
    """Divides an image into parts of similar colour: see ``scores.regions``.

    Args:
        image: uint8 (H, W, 3).
        side: about the side of a part, in pixels.

    Returns:
        int64 (H, W), numbers 0, 1, 2, … of the parts; each has at least one pixel, in one piece or more.
    """
    regions = make_regions(torch.from_numpy(np.ascontiguousarray(image))[None], [side])
    return np.unique(regions.finest[0].numpy(), return_inverse=True)[1].reshape(image.shape[:2])
