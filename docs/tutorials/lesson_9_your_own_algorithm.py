r"""
Lesson 9: your own algorithm
============================

**What it shows.** You write a learner in forty lines, train it with the project's loop next to two built-in ones, with
the same number of reward queries, and learn what four seeds can prove and what they cannot. At the end it becomes an
entry of the leaderboard.

**For whom.** You know the policy gradient with a leave-one-out baseline (lesson 2) and a little PyTorch.

**How long.** 25 minutes to read, about a minute to run on one core.
"""

# %%
# The question
# ------------
#
# *I have an idea for a better learner. How do I find out whether it is one?*
#
# The idea
# --------
#
# Ours is a policy gradient with an entropy bonus that fades. For an image, K label maps are drawn; each is compared
# with the mean of the *other* K − 1:
#
# .. math:: A_k = R_k - \frac{1}{K - 1} \sum_{j \ne k} R_j, \qquad
#           \text{loss} = -\frac{1}{K} \sum_k \frac{A_k}{\sigma} \log \pi(a_k \mid x)
#           - \beta\,(1 - \text{progress})\, H(\pi).
#
# :math:`\sigma` is the standard deviation of all advantages of the step, so that the step size does not depend on how
# alike the samples are. :math:`\beta` is ours to choose. The code divides both summands by the number of pixels, so
# that :math:`\beta` means the same at every size.
#
# The project's loop brings network, optimiser, checkpoints and evaluation. An algorithm is a dataclass with two
# methods: ``act`` draws label maps from the logits, ``loss`` turns their scores into a loss.

import itertools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import torch

from rss_env.evaluation import evaluate  # importing rss_env registers the ids

try:
    import rss_agents as agents
except ModuleNotFoundError:  # a checkout of the repository
    import agents

QUICK = os.environ.get("RSS_LESSON_QUICK") == "1"
torch.set_num_threads(1)


@dataclass(eq=False)
class Mine(agents.Algorithm):
    """Leave-one-out policy gradient with an entropy bonus that fades."""

    samples_per_image: int = 8
    """label maps drawn and scored for each image (K)"""
    entropy: float = 0.03
    """weight of the entropy bonus at the first step (beta)"""

    def env_options(self):
        return {"samples_per_image": self.samples_per_image}

    def act(self, logits, progress, generator):
        p = logits.softmax(dim=1)  # (B, C, H, W)
        batch, classes, height, width = p.shape
        rows = p.permute(0, 2, 3, 1).reshape(-1, classes)  # one row a pixel
        drawn = torch.multinomial(rows, self.samples_per_image, replacement=True, generator=generator)
        return drawn.view(batch, height, width, -1).permute(0, 3, 1, 2).to(torch.uint8)  # (B, K, H, W)

    def loss(self, logits, feedback, progress):
        scores = feedback.scores  # (B, K)
        k = scores.shape[1]
        advantages = (scores - scores.mean(dim=1, keepdim=True)) * k / (k - 1)  # leave-one-out
        advantages = (advantages / (advantages.std() + 1e-8)).to(logits.dtype)
        log_p = logits.log_softmax(dim=1)[:, None].expand(-1, k, -1, -1, -1)  # (B, K, C, H, W)
        chosen = log_p.gather(2, feedback.label_maps[:, :, None].long())[:, :, 0]  # (B, K, H, W)
        policy_loss = -(advantages[:, :, None, None] * chosen).mean()
        entropy = torch.special.entr(logits.softmax(dim=1)).sum(dim=1).mean()  # nats a pixel
        return policy_loss - self.entropy * (1 - progress) * entropy, {"policy/entropy": entropy.detach()}


# %%
# Two details are worth a test *before* any training. First, :math:`R_k` less the mean of the others is :math:`R_k` less
# the mean of all, times :math:`K / (K - 1)`. Second, the gradient that ``loss`` gives is the one that we meant: at a
# pixel, the advantages of the label maps that have class :math:`c` there, and nothing else.

r = torch.rand(3, 8, dtype=torch.double)
others = (r.sum(dim=1, keepdim=True) - r) / 7
assert torch.allclose(r - others, (r - r.mean(dim=1, keepdim=True)) * 8 / 7)

