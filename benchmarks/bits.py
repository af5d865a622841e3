"""How many bits a label map holds, and how many its scores can tell: bounds, with what each assumes.

T is the target, a₁…a_K are the label maps of one visit, drawn independently of each other and of T by what was known
before, and R₁…R_K their scores. All that the visit can tell of T is I(T; R₁…R_K | a₁…a_K). Whatever the belief about T
is, and however its pixels depend on each other,

    I(T; R₁…R_K | a₁…a_K) ≤ h(R₁…R_K) − h(R₁…R_K | T, a₁…a_K),

and R₁…R_K has, over draws and targets, the covariance v·1 + w·11ᵀ: v is the variance of the scores of one image's
samples, its mean over the images, and w the variance of the samples' mean between images. Both can be measured without
a belief. A Gaussian of that covariance has the largest entropy. ``docs/information.md`` has the derivations.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import ArrayLike

LATTICE = 1 / 12  # variance of a uniform number of width 1, which makes an integer a continuous number
IGNORED = 255

# What a visit can tell ------------------------------------------------------------------------------------------------


def exact_visit_bits(samples: int, variance: float, level: float = 0.0) -> float:
    """Bound on what the K exact scores of a visit tell, of scores that are integers, such as counts of right pixels.

    ½ log₂((2πe)^K det(v·1 + w·11ᵀ + 1/12·1)): an integer plus a uniform number of width 1 has the integer's entropy.

    Args:
        samples: K.
        variance: v, of the integers of one image.
        level: w, of their mean between images; 0: a level that is known.
    """
    if variance == 0 and level == 0:
        return 0.0
    blurred = variance + LATTICE
    return samples / 2 * math.log2(2 * math.pi * math.e * blurred) + level_bits(samples, blurred, level)


def exact_comparison_bits(samples: int, variance: float) -> float:
    """``exact_visit_bits`` of the K − 1 differences from the first score, which is what is left without the level."""
    if samples < 2 or variance == 0:
        return 0.0
    blurred = variance + LATTICE
    offset = math.log2((samples * variance + LATTICE) / blurred) / 2
    return (samples - 1) / 2 * math.log2(2 * math.pi * math.e * blurred) + offset


def noisy_visit_bits(samples: int, variance: float, noise: float, level: float = 0.0) -> float:
    """Bound on what the K scores of a visit tell under Gaussian noise: ½ log₂ det(1 + (v·1 + w·11ᵀ) / τ²).

    Args:
        samples: K.
        variance: v, of the scores of one image, without the noise.
        noise: τ, its standard deviation, above 0.
        level: w, as in ``exact_visit_bits``.
    """
    gained = samples / 2 * math.log2(1 + variance / noise**2)
    return gained + level_bits(samples, variance + noise**2, level)


def noisy_comparison_bits(samples: int, variance: float, noise: float) -> float:
    """``noisy_visit_bits`` of the K − 1 differences: (K − 1)/2 · log₂(1 + v/τ²)."""
    return (samples - 1) / 2 * math.log2(1 + variance / noise**2)


def level_bits(samples: int, variance: float, level: float) -> float:
    """What the mean of K numbers of variance v adds, if it varies by w between images: ½ log₂(1 + K·w/v)."""
    return math.log2(1 + samples * level / variance) / 2


def level_of_answers_bits(samples: int, answers: int) -> float:
    """Bound on what K answers tell without a look at what was asked: log₂ of the number of their histograms."""
    return math.log2(math.comb(samples + answers - 1, answers - 1))


def answers_visit_bits(samples: int, entropy_bits: float, answers: int) -> float:
    """Bound on what K answers of N kinds tell, such as stars: K·H + log₂(histograms), and at most K·log₂ N.

    Args:
        samples: K.
        entropy_bits: H, the entropy of an answer to a draw for one image, its mean over the images.
        answers: N.
    """
    return min(samples * entropy_bits + level_of_answers_bits(samples, answers), samples * math.log2(answers))


def preference_bits(probability: ArrayLike) -> float:
    """Bound on what a preference between two label maps tells: 1 − E[H(p)].

    Args:
        probability: p, that the first is preferred, for each pair; 0 and 1 are answers without chance.
    """
    return float(1 - np.mean([entropy([p, 1 - p]) for p in np.asarray(probability, float).ravel()]))


def entropy(weights: ArrayLike) -> float:
    """Entropy in bits of the distribution that is proportional to weights of at least 0, not all 0."""
    p = np.asarray(weights, float).ravel()
    p = p[p > 0] / p.sum()
    return float(-(p * np.log2(p)).sum() + 0.0)


# What a label map holds -----------------------------------------------------------------------------------------------


def frequencies(targets: np.ndarray, num_classes: int) -> np.ndarray:
    """Share of each class among the counted pixels, float64 (C,), with half a pixel for each class on top."""
    counts = np.bincount(targets[targets < num_classes], minlength=num_classes) + 0.5
    return counts / counts.sum()


def marginal_bits(targets: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Bits of label maps whose pixels are taken as independent draws from the classes' shares, float64 (n,).

    Args:
        targets: uint8 (n, H, W); pixels above C − 1 cost nothing.
        shares: (C,), above 0.
    """
    costs = np.append(-np.log2(shares), 0.0)  # of an ignored pixel
    return costs[np.minimum(targets, len(shares))].sum(axis=(1, 2))


