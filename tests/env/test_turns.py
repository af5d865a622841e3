"""Two calls at a time into one environment are an error that says so, and leave the one at work alone."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rss_env.errors import AlreadyPendingCallError
from rss_env.turns import Turn
from tests.extras import by_name

ID = "RSS-Shapes-ImageReward-v0"
SMALL: dict[str, Any] = {"image_size": (8, 10), "num_classes": 3, "num_images": 8}
MAKERS: dict[str, Any] = {
    "single": lambda **options: gym.make(ID, **SMALL, **options).unwrapped,
    "vector": lambda **options: gym.make_vec(ID, 2, **SMALL, **options),
    "torch": lambda **options: gym.make_vec(ID, 2, device="cpu", **SMALL, **options),
}
every_maker = pytest.mark.parametrize("make", by_name(MAKERS))


@every_maker
@pytest.mark.parametrize("call", ["step", "reset"])
def test_a_call_of_another_thread_during_a_step_is_an_error_that_names_the_cause(make: Any, call: str):
    inside, go_on = threading.Event(), threading.Event()

    def judge(image: Any, label_map: Any, target: Any) -> float:
        inside.set()
        assert go_on.wait(60)
        return 0.5

    env = make(reward=judge)
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, int)
    results: list[Any] = []
    worker = threading.Thread(target=lambda: results.append(env.step(action)))
    worker.start()
    try:
        assert inside.wait(60)
        with pytest.raises(AlreadyPendingCallError, match="two threads share it"):
            env.step(action) if call == "step" else env.reset()
    finally:
        go_on.set()
        worker.join(60)
    assert np.all(np.asarray(results[0][1]) == 0.5)
    assert env.reward_queries == len(np.atleast_1d(results[0][1]))
    env.reset()
    env.step(action)


@every_maker
def test_a_reward_that_uses_its_own_environment_is_told(make: Any):
    env = make(reward=lambda image, label_map, target: env.reset())
    env.reset(seed=0)
    with pytest.raises(AlreadyPendingCallError, match="a reward callable uses it"):
        env.step(np.zeros(env.action_space.shape, int))
    assert env.reward_queries == 0
    env.reset()  # the turn was given back


@every_maker
def test_threads_that_share_an_environment_get_this_error_or_none(make: Any):
    env = make()
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, int)
    others: list[Exception] = []

    def work() -> None:
        for _ in range(100):
            try:
                env.reset()
                env.step(action)
            except AlreadyPendingCallError:
                pass
            except gym.error.ResetNeeded:
                if hasattr(env, "num_envs"):  # SAME_STEP: an episode is always running
                    others.append(RuntimeError("ResetNeeded"))
            except Exception as error:
                others.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not others


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda turn: pickle.loads(pickle.dumps(turn))])
def test_a_copy_has_a_turn_of_its_own_that_is_free(how: Any):
    turn = how(Turn())
    with turn, pytest.raises(AlreadyPendingCallError), turn:
        pass
    with turn:
        pass
