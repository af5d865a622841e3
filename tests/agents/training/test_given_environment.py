"""A run on an environment that was made is the run on its id with its arguments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import RecordEpisodeStatistics

from agents import Likelihood, train
from agents.training.given_environment import arguments_of
from rss_env.errors import OptionError
from rss_env.wrappers import FeedbackReward, FlattenAction, Noise, Shaping, Stars
from rss_env.wrappers import vector as twins

ENV_ID = "RSS-Shapes-ImageReward-v0"
OPTIONS: dict[str, Any] = {"image_size": (16, 16), "num_images": 4, "num_classes": 3}
SMALL: dict[str, Any] = {"network_options": {"width": 8}, "steps": 2, "progress": False}


def judge(image: np.ndarray, label_map: np.ndarray, target: np.ndarray | None, weight: float = 1.0) -> float:
    return weight * float((label_map > 0).mean())


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
def test_arguments_go_where_a_run_has_them(make: Callable[..., Any]) -> None:
    reward = {"reward": "mean_iou", "reward_options": {"class_weights": [1, 1, 2]}}
    env = make(ENV_ID, split="val", augment="flip", expose_target=True, samples_per_image=3, **OPTIONS, **reward)
    arguments, samples = arguments_of(env)
    assert samples == 3
    assert arguments.pop("batch_size", 1) == 1
    assert arguments == reward | {
        "env_id": ENV_ID,
        "env_kwargs": {"num_images": 4, "num_classes": 3},
        "image_size": (16, 16),
        "split": "val",
        "augment": "flip",
        "wrap": (),
    }


def test_a_vector_environment_says_how_many_images_a_step_shows_and_on_which_device() -> None:
    arguments, _ = arguments_of(gym.make_vec(ENV_ID, num_envs=6, device="cpu", root=None, **OPTIONS))
    assert (arguments["batch_size"], arguments["device"], "root" in arguments) == (6, "cpu", False)
    arguments, _ = arguments_of(gym.make_vec(ENV_ID, num_envs=2, vectorization_mode="sync", **OPTIONS))
    assert (arguments["batch_size"], arguments["env_kwargs"]) == (2, {"num_images": 4, "num_classes": 3})


@pytest.mark.parametrize(("make", "wrapper"), [(gym.make, FeedbackReward), (gym.make_vec, twins.FeedbackReward)])
def test_feedback_is_carried_over_the_inner_one_first(make: Callable[..., Any], wrapper: Any) -> None:
    env = wrapper(wrapper(wrapper(make(ENV_ID, **OPTIONS), Shaping("log", epsilon=0.01)), "noise:0.1"), "stars:3")
    wrap = arguments_of(env)[0]["wrap"]
    again = make(ENV_ID, **OPTIONS)
    for kind in wrap:
        again = wrapper(again, kind)
    kinds = [again.kind, again.env.kind, again.env.env.kind]
    assert kinds == [Stars(3), Noise(0.1), Shaping("log", epsilon=0.01)]


def test_a_run_on_an_environment_is_the_run_on_its_id(tmp_path: Path) -> None:
    env = twins.FeedbackReward(gym.make_vec(ENV_ID, num_envs=2, samples_per_image=3, **OPTIONS), "stars:5")
    one = train(env, run_dir=str(tmp_path / "one"), **SMALL)
    same = {"batch_size": 2, "wrap": ("stars:stars=5",), "image_size": (16, 16)}
    kwargs = {"num_images": 4, "num_classes": 3}
    two = train(
        ENV_ID, Likelihood(samples_per_image=3), run_dir=str(tmp_path / "two"), env_kwargs=kwargs, **same, **SMALL
    )
    curves = [{k: v for k, v in result.curves.items() if k != "time/seconds"} for result in (one, two)]
    assert curves[0] == curves[1]
    assert one.policy.description == two.policy.description


def test_what_is_passed_to_train_goes_before_the_environments(tmp_path: Path) -> None:
    env = gym.make(ENV_ID, reward=judge, reward_options={"weight": 0.5}, **OPTIONS)
    with pytest.raises(OptionError, match="batch_size must be at least 1, got 0"):
        train(env, run_dir=str(tmp_path), batch_size=0)
    with pytest.raises(OptionError, match="reward"):  # a callable is carried over, and options that do not fit refused
        train(env, run_dir=str(tmp_path), reward_options={"wait": 1})


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (lambda: FlattenAction(gym.make(ENV_ID, **OPTIONS)), "wrapper FlattenAction"),
        (lambda: RecordEpisodeStatistics(gym.make(ENV_ID, **OPTIONS)), "wrapper RecordEpisodeStatistics"),
        (lambda: gym.make("CartPole-v1", max_episode_steps=-1), "Unknown env_id 'CartPole-v1'; valid:"),
        (lambda: gym.make(ENV_ID, samples_per_image=8, **OPTIONS), "samples_per_image=8, but the algorithm 4"),
        (lambda: 5, "env_id must be the id of an environment"),
    ],
)
def test_what_a_run_cannot_train_on_is_one_line_that_says_why(
    env: Callable[[], Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=said):
        train(env(), Likelihood(samples_per_image=4), run_dir=str(tmp_path), **SMALL)
    assert not list(tmp_path.iterdir())


def test_an_environment_that_was_not_made_by_its_id_is_refused() -> None:
    env = gym.make(ENV_ID, **OPTIONS).unwrapped
    env.spec = None
    with pytest.raises(OptionError, match="pass its id"):
        arguments_of(env)
