"""Command-line arguments that every training command shares."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import tyro

from agents.distributed import JobError
from agents.policy import CheckpointError
from agents.run_folder import RunFolder, RunFolderError
from rss_env.env import SegmentationEnv
from rss_env.errors import DatasetError, OptionError
from rss_env.task import SegmentationTask
from rss_env.vector import SegmentationVectorEnv


@dataclass
class TrainArguments:
    """Arguments of a training run; a subclass adds those of its algorithm."""

    env_id: str = "RSS-Shapes-ImageReward-v0"
    """id of the environment"""
    root: str | None = None
    """folder of the data set; procedural ones take none"""
    image_size: tuple[int, int] | None = None
    """height and width of the images in pixels; default: the data set's"""
    resize: Literal["pad", "crop", "stretch"] = "pad"
    """how photos reach that size"""
    augment: Literal["none", "flip"] = "none"
    """flip: mirror half of the training images left and right"""
    env_kwargs: str = "{}"
    """the data set's own options, as JSON, such as '{"num_classes": 3}'"""
    split: str = "train"
    """split to train on"""
    val_split: str = "val"
    """split to evaluate on while training; it decides nothing"""

    steps: int = 1000
    """optimiser steps"""
    batch_size: int = 8
    """images a step, over all processes and accumulation steps"""
    accumulation_steps: int = 1
    """micro-batches that an update is made of: more save memory and cost one further forward pass"""
    learning_rate: float = 2e-3
    """peak of the one-cycle schedule"""
    weight_decay: float = 1e-2
    """decoupled weight decay of AdamW"""
    max_grad_norm: float = 1.0
    """gradients are scaled down to this norm"""
    width: int = 16
    """channels of the U-Net's first level, a multiple of 8"""

    seed: int = 1
    """seed of the weights, the order of the images and the label maps"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where policy, environment and replay memory are; cuda uses bfloat16 autocast"""
    compile: bool = False
    """compile the policy's forward and backward pass with torch.compile, which takes a minute at the start"""
    run_dir: str | None = None
    """run folder; default: runs/ALGORITHM-ENV_ID-seedSEED"""
    resume: bool = False
    """continue the run in run_dir from its last checkpoint; its stored arguments are the defaults"""
    checkpoint_every: int = 200
    """steps between checkpoints"""
    log_every: int = 10
    """steps between logged rows"""
    eval_every: int = 200
    """steps between evaluations on val_split; 0: only at the end"""
    progress: bool = True
    """show a progress bar"""

    def env_options(self) -> dict[str, Any]:
        """Keyword arguments of the environment, but for the split and what an algorithm adds."""
        own = {"root": self.root, "image_size": self.image_size, "resize": self.resize}
        return own | parse_env_kwargs(self.env_kwargs)


RESUME_MAY_CHANGE = {
    "steps",
    "device",
    "compile",
    "resume",
    "run_dir",
    "checkpoint_every",
    "log_every",
    "eval_every",
    "progress",
}
ENV_ARGUMENTS = {
    name
    for cls in (SegmentationEnv, SegmentationVectorEnv, SegmentationTask)
    for name in inspect.signature(cls).parameters
} | {"device", "cache"}
Arguments = TypeVar("Arguments", bound=TrainArguments)


def parse_arguments(cls: type[Arguments], command: Sequence[str] | None = None) -> Arguments:
    """Parses a command line; with ``--resume`` the arguments stored in the run folder are the defaults.

    Raises:
        RunFolderError: ``--resume`` without a run, or with an argument that would make it another run.
        OptionError: a value is out of range.
    """
    words = list(sys.argv[1:] if command is None else command)
    args = tyro.cli(cls, args=words, prog=f"python -m {_module_of(cls)}")
    if args.run_dir is None:
        args.run_dir = f"runs/{_module_of(cls).split('.')[-1]}-{args.env_id}-seed{args.seed}"
    if args.resume:
        stored = RunFolder(args.run_dir).read_config()
        algorithm = stored.pop("algorithm", None)
        if algorithm != _module_of(cls):
            raise RunFolderError(f"{args.run_dir} holds a run of {algorithm}, not of {_module_of(cls)}.")
        known = {field.name for field in dataclasses.fields(cls)}
        saved = cls(**{key: _tuple(value) for key, value in stored.items() if key in known})
        run_dir = args.run_dir
        args = tyro.cli(cls, args=words, default=saved, prog=f"python -m {_module_of(cls)}")
        args.run_dir = run_dir
        changed = [
            f"{name} {getattr(saved, name)!r} -> {getattr(args, name)!r}"
            for name in sorted(known - RESUME_MAY_CHANGE)
            if getattr(saved, name) != getattr(args, name)
        ]
        if changed:
            raise RunFolderError(
                f"--resume continues the run in {run_dir}; these arguments would make it another one: "
                f"{'; '.join(changed)}."
            )
    _check(args)
    return args


