r"""
Lesson 10: people and worlds as the reward
==========================================

**What it shows.** Nobody has a formula. A person says which of two label maps is better, or somebody believes a label
map, acts on it, and something comes of that. You compute what a preference tells, derive the likelihood that
``agents.rate`` learns from, let a policy learn from a rater who errs, and then play label maps in a game and see what
such a reward does *not* ask for.

**For whom.** You know Bayes' rule for scores (lesson 7) and bits (lesson 6).

**How long.** 30 minutes to read, about 45 seconds to run on one core.
"""

# %%
# The question
# ------------
#
# *What is learned if the reward is a person's word, or what happens to somebody who believes the label map?*
#
# The last part plays the game Crafter, which ``pip install '.[course,crafter]'`` installs next to what the course
# needs. Without it that part is left out, and says so.

import importlib.util
import itertools
import os
import tempfile
from pathlib import Path

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import torch

from rss_env.datasets import load_dataset  # importing rss_env registers the ids
from rss_env.worlds.planner import DIRECTIONS, distances, majority, nearest, way_to

try:
    from rss_agents.networks import make_network
    from rss_agents.rating import answers, belief, learner, questions, session
except ModuleNotFoundError:  # a checkout of the repository
    from agents.networks import make_network
    from agents.rating import answers, belief, learner, questions, session

QUICK = os.environ.get("RSS_LESSON_QUICK") == "1"
CRAFTER = importlib.util.find_spec("crafter") is not None
torch.set_num_threads(1)

# %%
# What a preference tells
# -----------------------
#
# The smallest image with something to compare has two pixels, and two classes: four targets, four label maps. A rater
# sees which *share* of a label map is right, and answers. Before the question each target has probability 1/4.
#
# .. admonition:: Predict first
#
#    The target has 2 bits. How many does the answer tell to each of these questions? One label map, one to five stars;
#    which of ``00`` and ``01`` is better; which of ``00`` and ``11`` is better, or are they the same; the same question
#    without the button "same", so that the rater tosses a coin; all four in order.

maps = np.array(list(itertools.product(range(2), repeat=2)), np.uint8)  # 00, 01, 10, 11
share = (maps[:, None] == maps[None]).mean(axis=2)  # (4 targets, 4 label maps)


def entropy(p):  # bits; over the last axis
    return -(p * np.log2(np.where(p > 0, p, 1))).sum(axis=-1)


def information(chances):  # P(answer | target), (4, answers) -> bits
    return float(entropy(chances.mean(axis=0)) - entropy(chances).mean())


def pair(a, b, same=True):  # P(a better, b better, same | target); `same=False`: of equal ones any
    sign = np.sign(share[:, a] - share[:, b])
    chances = np.stack([sign > 0, sign < 0, sign == 0], axis=1).astype(float)
    return chances if same else chances[:, :2] + chances[:, 2:] / 2


def with_lapses(chances, lapse):  # with this probability the answer is any
    return (1 - lapse) * chances + lapse / chances.shape[1]


stars = np.eye(5)[np.round(4 * share[:, 0]).astype(int)]
orders = np.unique(share, axis=0, return_inverse=True)[1].ravel()
asked = {
    "stars of 00": stars,
    "00 or 01": pair(0, 1),
    "00 or 11, or same": pair(0, 3),
    '00 or 11, no "same"': pair(0, 3, same=False),
    "all four in order": np.eye(4)[orders],
}
bits = {name: information(chances) for name, chances in asked.items()}
lapsed = {name: information(with_lapses(chances, 0.1)) for name, chances in asked.items()}
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
place = np.arange(len(bits))
axis.barh(place - 0.2, bits.values(), 0.4, color="0.35", label="a rater who never errs")
axis.barh(
    place + 0.2, lapsed.values(), 0.4, color="white", edgecolor="black", hatch="//", label="one answer of ten is any"
)
for i, name in enumerate(bits):
    axis.text(bits[name], i - 0.2, f" {bits[name]:.2f}", va="center", fontsize=9)
    axis.text(lapsed[name], i + 0.2, f" {lapsed[name]:.2f}", va="center", fontsize=9)
axis.set_yticks(place, list(bits))
axis.invert_yaxis()
axis.set_xlim(0, 2.3)
axis.set_xlabel("bits about the target in one answer (2 pixels, 2 classes)")
figure.legend(loc="outside upper right", ncols=2, fontsize=8)
plt.show()

expected = [1.5, 1.0, 1.5, 0.5, 2.0]
assert np.allclose(list(bits.values()), expected)
assert all(lapsed[name] < bits[name] for name in bits)

