"""The project's own entries: files in ``entries/``, and training commands with the arguments that fit a budget."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
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
COMMANDS: dict[str, tuple[str, int | None]] = {
    # name: (module and its arguments, K, or None for samples_of); the budget decides the number of steps
    "cross-entropy": ("agents.supervised", None),
    "image tags": ("agents.weak_labels", None),
    "RSS": ("agents.likelihood", None),
    "RSS, pixel by pixel": ("agents.likelihood --regions", None),
    "leave-one-out": ("agents.rss", 32),
    "REINFORCE, one baseline sample": (METHODS["leave_one_out"], 2),
    "SB3 PPO, dense, pixel ratio": ("agents.sb3 --algo ppo --ratio pixel", 16),
    "SB3 PPO, dense, image ratio": ("agents.sb3 --algo ppo --ratio image", 16),
    "SB3 A2C, dense": ("agents.sb3 --algo a2c", 16),
    "reward tuning": ("agents.reward_tuning --label-steps 500 --samples-per-image 8", 8),  # sees labels: a bound
}
NO_SCORES = ("cross-entropy", "image tags")  # they ask for none, and take as many steps as RSS


def is_offered(name: str, setting: Setting) -> bool:
    """Whether an entry can run in a setting.

    SB3 shows an image to K environments that draw the same by chance; it cannot walk the images in epochs.
    """
    return setting.track != FEW_VISITS or not COMMANDS.get(name, ("", 0))[0].startswith("agents.sb3")


def most_steps(setting: Setting) -> int | None:
    """Steps of a command that the visits allow; None where they have no limit."""
    return VISITS * number_of_images(setting.task) // BATCH if setting.track == FEW_VISITS else None


def number_of_images(task: Task) -> int:
    """Images that are learned on."""
    envs = gym.make_vec(task.env_id, num_envs=1, split=task.train_split, **task.env_options)
    return int(envs.metadata["num_images"])


def samples_of(queries: int, most_steps: int | None = None) -> int:
    """K of the default agent: what a budget pays for in ``STEPS`` steps, within ``SAMPLES``.

    Steps are worth more than samples until there are enough steps; then samples are worth more.

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
    task, queries = setting.task, setting.queries
    words, fixed = COMMANDS[name]
    module, *further = words.split()
    command = [module, "--env-id", task.env_id, "--image-size", *map(str, task.image_size), "--seed", str(seed)]
    options = dict(task.options)
    if "root" in options:
        command += ["--root", options.pop("root")]
    if options:
        command += ["--env-kwargs", json.dumps(options)]
    if task.train_split != "train":
        command += ["--split", task.train_split]
    if module == "agents.sb3":
        command += ["--reward-queries", str(queries), "--samples-per-image", str(fixed)]
        return [*command, "--evaluations", str(EVALUATIONS), *further]
    most = most_steps(setting)
    samples = samples_of(queries, most) if fixed is None else fixed
    steps = queries // (BATCH * samples)
    if most is not None:
        steps = min(steps, most)
        command += ["--order", "epochs"]
        if module == "agents.likelihood":
            command += ["--replay", "0"]  # which remembers by index
    every = str(max(1, steps // EVALUATIONS))
    command += ["--steps", str(steps), "--batch-size", str(BATCH), "--eval-every", every, "--checkpoint-every", every]
    command += ["--log-every", "1"]
    if name not in NO_SCORES:
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
    return -(-int(command[command.index("--steps") + 1]) * BATCH // number_of_images(setting.task))


def curve_of(name: str, folder: Path) -> list[dict[str, float]]:
    """The evaluations of a command's run; queries are those of the training."""
    config = json.loads((folder / "config.json").read_text()) if (folder / "config.json").exists() else {}
    curve = []
    for point in read_curve(folder):
        step = point.pop("step")
        if name in NO_SCORES:
            point["reward_queries"] = 0
        elif config["algorithm"] == "SB3":
            point["reward_queries"] = step
        else:
            point["reward_queries"] = step * config["batch_size"] * config["samples_per_image"]
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
