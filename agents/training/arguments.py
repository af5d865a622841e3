"""The settings of a training run that do not depend on the algorithm."""

from __future__ import annotations

import inspect
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import torch
import tyro
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

import rss_env
from rss_env.arguments import check_size
from rss_env.augmentation import check_crop_size, check_scale_range, read_augment
from rss_env.env import SegmentationEnv
from rss_env.errors import OptionError
from rss_env.named import importable_name
from rss_env.task import SegmentationTask
from rss_env.vector import SegmentationVectorEnv
from rss_env.wrappers import as_feedback

from ..errors import RunFolderError
from .run_folder import RunFolder


def _read_object(words: list[str]) -> Any:
    try:
        return json.loads(words[0])
    except ValueError:
        return words[0]  # what came is named when the arguments are checked


JsonObject = Annotated[
    dict[str, Any],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="JSON",
        instance_from_str=_read_object,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [json.dumps(value)],
    ),
]


@dataclass
class TrainArguments:
    """Everything about a run but the algorithm: environment, feedback, network, optimiser, run folder."""

    env_id: str = "RSS-Shapes-ImageReward-v0"
    """id of the environment"""
    root: str | None = None
    """folder of the data set; procedural ones take none"""
    image_size: tuple[int, int] | None = None
    """height and width of the images in pixels; default: the data set's"""
    resize: Literal["pad", "crop", "stretch"] = "pad"
    """how photos reach that size"""
    augment: str = "none"
    """of training images, joined by commas. flip: mirror half of them left and right; crop: show a random part of
    crop_size; scale: of the image made larger or smaller"""
    crop_size: tuple[int, int] | None = None
    """crop: height and width in pixels of what the policy is trained on; it is evaluated on whole images"""
    scale_range: tuple[float, float] = (0.5, 2.0)
    """scale: least and greatest factor"""
    env_kwargs: JsonObject = field(default_factory=dict)
    """the data set's own options, such as '{"num_classes": 3}'"""
    split: str = "train"
    """split to train on"""
    order: Literal["random", "epochs"] = "random"
    """of the training images. random: independent draws; epochs: each once, then each once again in another order"""
    val_split: str = "val"
    """split to evaluate on while training; it decides nothing"""
    val_images: int | None = None
    """most images of val_split in an evaluation, the first ones; without masks each costs a query. Default: all"""
    eval_tile: tuple[int, int] | None = None
    """height and width of overlapping tiles in which images are evaluated, their logits averaged; default: whole
    images"""

    reward: str | None = None
    """name of the reward, or module:function of your own; default: the environment's"""
    reward_options: JsonObject = field(default_factory=dict)
    """the reward's own options, such as '{"class_weights": [0.5, 1, 1]}'"""
    wrap: tuple[str, ...] = ()
    """image level: what becomes of the scores, in turn, such as noise:0.05 and stars:5 (rss_env.wrappers); a resumed
    run restarts the noise stream"""

    network: str = "unet"
    """the policy's network: unet, efficientnet_lite0 (pretrained), timm, smp, transformers, or module:factory, called
    as factory(num_classes=C, ...) with its options"""
    network_options: JsonObject = field(default_factory=dict)
    """the network's own options, such as '{"width": 32}'"""

    init: str | None = None
    """run folder, checkpoint or .safetensors file whose weights the policy starts with; the network must be the same"""

    steps: int = 1000
    """optimiser steps"""
    batch_size: int = 8
    """images a step, over all processes and accumulation steps"""
    accumulation_steps: int = 1
    """micro-batches that an update is made of: more save memory and cost one further forward pass"""
    weight_decay: float = 1e-2
    """decoupled weight decay of AdamW"""
    max_grad_norm: float = 1.0
    """gradients are scaled down to this norm"""

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

    def __post_init__(self) -> None:
        if callable(self.reward):  # from Python; config.json stores its name
            self.reward = importable_name("reward", self.reward)
        if isinstance(self.augment, (tuple, list)):
            self.augment = ",".join(read_augment(self.augment)) or "none"
        self.root, self.init, self.run_dir = (path and os.fspath(path) for path in (self.root, self.init, self.run_dir))

    def env_options(self) -> dict[str, Any]:
        """Keyword arguments of the environment, but for the split, the reward and what an algorithm adds."""
        own = {"root": self.root, "image_size": self.image_size, "resize": self.resize}
        return own | self.env_kwargs

    def augmentation(self) -> dict[str, Any]:
        """Keyword arguments of the environment that is trained on, but for those of ``env_options``."""
        return {"augment": self.augment, "crop_size": self.crop_size, "scale_range": self.scale_range}

    def check(self) -> None:
        """Raises ``OptionError`` if a value is out of range."""
        check_env_id(self.env_id)
        check_crop_size(read_augment(self.augment), self.crop_size)
        check_scale_range(self.scale_range)
        check_env_kwargs(self.env_kwargs)
        check_object("reward_options", self.reward_options)
        check_object("network_options", self.network_options)
        least = {"steps": 1, "batch_size": 1, "accumulation_steps": 1, "seed": 0, "weight_decay": 0}
        least |= {"checkpoint_every": 1, "log_every": 1, "eval_every": 0}
        if self.val_images is not None:
            least["val_images"] = 1
        if self.eval_tile is not None:
            check_size("eval_tile", self.eval_tile)
        check_numbers(self, least, ("max_grad_norm",))
        for kind in self.wrap:
            as_feedback(kind)


