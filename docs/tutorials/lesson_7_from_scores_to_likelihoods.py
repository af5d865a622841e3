r"""
Lesson 7: from scores to likelihoods
====================================

**What it shows.** A score is a measurement of the hidden target. On a 2×2 image you do exact Bayesian inference with
it, by listing all targets. Then you see what is left of it when the belief must be a policy, one distribution a pixel,
and why such a learner may use old scores again where a policy gradient may not.

**For whom.** You know the policy gradient with a baseline (lesson 2), and Bayes' rule.

**How long.** 30 minutes to read, about 45 seconds to run on one core.
"""

# %%
# The question
# ------------
#
# *A policy gradient asks: which label maps score well? What do we gain if we ask instead: which targets explain the
# scores that we have seen?*
#
# The image has 2×2 pixels and C = 3 classes, so there are :math:`3^4 = 81` targets and 81 label maps. ``R[t, a]`` is
# the mean IoU of label map ``a`` if ``t`` is the target. That table is all we need.

import itertools
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from rss_env.rewards import score_images  # importing rss_env registers the ids

try:
    import rss_agents as agents
except ModuleNotFoundError:  # a checkout of the repository
    import agents

QUICK = os.environ.get("RSS_LESSON_QUICK") == "1"
torch.set_num_threads(1)

C = 3
maps = np.array(list(itertools.product(range(C), repeat=4)), np.uint8).reshape(-1, 2, 2)
every = np.broadcast_to(maps, (len(maps), *maps.shape))
R = score_images("mean_iou", every, maps, C)  # (81 targets, 81 label maps)
accuracy = score_images("pixel_accuracy", every, maps, C)
assert R.shape == (81, 81)
assert (R.diagonal() == 1).all()

# %%
# Exact scores rule out targets
# -----------------------------
#
# We start with the same belief in each target: :math:`P(t) = 1/81`. A score :math:`R_k` of label map :math:`a_k` rules
# out each target that would have given another score.
#
# .. admonition:: Predict first
#
#    Of how many random label maps do you need the score until a single target is left? Naming a target takes
#    :math:`\log_2 81 = 6.3` bits. A score looks like a number with many digits; how many bits does it bring?

hidden = int(np.flatnonzero((maps == [[0, 1], [1, 2]]).all(axis=(1, 2)))[0])
rng = np.random.default_rng(1)
queries = np.random.default_rng(24).permutation(len(maps))


def marginals(belief):  # (81,) -> (C, 2, 2): the probability of each class at each pixel
    return np.stack([(belief[:, None, None] * (maps == c)).sum(axis=0) for c in range(C)])


beliefs = [np.full(81, 1 / 81)]
for a in queries[:4]:
    belief = beliefs[-1] * np.isclose(R[:, a], R[hidden, a])
    beliefs.append(belief / belief.sum())

figure, axes = plt.subplots(2, 5, figsize=(10, 4.2), layout="constrained")
for k, belief in enumerate(beliefs):
    top, bottom = axes[:, k]
    if k:
        a = queries[k - 1]
        top.imshow(maps[a], cmap="Greys", vmin=0, vmax=4)
        for (i, j), label in np.ndenumerate(maps[a]):
            top.text(j, i, str(label), ha="center", va="center")
        top.set_title(f"query {k}: scores {R[hidden, a]:.2f}", fontsize=9)
        top.set_xticks([])
        top.set_yticks([])
    else:
        top.axis("off")
    bottom.imshow(marginals(belief).max(axis=0), cmap="Blues", vmin=0, vmax=1.6)
    for i, j in np.ndindex(2, 2):
        text = "\n".join(f"{c}: {p:.2f}" for c, p in enumerate(marginals(belief)[:, i, j]))
        bottom.text(j, i, text, ha="center", va="center", fontsize=8)
    bottom.set_title(f"{(belief > 0).sum()} targets left", fontsize=9)
    bottom.set_xticks([])
    bottom.set_yticks([])
figure.suptitle("Queries (top) and the belief after each: probabilities of classes 0, 1, 2 at each pixel")
plt.show()

# %%
# The lower row is the *posterior*, seen pixel by pixel. Now all targets, and many orders of queries.


def queries_until_known(table, target, order):
    left = np.ones(len(table), bool)
    for k, a in enumerate(order, start=1):
        left &= np.isclose(table[:, a], table[target, a])
        if left.sum() == 1:
            return k
    return len(order) + 1  # never