def deflate_bits(target: np.ndarray) -> int:
    """Bits of one label map as Deflate writes it, the shorter of plain rows and differences from the row above.

    An upper bound on what describes it to someone who has seen no other. Ignored pixels take the label before them.

    Args:
        target: uint8 (H, W).
    """
    labels = target.ravel()
    place = np.maximum.accumulate(np.where(labels == IGNORED, 0, np.arange(labels.size)))
    filled = labels[place].reshape(target.shape)
    differences = np.diff(filled, axis=0, prepend=np.uint8(0))
    return 1 + 8 * min(len(_deflate(filled)), len(_deflate(differences)))


def _deflate(labels: np.ndarray) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9)  # without header and checksum
    return packer.compress(labels.tobytes()) + packer.flush()


class NeighbourCode:
    """A lossless code that knows how labels follow their neighbours: left, above, and above to the right.

    P(label | neighbours) is fitted on some label maps. −Σ log₂ P is what an arithmetic coder needs for another one, to
    two bits, so it is an upper bound on the description of a label map for someone who has those of other images.

    Args:
        targets: uint8 (n, H, W), which it is fitted on; ignored pixels count as neighbours only.
        num_classes: C.
    """

    def __init__(self, targets: np.ndarray, num_classes: int) -> None:
        self.num_classes = num_classes
        places = self._places(targets)[targets < num_classes]
        shape = ((num_classes + 1) ** 3, num_classes)
        counts = np.bincount(places, minlength=math.prod(shape)).reshape(shape)
        shares = frequencies(targets, num_classes)  # what a context that was never seen expects
        self._bits = -np.log2((counts + shares) / (counts.sum(axis=1, keepdims=True) + 1)).ravel()

    def bits(self, targets: np.ndarray) -> np.ndarray:
        """Bits of each of n label maps, float64 (n,); uint8 (n, H, W)."""
        counted = targets < self.num_classes
        costs = self._bits[np.where(counted, self._places(targets), 0)]
        return np.where(counted, costs, 0.0).sum(axis=(1, 2))

    def _places(self, targets: np.ndarray) -> np.ndarray:
        """Place of every pixel in the table of contexts and labels, int64 (n, H, W); of counted pixels only."""
        outside = self.num_classes
        labels = np.minimum(targets, outside).astype(np.int64)
        padded = np.pad(labels, ((0, 0), (1, 0), (1, 1)), constant_values=outside)
        left, above, right = padded[:, 1:, :-2], padded[:, :-1, 1:-1], padded[:, :-1, 2:]
        return (((left * (outside + 1) + above) * (outside + 1)) + right) * outside + labels
