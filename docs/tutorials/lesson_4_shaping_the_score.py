"""
Lesson 4: shaping the score
===========================

**What it shows.** What happens if the score is scaled, shifted, bent, cut off or compared with something, before the
agent learns from it: which changes leave the best answer in place, which leave the gradient, and what the agent makes
of it.

**For whom.** You know the policy gradient and baselines; lesson 2 derives both.

**How long.** 25 minutes to read, about 40 seconds to run on one core.
"""

# %%
# **The question:** may we hand the agent another number instead of the score?
#
# People do so all the time. They round, they set a bar, they reward the excellent more than in proportion. We begin
# with the image of lesson 2: 2×2 pixels, three classes, all :math:`3^4 = 81` label maps, and the mean IoU as the score
# :math:`R`. What the agent learns from is :math:`f(R)`.

import itertools
import math
import os

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import rss_env  # noqa: F401 (registers the ids)
from rss_env.rewards import score_images

torch.set_num_threads(1)  # the network is small: more threads would wait for each other
QUICK = os.environ.get("RSS_LESSON_QUICK") == "1"

H, W, C = 2, 2, 3
N = H * W
target = np.array([[0, 0], [1, 2]])
maps = np.array(list(itertools.product(range(C), repeat=N)))  # (M, N)
R = score_images("mean_iou", maps.reshape(1, -1, H, W), target[None], C)[0]  # (M,)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


shapings = {
    "R": lambda R: R,
    "10 R": lambda R: 10 * R,
    "R − 1": lambda R: R - 1,
    "R²": lambda R: R**2,
    "√R": lambda R: R**0.5,
    "log(R + 0.05)": lambda R: np.log(R + 0.05),
    "sigmoid(12 (R − 0.5))": lambda R: sigmoid(12 * (R - 0.5)),
    "[R ≥ 0.5]": lambda R: 1.0 * (R >= 0.5),
    "[R ≥ 0.9]": lambda R: 1.0 * (R >= 0.9),
    "1 − |2 R − 1|": lambda R: 1 - abs(2 * R - 1),
}

# %%
# .. admonition:: Predict first
#
#    Go through the list. Which of these leave the target the only best answer? Which leave the *direction* of the
#    gradient as it is? Which can the agent learn from at once, and which not?
#
# We look at three policies. Each gives one class of every pixel the probability 0.8 and shares the rest out: the first
# those of an all-background map, the second those of a map that is half right, the third those of the target. The
# *cosine* between the gradients of :math:`\mathbb{E}[f(R)]` and of :math:`\mathbb{E}[R]` is 1 if they have the same
# direction and negative if one step up the first goes down the other. All of it is enumerated.


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def policy(p, maps):
    """Probability of every label map, (M,), and the gradient of its logarithm for the logits, (M, N, C)."""
    return p[np.arange(N), maps].prod(axis=1), np.eye(p.shape[1])[maps] - p


def gradient(p, rewards):
    pi, g = policy(p, maps)
    return np.einsum("m,m,mic->ic", pi, rewards, g)


def cosine(a, b):
    return (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)


