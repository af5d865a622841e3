"""What image-level scores say about the regions of an image: a belief that expects them.

``scores.evidence`` takes the pixels of the belief as independent. Pixels of one figure are not: if one of them is of
another class than was thought, so are those around it. Here the pixels of a region are wrong together, in nested
divisions of the image (``scores.regions``), and all scores of the image that are remembered are solved for together.
The policy then learns the result by cross-entropy. This is our own; maths: docs/regions.md.

With S_d(i) the region of pixel i in division d, the belief becomes

    log q_i(c) = log p_i(c) + Σ_d b_{S_d(i)}(c) + constant.

What the shifts b are, ``Errors`` says. Either they are Gaussian, with mean 0 and variance w_d, so that a score k, which
they change by J_k(S, c), moves them by w_d J_k(S, c) α_k. Or every region is of a single class, as likely as the mean
of its pixels says: with F_k(S, c), what S adds to the expectation of score k if it is of class c, less its mean over
the classes, they move by w_d F_k(S, c) α_k. In both cases α = K⁻¹ (R − μ(q)), where R are the scores, μ(q) what is
expected of them, and

    K = Σ_d w_d U_d U_dᵀ + E,       U = J or U_k(S, c) = q_S(c)^½ F_k(S, c),

is the covariance of the scores; E are the variances of noise, of the model's error and of a visit's offset. Two such
steps are made, the second from the belief that the first one found, of settled images only where it was long. How much
divisions, the model's error and the offset have of K, all that is not measured, is learned (``scores.variances``).

Single pixels shift as well, where regions do: they are one more division, but what two scores have of it in common is
left out of K, which then only needs Σ_ic J_k(i, c)² of each score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from ..ops import centred_features, class_credit, region_counts, soft_counts
from .evidence import Reading, differ, read_scores
from .formulas import Formula
from .models import Prediction
from .regions import Regions

STEPS = 2
FAR = 0.6  # nats, root mean square, that a step must have moved regions by that are settled for another one to be made
POOLED = 1 / 3  # of what a pixel's probabilities say, what those of its region say in their place
NUMBERS = 1 << 20  # of features that are held at once, and one image at least
NO_LEVEL = 1e3  # variance of a visit's offset where a formula says nothing of the level of the scores
SUREST = 8.0  # nats that the scores may move the log of a probability by
LONGEST = 3.0  # nats that a step may move it by
LEAST = 1e-6  # probability
ROUNDING = 1e-5
TINY = 1e-16


@dataclass(frozen=True)
class Errors:
    """How a belief is taken to be wrong.

    Attributes:
        of_one_class: whether the pixels of a region are of one class, as likely as their mean says; else the region
            shifts the log-probability of each class by a Gaussian amount.
        heat: temperature of the belief that is moved: where it is sure it is wrong more often than it says.
        division: w of each division at first, in nats² if it is that of shifts.
        pixels: w of single pixels at first, in nats²; 0: they do not shift by themselves, and what their probabilities
            say is pooled in part.
        doubt: variances of the model's error and of a visit's offset at first, as shares of that of the residuals.
    """

    of_one_class: bool
    heat: float
    division: float
    pixels: float
    doubt: float

    def variances(self, divisions: int) -> list[float]:
        """Where ``Variances`` starts: w of every division, of pixels if they shift, the error's and the offset's."""
        return [self.division] * divisions + [self.pixels] * (self.pixels > 0) + [self.doubt] * 2


SHIFTS = Errors(of_one_class=False, heat=1.25, division=2.0, pixels=0.0, doubt=0.03)
ONE_CLASS = Errors(of_one_class=True, heat=1.5, division=0.1, pixels=0.0, doubt=0.1)
PIXELS_TOO = replace(SHIFTS, pixels=8.0)


class Posterior(NamedTuple):
    """A belief that knows the scores.

    Attributes:
        reading: of the scores by the belief that did not.
        probabilities: float32 (B, C, H, W).
        entropy: of the belief that did not know them, mean over the pixels, in nats.
        moved: mean over the pixels of the Kullback-Leibler divergence of one from the other, in nats.
        statistics: float64 (2, V) like the V variances, which ``Variances`` learns from them; None if nothing does.
    """

    reading: Reading
    probabilities: torch.Tensor
    entropy: torch.Tensor
    moved: torch.Tensor
    statistics: torch.Tensor | None = None


def region_posterior(
    probabilities: torch.Tensor,
    label_maps: torch.Tensor,
    scores: torch.Tensor,
    image: torch.Tensor,
    fresh: int,
    formula: Formula,
    regions: Regions,
    variances: torch.Tensor,
    errors: Errors = SHIFTS,
    spread: float = 1.0,
    noise: float = 0.0,
    settled: Sequence[bool] | None = None,
) -> Posterior:
    """Moves a belief by the scores of label maps.

    Args:
        probabilities: float32 (B, C, H, W), the belief; no gradient flows into it.
        label_maps: uint8 (V, K, H, W), of V visits.
        scores: float64 (V, K).
        image: int64 (V,), the image, 0..B-1, of each visit; the first ``fresh`` visits are those of this step.
        fresh: number of visits of this step.
        formula: predicts the scores; it does not learn here.
        regions: of the images, in D divisions.
        variances: float64, those of ``Variances``, as many as ``errors.variances`` says.
        errors: how the belief is taken to be wrong.
        spread: standard deviation of residuals before rounding, for the reading.
        noise: variance of the noise of the scores, without rounding.
        settled: of each image whether so much is known of it that no further step is made after a short one; None: of
            none.
    """
    probabilities = probabilities.detach()
    done = torch.tensor(settled or [False] * len(probabilities), device=probabilities.device)
    new = label_maps[:fresh], scores[:fresh], image[:fresh]
    reading = read_scores(probabilities, *new, fresh, formula, spread)
    given = log_p = probabilities.clamp(min=LEAST).log()
    if not errors.pixels:
        log_p = _pooled(log_p, regions)
    hot = (log_p / errors.heat).softmax(dim=1)
    samples, classes = scores.shape[1], probabilities.shape[1]
    counts = soft_counts(hot, label_maps.flatten(0, 1), image.repeat_interleave(samples))  # both (V·K, C)
    expected, predicted = (count.view(*scores.shape, classes) for count in counts)
    visits = torch.bincount(image, minlength=len(probabilities)).tolist()
    order = sorted(range(len(visits)), key=lambda b: visits[b])  # images with as many visits are solved for together
    # Where an image counts no pixel all scores are 0, and a formula that is fitted expects differences where there are
    # none: such visits are left out. Rounded scores of a known formula tell in which interval all of them lie.
    compared = differ(scores)
    if formula.tells_level and formula.rounding:
        compared = torch.ones_like(compared)
    together = max(1, NUMBERS // (max(visits) * samples * classes * sum(regions.counts)))
    log_q = torch.empty_like(probabilities)
    statistics = variances.new_zeros(2, len(variances))
    for first in range(0, len(order), together):
        images = order[first : first + together]
        rows, there = _rows([(image == b).nonzero()[:, 0] for b in images])
        chosen = label_maps.index_select(0, rows.flatten()).unflatten(0, rows.shape)  # a tenth of the time of [rows]
        seen = chosen, scores[rows], there & compared[rows], expected[rows], predicted[rows]
        shift, of_images = _shift(hot[images], *seen, formula, regions[images], variances, errors, noise, done[images])
        statistics += of_images
        log_q[images] = torch.add(log_p[images], shift, alpha=errors.heat).log_softmax(dim=1)
    out = log_q.exp()
    moved = log_q.sub_(given).mul_(out).sum(dim=1).mean()
    entropy = -given.mul_(probabilities).sum(dim=1).mean()
    return Posterior(reading, out, entropy, moved, statistics)


def recall_belief(
    probabilities: torch.Tensor,
    remembered: Sequence[torch.Tensor | None],
    weights: Sequence[float],
    regions: Regions,
) -> torch.Tensor:
    """The policy's probabilities and what was believed of the images last time: their normalised geometric mean.

    Args:
        probabilities: (B, C, H, W), the policy's, of which a part is pooled.
        remembered: of each image log-probabilities (C, H, W), or None.
        weights: of what is remembered of each image, 0..1; the policy has the rest.
        regions: of the images.
    """
    now = _pooled(probabilities.clamp(min=LEAST).log(), regions)
    before = torch.stack([mine if of is None else of.to(mine) for of, mine in zip(remembered, now, strict=True)])
    weight = torch.tensor(weights, dtype=now.dtype, device=now.device)[:, None, None, None]
    return torch.lerp(now, before, weight).softmax(dim=1)


def _pooled(log_p: torch.Tensor, regions: Regions) -> torch.Tensor:
    """Log-probabilities, in part those of the region that a pixel lies in."""
    return torch.lerp(log_p, regions.means(log_p), POOLED)


def _rows(visits: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of visits, some for each of b images, filled up with 0, and where they are: int64 and bool (b, V)."""
    rows = torch.nn.utils.rnn.pad_sequence(visits, batch_first=True)
    length = torch.tensor([len(of_image) for of_image in visits], device=rows.device)
    return rows, torch.arange(rows.shape[1], device=rows.device) < length[:, None]


