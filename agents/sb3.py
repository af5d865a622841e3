"""Stable-Baselines3's PPO and A2C on label maps, with their own training loop.

    python -m agents.sb3 --algo ppo --image-size 32 32                  # the dense policy: a U-Net, batched pixels
    python -m agents.sb3 --algo ppo --policy stock --image-size 36 36   # SB3's own policy, for small images only
    python -m agents.sb3 --algo a2c

``--samples-per-image`` K shows every image to K environments at once; with the group baseline the reward of each is its
score minus the mean of the K − 1 others, as SB3's critic by itself can hardly say how hard an image is.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal
from zipfile import BadZipFile

import gymnasium as gym
import numpy as np
import torch
import tyro
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from rss_env.errors import OptionError
from rss_env.evaluation import Evaluation, evaluate
from rss_env.integrations.sb3 import SegmentationVecEnv
from rss_env.wrappers.vector import FeedbackReward

from .checksums import add_checksums, check_file
from .errors import CheckpointError
from .networks.sb3_policy import DensePolicy, PixelRolloutBuffer
from .plugins import leave_one_out
from .training.arguments import JsonObject, check_env_id, check_env_kwargs, check_numbers, check_object, choose_device
from .training.command import run_command
from .training.run_folder import RunFolder
from .training.validation import to_log


@dataclass
class SB3Arguments:
    """Train a policy with Stable-Baselines3."""

    algo: Literal["ppo", "a2c"] = "ppo"
    """SB3's algorithm"""
    policy: Literal["dense", "stock"] = "dense"
    """dense: a network of agents.networks, batched pixels; stock: SB3's CnnPolicy on the flat MultiDiscrete, for images
    from 36×36 on"""
    ratio: Literal["pixel", "image"] = "pixel"
    """dense: probability ratio and clipping by pixel, or of the whole label map as SB3 has it"""

    env_id: str = "RSS-Shapes-ImageReward-v0"
    """id of the environment"""
    root: str | None = None
    """folder of the data set; procedural ones take none"""
    image_size: tuple[int, int] | None = None
    """height and width of the images in pixels; default: the data set's"""
    env_kwargs: JsonObject = field(default_factory=dict)
    """the data set's own options, such as '{"num_classes": 3}'"""
    split: str = "train"
    """split to train on"""
    val_split: str = "val"
    """split to evaluate on"""

    reward: str | None = None
    """name of the reward, or module:function of your own; default: the environment's"""
    reward_options: JsonObject = field(default_factory=dict)
    """the reward's own options, such as '{"class_weights": [0.5, 1, 1]}'"""
    wrap: tuple[str, ...] = ()
    """image level: what becomes of the scores, in turn, such as noise:0.05 and stars:5 (rss_env.wrappers)"""

    reward_queries: int = 128_000
    """label maps scored in all"""
    images: int = 8
    """images shown at once"""
    samples_per_image: int = 16
    """environments that show the same image"""
    group_baseline: bool = True
    """reward: the score minus the mean score of the image's other samples"""
    n_steps: int = 1
    """steps of all environments between two updates"""
    batch_size: int | None = None
    """ppo: label maps a minibatch; default: all of an update"""
    n_epochs: int = 2
    """ppo: passes over the label maps of an update"""
    learning_rate: float = 1e-3
    """peak of a schedule that falls to 0 along half a cosine"""
    ent_coef: float = 0.0
    """coefficient of the mean entropy of the pixels"""
    clip_range: float = 0.2
    """ppo: clipping of the ratio"""
    target_kl: float | None = None
    """ppo: ends an update when the approximate KL divergence is 1.5 times this"""
    network: str = "unet"
    """dense: unet, or module:factory, called as factory(num_classes=C, **options)"""
    network_options: JsonObject = field(default_factory=dict)
    """dense: the network's own options, such as '{"width": 32}'"""

    seed: int = 1
    """seed of the weights, the order of the images and the label maps"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where the policy runs"""
    run_dir: str | None = None
    """run folder; default: runs/sb3-ALGO-POLICY-ENV_ID-seedSEED"""
    resume: str | None = None
    """SB3 model file (.zip) whose weights and optimiser are the start"""
    evaluations: int = 5
    """evaluations on val_split, at equal distances"""
    progress: bool = True
    """show SB3's progress table"""

    def env_options(self) -> dict[str, Any]:
        """Keyword arguments of the environment, but for the split."""
        own = {"root": self.root, "image_size": self.image_size}
        return own | {"reward": self.reward, "reward_options": self.reward_options} | self.env_kwargs