generator = torch.Generator().manual_seed(0)
logits = torch.randn(2, 3, 4, 4, generator=generator, requires_grad=True)
label_maps = Mine().act(logits.detach(), 0.0, generator)
scores = torch.rand(2, 8, generator=generator, dtype=torch.double)
feedback = agents.Feedback(label_maps, scores, None, [0, 1], [False, False], {})
loss, _ = Mine(entropy=0.0).loss(logits, feedback, 0.0)
(gradient,) = torch.autograd.grad(loss, logits)
centred = scores - scores.mean(dim=1, keepdim=True)
centred = (centred / centred.std()).float()
for c in range(3):
    by_hand = -(centred[:, :, None, None] * (label_maps == c)).sum(dim=1) / label_maps.numel()
    assert torch.allclose(gradient[:, c], by_hand, atol=1e-6)

# %%
# A fair comparison
# -----------------
#
# Fair means: the same network, images, number of steps, and **reward queries**, because queries are what a judge is
# paid for. The seed sets the weights, the order of the images and all draws, so two algorithms with the same seed start
# from the same network and see the same images in the same order. We shall use that.
#
# .. admonition:: Predict first
#
#    ``agents.RSS`` is a policy gradient like ours whose entropy is held to a falling target. ``agents.Likelihood`` is
#    the learner of lesson 7, with a memory and with pixels that share what scores say. Which one wins, and by more than
#    the seeds differ among themselves?

