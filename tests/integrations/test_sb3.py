"""The Stable-Baselines3 VecEnv: the same as SB3's own over single environments, and trained by SB3's own agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan, VecMonitor, VecNormalize, VecTransposeImage

from rss_env.errors import InvalidAction, OptionError
from rss_env.integrations.sb3 import SegmentationVecEnv
from rss_env.wrappers import CoarseAction, FlattenAction
from rss_env.wrappers import vector as twins

SMALL: dict[str, Any] = {"image_size": (8, 10), "num_classes": 3, "num_images": 8}
ID = "RSS-Shapes-ImageReward-v0"


@pytest.mark.parametrize("level", ["Image", "Pixel"])
def test_it_is_what_sb3s_own_vecenv_over_single_environments_is(level: str):
    env_id = f"RSS-Shapes-{level}Reward-v0"
    ours = SegmentationVecEnv(env_id, 3, terminal_observation=True, **SMALL)
    theirs = DummyVecEnv([lambda: Monitor(FlattenAction(gym.make(env_id, **SMALL)))] * 3)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    ours.seed(4)
    theirs.seed(4)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    assert ours.reset_infos == theirs.reset_infos
    for step in range(5):
        actions = np.random.default_rng(step).integers(0, 3, (3, 80))
        (o1, r1, d1, i1), (o2, r2, d2, i2) = ours.step(actions), theirs.step(actions)
        for mine, other in ((o1, o2), (r1, r2), (d1, d2)):
            assert mine.dtype == other.dtype
            np.testing.assert_array_equal(mine, other)
        for mine, other in zip(i1, i2, strict=True):
            assert mine.keys() == other.keys()
            assert mine["TimeLimit.truncated"] is other["TimeLimit.truncated"] is False
            assert mine["index"] == other["index"]
            assert mine["episode"]["r"] == pytest.approx(other["episode"]["r"], abs=1e-6)
            assert mine["episode"]["l"] == other["episode"]["l"] == 1
            np.testing.assert_array_equal(mine["terminal_observation"], other["terminal_observation"])
            if level == "Pixel":
                np.testing.assert_array_equal(mine["pixel_reward"], other["pixel_reward"])


def test_seeds_and_options_hold_for_one_reset():
    envs = SegmentationVecEnv(ID, 2, **SMALL)
    envs.seed(1)
    first = envs.reset()
    assert not np.array_equal(envs.reset(), first)
    envs.seed(1)
    np.testing.assert_array_equal(envs.reset(), first)
    envs.set_options({"index": 5})
    envs.reset()
    assert [info["index"] for info in envs.reset_infos] == [5, 5]
    envs.set_options([{"index": 3}, {"index": 6}])
    envs.reset()
    assert [info["index"] for info in envs.reset_infos] == [3, 6]
    envs.seed(1)
    np.testing.assert_array_equal(envs.reset(), first)  # not images 3 and 6 again
    for wrong in ({"episode": 3}, [{"index": 3}, {}]):
        envs.set_options(wrong)
        with pytest.raises(OptionError, match=r"set_options takes \{'index': i\}"):
            envs.reset()
        envs.set_options({})


def test_the_terminal_observation_comes_only_when_asked_for():
    envs = SegmentationVecEnv(ID, 2, **SMALL)
    envs.reset()
    assert "terminal_observation" not in envs.step(np.zeros((2, 80), int))[3][0]
    asked = SegmentationVecEnv(ID, 2, terminal_observation=True, **SMALL)
    shown = asked.reset()
    infos = asked.step(np.zeros((2, 80), int))[3]
    for b in range(2):
        np.testing.assert_array_equal(infos[b]["terminal_observation"], shown[b])


def test_wrapped_vector_environments_are_taken():
    inner = twins.FeedbackReward(twins.CoarseAction(gym.make_vec(ID, 2, **SMALL), 2), "stars:3")
    envs = SegmentationVecEnv(inner)
    assert envs.action_space.shape == (20,)
    envs.reset()
    for seed in range(5):
        rewards = envs.step(np.random.default_rng(seed).integers(0, 3, (2, 20)))[1]
        assert set(rewards.tolist()) <= {0.0, 0.5, 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples_per_image": 2}, "SB3's algorithms draw one label map an image"),
        ({"expose_target": True}, "an agent must not see targets"),
        ({"autoreset_mode": "NextStep"}, "make the environment with autoreset_mode='SameStep'"),
        ({"device": "cpu"}, "make the environment without device="),
        ({"vectorization_mode": "sync"}, "needs a native vector environment of this package"),
    ],
)
def test_what_sb3_cannot_use_is_refused(options: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        SegmentationVecEnv(ID, 2, **SMALL, **options)
    with pytest.raises(OptionError, match="num_envs and env_options are for an id"):
        SegmentationVecEnv(gym.make_vec(ID, 2, **SMALL), 2)


@pytest.mark.parametrize("value", ["False", 1, None])
def test_terminal_observation_is_a_bool(value: Any):
    with pytest.raises(OptionError, match="terminal_observation must be True or False, got "):
        SegmentationVecEnv(ID, 2, terminal_observation=value, **SMALL)


def test_a_wrong_action_is_an_error():
    envs = SegmentationVecEnv(ID, 2, **SMALL)
    envs.reset()
    with pytest.raises(InvalidAction, match=r"classes 0\.\.2"):
        envs.step(np.full((2, 80), 3))


def test_attributes_methods_and_pictures():
    envs = SegmentationVecEnv(ID, 2, render_mode="rgb_array", **SMALL)
    envs.reset()
    envs.step(np.zeros((2, 80), int))
    assert envs.get_attr("reward_queries") == [2, 2]
    assert len(envs.get_attr("metadata", indices=0)[0]["class_names"]) == 3
    envs.set_attr("reward_queries", 0)
    assert envs.get_attr("reward_queries", [1]) == [0]
    with pytest.raises(OptionError, match="share their attributes"):
        envs.set_attr("reward_queries", 0, indices=1)
    pictures = envs.env_method("render", indices=[0])[0]
    assert len(pictures) == len(envs.get_images()) == 2
    assert envs.render(mode="rgb_array").dtype == np.uint8
    assert envs.env_is_wrapped(Monitor) == [True, True]
    assert envs.env_is_wrapped(FlattenAction) == [False, False]
    envs.close()
    assert envs.envs.closed
    with pytest.warns(UserWarning, match="render_mode='rgb_array'"):
        assert SegmentationVecEnv(ID, 2, **SMALL).get_images() == [None, None]


def test_attributes_are_found_through_several_wrappers_and_set_where_they_are_found():
    inner = twins.CoarseAction(gym.make_vec(ID, 2, **SMALL), 2)
    envs = SegmentationVecEnv(twins.FeedbackReward(inner, "stars:3"))
    assert envs.get_attr("cell") == [2, 2]
    envs.set_attr("cell", 5)
    assert inner.cell == 5
    assert envs.env_method("actions", np.zeros((2, 4, 5), int), indices=0)[0].shape == (2, 8, 10)
    envs.set_attr("note", "new")
    assert inner.unwrapped.note == "new"
    with pytest.raises(AttributeError, match="nothing_has_this"):
        envs.get_attr("nothing_has_this")


def test_sb3s_own_wrappers_work():
    with pytest.warns(UserWarning, match="already wrapped with a `Monitor`"):  # as it should: the statistics are there
        VecMonitor(SegmentationVecEnv(ID, 2, **SMALL))
    ours = SegmentationVecEnv(ID, 2, terminal_observation=True, **SMALL)
    envs = VecCheckNan(VecNormalize(VecTransposeImage(ours), norm_obs=False))
    assert envs.reset().shape == (2, 3, 8, 10)
    for _ in range(3):
        _, rewards, dones, infos = envs.step(np.zeros((2, 80), int))
    assert np.isfinite(rewards).all()
    assert dones.all()
    assert infos[0]["episode"]["l"] == 1
    assert infos[0]["terminal_observation"].shape == (3, 8, 10)


@pytest.mark.parametrize("policy", ["CnnPolicy", "MlpPolicy"])
def test_sb3s_agents_train_on_a_single_environment_with_flat_coarse_actions(policy: str):
    env = FlattenAction(CoarseAction(gym.make(ID, **SMALL | {"image_size": (36, 40)}), cell=8))
    agent = PPO(policy, env, n_steps=4, batch_size=4, n_epochs=1, seed=0, device="cpu")
    agent.learn(8)
    assert len(agent.ep_info_buffer) == 8
    assert agent.predict(env.reset(seed=0)[0])[0].shape == (25,)


def test_without_a_flat_action_sb3_says_nothing_of_use():
    with pytest.raises(TypeError, match="must be tuple of ints"):  # docs/integrations.md quotes it
        PPO("MlpPolicy", gym.make(ID, **SMALL), device="cpu")


@pytest.mark.parametrize(("algorithm", "policy"), [(PPO, "CnnPolicy"), (A2C, "MlpPolicy")])
def test_sb3s_agents_train_save_load_and_are_evaluated(
    algorithm: Any, policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SB3_LOGDIR", str(tmp_path / "log"))
    # Cells, as the stock policy makes one distribution object a label; 36 pixels, as its network needs them.
    envs = SegmentationVecEnv(twins.CoarseAction(gym.make_vec(ID, 4, **SMALL | {"image_size": (36, 36)}), 6))
    steps = {"n_steps": 4} | ({"batch_size": 8, "n_epochs": 1} if algorithm is PPO else {})
    agent = algorithm(policy, envs, seed=0, device="cpu", **steps)
    agent.learn(32)
    assert len(agent.ep_info_buffer) == 32
    assert all(0 <= episode["r"] <= 1 for episode in agent.ep_info_buffer)
    agent.save(tmp_path / "agent.zip")
    again = algorithm.load(tmp_path / "agent.zip", device="cpu")
    images = envs.reset()
    np.testing.assert_array_equal(*(a.predict(images, deterministic=True)[0] for a in (agent, again)))
    rewards, lengths = evaluate_policy(agent, envs, n_eval_episodes=8, return_episode_rewards=True)
    assert lengths == [1] * 8
    assert all(0 <= reward <= 1 for reward in rewards)
