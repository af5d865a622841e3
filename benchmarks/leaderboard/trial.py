"""What an entry of the leaderboard gets: environments without targets, a budget of reward queries, and a judge.

An entry is a Python file with a function ``train(trial)``:

    def train(trial):
        envs = trial.make_envs(num_envs=8, samples_per_image=4)
        images, infos = envs.reset(seed=trial.seed)
        while trial.queries_left >= 8 * 4:
            label_maps = ...                                     # integers (8, 4, H, W)
            images, rewards, terminated, truncated, infos = envs.step(label_maps)
            ...
            trial.report(predict)                                # whenever a point of the learning curve is due
        trial.report(predict)                                    # the last report is the result

When ``train`` has returned, the judge asks the predict of the last report for label maps of the test images, once.

It runs in its own process (``benchmarks.leaderboard.entry_process``). The environments and the data sets live in the
process of the judge, and images, label maps and scores are all that goes to and fro, so there are no targets here to
read; asking for them ends the trial with a row that says so.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np

from benchmarks.leaderboard.messages import Channel, uncopied
from rss_env.errors import InvalidAction
from rss_env.spaces import batched_space, label_map_space

Predict = Callable[[np.ndarray], np.ndarray]


class BudgetSpent(RuntimeError):
    """More reward queries or visits are asked for than are left. An entry that does not catch it ends in good order."""


class TrialEnded(RuntimeError):
    """The judge ended the trial, for the reason in the entry's row."""


