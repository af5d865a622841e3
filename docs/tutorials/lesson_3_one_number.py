"""
Lesson 3: one number for a thousand pixels
==========================================

**What it shows.** How little one score tells one pixel: signal and noise of its gradient, by formula and by
measurement. Then two ways out, a score for every pixel and draws that pixels share, and when the second one fails.

**For whom.** You know the policy gradient and its leave-one-out baseline; lesson 2 derives both.

**How long.** 25 minutes to read, about 25 seconds to run on one core.
"""

# %%
# **The question:** a label map of a thousand pixels earns one number. How does a single pixel learn from it?
#
# We take the simplest score, the pixel accuracy: the mean of :math:`r_i = [a_i = t_i]`, which is 1 where the class
# :math:`a_i` of pixel :math:`i` is that of the target, and 0 elsewhere. And the simplest policy: :math:`N` independent
# pixels, each right with the same probability :math:`p`. Draw :math:`K` label maps, and estimate the gradient of the
# logit of the true class at pixel :math:`i`, with leave-one-out. As lesson 2 shows, that is the sample covariance of
# the score and of :math:`r_i`:
#
# .. math::
#
#    R = \frac1N \sum_j r_j, \qquad
#    \hat g_i = \frac{1}{K - 1} \sum_k \big( R^k - \bar R \big) \big( r_i^k - \bar r_i \big).

import itertools
import math
import os

import matplotlib.pyplot as plt
import numpy as np
import torch

from rss_env.rewards import score_images, score_pixels

try:
    from rss_agents.ops import sample_label_maps
    from rss_agents.plugins import CellSchedule, leave_one_out, pair_advantages
except ModuleNotFoundError:  # in a checkout the package is called agents
    from agents.ops import sample_label_maps
    from agents.plugins import CellSchedule, leave_one_out, pair_advantages

torch.set_num_threads(1)  # the tensors are small: more threads would wait for each other
QUICK = os.environ.get("RSS_LESSON_QUICK") == "1"
rng = np.random.default_rng(0)
p = 0.4
v = p * (1 - p)  # variance of one r_i


def estimates(N, K, repetitions, level):
    """Estimated gradients of all pixels, (repetitions, N), where class 1 is right everywhere."""
    side = math.isqrt(N)
    maps = (rng.random((repetitions, K, side, side), dtype=np.float32) < p).astype(np.uint8)
    target = np.ones((repetitions, side, side), np.uint8)
    right = maps.reshape(repetitions, K, N) - maps.reshape(repetitions, K, N).mean(axis=1, keepdims=True)
    if level == "image":
        scores = score_images("pixel_accuracy", maps, target, 2)  # (repetitions, K)
        return np.einsum("mk,mki->mi", scores - scores.mean(axis=1, keepdims=True), right) / (K - 1)
    scores = score_pixels("pixel_accuracy", maps, target, 2).reshape(repetitions, K, N) / N
    return np.einsum("mki,mki->mi", scores - scores.mean(axis=1, keepdims=True), right) / (K - 1)


# %%
# Signal and noise
# ----------------
#
# .. admonition:: Predict first
#
#    An image of 32×32 pixels, K = 8 label maps. Call the standard deviation of :math:`\hat g_i` the noise, and its mean
#    the signal. Which is larger, and how many times? What share of the pixels does one such estimate push in the right
#    direction?
#
# The score is the pixel's own part :math:`r_i / N` and the rest, which has nothing to do with :math:`r_i`. With
# :math:`v = p (1 - p)`:
#
# * **Signal.** Only the own part counts on average: :math:`\mathbb{E}[\hat g_i] = v / N`.
# * **Noise.** The own part gives the sample variance of :math:`r_i`, divided by N. The rest has the variance
#   :math:`(N - 1) v / N^2` and gives a sample covariance of two independent quantities, whose variance is the
#   product of their variances over :math:`K - 1`. Together
#
# .. math::
#
#    \mathrm{Var}(\hat g_i) = \frac{1}{N^2} \Bigg[ \underbrace{\frac{N - 1}{K - 1} v^2}_\text{the other pixels}
#       + \underbrace{\frac1K \Big( v - \frac{4K - 6}{K - 1} v^2 \Big)}_\text{the pixel itself} \Bigg].
#
# For many pixels the first term is all that matters, and
#
# .. math::
#
#    \frac{\text{signal}}{\text{noise}} \approx \frac{v / N}{v / \sqrt{N (K - 1)}} = \sqrt{\frac{K - 1}{N}} .
#
# With one reward a pixel the other pixels drop out: signal and noise both are in proportion to 1/N, and their ratio
# does not depend on N.