# %%
# - Label maps that differ in one pixel: one bit, and it is *that* pixel. About the other pixel the answer says nothing.
# - The button "same" is worth a whole bit: without it the coin hides that neither label map was better.
# - An order of four label maps has six pairs in it. On this image it tells everything.
#
# A few lapses cost many bits: whoever hears an answer cannot know whether it is one.
#
# From probabilities to an answer
# -------------------------------
#
# A policy with one distribution a pixel, :math:`p_i(c)`, is read as a belief (lesson 7). Let :math:`D` be the pixels
# where label maps :math:`a` and :math:`b` differ, and
#
# .. math::
#    A = \frac{1}{|D|} \sum_{i \in D} p_i(a_i), \qquad B = \frac{1}{|D|} \sum_{i \in D} p_i(b_i), \qquad N = 1 - A - B
#
# the expected shares of :math:`D` where the first is right, the second, and neither. Bradley and Terry (1952) say that
# whoever is stronger wins more often, in proportion to strength; Davidson (1970) adds ties:
#
# .. math::
#    P(a \text{ is better}) = \frac{A^\gamma}{A^\gamma + B^\gamma + T}, \qquad T = \nu (AB)^{\gamma/2} + N^\gamma.
#
# Why these strengths? Because on small images they are the truth. For every belief, enumerate the targets:


def exact_pair(p, a, b):  # p: (2 pixels, C) -> P(a better), P(b better), P(same), summed over all targets
    chances = np.zeros(3)
    for target in itertools.product(range(p.shape[1]), repeat=2):
        probability = p[0, target[0]] * p[1, target[1]]
        scores = [(np.array(target) == label_map).mean() for label_map in (a, b)]
        chances[0 if scores[0] > scores[1] else 1 if scores[1] > scores[0] else 2] += probability
    return chances


def model_pair(p, a, b, sharpness, ties, lapse=0.0):  # the same by the package
    label_maps = torch.from_numpy(np.array([a, b]))[:, None]  # (2, H = 1, W = 2)
    right = belief.right(torch.from_numpy(p.T[:, None]), label_maps)
    rater = belief.RaterModel(lapse=lapse, sharpness=sharpness, ties=ties)
    return belief.pair_probabilities(right, label_maps, None, rater).numpy()


rng = np.random.default_rng(0)
for _ in range(20):
    p = rng.dirichlet(np.ones(3), size=2)  # three classes: neither may be right
    assert np.allclose(model_pair(p, (0, 2), (1, 2), 1, 0), exact_pair(p, (0, 2), (1, 2)))  # one pixel differs
    p[1] = p[0]  # two pixels of which as much is known
    p[:, 2], p[:, :2] = 0, p[:, :2] / p[:, :2].sum(axis=1, keepdims=True)
    assert np.allclose(model_pair(p, (0, 0), (1, 1), 2, 2), exact_pair(p, (0, 0), (1, 1)))  # both differ

# %%
# One differing pixel: :math:`\gamma = 1, \nu = 0` is exact, and so is "same" where neither is right. Two pixels of
# which as much is known: :math:`\gamma = 2, \nu = 2` is exact, as :math:`(A + B)^2 = A^2 + B^2 + 2AB`. With more pixels
# the better one is seen more surely, and exact ties get rare. ``agents.rate`` takes :math:`\gamma = 2, \nu = 0.3` for
# all, which is a model, not the truth:

p = rng.dirichlet(np.ones(2), size=(300, 2))
gaps = np.array([model_pair(q, (0, 0), (1, 1), 2, 0.3)[:2] - exact_pair(q, (0, 0), (1, 1))[:2] for q in p])
odds = np.array([np.log(exact_pair(q, (0, 0), (1, 1))[:2]) @ [1, -1] for q in p])
modelled = np.array([np.log(model_pair(q, (0, 0), (1, 1), 2, 0.3)[:2]) @ [1, -1] for q in p])
print(f"two pixels: the model takes 'better' for {gaps.mean():.2f} likelier than it is, the log-odds correlate with "
      f"{np.corrcoef(odds, modelled)[0, 1]:.2f}")  # fmt: skip
assert gaps.mean() > 0  # it expects fewer ties than so small an image has
assert np.corrcoef(odds, modelled)[0, 1] > 0.8

