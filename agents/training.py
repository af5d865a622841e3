"""The loop around an algorithm's update: environment, optimiser, logging, evaluation, checkpoints, resuming."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from tqdm import tqdm

import rss_env
from agents.arguments import TrainArguments, choose_device, to_config
from agents.policy import UNet, check_classes, predict_label_maps
from agents.run_folder import RunFolder
from rss_env.errors import OptionError
from rss_env.evaluation import Evaluation, evaluate
from rss_env.rendering import overlay

PICTURES = 6  # images in TensorBoard's picture grid


@dataclass
class Update:
    """What an algorithm returns for one step.

    Attributes:
        loss: scalar to minimise.
        images: uint8 (B, H, W, 3), the next images.
        infos: the environment's infos that came with them.
        metrics: numbers to log, 0-dimensional tensors or floats.
    """

    loss: torch.Tensor
    images: np.ndarray
    infos: dict[str, Any]
    metrics: dict[str, torch.Tensor | float]


class Algorithm(Protocol):
    """One step of learning: act on the images, get feedback from the environment, form the loss."""

    def __call__(
        self,
        logits: torch.Tensor,
        envs: gym.vector.VectorEnv,
        infos: dict[str, Any],
        progress: float,
        generator: torch.Generator,
    ) -> Update:
        """Forms the loss of one step.

        Args:
            logits: float32 (B, C, H, W), the policy's, for the images at hand.
            envs: the vector environment, waiting for label maps.
            infos: the infos that came with the images.
            progress: share of the training done, 0 at the first step, 1 after the last.
            generator: source of randomness on the logits' device.
        """
        ...


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        step: optimiser steps done.
        finished: False if it was interrupted.
        evaluation: of the policy at the end, on the validation split; None if interrupted.
        reward_queries: label maps scored.
        seconds: training time of the whole run, earlier parts of a resumed one included.
        checkpoint: folder of the last checkpoint.
    """

    step: int
    finished: bool
    evaluation: Evaluation | None
    reward_queries: int
    seconds: float
    checkpoint: Path


def train(args: TrainArguments, algorithm: Algorithm, **env_options: Any) -> Result:
    """Trains the default policy with an algorithm.

    Args:
        args: arguments; ``run_dir`` is set.
        algorithm: forms the loss of one step.
        **env_options: arguments of the training environment that the algorithm needs, such as ``samples_per_image``.

    Raises:
        OptionError, DatasetError: the environment cannot be made.
        RunFolderError: the run folder cannot be used.
        CheckpointError: the checkpoint to resume from does not fit.
    """
    assert args.run_dir is not None
    device = choose_device(args.device)
    check_env_id(args.env_id)
    options = args.env_options()
    envs = gym.make_vec(
        args.env_id,
        num_envs=args.batch_size,
        **options | env_options | {"split": args.split, "augment": args.augment},
    )
    evaluate(_all_zero, args.env_id, split=args.val_split, limit=1, **options)  # a bad --val-split fails now, not later
    base: Any = envs.unwrapped  # what VectorEnv's type does not tell: its data set's classes and the query count
    data = base.task.dataset
    described = {
        "class_names": data.class_names,
        "palette": data.palette.tolist(),
        "image_size": data.image_size,
        "resize": args.resize,
    }

    torch.manual_seed(args.seed)
    generator = torch.Generator(device).manual_seed(args.seed)
    policy = UNet(data.num_classes, args.width).to(device)
    step, seconds, queries_before = 0, 0.0, 0
    folder = RunFolder(args.run_dir)
    state: dict[str, Any] | None = None
    if args.resume:
        checkpoint = folder.latest_checkpoint()
        if checkpoint is not None:
            policy, state = folder.load_checkpoint(checkpoint, device)
            check_classes(policy, data.num_classes, checkpoint)
        folder.write_config(to_config(args))
    else:
        folder.create(to_config(args))
    optimiser = torch.optim.AdamW(
        policy.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay, fused=device.type == "cuda"
    )
    if state is not None:
        optimiser.load_state_dict(state["optimiser"])
        generator.set_state(state["generator"])
        step, seconds, queries_before = state["step"], state["seconds"], state["reward_queries"]
    folder.rewind(step)

    def save() -> Path:
        _check_finite({"weights": sum(float(weights.detach().abs().sum()) for weights in policy.parameters())}, step)
        return folder.save_checkpoint(
            step,
            policy,
            described,
            {
                "step": step,
                "seconds": seconds,
                "reward_queries": queries_before + base.reward_queries,
                "optimiser": optimiser.state_dict(),
                "generator": generator.get_state(),
            },
        )

    def evaluate_policy(log: bool = True) -> Evaluation:
        result = evaluate(
            lambda images: predict_label_maps(policy, images, device), args.env_id, split=args.val_split, **options
        )
        if log:
            folder.log(step, {"val/miou": result.miou, "val/pixel_accuracy": result.pixel_accuracy})
        return result

    images, infos = envs.reset(seed=args.seed, options={"episode": step})
    evaluation = None
    checkpoint_path: Path | None = None
    bar = tqdm(total=args.steps, initial=step, disable=not args.progress, unit="step", dynamic_ncols=True)
    with bar, _interruption() as interrupted:
        while step < args.steps and not interrupted:
            began = time.perf_counter()
            for group in optimiser.param_groups:
                group["lr"] = args.learning_rate * one_cycle(step / args.steps)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = policy(torch.from_numpy(images).to(device, non_blocking=True))
            update = algorithm(logits.float(), envs, infos, step / args.steps, generator)
            optimiser.zero_grad(set_to_none=True)
            update.loss.backward()
            grad_norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), args.max_grad_norm)
            optimiser.step()
            images, infos = update.images, update.infos
            step += 1
            seconds += time.perf_counter() - began
            bar.update()

            if step % args.log_every == 0 or step == args.steps:
                metrics = {name: float(value) for name, value in update.metrics.items()}
                metrics |= {
                    "train/loss": float(update.loss.detach()),
                    "train/grad_norm": float(grad_norm),
                    "train/learning_rate": optimiser.param_groups[0]["lr"],
                    "time/reward_queries": queries_before + base.reward_queries,
                    "time/images": step * args.batch_size,
                    "time/seconds": seconds,
                }
                _check_finite(metrics, step)
                folder.log(step, metrics)
            if step == args.steps or (args.eval_every and step % args.eval_every == 0):
                evaluation = evaluate_policy()
                bar.set_postfix(val_miou=f"{evaluation.miou:.3f}")
                folder.log_picture(step, "val/label_maps", _picture_grid(policy, args, options, device))
            if step % args.checkpoint_every == 0 or step == args.steps:
                checkpoint_path = save()

    finished = step >= args.steps
    if not finished or checkpoint_path is None:
        checkpoint_path = save()
    if finished and evaluation is None:  # resumed after its last step
        logged = any("val/miou" in row for row in folder.read_metrics() if row["step"] == step)
        evaluation = evaluate_policy(log=not logged)
    folder.close()
    envs.close()
    return Result(
        step=step,
        finished=finished,
        evaluation=evaluation if finished else None,
        reward_queries=queries_before + base.reward_queries,
        seconds=seconds,
        checkpoint=checkpoint_path,
    )


