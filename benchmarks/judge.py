"""The judge of the leaderboard: runs an entry in a process of its own, counts queries and time, and evaluates it."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from benchmarks.trial import run_entry
from rss_env.errors import InvalidAction, OptionError, ResetNeeded
from rss_env.evaluation import evaluate

SHOWN = 4  # validation images whose label maps are kept
MAKE_OPTIONS = {"num_envs", "samples_per_image", "augment"}


@dataclass(frozen=True)
class Arena:
    """An environment of the leaderboard with its fixed budget.

    Attributes:
        name: of the environment in results.
        env_id: id.
        image_size: height and width in pixels.
        budget: reward queries.
        options: further arguments of the environment.
    """

    name: str
    env_id: str
    image_size: tuple[int, int]
    budget: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def env_options(self) -> dict[str, Any]:
        """Arguments of the environment, but for the split."""
        return {"image_size": self.image_size} | self.options


@dataclass
class Verdict:
    """How a trial went.

    Attributes:
        status: ``"ok"``, or what went wrong in words.
        curve: at each report: reward queries, seconds, val_miou, val_pixel_accuracy.
        queries: reward queries used.
        seconds: training time, evaluation not counted.
        mean_score: mean score of all label maps that were tried; None if there was none.
    """

    status: str = "ok"
    curve: list[dict[str, float]] = field(default_factory=list)
    queries: int = 0
    seconds: float = 0.0
    mean_score: float | None = None
    label_maps: np.ndarray | None = None  # uint8 (SHOWN, H, W): of the first validation images at the last report


class Ended(Exception):
    """The trial is over; the message is the status."""


class Judge:
    """One trial.

    Args:
        path: the entry's file.
        arena: environment and budget.
        seed: of the trial.
        seconds: most training time.
    """

    def __init__(self, path: Path, arena: Arena, seed: int, seconds: float) -> None:
        self.path, self.arena, self.seed, self.limit = path, arena, seed, seconds
        self.verdict = Verdict()
        self.envs: gym.vector.VectorEnv | None = None
        self.samples = 1
        self.score_sum = 0.0
        probe: Any = gym.make_vec(arena.env_id, num_envs=1, **arena.env_options).unwrapped
        self.num_classes = probe.task.dataset.num_classes

    def run(self) -> Verdict:
        """Runs the entry until it ends, fails, or its time is over."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        facts = {
            "environment": self.arena.name,
            "num_classes": self.num_classes,
            "image_size": self.arena.image_size,
            "budget": self.arena.budget,
            "seconds": self.limit,
            "seed": self.seed,
        }
        process = context.Process(target=run_entry, args=(theirs, str(self.path), facts), daemon=True)
        process.start()
        theirs.close()
        try:
            self._receive()  # ready: importing is not training
            self.verdict.seconds = 0.0
            while True:
                kind, value = self._receive()
                self._answer(kind, value)
        except Ended as end:
            self.verdict.status = str(end)
        finally:
            process.kill()
            process.join()
        if self.verdict.status == "ok" and not self.verdict.curve:
            self.verdict.status = "never called trial.report()"
        if self.verdict.queries:
            self.verdict.mean_score = self.score_sum / self.verdict.queries
        return self.verdict

    def _receive(self) -> tuple[str, Any]:
        """The entry's next message; the time until it comes is the entry's."""
        began = time.perf_counter()
        left = self.limit - self.verdict.seconds
        arrived = self.pipe.poll(max(0.0, left))
        self.verdict.seconds += time.perf_counter() - began
        if not arrived:
            raise Ended(f"over its time of {self.limit:.0f} s")
        try:
            return self.pipe.recv()
        except EOFError:
            raise Ended("its process died") from None

    def _answer(self, kind: str, value: Any) -> None:
        if kind == "done":
            raise Ended("ok")
        if kind == "raised":
            raise Ended(f"raised {value}")
        if kind == "forbidden":
            self._end(f"asked for targets: {value}")
        elif kind == "make":
            self._make(value)
        elif kind == "reset":
            self._reset(*value)
        elif kind == "step":
            self._step(value)
        elif kind == "report":
            self._report()
        else:
            self._end(f"sent an unknown message {kind!r}")

    def _end(self, status: str) -> None:
        self.pipe.send(("ended", status))
        raise Ended(status)

    def _make(self, options: dict[str, Any]) -> None:
        foreign = sorted(set(options) - MAKE_OPTIONS)
        if foreign:
            self._end(f"asked for targets: {', '.join(foreign)}")
        try:
            self.envs = gym.make_vec(self.arena.env_id, **self.arena.env_options | options)
        except (OptionError, TypeError, ValueError) as error:
            self._end(f"make_envs: {error}")
        assert self.envs is not None
        self.samples = options["samples_per_image"] or 1
        self.pipe.send(("spaces", (self.envs.single_observation_space, self.envs.single_action_space)))

    def _reset(self, seed: Any, options: dict[str, Any] | None) -> None:
        if self.envs is None:
            self._end("reset() before make_envs()")
        assert self.envs is not None
        try:
            self.pipe.send(("images", self.envs.reset(seed=seed, options=options)))
        except (OptionError, TypeError, ValueError) as error:
            self._end(f"reset: {error}")

    def _step(self, label_maps: np.ndarray) -> None:
        if self.envs is None:
            self._end("step() before make_envs()")
        assert self.envs is not None
        queries = self.envs.num_envs * self.samples
        left = self.arena.budget - self.verdict.queries
        if queries > left:
            self.pipe.send(("spent", left))
            return
        try:
            result = self.envs.step(label_maps)
        except (InvalidAction, ResetNeeded) as error:
            self._end(f"invalid label maps: {error}")
        self.verdict.queries += queries
        ended = result[4]["final_info"]
        self.score_sum += float(np.sum(ended["scores"] if "scores" in ended else result[1]))
        self.pipe.send(("result", (*result, left - queries)))

    def _report(self) -> None:
        def predict(images: np.ndarray) -> np.ndarray:
            self.pipe.send(("images", images))
            if not self.pipe.poll(max(60.0, self.limit)):
                raise Ended("over its time in predict")
            try:
                kind, value = self.pipe.recv()
            except EOFError:
                raise Ended("its process died") from None
            if kind != "label maps":
                raise Ended(f"raised {value}" if kind == "raised" else f"sent {kind!r} in place of label maps")
            batches.append(value)
            return value

        batches: list[np.ndarray] = []
        try:
            result = evaluate(predict, self.arena.env_id, split="val", **self.arena.env_options)
        except InvalidAction as error:
            self._end(f"invalid label maps in report: {error}")
        self.verdict.curve.append(
            {
                "reward_queries": self.verdict.queries,
                "seconds": round(self.verdict.seconds, 2),
                "val_miou": round(result.miou, 5),
                "val_pixel_accuracy": round(result.pixel_accuracy, 5),
            }
        )
        self.verdict.label_maps = batches[0][:SHOWN].astype(np.uint8)
        self.pipe.send(("miou", result.miou))
