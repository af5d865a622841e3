"""The judge of the leaderboard: runs an entry in its own process, counts queries, visits and time, and evaluates it.

Validation is evaluated at every report, and test once, when training has ended, by label maps of the last report's
predict. The entry is told about validation only.

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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from benchmarks.leaderboard.messages import BadMessage, Channel
from benchmarks.memory import PeakMemory
from benchmarks.processes import Processes
from benchmarks.tasks import FEW_VISITS, VISITS, Setting, Task
from rss_env.arguments import is_count, is_number
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
        status: ``"ok"``; ``"ok, "`` and a limit, if the entry was ended at that limit: its last report is the result;
            otherwise what went wrong in words.
        curve: at each report: reward_queries, seconds, and the metrics on val by ``val_NAME``.
        test: at the end, the metrics on test by ``test_NAME``; empty if there are none.
        queries: reward queries used.
        seconds: training time, evaluation not counted.
        mean_score: mean score of all label maps that were tried; None if there was none.
        label_maps: uint8 (SHOWN, H, W), of the first validation images at the last report; None if there was none.
        memory: peak memory of the process tree in MiB; None if it is not known.
        learning_rate: its peak, as a command has it or an entry says; None if it is not known.
        most_visits: how often the image that was shown most often was shown; None if it is not known.
    """

    status: str = "ok"
    curve: list[dict[str, float]] = field(default_factory=list)
    test: dict[str, float] = field(default_factory=dict)
    queries: int = 0
    seconds: float = 0.0
    mean_score: float | None = None
    label_maps: np.ndarray | None = None
    memory: float | None = None
    learning_rate: float | None = None
    most_visits: int | None = None


class Ended(Exception):
    """The trial is over; the message is the status."""


class Late(Ended):
    """The trial is over because of a limit; what was reported until then is the result."""


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
            raise Late(self.late)

    @property
    def left(self) -> float:
        """Seconds until the limit."""
        return self.limit - self.spent - (time.perf_counter() - self._began if self._entered else 0.0)