policies = {
    name: np.where(np.eye(C)[likely] == 1, 0.8, 0.1)
    for name, likely in {"background": [0, 0, 0, 0], "half right": [2, 2, 1, 2], "right": target.ravel()}.items()
}
cosines, lengths, best = {}, {}, {}
for name, f in shapings.items():
    best[name] = np.flatnonzero(f(R) == f(R).max())
    pairs = [(gradient(p, f(R)), gradient(p, R)) for p in policies.values()]
    cosines[name] = [cosine(*pair) for pair in pairs]
    lengths[name] = [np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
    kept = "target is among them" if R.argmax() in best[name] else "target is NOT among them"
    print(f"{name:>21}: cosines {np.round(cosines[name], 3)}, best label maps: {len(best[name])}, {kept}")

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
r = np.unique(R.round(12))
for (name, f), marker in zip(list(shapings.items())[3:], "o^sDvXP", strict=True):
    low, high = f(r).min(), f(r).max()
    left.plot(r, (f(r) - low) / (high - low), marker=marker, markersize=5, label=name)
left.plot(r, r, color="black", label="R")
left.set(xlabel="score R of a label map", ylabel="f(R), stretched to 0…1")
left.legend(fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)
rows = np.arange(len(shapings))
for n, (name, hatch) in enumerate(zip(policies, ("", "//", ".."), strict=True)):
    values = [c[n] for c in cosines.values()]
    right.barh(rows + 0.28 * (n - 1), values, 0.28, label=f"policy: {name}", edgecolor="black", hatch=hatch)
right.set_yticks(rows, shapings)
right.invert_yaxis()
right.axvline(0, color="black", linewidth=0.8)
right.set(xlabel="cosine of the gradients of E[f(R)] and E[R]")
right.legend(fontsize=8, loc="center left")
plt.show()

# %%
# **The reason.**
#
# * A positive *scale* and an *offset* change nothing but the length:
#   :math:`\nabla \mathbb{E}[aR + b] = a \nabla \mathbb{E}[R]`, because the constant has no gradient.
# * What is *strictly monotone* keeps the order of the label maps, so the best one stays the best. But it weighs the
#   differences in another way, so the direction changes.
# * A *threshold* makes everything above it equal. It keeps the target among the best, perhaps with others. Where few
#   label maps reach the threshold, little gradient is left.
# * What is *not monotone* has its best elsewhere. A good policy is driven away from the target.

increasing = [name for name in shapings if np.all(np.diff(shapings[name](r)) > 0)]
assert set(shapings) - set(increasing) == {"[R ≥ 0.5]", "[R ≥ 0.9]", "1 − |2 R − 1|"}
for name in increasing:
    assert best[name].tolist() == [R.argmax()]
    assert min(cosines[name]) > 0
for name in ("10 R", "R − 1"):
    assert np.allclose(cosines[name], 1, rtol=0, atol=1e-12)
assert all(min(cosines[name]) < 0.99 for name in increasing if name not in ("R", "10 R", "R − 1"))
assert len(best["[R ≥ 0.5]"]) > 1
assert best["[R ≥ 0.9]"].tolist() == [R.argmax()]
assert max(lengths["[R ≥ 0.9]"][:2]) < 0.2 < min(lengths["R²"])
assert R.argmax() not in best["1 − |2 R − 1|"]
assert cosines["1 − |2 R − 1|"][2] < 0

# %%
# Does a policy that throws dice do better?
# -----------------------------------------
#
# Up to now "best" was said of label maps. Could a *stochastic* policy have a larger :math:`\mathbb{E}[f(R)]` than every
# label map? Not if each pixel has probabilities of its own. With all other pixels fixed, the expected score is a mean
# over the classes of pixel :math:`i`, weighted with :math:`p_i(c)`. A mean is never above its largest part. So let the
# pixel take the best class for sure, then the next pixel, and so on: nothing is lost, and at the end stands one label
# map. This holds for any :math:`f`.


def round_off(p, rewards):
    """One pixel after the other takes its best class, given the probabilities of the others."""
    p = p.copy()
    for i in range(N):
        sure = [np.where(np.arange(N)[:, None] == i, np.eye(C)[c], p) for c in range(C)]
        p = max(sure, key=lambda q: policy(q, maps)[0] @ rewards)
    return p


rng = np.random.default_rng(0)
for f in shapings.values():
    for _ in range(5 if QUICK else 30):
        p = softmax(rng.normal(size=(N, C)))
        certain = round_off(p, f(R))
        assert policy(certain, maps)[0] @ f(R) >= policy(p, maps)[0] @ f(R) - 1e-12
        assert np.all((certain == 0) | (certain == 1))

# %%
# It does *not* hold if pixels share their probabilities, as those that look alike do in a network. Take the extreme:
# two classes, and all four pixels have class 1 with the same probability :math:`q`. Three pixels of the target have
# class 0, one has class 1; the score is the pixel accuracy.
#
# .. admonition:: Predict first
#
#    Which q is best for :math:`\mathbb{E}[R]`? And for the expectation of :math:`[R = 1]`, "perfect or nothing"?

binary = np.array(list(itertools.product(range(2), repeat=N)))
accuracy = score_images("pixel_accuracy", binary.reshape(1, -1, H, W), np.array([[[0, 0], [0, 1]]]), 2)[0]
q = np.linspace(0, 1, 1001)
chance = q[:, None] ** binary.sum(axis=1) * (1 - q[:, None]) ** (N - binary.sum(axis=1))  # (1001, 16)
alike = {
    "R": accuracy,
    "√R": accuracy**0.5,
    "R²": accuracy**2,
    "R⁸": accuracy**8,
    "[R = 1]": 1.0 * (accuracy == 1),
}
figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
optimum = {}
for (name, rewards), style in zip(alike.items(), ("-", ":", "-.", (0, (5, 1)), "--"), strict=True):
    expected = chance @ rewards
    optimum[name] = q[expected.argmax()]
    (line,) = axis.plot(q, expected / expected.max(), linestyle=style, label=f"{name}: best q = {optimum[name]:.2f}")
    axis.plot(optimum[name], 1, "o", color=line.get_color())
axis.set(xlabel="probability q of class 1, the same for all pixels", ylabel="E[f(R)] / its maximum")
axis.legend(fontsize=9)
plt.show()

# %%
# For the score itself, always answering class 0 is best. For "perfect or nothing" that is the worst: it is never
# perfect. Best is :math:`q = 1/4`, where :math:`q (1 - q)^3` is largest; there the expected accuracy is only 5/8
# instead of 3/4. So here a monotone change of the score moves the optimum. *Monotone is harmless* is true only for a
# policy that can answer each pixel and each image on its own. What a network cannot tell apart, it has to gamble on,
# and :math:`f` says how.

assert optimum["R"] == optimum["√R"] == optimum["R²"] == 0
assert math.isclose(optimum["[R = 1]"], 1 / 4)
assert 0 < optimum["R⁸"] < 1 / 4
assert (chance @ alike["[R = 1]"])[0] == 0
assert np.isclose((chance @ accuracy)[q == 1 / 4], 5 / 8)
assert np.isclose((chance @ accuracy)[0], 3 / 4)

# %%
# Compared with what?
# -------------------
#
# An offset leaves the gradient as it is. It does not leave its *estimate* as it is. Without a baseline the total
# variance for K = 1 is
#
# .. math::
#
#    V(b) = \mathbb{E}\big[(R - b)^2 \, |\nabla \log \pi|^2\big] - |\nabla J|^2,
#
# where :math:`b` is what we subtract: a parabola. Three numbers that people subtract: nothing; the *running mean* of
# earlier scores, which is near the expected score :math:`J`; and the score of the *argmax* label map, in which every
# pixel takes its most likely class (it costs one reward query more). All three are unbiased, because none depends on
# the label map that was drawn.


def variance(p, b, rewards=R):
    pi, g = policy(p, maps)
    return pi @ ((rewards - b) ** 2 * (g**2).sum(axis=(1, 2))) - (gradient(p, rewards) ** 2).sum()


figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.7), layout="constrained")
middling = softmax(np.random.default_rng(3).normal(size=(N, C)) + 0.5 * np.eye(C)[target.ravel()])
for axis, (title, p) in zip(
    axes, {"an early policy": middling, "a right policy": policies["right"]}.items(), strict=True
):
    pi, g = policy(p, maps)
    weights = pi * (g**2).sum(axis=(1, 2))
    marks = {
        "nothing": 0.0,
        "expected score": pi @ R,
        "argmax map's score": R[(maps == p.argmax(axis=1)).all(axis=1)].item(),
        "best": weights @ R / weights.sum(),
    }
    b = np.linspace(-0.5, 1.2, 100)
    axis.plot(b, [variance(p, value) for value in b], color="black")
    for (name, value), marker in zip(marks.items(), "sovX", strict=True):
        axis.plot(value, variance(p, value), marker, markersize=9, label=f"{name}: b = {value:.2f}")
        assert variance(p, value) >= variance(p, marks["best"])
        assert math.isclose(variance(p, value), variance(p, value + 5, R + 5))  # an offset only moves the parabola
    assert variance(p, marks["expected score"]) < variance(p, 0)
    assert marks["argmax map's score"] > marks["expected score"]
    assert variance(p, marks["expected score"]) < variance(p, marks["argmax map's score"])
    axis.set(title=title, xlabel="what is subtracted, b", ylabel="total variance, K = 1", ylim=(0, None))
    axis.legend(fontsize=8)