# %%
# Who gets the credit
# -------------------
#
# Training follows the gradient of :math:`\log P`. With two classes, logits :math:`z_i` of the class in :math:`a`, and
# :math:`\pi_b, \pi_T` for the probabilities of "b is better" and "same", three lines of calculus give
#
# .. math::
#    \frac{\partial \log P(a \text{ is better})}{\partial z_i} =
#    \gamma \left(\pi_b + \frac{\pi_T}{2}\right) \frac{p_i (1 - p_i)}{|D| \, A B}
#    \text{ for } i \in D, \text{ and 0 elsewhere.}
#
# The first factor is the surprise: what was expected teaches nothing. The last one divides the credit among the pixels
# of :math:`D`, most to those that are not sure. No other pixel moves, and none should: the answer is not about them.


def gradient(p, a, b, sharpness, ties):  # p: (N,) of class 1; by the formula, with respect to the logits of class 1
    differ = a != b
    of_a, of_b = (np.where(label_map == 1, p, 1 - p)[differ].mean() for label_map in (a, b))
    strengths = np.array([of_a**sharpness, of_b**sharpness, ties * (of_a * of_b) ** (sharpness / 2)])
    _, loses, same = strengths / strengths.sum()
    size = sharpness * (loses + same / 2) * p * (1 - p) / (differ.sum() * of_a * of_b)
    return np.where(differ, np.where(a == 1, size, -size), 0.0)


def answer(a, b, said):  # an answer to a question about label maps of one row
    label_maps = np.array([a, b], np.uint8)[:, None]
    return answers.Answer(1, answers.Question("q", "pair", "image", label_maps), "somebody", said, 1.0, 0.0)


def log_likelihood(p, a, b, said, rater):  # value, and gradient with respect to the logits of class 1
    z = torch.from_numpy(np.log(p / (1 - p))).requires_grad_()
    probabilities = torch.stack([torch.sigmoid(-z), torch.sigmoid(z)])[:, None]  # (C = 2, H = 1, W)
    value = belief.log_likelihood(probabilities, answer(a, b, said), 0.0, rater)
    value.backward()
    return float(value.detach()), z.grad.numpy()


a_is_better, b_is_better, same = {"order": [[0], [1]]}, {"order": [[1], [0]]}, {"order": [[0, 1]]}
for _ in range(20):
    p = rng.uniform(0.05, 0.95, size=6)
    a, b = rng.integers(0, 2, size=(2, 6))
    a[0], b[0], a[1], b[1] = 1, 0, 1, 1  # pixel 0 differs, pixel 1 does not
    rater = belief.RaterModel(lapse=0.0, sharpness=2.0, ties=0.3)
    value, found = log_likelihood(p, a, b, a_is_better, rater)
    assert np.allclose(found, gradient(p, a, b, 2.0, 0.3))
    numeric = []
    for i in range(6):  # and by differences
        moved = [1 / (1 + np.exp(-np.log(p / (1 - p)) - step * (np.arange(6) == i))) for step in (1e-5, -1e-5)]
        numeric.append(np.subtract(*(log_likelihood(q, a, b, a_is_better, rater)[0] for q in moved)) / 2e-5)
    assert np.allclose(found, numeric, atol=1e-7)
    assert found[0] > 0
    assert found[1] == 0

# %%
# "Same" is a special case. If two label maps are opposites and nothing is known, it says "exactly one pixel is right",
# which no product of pixels can express: the gradient is 0. What lesson 7 called the bits lost is lost here too.

_, found = log_likelihood(np.array([0.5, 0.5]), np.array([0, 0]), np.array([1, 1]), same, belief.RaterModel())
assert np.allclose(found, 0)

# %%
# Mistakes
# --------
#
# .. admonition:: Predict first
#
#    A pixel is of class 1 with probability :math:`p`, and a rater says that class 1 is better there. How strongly
#    should the logit move if :math:`p` is 0.5? If it is 0.001, so that the belief is sure of the contrary? What would
#    the policy gradient do, which multiplies with the probability of the answer?

p = np.linspace(0.001, 0.999, 61)
curves = {"policy gradient": p * (1 - p)}
for lapse in (0.0, 0.1, 0.3):
    rater = belief.RaterModel(lapse=lapse, sharpness=1.0, ties=0.0)
    of_one = [log_likelihood(np.array([q]), np.array([1]), np.array([0]), a_is_better, rater)[1][0] for q in p]
    curves[f"likelihood, {lapse:.0%} of the answers are any"] = np.array(of_one)
figure, axis = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
for (name, values), style in zip(curves.items(), ("k:", "k-", "C0--", "C1-."), strict=True):
    axis.plot(p, values, style, label=name)
axis.set_xlabel("probability of the class that the rater prefers")
axis.set_ylabel("gradient of its logit")
axis.legend(fontsize=8)
plt.show()

