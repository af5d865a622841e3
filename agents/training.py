"""The loop around an algorithm's update: environment, optimiser, logging, evaluation, checkpoints, resuming."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import rss_env
from agents.algorithm import Algorithm
from agents.arguments import TrainArguments, choose_device, to_config
from agents.distributed import Job, JobError, is_lost_connection
from agents.policy import CheckpointError, UNet, check_classes, predict_label_maps
from agents.run_folder import RunFolder, RunFolderError
from rss_env.errors import OptionError
from rss_env.evaluation import Evaluation, evaluate
from rss_env.rendering import overlay

PICTURES = 6  # images in TensorBoard's picture grid


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


Wrap = Callable[[gym.vector.VectorEnv], gym.vector.VectorEnv]


def train(args: TrainArguments, algorithm: Algorithm, wrap: Wrap | None = None, **env_options: Any) -> Result:
    """Trains the default policy with an algorithm.

    Args:
        args: arguments; ``run_dir`` is set.
        algorithm: forms the loss of one step.
        wrap: puts wrappers around the training environment.
        **env_options: arguments of the training environment that the algorithm needs, such as ``samples_per_image``.

    Raises:
        OptionError, DatasetError: the environment cannot be made.
        RunFolderError: the run folder cannot be used.
        CheckpointError: the checkpoint to resume from does not fit.
        JobError: another process of the job failed.
    """
    job = Job()
    try:
        return _Training(args, algorithm, job, wrap, env_options).run()
    except (JobError, RunFolderError, CheckpointError):
        raise
    except RuntimeError as error:
        if is_lost_connection(error):
            raise JobError(
                "another process of this job is gone, so this one ends as well; "
                f"continue from the last checkpoint with --run-dir {args.run_dir} --resume."
            ) from error
        raise
    finally:
        job.close()


class _Training:
    """One run: environment, policy, optimiser and run folder, and the loop over its updates."""

    def __init__(
        self,
        args: TrainArguments,
        algorithm: Algorithm,
        job: Job,
        wrap: Wrap | None,
        env_options: dict[str, Any],
    ) -> None:
        assert args.run_dir is not None
        check_env_id(args.env_id)
        self.args, self.algorithm, self.job = args, algorithm, job
        self.share = micro_batch_size(args.batch_size, args.accumulation_steps, job.size)
        self.device = job.start(choose_device(args.device))
        self.options = args.env_options()
        own = {"split": args.split, "augment": args.augment}
        if self.device.type != "cpu":  # images, label maps and scores stay there
            own["device"] = str(self.device)
        self.envs = gym.make_vec(args.env_id, num_envs=self.share, **self.options | own | env_options)
        if wrap is not None:
            self.envs = wrap(self.envs)
        # A bad --val-split fails now, not at the first evaluation.
        job.on_main(lambda: evaluate(_all_zero, args.env_id, split=args.val_split, limit=1, **self.options))
        self.base = cast(
            Any, self.envs.unwrapped
        )  # what VectorEnv's type does not tell: its classes and the query count
        data = self.base.task.dataset
        self.described = {
            "class_names": data.class_names,
            "palette": data.palette.tolist(),
            "image_size": data.image_size,
            "resize": args.resize,
        }
        torch.manual_seed(args.seed)
        self.policy = UNet(data.num_classes, args.width).to(self.device)
        self.generator = torch.Generator(self.device).manual_seed(stream_seed(args.seed, job.rank, 0))
        self.step, self.seconds, self.queries_before = 0, 0.0, 0
        self.evaluation: Evaluation | None = None
        self.saved = -1  # step of the last checkpoint that this process wrote
        self.folder = RunFolder(args.run_dir)
        state = self._load(data.num_classes) if args.resume else None
        if state is None and not args.resume:
            job.on_main(lambda: self.folder.create(to_config(args)))
        else:
            job.on_main(lambda: self.folder.write_config(to_config(args)))
        self.optimiser = torch.optim.AdamW(
            self.policy.parameters(),
            lr=args.learning_rate,
            weight_decay=args.weight_decay,
            fused=self.device.type == "cuda",
        )
        if state is not None:
            self.optimiser.load_state_dict(state["optimiser"])
        if args.compile:
            self.policy.compile()
        self.replica = self.policy if job.size == 1 else DistributedDataParallel(self.policy)
        job.on_main(lambda: self.folder.rewind(self.step))

    def run(self) -> Result:
        """Trains until the last step or an interruption."""
        args, job = self.args, self.job
        self.images, self.infos = self.envs.reset(
            seed=args.seed + job.rank * self.share, options={"episode": self.step * args.accumulation_steps}
        )
        hidden = not args.progress or not job.is_main
        bar = tqdm(total=args.steps, initial=self.step, disable=hidden, unit="step", dynamic_ncols=True)
        with bar, _interruption() as interrupted:
            while self.step < args.steps and not job.any(bool(interrupted)):
                began = time.perf_counter()
                metrics = self._update()
                self.step += 1
                self.seconds += time.perf_counter() - began
                bar.update()
                if self.step % args.log_every == 0 or self.step == args.steps:
                    self._log(metrics)
                if self.step == args.steps or (args.eval_every and self.step % args.eval_every == 0):
                    job.on_main(lambda: self._evaluate(bar))
                if self.step % args.checkpoint_every == 0 or self.step == args.steps:
                    self._save()

        finished = self.step >= args.steps
        if self.saved != self.step:
            self._save()
        if finished and job.is_main and self.evaluation is None:  # resumed after its last step
            logged = any("val/miou" in row for row in self.folder.read_metrics() if row["step"] == self.step)
            self._evaluate(None, log=not logged)
        self.folder.close()
        self.envs.close()
        self.evaluation = job.broadcast(self.evaluation)
        return Result(
            step=self.step,
            finished=finished,
            evaluation=self.evaluation if finished else None,
            reward_queries=self._queries(),
            seconds=self.seconds,
            checkpoint=self.folder.path / "checkpoints" / f"step-{self.step:08d}",
        )

    def _update(self) -> dict[str, torch.Tensor | float]:
        """One optimiser step; returns what the algorithm measured in its first micro-batch, and the loop's own."""
        args, algorithm = self.args, self.algorithm
        progress, several = self.step / args.steps, args.accumulation_steps > 1
        for group in self.optimiser.param_groups:
            group["lr"] = args.learning_rate * one_cycle(progress)
        collected: list[tuple[Any, torch.Tensor, Any]] = []
        for _ in range(args.accumulation_steps):
            shown = self.images
            if several:  # the graph of one micro-batch at a time: the loss gets logits of a forward pass of its own
                with torch.no_grad():
                    logits = self._forward(self.policy, shown)
            else:
                logits = self._forward(self.replica, shown)
            got = algorithm.collect(logits.detach(), self.envs, self.infos, progress, self.generator)
            self.images, self.infos = got.images, got.infos
            collected.append((shown, logits, got.feedback))
        algorithm.prepare([feedback for _, _, feedback in collected])

        self.optimiser.zero_grad(set_to_none=True)
        first: dict[str, torch.Tensor | float] = {}
        total = torch.zeros((), device=self.device)
        for number, (shown, logits, feedback) in enumerate(collected, start=1):
            with self._synchronised(number == len(collected)):
                if several:
                    logits = self._forward(self.replica, shown)
                loss, metrics = algorithm.loss(logits, feedback, progress)
                (loss / len(collected)).backward()
            first = first or metrics
            total = total + loss.detach() / len(collected)
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), args.max_grad_norm)
        self.optimiser.step()
        return first | {"train/loss": total, "train/grad_norm": norm}

    def _forward(self, model: torch.nn.Module, images: Any) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits: torch.Tensor = model(torch.as_tensor(images).to(self.device, non_blocking=True))
        return logits.float()

    def _synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Gradients are averaged over the processes in the last micro-batch alone."""
        if isinstance(self.replica, DistributedDataParallel) and not last:
            return self.replica.no_sync()
        return nullcontext()

    def _queries(self) -> int:
        return self.queries_before + round(self.job.sum(self.base.reward_queries))

    def _log(self, metrics: dict[str, torch.Tensor | float]) -> None:
        row = self.job.mean(read_metrics(metrics)) | {
            "train/learning_rate": self.optimiser.param_groups[0]["lr"],
            "time/reward_queries": self._queries(),
            "time/images": self.step * self.args.batch_size,
            "time/seconds": self.seconds,
        }
        _check_finite(row, self.step)
        self.job.on_main(lambda: self.folder.log(self.step, row))

    def _evaluate(self, bar: Any, log: bool = True) -> None:
        args = self.args
        self.evaluation = evaluate(
            lambda images: predict_label_maps(self.policy, images, self.device),
            args.env_id,
            split=args.val_split,
            **self.options,
        )
        if log:
            result = self.evaluation
            self.folder.log(self.step, {"val/miou": result.miou, "val/pixel_accuracy": result.pixel_accuracy})
            self.folder.log_picture(self.step, "val/label_maps", self._picture_grid())
        if bar is not None:
            bar.set_postfix(val_miou=f"{self.evaluation.miou:.3f}")

    def _picture_grid(self) -> np.ndarray:
        """Images above the policy's label maps laid over them, uint8 (2H, n·W, 3)."""
        options = self.options | {"split": self.args.val_split, "order": "sequential"}
        envs = gym.make_vec(self.args.env_id, num_envs=1, **options)
        base: Any = envs.unwrapped
        data = base.task.dataset
        images = np.concatenate([envs.reset()[0] for _ in range(min(PICTURES, len(data)))])
        label_maps = predict_label_maps(self.policy, images, self.device)
        overlays = [overlay(i, m, data.palette, 0.6) for i, m in zip(images, label_maps, strict=True)]
        return np.concatenate([np.concatenate(list(images), 1), np.concatenate(overlays, 1)])

    def _save(self) -> None:
        """Writes a checkpoint: process 0 all that is shared, every process its own memory."""
        _check_finite({"weights": sum(float(w.detach().abs().sum()) for w in self.policy.parameters())}, self.step)
        states = self.job.gather(self.generator.get_state())
        queries = self._queries()
        if self.step < self.args.steps:
            self.folder.write_memory(self.job.rank, self.algorithm.memory())
        self.job.wait()

        def write() -> None:
            state = {
                "step": self.step,
                "seconds": self.seconds,
                "reward_queries": queries,
                "optimiser": self.optimiser.state_dict(),
                "generators": states,
                "device": self.device.type,
                "algorithm": self.algorithm.state_dict(),
            }
            self.folder.save_checkpoint(self.step, self.policy, self.described, state)

        self.job.on_main(write)
        self.saved = self.step
        if self.step == self.args.steps:
            self.job.on_main(self.folder.forget_memories)

    def _load(self, num_classes: int) -> dict[str, Any] | None:
        """Continues from the last checkpoint, written by any number of processes; None if there is none."""
        path = self.folder.latest_checkpoint()
        if path is None:
            return None
        self.policy, state = self.folder.load_checkpoint(path, self.device)
        check_classes(self.policy, num_classes, path)
        if "algorithm" not in state:
            raise CheckpointError(f"{path} was written by an earlier version of this project; it cannot be resumed.")
        self.step, self.seconds, self.queries_before = state["step"], state["seconds"], state["reward_queries"]
        self.saved = self.step
        self.algorithm.load_state_dict(state["algorithm"])
        generators = state["generators"]
        same_job = len(generators) == self.job.size
        if same_job and state["device"] == self.device.type:
            self.generator.set_state(generators[self.job.rank])
        else:  # draws of another number of processes or kind of device: new ones
            self.generator.manual_seed(stream_seed(self.args.seed, self.job.rank, self.step))
        for memory in self.folder.read_memories(path, [self.job.rank] if same_job else range(len(generators))):
            self.algorithm.load_memory(memory)
        return state