class GroupBaseline(VecEnvWrapper):
    """Takes the mean reward of the other environments of a group from every reward.

    Args:
        venv: K consecutive environments show the same image.
        group: K, at least 2.
    """

    def __init__(self, venv: VecEnv, group: int) -> None:
        super().__init__(venv)
        self.group = group

    def reset(self) -> VecEnvObs:
        """The first images."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """The step's results with rewards compared within groups; infos keep the scores as ``episode``."""
        observations, rewards, dones, infos = self.venv.step_wait()
        compared = leave_one_out(torch.from_numpy(rewards).reshape(-1, self.group))
        return observations, compared.reshape(-1).numpy(), dones, infos


class Evaluate(BaseCallback):
    """Evaluates on the validation split and logs to the run folder and to SB3's logger.

    Args:
        args: arguments.
        folder: run folder.
    """

    def __init__(self, args: SB3Arguments, folder: RunFolder) -> None:
        super().__init__()
        self.args, self.folder = args, folder
        self.done = 0
        self.queries = 0  # label maps that evaluations without masks had scored
        self.last: Evaluation | None = None
        self.scores: list[float] = []  # of the label maps since the last evaluation

    def _on_step(self) -> bool:
        self.scores += [info["episode"]["r"] for info in self.locals["infos"]]
        due = math.floor(self.args.evaluations * self.num_timesteps / self.args.reward_queries)
        if due > self.done and due < self.args.evaluations:  # the last one comes at the end
            self.done = due
            self.evaluate()
        return True

    def _on_training_end(self) -> None:
        self.evaluate()

    def evaluate(self) -> None:
        """Label maps on the validation split, the mean score since the last time, and what SB3 logged last."""
        args = self.args
        self.last = evaluate(
            lambda images: predict_label_maps(self.model, images),
            args.env_id,
            split=args.val_split,
            **args.env_options(),
        )
        self.queries += self.last.queries
        logged = {
            name: float(value)
            for name, value in self.logger.name_to_value.items()
            if name.startswith("train/") and np.isscalar(value) and math.isfinite(float(value))
        }
        numbers = to_log(self.last)
        if self.scores:  # since the last evaluation; a baseline does not count in
            numbers["reward/mean"] = float(np.mean(self.scores))
            self.scores.clear()
        for name, value in numbers.items():
            self.logger.record(name, value)
        seconds = (time.time_ns() - self.model.start_time) / 1e9
        self.folder.log(
            self.num_timesteps,
            logged | numbers | {"time/reward_queries": self.num_timesteps + self.queries, "time/seconds": seconds},
        )


class Save(BaseCallback):
    """Saves the model, with its checksum.

    Args:
        folder: for the files.
        every: steps of all environments between two of them.
    """

    def __init__(self, folder: Path, every: int) -> None:
        super().__init__()
        self.folder, self.every = folder, every

    def _on_step(self) -> bool:
        if self.n_calls % self.every == 0:
            self.folder.mkdir(exist_ok=True)
            file = self.folder / f"rl_model_{self.num_timesteps}_steps.zip"
            self.model.save(file)
            add_checksums([file])
        return True