never, tenth = curves["likelihood, 0% of the answers are any"], curves["likelihood, 10% of the answers are any"]
assert np.allclose(never, 1 - p)  # cross-entropy's
assert tenth[0] < 0.05 < 0.9 < never[0]
assert abs(tenth[30] - never[30]) < 0.1

# %%
# Who believes that raters never err gets cross-entropy: the surer the belief is of the contrary, the more it is turned.
# One slip of a finger undoes what many answers taught. If one answer of ten may be any, a belief in doubt learns nearly
# as fast, and a belief that is sure takes the answer for a mistake. The policy gradient does not learn in either case
# where it is sure, whoever is right: it never finds out.
#
# A sitting
# ---------
#
# Now the whole thing, with the objects that the page of ``python -m agents.rate`` talks to, and a simulated rater. The
# images are RSS-Shapes with two classes. A question shows one outlined part, a superpixel, once in either class: "is
# this part a figure?" The rater sees which label map has more of the part right, and in one answer of ten says any of
# the three things that can be said.

SIZE = (20, 24)
ANSWERS, EVERY, UPDATES = (4, 4, 2) if QUICK else (40, 5, 4)
SEEDS = (1,) if QUICK else (1, 2)
shapes = {
    split: load_dataset("Shapes", split=split, image_size=SIZE, num_classes=2, num_images=n, difficulty="easy")
    for split, n in (("train", 48), ("val", 8 if QUICK else 64))
}
images, targets = np.array(shapes["train"].images), shapes["train"].targets
held_out, truth = np.array(shapes["val"].images), shapes["val"].targets


def mean_iou(label_maps):
    ious = [
        ((label_maps == c) & (truth == c)).sum() / ((label_maps == c) | (truth == c)).sum()
        for c in range(2)
    ]  # fmt: skip
    return float(np.mean(ious))


def sit(choice, lapse, errs, seed):
    """Mean IoU on held-out images every few answers, the last question, and the policy."""
    torch.manual_seed(seed)
    names = [answers.image_name(image) for image in images]
    policy = learner.Learner(
        make_network("unet", 2, {"width": 8}), images, names,
        learner.LearnerOptions(learning_rate=1e-2, batch_size=4, mean_of=25, seed=seed),
        belief.RaterModel(lapse=lapse), torch.device("cpu"),
    )  # fmt: skip
    asking = questions.Questions(
        images, names, lambda numbers: policy.probabilities(images[numbers]), choice=choice, side=6, seed=seed
    )
    rng = np.random.default_rng(100 + seed)
    measured = [mean_iou(policy.label_maps(held_out))]
    with tempfile.TemporaryDirectory() as folder:
        log = answers.AnswerLog(Path(folder, "answers.sqlite"), ["background", "figure"], SIZE)
        sitting = session.Session(log, asking, policy, lambda: {}, seed=seed)
        for number in range(1, ANSWERS + 1):
            question, attempt = sitting.question("simulated")
            target = targets[names.index(question.image)]
            first, second = ((label_map == target)[question.part].mean() for label_map in question.label_maps)
            said = a_is_better if first > second else b_is_better if second > first else same
            if rng.random() < errs:
                said = [a_is_better, b_is_better, same][rng.integers(3)]
            sitting.answer(question.id, "simulated", said, 3.0, attempt)
            for _ in range(UPDATES):  # the page's server does that in a thread
                policy.update()
            if number % EVERY == 0:
                measured.append(mean_iou(policy.label_maps(held_out)))
        assert len(policy) == len(log.answers()) == ANSWERS  # every answer is on the disk, and learned from
        log.close()
    return np.array(measured), question, policy


curves = {}
for choice in ("random", "active"):
    curves[choice] = []
    for seed in SEEDS:
        measured, question, policy = sit(choice, 0.1, 0.1, seed)
        curves[choice].append(measured)
one_class = max(mean_iou(np.full_like(truth, c)) for c in range(2))

figure, axes = plt.subplots(1, 4, figsize=(11, 2.6), layout="constrained")
number = [answers.image_name(image) for image in images].index(question.image)
for axis, label_map, letter in zip(axes, question.label_maps, "AB", strict=False):
    axis.imshow(images[number])
    axis.contourf(label_map, levels=[0.5, 1.5], colors="none", hatches=["////"])
    axis.contour(question.part, levels=[0.5], colors="yellow", linewidths=2)
    axis.set_title(f"{letter}: the figure is hatched", fontsize=9)