def theory(N, K, level):
    """Signal and noise (a standard deviation)."""
    others = (N - 1) / (K - 1) * v**2 if level == "image" else 0.0
    itself = (v - (4 * K - 6) / (K - 1) * v**2) / K
    return v / N, math.sqrt(others + itself) / N


pixels, samples = [1, 4, 16, 64, 256, 1024], [2, 8, 32]
draws = 2**16 if QUICK else 2**21  # classes drawn for one point
measured, shared = {}, {}
for level in ("image", "pixel"):
    for K in samples:
        for N in pixels:
            repetitions = int(np.clip(draws // (K * N), 200, 10_000))
            g = estimates(N, K, repetitions, level)
            signal, noise = theory(N, K, level)
            # Repetitions are independent, pixels of one repetition are not: so standard errors are over repetitions.
            means, squares = g.mean(axis=1), ((g - signal) ** 2).mean(axis=1)
            for found, expected in ((means, signal), (squares, noise**2)):
                standard_error = found.std(ddof=1) / math.sqrt(repetitions)
                assert abs(found.mean() - expected) < 5 * standard_error + 1e-12, (level, K, N)
            measured[level, K, N] = means.mean() / math.sqrt(squares.mean())
            shared[level, K, N] = g.sum(axis=1)

figure, axis = plt.subplots(figsize=(7.5, 4.4), layout="constrained")
for K, colour in zip(samples, ("tab:blue", "tab:orange", "tab:green"), strict=True):
    for level, marker, line in (("image", "o", "-"), ("pixel", "s", "--")):
        ratios = [signal / noise for signal, noise in (theory(N, K, level) for N in pixels)]
        axis.loglog(pixels, ratios, line, color=colour, label=f"{level} level, K = {K}: formula")
        found = [measured[level, K, N] for N in pixels]
        axis.plot(pixels, found, marker, color=colour, label="measured" if K == 32 else None)
axis.axhline(1, color="grey", linewidth=0.8)
axis.set(xlabel="pixels of the image, N", ylabel="signal / noise of one pixel's gradient")
axis.set_xticks(pixels, [f"{N:,}" for N in pixels], minor=False)
axis.minorticks_off()
axis.legend(fontsize=8, loc="lower left", ncols=2)
plt.show()

# %%
# At image level the ratio falls as :math:`1/\sqrt N`, at pixel level it does not fall at all. Below the grey line there
# is more noise than signal.
#
# What that looks like: a target with a disk on it, a policy that knows nothing (each pixel is right with probability
# 1/2), and *one* estimate with K = 8.

H = W = 32
K = 8
y, x = np.mgrid[:H, :W]
disk = ((y - 15.5) ** 2 + (x - 15.5) ** 2 < 100).astype(np.uint8)
repetitions = 50 if QUICK else 400
maps = rng.integers(2, size=(repetitions, K, H, W), dtype=np.uint8)
targets = np.repeat(disk[None], repetitions, axis=0)
centred = maps - maps.mean(axis=1, keepdims=True)  # the logit of class 1: up inside the disk, down outside
scores = score_images("pixel_accuracy", maps, targets, 2)[:, :, None, None]
rewards = score_pixels("pixel_accuracy", maps, targets, 2) / (H * W)
exact = np.where(disk == 1, 1, -1) * 0.25 / (H * W)
found = {
    "image": ((scores - scores.mean(axis=1, keepdims=True)) * centred).sum(axis=1) / (K - 1),
    "pixel": ((rewards - rewards.mean(axis=1, keepdims=True)) * centred).sum(axis=1) / (K - 1),
}
share = {level: (g * exact > 0).mean(axis=(1, 2)) for level, g in found.items()}
for level, shares in share.items():
    print(f"{level} level: {shares.mean():.1%} of the pixels are pushed in the right direction")
ratio = math.sqrt((K - 1) / (H * W))
expected = (1 + math.erf(ratio / math.sqrt(2))) / 2
print(f"signal / noise {ratio:.3f}: a normal distribution is positive in {expected:.1%}")
assert abs(share["image"].mean() - expected) < 0.01 + 4 * share["image"].std() / math.sqrt(repetitions)
never_varied = 2 * 0.5**K  # all K label maps agree at the pixel: nothing can be learned there
assert abs(share["pixel"].mean() - (1 - never_varied)) < 4 * share["pixel"].std() / math.sqrt(repetitions)

figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.6), layout="constrained")
pictures = {"exact gradient": exact, "image level, K = 8": found["image"][0], "pixel level, K = 8": found["pixel"][0]}
for axis, (title, g) in zip(axes, pictures.items(), strict=True):
    limit = np.abs(g).max() * 1e3
    shown = axis.imshow(g * 1e3, cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
    axis.contour(disk, levels=[0.5], colors="black", linewidths=1)
    axis.set(title=title, xticks=[0, 16, 31], yticks=[0, 16, 31], xlabel="column / pixels")
    figure.colorbar(shown, ax=axis, label="gradient × 1000", location="bottom", shrink=0.9)
axes[0].set_ylabel("row / pixels")
plt.show()

# %%
# In the middle nobody would see the disk. A little more than half of the pixels is pushed in the right direction, and a
# coin would do half. (Mind the scales, too.) On the right all pixels are right but those that did not vary among the
# label maps.
#
# Why then does anything learn at all?
# ------------------------------------
#
# Because pixels share parameters. Think of the other extreme, one logit for all pixels. Its gradient is the sum of all
# :math:`\hat g_i`, the signals add up, and the noise averages out. The sum is :math:`N` times the sample variance of
# :math:`R`, and its signal-to-noise ratio hardly depends on N: it tends to :math:`\sqrt{(K - 1) / 2}`.


def shared_theory(N, K):
    """Signal and noise of one logit that all pixels share: N times the sample variance of the score."""
    variance, fourth = v / N, v * (1 + 3 * (N - 2) * v) / N**3  # central moments of a mean of N draws
    return v, N * math.sqrt((fourth - (K - 3) / (K - 1) * variance**2) / K)


for K in samples:
    for N in pixels:
        sums = shared["image", K, N]
        signal, noise = shared_theory(N, K)
        squares = (sums - signal) ** 2
        assert abs(squares.mean() - noise**2) < 5 * squares.std() / math.sqrt(len(sums)) + 1e-12
    print(f"K = {K:>2}, one shared logit: signal / noise {signal / noise:.3f}, limit {math.sqrt((K - 1) / 2):.3f}")
    assert math.isclose(signal / noise, math.sqrt((K - 1) / 2), rel_tol=0.05)

# %%
# A network lies between the two. What it computes for all pixels in the same way (this colour is background) is learned
# fast; what it must say about few pixels is learned slowly.
#
# Cells that share one draw
# -------------------------
#
# The ratio is :math:`\sqrt{(K - 1) / N}`, so let there be fewer independent draws. *Progressive scale rewards* (PSR,
# this project's reading of the paper that it is named after) cover the image by *cells* of s×s pixels. In one label
# map, all pixels of a cell share one uniform number :math:`u`, and each takes the class at which its own cumulative
# probability passes :math:`u`. Each pixel keeps its probabilities; only the dependence is new. Over training the cells
# shrink.
#
# If the pixels of a cell are alike, they change together, and the score tells more about them: there are
# :math:`N / s^2` draws instead of N. If they should differ, changing together helps none of them.
#
# .. admonition:: Predict first
#
#    A 4×4 image with two classes. One target has class 1 on its left half, the other is a checkerboard. The policy
#    knows nothing. What do cells of 2×2 do to signal and noise for each of them? And one cell of 4×4?
#
# So few pixels can be enumerated, tied or not. Within a cell the label map changes only where :math:`u` passes one of
# the pixels' probabilities, so a cell has few patterns; an image has all combinations of them.

SIDE, N = 4, 16
y, x = np.mgrid[:SIDE, :SIDE]
small = {"halves": (x < 2).astype(int), "checkerboard": (x + y) % 2}


def enumerate_tied(p1, cell):
    """Chance (T,) and label maps (T, 4, 4) of every outcome; p1 (4, 4) is the probability of class 1."""
    chance, maps = np.ones(1), np.zeros((1, SIDE, SIDE), np.uint8)
    for top in range(0, SIDE, cell):
        for left in range(0, SIDE, cell):
            part = np.s_[top : top + cell, left : left + cell]
            cuts = np.unique([0, *(1 - p1[part]).ravel(), 1])  # where u passes from class 0 to class 1
            middles, widths = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts)
            chance = np.repeat(chance, len(widths)) * np.tile(widths, len(chance))
            patterns = np.tile(middles, len(maps))[:, None, None] >= 1 - p1[part]
            maps = np.repeat(maps, len(widths), axis=0)
            maps[:, part[0], part[1]] = patterns
    return chance, maps


