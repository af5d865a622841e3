"""Parts of an image that belong together: superpixels, in which a rater is asked about many pixels at once."""

from __future__ import annotations

import numpy as np

ROUNDS = 6
COMPACTNESS = 1.5  # weight of the distance in the image against that of the colour


def superpixels(image: np.ndarray, side: int) -> np.ndarray:
    """Divides an image into parts of similar colour: k-means of colour and place, as SLIC (Achanta et al., 2012).

    Args:
        image: uint8 (H, W, 3).
        side: about the side of a part, in pixels.

    Returns:
        int64 (H, W), numbers 0, 1, 2, … of the parts; each has at least one pixel, in one piece or more.
    """
    height, width = image.shape[:2]
    rows, columns = (max(1, round(length / side)) for length in (height, width))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    colour = image.reshape(-1, 3) / np.float32(image.std() + 8)
    place = np.stack([y.ravel(), x.ravel()], axis=1) * np.float32(COMPACTNESS / side)
    pixels = np.concatenate([colour, place], axis=1, dtype=np.float32)  # (H·W, 5)
    label = ((y * rows // height) * columns + x * columns // width).astype(np.int64).ravel()
    for _ in range(ROUNDS):
        count = np.bincount(label, minlength=rows * columns)
        sums = np.stack([np.bincount(label, values, rows * columns) for values in pixels.T], axis=1)
        centres = (sums / np.maximum(count, 1)[:, None]).astype(np.float32)  # (parts, 5)
        distance = (centres**2).sum(axis=1) - 2 * pixels @ centres.T  # squared, but for what all parts have in common
        label = np.where(count > 0, distance, np.inf).argmin(axis=1)
    return np.unique(label, return_inverse=True)[1].reshape(height, width)
