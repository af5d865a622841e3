"""All that noisy or rounded scores have ever said of the regions of an image: an information filter.

A noisy score tells a tenth of a bit, so hundreds of an image are needed, more than are replayed; and what was believed
after a visit cannot be carried on to the next, because the scores behind it would count again. But near what is
believed a score is a linear function of the regions, and of a linear function with Gaussian noise nothing is lost if
only sums over the scores are kept. So every score counts, once. This is our own; maths: docs/regions.md.

Of one division of an image into S regions, let z_S(c) be the share of region S that is of class c. A score is

    R_k = μ_k(z₀) + F_k · (z − z₀) + noise of variance v_k + what all scores of its visit are off by,

with z₀ what was believed and F_k the derivatives at that time. An image has the sums over its scores

    G = Σ_k F_k F_kᵀ / v_k,     h = Σ_k F_k (R_k − μ_k(z₀) + F_k · z₀) / v_k,

less what a visit's offset takes from them, and the belief that knows all of them is the smallest change of the policy's
shares p_S that explains them, the minimum of

    Σ_S KL(z_S ‖ p_S) + ½ zᵀ G z − hᵀ z,     at which     log z = log p + λ + constant,     λ = h − G z.

It is found by Newton's method, and every pixel's probabilities are multiplied by exp λ of its region.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..ops import region_counts, soft_counts
from .evidence import read_scores
from .formulas import Formula
from .posterior import LEAST, SUREST, Posterior
from .regions import Regions

DOUBT = 0.5  # of the variance of noise and rounding: variance that is added for what is no linear function of regions
OFFSET = 0.02  # standard deviation of what all scores of a visit are off by, in units of the score
PARTS = (1.0, 0.5, 0.25, 0.0625, 0.0)  # of a step of Newton's method that are tried
RIDGE = 1e-5  # of the mean of a matrix's diagonal, for single precision
TINY = 1e-9
NAMES = ("filter_index", "filter_precision", "filter_vector", "filter_shift", "filter_visits")  # in a checkpoint


@dataclass
class Sums:
    """What is known of images; N = C·S pairs of a class and a region, the regions of a class next to each other.

    Attributes:
        precision: float32 (..., N, N), G.
        vector: float32 (..., N), h.
        shift: float32 (..., N), λ as it was found last.
        visits: int64 (...), whose scores are in them.
    """

    precision: torch.Tensor
    vector: torch.Tensor
    shift: torch.Tensor
    visits: torch.Tensor

    @classmethod
    def of_nothing(cls, pairs: int, device: torch.device) -> Sums:
        """Those of an image without a score."""
        nothing = torch.zeros(pairs, device=device)
        visits = torch.zeros((), dtype=torch.int64, device=device)
        return cls(torch.zeros(pairs, pairs, device=device), nothing, nothing.clone(), visits)

    def to(self, device: torch.device) -> Sums:
        """The same on a device; not a copy if they are there."""
        fields = (self.precision, self.vector, self.shift, self.visits)
        return Sums(*(value.to(device) for value in fields))


class RegionFilter:
    """The sums of every image; when full, those of the image that was seen longest ago go first.

    Args:
        megabytes: most memory used, in MB of 10⁶ bytes.
    """

    def __init__(self, megabytes: float) -> None:
        self.capacity = int(megabytes * 1e6)
        self._kept: OrderedDict[int, Sums] = OrderedDict()  # by index of the image, the one seen last at the end

    def __len__(self) -> int:
        return len(self._kept)

    def fits(self, pairs: int) -> int:
        """Images of which there is room for the sums."""
        return self.capacity // sums_bytes(pairs)

    def recall(self, index: Sequence[int], pairs: int, device: torch.device) -> Sums:
        """Sums of some images, (B, ...)."""
        of_images = [self._kept.get(i) or Sums.of_nothing(pairs, device) for i in index]
        there = [of.to(device) for of in of_images]
        fields = zip(*((of.precision, of.vector, of.shift, of.visits) for of in there), strict=True)
        return Sums(*(torch.stack(field) for field in fields))

    def add(self, index: Sequence[int], precision: torch.Tensor, vector: torch.Tensor) -> None:
        """Adds a visit of each of some images, one of which may be there twice: (B, N, N) and (B, N)."""
        for i, more, most in zip(index, precision, vector, strict=True):
            if i not in self._kept:
                self._kept[i] = Sums.of_nothing(len(most), most.device)
            self._kept.move_to_end(i)
            kept = self._kept[i] = self._kept[i].to(most.device)  # from a checkpoint they come on the CPU
            kept.precision.add_(more)
            kept.vector.add_(most)
            kept.visits += 1

    def remember(self, index: Sequence[int], shift: torch.Tensor) -> None:
        """Keeps where the search for the shifts of some images goes on from, (B, N), and ends their visit."""
        for i, of_image in zip(index, shift, strict=True):
            if i in self._kept and bool(of_image.isfinite().all()):
                self._kept[i].shift.copy_(of_image)
        self._forget()

    def _forget(self) -> None:
        while self._kept and len(self._kept) > self.fits(len(next(iter(self._kept.values())).vector)):
            self._kept.popitem(last=False)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold, on the CPU; of each matrix, which is symmetric, the lower half."""
        if not self._kept:
            return {}
        kept = list(self._kept.values())
        rows, columns = torch.tril_indices(*kept[0].precision.shape)
        values = (
            torch.tensor(list(self._kept)),
            torch.stack([of.precision.cpu()[rows, columns] for of in kept]),
            *(torch.stack([getattr(of, field).cpu() for of in kept]) for field in ("vector", "shift", "visits")),
        )
        return dict(zip(NAMES, values, strict=True))

    def load_state_dict(self, state: dict[str, torch.Tensor], pairs: int) -> None:
        """Puts the sums of ``state_dict()`` to those that are kept; of an image that is in both, the ones of more
        visits, because two processes may both go on from the same earlier sums, which would then count twice.

        Raises:
            ValueError: the sums are of another number of pairs than N.
        """
        if not state:
            return
        index, *fields = (state[name] for name in NAMES)
        held = fields[1].shape[1]
        if held != pairs:
            raise ValueError(f"the sums are of {held} pairs of a class and a region, not of {pairs}")
        rows, columns = torch.tril_indices(pairs, pairs)
        for i, half, vector, shift, visits in zip(index.tolist(), *fields, strict=True):
            if i in self._kept and self._kept[i].visits >= visits:
                continue
            precision = torch.zeros(pairs, pairs)
            precision[rows, columns] = half
            precision[columns, rows] = half
            self._kept[i] = Sums(precision, vector.clone(), shift.clone(), visits.clone())
            self._kept.move_to_end(i)
        self._forget()