def signal_and_noise(p1, target, cell, K, score="pixel_accuracy"):
    """Expected estimate (4, 4) for the logit of class 1, and its variance (4, 4), exactly."""
    chance, maps = enumerate_tied(p1, cell)
    R = score_images(score, maps[None], target[None], 2)[0]
    centred, s = R - chance @ R, maps - p1  # s = ∂ log p / ∂ logit
    mean = np.einsum("t,t,tyx->yx", chance, centred, s)
    fourth = np.einsum("t,t,tyx->yx", chance, centred**2, s**2)
    spread = chance @ centred**2 * p1 * (1 - p1)
    return mean, (fourth - (K - 2) / (K - 1) * mean**2 + spread / (K - 1)) / K  # a sample covariance's variance


K = 8
table = {}
for name, target in small.items():
    for knows in (0.5, 0.8):  # probability of the true class: a policy without knowledge, one that has learned
        p1 = np.where(target == 1, knows, 1 - knows)
        for cell in (1, 2, 4):
            mean, variance = signal_and_noise(p1, target, cell, K)
            length, noise = np.linalg.norm(mean), math.sqrt(variance.sum())
            table[name, knows, cell] = length, noise
            print(f"{name:>12}, p(true) = {knows}, cells of {cell}: signal {length:.4f}, noise {noise:.4f}")

