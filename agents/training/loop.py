"""The training loop: network -> logits -> act -> label maps -> step -> feedback -> loss -> optimiser."""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from rss_env.errors import JudgeError, OptionError
from rss_env.evaluation import Evaluation
from rss_env.wrappers.vector import FeedbackReward

from ..errors import CheckpointError, JobError, RunFolderError
from ..networks import Factory, check_network, make_network, name_of
from ..networks.balance import Shares
from ..networks.checkpoints import WEIGHTS, check_classes, load_start, load_weights, read_description
from ..networks.fine_tuning import make_optimiser
from ..networks.policy import Policy
from .algorithm import Algorithm
from .arguments import TrainArguments, check_resumed, choose_device, default_run_dir, to_config
from .callbacks import Callback, Callbacks
from .distributed import Job, is_lost_connection
from .feedback import as_action, read_feedback
from .given_environment import arguments_of
from .interruption import interruption
from .rehearsal import NAMES, Rehearsal
from .run_folder import STATE, RunFolder, contents_of
from .validation import Validation, to_log

LOOK_EVERY = 10  # visits from one look at how frequent the policy finds each class to the next, after the first ones
WARM_UP = 0.15  # share of the training in which the learning rate rises


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        step: optimiser steps done.
        finished: False if it was interrupted, or stopped by a callback.
        evaluation: of the policy at the end, on the validation split; None if it was interrupted between two.
        reward_queries: label maps scored, those of evaluations without masks included.
        seconds: training time of the whole run, earlier parts of a resumed one included.
        checkpoint: folder of the last checkpoint.
        policy: what was trained, ready for photos, on the device of the run.
    """

    step: int
    finished: bool
    evaluation: Evaluation | None
    reward_queries: int
    seconds: float
    checkpoint: Path
    policy: Policy = field(repr=False)

    @property
    def network(self) -> nn.Module:
        """The network of the policy."""
        return self.policy.network

    @property
    def run_dir(self) -> Path:
        """The run folder."""
        return self.checkpoint.parent.parent

    @property
    def curves(self) -> dict[str, dict[int, float]]:
        """What was logged so far, of docs/metrics.md: name -> step -> value; ``pandas.DataFrame`` takes it as it is."""
        curves: dict[str, dict[int, float]] = {}
        for row in RunFolder(self.run_dir).read_metrics():
            for name, value in row.items():
                if name != "step":
                    curves.setdefault(name, {})[int(row["step"])] = value
        return curves

    def __repr__(self) -> str:
        how = "finished" if self.finished else "stopped"
        measured = f"{self.evaluation}; " if self.evaluation else ""
        queries = f"{self.reward_queries:,} label maps scored in {self.seconds:.1f} s"
        return f"Result({how} after step {self.step}; {measured}{queries}; {self.checkpoint})"


def train(
    env_id: str | gym.Env | gym.vector.VectorEnv,
    algorithm: Algorithm | None = None,
    *,
    network: str | Factory = "unet",
    callbacks: Sequence[Callback | Callable[[int, dict[str, float]], Any]] = (),
    **arguments: Any,
) -> Result:
    """Trains a policy, from a notebook or a program.

    Args:
        env_id: of the environment, or an environment that ``gym.make`` or ``gym.make_vec`` made, also with
            ``FeedbackReward`` around it: the run makes its own like it. ``num_envs`` becomes ``batch_size``.
        algorithm: with its hyper-parameters, such as ``Likelihood(samples_per_image=8)``; default: ``Likelihood()``.
        network: name of the policy's network, or a factory that can be imported again: see ``agents.networks``.
        callbacks: objects of classes derived from ``Callback``, or functions ``(step, metrics)``, which are called as
            ``Callback.on_log`` is.
        **arguments: fields of ``agents.training.TrainArguments``, such as ``steps`` and ``image_size``; they go before
            those of a given environment. Without ``run_dir`` the run folder is a new one under ``runs/``.

    Returns:
        The policy, how good it is on the validation split, what was logged, and where its checkpoint is.

    Raises:
        OptionError, DatasetError: an argument is out of range, or the environment or network cannot be made.
        RunFolderError: the run folder cannot be used, or the run in it has other arguments.
        CheckpointError: the checkpoint to resume from is damaged or does not fit.
        JudgeError: a slow reward of your own failed; the run can be resumed.

    Example::

        result = train("RSS-Shapes-ImageReward-v0", steps=500, image_size=(32, 32))
        print(result.evaluation.miou, result.reward_queries)
        label_map = result.policy.predict("photo.jpg")
    """
    given, samples = ({"env_id": env_id}, None) if isinstance(env_id, str) else arguments_of(env_id)
    algorithm = _algorithm(algorithm, samples)
    run = TrainArguments(network=name_of(network), **given | arguments)
    if run.run_dir is None:
        run_dir = default_run_dir(type(algorithm).__name__, run)
        run.run_dir = run_dir if run.resume else _unused(run_dir)
    run.check()
    return fit(run, algorithm, Callbacks(callbacks))


def fit(run: TrainArguments, algorithm: Algorithm, callbacks: Callbacks | None = None) -> Result:
    """Trains a policy as ``train`` does; ``run.run_dir`` is set.

    Raises:
        JobError: another process of the job failed.
    """
    assert run.run_dir is not None
    if not 0 <= algorithm.decay_from < 1:
        raise OptionError(f"decay_from must be at least 0 and below 1, got {algorithm.decay_from}.")
    algorithm.plan(run.steps, run.batch_size)
    job, folder, callbacks = Job(), RunFolder(run.run_dir), callbacks or Callbacks()
    trainer = None
    try:
        if run.resume:
            check_resumed(folder, to_config(run, algorithm))
        trainer = _Trainer(run, algorithm, job, folder, callbacks)
        return trainer.train()
    except JudgeError as error:
        raise JudgeError(f"{error} Go on from the last checkpoint with --run-dir {run.run_dir} --resume.") from error
    except (JobError, RunFolderError, CheckpointError):
        raise
    except RuntimeError as error:
        if error is not callbacks.error and is_lost_connection(error):
            trainer = None  # the launcher is about to end this process as well: there is only time to say why
            raise JobError(
                "another process of this job is gone, so this one ends as well; "
                f"continue from the last checkpoint with --run-dir {run.run_dir} --resume."
            ) from error
        raise
    finally:
        folder.close()
        if trainer is not None:
            trainer.disconnect()
        job.close()
        callbacks.end(None)  # if an error has ended the run


class _Trainer:
    """One run: environment, network, optimiser and run folder, and the loop over its updates."""

    def __init__(
        self, run: TrainArguments, algorithm: Algorithm, job: Job, folder: RunFolder, callbacks: Callbacks
    ) -> None:
        self.run, self.algorithm, self.job, self.folder, self.callbacks = run, algorithm, job, folder, callbacks
        self.step, self.seconds, self.queries = 0, 0.0, 0  # queries: label maps that this process had scored
        self.earlier_queries = 0  # of all processes, before the run was resumed
        self.evaluation: Evaluation | None = None
        self.evaluated = -1  # step of it
        self.saved = -1  # step of the last checkpoint that this process wrote
        self.visits = 0  # updates in which images were shown
        self.shares = Shares()  # of the classes
        self.measured: dict[str, torch.Tensor | float] = {}  # by the algorithm, in the last of them
        self.share = micro_batch_size(run.batch_size, run.accumulation_steps, job.size)
        self.device = job.start(choose_device(run.device))
        self.envs = self._make_envs()
        self.num_classes = num_classes(self.envs)
        self.validation = Validation(run, self.device)
        said = algorithm.start(self.envs.metadata, self.num_classes)
        if algorithm.updates_a_visit < 1:
            raise OptionError(f"updates_a_visit must be at least 1, got {algorithm.updates_a_visit}.")
        self.rehearsal = Rehearsal(algorithm.rehearsal_megabytes)
        if said and job.is_main:
            print(said)
        self.network = self._make_network()
        self.generator = torch.Generator(self.device).manual_seed(stream_seed(run.seed, job.rank, 0))
        self.optimiser, self.learning_rate_factors = make_optimiser(
            self.network, algorithm.learning_rate, run.weight_decay, fused=self.device.type == "cuda"
        )
        self._open_folder()
        if run.compile:
            self.network.compile()
        self.replica = self.network if job.size == 1 else DistributedDataParallel(self.network)

    # Setting up -------------------------------------------------------------------------------------------------------

    def _make_envs(self) -> gym.vector.VectorEnv:
        """The training environment, with what becomes of its scores."""
        run = self.run
        options = run.env_options() | {"split": run.split, "order": run.order} | run.augmentation()
        options |= {"reward": run.reward, "reward_options": run.reward_options}
        if self.device.type != "cpu":  # images, label maps and scores stay there
            options["device"] = str(self.device)
        envs = gym.make_vec(run.env_id, num_envs=self.share, **options | self.algorithm.env_options())
        for kind in run.wrap:
            envs = FeedbackReward(envs, kind)
        return envs

    def _make_network(self) -> nn.Module:
        """The policy with its first weights, the same in every process."""
        run = self.run
        torch.manual_seed(run.seed)
        network = make_network(run.network, self.num_classes, run.network_options).to(self.device)
        shown, whole = self.envs.single_observation_space.shape[:2], self.envs.metadata["image_size"]  # type: ignore[index]
        evaluated = whole if run.eval_tile is None else tuple(map(min, run.eval_tile, whole))
        for height, width in dict.fromkeys((shown, evaluated)):
            check_network(network, run.network, (height, width), self.num_classes)
        return network.train()

    def _open_folder(self) -> None:
        """A new run folder, or that of the run that is resumed, whose last checkpoint goes before ``init``."""
        run, job, folder = self.run, self.job, self.folder
        config = to_config(run, self.algorithm)
        checkpoint: Path | None = None
        if run.resume:
            job.on_main(folder.lock)
            checkpoint, said = job.broadcast(job.on_main(folder.latest_whole_checkpoint)) or (None, None)
            if said and job.is_main:
                print(said, file=sys.stderr)
        if checkpoint is not None:
            self._load(checkpoint)
        elif run.init is not None:
            load_start(self.network, run.init, self.num_classes, self.envs.metadata["class_names"])
        job.on_main(lambda: folder.write_config(config) if run.resume else folder.create(config))
        job.on_main(lambda: folder.rewind(self.step))

    def _load(self, checkpoint: Path) -> None:
        """Continues from a checkpoint, written by any number of processes."""
        weights = checkpoint / WEIGHTS
        check_classes(read_description(weights), self.num_classes, checkpoint)
        load_weights(self.network, weights)
        state, job = self.folder.read_state(checkpoint), self.job
        with contents_of(checkpoint / STATE):
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
            self.earlier_queries = int(state["reward_queries"])
            self.saved = self.step
            self.visits = int(state.get("visits", self.step))  # older checkpoints: images were shown in every step
            if "shares" in state:  # older checkpoints have none
                self.shares.load_state_dict(state["shares"], self.device)
            self.optimiser.load_state_dict(state["optimiser"])
            self.algorithm.load_state_dict(state["algorithm"])
            generators = state["generators"]
            same_job = len(generators) == job.size
            measured = state.get("measured", [{}])  # of every process
            self.measured = measured[job.rank] if same_job and len(measured) == job.size else mean_of(measured)
            if same_job and state["device"] == self.device.type:
                self.generator.set_state(generators[job.rank])
                set_random_state(state["network_generators"][job.rank], self.device)
            else:  # draws of another number of processes or kind of device: new ones
                self.generator.manual_seed(stream_seed(self.run.seed, job.rank, self.step))
        for file, memory in self.folder.read_memories(checkpoint, [job.rank] if same_job else range(len(generators))):
            with contents_of(file):
                if own := {name: memory[name] for name in memory if name not in NAMES}:
                    self.algorithm.load_memory(own)
                self.rehearsal.load_state_dict({name: memory[name] for name in memory if name in NAMES})

    # The loop ---------------------------------------------------------------------------------------------------------

    def train(self) -> Result:
        """Trains until the last step or an interruption."""
        run, job = self.run, self.job
        self._begin(self._images_to_show(), seed=run.seed + job.rank * self.share)
        hidden = not run.progress or not job.is_main
        bar = tqdm(total=run.steps, initial=self.step, disable=hidden, unit="step", dynamic_ncols=True)
        with bar, interruption() as interrupted:
            if job.is_main:
                self.callbacks.start(interrupted, to_config(run, self.algorithm), self.step)
            while self.step < run.steps and not job.any(bool(interrupted)):
                began = time.perf_counter()
                if (images := self._images_to_show()) != self.shown:
                    self._begin(images)
                metrics = self._update()
                self.step += 1
                self.seconds += time.perf_counter() - began
                bar.update()
                if self.step % run.log_every == 0 or self.step == run.steps:
                    self._log(metrics)
                if self.step == run.steps or (run.eval_every and self.step % run.eval_every == 0):
                    job.on_main(lambda: self._evaluate(bar))
                if self.step % run.checkpoint_every == 0 or self.step == run.steps:
                    self._save()
            if self.saved != self.step:  # interrupted; the signal may reach another process of the job only now
                self._save()
            job.on_main(self.callbacks.raise_error)
        result = self._finish()
        job.on_main(lambda: self.callbacks.end(result))
        job.on_main(self.callbacks.raise_error)
        return result

    def _images_to_show(self) -> int:
        """Number of the training images that are shown from now on."""
        metadata, run = self.envs.metadata, self.run
        visits = -(-run.steps // self.algorithm.updates_a_visit)
        wanted = self.algorithm.images(visits * run.batch_size * metadata["samples_per_image"] // self.job.size)
        return int(metadata["num_images"]) if wanted is None else min(wanted, int(metadata["num_images"]))

    def _begin(self, images: int, seed: int | None = None) -> None:
        """Begins the next episodes, which show an even choice of so many images."""
        options = {"episode": self.visits * self.run.accumulation_steps}
        if images < self.envs.metadata["num_images"] or seed is None:
            options["images"] = images
        self.shown = images
        self.images, self.infos = self.envs.reset(seed=seed, options=options)

    def _update(self) -> dict[str, torch.Tensor | float]:
        """One optimiser step; returns what the algorithm measured in its last visit, and the loop's own numbers."""
        if self.step % self.algorithm.updates_a_visit == 0:
            total = self._visit()
        elif self.job.any(len(self.rehearsal) == 0):  # in every process, or they would wait for each other
            return self.measured
        else:
            total = self._rehearse()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.run.max_grad_norm)
        peak = self.algorithm.learning_rate * self.algorithm.learning_rate_factor
        learning_rate = peak * one_cycle(self.step / self.run.steps, self.algorithm.decay_from)
        for group, factor in zip(self.optimiser.param_groups, self.learning_rate_factors, strict=True):
            group["lr"] = factor * learning_rate
        self.optimiser.step()
        return self.measured | {"train/loss": total, "train/grad_norm": norm}

    def _visit(self) -> torch.Tensor:
        """Shows images, has their label maps scored, and gives the gradient of what that teaches; returns the loss."""
        run, algorithm = self.run, self.algorithm
        progress, several = self.step / run.steps, run.accumulation_steps > 1
        batches: list[tuple[Any, torch.Tensor, Any]] = []  # images, logits, lesson of every micro-batch
        for _ in range(run.accumulation_steps):
            images = self.images
            with torch.set_grad_enabled(not several):  # with several, one graph at a time: the loss has its own pass
                logits = self._forward(self.network if several else self.replica, images)  # (B, C, H, W)
            label_maps = algorithm.act(logits.detach(), progress, self.generator)  # (B, K, H, W)
            self.images, _, _, _, infos = self.envs.step(as_action(label_maps, images))
            feedback = read_feedback(label_maps, self.infos, infos, images)
            lesson = algorithm.observe(logits.detach(), feedback)
            taught = algorithm.taught(lesson) if algorithm.updates_a_visit > 1 else None
            if taught is None:
                self.rehearsal.clear()
            else:
                self.rehearsal.add(feedback.index, self.step, torch.as_tensor(images), taught)
            batches.append((images, logits, lesson))
            self.infos = infos
            self.queries += label_maps.shape[0] * label_maps.shape[1]
        if self.visits < LOOK_EVERY or self.visits % LOOK_EVERY == 0:
            self.shares.look([logits for _, logits, _ in batches])
        self.visits += 1
        algorithm.synchronise([lesson for _, _, lesson in batches])

        self.optimiser.zero_grad(set_to_none=True)
        self.measured = {}
        total = torch.zeros((), device=self.device)
        for number, (images, logits, lesson) in enumerate(batches, start=1):
            with self._averaging(number == len(batches)):
                if several:
                    logits = self._forward(self.replica, images)
                loss, metrics = algorithm.loss(logits, lesson, progress)
                (loss / len(batches)).backward()
            self.measured = self.measured or metrics
            total = total + loss.detach() / len(batches)
        return total

    def _rehearse(self) -> torch.Tensor:
        """Gives the gradient of what was taught of images before; returns the loss."""
        parts = self.run.accumulation_steps
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for number in range(1, parts + 1):
            images, taught = self.rehearsal.draw(self.share, self.generator)
            with self._averaging(number == parts):
                loss = self.algorithm.rehearse(self._forward(self.replica, images), taught)
                (loss / parts).backward()
            total = total + loss.detach() / parts
        return total

    def _forward(self, model: nn.Module, images: torch.Tensor | np.ndarray) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits: torch.Tensor = model(torch.as_tensor(images).to(self.device, non_blocking=True))
        return logits.float()

    def _averaging(self, last: bool) -> AbstractContextManager[None]:
        """Gradients are averaged over the processes in the last micro-batch only."""
        if isinstance(self.replica, DistributedDataParallel) and not last:
            return self.replica.no_sync()
        return nullcontext()

    # Records ----------------------------------------------------------------------------------------------------------

    def _all_queries(self) -> int:
        return self.earlier_queries + round(self.job.sum(self.queries))

    def _log(self, metrics: dict[str, torch.Tensor | float]) -> None:
        row = self.job.mean(read_metrics(metrics)) | {
            "train/learning_rate": self.optimiser.param_groups[0]["lr"] / self.learning_rate_factors[0],
            "time/reward_queries": self._all_queries(),
            "time/images": self.step * self.run.batch_size,
            "train/images": self.shown,
            "time/seconds": self.seconds,
        }
        _check_finite(row, self.step)
        self.job.on_main(lambda: self.folder.log(self.step, row))
        self.callbacks.call("on_log", self.step, row)

    def _evaluate(self, bar: Any = None, log: bool = True) -> None:
        self.evaluation, self.evaluated = self.validation.evaluate(self.network), self.step
        result = self.evaluation
        self.queries += result.queries
        if log:
            self.folder.log(self.step, to_log(result))
            picture = self.validation.picture(self.network)
            self.folder.log_picture(self.step, "val/label_maps", picture)
            self.callbacks.call("on_evaluation", self.step, result, picture)
        if bar is not None:
            name, value = next(iter(result.metrics.items()))
            bar.set_postfix({f"val_{name}": f"{value:.3f}"})

    def _save(self) -> None:
        """Writes a checkpoint: process 0 all that is shared, every process its own memory."""
        _check_finite({"weights": sum(float(w.detach().abs().sum()) for w in self.network.parameters())}, self.step)
        finished = self.step == self.run.steps
        queries = self._all_queries()
        self.shares.share_out(self.job)
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "reward_queries": queries,
            "visits": self.visits,
            "shares": self.shares.state_dict(),
            "measured": self.job.gather(read_metrics(self.measured)),
            "optimiser": self.optimiser.state_dict(),
            "generators": self.job.gather(self.generator.get_state()),
            "network_generators": self.job.gather(random_state(self.device)),
            "device": self.device.type,
            "algorithm": self.algorithm.state_dict(),
        }
        description = self._description(queries)
        memory = {} if finished else self.algorithm.memory() | self.rehearsal.state_dict()
        written = self.job.gather(self.folder.write_memory(self.job.rank, memory))
        memories = [file for file in written if file is not None]
        path = self.job.on_main(
            lambda: self.folder.save_checkpoint(self.step, self.network, description, state, memories)
        )
        self.saved = self.step
        if finished:
            self.job.on_main(self.folder.forget_memories)
        self.callbacks.call("on_checkpoint", path)

    def _description(self, queries: int) -> dict[str, Any]:
        """What a user of the weights needs: how to make the network again, and what it was trained on and how."""
        metadata, run = self.envs.metadata, self.run
        training = {
            "env_id": run.env_id,
            "algorithm": type(self.algorithm).__name__,
            "reward": run.reward or metadata["reward"],
            "wrap": list(run.wrap),
            "step": self.step,
            "reward_queries": queries,
            "validation": self.evaluation.metrics if self.evaluation and self.evaluated == self.step else {},
        }
        return {
            "network": run.network,
            "network_options": run.network_options,
            "num_classes": self.num_classes,
            "class_names": metadata["class_names"],
            "palette": metadata["palette"],
            "image_size": metadata["image_size"],
            "resize": run.resize,
            "training": training,
        } | self.shares.description

    def disconnect(self) -> None:
        """Lets go of what averages gradients before the job is closed; the other way round torch may wait for ever.

        What averages holds on to the connections. Whoever lets go of it last ends them, and if that is Python's own
        clearing up, threads that need the interpreter are waited for without giving it to them.
        """
        self.replica = self.network
        if self.job.size > 1:
            gc.collect()

    def _finish(self) -> Result:
        """How the run ended, with the last evaluation if the loop has not made it."""
        job, finished = self.job, self.step >= self.run.steps
        if finished and job.is_main and self.evaluation is None:  # resumed after its last step
            rows = [row for row in self.folder.read_metrics() if row["step"] == self.step]
            logged = any({"val/miou", "val/score"} & row.keys() for row in rows)
            self._evaluate(log=not logged)
        self.folder.close()
        self.envs.close()
        queries = self._all_queries()
        return Result(
            step=self.step,
            finished=finished,
            evaluation=job.broadcast(self.evaluation if self.evaluated == self.step else None),
            reward_queries=queries,
            seconds=self.seconds,
            checkpoint=self.folder.path / "checkpoints" / f"step-{self.step:08d}",
            policy=Policy(self.network, self._description(queries)),
        )