def sums_bytes(pairs: int) -> int:
    """Bytes of the sums of an image with N pairs of a class and a region."""
    return 4 * pairs * (pairs + 2) + 8


def filtered_posterior(
    probabilities: torch.Tensor,
    label_maps: torch.Tensor,
    scores: torch.Tensor,
    index: Sequence[int],
    formula: Formula,
    regions: Regions,
    known: RegionFilter,
    spread: float,
    noise: float,
) -> tuple[Posterior, int]:
    """The belief that knows these scores and all that went into the sums before; the sums know them, too, afterwards.

    Args:
        probabilities: float32 (B, C, H, W), the policy's; no gradient flows into it.
        label_maps: uint8 (B, K, H, W).
        scores: float64 (B, K).
        index: of each image.
        formula: predicts the scores; known.
        regions: of the images, one division.
        known: sums of the images.
        spread: standard deviation of residuals before rounding, for the reading.
        noise: variance of the noise of the scores, without rounding.

    Returns:
        The belief, and the number of visits that it rests on, summed over the images.
    """
    probabilities = probabilities.detach()
    image = torch.arange(len(scores), device=scores.device)
    reading = read_scores(probabilities, label_maps, scores, image, len(scores), formula, spread)
    shares = regions.sums(probabilities) / regions.sizes.clamp(min=1)  # (B, C, S)
    before = known.recall(index, shares[0].numel(), shares.device)
    z = _believed(shares, before.shift)[1]
    features, mean = _linear(probabilities, shares, z, label_maps, formula, regions)  # (B, K, N), (B, K)
    own = _variance(z, before, features) if formula.rounding else torch.zeros_like(mean)
    spread_of = (own.double() + noise + OFFSET**2).sqrt()  # of the predictions, with their offset
    residual, undecided = formula.factors(scores, mean.double(), spread_of)
    variance = (1 + DOUBT) * (noise + undecided) + TINY
    observed = residual.float() + _times(features, z.flatten(1))
    known.add(index, *visit_sums(features, observed, variance.float()))
    after = known.recall(index, shares[0].numel(), shares.device)
    shift = _solve(shares, after)
    known.remember(index, shift)
    log_p = probabilities.clamp(min=LEAST).log()
    out = (log_p + regions.at_pixels(_believed(shares, shift)[0])).softmax(dim=1)
    moved = (out * (out.clamp(min=LEAST).log() - log_p)).sum(dim=1).mean()
    entropy = torch.special.entr(probabilities).sum(dim=1).mean()
    return Posterior(reading, out, entropy, moved), int(after.visits.sum())