def stream_seed(seed: int, rank: int, step: int) -> int:
    """Seed of the label maps of one process from one step on, 32 bits: torch's CPU generator ignores all others."""
    if rank == step == 0:
        return seed
    return int(np.random.SeedSequence((seed, rank, step)).generate_state(1)[0])


def read_metrics(metrics: dict[str, torch.Tensor | float]) -> dict[str, float]:
    """Metrics as numbers; the device is waited for once, not once a metric."""
    tensors = {name: value.detach() for name, value in metrics.items() if isinstance(value, torch.Tensor)}
    device = next((value.device for value in tensors.values() if value.device.type != "cpu"), torch.device("cpu"))
    values = torch.stack(
        [
            torch.zeros((), dtype=torch.float64, device=device),
            *(value.to(device).double() for value in tensors.values()),
        ]
    )
    read = dict(zip(tensors, values.tolist()[1:], strict=True))
    return {name: read[name] if name in read else float(value) for name, value in metrics.items()}


def micro_batch_size(batch_size: int, accumulation_steps: int, processes: int) -> int:
    """Images that a process shows at once.

    Raises:
        OptionError: the images of an update cannot be shared out evenly.
    """
    parts = accumulation_steps * processes
    if batch_size % parts:
        raise OptionError(
            f"--batch-size {batch_size} is the number of images of an update; it cannot be shared evenly by "
            f"{processes} process(es) with --accumulation-steps {accumulation_steps}."
        )
    return batch_size // parts


def report(result: Result, args: TrainArguments) -> int:
    """Prints how a run ended, in process 0 of a job; returns the command's exit code."""
    if not Job().is_main:
        return 0 if result.finished else 130
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
