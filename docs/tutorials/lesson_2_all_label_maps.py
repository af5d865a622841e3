"""
Lesson 2: all label maps of a 2×2 image
=======================================

**What it shows.** The policy gradient without any doubt: an image so small that every label map can be listed. So the
expected score, its gradient, and the mean and variance of every estimate are exact numbers.

**For whom.** You know what a softmax is and have seen a policy gradient. Lesson 1 explains label maps and
scores.

**How long.** 25 minutes to read, about 8 seconds to run on one core.
"""

# %%
# **The question:** what does the policy gradient estimate, how well, and where does it fail even without noise?
#
# An image of 2×2 pixels with three classes has :math:`3^4 = 81` label maps. We score them all, with the mean IoU of
# lesson 1.

import itertools
import math
import os

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import ListedColormap

from rss_env.datasets.shapes import palette
from rss_env.rewards import score_images

QUICK = os.environ.get("RSS_LESSON_QUICK") == "1"
rng = np.random.default_rng(0)

H, W, C = 2, 2, 3
N = H * W
target = np.array([[0, 0], [1, 2]])


def all_label_maps(classes):
    """Every label map, (M, N): M = classes ** N of them, the pixels in one row."""
    return np.array(list(itertools.product(range(classes), repeat=N)))


maps = all_label_maps(C)
R = score_images("mean_iou", maps.reshape(1, -1, H, W), target[None], C)[0]  # (M,)
M = len(maps)
print(f"{M} label maps, {len(np.unique(R.round(12)))} different scores, best {R.max()}")
assert M == C**N
assert np.array_equal(maps[R.argmax()], target.ravel())
assert np.count_nonzero(R.max() == R) == 1