axes[2].imshow(held_out[0])
axes[2].set_title("a held-out image", fontsize=9)
axes[3].imshow(policy.label_maps(held_out[:1])[0], cmap="Greys", vmin=0, vmax=1)
axes[3].set_title(f"the policy after {ANSWERS} answers", fontsize=9)
for axis in axes:
    axis.set_xticks([])
    axis.set_yticks([])
figure.suptitle("The last question: which label map is better in the outlined part? And what the policy has learned")
plt.show()

# %%
# .. admonition:: Predict first
#
#    *Active* choice asks, of 16 images, about the part that the policy is least sure of. *Random* choice asks about any
#    part. Which needs fewer answers, and by how much? How many seeds would you want to see?

figure, axis = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
for (choice, runs), style in zip(curves.items(), ("C1s--", "C0o-"), strict=True):
    for seed, values in zip(SEEDS, runs, strict=True):
        label = choice if seed == SEEDS[0] else None
        axis.plot(
            EVERY * np.arange(len(values)), values, style, markersize=3, label=label, alpha=0.9 if seed == 1 else 0.5
        )
axis.axhline(one_class, color="black", linestyle=":", label="the best single class")
axis.set_xlabel("answers of a rater who errs in one of ten (a line: one seed)")
axis.set_ylabel("mean IoU on held-out images")
axis.set_ylim(0, 1)
axis.legend(fontsize=8)
plt.show()

ends = {choice: [values[-1] for values in runs] for choice, runs in curves.items()}
print(f"after {ANSWERS} answers: " + "; ".join(f"{n} {', '.join(f'{v:.2f}' for v in vs)}" for n, vs in ends.items()))
for runs in curves.values():
    for values in runs:
        assert QUICK or values[-1] > max(values[0], one_class) + 0.1

# %%
# A few dozen clicks, none of which drew an outline, and the policy finds figures in images that nobody was asked about.
# Each answer is about one part of one image; the network carries it over to all that look alike.
#
# Which choice is better? Look at the lines of one colour. If the seeds of one choice differ as much as the choices do,
# two seeds decide nothing (lesson 9), and we claim nothing. There is a reason for either. Who asks where the doubt is
# does not ask what is known already. But the doubt of an untrained policy is no guide, and the most doubtful part may
# lie on the border of a figure, where no answer is right for all of it.
#
# What do mistakes do? Three of ten answers are now any. The learner knows, or it believes every word.

told = {
    f"takes {lapse:.0%} for mistakes": [sit("random", lapse, 0.3, seed)[0] for seed in SEEDS] for lapse in (0.3, 0.0)
}
for name, runs in told.items():
    print(f"three of ten answers are any, the learner {name}: " + ", ".join(f"{values[-1]:.2f}" for values in runs))

# %%
# With so few answers luck may weigh more than the model of the rater, so again nothing is claimed from two seeds. What
# is certain is the picture of the gradients above: what one wrong answer can do, and to whom.
#
# A world
# -------
#
# Nobody judges now. Somebody *believes* the label map, plans a way to each thing worth having, and walks it. The reward
# is what comes of that. Such a world in fifteen lines, with the planner of ``rss_env.worlds``: cells of one pixel,
# grass and sand to walk on, water and trees to be reached, lava that stops whoever walks into it.

GRASS, SAND, WATER, TREE, LAVA = range(5)
START, FARTHEST = (2, 3), 12


def plan(label_map, goal):  # the steps of a shortest way to the nearest `goal`, or None: by belief only
    seen = label_map[None].copy()
    seen[0][START] = 255  # where one stands nothing is read
    walkable = seen <= SAND
    steps = distances(walkable, np.array([START]), FARTHEST)
    cell = nearest(seen, steps, [goal])[0, 0]
    return None if cell < 0 else way_to(int(cell), steps[0].tolist(), walkable[0].tolist())


def outcome(label_map, world):  # 0..1: the mean over water and trees; a longer way is worth less
    total = 0.0
    for goal in (WATER, TREE):
        way = plan(label_map, goal)
        if way is None:
            continue
        places = np.add(START, np.cumsum([DIRECTIONS[step] for step in way], axis=0))
        found = [world[tuple(place)] for place in places]  # what is really there
        if all(label <= SAND for label in found[:-1]) and found[-1] == goal:
            total += 1 - len(way) / (2 * FARTHEST)
    return total / 2