def visit_sums(
    features: torch.Tensor, observed: torch.Tensor, variance: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a visit of each of B images adds to G and h: Fᵀ V⁻¹ F and Fᵀ V⁻¹ y, V = diag v + OFFSET² 1 1ᵀ.

    Args:
        features: (B, K, N), F.
        observed: (B, K), y.
        variance: (B, K), v.
    """
    weight = 1 / variance  # (B, K)
    both = torch.cat([features, observed[..., None]], dim=2)
    common = torch.bmm(weight[:, None], both) / (1 / OFFSET**2 + weight.sum(dim=1)[:, None, None])  # (B, 1, N + 1)
    weighted = weight[..., None] * (both - common)
    sums = torch.bmm(features.transpose(1, 2), weighted)  # (B, N, N + 1)
    precision = sums[..., :-1]
    return (precision + precision.transpose(1, 2)) / 2, sums[..., -1]  # symmetric to the last bit


def _linear(
    probabilities: torch.Tensor,
    shares: torch.Tensor,
    z: torch.Tensor,
    label_maps: torch.Tensor,
    formula: Formula,
    regions: Regions,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Derivatives of the scores with respect to the shares at z, (B, K, N), and what is expected there, (B, K).

    Which pixels of a region are right is taken from the policy, how many more of them from z.
    """
    images, samples = label_maps.shape[:2]
    classes, number = shares.shape[1:]
    owner = torch.arange(images, device=shares.device).repeat_interleave(samples)
    expected, predicted = soft_counts(probabilities, label_maps.flatten(0, 1), owner)  # both (B·K, C)
    pixels = region_counts(label_maps, regions.finest, number, classes)  # (B, K, C, S)
    right = expected + (pixels * (z - shares)[:, None]).sum(dim=3).flatten(0, 1)
    target = (z * regions.sizes).sum(dim=2)[owner]
    prediction = formula.predict(right.clamp(min=0), predicted, target)
    per_right, per_target = (
        part.view(images, samples, classes, 1) for part in (prediction.per_right, prediction.per_target)
    )
    features = pixels * per_right + regions.sizes[:, None] * per_target
    return features.flatten(2), prediction.mean.view(images, samples)


def _believed(shares: torch.Tensor, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What λ, (B, N), adds to the logs of the shares, without its mean over the classes, and the shares then."""
    by = shift.view_as(shares)
    by = (by - by.mean(dim=1, keepdim=True)).clamp(-SUREST, SUREST)
    return by, (shares.clamp(min=LEAST).log() + by).softmax(dim=1)


def _solve(shares: torch.Tensor, sums: Sums) -> torch.Tensor:
    """λ that explains the sums, (B, N): a step of Newton's method from where the last visit found it.

    One is enough, because a visit adds little to the sums, and the next goes on from here.
    """
    z = _believed(shares, sums.shift)[1]
    gap = sums.vector - _times(sums.precision, z.flatten(1)) - sums.shift
    # (I + G C)⁻¹ gap with C = L Lᵀ, the covariance of classes: gap − G L (I + Lᵀ G L)⁻¹ Lᵀ gap.
    solved = torch.cholesky_solve(_root_transposed(z, gap[..., None]), _factor(z, sums.precision))
    step = gap - _times(sums.precision, _root(z, solved)[..., 0])
    # It goes downhill, but where the belief is nearly sure the whole of it goes too far.
    tried = [sums.shift + part * step for part in PARTS]
    cost = torch.stack([_cost(shares, sums, to) for to in tried])  # (P, B)
    return torch.stack(tried)[cost.argmin(dim=0), torch.arange(len(step), device=step.device)]


def _cost(shares: torch.Tensor, sums: Sums, shift: torch.Tensor) -> torch.Tensor:
    """What the belief with the shifts has of what is minimised, (B,)."""
    by, z = _believed(shares, shift)
    log_p = shares.clamp(min=LEAST).log()
    divergence = (z * (by - (log_p + by).logsumexp(dim=1, keepdim=True))).flatten(1).sum(dim=1)
    z = z.flatten(1)
    return divergence + (z * (_times(sums.precision, z) / 2 - sums.vector)).sum(dim=1)


def _times(matrix: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    return torch.bmm(matrix, vector[..., None])[..., 0]


def _variance(z: torch.Tensor, sums: Sums, features: torch.Tensor) -> torch.Tensor:
    """Variances of the scores as the belief has them, Fᵀ (I + C G)⁻¹ C F: (B, K)."""
    seen = _root_transposed(z, features.transpose(1, 2))
    whitened = torch.linalg.solve_triangular(_factor(z, sums.precision), seen, upper=False)
    return whitened.square().sum(dim=1)


def _factor(z: torch.Tensor, precision: torch.Tensor) -> torch.Tensor:
    """Of Cholesky, of I + Lᵀ G L; not a number where the belief is not."""
    half = _root_transposed(z, precision)
    matrix = _root_transposed(z, half.transpose(1, 2))
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    diagonal += 1 + RIDGE * diagonal.mean(dim=1, keepdim=True)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return factor.masked_fill(failed[:, None, None] > 0, math.nan)


def _root(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """L x with L Lᵀ = diag z − z zᵀ in each region: (B, C, S) and (B, N, M) -> (B, N, M)."""
    scaled = z.sqrt()[..., None] * x.unflatten(1, z.shape[1:])
    return (scaled - z[..., None] * scaled.sum(dim=1, keepdim=True)).flatten(1, 2)


def _root_transposed(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Lᵀ x: see ``_root``."""
    apart = x.unflatten(1, z.shape[1:])
    mean = (z[..., None] * apart).sum(dim=1, keepdim=True)
    return (z.sqrt()[..., None] * (apart - mean)).flatten(1, 2)