def bits(table):  # mean entropy, in bits, of the score of a random label map
    entropies = []
    for a in range(len(maps)):
        _, counts = np.unique(table[:, a].round(9), return_counts=True)
        share = counts / counts.sum()
        entropies.append(-(share * np.log2(share)).sum())
    return float(np.mean(entropies))


orders = [rng.permutation(81) for _ in range(2 if QUICK else 20)]
for name, table in (("mean IoU", R), ("pixel accuracy", accuracy)):
    needed = np.mean([queries_until_known(table, t, order) for t in range(81) for order in orders])
    print(f"{name}: {bits(table):.2f} bits a score, {needed:.1f} random scores until the target is known")
    assert needed >= np.log2(81) / bits(table)

# %%
# The score of a tiny image takes few values, so it brings a few bits. Later scores partly repeat what is known, so the
# mean number of queries is above :math:`\log_2 81` divided by the bits of one score. Still: a handful of numbers, and
# the target is *known*. A policy gradient that draws this handful of label maps has made one step.
#
# Noisy scores make targets unlikely
# ----------------------------------
#
# With Gaussian noise of standard deviation :math:`\tau` nothing is ruled out. Bayes' rule is
#
# .. math:: P(t \mid R_1 \ldots R_K) \;\propto\; P(t) \prod_k \exp\left(-\frac{(R_k - R(t, a_k))^2}{2 \tau^2}\right).
#
# Products of many small numbers underflow, so we add logarithms and take the largest one off before we come back.


def posterior(scores, asked, tau, table=R):
    log_belief = -((scores - table[:, asked]) ** 2).sum(axis=1) / (2 * tau**2)
    belief = np.exp(log_belief - log_belief.max())
    return belief / belief.sum()


asked = rng.integers(81, size=200)
noise = rng.normal(size=200)
assert np.allclose(
    posterior(R[hidden, asked[:10]], asked[:10], 1e-3), np.isclose(R[:, asked[:10]], R[hidden, asked[:10]]).all(axis=1)
)  # little noise: the targets that are left, as before (here a single one)
for tau in (0.05, 0.2):
    known = [posterior(R[hidden, asked[:k]] + tau * noise[:k], asked[:k], tau)[hidden] for k in range(1, 201)]
    first = next((k for k, probability in enumerate(known, start=1) if probability > 0.99), None)
    print(f"noise {tau}: the target has probability 0.99 after {first} scores")

# %%
# The policy as a belief
# ----------------------
#
# An image of a thousand pixels has more targets than we can list. A policy has one distribution a pixel,
# :math:`p_i(c)`. Read it as a belief: pixel :math:`i` of the target has class :math:`c` with probability
# :math:`p_i(c)`, each pixel independently.
#
# That is a *mean-field* belief, and something is lost: what the pixels have to do with each other. The loss is the
# divergence of the posterior from the product of its marginals, in bits.


def product(p):  # (C, 2, 2) -> (81,): the probability of each label map
    return np.prod([p[maps[:, i, j], i, j] for i, j in np.ndindex(2, 2)], axis=0)


def bits_lost(belief):
    positive = belief > 0
    return float((belief[positive] * np.log2(belief[positive] / product(marginals(belief))[positive])).sum())


lost = [bits_lost(belief) for belief in beliefs]
print("targets left:", [int((belief > 0).sum()) for belief in beliefs], "bits lost:", np.round(lost, 2))
assert abs(lost[0]) < 1e-12  # uniform: the product of its marginals
assert max(lost) > 0.5
assert abs(bits_lost(posterior(R[hidden, asked], asked, 0.05))) < 1e-3  # known: a product again

# %%
# In the beginning and at the end nothing is lost. In between, "exactly one of these two pixels is right" cannot be
# said.
#
# What score does a belief predict? The exact answer is :math:`\mu_a(p) = \sum_t P_p(t) R(t, a)`, a sum over all
# targets. For the pixel accuracy it is simple, because a mean of expectations is the expectation of the mean. For mean
# IoU we take the ratio of *expected counts*, which needs no sum over targets:
#
# .. math::
#    I_c = \sum_{i: a_i = c} p_i(c), \quad n_c = \sum_i [a_i = c], \quad t_c = \sum_i p_i(c), \quad
#    \mu_a(p) \approx \frac{\sum_c w_c \, I_c / (n_c + t_c - I_c)}{\sum_c w_c}.
#
# :math:`w_c` is the probability that the class counts: 1 if the label map has it, about :math:`1 - e^{-t_c}` if not.