plt.show()

# %%
# The expected score is not the best choice, but a good one. The argmax map of both policies scores above the average,
# so subtracting its score goes too far; for the right policy it is even worse than to subtract nothing. And adding 5 to
# every score would move the whole parabola 5 to the right: without a baseline the agent would then stand high up on its
# left arm.

assert variance(policies["right"], 1) > variance(policies["right"], 0)

# %%
# Leave-one-out subtracts what the other label maps of the image earn. A constant cancels in it for every draw, not only
# on average.


def leave_one_out(scores):
    """Advantages of K label maps of each image, (B, K) -> (B, K)."""
    K = scores.shape[1]
    return (scores - scores.mean(axis=1, keepdims=True)) * (K / (K - 1))


drawn = rng.choice(R, size=(50, 4))
assert np.allclose(leave_one_out(drawn + 5), leave_one_out(drawn), rtol=0, atol=1e-12)

# %%
# A kind of shaping that does nothing here
# ----------------------------------------
#
# In longer episodes one may add :math:`\gamma \Phi(s') - \Phi(s)` to the reward of each step, for any *potential*
# :math:`\Phi` of the state. It is famous for leaving the best policy in place and yet guiding the agent on its way.
#
# In an episode of one step there is no way. The state :math:`s` is the image. The next state :math:`s'` is the end,
# whose potential must not depend on how one got there: it is 0, or, as the environment returns the same image again,
# :math:`\Phi` of that image. So what is added is
#
# .. math::
#
#    -\Phi(\text{image}) \qquad\text{or}\qquad (\gamma - 1) \, \Phi(\text{image}) .
#
# Either way it is one number for each image, the same for all its label maps: an offset. Its gradient is zero, and
# leave-one-out removes it from every draw. It cannot tell the agent anything. A term that depends on the label map
# would, but then it is just another score, and may have another best answer.