class Trial:
    """One run of an entry on one environment.

    Threads may share it, they take turns; other processes may not.

    Args:
        stream: socket to the judge.
        facts: the attributes below, as the judge sends them.

    Attributes:
        task: name of the task.
        track: ``"revisited"``, or ``"few_visits"``: images come a few times only and have no index.
        num_classes: C.
        image_size: height and width in pixels.
        budget: reward queries in all.
        seconds: training time in all, evaluation not counted.
        seed: of everything random.
        queries_left: reward queries that are left.
        visits: how many images may be shown in all, the same one again counted again; None: no limit.
        visits_left: of these, how many are left.
        learning_rate: the peak of its schedule, for the rows of results, which an entry may set; None if it has none.
        reported: predict of the last report; None before the first.
    """

    def __init__(self, stream: socket.socket, facts: dict[str, Any]) -> None:
        self.task: str = facts["task"]
        self.track: str = facts["track"]
        self.num_classes: int = facts["num_classes"]
        height, width = facts["image_size"]
        self.image_size: tuple[int, int] = (height, width)
        self.budget: int = facts["budget"]
        self.seconds: float = facts["seconds"]
        self.seed: int = facts["seed"]
        self.queries_left = self.budget
        self.visits: int | None = facts["visits"]
        self.visits_left = self.visits
        self.learning_rate: float | None = None
        self.reported: Predict | None = None
        self._channel = Channel(stream)
        self._process = os.getpid()
        self._lock = threading.RLock()  # held from a question to its answer
        self._predicting = False

    def make_envs(self, num_envs: int = 8, samples_per_image: int | None = None, augment: str = "none") -> TrialEnvs:
        """The training images as a vector environment; a second call replaces the first environment.

        In the track few_visits the images of a second environment follow on those of the first.

        Args:
            num_envs: images a step.
            samples_per_image: K; then actions are (num_envs, K, H, W) and ``infos["final_info"]["scores"]`` the scores.
            augment: ``"none"`` or ``"flip"``.
        """
        options = {"num_envs": num_envs, "samples_per_image": samples_per_image, "augment": augment}
        return TrialEnvs(self, num_envs, self.ask("make", options))

    def steps_left(self, num_envs: int, samples_per_image: int = 1) -> int:
        """How many steps of so many images and label maps an image the queries and visits that are left pay for.

        Images that ``reset`` has shown are visits already, so it is asked before them.
        """
        steps = self.queries_left // (num_envs * samples_per_image)
        return steps if self.visits_left is None else min(steps, self.visits_left // num_envs)

    def report(self, predict: Predict) -> float:
        """Evaluates label maps of the validation images; the clock is stopped meanwhile. The last report is the result.

        Args:
            predict: uint8 images (B, H, W, 3) -> integer label maps (B, H, W); it may not use the trial.

        Returns:
            mIoU on the validation split, 0..1, or the mean score where the task is ranked by that; for choosing, such
            as when to stop. The test split stays with the judge.
        """
        with self._lock:
            kind, value = self._exchange("report", self.learning_rate)
            while kind == "images":
                self._predicting = True
                try:
                    label_maps = as_label_maps(predict(value))
                finally:
                    self._predicting = False
                kind, value = self._exchange("label maps", label_maps)
            self.reported = predict
            return value

    def answer_tests(self, stream: Channel) -> None:
        """Gives label maps by the predict of the last report for the images that the judge sends, until it closes."""
        assert self.reported is not None
        self._predicting = True
        with suppress(ConnectionError):
            while True:
                _, images = stream.receive()
                stream.send("label maps", as_label_maps(self.reported(images)))

    def ask(self, kind: str, value: Any = None) -> Any:
        """Sends a message to the judge and returns the answer.

        Raises:
            BudgetSpent: no queries are left for this step.
            TrialEnded: the trial is over.
        """
        with self._lock:
            return self._exchange(kind, value)[1]

    def tell(self, kind: str, value: Any = None) -> None:
        """Sends a message that the judge does not answer.

        Raises:
            TrialEnded: the trial is over.
        """
        with self._lock:
            self._send(kind, value)

    def _send(self, kind: str, value: Any) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("The trial and its environment are for the process of train(trial), not its workers.")
        if self._predicting and kind != "forbidden":
            raise RuntimeError("predict cannot use the trial or its environment: the clock stands still for it.")
        try:
            self._channel.send(kind, value)
        except ConnectionError:
            raise TrialEnded("The judge has ended the trial.") from None

    def _exchange(self, kind: str, value: Any) -> tuple[str, Any]:
        self._send(kind, value)
        try:
            kind, value = self._channel.receive()
        except ConnectionError:
            raise TrialEnded("The judge has ended the trial.") from None
        if kind == "spent":
            raise BudgetSpent(value)
        return kind, value

    __reduce_ex__ = uncopied


class TrialEnvs(gym.vector.VectorEnv):
    """The judge's vector environment, seen through the pipe: reset, step, spaces and metadata, in SAME_STEP mode."""

    def __init__(self, trial: Trial, num_envs: int, about: dict[str, Any]) -> None:
        self._trial = trial
        self.num_envs = num_envs
        metadata = about["metadata"]
        self.metadata = metadata | {
            "autoreset_mode": gym.vector.AutoresetMode.SAME_STEP,
            "class_names": tuple(metadata["class_names"]),
            "palette": tuple(map(tuple, metadata["palette"])),
        }
        self.single_observation_space = gym.spaces.Box(0, 255, (*trial.image_size, 3), np.uint8)
        self.single_action_space = label_map_space(tuple(about["map_shape"]), trial.num_classes)
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = batched_space(self.single_action_space, num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """The next images, uint8 (num_envs, H, W, 3).

        Raises:
            BudgetSpent: in the track few_visits, fewer visits are left than images.
        """
        images, infos, self._trial.visits_left = self._trial.ask("reset", (seed, options))
        return images, infos

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Scores label maps, integers (num_envs, H, W) or (num_envs, K, H, W); every one costs a reward query.

        In the track few_visits the images that follow are black when fewer visits are left than images.

        Raises:
            BudgetSpent: fewer queries are left than label maps, or the images are the black ones.
        """
        answer = self._trial.ask("step", as_label_maps(actions))
        images, rewards, terminated, truncated, infos, self._trial.queries_left, self._trial.visits_left = answer
        final = np.empty(self.num_envs, object)  # as Gymnasium passes on the last observations of episodes
        for b, image in enumerate(infos["final_obs"]):
            final[b] = image
        return images, rewards, terminated, truncated, infos | {"final_obs": final}

    def __getattr__(self, name: str) -> Any:
        if name in ("_task", "task", "dataset", "envs", "targets"):
            self._trial.ask("forbidden", f"envs.{name}")
        raise AttributeError(f"The environment of a trial has no {name!r}.")

    __reduce_ex__ = uncopied


def as_label_maps(label_maps: Any) -> np.ndarray:
    """Label maps as an array that can be sent; the judge sees to the rest of their form."""
    array = np.asarray(label_maps)
    if array.dtype.kind not in "biuf":
        raise InvalidAction(f"A label map must have an integer dtype, got {array.dtype}.")
    return array
