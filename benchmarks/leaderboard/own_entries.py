"""The project's own entries: files in ``entries/``, and training commands with the arguments that fit a budget."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import A2C, PPO

from agents import sb3
from agents.networks.checkpoints import load_policy, predict_label_maps
from agents.training.run_folder import RunFolder
from benchmarks.convergence.suites import METHODS
from benchmarks.leaderboard.arenas import Arena
from benchmarks.leaderboard.judge import SHOWN, Verdict
from benchmarks.leaderboard.report import BOUNDS
from benchmarks.processes import Processes
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
COMMANDS: dict[str, tuple[str, int]] = {
    # name: (module and its arguments, K); the budget decides the number of steps
    "cross-entropy": ("agents.supervised", 8),  # as many steps as the entry with the most of them
    "image tags": ("agents.weak_labels", 8),
    "RSS": ("agents.likelihood", 32),
    "RSS, K = 8": ("agents.likelihood", 8),
    "leave-one-out": ("agents.rss", 32),
    "REINFORCE, one baseline sample": (METHODS["leave_one_out"], 2),
    "SB3 PPO, dense, pixel ratio": ("agents.sb3 --algo ppo --ratio pixel", 16),
    "SB3 PPO, dense, image ratio": ("agents.sb3 --algo ppo --ratio image", 16),
    "SB3 A2C, dense": ("agents.sb3 --algo a2c", 16),
    "reward tuning": ("agents.reward_tuning --label-steps 500 --samples-per-image 8", 8),  # sees labels: a bound
}


def command_of(name: str, arena: Arena, seed: int) -> list[str]:
    """The module and its arguments, without the run folder, that train an entry within the budget."""
    words, samples = COMMANDS[name]
    module, *further = words.split()
    command = [module, "--env-id", arena.env_id, "--image-size", *map(str, arena.image_size), "--seed", str(seed)]
    if arena.options.get("root"):
        command += ["--root", arena.options["root"]]
    if module == "agents.sb3":
        command += ["--reward-queries", str(arena.budget), "--samples-per-image", str(samples)]
    else:
        steps = arena.budget // (BATCH * samples)
        command += ["--steps", str(steps), "--batch-size", str(BATCH), "--eval-every", str(max(1, steps // 5))]
        command += ["--log-every", "1"]
        if name not in BOUNDS:
            command += ["--samples-per-image", str(samples)]
    return command + further


def train_entry(name: str, arena: Arena, seed: int, folder: Path, seconds: float, processes: Processes) -> Verdict:
    """Trains the entry of a training command.

    Args:
        name: key in ``COMMANDS``.
        arena: environment and budget.
        seed: of the run.
        folder: run folder.
        seconds: half of the longest duration; the command evaluates within its time.
        processes: where its process starts.
    """
    command = command_of(name, arena, seed)
    if command[0] == "agents.sb3":  # saves models and resumes no run
        shutil.rmtree(folder, ignore_errors=True)
    try:
        train(command, folder, processes, 2 * seconds)
    except subprocess.TimeoutExpired:
        return Verdict(f"over its time of {seconds:g} s")
    except RunFailed as failure:
        return Verdict(str(failure))
    curve = [{name: value for name, value in point.items() if name != "step"} for point in read_curve(folder)]
    scores = [row["reward/mean"] for row in RunFolder(folder).read_metrics() if "reward/mean" in row]
    return Verdict(
        curve=curve,
        queries=int(curve[-1]["reward_queries"]),
        seconds=curve[-1]["seconds"],
        mean_score=sum(scores) / len(scores) if scores else None,
        label_maps=last_label_maps(folder, arena),
    )


def last_label_maps(folder: Path, arena: Arena) -> np.ndarray:
    """Label maps of the first validation images by the last policy of a run folder."""
    envs = gym.make_vec(arena.env_id, num_envs=SHOWN, split="val", order="sequential", **arena.env_options)
    images, _ = envs.reset()
    if (folder / "model.zip").exists():
        algorithm = A2C if json.loads((folder / "config.json").read_text())["algo"] == "a2c" else PPO
        return sb3.predict_label_maps(algorithm.load(folder / "model.zip"), images)
    device = torch.device("cpu")
    return predict_label_maps(load_policy(folder, device)[0], images, device)