colours = ListedColormap(palette(C) / 255)
columns = 12
picture = np.full((3 * -(-M // columns), 3 * columns), np.nan)
figure, axis = plt.subplots(figsize=(9.5, 6.2), layout="constrained")
for place, m in enumerate(np.argsort(-R, kind="stable")):
    top, left = 3 * (place // columns), 3 * (place % columns)
    picture[top : top + H, left : left + W] = maps[m].reshape(H, W)
    axis.text(left + 0.5, top - 0.65, f"{R[m]:.2f}", ha="center", va="bottom", fontsize=9)
    for i, label in enumerate(maps[m]):
        ink = "white" if label == 0 else "black"
        axis.text(left + i % W, top + i // W, label, color=ink, ha="center", va="center", fontsize=8)
axis.imshow(picture, cmap=colours, vmin=0, vmax=C - 1)
axis.set(ylim=(len(picture) - 1, -2), title="All label maps by score; the first is the target")
axis.axis("off")
plt.show()

# %%
# The policy
# ----------
#
# A *policy* gives every label map a probability. Ours has a row of *logits* :math:`z_i` for every pixel :math:`i`, and
# draws the pixels independently:
#
# .. math::
#
#    \pi(a) = \prod_i p_i(a_i), \qquad p_i(c) = \frac{e^{z_i(c)}}{\sum_d e^{z_i(d)}} .
#
# What we want to be large is the expected score. Here it is a sum of 81 terms:
#
# .. math::
#
#    J(z) = \sum_a \pi(a) \, R(a) .
#
# For its gradient we need that of :math:`\log \pi(a)`. For the logit of class :math:`c` at pixel :math:`i` it is
# :math:`[a_i = c] - p_i(c)`, where :math:`[\cdot]` is 1 if true and 0 if not. With
# :math:`\nabla \pi = \pi \nabla \log \pi`,
#
# .. math::
#
#    \nabla J = \sum_a \pi(a) \, R(a) \, \nabla \log \pi(a) .


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def policy(z, maps):
    """Probability of every label map, (M,), and the gradient of its logarithm, (M, N, C)."""
    p = softmax(z)
    one_hot = np.eye(z.shape[1])[maps]  # (M, N, C)
    return p[np.arange(N), maps].prod(axis=1), one_hot - p


def gradient(z, maps, R):
    pi, g = policy(z, maps)
    return np.einsum("m,m,mic->ic", pi, R, g)


z = rng.normal(size=(N, C))
pi, g = policy(z, maps)
J = pi @ R
exact = gradient(z, maps, R)
print(f"expected score {J:.4f}, length of its gradient {np.linalg.norm(exact):.4f}")
assert math.isclose(pi.sum(), 1)

# %%
# Never trust a gradient that you have only derived. Two checks: finite differences,
# :math:`(J(z + h) - J(z - h)) / 2h` for one logit after the other, and torch, which differentiates :math:`J` itself.

h = 1e-5
for i, c in np.ndindex(N, C):
    step = np.zeros((N, C))
    step[i, c] = h
    difference = (policy(z + step, maps)[0] @ R - policy(z - step, maps)[0] @ R) / (2 * h)
    assert abs(difference - exact[i, c]) < 1e-9

logits = torch.tensor(z, requires_grad=True)
log_p = logits.log_softmax(dim=1)[torch.arange(N), torch.tensor(maps)].sum(dim=1)  # (M,)
(log_p.exp() @ torch.tensor(R)).backward()
assert np.allclose(logits.grad, exact, rtol=0, atol=1e-14)

# %%
# Sampling
# --------
#
# Nobody can list the label maps of a real image. So one draws: :math:`K` label maps :math:`a^1, …, a^K` of the image
# from the policy. *REINFORCE* takes the mean over them of
#
# .. math::
#
#    \hat g = \frac1K \sum_k (R^k - b^k) \, \nabla \log \pi(a^k),
#
# where :math:`b^k` is a *baseline*, a number that the score is compared with. Three choices:
#
# * none, :math:`b^k = 0`;
# * the *batch mean*: the mean of all K scores;
# * *leave-one-out*: the mean of the other K − 1 scores.
#
# An estimate is *unbiased* if its mean over all that could be drawn is the gradient itself.
#
# .. admonition:: Predict first
#
#    The batch mean contains the score :math:`R^k` that it is compared with. Is the estimate then wrong on average?
#    If so, what is wrong, the length or the direction? How much, at K = 2?
#
# We need no draws to find out. For K = 2 there are :math:`81^2` pairs of label maps, for K = 3 :math:`81^3` triples. We
# list them, each with its probability.


def baselines(scores, kind):
    """What each of K scores is compared with; scores are (..., K)."""
    K = scores.shape[-1]
    if kind == "none":
        return np.zeros_like(scores)
    total = scores.sum(axis=-1, keepdims=True)
    return total / K if kind == "batch mean" else (total - scores) / (K - 1)


def exact_mean_and_variance(kind, K):
    """Mean (N, C) of the estimate and its total variance, from every K-tuple of label maps."""
    mean, square = np.zeros((N, C)), 0.0
    rest = np.indices((M,) * (K - 1)).reshape(K - 1, -1).T
    for first in range(M):
        drawn = np.column_stack([np.full(len(rest), first), rest])  # (M ** (K - 1), K)
        chance = pi[drawn].prod(axis=1)
        advantage = R[drawn] - baselines(R[drawn], kind)
        estimates = np.einsum("tk,tkic->tic", advantage, g[drawn]) / K
        mean += np.einsum("t,tic->ic", chance, estimates)
        square += chance @ (estimates**2).sum(axis=(1, 2))
    return mean, square - (mean**2).sum()


enumerated = {}
for K in (2,) if QUICK else (2, 3):
    for kind in ("none", "batch mean", "leave-one-out"):
        mean, variance = enumerated[kind, K] = exact_mean_and_variance(kind, K)
        cosine = (mean * exact).sum() / np.linalg.norm(mean) / np.linalg.norm(exact)
        length = np.linalg.norm(mean) / np.linalg.norm(exact)
        print(f"K = {K}, {kind:>13}: length {length:.6f} (gradient: 1), cosine {cosine:.6f}, variance {variance:.5f}")
        factor = (K - 1) / K if kind == "batch mean" else 1
        assert np.allclose(mean, factor * exact, rtol=0, atol=1e-14)

# %%
# **The reason.** A baseline that does not depend on :math:`a^k` changes nothing on average, because
# :math:`\sum_a \pi(a) \nabla \log \pi(a) = \nabla \sum_a \pi(a) = \nabla 1 = 0`. Leave-one-out is such a baseline. The
# batch mean is not, but it is close to one:
#
# .. math::
#
#    R^k - \frac1K \sum_j R^j = \frac{K-1}{K} \Big( R^k - \frac{1}{K-1} \sum_{j \ne k} R^j \Big).
#
# So the batch mean is leave-one-out times :math:`(K-1)/K`. The direction is right; the length is half at K = 2 and
# nearly right at K = 32. That is no more than a smaller learning rate.

assert np.allclose(np.einsum("m,mic->ic", pi, g), 0, atol=1e-15)
scores = rng.choice(R, size=(5, 7))
centred, compared = scores - baselines(scores, "batch mean"), scores - baselines(scores, "leave-one-out")
assert np.allclose(centred, 6 / 7 * compared)

# %%
# How much noise?
# ---------------
#
# The *total variance* is the sum of the variances of all numbers in :math:`\hat g`. Without a baseline, or with a fixed
# number :math:`b`, the K terms are independent:
#
# .. math::
#
#    V_b(K) = \frac1K \left( \mathbb{E}\big[(R - b)^2 \, |\nabla \log \pi|^2\big] - |\nabla J|^2 \right).
#
# With leave-one-out, :math:`\hat g` is the *sample covariance* of the score and :math:`\nabla \log \pi`, whose variance
# statistics has known for long:
#
# .. math::
#
#    V(K) = \frac1K \left( \mathbb{E}\big[(R - J)^2 |\nabla \log \pi|^2\big] - \frac{K-2}{K-1} |\nabla J|^2
#           + \frac{\mathrm{Var}(R) \; \mathbb{E}|\nabla \log \pi|^2}{K-1} \right).
#
# The batch mean's is this times :math:`((K-1)/K)^2`. The enumeration must agree, and it does. For a K that cannot be
# enumerated we draw.

norm = (g**2).sum(axis=(1, 2))  # |∇ log π|² of every label map
length = (exact**2).sum()  # |∇J|²
spread = pi @ (R - J) ** 2  # Var(R)


def variance(kind, K):
    if kind == "none":
        return (pi @ (R**2 * norm) - length) / K
    loo = (pi @ ((R - J) ** 2 * norm) - (K - 2) / (K - 1) * length + spread * (pi @ norm) / (K - 1)) / K
    return loo if kind == "leave-one-out" else ((K - 1) / K) ** 2 * loo


for (kind, K), (_, counted) in enumerated.items():
    assert math.isclose(variance(kind, K), counted, rel_tol=1e-9)

repetitions, K = (2_000 if QUICK else 20_000), 16
drawn = rng.choice(M, p=pi, size=(repetitions, K))
measured = {}
for kind in ("none", "leave-one-out"):
    advantage = R[drawn] - baselines(R[drawn], kind)
    estimates = np.einsum("tk,tkic->tic", advantage, g[drawn]) / K
    squares = ((estimates - exact) ** 2).sum(axis=(1, 2))
    measured[kind] = squares.mean()
    assert abs(measured[kind] - variance(kind, K)) < 4 * squares.std() / math.sqrt(repetitions)

samples = np.array([2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64])
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
for kind, style in {"none": "s:", "leave-one-out": "o-"}.items():
    values = np.array([variance(kind, int(K)) for K in samples])
    left.loglog(samples, values, style, label=f"baseline: {kind}")
    right.semilogx(samples, samples * values, style, label=f"baseline: {kind}")
    left.plot(16, measured[kind], "kx", markersize=11, label=None if kind == "none" else "measured, K = 16")
left.axhline(length, color="grey", linestyle="--", label="squared length of the gradient")
limit = pi @ ((R - J) ** 2 * norm) - length
right.axhline(limit, color="black", linestyle="-.", label="baseline: the expected score J")
left.set(xlabel="label maps an image, K", ylabel="total variance")
right.set(xlabel="label maps an image, K", ylabel="total variance × K", ylim=(0, None))
for axis in (left, right):
    axis.set_xticks([2, 4, 8, 16, 32, 64], ["2", "4", "8", "16", "32", "64"], minor=False)
    axis.minorticks_off()
    axis.legend(fontsize=8)
plt.show()

# %%
# Left: both fall as 1/K, leave-one-out below. Right, the same times K: leave-one-out starts higher, because the mean of
# few scores is itself noisy, and comes down to what one would have with the unknown :math:`J` as the baseline. The only
# cost of not knowing :math:`J` is the last term of the formula. It fades.

assert all(variance("leave-one-out", int(K)) < variance("none", int(K)) for K in samples)
assert math.isclose(1000 * variance("leave-one-out", 1000), limit, rel_tol=0.01)

# %%
# Where the gradient itself is small
# ----------------------------------
#
# Noise can be averaged away. Now a trouble that remains with endless samples. Let :math:`Q_i(c)` be the expected score
# given that pixel :math:`i` takes class :math:`c`. Sort the sum for :math:`\nabla J` by the class of pixel :math:`i`,
# and what remains is
#
# .. math::
#
#    \frac{\partial J}{\partial z_i(c)} = p_i(c) \, \big( Q_i(c) - J \big) .

p = softmax(z)
for i, c in np.ndindex(N, C):
    has = maps[:, i] == c
    Q = pi[has] @ R[has] / pi[has].sum()
    assert math.isclose(exact[i, c], p[i, c] * (Q - J), abs_tol=1e-14)

# %%
# There is a factor :math:`p_i(c)` in front. A class that is unlikely has a small gradient, *however good it is*. For
# two classes the bracket has the factor :math:`1 - p` too, and the gradient of the true class is :math:`p (1 - p)`
# times what there is to be gained. Cross-entropy, which is shown the target, has :math:`1 - p` only.
#
# .. admonition:: Predict first
#
#    Two classes, pixel accuracy as the score, and exact gradients: no noise at all. The policy gives the true class of
#    each pixel the probability 1/10, and it takes some time to reach 1/2. How many times longer does it take from
#    1/1000? And how many times longer with cross-entropy?
#
# We walk uphill in steps so small that they make a continuous motion. *Time* is the number of steps times their size.
# The gradient is multiplied by N, because each pixel earns only 1/N of the score.

maps_2 = all_label_maps(2)
target_2 = np.array([[0, 1], [1, 0]])
R_2 = score_images("pixel_accuracy", maps_2.reshape(1, -1, H, W), target_2[None], 2)[0]
one_hot = np.eye(2)[target_2.ravel()]  # (N, 2)


def climb(p0, direction, size):
    """Probability of the true class at every step, from p0 to 0.98."""
    z = np.where(one_hot == 1, math.log(p0), math.log(1 - p0))
    path = [p0]
    while path[-1] < 0.98:
        z = z + size * direction(z)
        path.append(softmax(z)[0] @ one_hot[0])
    return np.array(path)


def by_score(z):
    return N * gradient(z, maps_2, R_2)


def by_cross_entropy(z):
    return one_hot - softmax(z)


starts = [0.3, 0.1, 0.03, 0.01] if QUICK else [0.3, 0.1, 0.03, 0.01, 0.003, 0.001]
size = 0.05
paths = {
    (name, p0): climb(p0, direction, size)
    for name, direction in {"score": by_score, "cross-entropy": by_cross_entropy}.items()
    for p0 in starts
}
times = {key: size * np.argmax(path >= 0.5) for key, path in paths.items()}

# %%
# **The reason.** The difference of the two logits grows with the speed :math:`2 p (1 - p)`, and :math:`p` is its
# sigmoid, so :math:`\dot p = 2 p^2 (1 - p)^2`. For cross-entropy :math:`\dot p = 2 p (1 - p)^2`. Solve for the time
# from :math:`p_0` to 1/2:
#
# .. math::
#
#    T_\text{score} = \frac12 \left( \frac{1}{p_0} - \frac{1}{1 - p_0} \right) + \ln \frac{1 - p_0}{p_0},
#    \qquad
#    T_\text{cross-entropy} = \frac12 \left( 2 - \frac{1}{1 - p_0} + \ln \frac{1 - p_0}{p_0} \right).


def time_needed(name, p0):
    logarithm = math.log((1 - p0) / p0)
    if name == "score":
        return (1 / p0 - 1 / (1 - p0)) / 2 + logarithm
    return (2 - 1 / (1 - p0) + logarithm) / 2


for (name, p0), time in times.items():
    print(f"{name:>13} from {p0}: time {time:.2f}, formula {time_needed(name, p0):.2f}")
    assert abs(time - time_needed(name, p0)) < size + 0.02 * time_needed(name, p0)
slower = {name: time_needed(name, 0.001) / time_needed(name, 0.1) for name in ("score", "cross-entropy")}
print(f"1/1000 instead of 1/10: {slower['score']:.0f} times longer; cross-entropy: {slower['cross-entropy']:.1f} times")
assert slower["score"] > 70
assert slower["cross-entropy"] < 3

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
for p0, style in zip([0.1, 0.03, 0.01], ["-", "--", ":"], strict=True):
    for name, colour in {"score": "tab:blue", "cross-entropy": "tab:orange"}.items():
        path = paths[name, p0]
        left.plot(size * np.arange(len(path)), path, style, color=colour, label=f"{name}, from {p0}")
left.set(xlabel="time (steps × their size)", ylabel="probability of the true class", xlim=(-2, 150))
left.legend(fontsize=8, loc="lower right")
fine = np.geomspace(0.001, 0.4, 100)
for name, style in {"score": ("tab:blue", "o", "-"), "cross-entropy": ("tab:orange", "s", "--")}.items():
    right.loglog(fine, [time_needed(name, p0) for p0 in fine], style[2], color=style[0], label=f"{name}: formula")
    right.plot(starts, [times[name, p0] for p0 in starts], style[1], color=style[0], label=f"{name}: measured")
right.set(xlabel="probability of the true class at the start", ylabel="time until it is 1/2")
right.legend(fontsize=8)
plt.show()

# %%
# The flat beginning on the left is the *softmax plateau*. A class ten times less likely keeps the policy gradient on it
# ten times longer. Cross-entropy only pays for the logarithm.
#
# With samples it gets worse. At p = 1/1000 and K = 16, most often none of the label maps has the class. Then its
# gradient is estimated as exactly zero (with leave-one-out the advantages sum to 0, so :math:`-p_i(c) \sum_k A^k` is 0
# too).

missing = (1 - 0.001) ** 16
print(f"chance that none of 16 label maps has a class of probability 1/1000: {missing:.1%}")
assert missing > 0.98
drawn = rng.choice(np.flatnonzero(maps[:, 0] != 2), size=16)  # 16 label maps without class 2 at pixel 0
advantage = R[drawn] - baselines(R[drawn], "leave-one-out")
assert abs(np.mean(advantage * g[drawn, 0, 2])) < 1e-16

# %%
# What to take away
# -----------------
#
# * The policy gradient with leave-one-out is unbiased. The batch mean only shortens the step, by (K − 1)/K.
# * A baseline that does not depend on the label map leaves the signal as it is, and a good one takes away noise. More
#   label maps make the variance fall as 1/K.
# * The gradient of an unlikely class has its probability as a factor. What the policy has ruled out comes back only
#   after a time in proportion to :math:`1/p`, and more label maps do not shorten it.
#
# Exercise
# --------
#
# The expected score is a good baseline. Is it the best? Write ``solution(pi, R, g)``, which returns the number
# :math:`b` for which the total variance :math:`V_b(K)` is smallest. It gets the probability of every label map, (M,),
# its score, (M,), and its :math:`\nabla \log \pi`, (M, N, C).
#
# Set the derivative of :math:`V_b` by :math:`b` to zero first, on paper.
#
# Test your answer with ``check(solution)``, which says nothing if it is right. One answer is in
# ``solutions/lesson_2.py``.


def check(solution):
    generator = np.random.default_rng(1)
    for sharpness in (0.5, 1, 2):
        pi, g = policy(sharpness * generator.normal(size=(N, C)), maps)
        b = float(solution(pi, R, g))

        def noise(b, pi=pi, g=g):
            return pi @ ((R - b) ** 2 * (g**2).sum(axis=(1, 2)))

        assert 0 <= b <= 1, f"{b} lies outside the range of the scores."
        for other in (b - 1e-4, b + 1e-4):
            assert noise(b) < noise(other), f"The variance with {other:.4f} is smaller than with {b:.4f}."
