"""The judge of the leaderboard: runs an entry in its own process, counts queries and time, and evaluates it."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np

from benchmarks.leaderboard.arenas import Arena
from benchmarks.processes import Processes
from rss_env.arguments import is_count
from rss_env.errors import InvalidAction, OptionError, ResetNeeded
from rss_env.evaluation import evaluate

SHOWN = 4  # validation images whose label maps are kept
MAKE_OPTIONS = {"num_envs", "samples_per_image", "augment"}
STARTING = 120.0  # seconds that the process of an entry may take before the entry itself begins
REPORTING = 60.0  # seconds that the reports of a trial may always take


@dataclass
class Verdict:
    """How a trial went.

    Attributes:
        status: ``"ok"``, or what went wrong in words.
        curve: at each report: reward queries, seconds, val_miou, val_pixel_accuracy.
        queries: reward queries used.
        seconds: training time, evaluation not counted.
        mean_score: mean score of all label maps that were tried; None if there was none.
        label_maps: uint8 (SHOWN, H, W), of the first validation images at the last report; None if there was none.
    """

    status: str = "ok"
    curve: list[dict[str, float]] = field(default_factory=list)
    queries: int = 0
    seconds: float = 0.0
    mean_score: float | None = None
    label_maps: np.ndarray | None = None


class Ended(Exception):
    """The trial is over; the message is the status."""


class Judge:
    """One trial.

    Args:
        path: the entry's file.
        arena: environment and budget.
        seed: of the trial.
        seconds: longest training time; all reports together may take as long again, and at least a minute.
        processes: where the entry's process starts.
        log: file for what the entry prints.
    """

    def __init__(self, path: Path, arena: Arena, seed: int, seconds: float, processes: Processes, log: Path) -> None:
        self.path, self.arena, self.seed, self.limit = path, arena, seed, seconds
        self.processes, self.log = processes, log
        self.verdict = Verdict()
        self.envs: Any = None
        self.samples = 1
        self.score_sum = 0.0
        self.reporting = 0.0  # seconds of all reports
        self.num_classes = len(gym.make_vec(arena.env_id, num_envs=1, **arena.env_options).metadata["class_names"])

    def run(self) -> Verdict:
        """Runs the entry until it ends, fails, or its time is over."""
        facts = {
            "environment": self.arena.name,
            "num_classes": self.num_classes,
            "image_size": self.arena.image_size,
            "budget": self.arena.budget,
            "seconds": self.limit,
            "seed": self.seed,
        }
        self.pipe, theirs = multiprocessing.Pipe()
        with self.pipe, theirs:
            words = [str(theirs.fileno()), str(self.path.resolve()), json.dumps(facts)]
            self.process = self.processes.start(
                "benchmarks.leaderboard.entry_process", words, self.log, pass_fds=[theirs.fileno()]
            )
            theirs.close()
            try:
                self._receive(STARTING, f"did not start within {STARTING:.0f} s")
                while True:
                    began = time.perf_counter()
                    left = self.limit - self.verdict.seconds
                    try:
                        kind, value = self._receive(left, f"over its time of {self.limit:g} s")
                    finally:
                        self.verdict.seconds += time.perf_counter() - began
                    self._answer(kind, value)
            except Ended as end:
                self.verdict.status = str(end)
            finally:
                self.processes.end(self.process)
        if self.verdict.status == "ok" and not self.verdict.curve:
            self.verdict.status = "never called trial.report()"
        if self.verdict.queries:
            self.verdict.mean_score = self.score_sum / self.verdict.queries
        return self.verdict

    def _receive(self, seconds: float, late: str) -> tuple[str, Any]:
        """The entry's next message.

        Raises:
            Ended: none comes in time, or it is not a message.
        """
        until = time.perf_counter() + seconds
        try:
            while not self.pipe.poll(min(0.5, max(0.0, until - time.perf_counter()))):
                if self.process.poll() is not None and not self.pipe.poll():  # what it started may hold the pipe open
                    raise EOFError
                if time.perf_counter() >= until:
                    raise Ended(late)
            message = self.pipe.recv()
        except (EOFError, OSError):
            raise Ended(self._death()) from None
        except Ended:
            raise
        except Exception as error:  # unpickling runs what the entry sent
            raise Ended(f"sent what cannot be read: {type(error).__name__}") from None
        if not (isinstance(message, tuple) and len(message) == 2 and isinstance(message[0], str)):
            raise Ended("sent what is no message")
        return message

    def _send(self, message: tuple[str, Any]) -> None:
        try:
            self.pipe.send(message)
        except OSError:
            raise Ended(self._death()) from None

    def _death(self) -> str:
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed the pipe to the judge"
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        return f"its process died ({how})"

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
            self._reset(value)
        elif kind == "step":
            self._step(value)
        elif kind == "report":
            self._report()
        else:
            self._end(f"sent an unknown message {kind!r}")

    def _end(self, status: str) -> NoReturn:
        self._send(("ended", status))
        raise Ended(status)

    def _make(self, options: Any) -> None:
        if not isinstance(options, dict):
            self._end(f"make_envs: expected options, got {type(options).__name__}")
        foreign = sorted(str(name) for name in set(options) - MAKE_OPTIONS)
        if foreign:
            self._end(f"asked for targets: {', '.join(foreign)}")
        num_envs, samples = options.get("num_envs", 1), options.get("samples_per_image")
        for name, number in (("num_envs", num_envs), ("samples_per_image", 1 if samples is None else samples)):
            if not is_count(number):
                self._end(f"make_envs: {name} must be an integer of at least 1, got {number!r}")
        queries = int(num_envs) * int(samples or 1)
        if queries > self.arena.budget:
            self._end(f"make_envs: a step would cost {queries:,} queries of {self.arena.budget:,}")
        try:
            self.envs = gym.make_vec(self.arena.env_id, **self.arena.env_options | options)
        except (OptionError, TypeError, ValueError) as error:
            self._end(f"make_envs: {error}")
        self.samples = int(samples or 1)
        self._send(("spaces", (self.envs.single_observation_space, self.envs.single_action_space)))

    def _reset(self, arguments: Any) -> None:
        if self.envs is None:
            self._end("reset() before make_envs()")
        try:
            seed, options = arguments
            result = self.envs.reset(seed=seed, options=options)
        except Exception as error:  # the entry may have given anything as seed and options
            self._end(f"reset: {error}")
        self._send(("images", result))

    def _step(self, label_maps: Any) -> None:
        if self.envs is None:
            self._end("step() before make_envs()")
        queries = self.envs.num_envs * self.samples
        left = self.arena.budget - self.verdict.queries
        if queries > left:
            self._send(("spent", left))
            return
        try:
            result = self.envs.step(label_maps)
        except (InvalidAction, ResetNeeded) as error:
            self._end(f"invalid label maps: {error}")
        self.verdict.queries += queries
        ended = result[4]["final_info"]
        self.score_sum += float(np.sum(ended["scores"] if "scores" in ended else result[1]))
        self._send(("result", (*result, left - queries)))

    def _report(self) -> None:
        began = time.perf_counter()
        allowed = max(REPORTING, self.limit)
        first: list[np.ndarray] = []

        def predict(images: np.ndarray) -> np.ndarray:
            left = allowed - self.reporting - (time.perf_counter() - began)
            if left <= 0:
                raise Ended(f"over the {allowed:g} s of its reports")
            self._send(("images", images))
            kind, value = self._receive(left, f"over the {allowed:g} s of its reports")
            if kind == "raised":
                raise Ended(f"raised {value}")
            if kind == "forbidden":
                raise Ended(f"asked for targets: {value}")
            if kind != "label maps":
                raise Ended(f"sent {kind!r} in place of label maps")
            first.append(value)
            del first[1:]
            return value

        try:
            result = evaluate(predict, self.arena.env_id, split="val", **self.arena.env_options)
        except InvalidAction as error:
            self._end(f"invalid label maps in report: {error}")
        self.reporting += time.perf_counter() - began
        self.verdict.curve.append(
            {
                "reward_queries": self.verdict.queries,
                "seconds": round(self.verdict.seconds, 2),
                "val_miou": round(result.miou, 5),
                "val_pixel_accuracy": round(result.pixel_accuracy, 5),
            }
        )
        self.verdict.label_maps = first[0][:SHOWN].astype(np.uint8)
        self._send(("miou", result.miou))