world = np.array(
    [
        [TREE, TREE, GRASS, GRASS, GRASS, LAVA, GRASS],
        [GRASS, GRASS, GRASS, LAVA, GRASS, LAVA, WATER],
        [GRASS, LAVA, GRASS, GRASS, SAND, SAND, SAND],
        [GRASS, GRASS, GRASS, SAND, SAND, LAVA, WATER],
        [TREE, GRASS, GRASS, SAND, WATER, WATER, WATER],
    ],
    np.uint8,
)
blind = np.where(world == LAVA, GRASS, world)  # one who does not see lava
assert outcome(world, world) == np.mean([1 - 3 / 24, 1 - 4 / 24])  # water after 3 steps, a tree after 4
assert outcome(np.full_like(world, GRASS), world) == 0  # nothing to be had
print(f"true map {outcome(world, world):.2f}, without lava {outcome(blind, world):.2f}")

# %%
# .. admonition:: Predict first
#
#    Swap the names of two classes in the *true* map, everywhere: grass is called sand, and sand grass. For which pairs
#    of the five classes does the outcome stay the same? And how many of the 35 cells can be named wrongly at once
#    without any loss?
#
# The first question takes ten calls. For the second, walk through the cells and change each to something wrong; keep
# the change if nothing is lost, *together with the changes before it*.


def swapped(label_map, c, d):
    return np.where(label_map == c, d, np.where(label_map == d, c, label_map)).astype(np.uint8)


full = outcome(world, world)
equal = [(c, d) for c, d in itertools.combinations(range(5), 2) if outcome(swapped(world, c, d), world) == full]
print("pairs of classes that can be swapped:", equal)
assert equal == [(GRASS, SAND)]

hack = world.copy()
for place in np.ndindex(world.shape):
    for wrong in (LAVA, SAND, GRASS):
        tried = hack.copy()
        tried[place] = wrong
        if wrong != world[place] and outcome(tried, world) >= full:
            hack = tried
            break
print(
    f"{(hack == world).mean():.0%} of the cells are right, and the outcome is {outcome(hack, world):.2f} of {full:.2f}"
)
assert outcome(hack, world) == full
assert [int(world[tuple(place)]) for place in np.argwhere(hack == world)] == [TREE, LAVA, WATER]

# %%
# Three cells are right: the tree and the water that are gone to, and the lava through which the way would lead if it
# were called ground. The rest is wrong: the ground has the name of the other ground, and what nobody needs has any
# name. The reward is full. That is a *hack* in the sense of lesson 5, and it is none: who wanted the outcome got it. A
# reward asks for what it pays, and nothing else.
#
# The game
# --------
#
# ``RSS-Crafter-OutcomeReward-v0`` is that with a real game, Crafter (Hafner, 2022): thirteen classes, seven kinds of
# goals, zombies that chase, skeletons that shoot. Reading, planning and playing are the same:
#
# 1. *Read* the label map: a cell of 8×8 pixels has the class of most of its pixels.
# 2. *Plan*: breadth-first search over what is said to be walkable, a way to the nearest cell of each goal.
# 3. *Play* each plan in the game's engine. A goal that is reached is worth the health that is left times
#    1 − steps / 32. The reward is the mean over the goals that the true world offers.

if CRAFTER:
    SCENES = 8 if QUICK else 32
    env = gym.make("RSS-Crafter-OutcomeReward-v0", render_mode="rgb_array", num_images=SCENES, expose_target=True)
    names, palette = env.metadata["class_names"], np.array(env.metadata["palette"], np.uint8)

    def play(scene, label_map):
        env.reset(options={"index": scene})
        return env.step(label_map)[1]

    scenes = []
    for scene in range(SCENES):
        image, info = env.reset(options={"index": scene})
        scenes.append((image, info["target"], np.where(info["target"] == 255, 0, info["target"]).astype(np.uint8)))
    best = np.array([play(scene, true_map) for scene, (_, _, true_map) in enumerate(scenes)])
    random_maps = np.random.default_rng(0).integers(0, len(names), (SCENES, 7, 9), dtype=np.uint8)
    random_maps = random_maps.repeat(8, 1).repeat(8, 2)
    lucky = np.array([play(scene, label_map) for scene, label_map in enumerate(random_maps)])
    print(f"{SCENES} scenes: the true map earns {best.mean():.2f}, random cells {lucky.mean():.2f}")
    assert best.mean() > lucky.mean() + 0.3
else:
    print("Crafter is not installed, so the game is left out: pip install '.[course,crafter]'")

# %%
# Which labels matter?
# --------------------
#
# .. admonition:: Predict first
#
#    Which of the thirteen classes can be swapped with another one in the true maps, so that no scene pays a bit less?
#
# All :math:`13 \cdot 12 / 2 = 78` swaps, in every scene. A class that a scene does not have is no evidence, so a pair
# counts in the scenes where the true map has at least one of the two.