steps, seeds, K = (6, (1, 2), 4) if QUICK else (90, (1, 2, 3, 4), 8)
batch_size = 8
setting = {"image_size": (16, 16), "batch_size": batch_size, "steps": steps, "val_images": 8 if QUICK else 64}
images = 64 if QUICK else 2048
setting |= {
    "env_kwargs": {"num_classes": 3, "num_images": images},
    "eval_every": max(1, steps // 6),
    "log_every": steps,
    "progress": False,
}
algorithms = {"mine": Mine, "RSS": agents.RSS, "Likelihood": agents.Likelihood}
curves, queries = {}, set()
for name, seed in itertools.product(algorithms, seeds):
    with tempfile.TemporaryDirectory() as folder:
        result = agents.train(
            "RSS-Shapes-ImageReward-v0",
            algorithms[name](samples_per_image=K),
            run_dir=Path(folder, "run"),
            seed=seed,
            **setting,
        )
        curves[name, seed] = result.curves["val/miou"]
        queries.add(result.reward_queries)
assert queries == {steps * batch_size * K}  # the same for all, evaluation is not counted
final = {name: np.array([curves[name, seed][steps] for seed in seeds]) for name in algorithms}

figure, axis = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
for name, style in zip(algorithms, ("o-", "s--", "^:"), strict=True):
    at = np.array(list(curves[name, seeds[0]]))
    runs = np.array([list(curves[name, seed].values()) for seed in seeds])
    (line,) = axis.plot(at * batch_size * K, runs.mean(axis=0), style, label=name)
    axis.plot(at * batch_size * K, runs.T, color=line.get_color(), alpha=0.25)
axis.set_xlabel("reward queries")
axis.set_ylabel("mean IoU, validation (thick: mean, thin: seeds)")
axis.set_ylim(bottom=0)
axis.legend()
plt.show()
for name, values in final.items():
    print(f"{name:>10}: " + ", ".join(f"{value:.3f}" for value in values) + f"; mean {values.mean():.3f}")

# %%
# If you did lesson 7, compare. There, 64 images came back again and again, and a learner with a memory could use their
# old scores. Here there are 2,048, few images are shown twice, and a memory has little to offer. A comparison holds for
# the setting in which it was made.

shown = steps * batch_size
print(f"{shown} visits of {images:,} images: {images * (1 - (1 - 1 / images) ** shown) / shown:.0%} are first visits")

# %%
# How sure is the mean?
# ---------------------
#
# The *bootstrap* asks: if our seeds were all the seeds there are, how would the mean vary? It draws as many seeds as
# there are, with repetition, again and again. With four seeds there are only :math:`4^4 = 256` such draws, so we take
# all of them. The 95 % interval leaves out 2.5 % on either side.


def resampled_means(values):
    return np.array([np.mean(chosen) for chosen in itertools.product(values, repeat=len(values))])


def bootstrap_interval(values, level=0.95):
    return np.quantile(resampled_means(values), [(1 - level) / 2, (1 + level) / 2])


assert len(resampled_means(np.arange(4))) == 256
figure, axes = plt.subplots(1, 2, figsize=(10, 2.8), layout="constrained")
for i, values in enumerate(final.values()):
    axes[0].plot(values, [i] * len(values), "o", color="black", markerfacecolor="none")
    axes[0].plot(bootstrap_interval(values), [i, i], "-", color="black", linewidth=3)
axes[0].set_yticks(range(len(final)), list(final))
axes[0].set_ylim(-0.5, 2.5)
axes[0].set_xlabel("mean IoU (circles: seeds, line: interval of the mean)")
differences = {name: final["mine"] - final[name] for name in ("RSS", "Likelihood")}
for i, (name, values) in enumerate(differences.items()):
    axes[1].plot(values, [i] * len(values), "o", color="black", markerfacecolor="none")
    axes[1].plot(bootstrap_interval(values), [i, i], "-", color="black", linewidth=3)
    low, high = bootstrap_interval(values)
    print(f"mine − {name}: {values.mean():+.3f}, interval {low:+.3f} to {high:+.3f}")
axes[1].axvline(0, color="gray", linestyle=":")
axes[1].set_yticks(range(2), [f"mine − {name}" for name in differences])
axes[1].set_ylim(-0.5, 1.5)
axes[1].set_xlabel("difference of mean IoU, seed by seed")
for axis in axes:
    axis.invert_yaxis()
plt.show()

# %%
# The right picture compares *seed by seed*. What a lucky seed gives to both algorithms drops out of the difference,
# which is why one pairs runs where one can.
#
# What four seeds can prove
# -------------------------
#
# .. admonition:: Predict first
#
#    A 95 % interval should contain the truth in 95 of 100 studies. How often does the bootstrap interval of *four*
#    seeds?
#
# We know no true mean of any algorithm. But we can play studies whose truth we know: four draws from a Gaussian with
# mean 0.

rng = np.random.default_rng(0)
indices = np.array(list(itertools.product(range(4), repeat=4)))  # (256, 4)
studies = rng.normal(size=(500 if QUICK else 4000, 4))
low, high = np.quantile(studies[:, indices].mean(axis=2), [0.025, 0.975], axis=1)
coverage = np.mean((low < 0) & (high > 0))
print(f"the 95 % bootstrap interval of 4 seeds contains the truth in {coverage:.0%} of the studies")
assert 0.7 < coverage < 0.88

t_975 = 3.182  # of Student's distribution with 3 degrees of freedom
half = t_975 * studies.std(axis=1, ddof=1) / 2
t_coverage = np.mean(np.abs(studies.mean(axis=1)) < half)
print(f"Student's interval: {t_coverage:.0%}, and {np.mean(2 * half) / np.mean(high - low):.1f} times as wide")
assert abs(t_coverage - 0.95) < (0.04 if QUICK else 0.015)

# %%
# So the interval of four seeds is too narrow. It is a way to draw the spread, not a proof. Student's interval holds
# what it says if the seeds are Gaussian, and is honest about how wide that is.
#
# Without any assumption about the shape of the distribution: if neither of two algorithms were the likelier to win,
# each paired difference would be positive or negative with probability ½. All four positive, or all four negative, then
# has the probability :math:`2 \cdot 2^{-4}`.

sign_test = {n: 2 * 0.5**n for n in (3, 4, 5, 6)}
print({n: f"{p:.3f}" for n, p in sign_test.items()})
assert sign_test[4] > 0.05
assert min(n for n, p in sign_test.items() if p < 0.05) == 6

# %%
# By this *sign test*, with four seeds even a clean sweep is no 5 % result. Six are the least.
#
# **The winner's curse.** Say you try five values of :math:`\beta` which in truth make no difference, and report the
# best, with its four seeds. In units of the deviation between seeds, how much better than the others does it look?

tried = rng.normal(size=(500 if QUICK else 20_000, 5, 4)).mean(
    axis=2
)  # studies × values of beta, each a mean of 4 seeds
boast = np.mean(tried.max(axis=1))
print(f"the best of five equal ones looks {boast:.2f} deviations better than it is")
assert np.isclose(boast, 1.163 / 2, atol=0.07 if QUICK else 0.01)  # 1.163: expected largest of five Gaussians

# %%
# So choose on some seeds (and images), and report others. And say what the result is about: *this network, these
# images, this budget, this learning rate*. The order of two algorithms can turn around at ten times the queries.
#
# To the leaderboard
# ------------------
#
# An entry of the leaderboard is a file with a function ``train(trial)``. The trial gives environments, a budget of
# queries and a ``report``, and no target. There is no project loop in an entry, but our two methods fit into a loop of
# fifteen lines. Put ``Mine`` and this function into a file, with their imports, and in a checkout after ``make
# install``
#
# .. code-block:: text
#
#    .venv/bin/python -m benchmarks.leaderboard --entry mine.py
#
# runs it with fixed budgets and several seeds, and ranks it.


def train(trial, images_a_step=8):
    torch.manual_seed(trial.seed)
    generator = torch.Generator().manual_seed(trial.seed)
    layers = [torch.nn.Conv2d(3, 32, 5, padding=2), torch.nn.ReLU()]
    for dilation in (1, 2, 4, 1):
        layers += [
            torch.nn.Conv2d(32, 32, 3, padding=dilation, dilation=dilation),
            torch.nn.GroupNorm(8, 32),
            torch.nn.ReLU(),
        ]
    network = torch.nn.Sequential(*layers, torch.nn.Conv2d(32, trial.num_classes, 1))
    optimiser, algorithm = torch.optim.Adam(network.parameters(), lr=2e-3), Mine()
    cost = images_a_step * algorithm.samples_per_image

    def logits_of(images):
        return network(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)

    def predict(images):
        with torch.no_grad():
            return logits_of(images).argmax(dim=1).numpy().astype(np.uint8)

    envs = trial.make_envs(num_envs=images_a_step, samples_per_image=algorithm.samples_per_image)
    images, _ = envs.reset(seed=trial.seed)
    while trial.queries_left >= cost:
        progress = 1 - trial.queries_left / trial.budget
        logits = logits_of(images)
        label_maps = algorithm.act(logits.detach(), progress, generator)
        images, _, _, _, infos = envs.step(label_maps.numpy())
        scores = torch.from_numpy(infos["final_info"]["scores"])
        nobody = [0] * len(scores)
        loss, _ = algorithm.loss(logits, agents.Feedback(label_maps, scores, None, nobody, nobody, {}), progress)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    trial.report(predict)


# %%
# Try it here with a stand-in for the trial, which counts queries. In the real one the environments live in another
# process, so that an entry cannot look at targets.


class Trial:
    """Has what an entry needs of a trial of the leaderboard."""

    def __init__(self, budget, seed):
        self.num_classes, self.image_size = 3, (16, 16)
        self.budget, self.seed = budget, seed
        self.envs = None

    def make_envs(self, num_envs, samples_per_image):
        self.envs = gym.make_vec(
            "RSS-Shapes-ImageReward-v0", num_envs=num_envs, image_size=(16, 16), num_classes=3,
            samples_per_image=samples_per_image,
        )  # fmt: skip
        return self.envs

    @property
    def queries_left(self):
        return self.budget - (self.envs.reward_queries if self.envs else 0)

    def report(self, predict):
        found = evaluate(predict, "RSS-Shapes-ImageReward-v0", num_classes=3, image_size=(16, 16), num_images=32)
        print(f"{self.envs.reward_queries:,} queries: {found}")


trial = Trial(budget=130 if QUICK else 3000, seed=1)
train(trial)
assert 0 <= trial.queries_left < 8 * Mine().samples_per_image  # all that a step fits into is spent, and no more

# %%
# What to take away
# -----------------
#
# - An algorithm is two methods, ``act`` and ``loss``. Test them on numbers that you can check by hand before you train.
# - Compare at the same number of reward queries, seed by seed, and show all seeds. Choose and report on different ones.
# - Four seeds describe, they hardly prove. Say what the result holds for, and publish the run that anybody can repeat.
#
# Exercise
# --------
#
# Write ``solution(a, b, level, rng)``: the bootstrap interval of the mean *paired* difference ``a − b``, by percentiles
# of random resamples, for any number of seeds; ``level`` is 0.95, say. It gives (low, high). Then: give ``Mine`` an
# idea of your own, and use it.
#
# Test your answer with ``check(solution)``, which says nothing if it is right. One answer is in
# ``solutions/lesson_9.py``.


def check(solution):
    """Asserts that the interval pairs, keeps its level, and shrinks as there are more seeds."""
    rng = np.random.default_rng(0)
    luck = 10 * rng.normal(size=12)
    low, high = solution(luck + 0.5, luck, 0.95, rng)
    assert np.allclose([low, high], 0.5), "the seeds are not paired"
    for level in (0.95, 0.5):
        inside = []
        for _ in range(200):
            b = 3 * rng.normal(size=40)
            low, high = solution(b + 1 + rng.normal(size=40), b, level, rng)
            inside.append(low <= 1 <= high)
        assert abs(np.mean(inside) - level) < (0.05 if level > 0.9 else 0.1), "it does not keep its level"
    widths = [np.ptp(solution(rng.normal(size=n), np.zeros(n), 0.95, rng)) for n in (25, 2500)]
    assert 5 < widths[0] / widths[1] < 20, "a hundred times the seeds, a tenth of the width"