def parse_env_kwargs(text: str) -> dict[str, Any]:
    """Reads ``--env-kwargs``.

    Raises:
        OptionError: it is not a JSON object, or holds an argument that is not the data set's own.
    """
    try:
        further = json.loads(text)
    except ValueError as error:
        raise OptionError(f"--env-kwargs must be JSON, got {text!r}: {error}.") from error
    if not isinstance(further, dict):
        raise OptionError(f"--env-kwargs must be a JSON object, got {text!r}.")
    taken = sorted(set(further) & ENV_ARGUMENTS)
    if taken:
        raise OptionError(
            f"--env-kwargs is for the data set's own options; {taken[0]!r} has a flag or is the algorithm's to choose."
        )
    return further


def to_config(args: TrainArguments) -> dict[str, Any]:
    """What config.json stores."""
    return {"algorithm": _module_of(type(args)), **dataclasses.asdict(args)}


def run_command(main: Callable[[], int | None]) -> None:
    """Runs a command; an error on the user's side becomes one line on stderr and exit code 2."""
    try:
        sys.exit(main())
    except (OptionError, DatasetError, RunFolderError, CheckpointError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except JobError as error:
        print(f"error in process {os.environ.get('RANK', '0')}: {error}", file=sys.stderr)
        sys.exit(3)
    except OSError as error:  # a file that is not there or may not be written, a full disk
        print(f"error: {_without_number(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _without_number(error: OSError) -> str:
    return f"{error.strerror}: {error.filename}" if error.filename else error.strerror or str(error)


def choose_device(name: str) -> torch.device:
    """The device called ``name``.

    Raises:
        OptionError: ``"cuda"`` where torch finds no CUDA device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("--device cuda: torch finds no CUDA device here; use --device cpu.")
    return torch.device(name)


def _module_of(cls: type) -> str:
    """The command's module name; a class run as ``__main__`` knows it only from its file."""
    if cls.__module__ != "__main__":
        return cls.__module__
    return f"agents.{Path(str(sys.modules['__main__'].__file__)).stem}"


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def check_numbers(args: Any, least: Mapping[str, int], positive: Sequence[str] = ()) -> None:
    """Raises ``OptionError`` that names the flag of the first number, or of several the first, that is out of range.

    Args:
        args: a dataclass of arguments.
        least: smallest valid value of each argument; None is always valid, an empty tuple never.
        positive: arguments that must be positive and finite.
    """
    for name, smallest in least.items():
        value = getattr(args, name)
        values = value if isinstance(value, tuple) else (value,)
        for number in values or ("none",):
            if number is not None and (number == "none" or not smallest <= number < math.inf):
                raise OptionError(f"--{name.replace('_', '-')} must be at least {smallest}, got {number}.")
    for name in positive:
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            raise OptionError(f"--{name.replace('_', '-')} must be positive, got {value}.")


def _check(args: TrainArguments) -> None:
    least = {"steps": 1, "batch_size": 1, "checkpoint_every": 1, "log_every": 1, "eval_every": 0, "width": 8}
    least |= {"accumulation_steps": 1, "seed": 0, "weight_decay": 0}
    check_numbers(args, least, ("learning_rate", "max_grad_norm"))
    if args.width % 8:
        raise OptionError(f"--width must be a multiple of 8, got {args.width}.")