def num_classes(envs: gym.vector.VectorEnv) -> int:
    """C of an environment whose action is a label map."""
    space = envs.single_action_space
    if not isinstance(space, gym.spaces.MultiDiscrete):
        raise OptionError(f"The action must be a label map, a MultiDiscrete of (K, H, W); got {space}.")
    return int(space.nvec.flat[0])


def one_cycle(progress: float, decay_from: float = 0.0) -> float:
    """Factor of the learning rate: up along half a cosine for the first ``WARM_UP``, then down to 0 along another.

    Args:
        progress: share of the training done.
        decay_from: share after which it falls; until then it stays at 1. It never falls before ``WARM_UP``.
    """
    if progress < WARM_UP:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / WARM_UP)) / 2
    start = max(WARM_UP, decay_from)
    return (1 + math.cos(math.pi * max(0.0, progress - start) / (1 - start))) / 2


def micro_batch_size(batch_size: int, accumulation_steps: int, processes: int) -> int:
    """Images that a process shows at once.

    Raises:
        OptionError: the images of an update cannot be shared out evenly.
    """
    parts = accumulation_steps * processes
    if batch_size % parts:
        raise OptionError(
            f"batch_size {batch_size} is the number of images of an update; it cannot be shared evenly by "
            f"{processes} process(es) with accumulation_steps {accumulation_steps}."
        )
    return batch_size // parts