one_hot = torch.from_numpy(np.stack([maps == c for c in range(C)], axis=1)).double()  # (81, C, 2, 2)


def soft_mean_iou(p, chosen):  # p: (C, 2, 2), chosen: (K, C, 2, 2), one-hot label maps
    right, named, expected = (chosen * p).sum((2, 3)), chosen.sum((2, 3)), p.sum((1, 2))
    iou = right / (named + expected - right).clamp(min=1e-6)
    weight = torch.where(named > 0, 1.0, 1 - torch.exp(-expected.detach()))
    return (weight * iou).sum(1) / weight.sum(1)


def soft_accuracy(p, chosen):
    return (chosen * p).sum((1, 2, 3)) / 4


p = torch.from_numpy(rng.dirichlet(np.ones(C), size=(2, 2))).permute(2, 0, 1)
weights = product(p.numpy())
assert np.allclose(soft_accuracy(p, one_hot), weights @ accuracy)  # exact
exact, soft = weights @ R, soft_mean_iou(p, one_hot).numpy()
print(f"mean IoU: exact expectations {exact.min():.2f} to {exact.max():.2f}, "
      f"soft ones off by {np.mean(soft - exact):+.3f} ± {np.std(soft - exact):.3f}")  # fmt: skip
print(f"correlation over the 81 label maps: {np.corrcoef(soft, exact)[0, 1]:.3f}")
assert np.corrcoef(soft, exact)[0, 1] > 0.8

# %%
# The soft score has an error, but it *orders* label maps much as the exact one does. ``agents.likelihood`` uses the
# same formula (``agents.scores.models``), and where it judges every pixel by itself it compares only label maps of
# the same image, so that a common error drops out.
#
# A learner in fifteen lines
# --------------------------
#
# Ask for :math:`K` scores. The residual :math:`r_k = R_k - \mu_{a_k}(p)` says what the belief did not expect, its
# centred version :math:`A_k = r_k - \bar r` is an advantage, and the belief follows
#
# .. math:: \sum_k A_k \nabla \mu_{a_k}(p).
#
# This is the gradient of a Gaussian log-likelihood, up to the variance, if to all scores of the image an unknown number
# is added: :math:`\bar r` is its best estimate. Compare the result with the exact posterior, from the same scores.


def fit(asked, scores, soft_score, steps=150, rate=0.1):
    z = torch.zeros(C, 2, 2, dtype=torch.double, requires_grad=True)
    optimiser = torch.optim.Adam([z], lr=rate)
    scores, chosen = torch.as_tensor(scores), one_hot[asked]
    for _ in range(steps):
        predicted = soft_score(z.softmax(0), chosen)
        residual = (scores - predicted).detach()
        loss = -((residual - residual.mean()) * predicted).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return z.softmax(0).detach().numpy()


asked = rng.integers(81, size=12)
bayes = marginals(posterior(R[hidden, asked], asked, 0.02))
belief = fit(asked, R[hidden, asked], soft_mean_iou)

figure, axes = plt.subplots(1, 4, figsize=(11, 2.6), layout="constrained", sharey=True)
for axis, (i, j) in zip(axes, np.ndindex(2, 2), strict=True):
    axis.bar(np.arange(C) - 0.2, bayes[:, i, j], 0.4, label="exact posterior", color="black")
    axis.bar(
        np.arange(C) + 0.2,
        belief[:, i, j],
        0.4,
        label="mean-field learner",
        color="white",
        edgecolor="black",
        hatch="//",
    )
    axis.set_title(f"pixel ({i}, {j}), true class {maps[hidden, i, j]}", fontsize=9)
    axis.set_xticks(range(C))
    axis.set_xlabel("class")
axes[0].set_ylabel("probability after 12 scores")
axes[0].legend(fontsize=8)
plt.show()
assert (bayes.argmax(0) == maps[hidden]).all()
assert (belief.argmax(0) == maps[hidden]).all()

# %%
# May old scores be used again?
# -----------------------------
#
# Scores are expensive. A learner would like to keep label maps that were drawn from an old policy :math:`q`, and learn
# from their scores again, today, with policy :math:`p`.
#
# .. admonition:: Predict first
#
#    A policy gradient multiplies each advantage with :math:`\nabla \log \pi_p(a)`. Let :math:`a` come from :math:`q`,
#    forget to correct for it, and let the baseline be :math:`q`'s mean score. Where does :math:`p` go in the end? Does
#    it matter what :math:`p` is?
#
# We can compute the *expected* update exactly, with a sum over the 81 label maps. The gradient of :math:`\log \pi_p(a)`
# with respect to the logits is :math:`[a_i = c] - p_i(c)`.