class Judge:
    """One trial.

    Args:
        path: the entry's file.
        setting: task, track and budget.
        seed: of the trial.
        seconds: longest training time; all reports together may take as long again, and at least a minute, and so may
            all answers of the judge, and the test at the end.
        processes: where the entry's process starts.
        log: file for what the entry prints.
    """

    def __init__(
        self, path: Path, setting: Setting, seed: int, seconds: float, processes: Processes, log: Path
    ) -> None:
        self.path, self.setting, self.task, self.seed = path, setting, setting.task, seed
        self.processes, self.log = processes, log
        self.verdict = Verdict()
        self.envs: Any = None
        self.samples = 1
        self.begun = False  # whether this environment was reset
        self.score_sum = 0.0
        allowed = max(REPORTING, seconds)
        self.training = Clock(seconds, f"over its time of {seconds:g} s")
        self.reporting = Clock(allowed, f"over the {allowed:g} s of its reports")
        self.answering = Clock(allowed, f"over the {allowed:g} s of its environments")
        self.testing = Clock(allowed, f"over the {allowed:g} s of its test")
        metadata = gym.make_vec(self.task.env_id, num_envs=1, **self.training_options).metadata
        self.num_classes = len(metadata["class_names"])
        self.visits = np.zeros(metadata["num_images"], np.int64)  # how often each image was shown
        self.visits_allowed = VISITS * metadata["num_images"] if setting.track == FEW_VISITS else None
        self.place = 0  # in the order of the images, few_visits: those before it were shown or skipped
        self.in_view = False  # whether images wait for label maps

    @property
    def training_options(self) -> dict[str, Any]:
        """Arguments of the environment that is learned in."""
        order = "epochs" if self.setting.track == FEW_VISITS else "random"
        return {"split": self.task.train_split, "order": order, **self.task.env_options}

    def run(self) -> Verdict:
        """Runs the entry until it ends, fails, or its time is over."""
        facts = {
            "task": self.task.name,
            "track": self.setting.track,
            "num_classes": self.num_classes,
            "image_size": self.task.image_size,
            "budget": self.setting.queries,
            "visits": self.visits_allowed,
            "seconds": self.training.limit,
            "seed": self.seed,
        }
        (ours, theirs), (mine, its) = socket.socketpair(), socket.socketpair()
        peak = PeakMemory()
        with ours, theirs, mine, its, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            self.channel, self.after = Channel(ours, self._is_gone), Channel(mine, self._is_gone)
            self.process = self.processes.start(
                "benchmarks.leaderboard.entry_process",
                [str(theirs.fileno()), str(its.fileno()), str(self.path.resolve()), json.dumps(facts)],
                self.log,
                pass_fds=[theirs.fileno(), its.fileno()],
                folder=Path(folder),
                variables={"RSS_CACHE_DIR": str(Path(folder, "cache")), "PWD": folder},  # which name no data
            )
            theirs.close()
            its.close()
            try:
                with peak.watching(self.process.pid):
                    self.verdict.status = readable(self._judge())
            finally:
                self.processes.end(self.process)
            if self.log.is_file() and self.log.stat().st_size > MAX_PRINTED:
                os.truncate(self.log, MAX_PRINTED)
        self.verdict.seconds = self.training.spent
        self.verdict.memory = peak.mebibytes
        self.verdict.most_visits = int(self.visits.max())
        if self.verdict.queries:
            self.verdict.mean_score = self.score_sum / self.verdict.queries
        return self.verdict

    def _judge(self) -> str:
        """Answers the entry until its training ends, and tests it; gives the status."""
        status = "ok"
        try:
            self._receive(Clock(STARTING, f"did not start within {STARTING:.0f} s"))
            while True:
                kind, value = self._receive(self.training)
                if kind == "done":
                    break
                self._answer(kind, value)
        except Late as end:
            if not self.verdict.curve:
                return str(end)
            status = f"ok, {end}"
        except Ended as end:
            return str(end)
        if not self.verdict.curve:
            return "never called trial.report()"
        try:
            self._test()
        except Ended as end:
            return f"{status.removeprefix('ok, ')}, and without a test" if status != "ok" else str(end)
        return status

    def _receive(self, clock: Clock, channel: Channel | None = None) -> tuple[str, Any]:
        """The entry's next message.

        Raises:
            Ended: none comes in time, it is not a message, or it says that the entry is at its end.
        """
        self._check_log()
        label_maps = max(REPORTED, self.envs.num_envs * self.samples if self.envs else 0)
        height, width = self.task.image_size
        try:
            with clock:
                kind, value = (channel or self.channel).receive(clock.left, 8 * label_maps * height * width + SPARE)
        except TimeoutError:
            raise Late(clock.late) from None
        except ConnectionError:
            raise Ended(self._death()) from None
        except BadMessage as error:
            raise Ended(f"sent what is no message: {error}") from None
        if kind == "raised":
            raise Ended(f"raised {value}")
        if kind == "forbidden":
            raise Ended(f"asked for targets: {value}")
        return kind, value

    def _send(self, clock: Clock, kind: str, value: Any = None, channel: Channel | None = None) -> None:
        try:
            with clock:
                (channel or self.channel).send(kind, value, clock.left)
        except TimeoutError:
            raise Late(clock.late) from None
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
        if kind == "report":
            self._report(value)
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
        if queries > self.setting.queries:
            raise Ended(f"make_envs: a step would cost {queries:,} queries of {self.setting.queries:,}")
        if self.visits_allowed is not None and num_envs > self.visits_allowed:
            raise Ended(f"make_envs: a step would show {num_envs:,} images of {self.visits_allowed:,} visits")
        try:
            self.envs = gym.make_vec(self.task.env_id, **self.training_options | options)
        except (OptionError, TypeError, ValueError) as error:
            raise Ended(f"make_envs: {error}") from None
        self.samples, self.in_view, self.begun = int(samples or 1), False, False
        metadata = {name: self.envs.metadata[name] for name in KNOWN}
        return "environment", {"map_shape": self.envs.single_action_space.shape, "metadata": metadata}

    def _reset(self, arguments: Any) -> tuple[str, Any]:
        if self.envs is None:
            raise Ended("reset() before make_envs()")
        try:
            seed, options = arguments
            if self.visits_allowed is None:
                images, infos = self.envs.reset(seed=seed, options=options)
                self._count(infos)
                return "images", (images, infos, None)
        except Exception as error:  # the entry may have given anything as seed and options
            raise Ended(f"reset: {error}") from None
        if options:
            raise Ended("reset: the track few_visits takes no options")
        first: dict[str, Any] = {}
        if not self.begun:  # goes on where the environment before it has ended, in whole steps
            step = -(-self.place // self.envs.num_envs)
            self.place = step * self.envs.num_envs
            first = {"seed": self.seed, "options": {"episode": step}}
        if not self._visits_pay():
            return "spent", "Fewer visits are left than images."
        self.begun = True
        images, infos = self.envs.reset(**first)
        self._count(infos)
        return "images", (images, without_index(infos), self._visits_left())

    def _visits_pay(self) -> bool:
        """Whether there are visits for the next images; if so, they are in view from now on."""
        assert self.visits_allowed is not None
        self.in_view = self.place + self.envs.num_envs <= self.visits_allowed
        return self.in_view

    def _count(self, infos: dict[str, Any]) -> None:
        """Counts the images that are in view, by what the environment says about them."""
        self.place += self.envs.num_envs
        np.add.at(self.visits, infos["index"], 1)
        if self.visits_allowed is not None and self.visits.max() > VISITS:
            raise RuntimeError(f"An image was shown {self.visits.max()} times in the track few_visits.")

    def _visits_left(self) -> int | None:
        return None if self.visits_allowed is None else max(0, self.visits_allowed - self.place)

    def _step(self, label_maps: Any) -> tuple[str, Any]:
        if self.envs is None:
            raise Ended("step() before make_envs()")
        if not isinstance(label_maps, np.ndarray):
            raise Ended("sent a step without label maps")
        queries = self.envs.num_envs * self.samples
        left = self.setting.queries - self.verdict.queries
        if queries > left:
            return "spent", f"{left} reward queries are left; this step needs more."
        few = self.visits_allowed is not None
        if few and self.begun and not self.in_view:
            return "spent", "Fewer visits are left than images, so none are shown."
        try:
            *result, infos = self.envs.step(label_maps)
        except (InvalidAction, ResetNeeded) as error:
            raise Ended(f"invalid label maps: {error}") from None
        self.verdict.queries += queries
        ended = infos["final_info"]
        self.score_sum += float(np.sum(ended["scores"] if "scores" in ended else result[1]))
        if not few:
            self._count(infos)
        else:
            if self._visits_pay():
                self._count(infos)
            else:
                result[0] = np.zeros_like(result[0])
            infos = without_index(infos) | {"final_info": without_index(ended)}
        infos |= {"final_obs": np.stack(infos["final_obs"])}
        return "result", (*result, infos, left - queries, self._visits_left())

    def _report(self, learning_rate: Any) -> None:
        if learning_rate is not None and not (is_number(learning_rate) and learning_rate > 0):
            raise Ended(f"report: trial.learning_rate must be a positive number, got {learning_rate!r}")
        if len(self.verdict.curve) == MAX_REPORTS:
            raise Ended(f"reported more than {MAX_REPORTS:,} times")
        metrics, self.verdict.label_maps = self._evaluate("val", self.reporting, self.channel)
        self.verdict.learning_rate = None if learning_rate is None else float(learning_rate)
        spent = {"reward_queries": self.verdict.queries, "seconds": round(self.training.spent, 2)}
        self.verdict.curve.append(spent | metrics)
        self._send(self.reporting, "metric", metrics[f"val_{self.task.metric}"])

    def _test(self) -> None:
        """Ends the training, also of an entry that does not listen, and evaluates its last report on test."""
        self._send(self.testing, "over", channel=self.after)
        self.verdict.test, _ = self._evaluate("test", self.testing, self.after)

    def _evaluate(self, split: str, clock: Clock, channel: Channel) -> tuple[dict[str, float], np.ndarray]:
        """Metrics of the label maps that the entry sends for a split, by name, and the first of them."""
        first: list[np.ndarray] = []

        def predict(images: np.ndarray) -> np.ndarray:
            self._send(clock, "images", images, channel)
            kind, label_maps = self._receive(clock, channel)
            if kind != "label maps" or not isinstance(label_maps, np.ndarray):
                raise Ended(f"sent {kind!r} in place of label maps")
            clock.check()
            first.append(label_maps)
            del first[1:]
            return label_maps

        try:
            with clock:
                metrics = measure(predict, self.task, split)
        except InvalidAction as error:
            raise Ended(f"invalid label maps in {'report' if split == 'val' else split}: {error}") from None
        return metrics, first[0][:SHOWN].astype(np.uint8)


def measure(predict: Callable[[np.ndarray], np.ndarray], task: Task, split: str) -> dict[str, float]:
    """Metrics of a function from images to label maps on a split: ``val_miou``, ``val_pixel_accuracy`` and so on.

    The mean score is there only where the task is ranked by it.
    """
    options: dict[str, Any] = {"split": split, "batch_size": REPORTED, "score": task.metric == "score"}
    if task.metric == "score":
        options["expose_target"] = True  # evaluation alone knows the targets of a world
    result = evaluate(predict, task.env_id, **options, **task.env_options)
    return {f"{split}_{name}": round(value, 5) for name, value in result.metrics.items()}


def without_index(infos: dict[str, Any]) -> dict[str, Any]:
    """Infos that do not say which images they are about."""
    return {name: value for name, value in infos.items() if name not in ("index", "_index")}


def succeeded(status: str) -> bool:
    """Whether a run with this status is ranked."""
    return status == "ok" or status.startswith("ok, ")


def readable(text: str) -> str:
    """What an entry said as a short line without control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:300]