def load_parameters(model: BaseAlgorithm, file: Path) -> None:
    """Puts the weights and the optimiser of a saved model into another one.

    Raises:
        CheckpointError: the file is damaged, or of another model.
    """
    check_file(file, required=False)
    try:
        model.set_parameters(str(file), device=model.device)
    except (BadZipFile, EOFError, LookupError, RuntimeError, TypeError, UnpicklingError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise CheckpointError(f"{file} is no SB3 model of this kind, or is damaged: {said}") from error


def predict_label_maps(model: BaseAlgorithm, images: np.ndarray) -> np.ndarray:
    """The model's most probable label maps, uint8 (B, H, W), of images uint8 (B, H, W, 3)."""
    shape = model.observation_space.shape or ()
    first = shape[0] == 3 and shape[-1] != 3
    actions, _ = model.predict(images.transpose(0, 3, 1, 2) if first else images, deterministic=True)
    return actions.reshape(images.shape[:3]).astype(np.uint8)


def make_envs(args: SB3Arguments) -> VecEnv:
    """The environments: K consecutive ones show the same images, because they have the same seed."""
    number = args.images * args.samples_per_image
    shown = gym.make_vec(args.env_id, number, split=args.split, **args.env_options())
    for kind in args.wrap:
        shown = FeedbackReward(shown, kind)
    envs: VecEnv = SegmentationVecEnv(shown)
    seeds = [args.seed + b for b in range(args.images) for _ in range(args.samples_per_image)]
    envs._seeds = list(seeds)  # SB3's VecEnv.seed() can only count upwards
    if args.group_baseline and args.samples_per_image > 1:
        envs = GroupBaseline(envs, args.samples_per_image)
    return envs


def make_model(args: SB3Arguments, envs: VecEnv) -> BaseAlgorithm:
    """SB3's algorithm on these environments."""
    number = envs.num_envs * args.n_steps
    dense = args.policy == "dense"
    pixel_ratio = dense and args.ratio == "pixel"
    options: dict[str, Any] = {
        "policy": DensePolicy if dense else "CnnPolicy",
        "env": envs,
        "learning_rate": lambda left: args.learning_rate * (1 - math.cos(math.pi * left)) / 2,
        "n_steps": args.n_steps,
        "gamma": 1.0,
        "gae_lambda": 1.0,
        "ent_coef": args.ent_coef,
        "max_grad_norm": 1.0,
        "policy_kwargs": (
            {"network": args.network, "network_options": args.network_options, "pixel_ratio": pixel_ratio}
            if dense
            else {}
        ),
        "rollout_buffer_class": PixelRolloutBuffer if pixel_ratio else None,
        "device": choose_device(args.device),
    }
    if args.algo == "a2c":
        model: BaseAlgorithm = A2C(**options, use_rms_prop=False, normalize_advantage=True)
    else:
        options |= {"batch_size": args.batch_size or number, "n_epochs": args.n_epochs}
        model = PPO(**options, clip_range=args.clip_range, target_kl=args.target_kl)
    return model


def train_sb3(args: SB3Arguments) -> tuple[BaseAlgorithm, Evaluation]:
    """Trains with SB3's ``learn``; the model is saved as ``model.zip`` in the run folder.

    Raises:
        CheckpointError: the model to start from is damaged, or another one.
        OptionError, DatasetError: the environment cannot be made.
        RunFolderError: the run folder cannot be used.
        JudgeError: a slow reward of your own failed.
    """
    check_env_id(args.env_id)
    check_env_kwargs(args.env_kwargs)
    check_object("reward_options", args.reward_options)
    least = {"images": 1, "samples_per_image": 1, "reward_queries": 1, "n_steps": 1, "batch_size": 1, "n_epochs": 1}
    least |= {"seed": 0, "evaluations": 1, "ent_coef": 0}
    check_numbers(args, least, ("learning_rate", "clip_range", "target_kl"))
    if args.resume is not None and not Path(args.resume).is_file():
        raise OptionError(f"--resume {args.resume}: there is no such file.")
    run_dir = Path(args.run_dir or f"runs/sb3-{args.algo}-{args.policy}-{args.env_id}-seed{args.seed}")
    torch.manual_seed(args.seed)
    envs = make_envs(args)
    height, width = envs.observation_space.shape[:2]  # type: ignore[index]
    if args.policy == "stock" and min(height, width) < 36:
        raise OptionError(f"--policy stock is SB3's CnnPolicy, which needs images from 36×36 on, got {height}×{width}.")
    model = make_model(args, envs)
    folder = RunFolder(run_dir)
    if args.resume:
        load_parameters(model, Path(args.resume))
    try:
        folder.create({"algorithm": "SB3"} | vars(args))
        model.set_logger(configure(str(run_dir / "sb3"), ["csv", "tensorboard"] + ["stdout"] * args.progress))
        callback = Evaluate(args, folder)
        saving = Save(run_dir / "checkpoints", max(1, args.reward_queries // envs.num_envs // 5))
        model.learn(args.reward_queries, callback=[callback, saving])
        model.save(run_dir / "model.zip")
        add_checksums([run_dir / "model.zip"])
        model.logger.close()
    finally:
        folder.close()
        envs.close()
    assert callback.last is not None
    return model, callback.last


def main() -> int:
    """Runs the command line."""
    args = tyro.cli(SB3Arguments, prog="python -m agents.sb3")
    model, result = train_sb3(args)
    print(f"{args.val_split}: {result}; {model.num_timesteps:,} reward queries")
    return 0


if __name__ == "__main__":
    run_command(main)