def policy_gradient(drawn_from, p):  # expected update if label maps come from `drawn_from`, (C, 2, 2)
    probability = product(drawn_from)
    advantage = R[hidden] - probability @ R[hidden]
    return np.einsum("a,acij->cij", probability * advantage, one_hot.numpy() - p)


def softmax(z):
    e = np.exp(z - z.max(axis=0))
    return e / e.sum(axis=0)


q = softmax(rng.normal(size=(C, 2, 2)))
for _ in range(5):
    p = softmax(rng.normal(size=(C, 2, 2)))
    assert np.allclose(policy_gradient(q, p), policy_gradient(q, q))
    assert not np.allclose(policy_gradient(q, p), policy_gradient(p, p), atol=1e-3)

# %%
# The update does not depend on :math:`p` at all: :math:`p_i(c)` is multiplied by the sum of the advantages, which is 0.
# A replayed policy gradient walks on in the direction that was right *at* :math:`q`, for ever. The true gradient turns,
# and gets shorter, and at the target it is 0. The bias is exactly the difference between the gradient at :math:`q` and
# the gradient at :math:`p`.
#
# Importance weights :math:`\pi_p(a) / \pi_q(a)` repair this, exactly, and at a price that lesson 8 computes.

probability, ratio = product(q), product(p) / product(q)
advantage = R[hidden] - product(p) @ R[hidden]
corrected = np.einsum("a,acij->cij", probability * ratio * advantage, one_hot.numpy() - p)
assert np.allclose(corrected, policy_gradient(p, p))

# %%
# The regression needs no repair. Its update is a sum of residual times :math:`\nabla\mu`, and at the target each
# residual is 0, wherever the label map came from. For the pixel accuracy, where soft counts are exact, this is an
# identity:

truth = torch.from_numpy(np.stack([maps[hidden] == c for c in range(C)])).double()
residuals = torch.from_numpy(accuracy[hidden]) - soft_accuracy(truth, one_hot)
assert residuals.abs().max() < 1e-12
assert np.allclose(R[hidden], product(truth.numpy()) @ R)  # mean IoU: so it is with exact expectations
assert np.allclose(policy_gradient(truth.numpy(), truth.numpy()), 0)
assert np.abs(policy_gradient(q, truth.numpy())).max() > 0.01  # replayed, it walks on

# %%
# Watch the two walk, from the same uniform policy, with the same six stored label maps, used again and again. Each
# number is a mean over random targets and random label maps. "Bayes" is the best that can be made of these six scores.


def replay_policy_gradient(asked, scores, steps=150):
    z = np.zeros((C, 2, 2))
    advantage = scores - scores.mean()
    for _ in range(steps):
        z += 0.1 * np.einsum("a,acij->cij", advantage, one_hot.numpy()[asked] - softmax(z))
    return softmax(z)


def expected_right(p, target):  # chance that a pixel drawn from the belief is right
    return float(np.mean([p[target[i, j], i, j] for i, j in np.ndindex(2, 2)]))


rows = []
for _ in range(5 if QUICK else 60):
    target, asked = rng.integers(81), rng.choice(81, size=6, replace=False)
    found = {
        "policy gradient, replayed": replay_policy_gradient(asked, R[target, asked]),
        "likelihood, replayed": fit(asked, R[target, asked], soft_mean_iou),
        "Bayes": marginals(posterior(R[target, asked], asked, 1e-2)),
    }
    rows.append([[np.mean(p.argmax(0) == maps[target]), expected_right(p, maps[target])] for p in found.values()])
rows = np.array(rows)
error = rows.std(axis=0, ddof=1) / len(rows) ** 0.5
for name, mean, e in zip(found, rows.mean(axis=0), error, strict=True):
    print(f"{name:>26}: likeliest class right {mean[0]:.2f} ± {e[0]:.2f}, probability of the right class {mean[1]:.2f}")
by_pg, by_likelihood, by_bayes = rows.mean(axis=0)[:, 0]
assert by_bayes > by_pg
assert QUICK or by_likelihood > by_pg + 2 * error[:2, 0].max()

# %%
# Few queries, a real image
# -------------------------
#
# Does it matter outside of 2×2? ``agents.RSS`` is a policy gradient, ``agents.Likelihood`` the learner of this lesson
# with a memory, in which pixels of similar colour share what scores say. Same network, same images (64 training images
# of 16×16 pixels), same number of scores.
#
# .. admonition:: Predict first
#
#    A step shows 8 images, so each image comes back every eight steps or so. Which learner can profit from that, and
#    from how many queries on?

