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

It runs in its own process (``benchmarks.leaderboard.entry_process``). The environments and the data sets live in the
process of the judge, behind a pipe, so there are no targets here to read; asking for them ends the trial with a row
that says so.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
import numpy as np

Predict = Callable[[np.ndarray], np.ndarray]


class BudgetSpent(RuntimeError):
    """The step asks for more reward queries than are left. An entry that does not catch it ends in good order."""


class TrialEnded(RuntimeError):
    """The judge ended the trial, for the reason in the entry's row."""


class Trial:
    """One run of an entry on one environment.

    Args:
        pipe: connection to the judge.
        facts: the attributes below, as the judge sends them.

    Attributes:
        environment: name of the environment.
        num_classes: C.
        image_size: height and width in pixels.
        budget: reward queries in all.
        seconds: training time in all, evaluation not counted.
        seed: of everything random.
        queries_left: reward queries that are left.
    """

    def __init__(self, pipe: Connection, facts: dict[str, Any]) -> None:
        self.environment: str = facts["environment"]
        self.num_classes: int = facts["num_classes"]
        height, width = facts["image_size"]
        self.image_size: tuple[int, int] = (height, width)
        self.budget: int = facts["budget"]
        self.seconds: float = facts["seconds"]
        self.seed: int = facts["seed"]
        self.queries_left = self.budget
        self._pipe = pipe

    def make_envs(self, num_envs: int = 8, samples_per_image: int | None = None, augment: str = "none") -> TrialEnvs:
        """The training images as a vector environment; a second call replaces the first environment.

        Args:
            num_envs: images a step.
            samples_per_image: K; then actions are (num_envs, K, H, W) and ``infos["final_info"]["scores"]`` the scores.
            augment: ``"none"`` or ``"flip"``.
        """
        options = {"num_envs": num_envs, "samples_per_image": samples_per_image, "augment": augment}
        return TrialEnvs(self, num_envs, *self.ask("make", options))

    def report(self, predict: Predict) -> float:
        """Evaluates label maps of the validation images; the clock is stopped meanwhile.

        Args:
            predict: uint8 images (B, H, W, 3) -> integer label maps (B, H, W).

        Returns:
            mIoU, 0..1: only for monitoring; nothing may be learned from it.
        """
        self._pipe.send(("report", None))
        while True:
            kind, value = self._receive()
            if kind == "miou":
                return value
            self._pipe.send(("label maps", np.asarray(predict(value))))

    def ask(self, kind: str, value: Any) -> Any:
        """Sends a message to the judge and returns the answer.

        Raises:
            BudgetSpent: no queries are left for this step.
            TrialEnded: the trial is over.
        """
        self._pipe.send((kind, value))
        return self._receive()[1]

    def _receive(self) -> tuple[str, Any]:
        kind, value = self._pipe.recv()
        if kind == "spent":
            raise BudgetSpent(f"{value} reward queries are left; this step needs more.")
        if kind == "ended":
            raise TrialEnded(value)
        return kind, value


class TrialEnvs(gym.vector.VectorEnv):
    """The judge's vector environment, seen through the pipe: reset, step and the spaces, in SAME_STEP mode."""

    def __init__(self, trial: Trial, num_envs: int, observation_space: gym.Space, action_space: gym.Space) -> None:
        self._trial = trial
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = gym.vector.utils.batch_space(observation_space, num_envs)
        self.action_space = gym.vector.utils.batch_space(action_space, num_envs)
        self.metadata = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """The next images, uint8 (num_envs, H, W, 3)."""
        return self._trial.ask("reset", (seed, options))

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Scores label maps, integers (num_envs, H, W) or (num_envs, K, H, W); every one costs a reward query."""
        *result, self._trial.queries_left = self._trial.ask("step", np.asarray(actions))
        return tuple(result)

    def __getattr__(self, name: str) -> Any:
        if name in ("_task", "task", "dataset", "envs", "targets"):
            self._trial.ask("forbidden", f"envs.{name}")
        raise AttributeError(f"The environment of a trial has no {name!r}.")