figure, axes = plt.subplots(1, 4, figsize=(9.5, 3.2), layout="constrained", width_ratios=[1, 1.6, 1, 1.6])
for (name, target), left, right in zip(small.items(), axes[::2], axes[1::2], strict=True):
    left.imshow(target, cmap="gray", vmin=0, vmax=1)
    for (i, j), label in np.ndenumerate(target):
        left.text(j, i, label, ha="center", va="center", color="black" if label else "white")
    left.set(title=f"target:\n{name}", xticks=[], yticks=[])
    for shift, knows, style in ((-0.2, 0.5, {}), (0.2, 0.8, {"hatch": "//"})):
        found = [table[name, knows, cell] for cell in (1, 2, 4)]
        bars = [signal / noise if signal > 1e-12 else 0 for signal, noise in found]
        right.bar(np.arange(3) + shift, bars, 0.4, label=f"p(true) = {knows}", edgecolor="black", **style)
    right.set(ylim=(0, 2.6), ylabel="signal / noise, K = 8", xlabel="side of the cells / pixels")
    right.set_xticks(range(3), ["1", "2", "4"])
    right.legend(fontsize=8)
figure.suptitle("No bar: neither signal nor noise", fontsize=10)
plt.show()

# %%
# **The reason.** Where a cell lies in one region, its pixels are right or wrong together. The signal of each is
# :math:`s^2` times as large, and what counts is :math:`N / s^2`: everything is as in an image of so many pixels.
# Where a cell is half right whatever it does, its share of the score never changes, and the expected step is zero. Not
# small: zero. One cell of 4×4 does this to the halves, and cells of 2×2 to the checkerboard.

v = 0.25  # of the policy without knowledge
for cell, independent in ((1, 16), (2, 4)):
    signal, noise = theory(independent, K, "image")  # of an image with one pixel for every cell
    assert math.isclose(table["halves", 0.5, cell][0], math.sqrt(N) * signal)
    assert math.isclose(table["halves", 0.5, cell][1], math.sqrt(N) * noise)
assert math.isclose(table["halves", 0.5, 2][0], 4 * table["halves", 0.5, 1][0])
for name, cell in (("halves", 4), ("checkerboard", 2), ("checkerboard", 4)):
    assert table[name, 0.5, cell][0] < 1e-15

# %%
# When the policy has learned where the border is, its probabilities differ across it. One number :math:`u` then gives
# different classes on its two sides, and tied draws are useful even there (the hatched bars).

for name in small:
    plain, tied = table[name, 0.8, 1], table[name, 0.8, 4]
    assert tied[0] / tied[1] > 2 * plain[0] / plain[1]