def report(result: Result, args: TrainArguments) -> int:
    """Prints how a run ended; returns the command's exit code."""
    if not result.finished:
        print(f"Stopped after step {result.step} of {args.steps}; continue with --run-dir {args.run_dir} --resume")
        return 130
    assert result.evaluation is not None
    print(
        f"{args.val_split}: mIoU {result.evaluation.miou:.4f}, "
        f"pixel accuracy {result.evaluation.pixel_accuracy:.4f} on {result.evaluation.images} images; "
        f"{result.reward_queries:,} reward queries, {result.seconds:.0f} s\n{result.checkpoint}"
    )
    return 0


def check_env_id(env_id: str) -> None:
    """Raises ``OptionError`` that lists the registered ids if ``env_id`` is not among them."""
    if env_id not in rss_env.ENV_IDS:
        raise OptionError(f"Unknown --env-id {env_id!r}; valid:\n  " + "\n  ".join(rss_env.ENV_IDS))


def one_cycle(progress: float, warm_up: float = 0.15) -> float:
    """Factor of the learning rate: up along half a cosine for the first ``warm_up``, then down to 0 along another."""
    if progress < warm_up:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / warm_up)) / 2
    return (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up))) / 2


def _all_zero(images: np.ndarray) -> np.ndarray:
    return np.zeros(images.shape[:3], np.uint8)


def _check_finite(metrics: dict[str, float], step: int) -> None:
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        raise FloatingPointError(
            f"{', '.join(bad)} not finite at step {step}; the last checkpoint is whole. Try a lower --learning-rate."
        )


def _picture_grid(policy: UNet, args: TrainArguments, options: dict[str, Any], device: torch.device) -> np.ndarray:
    """Images above the policy's label maps laid over them, uint8 (2H, n·W, 3)."""
    envs = gym.make_vec(args.env_id, num_envs=1, **options | {"split": args.val_split, "order": "sequential"})
    task: Any = envs.unwrapped
    images = np.concatenate([envs.reset()[0] for _ in range(min(PICTURES, len(task.task.dataset)))])
    label_maps = predict_label_maps(policy, images, device)
    overlays = [overlay(i, m, task.task.dataset.palette, 0.6) for i, m in zip(images, label_maps, strict=True)]
    return np.concatenate([np.concatenate(list(images), 1), np.concatenate(overlays, 1)])


class _Interruption:
    """True once the run was asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def __bool__(self) -> bool:
        return self.requested


@contextmanager
def _interruption() -> Iterator[_Interruption]:
    """Lets the step at hand end on Ctrl-C or SIGTERM; a second Ctrl-C stops at once."""
    flag = _Interruption()

    def request(number: int, frame: FrameType | None) -> None:
        if flag.requested:
            raise KeyboardInterrupt
        flag.requested = True

    try:
        before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals stay with whoever owns them
        before = {}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