env = gym.make("RSS-Shapes-ImageReward-v0", image_size=(16, 16), num_classes=3)
before, _ = env.reset(seed=0)
after, *_ = env.step(env.action_space.sample() * 0)
assert np.array_equal(before, after)  # s' shows what s showed

potential = rng.normal(size=(50, 1))  # one number an image
for added in (-potential, (0.99 - 1) * potential):
    assert np.allclose(leave_one_out(drawn + added), leave_one_out(drawn), rtol=0, atol=1e-12)
    assert np.allclose(gradient(middling, R + added[0]), gradient(middling, R), rtol=0, atol=1e-12)

# %%
# Learning curves
# ---------------
#
# Now images of the suite, 16×16 pixels and three classes, and a network of four convolutions. Each step shows 8 images,
# draws K = 16 label maps of each, has them scored, changes the scores, subtracts a baseline, and follows the gradient
# with Adam. Whatever the agent learned from, we draw the mean of the *unchanged* score.
#
# .. admonition:: Predict first
#
#    Learning curves of R, of R + 2 and of 16 R: which differ, without a baseline and with leave-one-out?

B, K, SIZE = 8, 16, 16
steps, seeds = (10, 1) if QUICK else (130, 3)


def baseline(kind, rewards, memory):
    """What is subtracted from the rewards (B, K); ``memory`` holds the running mean."""
    if kind == "none":
        return 0.0
    if kind == "running mean":
        value = memory.get("mean", rewards.mean())
        memory["mean"] = 0.9 * value + 0.1 * rewards.mean()
        return value
    return (rewards.sum(axis=1, keepdims=True) - rewards) / (K - 1)