steps, seeds = (8, (1,)) if QUICK else (160, (1, 2))
small = {"image_size": (16, 16), "batch_size": 8, "steps": steps, "val_images": 16 if QUICK else 48, "progress": False}
small |= {"env_kwargs": {"num_images": 64, "num_classes": 4}, "eval_every": steps // 8, "log_every": steps}
K = 4
curves = {}
of_all_images = {"scores_per_nat": 0}  # else it would show those first that its scores say enough of
for name, algorithm, options in (("RSS", agents.RSS, {}), ("Likelihood", agents.Likelihood, of_all_images)):
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            result = agents.train(
                "RSS-Shapes-ImageReward-v0",
                algorithm(samples_per_image=K, **options),
                run_dir=Path(folder, "run"),
                seed=seed,
                **small,
            )
            curves[name, seed] = result.curves["val/miou"]
            assert result.reward_queries == steps * 8 * K

figure, axis = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
for (name, seed), curve in curves.items():
    style, color = ("o-", "black") if name == "Likelihood" else ("s--", "tab:orange")
    face = color if seed == 1 else "white"
    queries = np.array(list(curve)) * 8 * K
    axis.plot(queries, curve.values(), style, color=color, markerfacecolor=face, label=f"{name}, seed {seed}")
axis.set_xlabel("reward queries (label maps scored)")
axis.set_ylabel("mean IoU on validation images")
axis.set_ylim(bottom=0)
axis.legend()
plt.show()

final = {name: [curve[steps] for (n, _), curve in curves.items() if n == name] for name in ("RSS", "Likelihood")}
print({name: np.round(values, 3).tolist() for name, values in final.items()})
if not QUICK:
    assert np.mean(final["Likelihood"]) > np.mean(final["RSS"])

# %%
# About :math:`64 \cdot 4 = 256` queries show each image once; before that there is nothing to remember. The learner
# with a memory ends higher. Whether the memory is the reason, the regression, or what pixels of one colour share, this
# run does not tell: for that one would train it once more without each (``agents.Likelihood(replay=0)``,
# ``agents.Likelihood(regions=())``). And two seeds are an anecdote. How to
# do better is the subject of lesson 9.
#
# What to take away
# -----------------
#
# - A score is a measurement. With all targets in a list, Bayes' rule turns a handful of scores into the target.
# - A policy can be read as a belief with independent pixels. It predicts scores, and the residuals, compared within an
#   image, tell it where to move.
# - A policy gradient is about *how label maps were drawn*, so old ones mislead it. A regression is about *what the
#   score says*, so old scores stay true.
#
# Exercise
# --------
#
# Write Bayes' rule so that it survives. ``solution(log_prior, predicted, scores, std)`` takes the logarithm of the
# prior of T targets, ``predicted`` (T, K), the score that each target gives each of K label maps, the K noisy
# ``scores`` and the noise's standard deviation. It gives the posterior, (T,). It must be right for one score and for
# 10,000, and for noise of 1e-4.
#
# Test your answer with ``check(solution)``, which says nothing if it is right. One answer is in
# ``solutions/lesson_7.py``.


def check(solution):
    """Asserts that the solution is Bayes' rule, for few and for many scores, whatever the prior."""
    rng = np.random.default_rng(0)
    prior = rng.dirichlet(np.ones(81))
    for target, count, std in ((3, 1, 0.1), (40, 5, 0.05), (70, 10_000, 0.3), (11, 50, 1e-4)):
        asked = rng.integers(81, size=count)
        scores = R[target, asked] + std * rng.normal(size=count)
        found = np.asarray(solution(np.log(prior), R[:, asked], scores, std))
        assert found.shape == (81,)
        assert np.isfinite(found).all(), "not finite"
        assert np.isclose(found.sum(), 1), "the probabilities do not add to 1"
        # The odds of any two targets, by hand, where they do not vanish.
        best = int(found.argmax())
        misfit = ((scores - R[:, asked]) ** 2).sum(axis=1) / (2 * std**2)
        odds = np.log(prior) - np.log(prior[best]) - misfit + misfit[best]
        near = odds > -30
        assert np.allclose(np.log(found[near]) - np.log(found[best]), odds[near]), "the odds are wrong"
        if count > 5:
            assert best == target