# %%
# Two warnings. A policy without signal has no noise either: it stays where it is until chance or something else makes
# the pixels of a cell differ. And in general the expected step with tied draws is *not* the gradient of the expected
# score: it still adds up the :math:`\nabla \log p_i(a_i)` of all pixels, and that sum is :math:`\nabla \log \pi(a)`
# only if the pixels are drawn independently. For the pixel accuracy tied and plain draws have the same expected score,
# because each pixel keeps its probabilities. Yet for a policy drawn at random the directions differ:

p1 = np.random.default_rng(1).uniform(0.1, 0.9, size=(SIDE, SIDE))
plain, tied = (signal_and_noise(p1, small["checkerboard"], cell, K)[0] for cell in (1, 2))
cosine = (plain * tied).sum() / np.linalg.norm(plain) / np.linalg.norm(tied)
print(f"cosine of the expected step with cells of 2 to the gradient: {cosine:.3f}")
assert 0 < cosine < 0.99

# %%
# That the package draws by the same law as our enumeration, we can check by counting.

chance, maps = enumerate_tied(p1, 4)  # one cell: at most 17 outcomes
logits = torch.tensor(np.log(np.stack([1 - p1, p1])))[None]
drawn = sample_label_maps(logits, 4_000, seed=0, cell=4)[0].numpy()
counts = (drawn[:, None] == maps).all(axis=(2, 3)).sum(axis=0)
assert counts.sum() == 4_000  # no label map is drawn that is not in the list
assert np.all(np.abs(counts / 4_000 - chance) < 5 * np.sqrt(chance * (1 - chance) / 4_000))

# %%
# Only where they differ
# ----------------------
#
# Another idea for the same trouble: two label maps a and b of one image can only differ in score because of the pixels
# in which they differ. So give the difference to those pixels alone, and share it out among them:
#
# .. math::
#
#    \hat g_i = \tfrac12 (R^a - R^b) \, (r^a_i - r^b_i) \, \frac{N}{|D|}, \qquad
#    D = \{ i : a_i \ne b_i \} .
#
# This is *PSD*, pair-wise spatial difference. (K label maps make K (K − 1) / 2 pairs; here we look at one.)
#
# .. admonition:: Predict first
#
#    Drop the factor :math:`N / |D|`. What is left of the idea? And when does the factor matter most: for a policy that
#    knows nothing, or for one that is nearly right?
#
# Without the factor it is leave-one-out with K = 2, to the last term: a pixel in which the two agree has
# :math:`r^a_i - r^b_i = 0` anyway. The package's plug-in says the same of the gradient by the logits:

maps = torch.from_numpy(rng.integers(0, 2, size=(1, 6, 5, 5)))
scores = torch.from_numpy(rng.random((1, 6)))
slope = (maps == 1).double() - p  # d log p / d logit, pixel by pixel
psd = pair_advantages(scores, maps, normalise=False) * slope
loo = leave_one_out(scores)[:, :, None, None] * slope
assert torch.allclose(psd.sum(dim=1), loo.sum(dim=1))

# %%
# What remains is a weight for each pair. For the pixel accuracy everything can be computed: given that pixel i differs,
# d of the others do, a binomial number with the chance :math:`2v` each, and each adds :math:`\pm 1 / N` to the
# difference of the scores. So the squares of signal over noise are
#
# .. math::
#
#    \frac{2v}{1 + 2v (N - 2)} \quad \text{(leave-one-out)}, \qquad
#    \frac{x}{1 - x}, \quad x = \frac{1 - (1 - 2v)^N}{N} \quad \text{(PSD)} .
#
# All pairs of label maps of 3×3 pixels agree with that.


def pair_snr(N, p):
    """Signal over noise of one pixel from one pair, by formula: leave-one-out and PSD."""
    q = 2 * p * (1 - p)  # chance that a pixel differs
    x = (1 - (1 - q) ** N) / N
    return np.sqrt(q / (1 + q * (N - 2))), np.sqrt(x / (1 - x))


right = np.array(list(itertools.product((0, 1), repeat=9)), float)  # (512, 9)
accuracy = right.mean(axis=1)
differing = 9 * (accuracy[:, None] + accuracy) - 2 * right @ right.T  # |D| of every pair
for chance_right in (0.5, 0.8, 0.95):
    chance = (chance_right**right * (1 - chance_right) ** (1 - right)).prod(axis=1)
    pair = chance[:, None] * chance
    own = (accuracy[:, None] - accuracy) * (right[:, None, 0] - right[None, :, 0]) / 2
    for weight, formula in zip((1, 9 / np.maximum(differing, 1)), pair_snr(9, chance_right), strict=True):
        g = own * weight
        signal = (pair * g).sum()
        assert math.isclose(signal / math.sqrt((pair * g**2).sum() - signal**2), formula)