if CRAFTER:
    loss = np.full((len(names), len(names)), np.nan)
    for c, d in itertools.combinations(range(len(names)), 2):
        there = [scene for scene, (_, _, true_map) in enumerate(scenes) if np.isin(true_map, (c, d)).any()]
        if there:
            lost = [best[scene] - play(scene, swapped(scenes[scene][2], c, d)) for scene in there]
            loss[c, d] = loss[d, c] = np.max(np.abs(lost))
    figure, axis = plt.subplots(figsize=(6.2, 5.4), layout="constrained")
    drawn = axis.imshow(loss, cmap="Greys", vmin=0, vmax=np.nanmax(loss))
    for c, d in np.ndindex(loss.shape):
        if loss[c, d] == 0:
            axis.text(d, c, "0", ha="center", va="center")
    axis.set_xticks(range(len(names)), names, rotation=90)
    axis.set_yticks(range(len(names)), names)
    figure.colorbar(drawn, label="largest change of the outcome of a scene")
    plt.show()

    game = load_dataset("Crafter", split="train", num_images=SCENES).world
    offered = {journey.goal for _, target, true_map in scenes for journey in game.journeys(true_map, target)}
    ground = [names.index(name) for name in ("grass", "sand", "path")]
    enemies = [names.index(name) for name in ("lava", "zombie", "skeleton")]
    assert all(loss[c, d] == 0 for c, d in itertools.combinations(ground, 2))
    assert not any(loss[c, d] > 0 for c, d in itertools.combinations(enemies, 2))  # nan: no scene has either
    goals = [names.index(name) for name in ("water", "tree", "stone", "coal", "iron", "diamond", "cow")]
    for c, d in itertools.product(goals, enemies):
        assert np.isnan(loss[c, d]) or (loss[c, d] > 0) == (c in offered)
    water, tree, grass = (names.index(name) for name in ("water", "tree", "grass"))
    assert min(loss[water, tree], loss[grass, tree], loss[grass, water]) > 0.1

# %%
# The three kinds of ground are one class to who acts: exactly, in every scene. So are lava, zombies and skeletons, as
# nobody walks into them and nobody wants them. A learner that is paid by outcomes has no reason to tell them apart, and
# a mean IoU over thirteen classes is no measure of it: the page on worlds (``docs/outcomes.md``) shows a network with
# most of the best outcome and little of the mean IoU.
#
# A zero between a danger and a goal, such as a diamond, says that none of these scenes offers that goal. To see a
# diamond where there is none costs nothing, as long as it does not stand in the way.
#
# A wrong label map with the full outcome
# ---------------------------------------
#
# The hack of the small world needs no search. Keep the cells where the plans go, with the other name for ground; call
# everything else lava. The ways are still there, they are still the shortest, and nothing else is in sight.

if CRAFTER:

    def hacked(target, true_map):
        cells = np.full((7, 9), names.index("lava"), np.uint8)
        truth = majority(true_map[None], 8, len(names))[0]
        for journey in game.journeys(true_map, target):
            if journey.way is None:
                continue
            *walk, goal = np.add(journey.visited[0], np.cumsum([DIRECTIONS[step] for step in journey.way], axis=0))
            for place in map(tuple, walk):
                cells[place] = ground[1] if truth[place] == ground[0] else ground[0]
            cells[tuple(goal)] = truth[tuple(goal)]
        return cells.repeat(8, 0).repeat(8, 1)

    hacks = [hacked(target, true_map) for _, target, true_map in scenes]
    earned = np.array([play(scene, label_map) for scene, label_map in enumerate(hacks)])
    right = np.mean([(h == t)[t != 255].mean() for h, (_, t, _) in zip(hacks, scenes, strict=True)])
    print(f"the hack: {right:.0%} of the pixels are right, outcome {earned.mean():.3f}; true maps: {best.mean():.3f}")
    assert np.array_equal(earned, best)
    assert right < 0.25

    scene = int(np.argmax([len(game.journeys(true_map, target)) for _, target, true_map in scenes]))
    image, target, true_map = scenes[scene]
    figure, axes = plt.subplots(2, 3, figsize=(10, 5.4), layout="constrained")
    axes[0, 0].imshow(image)
    axes[0, 0].set_title("the image", fontsize=10)
    axes[1, 0].axis("off")
    for column, title, label_map in ((1, "the true map", true_map), (2, "the hack", hacks[scene])):
        axes[0, column].imshow(palette[label_map])
        share = (label_map == target)[target != 255].mean()
        axes[0, column].set_title(f"{title}: {share:.0%} of the pixels right", fontsize=10)
        axes[1, column].imshow(game.draw(image, label_map, target, 4))
        axes[1, column].set_title(f"who believes it earns {play(scene, label_map):.2f}", fontsize=10)
    present = np.unique(np.concatenate([true_map, hacks[scene]]))
    patches = [plt.Rectangle((0, 0), 1, 1, facecolor=palette[c] / 255, edgecolor="black") for c in present]
    axes[1, 0].legend(patches, [names[c] for c in present], ncols=2, loc="center", fontsize=9)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    plt.show()