def learn(f=lambda R: R, kind="leave-one-out", seed=0, steps=steps, optimiser=None, dtype=torch.float32):
    """What the unchanged scores were at every step, (steps, 3), and the network's parameters at the end.

    The three: mean; standard deviation between images; mean of the standard deviations within an image.
    """
    torch.manual_seed(seed)
    network = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=2, dilation=2), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=2, dilation=2), nn.ReLU()),
        nn.Conv2d(16, 3, 1),
    ).to(dtype)
    update = optimiser(network.parameters()) if optimiser else torch.optim.Adam(network.parameters(), lr=0.005)
    envs = gym.make_vec(
        "RSS-Shapes-ImageReward-v0", num_envs=B, image_size=(SIZE, SIZE), num_classes=3, samples_per_image=K
    )
    images, _ = envs.reset(seed=seed)
    curve, memory = [], {}
    for _ in range(steps):
        x = torch.from_numpy(images).permute(0, 3, 1, 2).to(dtype) / 255 - 0.5
        log_p = network(x).log_softmax(dim=1)  # (B, C, H, W)
        by_pixel = log_p.detach().exp().permute(0, 2, 3, 1).reshape(-1, 3)
        label_maps = by_pixel.multinomial(K, replacement=True).view(B, SIZE, SIZE, K).permute(0, 3, 1, 2)
        images, _, _, _, infos = envs.step(label_maps.to(torch.uint8).numpy())
        scores = infos["final_info"]["scores"]  # (B, K)
        rewards = f(scores)
        advantage = torch.from_numpy(rewards - baseline(kind, rewards, memory)).to(dtype)
        chosen = log_p.gather(1, label_maps)  # log p of the class drawn, (B, K, H, W)
        loss = -(advantage * chosen.sum(dim=(2, 3))).mean()
        update.zero_grad()
        loss.backward()
        update.step()
        curve.append((scores.mean(), scores.mean(axis=1).std(), scores.std(axis=1).mean()))
    return np.array(curve).reshape(steps, 3), nn.utils.parameters_to_vector(network.parameters()).detach()


shifted = {"f": lambda R: R + 2}
runs = {
    "leave-one-out": {},
    "running mean": {"kind": "running mean"},
    "none": {"kind": "none"},
    "none, R + 2": {"kind": "none", **shifted},
    **{name: {"f": shapings[name]} for name in ("R²", "sigmoid(12 (R − 0.5))", "[R ≥ 0.5]", "1 − |2 R − 1|")},
}
trained = {name: [learn(**options, seed=s) for s in range(seeds)] for name, options in runs.items()}
history = {name: np.array([found for found, _ in results]) for name, results in trained.items()}
curves = {name: found[:, :, 0] for name, found in history.items()}  # (seeds, steps)

