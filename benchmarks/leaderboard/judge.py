"""The judge of the leaderboard: runs an entry in its own process, counts queries and time, and evaluates it.

Whatever an entry sends is data (``benchmarks.leaderboard.messages``), and every wait for it has a limit.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from benchmarks.leaderboard.arenas import Arena
from benchmarks.leaderboard.messages import BadMessage, Channel
from benchmarks.processes import Processes
from rss_env.arguments import is_count
from rss_env.errors import InvalidAction, OptionError, ResetNeeded
from rss_env.evaluation import evaluate

SHOWN = 4  # validation images whose label maps are kept
REPORTED = 16  # validation images in one message
MAKE_OPTIONS = {"num_envs", "samples_per_image", "augment"}
KNOWN = (
    "class_names",
    "palette",
    "num_images",
    "resize",
    "samples_per_image",
    "reward_level",
    "reward",
    "reward_options",
)
STARTING = 120.0  # seconds that the process of an entry may take before the entry itself begins
REPORTING = 60.0  # seconds that the reports of a trial may always take, and the answers of the judge
DYING = 5.0  # seconds that a process which has closed its socket may take to end
MAX_REPORTS = 1000
MAX_PRINTED = 64 << 20  # bytes
SPARE = 1 << 20  # bytes that an entry's arrays may have beyond the largest that are asked for, to be told what is wrong


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


class Clock:
    """A part of a trial's time, counted while it is entered, once or several times over.

    Args:
        limit: seconds.
        late: status of a trial that takes longer.
    """

    def __init__(self, limit: float, late: str) -> None:
        self.limit, self.late = limit, late
        self.spent = 0.0
        self._entered = 0
        self._began = math.nan

    def __enter__(self) -> None:
        if not self._entered:
            self._began = time.perf_counter()
        self._entered += 1

    def __exit__(self, *_: object) -> None:
        self._entered -= 1
        if not self._entered:
            self.spent += time.perf_counter() - self._began

    def check(self) -> None:
        """Ends a trial that is late."""
        if self.left < 0:
            raise Ended(self.late)

    @property
    def left(self) -> float:
        """Seconds until the limit."""
        return self.limit - self.spent - (time.perf_counter() - self._began if self._entered else 0.0)


class Judge:
    """One trial.

    Args:
        path: the entry's file.
        arena: environment and budget.
        seed: of the trial.
        seconds: longest training time; all reports together may take as long again, and at least a minute, and so may
            all answers of the judge.
        processes: where the entry's process starts.
        log: file for what the entry prints.
    """

    def __init__(self, path: Path, arena: Arena, seed: int, seconds: float, processes: Processes, log: Path) -> None:
        self.path, self.arena, self.seed = path, arena, seed
        self.processes, self.log = processes, log
        self.verdict = Verdict()
        self.envs: Any = None
        self.samples = 1
        self.score_sum = 0.0
        allowed = max(REPORTING, seconds)
        self.training = Clock(seconds, f"over its time of {seconds:g} s")
        self.reporting = Clock(allowed, f"over the {allowed:g} s of its reports")
        self.answering = Clock(allowed, f"over the {allowed:g} s of its environments")
        self.num_classes = len(gym.make_vec(arena.env_id, num_envs=1, **arena.env_options).metadata["class_names"])

    def run(self) -> Verdict:
        """Runs the entry until it ends, fails, or its time is over."""
        facts = {
            "environment": self.arena.name,
            "num_classes": self.num_classes,
            "image_size": self.arena.image_size,
            "budget": self.arena.budget,
            "seconds": self.training.limit,
            "seed": self.seed,
        }
        ours, theirs = socket.socketpair()
        with ours, theirs, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            self.channel = Channel(ours, self._is_gone)
            self.process = self.processes.start(
                "benchmarks.leaderboard.entry_process",
                [str(theirs.fileno()), str(self.path.resolve()), json.dumps(facts)],
                self.log,
                pass_fds=[theirs.fileno()],
                folder=Path(folder),
                variables={"RSS_CACHE_DIR": str(Path(folder, "cache")), "PWD": folder},  # which name no data
            )
            theirs.close()
            try:
                self._receive(Clock(STARTING, f"did not start within {STARTING:.0f} s"))
                while True:
                    self._answer(*self._receive(self.training))
            except Ended as end:
                self.verdict.status = readable(str(end))
            finally:
                self.processes.end(self.process)
            if self.log.is_file() and self.log.stat().st_size > MAX_PRINTED:
                os.truncate(self.log, MAX_PRINTED)
        self.verdict.seconds = self.training.spent
        if self.verdict.status == "ok" and not self.verdict.curve:
            self.verdict.status = "never called trial.report()"
        if self.verdict.queries:
            self.verdict.mean_score = self.score_sum / self.verdict.queries
        return self.verdict

    def _receive(self, clock: Clock) -> tuple[str, Any]:
        """The entry's next message.

        Raises:
            Ended: none comes in time, it is not a message, or it says that the entry is at its end.
        """
        self._check_log()
        label_maps = max(REPORTED, self.envs.num_envs * self.samples if self.envs else 0)
        height, width = self.arena.image_size
        try:
            with clock:
                kind, value = self.channel.receive(clock.left, 8 * label_maps * height * width + SPARE)
        except TimeoutError:
            raise Ended(clock.late) from None
        except ConnectionError:
            raise Ended(self._death()) from None
        except BadMessage as error:
            raise Ended(f"sent what is no message: {error}") from None
        if kind == "raised":
            raise Ended(f"raised {value}")
        if kind == "forbidden":
            raise Ended(f"asked for targets: {value}")
        return kind, value

    def _send(self, clock: Clock, kind: str, value: Any = None) -> None:
        try:
            with clock:
                self.channel.send(kind, value, clock.left)
        except TimeoutError:
            raise Ended(clock.late) from None
        except ConnectionError:
            raise Ended(self._death()) from None

    def _is_gone(self) -> bool:
        self._check_log()
        return self.process.poll() is not None

    def _check_log(self) -> None:
        try:
            printed = self.log.stat().st_size
        except OSError:
            raise Ended("removed its log") from None
        if printed > MAX_PRINTED:
            raise Ended(f"printed more than {MAX_PRINTED >> 20} MiB")

    def _death(self) -> str:
        try:
            code = self.process.wait(timeout=DYING)
        except subprocess.TimeoutExpired:
            return "closed the pipe to the judge"
        if code >= 0:
            return f"its process died (exit code {code})"
        names = {number.value: number.name for number in signal.Signals}  # those of real time have none
        return f"its process died ({names.get(-code, f'signal {-code}')})"

    def _answer(self, kind: str, value: Any) -> None:
        if kind == "done":
            raise Ended("ok")
        if kind == "report":
            self._report()
            return
        answers = {"make": self._make, "reset": self._reset, "step": self._step}
        if kind not in answers:
            raise Ended(f"sent an unknown message {kind!r}")
        with self.answering:
            answer = answers[kind](value)
        self.answering.check()
        self._send(self.training, *answer)

    def _make(self, options: Any) -> tuple[str, Any]:
        if not isinstance(options, dict):
            raise Ended(f"make_envs: expected options, got {type(options).__name__}")
        foreign = sorted(options.keys() - MAKE_OPTIONS)
        if foreign:
            raise Ended(f"asked for targets: {', '.join(foreign)}")
        num_envs, samples = options.get("num_envs", 1), options.get("samples_per_image")
        for name, number in (("num_envs", num_envs), ("samples_per_image", 1 if samples is None else samples)):
            if not is_count(number):
                raise Ended(f"make_envs: {name} must be an integer of at least 1, got {number!r}")
        queries = int(num_envs) * int(samples or 1)
        if queries > self.arena.budget:
            raise Ended(f"make_envs: a step would cost {queries:,} queries of {self.arena.budget:,}")
        try:
            self.envs = gym.make_vec(self.arena.env_id, **self.arena.env_options | options)
        except (OptionError, TypeError, ValueError) as error:
            raise Ended(f"make_envs: {error}") from None
        self.samples = int(samples or 1)
        metadata = {name: self.envs.metadata[name] for name in KNOWN}
        return "environment", {"map_shape": self.envs.single_action_space.shape, "metadata": metadata}

    def _reset(self, arguments: Any) -> tuple[str, Any]:
        if self.envs is None:
            raise Ended("reset() before make_envs()")
        try:
            seed, options = arguments
            return "images", self.envs.reset(seed=seed, options=options)
        except Exception as error:  # the entry may have given anything as seed and options
            raise Ended(f"reset: {error}") from None

    def _step(self, label_maps: Any) -> tuple[str, Any]:
        if self.envs is None:
            raise Ended("step() before make_envs()")
        if not isinstance(label_maps, np.ndarray):
            raise Ended("sent a step without label maps")
        queries = self.envs.num_envs * self.samples
        left = self.arena.budget - self.verdict.queries
        if queries > left:
            return "spent", left
        try:
            *result, infos = self.envs.step(label_maps)
        except (InvalidAction, ResetNeeded) as error:
            raise Ended(f"invalid label maps: {error}") from None
        self.verdict.queries += queries
        ended = infos["final_info"]
        self.score_sum += float(np.sum(ended["scores"] if "scores" in ended else result[1]))
        return "result", (*result, infos | {"final_obs": np.stack(infos["final_obs"])}, left - queries)

    def _report(self) -> None:
        if len(self.verdict.curve) == MAX_REPORTS:
            raise Ended(f"reported more than {MAX_REPORTS:,} times")
        first: list[np.ndarray] = []

        def predict(images: np.ndarray) -> np.ndarray:
            self._send(self.reporting, "images", images)
            kind, label_maps = self._receive(self.reporting)
            if kind != "label maps" or not isinstance(label_maps, np.ndarray):
                raise Ended(f"sent {kind!r} in place of label maps")
            self.reporting.check()
            first.append(label_maps)
            del first[1:]
            return label_maps

        options: dict[str, Any] = {"split": "val", "batch_size": REPORTED} | self.arena.env_options
        try:
            with self.reporting:
                result = evaluate(predict, self.arena.env_id, **options)
        except InvalidAction as error:
            raise Ended(f"invalid label maps in report: {error}") from None
        self.verdict.curve.append(
            {
                "reward_queries": self.verdict.queries,
                "seconds": round(self.training.spent, 2),
                "val_miou": round(result.metrics["miou"], 5),
                "val_pixel_accuracy": round(result.metrics["pixel_accuracy"], 5),
            }
        )
        self.verdict.label_maps = first[0][:SHOWN].astype(np.uint8)
        self._send(self.reporting, "miou", result.miou)


def readable(text: str) -> str:
    """What an entry said as a short line without control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:300]