# %%
# The lower row is what ``env.render()`` draws of a plan: a disk is a goal that was reached. Both maps lead to the same
# places. If you want the *map*, do not pay for the *walk*; if you want the walk, do not complain about the map.
#
# What to take away
# -----------------
#
# - A preference tells one bit or so, about the pixels where two label maps differ, and only those get the credit. The
#   button "same" tells more than it looks.
# - A likelihood that knows of mistakes lets a sure belief overhear them, and learns where it is in doubt. A policy
#   gradient does not move where it is sure, right or wrong.
# - An outcome asks for what matters to who acts. Classes that mean the same stay unnamed, and full reward is no proof
#   of a right label map.
#
# Exercise
# --------
#
# There are three, each with its own check, which says nothing if your answer is right. Answers are in
# ``solutions/lesson_10.py``.
#
# 1. ``solution(p, a, b)``: ``p`` (N,) is the probability that a pixel is of class 1, ``a`` and ``b`` (N,) are label
#    maps of 0 and 1. Give the gradient of the log-probability that ``a`` is called better, with respect to the logits
#    of class 1, for Bradley and Terry's own model: no ties, no mistakes, :math:`\gamma = 1`. Test it with
#    ``check(solution)``.
# 2. ``solution_2(chances, M)``: each answer is one of M. ``chances`` (n,) says what probability a belief gave to the
#    answer that came, for a rater who never errs. Give the most likely share of answers that are any of the M. Test it
#    with ``check_2(solution_2)``.
# 3. ``solution_3(outcome, true_map, classes)``: ``outcome(label_map)`` is what somebody earns who believes it. Give a
#    label map of the numbers below ``classes`` that earns what the true map earns, and of which no further cell can be
#    made wrong without a loss. Test it with ``check_3(solution_3)``.


def check(solution):
    """Asserts the gradient against differences of the package's own likelihood."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 7):
        for _ in range(5):
            p, (a, b) = rng.uniform(0.1, 0.9, size=n), rng.integers(0, 2, size=(2, n))
            b[0] = 1 - a[0]
            rater = belief.RaterModel(lapse=0.0, sharpness=1.0, ties=0.0)
            _, expected = log_likelihood(p, a, b, a_is_better, rater)
            found = solution(p, a, b)
            assert np.all(found[a == b] == 0), "pixels where the two do not differ get no credit"
            assert np.allclose(found, expected), "not the gradient of the log-probability"


def check_2(solution):
    """Asserts that the share is the most likely one, for raters who never err and who do."""
    rng = np.random.default_rng(0)
    for lapse, M in itertools.product((0.0, 0.1, 0.3), (2, 3, 5)):
        beliefs = rng.dirichlet(np.full(M, 0.3), size=4000)
        said = (beliefs.cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
        said = np.where(rng.random(4000) < lapse, rng.integers(M, size=4000), said)
        chances = beliefs[np.arange(4000), said]
        found = solution(chances, M)
        assert abs(found - lapse) < 0.06, f"the rater errs in {lapse:.0%} of the answers"
        values = [np.log((1 - v) * chances + v / M).sum() for v in (found, *np.linspace(0, 0.9, 91))]
        assert values[0] >= max(values) - 0.01, "another share is likelier"


def check_3(solution):
    """Asserts on random worlds that nothing is lost, and that no cell is left that could be made wrong."""
    rng = np.random.default_rng(0)
    for _ in range(4):
        true_map = rng.choice(5, size=(5, 7), p=[0.5, 0.2, 0.1, 0.1, 0.1]).astype(np.uint8)
        true_map[START] = GRASS
        full = outcome(true_map, true_map)
        found = solution(lambda label_map, world=true_map: outcome(label_map, world), true_map, 5)
        assert outcome(found, true_map) >= full, "something is lost"
        for place in map(tuple, np.argwhere(found == true_map).tolist()):
            for wrong in set(range(5)) - {int(true_map[place])}:
                tried = found.copy()
                tried[place] = wrong
                assert outcome(tried, true_map) < full, f"cell {place} can be made wrong too"
