"""
Lesson 1: one image, one step
=============================

**What it shows.** Segmentation as a problem of reinforcement learning: what the agent sees, what it does, what it
earns, and why so short an episode is hard.

**For whom.** You know Python and NumPy, and you have heard of agents, actions and rewards.

**How long.** 20 minutes to read, about 5 seconds to run on one core.
"""

# %%
# **The question:** an agent looks at one image and colours it in. What does it earn?
#
# *Semantic segmentation* gives every pixel of an image a class, such as "background" or "disk". The result is called a
# *label map*. Usually a network learns this from *targets*: label maps that people have drawn. In this course nobody
# shows a target. The agent draws a label map and is told one number, its *score*. That is all it learns from.

import math
import os

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

import rss_env  # noqa: F401 (registers the ids)

QUICK = os.environ.get("RSS_LESSON_QUICK") == "1"
rng = np.random.default_rng(0)

env = gym.make("RSS-Shapes-ImageReward-v0", image_size=(32, 32), expose_target=True)
image, info = env.reset(seed=4)

H, W = env.action_space.shape
N = H * W  # pixels
names = env.metadata["class_names"]
C = len(names)
print(f"observation: {image.dtype} {image.shape}")
print(f"action: integers 0…{env.action_space.nvec.max() - 1} of shape {env.action_space.shape}")
print(f"classes: {names}")
print(f"info: {list(info)}")
assert env.observation_space.contains(image)
assert np.all(env.action_space.nvec == C)

# %%
# The observation is an RGB image. The action is one whole label map: a class for every pixel, chosen at once.
#
# ``info`` has the number of the image and, because we asked with ``expose_target=True``, the target. We want to look at
# it. An agent must not: for an agent, leave that argument out.
#
# One action, a random one, and what comes back:

random_map = rng.integers(C, size=(H, W))
_, score, terminated, truncated, _ = env.step(random_map)
print(f"score {score:.3f}, terminated {terminated}, truncated {truncated}")
assert (terminated, truncated) == (True, False)

# %%
# The episode is over after this one step. Here is what happened. (The classes have the colours that the environment
# names in ``env.metadata["palette"]``.)

colours = ListedColormap(np.array(env.metadata["palette"]) / 255)