def _shift(
    p: torch.Tensor,
    label_maps: torch.Tensor,
    scores: torch.Tensor,
    there: torch.Tensor,
    expected: torch.Tensor,
    predicted: torch.Tensor,
    formula: Formula,
    regions: Regions,
    variances: torch.Tensor,
    errors: Errors,
    noise: float,
    settled: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the scores of b images add to the logs of the probabilities, (b, C, H, W), and statistics.

    Args:
        p: (b, C, H, W).
        label_maps: (b, V, K, H, W), M = V·K of them an image.
        scores: (b, V, K).
        there: bool (b, V), False for visits that only fill up or are left out.
        expected: (b, V, K, C), expected right pixels of each class.
        predicted: (b, V, K, C), pixels of each class.
        formula: predicts the scores.
        regions: of the images.
        variances: (V,).
        errors: how the belief is taken to be wrong.
        noise: variance of the scores' noise.
        settled: bool (b,).
    """
    images, visits, samples = scores.shape
    classes, counts = p.shape[1], list(regions.counts)
    of_divisions, of_error, of_offset = variances[: len(counts)], *variances[-2:]
    weight = torch.repeat_interleave(of_divisions, torch.tensor(counts, device=p.device)).to(p.dtype)  # (R,)
    statistics = torch.empty(0)
    pixels = region_counts(label_maps.flatten(1, 2), regions.finest, counts[0], classes)  # (b, M, C, S)
    counted_in = regions.in_all(pixels) if errors.of_one_class else pixels  # (b, M, C, R or S)
    of_visits = there.repeat_interleave(samples, dim=1)[:, :, None]  # (b, M, 1)
    size = regions.sizes  # (b, 1, S)
    size_of = regions.in_all(size) if errors.of_one_class else size
    noise_of_scores = noise / formula.scale(scores.flatten(0, 1)).square().view(images, visits, 1)
    log_p, of_p = p.clamp(min=LEAST).log(), regions.sums(p)  # (b, C, S)
    of_q, shift = of_p, torch.zeros_like(of_p)
    alpha = scores.new_zeros(images, visits * samples)
    observed, variance = scores, alpha
    same_visit = torch.arange(visits * samples, device=p.device) // samples
    same_visit = (same_visit[:, None] == same_visit).to(scores.dtype)  # (M, M)
    of_pixels = variances[len(counts)] if errors.pixels else None
    far = torch.ones(images, dtype=torch.bool, device=p.device)
    for step in range(STEPS):
        right = expected.flatten(0, 2)
        if step > 0:  # what the shifts changed is taken as even within the finest regions
            change = ((of_q - of_p) / size.clamp(min=1))[..., None]  # (b, C, S, 1)
            changed = [torch.bmm(pixels[:, :, c], change[:, c]) for c in range(classes)]  # each (b, M, 1)
            right = right + torch.cat(changed, dim=2).flatten(0, 1)
        target = of_q.sum(dim=2).repeat_interleave(visits * samples, dim=0)
        prediction = formula.predict(right, predicted.flatten(0, 2), target)
        mean = prediction.mean.view_as(scores).to(scores.dtype)

        chances = (regions.in_all(of_q) if errors.of_one_class else of_q) / size_of.clamp(min=1)  # (b, C, R or S)
        per_right, per_target = (
            part.view(images, -1, classes) * of_visits for part in (prediction.per_right, prediction.per_target)
        )
        # What a score moves the shifts by, but for w, in regions of all divisions or of the finest, of which those of
        # the others are sums; and U of every division.
        scaled = None if errors.of_one_class else chances
        moves = centred_features(counted_in, per_right, per_target, size_of, chances, scaled)
        if errors.of_one_class:
            roots = (moves * chances.sqrt()[:, None]).split(counts, dim=3)
        else:
            roots = regions.in_each(moves)
        grams = [w * _gram(part).to(scores.dtype) for w, part in zip(of_divisions, roots, strict=True)]  # (b, M, M)
        matrix = torch.stack(grams).sum(dim=0)
        own = matrix.diagonal(dim1=1, dim2=2)  # (b, M)
        if step == 0:
            spread = (own.view_as(scores) + noise_of_scores + TINY).sqrt()
            given = scores.flatten(0, 1), mean.flatten(0, 1), spread.flatten(0, 1)
            residual, undecided = (part.view_as(scores) for part in formula.factors(*given))
            residual = residual * there[..., None]
            observed, uncertain = mean + residual, noise_of_scores + undecided
            varied = residual if formula.tells_level else residual - residual.mean(dim=2, keepdim=True)
            number = there.sum(dim=1).clamp(min=1) * samples
            total = varied.square().sum(dim=(1, 2)) / number
            left = total - (uncertain * there[..., None]).sum(dim=(1, 2)) / number
            left = left.clamp(min=1e-3 * total + TINY)[:, None]  # (b, 1)
            error, offset = of_error * left, left * (of_offset if formula.tells_level else NO_LEVEL)
            if of_pixels is not None:
                each = of_pixels * _of_single_pixels(p, label_maps, prediction.per_right).view_as(alpha)
                grams.append(torch.diag_embed(each))
                uncertain = uncertain + each.view_as(uncertain)
            variance = torch.diag_embed(uncertain.flatten(1) + error) + offset[..., None] * same_visit
        residual = (observed - mean) * there[..., None]
        rounding = ROUNDING * own.mean(dim=1, keepdim=True) + TINY  # of single precision: it stays invertible
        matrix = matrix + variance + torch.diag_embed(rounding.expand_as(alpha))
        right_side = residual.flatten(1) - torch.bmm(variance, alpha[..., None])[..., 0]
        factor, failed = torch.linalg.cholesky_ex(matrix)  # of a belief that is not finite; the loss is not, then
        found = torch.cholesky_solve(right_side[..., None], factor)
        found = found.masked_fill(failed[:, None, None] > 0, torch.nan)
        if step == 0:
            parts = [*grams, torch.diag_embed(error.expand_as(alpha)), offset[..., None] * same_visit]
            statistics = _statistics(parts, found, factor, of_visits, formula.tells_level)
        moved = torch.bmm(found.transpose(1, 2).to(p.dtype), moves.flatten(2)).unflatten(2, (classes, -1))[:, 0]
        moved = regions.over_all((moved if errors.of_one_class else regions.in_all(moved)) * weight)
        moved = moved - moved.mean(dim=1, keepdim=True)
        # Of a belief that is nearly sure the derivatives are small, so that the whole step goes far beyond the scores.
        part = (far * LONGEST / moved.abs().amax(dim=(1, 2)).clamp(min=LONGEST))[:, None]
        alpha = alpha + part * found[..., 0]
        shift = (shift + part[..., None] * moved).clamp(-SUREST, SUREST)
        far = far & ~(settled & (moved.square().mean(dim=(1, 2)) <= FAR**2))
        if step == STEPS - 1 or not far.any():
            break
        of_moved = regions.sums((log_p + regions.at_pixels(shift)).softmax(dim=1))
        of_q = of_moved.where(far[:, None, None], of_q)
    moved = regions.at_pixels(shift)
    if of_pixels is not None:
        each = _single_pixels(p, label_maps, alpha[..., None].to(p.dtype) * of_visits, prediction)
        moved += each.mul_(of_pixels).clamp_(-SUREST, SUREST)
    return moved, statistics


def _of_single_pixels(p: torch.Tensor, label_maps: torch.Tensor, per_right: torch.Tensor) -> torch.Tensor:
    """Σ_ic J_k(i, c)² of each label map, float64 (b·M,), but for what the target's size changes of its score.

    With a the class that it gives to a pixel, J = p_a d (1 − p_a) for that class and −p_c p_a d for each other one,
    where d is the derivative of its score with respect to right pixels of class a.

    Args:
        p: (b, C, H, W).
        label_maps: (b, V, K, H, W).
        per_right: (b·M, C), the derivatives.
    """
    square = p.square()
    rest = 1 + square.sum(dim=1, keepdim=True)
    of_class = torch.add(rest, p, alpha=-2).mul_(square)  # p² ((1 − p)² + Σ p² − p²)
    image = torch.arange(len(p), device=p.device).repeat_interleave(label_maps.shape[1] * label_maps.shape[2])
    counts, _ = soft_counts(of_class, label_maps.flatten(0, 2), image)
    return (counts * per_right.square()).sum(dim=1).double()


def _single_pixels(
    p: torch.Tensor, label_maps: torch.Tensor, weights: torch.Tensor, prediction: Prediction
) -> torch.Tensor:
    """Σ_k α_k J_k(i, c), less its mean over the classes: (b, C, H, W).

    Args:
        p: (b, C, H, W).
        label_maps: (b, V, K, H, W).
        weights: α, (b, M, 1).
        prediction: of the scores, with derivatives (b·M, C).
    """
    image = torch.arange(len(p), device=p.device).repeat_interleave(weights.shape[1])
    per_pixel = class_credit(label_maps.flatten(0, 2), image, weights.flatten(0, 1) * prediction.per_right, len(p))
    everywhere = (weights * prediction.per_target.view(*weights.shape[:2], -1)).sum(dim=1)  # (b, C)
    per_pixel += everywhere[:, :, None, None]
    moved = per_pixel.sub_((p * per_pixel).sum(dim=1, keepdim=True)).mul_(p)
    return moved.sub_(moved.mean(dim=1, keepdim=True))


def _gram(vectors: torch.Tensor) -> torch.Tensor:
    """Products of every two of M vectors: (b, M, ...) -> (b, M, M)."""
    flat = vectors.flatten(2)
    return torch.bmm(flat, flat.transpose(1, 2))


def _statistics(
    parts: list[torch.Tensor], weights: torch.Tensor, factor: torch.Tensor, there: torch.Tensor, tells_level: bool
) -> torch.Tensor:
    """What ``Variances`` learns from, (2, V).

    Args:
        parts: of the scores' covariance, V of (b, M, M).
        weights: (b, M, 1), the inverse of the covariance times the residuals.
        factor: (b, M, M), of Cholesky, of the covariance.
        there: bool (b, M, 1), False for what is no score.
        tells_level: whether the last of the parts is to be learned.
    """
    usable = weights.isfinite().all(dim=1, keepdim=True)  # (b, 1, 1)
    factor = factor.where(usable, torch.eye(factor.shape[1], device=factor.device, dtype=factor.dtype))
    counted = there & usable
    inverse = torch.cholesky_inverse(factor).where(counted & counted.transpose(1, 2), 0.0).flatten(1)
    weights = weights.where(counted, 0.0)
    seen = torch.stack([(weights * torch.bmm(part, weights)).sum(dim=(1, 2)) for part in parts])  # (V, b)
    expected = torch.stack([torch.linalg.vecdot(inverse, part.flatten(1)) for part in parts])
    statistics = torch.stack([seen, expected]).where(usable[:, 0, 0], 0.0).sum(dim=2)
    if not tells_level:
        statistics[:, -1] = 0.0
    return statistics