figure, axes = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained", sharey=True)
panels = {"baselines": list(runs)[:4], "shapings, with leave-one-out": ["leave-one-out", *list(runs)[4:]]}
window = min(10, steps)
for axis, (title, shown) in zip(axes, panels.items(), strict=True):
    for name, marker in zip(shown, "os^vDX", strict=False):
        smooth = np.array([np.convolve(curve, np.ones(window) / window, "valid") for curve in curves[name]])
        x = np.arange(window, steps + 1)
        label = "R" if axis is axes[1] and name == "leave-one-out" else name
        (line,) = axis.plot(x, smooth.mean(axis=0), marker=marker, markevery=max(1, steps // 8), label=label)
        axis.fill_between(x, smooth.min(axis=0), smooth.max(axis=0), color=line.get_color(), alpha=0.2, linewidth=0)
    axis.set(title=title, xlabel="optimiser steps")
    corner = {"loc": "upper left"} if axis is axes[0] else {"loc": "lower right", "bbox_to_anchor": (1, 0.1)}
    axis.legend(fontsize=8, **corner)
axes[0].set_ylabel(f"mean IoU of the label maps drawn\n(mean of {window} steps)")
plt.show()

# %%
# Lines are means over seeds; bands go from the worst to the best seed.
#
# **The reason, left.** Leave-one-out compares label maps of the same image. What the running mean leaves over contains
# the difference between images as well, which says nothing about a label map; once something is learned, it is the
# larger part. Without a baseline there is more noise still, and an offset of 2 adds to it. That is the parabola above.

_, between, within = history["leave-one-out"].mean(axis=(0, 1))
print(f"standard deviation of the scores: between images {between:.3f}, within an image {within:.3f}")
if not QUICK:
    assert between > 2 * within

# %%
# **The reason, right.** The two monotone bends make no difference here that could be told from that of the seeds.
# (That is no law. Above they did make one.) The threshold is another matter. Label maps of a beginner never reach it,
# so all advantages are zero, and the network stays, to the last bit, as it was. And the reward that is not monotone
# keeps the agent below the score of one half, where it is largest.

end = {name: curve[:, -20:].mean() for name, curve in curves.items()}
for name, score in end.items():
    print(f"{name:>21}: {score:.3f} in the last steps")
_, untouched = learn(steps=0)
assert torch.equal(untouched, trained["[R ≥ 0.5]"][0][1])
if not QUICK:
    assert end["leave-one-out"] > end["running mean"] + 0.05 > end["none"] + 0.1 > end["none, R + 2"] + 0.1
    for name in ("R²", "sigmoid(12 (R − 0.5))"):
        assert abs(end[name] - end["leave-one-out"]) < 0.04
    assert end["1 − |2 R − 1|"] < 0.5 < end["leave-one-out"]

# %%
# And the factor 16? With plain gradient descent it multiplies the step, just as a 16 times larger learning rate does.
# Adam divides each gradient by its own typical size, so the factor cancels: the same training, bit for bit. (For that,
# the small number that Adam adds to the divisor must be negligible, and the factor must be a power of 2, so that
# nothing is rounded.)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.005, eps=1e-100)


def descent(rate):
    return lambda parameters: torch.optim.SGD(parameters, lr=rate)


def times_16(R):
    return 16 * R


short = {"steps": 5, "dtype": torch.float64}
assert torch.equal(learn(optimiser=adam, **short)[1], learn(times_16, optimiser=adam, **short)[1])
plain = learn(optimiser=descent(16 / 1024), **short)[1]
assert torch.equal(plain, learn(times_16, optimiser=descent(1 / 1024), **short)[1])
assert not torch.equal(plain, learn(times_16, optimiser=descent(16 / 1024), **short)[1])

# %%
# What to take away
# -----------------
#
# * Scale is a learning rate, and with Adam nothing. An offset is a baseline: harmless with leave-one-out, costly
#   without. A potential is an offset.
# * A strictly monotone change keeps the best label map, but not the direction of the gradient; and where pixels or
#   images cannot be told apart, not even the best policy.
# * A threshold that is never reached teaches nothing at all. What is not monotone teaches something else.
#
# Exercise
# --------
#
# Write ``solution(scores)``, which turns the scores of K label maps of each of B images, (B, K), into advantages, (B,
# K), that depend on the *order* of an image's scores only. So no strictly monotone change makes a difference, whichever
# it is.
#
# * The advantages of an image sum to 0, and they do not depend on other images.
# * A better label map has a larger advantage, and equal scores have equal advantages.
# * Any strictly increasing change of the scores leaves the advantages as they are.
#
# Scores are often equal (think of all label maps without a single right pixel), so mind the ties.
#
# Test your answer with ``check(solution)``, which says nothing if it is right. One answer is in
# ``solutions/lesson_4.py``.


def check(solution):
    generator = np.random.default_rng(4)
    scores = generator.integers(6, size=(20, 7)) / 8  # with ties
    scores[0] = 0.5  # an image whose label maps all earn the same
    advantages = np.asarray(solution(scores), dtype=float)
    assert advantages.shape == scores.shape
    assert np.allclose(advantages.sum(axis=1), 0), "The advantages of an image do not sum to 0."
    for f in (lambda R: R**3, lambda R: np.exp(5 * R), lambda R: 10 * R - 2):
        assert np.allclose(solution(f(scores)), advantages), "A monotone change of the scores changes the advantages."
    one_by_one = np.concatenate([solution(row[None]) for row in scores])
    assert np.allclose(one_by_one, advantages), "The advantages of an image depend on other images."
    for row, advantage in zip(scores, advantages, strict=True):
        higher = row[:, None] > row
        assert np.all((advantage[:, None] > advantage)[higher]), "A better label map has no larger advantage."
        assert np.allclose((advantage[:, None] - advantage)[row[:, None] == row], 0), "Equal scores are not equal."