def show(axis, label_map, title):
    axis.imshow(label_map, cmap=colours, vmin=0, vmax=C - 1, interpolation="nearest")
    axis.set(title=title, xticks=[0, W // 2, W - 1], yticks=[0, H // 2, H - 1], xlabel="column / pixels")


target = info["target"]
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.8), layout="constrained")
axes[0].imshow(image, interpolation="nearest")
axes[0].set(title="image: what the agent sees", xticks=[0, W // 2, W - 1], yticks=[0, H // 2, H - 1])
axes[0].set(xlabel="column / pixels", ylabel="row / pixels")
show(axes[1], random_map, f"a random label map: {score:.2f}")
show(axes[2], target, "target: hidden from the agent")
for label in np.unique(target):  # the names, so that colour is not all that tells the classes apart
    row, column = np.argwhere(target == label)[(target == label).sum() // 2]
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    axes[2].text(column, row, names[label], ha="center", va="center", fontsize=9, bbox=box)
figure.legend(
    handles=[plt.Rectangle((0, 0), 1, 1, facecolor=colours(c), edgecolor="black") for c in range(C)],
    labels=names,
    loc="outside lower center",
    ncols=C,
    frameon=False,
)
plt.show()

# %%
# Three label maps
# ----------------
#
# The score is the *mean IoU* of the image. For one class, the intersection over union is
#
# .. math::
#
#    \mathrm{IoU}_c = \frac{\text{pixels that have class } c \text{ in both maps}}
#                          {\text{pixels that have class } c \text{ in at least one of them}},
#
# and the score is its mean over the classes that occur in the label map or in the target.
#
# .. admonition:: Predict first
#
#    Three agents do not even look. One answers with random classes, one calls everything background, one (a cheat)
#    gives the target. Most pixels of our images are background. In which order do they score, and how large do you
#    think the three numbers are? Write them down.


def earn(env, index, label_map):
    """The score of one label map of image ``index``."""
    env.reset(options={"index": index})
    return env.step(label_map)[1]


images = 40 if QUICK else 300
earned = {"random": [], "all background": [], "target": []}
targets = []
for index in range(images):
    _, info = env.reset(options={"index": index})
    targets.append(info["target"])
    earned["random"].append(earn(env, index, rng.integers(C, size=(H, W))))
    earned["all background"].append(earn(env, index, np.zeros((H, W), int)))
    earned["target"].append(earn(env, index, info["target"]))
for name, scores in earned.items():
    print(f"{name:>14}: {np.mean(scores):.3f} on average over {images} images")
assert np.mean(np.array(targets) == 0) > 0.5
assert np.mean(earned["random"]) < np.mean(earned["all background"]) < np.mean(earned["target"]) == 1

# %%
# **The reason.** "All background" can be computed by hand. The class background has the IoU
# :math:`n_0 / N`, where :math:`n_0` is the number of background pixels in the target and :math:`N` the number of all
# pixels. Each other class of the target is missed and counts 0. So
#
# .. math::
#
#    R(\text{all background}) = \frac{n_0 / N}{\text{number of classes in the target}}.
#
# A class that covers ten pixels weighs as much as the background. That is the reason why people use the mean IoU: you
# cannot earn much by ignoring what is small.

for target, score in zip(targets, earned["all background"], strict=True):
    present = np.union1d(target, 0)
    assert math.isclose(score, (target == 0).mean() / len(present), rel_tol=1e-12)

# %%
# The random map can be computed as well, at least its expectation. Class :math:`c` has :math:`n_c` pixels in the
# target. A random map hits each of them with probability :math:`1/C`, and puts class :math:`c` on :math:`F` pixels
# where it does not belong. :math:`F` has a binomial distribution and is independent of the hits, so
#
# .. math::
#
#    \mathbb{E}[\mathrm{IoU}_c] = \frac{n_c}{C} \; \mathbb{E}\!\left[\frac{1}{n_c + F}\right],
#    \qquad F \sim \mathrm{Binomial}(N - n_c, 1/C).
#
# A class that is not in the target counts 0, and a random map of so many pixels almost surely has all classes, so that
# the mean is over all :math:`C` of them. We hold the measurement against the formula. It should be off by a few
# *standard errors*: the standard deviation of the scores around the formula, divided by the square root of their
# number.


def expected_iou(n):
    """E[IoU] of a class with n pixels in the target, for a random label map."""
    if n == 0:
        return 0.0
    f = np.arange(N - n + 1)
    log_choose = [math.lgamma(N - n + 1) - math.lgamma(i + 1) - math.lgamma(N - n - i + 1) for i in f]
    chance = np.exp(np.array(log_choose) + f * math.log(1 / C) + (N - n - f) * math.log(1 - 1 / C))
    return n / C * float(np.sum(chance / (n + f)))


expected = np.array([np.mean([expected_iou(int((t == c).sum())) for c in range(C)]) for t in targets])
difference = np.array(earned["random"]) - expected
standard_error = difference.std(ddof=1) / math.sqrt(images)
print(f"random: measured {np.mean(earned['random']):.4f}, formula {expected.mean():.4f} ± {standard_error:.4f}")
assert abs(difference.mean()) < 4 * standard_error

# %%
# One number, or one a pixel
# --------------------------
#
# There is a second environment. It shows the same images and takes the same label maps, but it says more: ``info``
# holds the *pixel reward*, 1 where the class is right and 0 where it is wrong. Its mean, the *pixel accuracy*, is the
# reward.

pixel_env = gym.make("RSS-Shapes-PixelReward-v0", image_size=(32, 32))
image_again, info = pixel_env.reset(seed=4)
assert np.array_equal(image, image_again)  # same seed, same image

background = np.zeros((H, W), int)
index = info["index"]
_, accuracy, _, _, info = pixel_env.step(background)
assert info["pixel_reward"].shape == (H, W)
assert math.isclose(accuracy, info["pixel_reward"].mean(), rel_tol=1e-6)

figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.4), layout="constrained")
show(axes[0], background, "label map: all background")
axes[0].set_ylabel("row / pixels")
axes[1].text(0.5, 0.5, f"{earn(env, index, background):.2f}", fontsize=30, ha="center", va="center")
axes[1].set(title="ImageReward: one number", xticks=[], yticks=[], aspect="equal")
shown = axes[2].imshow(info["pixel_reward"], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
axes[2].set(title="PixelReward: one number a pixel", xlabel="column / pixels")
axes[2].set(xticks=[0, W // 2, W - 1], yticks=[0, H // 2, H - 1])
figure.colorbar(shown, ax=axes[2], ticks=[0, 1], label="pixel reward (1: right)", shrink=0.7)
plt.show()

# %%
# The white part on the right tells which pixels are right. The number in the middle does not. Finding out from numbers
# like it *which* pixels earned the score is called *credit assignment*, and most of this course is about it.
#
# A bandit with many arms
# -----------------------
#
# In reinforcement learning an agent usually takes many steps, and what it does now changes what it sees later. Not
# here. One image comes, one label map goes, one score comes back. The next image does not depend on what was done. Such
# a problem is called a *contextual bandit*: the image is the context, and every label map is an arm that can be pulled.
# There is no discount, no next state, no value to look ahead to. The return of the episode is its reward.
#
# That sounds easy. How many arms are there? Every one of :math:`N` pixels can have each of :math:`C` classes:
#
# .. math::
#
#    C^{H \cdot W} \quad\text{label maps, and}\quad \log C^{H \cdot W} = H W \log C .

arms = C**N  # Python's integers have no upper limit
digits = math.floor(N * math.log10(C)) + 1
bits = N * math.log2(C)
print(f"{C}^{N} has {digits} digits; it takes {bits:,.0f} bits to name one label map")
assert 10 ** (digits - 1) <= arms < 10**digits

# %%
# .. admonition:: Predict first
#
#    We draw 2,000 random label maps of one image and take the best. Its pixel accuracy is at least one fifth, because
#    that is the average. How good is the best of 2,000?
#
# The environment scores many label maps of one image in one step if it is made with ``samples_per_image``. The scores
# are then in ``info["scores"]``. Every label map that is scored is one *reward query*, the currency in which we pay.

K = 200 if QUICK else 2000
many = gym.make(
    "RSS-Shapes-ImageReward-v0", image_size=(32, 32), reward="pixel_accuracy", samples_per_image=K, expose_target=True
)
_, info = many.reset(seed=4)
target = info["target"]
_, mean_score, _, _, info = many.step(rng.integers(C, size=(K, H, W), dtype=np.uint8))
scores = info["scores"]
assert scores.shape == (K,)
assert math.isclose(mean_score, scores.mean())
assert many.unwrapped.reward_queries == K

spread = math.sqrt(1 / C * (1 - 1 / C) / N)
print(f"mean {scores.mean():.4f}, standard deviation {scores.std():.4f}, formula {spread:.4f}")
print(f"best {scores.max():.3f}: {(scores.max() - 1 / C) / spread:.1f} standard deviations above 1/C")
assert abs(scores.mean() - 1 / C) < 5 * spread / math.sqrt(K)
assert abs(scores.std() / spread - 1) < 5 / math.sqrt(2 * K)
assert scores.max() < 1 / C + 6 * spread

figure, axis = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
axis.hist(scores, bins=np.arange(0, 1.005, 1 / 128), color="tab:blue", label=f"{K:,} random label maps")
axis.axvline((target == 0).mean(), color="tab:orange", linestyle="--", label="all background")
axis.axvline(1, color="black", linestyle="-", linewidth=3, label="target")
axis.set(xlim=(0, 1.02), xlabel="score (pixel accuracy)", ylabel="number of label maps")
axis.legend(loc="upper center", bbox_to_anchor=(0.43, 1))
plt.show()

# %%
# **The reason.** The score is a mean over :math:`N` independent pixels, each right with probability :math:`1/C`. Its
# standard deviation is
#
# .. math::
#
#    \sigma = \sqrt{\frac{\frac1C \left(1 - \frac1C\right)}{N}},
#
# The best of some thousand draws lies only a few :math:`\sigma` above the mean. More draws hardly help: random
# search never gets near the target. And the larger the image, the narrower the heap.
#
# How many queries must it be?
# ----------------------------
#
# Suppose an agent could ask as cleverly as possible. The pixel accuracy of an image takes one of :math:`N + 1` values.
# After :math:`q` queries the agent has seen one of at most :math:`(N+1)^q` sequences of answers. If two different
# targets give the same sequence, it cannot tell them apart. So it needs
#
# .. math::
#
#    (N + 1)^q \ge C^N, \qquad\text{that is}\qquad q \ge \frac{N \log C}{\log(N + 1)} .

needed = math.ceil(N * math.log(C) / math.log(N + 1))
assert (N + 1) ** needed >= arms > (N + 1) ** (needed - 1)
print(f"No method finds every target of {N:,} pixels and {C} classes with fewer than {needed} queries.")

# %%
# This is for an image without any structure. Real images have structure: neighbours often have the same class, and
# things that look alike have the same class. A network that has learned from other images needs few further queries, or
# none. Learning *that* is the aim.
#
# What to take away
# -----------------
#
# * Segmentation from scores is a contextual bandit. An episode has one step: image in, label map out, score back.
# * There are :math:`C^{HW}` actions. A number of several hundred digits rules out trying them.
# * What a lazy answer earns depends on the score: "all background" is good at pixel accuracy and bad at mean IoU.

assert accuracy > 0.5 > np.mean(earned["all background"])
assert digits > 100

# %%
# Exercise
# --------
#
# Write ``solution(score, shape, C)``, which finds the hidden target of one image. ``score(label_map)`` gives the pixel
# accuracy of a label map, exactly. ``shape`` is (H, W), and ``C`` is the number of classes. Return the target, an
# integer array (H, W). You may ask at most :math:`1 + N (C - 1)` times.
#
# A hint: what does the score do if you change one pixel?
#
# Test your answer with ``check(solution)``, below; it says nothing if the answer is right. In a notebook, add a cell;
# in a file of your own, ``runpy.run_path("lesson_1_one_image_one_step.py")["check"](solution)`` runs the lesson and
# then the test. One answer is in ``solutions/lesson_1.py``.


def check(solution):
    size, classes = (8, 8), 3
    hidden = gym.make(
        "RSS-Shapes-ImageReward-v0", image_size=size, num_classes=classes, reward="pixel_accuracy", expose_target=True
    )
    allowed = 1 + size[0] * size[1] * (classes - 1)
    for index in range(3):
        target = hidden.reset(options={"index": index})[1]["target"]
        before = hidden.unwrapped.reward_queries
        # index is bound now: the function must go on scoring this image
        found = solution(lambda label_map, i=index: earn(hidden, i, np.array(label_map)), size, classes)
        asked = hidden.unwrapped.reward_queries - before
        assert np.array_equal(found, target), f"Image {index}: {np.mean(found == target):.0%} of the pixels are right."
        assert asked <= allowed, f"Image {index}: {asked} queries, {allowed} are allowed."
