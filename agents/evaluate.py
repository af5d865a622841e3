"""Measure a checkpoint on a whole split.

    python -m agents.evaluate RUN_DIR --split val --json

Prints mIoU and pixel accuracy of the data-set-level confusion matrix, and the IoU of each class. What the run's
config.json says about the environment is the default of every option here.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import tyro

from rss_env.arguments import check_size
from rss_env.errors import OptionError
from rss_env.evaluation import METRICS, Evaluation, evaluate

from .networks.checkpoints import check_classes, find_weights, load_policy, predict_label_maps
from .training.arguments import (
    JsonObject,
    TrainArguments,
    check_env_id,
    check_env_kwargs,
    check_object,
    choose_device,
    from_config,
)
from .training.command import run_command
from .training.loop import num_classes
from .training.run_folder import RunFolder

# Arguments of a run that say what its environment is.
ENVIRONMENT = ("env_id", "root", "image_size", "resize", "env_kwargs", "reward", "reward_options")


@dataclass
class EvaluateArguments:
    """Measure a checkpoint on a whole split."""

    checkpoint: Annotated[str, tyro.conf.Positional]
    """run folder (its newest checkpoint), checkpoint folder, or .safetensors file"""
    env_id: str | None = None
    """id of the environment; default: the run's"""
    root: str | None = None
    """folder of the data set; default: the run's"""
    image_size: tuple[int, int] | None = None
    """height and width in pixels; default: the run's"""
    resize: Literal["pad", "crop", "stretch"] | None = None
    """how photos reach that size; default: the run's"""
    env_kwargs: JsonObject | None = None
    """the data set's own options; default: the run's"""
    reward: str | None = None
    """what scores the label maps where there are no masks: a name, or module:function; default: the run's"""
    reward_options: JsonObject | None = None
    """the reward's own options; default: the run's"""
    split: str = "val"
    """split to measure on"""
    eval_tile: tuple[int, int] | None = None
    """height and width of overlapping tiles in which images are evaluated; default: the run's"""
    batch_size: int = 16
    """images in one forward pass"""
    balance: float | None = None
    """how much rare classes are favoured, 0 or more: 0.5 for a higher mean IoU; default: as it was exported, or 0"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where the policy runs"""
    json: bool = False
    """print one JSON object instead of a table"""


def evaluate_checkpoint(args: EvaluateArguments) -> Evaluation:
    """Measures a checkpoint.

    Raises:
        CheckpointError: the checkpoint is missing or damaged, or does not fit the environment's classes.
        RunFolderError: the run's config.json is damaged.
        OptionError: the environment is not known from the arguments or the run, or ``balance`` is negative, or the
            checkpoint does not say how frequent its policy finds each class.
        DatasetError: the data set is missing.
    """
    device = choose_device(args.device)
    network, description = load_policy(args.checkpoint, device, args.balance)
    env_id, options = environment_of(args)
    tile = args.eval_tile or read_run_config(Path(args.checkpoint)).get("eval_tile")
    if tile is not None:
        check_size("eval_tile", tile)
    probe = gym.make_vec(env_id, num_envs=1, split=args.split, **options)
    check_classes(description, num_classes(probe), args.checkpoint, probe.metadata["class_names"])
    return evaluate(
        lambda images: predict_label_maps(network, images, device, tile),
        env_id,
        split=args.split,
        batch_size=args.batch_size,
        **options,
    )


def environment_of(args: EvaluateArguments) -> tuple[str, dict[str, Any]]:
    """The id and the arguments of the environment: the run's own, overridden by what was given."""
    config = read_run_config(Path(args.checkpoint))
    given = {name: getattr(args, name) for name in ENVIRONMENT if getattr(args, name) is not None}
    if given.get("env_id", config.get("env_id")) != config.get("env_id"):
        config = {"image_size": config.get("image_size")}  # another environment: its data set is not the run's
    if args.reward is not None:
        config.pop("reward_options", None)  # another reward: they are not its own
    merged: dict[str, Any] = {"resize": "pad", "image_size": None, "root": None, "env_kwargs": {}}
    merged |= {"reward": None, "reward_options": {}} | config | given
    if merged.get("env_id") is None:
        raise OptionError(f"{args.checkpoint} lies in no run folder: name the environment with --env-id.")
    check_env_id(merged["env_id"])
    check_env_kwargs(merged["env_kwargs"])
    check_object("reward_options", merged["reward_options"])
    options = {name: merged[name] for name in ("root", "image_size", "resize", "reward", "reward_options")}
    return merged["env_id"], options | merged["env_kwargs"]


def read_run_config(checkpoint: Path) -> dict[str, Any]:
    """What config.json of the run folder that a checkpoint lies in says about evaluation; empty if in none."""
    weights = find_weights(checkpoint).resolve()
    for path in list(weights.parents)[:3]:
        folder = RunFolder(path)
        if folder.config_path.is_file():
            config = folder.read_config()
            run = from_config(TrainArguments, config, folder.config_path)
            return {name: getattr(run, name) for name in (*ENVIRONMENT, "eval_tile") if name in config}
    return {}


def main() -> int:
    """Runs the command line."""
    args = tyro.cli(EvaluateArguments, prog="python -m agents.evaluate")
    result = evaluate_checkpoint(args)
    if args.json:
        print(json.dumps(dataclasses.asdict(result)))
        return 0
    for name, value in result.metrics.items():
        print(f"{METRICS[name]:<16} {value:.4f}")
    print()
    for name, iou in result.per_class_iou.items():
        print(f"{name:<16} {'absent' if iou is None else f'{iou:.4f}'}")
    print(f"\n{result.images} images of split {args.split}")
    return 0


if __name__ == "__main__":
    run_command(main)
