r"""
Lesson 8: bandits with huge actions
===================================

**What it shows.** Segmentation from scores is a contextual bandit. On a 2×2 image, where each of the 81 label maps can
be listed, you estimate the value of a new policy from the log of an old one, with four classical estimators, and know
the truth. Then the image grows, and you see which of them survive.

**For whom.** You come from contextual bandits (propensities, regret, off-policy evaluation), or want to know what those
words mean here.

**How long.** 25 minutes to read, about 10 seconds to run on one core.
"""

# %%
# The question
# ------------
#
# *A policy was used for a while, and its label maps and their scores were kept. What would another policy have scored?*
#
# The words, side by side:
#
# =====================  ==============================================================
# contextual bandits     here
# =====================  ==============================================================
# context                the image :math:`x`
# action                 a label map :math:`a`, one of :math:`C^N` for :math:`N` pixels
# reward                 the score :math:`R(x, a)`
# propensity             :math:`\pi_0(a \mid x)`, the probability of what was drawn
# regret                 1 − score: the target itself would have scored 1
# value of a policy      :math:`V(\pi) = \mathbb{E}_x \sum_a \pi(a \mid x) R(x, a)`
# =====================  ==============================================================

import itertools
import math
import os

import matplotlib.pyplot as plt
import numpy as np

from rss_env.rewards import score_images

QUICK = os.environ.get("RSS_LESSON_QUICK") == "1"

C, N, CONTEXTS = 3, 4, 5  # classes, pixels (2×2), images
rng = np.random.default_rng(0)
maps = np.array(list(itertools.product(range(C), repeat=N)), np.uint8)  # (81, 4)
targets = rng.integers(C, size=(CONTEXTS, N)).astype(np.uint8)


def scores_of(label_maps, targets, reward="mean_iou"):  # (B, K, N), (B, N) -> (B, K)
    return score_images(reward, label_maps[:, :, None], targets[:, None], C)


R = scores_of(np.broadcast_to(maps, (CONTEXTS, *maps.shape)), targets)  # (contexts, 81)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def of_label_maps(p):  # probabilities of classes (contexts, N, C) -> of label maps (contexts, 81)
    return np.prod([p[:, i, maps[:, i]] for i in range(N)], axis=0)


true_class = np.eye(C)[targets]  # (contexts, N, C)
common = rng.normal(size=(CONTEXTS, N, C))
old = softmax(0.6 * common + 0.4 * true_class)  # the logging policy: knows little
new = softmax(0.6 * common + 1.6 * true_class)  # the policy that we would like to know about
pi_0, pi_1 = of_label_maps(old), of_label_maps(new)
assert np.allclose(pi_0.sum(axis=1), 1)
assert np.allclose(pi_1.sum(axis=1), 1)
V_0, V_1 = (pi_0 * R).sum(axis=1).mean(), (pi_1 * R).sum(axis=1).mean()
print(f"value of the old policy {V_0:.3f}, of the new one {V_1:.3f}")

# %%
# The values are exact, because all label maps are in the list. From now on we pretend not to know the second one.
#
# Four estimators
# ---------------
#
# A log has :math:`n` rows: image, label map, score, propensity. With the weight :math:`w = \pi_1(a \mid x) / \pi_0(a
# \mid x)`,
#
# .. math::
#    \hat V_\text{IPS} = \frac1n \sum_k w_k R_k, \qquad
#    \hat V_\text{SNIPS} = \frac{\sum_k w_k R_k}{\sum_k w_k}.
#
# **IPS** (inverse propensity score) is unbiased: :math:`\sum_a \pi_0 w R = \sum_a \pi_1 R`. **SNIPS** divides by the
# sum of the weights, which should be :math:`n` but seldom is. The **direct method** (DM) fits a model :math:`\hat R(x,
# a)` to the log and takes :math:`\sum_a \pi_1(a \mid x) \hat R(x, a)`. The **doubly robust** estimator (DR) takes the
# direct method and corrects it by the weighted errors of the model,
#
# .. math::
#    \hat V_\text{DR} = \frac1n \sum_k \Big[ \sum_a \pi_1(a \mid x_k) \hat R(x_k, a)
#    + w_k \big(R_k - \hat R(x_k, a_k)\big) \Big].
#
# .. admonition:: Predict first
#
#    Our model of the score is linear: each image has a number for each class at each pixel. The score is mean IoU.
#    Which estimator is the best with 50 rows? With 5,000? Which one does not get better at all after a while?

