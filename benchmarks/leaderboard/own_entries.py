"""The project's own entries: files in ``entries/``, and training commands with the arguments that fit a budget."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import A2C, PPO

from agents import sb3
from agents.networks.checkpoints import load_policy, predict_label_maps
from agents.training.run_folder import RunFolder
from benchmarks.convergence.suites import METHODS
from benchmarks.leaderboard.judge import SHOWN, Verdict, measure
from benchmarks.memory import PeakMemory
from benchmarks.processes import Processes
from benchmarks.tasks import FEW_VISITS, VISITS, Setting, Task
from benchmarks.training_runs import RunFailed, read_curve, train

ENTRIES = Path(__file__).parent / "entries"
FILES = {
    "random": "random_labels.py",
    "one class": "constant.py",
    "PPO template": "template.py",
    "PPO, actor and critic": "cleanrl_ppo.py",
    "RL4Seg": "rl4seg.py",
    "GRPO": "grpo.py",
    "RN-DPO": "rn_dpo.py",
}
BATCH = 8  # images a step of the commands
EVALUATIONS = 5  # of a command
STEPS = 1000  # optimiser steps that the default agent learns well in
SAMPLES = (2, 32)  # K that it can use, the least and the most


@dataclass(frozen=True)
class Command:
    """An entry that is a training command; the budget decides the number of steps.

    Attributes:
        words: module and its arguments.
        samples: K; None: ``samples_of``.
        asks: whether it asks for scores; if not, it takes as many steps as RSS.
        times: as many times those steps, where images come back as often as one likes.
        rehearses: whether it can learn again what it was taught of images; it does where visits limit how often they
            are shown, until it has made about ``STEPS`` steps.
        label_steps: steps with labels before those with scores; where visits are limited at most half of all.
        few_labels: whether it learns only from as many images as the budget's scores tell enough of (``Task.labels``).
        learning_rates: ``--learning-rate`` by the name of the task, where ``benchmarks.search_bounds`` found one
            that is better on val than the command's own.
    """

    words: str
    samples: int | None = None
    asks: bool = True
    times: int = 1
    rehearses: bool = False
    label_steps: int = 0
    few_labels: bool = False
    learning_rates: Mapping[str, float] = field(default_factory=dict)


SLOWER = {"shapes-32": 1e-3, "shapes-64": 1e-3}  # half of the default of agents.supervised; searched on shapes-32
SOFT_IOU = "agents.supervised --loss soft_iou --cross-entropy-share 0.5"
COMMANDS = {
    "cross-entropy": Command("agents.supervised", asks=False, rehearses=True, learning_rates=SLOWER),
    "cross-entropy, 4 times the steps": Command("agents.supervised", asks=False, times=4, learning_rates=SLOWER),
    "cross-entropy, few labels": Command(
        "agents.supervised", asks=False, rehearses=True, few_labels=True, learning_rates=SLOWER
    ),
    "soft IoU and cross-entropy": Command(SOFT_IOU, asks=False, rehearses=True, learning_rates=SLOWER),
    "image tags": Command("agents.weak_labels", asks=False),
    "RSS": Command("agents.likelihood", rehearses=True, learning_rates={"shapes-64": 5e-4}),
    "RSS, pixel by pixel": Command("agents.likelihood --regions"),
    "leave-one-out": Command("agents.rss", 32),
    "PSR and PSD": Command("agents.rss --cells 4 2 1 --advantage psd"),
    "REINFORCE, one baseline sample": Command(METHODS["leave_one_out"], 2),
    "SB3 PPO, dense, pixel ratio": Command("agents.sb3 --algo ppo --ratio pixel", 16),
    "SB3 PPO, dense, image ratio": Command("agents.sb3 --algo ppo --ratio image", 16),
    "SB3 A2C, dense": Command("agents.sb3 --algo a2c", 16),
    "reward tuning": Command("agents.reward_tuning", 8, label_steps=500),  # sees labels: a bound
}


def is_offered(name: str, setting: Setting) -> bool:
    """Whether an entry can run in a setting, and is another there than the rest.

    SB3 shows an image to K environments that draw the same by chance; it cannot walk the images in epochs. Visits limit
    the steps. Where the budget would pay for the labels of all images, few labels are all.
    """
    command = COMMANDS.get(name, Command(""))
    if command.few_labels and setting.labels is None:
        return False
    return setting.track != FEW_VISITS or not (command.words.startswith("agents.sb3") or command.times > 1)


def most_steps(setting: Setting, few_labels: bool = False) -> int | None:
    """Steps of a command that the visits allow; None where they have no limit."""
    if setting.track != FEW_VISITS:
        return None
    return VISITS * images_of(setting, few_labels) // BATCH


def images_of(setting: Setting, few_labels: bool) -> int:
    """Images that a command learns on."""
    return (setting.labels if few_labels else None) or number_of_images(setting.task)


def number_of_images(task: Task) -> int:
    """Images that are learned on."""
    envs = gym.make_vec(task.env_id, num_envs=1, split=task.train_split, **task.env_options)
    return int(envs.metadata["num_images"])


def samples_of(queries: int, most_steps: int | None = None) -> int:
    """K of the default agent: what a budget pays for in ``STEPS`` steps, within ``SAMPLES``.

    Steps are worth more than samples until there are enough steps; what is left of the budget then pays for samples.

    Args:
        queries: the budget.
        most_steps: that the visits allow; None for any number.

    Example:
        >>> samples_of(64_000), samples_of(1_000), samples_of(10**7), samples_of(64_000, most_steps=250)
        (8, 2, 32, 32)
    """
    steps = STEPS if most_steps is None else min(STEPS, most_steps)
    least, most = SAMPLES
    return max(least, min(most, queries // (BATCH * steps)))


def command_of(name: str, setting: Setting, seed: int) -> list[str]:
    """The module and its arguments, without the run folder, that train an entry within the budget."""
    task, queries, entry = setting.task, setting.queries, COMMANDS[name]
    module, *further = entry.words.split()
    command = [module, "--env-id", task.env_id, "--image-size", *map(str, task.image_size), "--seed", str(seed)]
    options = dict(task.options)
    if "root" in options:
        command += ["--root", options.pop("root")]
    if options:
        command += ["--env-kwargs", json.dumps(options)]
    split = task.train_split + (f"[:{setting.labels}]" if entry.few_labels and setting.labels else "")
    if split != "train":
        command += ["--split", split]
    if task.name in entry.learning_rates:
        command += ["--learning-rate", f"{entry.learning_rates[task.name]:g}"]
    if module == "agents.sb3":
        command += ["--reward-queries", str(queries), "--samples-per-image", str(entry.samples)]
        return [*command, "--evaluations", str(EVALUATIONS), *further]
    most, label_steps = most_steps(setting, entry.few_labels), entry.label_steps
    if most is not None and label_steps:
        images, label_steps = number_of_images(task), max(1, min(label_steps, most // 2))
        most = (VISITS + -label_steps * BATCH // images) * images // BATCH  # whole visits: either stage has its epochs
    samples = entry.samples or samples_of(queries, most)
    steps = queries // (BATCH * samples) * entry.times
    if most is not None:
        updates = max(1, round(STEPS / most)) if entry.rehearses else 1
        steps = min(steps, most) * updates
        command += ["--order", "epochs"]
        if module == "agents.likelihood":
            command += ["--replay", "0"]  # which remembers scores by index
        if updates > 1:
            command += ["--visit-every", str(updates)]
    every = str(max(1, steps // EVALUATIONS))
    command += ["--steps", str(steps), "--batch-size", str(BATCH), "--eval-every", every, "--checkpoint-every", every]
    command += ["--log-every", "1"]
    if label_steps:
        command += ["--label-steps", str(label_steps)]
    if entry.asks:
        command += ["--samples-per-image", str(samples)]
    return command + further


def train_entry(name: str, setting: Setting, seed: int, folder: Path, seconds: float, processes: Processes) -> Verdict:
    """Trains the entry of a training command, and evaluates its last checkpoint on test.

    Args:
        name: key in ``COMMANDS``.
        setting: task, track and budget.
        seed: of the run.
        folder: run folder.
        seconds: half of the longest duration; the command evaluates within its time.
        processes: where its process starts.
    """
    command = command_of(name, setting, seed)
    if command[0] == "agents.sb3":  # saves models and resumes no run
        shutil.rmtree(folder, ignore_errors=True)
    peak, status = PeakMemory(), "ok"
    try:
        train(command, folder, processes, 2 * seconds, peak)
    except subprocess.TimeoutExpired:
        status = f"over its time of {seconds:g} s"
    except RunFailed as failure:
        return Verdict(str(failure), memory=peak.mebibytes)
    curve = curve_of(name, folder)
    predict = last_policy(folder) if curve else None
    if predict is None:
        return Verdict(status if status != "ok" else "never evaluated", memory=peak.mebibytes)
    scores = [row["reward/mean"] for row in RunFolder(folder).read_metrics() if "reward/mean" in row]
    return Verdict(
        status if status == "ok" else f"ok, {status}",
        curve=curve,
        test=measure(predict, setting.task, "test"),
        queries=int(curve[-1]["reward_queries"]),
        seconds=curve[-1]["seconds"],
        mean_score=sum(scores) / len(scores) if scores else None,
        label_maps=first_label_maps(predict, setting.task),
        memory=peak.mebibytes,
        most_visits=visits_of(command, setting),
        learning_rate=json.loads((folder / "config.json").read_text())["learning_rate"],
    )


def visits_of(command: list[str], setting: Setting) -> int | None:
    """How often a command shows the image that it shows most often; None where images are drawn by chance."""
    if setting.track != FEW_VISITS:
        return None
    images = images_of(setting, f"{setting.task.train_split}[:{setting.labels}]" in command)

    def number(flag: str, default: int) -> int:
        return int(command[command.index(flag) + 1]) if flag in command else default

    shown = -(-number("--steps", 0) // number("--visit-every", 1)), number("--label-steps", 0)
    return sum(-(-steps * BATCH // images) for steps in shown)


def curve_of(name: str, folder: Path) -> list[dict[str, float]]:
    """The evaluations of a command's run; queries are those of the training."""
    config = json.loads((folder / "config.json").read_text()) if (folder / "config.json").exists() else {}
    curve = []
    for point in read_curve(folder):
        step = point.pop("step")
        if not COMMANDS[name].asks:
            point["reward_queries"] = 0
        elif config["algorithm"] == "SB3":
            point["reward_queries"] = step
        else:
            visits = -(-step // config.get("visit_every", 1))
            point["reward_queries"] = visits * config["batch_size"] * config["samples_per_image"]
        curve.append(point)
    return curve


def last_policy(folder: Path) -> Callable[[np.ndarray], np.ndarray] | None:
    """Images -> label maps by the last checkpoint of a run folder; None if there is none."""
    config = json.loads((folder / "config.json").read_text())
    if config["algorithm"] == "SB3":
        saved = sorted(folder.glob("checkpoints/rl_model_*_steps.zip"), key=lambda file: int(file.stem.split("_")[2]))
        last = folder / "model.zip" if (folder / "model.zip").exists() else saved[-1] if saved else None
        if last is None:
            return None
        algorithm: Any = A2C if config["algo"] == "a2c" else PPO
        model = algorithm.load(last)
        return lambda images: sb3.predict_label_maps(model, images)
    if RunFolder(folder).latest_checkpoint() is None:
        return None
    device = torch.device("cpu")
    network = load_policy(folder, device)[0]
    return lambda images: predict_label_maps(network, images, device)


def first_label_maps(predict: Callable[[np.ndarray], np.ndarray], task: Task) -> np.ndarray:
    """Label maps of the first validation images."""
    envs = gym.make_vec(task.env_id, num_envs=SHOWN, split="val", order="sequential", **task.env_options)
    return predict(envs.reset()[0])