MAY_CHANGE_ON_RESUME = {
    "steps",
    "device",
    "compile",
    "resume",
    "run_dir",
    "checkpoint_every",
    "log_every",
    "eval_every",
    "val_images",
    "eval_tile",
    "progress",
}
ENV_ARGUMENTS = {
    name
    for cls in (SegmentationEnv, SegmentationVectorEnv, SegmentationTask)
    for name in inspect.signature(cls).parameters
} | {"device", "cache"}


def to_config(run: TrainArguments, algorithm: Any) -> dict[str, Any]:
    """What config.json stores: the algorithm, its hyper-parameters and the arguments of the run, side by side."""
    return {"algorithm": type(algorithm).__name__} | asdict(run) | asdict(algorithm)


def from_config(cls: type[Any], config: dict[str, Any], source: str | Path) -> Any:
    """The arguments that config.json stores, the inverse of ``to_config``.

    Those that it lacks have their values in ``cls.EARLIER``, what runs did before there was the argument, or else their
    defaults.

    Args:
        cls: dataclass of arguments, such as ``TrainArguments`` or an algorithm.
        config: stored arguments.
        source: what an error names.

    Raises:
        RunFolderError: a value has a wrong type.
    """
    hints = get_type_hints(cls)
    stored = {known.name: config[known.name] for known in fields(cls) if known.name in config}
    stored = {name: value for name, value in getattr(cls, "EARLIER", {}).items() if name not in config} | stored
    for key, value in stored.items():
        stored[key] = tuple(value) if isinstance(value, list) else value
        try:
            check_type(stored[key], hints[key], collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
        except TypeCheckError:
            raise RunFolderError(f"{source} is damaged: {key} cannot be {value!r}. Restore a copy of it.") from None
    return cls(**stored)


def check_resumed(folder: RunFolder, config: dict[str, Any]) -> None:
    """Raises ``RunFolderError`` if a run folder holds no run that these arguments, of ``to_config``, continue."""
    stored = folder.read_config()
    if stored.get("algorithm") != config["algorithm"]:
        raise RunFolderError(f"{folder.path} holds a run of {stored.get('algorithm')}, not of {config['algorithm']}.")
    now = json.loads(json.dumps(config))
    changed = [
        f"{name} {stored[name]!r} -> {now[name]!r}"
        for name in sorted(now.keys() & stored.keys() - MAY_CHANGE_ON_RESUME)
        if stored[name] != now[name]
    ]
    if changed:
        raise RunFolderError(
            f"The run in {folder.path} is continued as it was begun; these arguments would make it another one: "
            f"{'; '.join(changed)}."
        )


def default_run_dir(algorithm: str, run: TrainArguments) -> str:
    """The run folder where none is given; ``algorithm`` is the name of its class."""
    return f"runs/{algorithm.lower()}-{run.env_id}-seed{run.seed}"


def check_env_id(env_id: str) -> None:
    """Raises ``OptionError`` that lists the registered ids if ``env_id`` is not among them."""
    if env_id not in rss_env.ENV_IDS:
        raise OptionError(f"Unknown env_id {env_id!r}; valid:\n  " + "\n  ".join(rss_env.ENV_IDS))


def check_env_kwargs(env_kwargs: Any) -> None:
    """Raises ``OptionError`` if ``env_kwargs`` is no dict, or holds an argument that is not the data set's own."""
    check_object("env_kwargs", env_kwargs)
    taken = sorted(set(env_kwargs) & ENV_ARGUMENTS)
    if taken:
        raise OptionError(
            f"env_kwargs is for the data set's own options; {taken[0]!r} has an argument of its own or is the "
            "algorithm's to choose."
        )


def check_object(name: str, value: Any) -> None:
    """Raises ``OptionError`` if an argument is no dict, which on a command line is written as JSON."""
    if not isinstance(value, dict):
        raise OptionError(f"{name} must be a JSON object, got {value!r}.")
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{name} must be a JSON object: {error}.") from None


def check_numbers(args: Any, least: Mapping[str, int], positive: Sequence[str] = ()) -> None:
    """Raises ``OptionError`` that names the first argument that is out of range.

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
                raise OptionError(f"{name} must be at least {smallest}, got {number}.")
    for name in positive:
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            raise OptionError(f"{name} must be positive, got {value}.")


def choose_device(name: str) -> torch.device:
    """The device called ``name``.

    Raises:
        OptionError: ``"cuda"`` where torch finds no CUDA device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("device cuda: torch finds no CUDA device here; use cpu.")
    return torch.device(name)