def stream_seed(seed: int, rank: int, step: int) -> int:
    """Seed of the label maps of one process from one step on, 32 bits: torch's CPU generator ignores all others."""
    if rank == step == 0:
        return seed
    return int(np.random.SeedSequence((seed, rank, step)).generate_state(1)[0])


def random_state(device: torch.device) -> list[torch.Tensor]:
    """State of torch's own generators, from which a network draws its dropout: the CPU's, and a CUDA device's."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_random_state(states: list[torch.Tensor], device: torch.device) -> None:
    """Goes on from ``random_state`` of the same type of device."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def mean_of(measured: Sequence[dict[str, float]]) -> dict[str, torch.Tensor | float]:
    """Means over the processes of what all of them measured."""
    names = [name for name in measured[0] if all(name in each for each in measured)]
    return {name: sum(each[name] for each in measured) / len(measured) for name in names}


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


def _algorithm(given: Algorithm | None, samples: int | None) -> Algorithm:
    """The algorithm, or the default one; ``samples`` is the ``samples_per_image`` of an environment that has one."""
    if given is None:
        from ..likelihood import Likelihood  # which derives from what this package holds

        return Likelihood() if samples is None else Likelihood(samples_per_image=samples)
    own = given.env_options().get("samples_per_image")
    if samples is not None and samples != own:
        raise OptionError(
            f"The environment has samples_per_image={samples}, but the algorithm {own}; leave it out of the "
            "environment, or give both the same."
        )
    return given


def _check_finite(metrics: dict[str, float], step: int) -> None:
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        raise FloatingPointError(
            f"{', '.join(bad)} not finite at step {step}; the last checkpoint is whole. Try a lower learning rate."
        )


def _unused(run_dir: str) -> str:
    """``run_dir``, or the first of ``run_dir-2``, ``run_dir-3``, … that does not exist yet."""
    number, path = 1, Path(run_dir)
    while path.exists():
        number += 1
        path = Path(f"{run_dir}-{number}")
    return str(path)