sizes = np.unique(np.geomspace(2, 4096, 60).round())
figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
for chance_right, line in ((0.5, "-"), (0.9, "--"), (0.99, "-."), (0.999, ":")):
    loo, psd = pair_snr(sizes, chance_right)
    axis.plot(sizes, psd / loo, line, label=f"{chance_right:g} of the pixels right")
axis.axhline(1, color="grey", linewidth=0.8)
axis.set(xscale="log", xlabel="pixels of the image, N", ylabel="signal / noise, PSD to leave-one-out")
axis.legend(fontsize=8)
plt.show()

gains = {p: pair_snr(sizes, p)[1] / pair_snr(sizes, p)[0] for p in (0.5, 0.9, 0.99, 0.999)}
print({p: f"at most {gain.max():.3f}, with 4,096 pixels {gain[-1]:.3f}" for p, gain in gains.items()})
assert all(gain.min() >= 1 and gain.max() < 1.15 for gain in gains.values())
assert gains[0.5][-1] < 1.001 < 1.05 < gains[0.999][-1]

# %%
# PSD helps a little, where few pixels still differ: then a pair tells much about each of them. Where hundreds differ,
# :math:`|D|` is nearly the same for all pairs, and nothing is gained. It is never worth more than
# 15 % here. Cells change N itself; PSD only weighs the pairs.

# %%
# Learning
# --------
#
# Now let policies learn: a table of logits for a 16×16 image, without a network, so that no pixel can profit from
# another. Four ways to draw and score, two targets, K = 8 label maps a step, Adam. Each line is the mean of several
# repetitions, its band goes from the smallest to the largest. Shown is the expected pixel accuracy, which is simply the
# mean of the probability of the true class.

SIZE = 16
y, x = np.mgrid[:SIZE, :SIZE]
large = {"disk": ((y - 8) ** 2 + (x - 7) ** 2 < 25).astype(np.uint8), "checkerboard": ((x + y) % 2).astype(np.uint8)}
steps, batch = (42, 2) if QUICK else (400, 6)