w = pi_1 / pi_0
assert np.isclose((pi_0 * w * R).sum(axis=1).mean(), V_1)  # IPS is unbiased

features = np.eye(C)[maps].reshape(len(maps), N * C)  # (81, 12): one-hot pixels
cumulative = pi_0.cumsum(axis=1)


def draw_log(n):
    x = rng.integers(CONTEXTS, size=n)
    return x, (rng.random(n)[:, None] > cumulative[x]).sum(axis=1).clip(max=len(maps) - 1)


def fit_model(x, a):  # ridge regression for each image -> predicted scores (contexts, 81)
    model = np.empty_like(R)
    for c in range(CONTEXTS):
        rows, r = features[a[x == c]], R[c, a[x == c]]
        middle = r.mean() if len(r) else 0.5
        gram = rows.T @ rows + 0.5 * np.eye(N * C)
        model[c] = middle + features @ np.linalg.solve(gram, rows.T @ (r - middle))
    return model


def estimate(n):
    (x, a), (x_model, a_model) = draw_log(n // 2), draw_log(n // 2)  # the model has rows of its own
    model = fit_model(x_model, a_model)
    both = np.concatenate([x, x_model]), np.concatenate([a, a_model])
    weight, r = w[both], R[both]
    value = (pi_1 * model).sum(axis=1)
    return {
        "mean of the log": r.mean(),
        "IPS": (weight * r).mean(),
        "SNIPS": (weight * r).sum() / weight.sum(),
        "DM": value[both[0]].mean(),
        "DR": (value[x] + w[x, a] * (R[x, a] - model[x, a])).mean(),
    }


repeats = 60 if QUICK else 600
sizes = (50, 500, 5000) if QUICK else (50, 160, 500, 1600, 5000)
found = {n: [estimate(n) for _ in range(repeats)] for n in sizes}
names = list(found[50][0])
values = np.array([[[row[name] for name in names] for row in found[n]] for n in sizes])  # (sizes, repeats, names)
bias, deviation = values.mean(axis=1) - V_1, values.std(axis=1)
error = np.sqrt(((values - V_1) ** 2).mean(axis=1))
for j, name in enumerate(names):
    print(f"{name:>16}:" + "".join(
        f"   n={n}: bias {bias[i, j]:+.3f} ± {deviation[i, j] / repeats**0.5:.3f}, deviation {deviation[i, j]:.3f}"
        for i, n in enumerate(sizes) if n in (50, 500, 5000)
    ))  # fmt: skip

figure, axis = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
for j, (name, style) in enumerate(zip(names, ("k:", "o-", "s-", "^-", "v-"), strict=True)):
    axis.loglog(sizes, error[:, j], style, label=name)
axis.set_xlabel("rows of the log (reward queries)")
axis.set_ylabel("root mean squared error of the value")
axis.legend(ncols=2)
plt.show()

# %%
# With 50 rows SNIPS misses least, with 5,000 DR. The mean of the log estimates the old policy, not the new one. IPS is
# right on average and noisy. The direct method is smooth and *stays* wrong: no linear model is a mean IoU, and more
# rows do not change that. DR needs the model only to take variance away, so a bad model does not bias it; here it has
# only half of the rows for its sum, because the other half fits the model.

ips, dm, dr = (names.index(name) for name in ("IPS", "DM", "DR"))
standard_error = deviation / repeats**0.5
assert (np.abs(bias[:, [ips, dr]]) < 4.5 * standard_error[:, [ips, dr]]).all()  # unbiased
assert abs(bias[-1, dm]) > 5 * standard_error[-1, dm]  # the direct method is not

# The variance of IPS, exactly: the mean of squares less the square of the mean, over the number of rows.
exact_variance = ((pi_0 * (w * R) ** 2).sum(axis=1).mean() - V_1**2) / np.array(sizes)
assert np.allclose(deviation[:, ips] ** 2, exact_variance, rtol=0.8 if QUICK else 0.35)
smallest = error.argmin(axis=1)
assert (names[smallest[0]], names[smallest[-1]]) == ("SNIPS", "DR")

# %%
# What breaks at 10 to the 700
# ----------------------------
#
# Weights are products over pixels. If each pixel is drawn independently, so are the factors, and
#
# .. math:: \mathbb{E}_{\pi_0}[w^2] = \prod_i \rho_i, \qquad \rho_i = \sum_c \frac{\pi_1(c)^2}{\pi_0(c)} \ge 1.
#
# The *effective sample size*, :math:`n / \mathbb{E}[w^2]`, says how many rows of the new policy itself the log is
# worth. It falls exponentially with the number of pixels.

rho = (new**2 / old).sum(axis=2)  # (contexts, N)
assert np.allclose((pi_0 * w**2).sum(axis=1), rho.prod(axis=1))
assert 5**1024 > 10**700  # label maps of a small image: 32×32 pixels, 5 classes

# %%
# .. admonition:: Predict first
#
#    Two policies of two classes: the old one gives class 1 the probability 0.5 at each pixel, the new one 0.6. How many
#    rows is a log of 10,000 rows worth for an image of 8×8 pixels? Of 32×32?

before, after = np.array([0.5, 0.5]), np.array([0.4, 0.6])
step = (after**2 / before).sum()  # rho of one pixel
print(f"rho = {step:.3f}; 8×8 pixels: {1e4 / step**64:.0f} rows; 32×32: 10^{4 - 1024 * math.log10(step):.1f} rows")

rows = 1000 if QUICK else 10_000
pixels = np.array([1, 4, 16, 64, 144, 256, 576, 1024])
measured = []
for count in pixels:
    ones = rng.binomial(count, before[1], size=rows)  # the weight depends only on the number of ones
    log_w = ones * np.log(after[1] / before[1]) + (count - ones) * np.log(after[0] / before[0])
    weight = np.exp(log_w - log_w.max())
    measured.append(weight.sum() ** 2 / (weight**2).sum() / rows)
figure, axis = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
axis.semilogy(pixels, step ** -pixels.astype(float), "-", label="exact: 1 / E[w²]")
axis.semilogy(pixels, measured, "o", label=f"as a log of {rows:,} rows sees itself")
axis.axhline(1 / rows, color="gray", linestyle=":", label="a single row")
axis.set_ylim(1e-9, 2)
axis.set_xlabel("pixels")
axis.set_ylabel("effective share of the rows")
axis.legend()
plt.show()
assert np.allclose(measured[:3], step ** -pixels[:3].astype(float), rtol=0.2)
assert measured[-1] > 100 * step ** -float(pixels[-1])

# %%
# Look at the circles. A log cannot see its own failure: the rows that would have had the great weights are not in it,
# so its own estimate of the effective size can never fall below one row. *A small effective size is a warning; a large
# one, at many pixels, is no all-clear.*
#
# A partial repair: a weight for each pixel
# -----------------------------------------
#
# The score is one number, but suppose it were a sum over pixels, :math:`R = \sum_i f_i(a_i)`. Then only the *marginals*
# of the policy matter, and with :math:`w_i = \pi_1(a_i) / \pi_0(a_i)` this estimator needs no products:
#
# .. math:: \hat V_\text{pixels} = \frac1n \sum_k \Big[ R_k + (R_k - b) \sum_i (w_{ki} - 1) \Big].
#
# Why: :math:`\mathbb{E}[w_i - 1] = 0`, so a constant :math:`b` changes nothing on average, and neither do the summands
# of other pixels, which are independent of :math:`w_i`. What is left of :math:`R\,(w_i - 1)` is
# :math:`\mathbb{E}_{\pi_1} f_i - \mathbb{E}_{\pi_0} f_i`. (For slates of items this is known as the pseudo-inverse
# estimator.)
#
# For the pixel accuracy the assumption is true. For mean IoU it is not, and on 2×2 we can compute the bias.

per_pixel = new / old  # (contexts, N, C)
sums = np.stack([sum(per_pixel[x, i, maps[:, i]] - 1 for i in range(N)) for x in range(CONTEXTS)])  # (contexts, 81)
every = np.broadcast_to(maps, (CONTEXTS, *maps.shape))
for reward in ("pixel_accuracy", "mean_iou"):
    table = scores_of(every, targets, reward)
    truth = (pi_1 * table).sum(axis=1).mean()
    expected = (pi_0 * table * (1 + sums)).sum(axis=1).mean()
    print(f"{reward}: value {truth:.4f}, expected estimate {expected:.4f}, bias {expected - truth:+.4f}")
    if reward == "pixel_accuracy":
        assert np.isclose(expected, truth)
    else:
        assert abs(expected - truth) > 1e-3

# %%
# Now larger images. The target is a square in the middle; the old policy gives the true class 0.5 at each pixel and the
# new one 0.6. For the pixel accuracy the value of the new policy is 0.6; for mean IoU we draw many label maps from the
# new policy and score them, which a real log could not do.


def draw(p_right, target, count):  # label maps that have the true one of two classes with probability p_right
    right = rng.random((count, *target.shape)) < p_right
    return right, np.where(right, target, 1 - target).astype(np.uint8)


rows, trials = 500, 4 if QUICK else 20
print(f"root mean squared errors of the value, from {rows} rows")
pixelwise = {}
for side in (2, 4, 8, 16, 32):
    target = np.zeros((side, side), np.uint8)
    target[side // 4 : side - side // 4, side // 4 : side - side // 4] = 1
    errors = {}
    for reward in ("pixel_accuracy", "mean_iou"):
        _, drawn = draw(0.6, target, 2000)
        truth = 0.6 if reward == "pixel_accuracy" else score_images(reward, drawn[None], target[None], 2).mean()
        estimates = []
        for _ in range(trials):
            right, logged = draw(0.5, target, rows)
            r = score_images(reward, logged[None], target[None], 2)[0]
            w_i = np.where(right, 0.6 / 0.5, 0.4 / 0.5).reshape(rows, -1)
            weight = w_i.prod(axis=1)
            by_pixel = (r + (r - r.mean()) * (w_i - 1).sum(axis=1)).mean()
            estimates.append([(weight * r).mean(), (weight * r).sum() / weight.sum(), by_pixel])
        off = np.array(estimates) - truth
        errors[reward] = np.sqrt((off**2).mean(axis=0))
        pixelwise[side, reward] = off[:, 2].mean(), off[:, 2].std(ddof=1) / trials**0.5
    print(f"{side:>2}×{side:<2}  " + "   ".join(
        f"{reward}: IPS {e[0]:.3f}, SNIPS {e[1]:.3f}, by pixel {e[2]:.3f}" for reward, e in errors.items()
    ))  # fmt: skip
misses = errors  # of the largest image
for reward in ("pixel_accuracy", "mean_iou"):
    assert (misses[reward][2] < misses[reward][:2]).all()

# %%
# At 1,024 pixels IPS is lost: it misses by nearly the whole value, because the rows that matter were never drawn. SNIPS
# looks harmless, but the two policies differ by only 0.1, and it misses a good part of that. The estimator by pixels
# goes on working. For mean IoU it has a bias, which is small next to what the others miss:

bias_32, error_32 = pixelwise[32, "mean_iou"]
print(f"by pixel, mean IoU, 32×32: bias {bias_32:+.4f} ± {error_32:.4f}")
assert abs(bias_32) < 0.02
assert misses["pixel_accuracy"][0] > 0.4
assert misses["pixel_accuracy"][1] > 0.02

# %%
# Regret: trying label maps one by one
# ------------------------------------
#
# A classical bandit algorithm has an arm for each action. *UCB1* keeps the mean of each arm and plays the one with the
# largest mean plus a bonus for having been played seldom. (Our bonus is smaller than the textbook's: the scores have no
# noise, and a large one would only cost regret.) It has to play each arm once before anything else. A policy with one
# distribution a pixel shares what it learns between all label maps that agree at a pixel.
#
# .. admonition:: Predict first
#
#    One image, exact mean IoU, 2,000 queries. Who has the smaller regret at 2×2 pixels (81 arms)? At 3×3 (19,683 arms)?


def ucb1(scores, queries):
    order = rng.permutation(len(scores))
    played, total, regret = np.zeros(len(scores)), np.zeros(len(scores)), []
    for t in range(queries):
        a = order[t] if t < len(scores) else (total / played + np.sqrt(0.1 * np.log(t) / played)).argmax()
        played[a], total[a] = played[a] + 1, total[a] + scores[a]
        regret.append(1 - scores[a])
    return np.cumsum(regret)


def by_pixels(arms, scores, queries, rate=0.5):  # REINFORCE with a running mean as the baseline
    pixels = arms.shape[1]
    z, baseline, regret = np.zeros((pixels, C)), 0.0, []
    place = C ** np.arange(pixels)[::-1]  # the number of a label map in the list
    for t in range(queries):
        p = softmax(z)
        a = (rng.random(pixels)[:, None] > p.cumsum(axis=1)).sum(axis=1).clip(max=C - 1)
        score = scores[a @ place]
        z += rate * (score - baseline) * (np.eye(C)[a] - p)
        baseline += (score - baseline) / min(t + 1, 30)
        regret.append(1 - score)
    return np.cumsum(regret)


queries, seeds = (300, 2) if QUICK else (2000, 5)
figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharey=True)
final = {}
for axis, side in zip(axes, (2, 3), strict=True):
    arms = np.array(list(itertools.product(range(C), repeat=side * side)), np.uint8)
    for name, style in (("UCB1, an arm a label map", "--"), ("policy by pixels", "-")):
        curves = []
        for _ in range(seeds):
            target = rng.integers(C, size=(1, side * side)).astype(np.uint8)
            scores = scores_of(arms[None], target)[0]
            curves.append(ucb1(scores, queries) if name.startswith("UCB1") else by_pixels(arms, scores, queries))
        axis.plot(np.mean(curves, axis=0), style, color="black", label=name)
        axis.fill_between(range(queries), np.min(curves, axis=0), np.max(curves, axis=0), alpha=0.2)
        final[side, name] = np.mean(curves, axis=0)[-1]
    axis.set_title(f"{side}×{side} pixels, {len(arms):,} label maps")
    axis.set_xlabel("queries")
axes[0].set_ylabel("regret so far (line: mean, band: seeds)")
axes[0].legend()
plt.show()
print({f"{side}×{side}, {name}": round(float(value)) for (side, name), value in final.items()})

# %%
# At 2×2 pixels UCB1 has tried all arms after 81 queries and then mostly plays the best. At 3×3 there are more arms than
# queries: it does nothing but try, and its regret is that of random label maps. The policy by pixels needs no arm
# twice, nor most of them once.

assert final[2, "UCB1, an arm a label map"] < 81 + 0.1 * (queries - 81)
assert len(arms) > queries
assert final[3, "UCB1, an arm a label map"] > 2 * final[3, "policy by pixels"]

# %%
# What to take away
# -----------------
#
# - Off-policy estimates are possible where propensities are logged. IPS: unbiased and noisy. Direct: smooth and biased.
#   Doubly robust: unbiased if the weights are right *or* the model is.
# - Products of ratios die exponentially with the number of pixels, and the log itself cannot tell you.
# - Structure is the way out: weights by pixel, policies by pixel, models of the score. Each pays with a bias that you
#   should know.
#
# Exercise
# --------
#
# Write the doubly robust estimator. ``solution(rewards, weights, predicted, values)``, all (n,): the scores,
# :math:`\pi_1 / \pi_0`, the model's score of the logged label map, and the model's expected score under :math:`\pi_1`
# for that image. It gives one number.
#
# Test your answer with ``check(solution)``, which says nothing if it is right. One answer is in
# ``solutions/lesson_8.py``.


def check(solution):
    """Asserts that the estimate is right if the weights are, or if the model is; a log in exact proportions tells."""
    rng = np.random.default_rng(0)
    logged = np.repeat(np.arange(4), [10, 20, 30, 40])  # four label maps, drawn 10, 20, 30 and 40 times
    weights_of = np.array([0.4, 0.3, 0.2, 0.1]) / np.array([0.1, 0.2, 0.3, 0.4])
    for _ in range(10):
        score, model = rng.random(4), rng.random(4)
        truth = np.array([0.4, 0.3, 0.2, 0.1]) @ score

        def estimate(model, weights, score=score):
            value = np.full(100, np.array([0.4, 0.3, 0.2, 0.1]) @ model)
            return solution(score[logged], weights, model[logged], value)

        assert np.isclose(estimate(model, weights_of[logged]), truth), "right weights and a wrong model: biased"
        assert np.isclose(estimate(score, rng.random(100)), truth), "wrong weights and a right model: biased"
        assert np.isclose(estimate(np.zeros(4), weights_of[logged]), truth), "no model: this should be IPS"