def learn(target, sides, level="image", seed=0):
    """Expected accuracy at every step, (steps, batch): the repetitions lie side by side in one batch."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.from_numpy(target).expand(batch, SIZE, SIZE).contiguous()
    logits = torch.zeros(batch, 2, SIZE, SIZE, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    schedule = CellSchedule(sides)
    curve = []
    for step in range(steps):
        side = schedule.side(step / steps)
        key, *offset = torch.randint(2**63 - 1, (3,), generator=generator).tolist()  # seed and shift of the grid
        maps = sample_label_maps(logits, K, key, cell=side, offset=offset)  # (B, K, H, W)
        if level == "image":
            advantage = leave_one_out(score_images("pixel_accuracy", maps, targets, 2))[:, :, None, None]
        else:
            advantage = leave_one_out(score_pixels("pixel_accuracy", maps, targets, 2))
        log_p = logits.log_softmax(dim=1)
        chosen = torch.where(maps == 1, log_p[:, None, 1], log_p[:, None, 0])
        loss = -(advantage * chosen).sum(dim=(2, 3)).mean(dim=1).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        true = log_p.detach().exp().gather(1, targets[:, None].long())
        curve.append(true.mean(dim=(1, 2, 3)).numpy())
    return np.array(curve)


ways = {
    "cells of 1 (plain)": {"sides": (1,)},
    "cells of 4": {"sides": (4,)},
    "cells of 4, 2, 1": {"sides": (4, 2, 1)},
    "reward a pixel": {"sides": (1,), "level": "pixel"},
}
curves = {(name, way): learn(target, **ways[way]) for name, target in large.items() for way in ways}

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.9), layout="constrained", sharey=True)
for axis, (name, target) in zip(axes, large.items(), strict=True):
    for way, line in zip(ways, ("-", ":", "--", "-."), strict=True):
        curve = curves[name, way]
        (drawn_line,) = axis.plot(curve.mean(axis=1), line, label=way)
        band = curve.min(axis=1), curve.max(axis=1)
        axis.fill_between(range(steps), *band, color=drawn_line.get_color(), alpha=0.2, linewidth=0)
    inset = axis.inset_axes([0.79, 0.03, 0.2, 0.3])
    inset.imshow(target, cmap="gray", vmin=0, vmax=1)
    inset.set(xticks=[], yticks=[])
    axis.set(title=f"target: {name}", xlabel="optimiser steps")
axes[0].set_ylabel("expected pixel accuracy")
axes[0].legend(fontsize=8, loc="lower center")
plt.show()
for (name, way), curve in curves.items():
    print(f"{name:>12}, {way:>18}: {curve[40].mean():.3f} at step 40, {curve[-1].mean():.3f} at the end")

# %%
# On the disk, cells speed up the beginning. Whether they shrink or not makes no difference here; the package shifts the
# grid at random in each step, so that a border is not always inside a cell. Plain draws need longer and arrive too. On
# the checkerboard, cells are a brake. All that gets them going is the edge of the image, where shifted cells are cut
# and no longer half right: without the shift every label map of a beginner scores exactly one half. A reward for every
# pixel beats them all: it does not have the problem.

beginner = torch.zeros(1, 2, SIZE, SIZE)
board = torch.from_numpy(large["checkerboard"])[None]
for offset, all_half in (((0, 0), True), ((1, 1), False)):
    maps = sample_label_maps(beginner, 100, seed=0, cell=4, offset=offset)
    assert bool((score_images("pixel_accuracy", maps, board, 2) == 0.5).all()) == all_half

plain, tied, shrinking, pixelwise = ways
for name in large:
    assert all(curves[name, pixelwise][40].min() > curves[name, way][40].max() for way in (plain, tied, shrinking))
assert curves["disk", tied][40].min() > curves["disk", plain][40].max()
assert curves["checkerboard", tied][40].max() < curves["checkerboard", plain][40].min()
if not QUICK:
    assert (
        max(abs(curves["disk", way][-1].mean() - curves["disk", plain][-1].mean()) for way in (tied, shrinking)) < 0.01
    )
    assert curves["checkerboard", shrinking][-1].max() < curves["checkerboard", plain][-1].min()

# %%
# What to take away
# -----------------
#
# * With one score for N independent pixels and K label maps, a pixel's gradient has a signal-to-noise ratio of about
#   :math:`\sqrt{(K - 1) / N}`. Twice the side of the image takes four times the label maps.
# * Parameters that pixels share do not suffer from this, and a reward for every pixel makes it vanish.
# * Cells that share a draw replace N by :math:`N / s^2`. They help where neighbours belong together, and fail where
#   they do not.
# * Giving a pair's difference only to the pixels where it differs changes little: it is leave-one-out with weights.
#
# Exercise
# --------
#
# Write ``solution(p, side, rng)``, which draws one label map in cells. ``p`` are probabilities, (C, H, W), ``side`` is
# the side of the cells in pixels (it divides H and W, and the grid is not shifted), and ``rng`` is NumPy's generator.
# Return integers (H, W). Every pixel must keep its own probabilities. Pixels of one cell that have the same
# probabilities must always get the same class. Different cells must be independent.
#
# Test your answer with ``check(solution)``, which says nothing if it is right. One answer is in
# ``solutions/lesson_3.py``.


def check(solution):
    generator = np.random.default_rng(2)
    draws, side, classes = 3_000, 2, 3
    p = generator.dirichlet(np.ones(classes), size=(4, 4)).transpose(2, 0, 1)  # (C, H, W)
    p[:, :2, :] = np.array([0.5, 0.3, 0.2])[:, None, None]  # two cells whose pixels are alike
    drawn = np.array([solution(p, side, generator) for _ in range(draws)])  # (draws, H, W)
    assert drawn.shape == (draws, 4, 4)
    for c in range(classes):
        error = np.abs((drawn == c).mean(axis=0) - p[c])
        allowed = 5 * np.sqrt(p[c] * (1 - p[c]) / draws)
        assert np.all(error <= allowed), f"Class {c} does not come as often as its probability says."
    for left in (0, 2):
        cell = drawn[:, :2, left : left + 2].reshape(draws, -1)
        assert np.all(cell == cell[:, :1]), "Pixels of one cell with the same probabilities got different classes."
    first, second = (drawn[:, 0, column] == 0 for column in (0, 2))
    correlation = np.corrcoef(first, second)[0, 1]
    assert abs(correlation) < 5 / math.sqrt(draws), "Different cells depend on each other."
