"""TorchRL's own wrappers, checker and rollouts on the environments."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import rss_env  # noqa: F401  (registers the ids)
from rss_env.errors import OptionError, UnknownArgumentError
from rss_env.rewards import score_images
from rss_env.wrappers import FlattenAction, vector

SMALL: dict[str, Any] = {"image_size": (8, 10), "num_classes": 3, "num_images": 8}
ID = "RSS-Shapes-ImageReward-v0"


def checked(env: gym.Env | gym.vector.VectorEnv, **options: Any) -> Any:
    from torchrl.envs import GymWrapper
    from torchrl.envs.utils import check_env_specs

    wrapped = GymWrapper(env, categorical_action_encoding=True, **options)
    check_env_specs(wrapped, seed=0)
    return wrapped


@pytest.mark.parametrize("level", ["Image", "Pixel"])
@pytest.mark.parametrize("options", [{}, {"device": "cpu"}, {"samples_per_image": 2}, {"from_pixels": True}], ids=str)
def test_gym_env_makes_an_environment_from_its_id(level: str, options: dict[str, Any]):
    from torchrl.envs import GymEnv
    from torchrl.envs.utils import check_env_specs

    # It passes frameskip=, and takes it back when Python says that there is no such argument.
    env = GymEnv(f"RSS-Shapes-{level}Reward-v0", categorical_action_encoding=True, **SMALL, **options)
    check_env_specs(env, seed=0)
    rollout = env.rollout(3, break_when_any_done=False)
    assert rollout.batch_size == (3,)
    assert rollout["next", "terminated"].all()
    assert ((rollout["next", "reward"] >= 0) & (rollout["next", "reward"] <= 1)).all()


def test_gym_env_passes_an_error_on():
    from torchrl.envs import GymEnv

    with pytest.raises(
        UnknownArgumentError, match=r"unexpected keyword argument 'colour'; valid: dataset, level, root"
    ):
        GymEnv(ID, colour="grey", **SMALL)
    with pytest.raises(OptionError, match="expose_target must be True or False, got 'False'"):
        GymEnv(ID, expose_target="False", **SMALL)


@pytest.mark.parametrize("level", ["Image", "Pixel"])
def test_parallel_env_over_ids(level: str):
    from torchrl.envs import GymEnv, ParallelEnv
    from torchrl.envs.utils import check_env_specs

    make = partial(GymEnv, f"RSS-Shapes-{level}Reward-v0", categorical_action_encoding=True, **SMALL)
    env = ParallelEnv(2, make, mp_start_method="fork")  # spawned workers import torch, which takes some seconds each
    try:
        check_env_specs(env, seed=0)
        rollout = env.rollout(3, break_when_any_done=False)
        assert rollout.batch_size == (2, 3)
        assert rollout["next", "terminated"].all()
    finally:
        env.close()


@pytest.mark.parametrize("wrap", [lambda env: env, FlattenAction])
def test_a_single_environment(wrap: Any):
    env = checked(wrap(gym.make(ID, **SMALL)), from_pixels=False)
    rollout = env.rollout(3)
    assert rollout.batch_size == (1,)  # an episode has one step
    assert rollout["next", "terminated"].all()
    assert 0 <= rollout["next", "reward"].item() <= 1


def test_the_native_vector_environment_rolls_out_with_the_rewards_of_its_actions():
    envs = gym.make_vec(ID, 4, **SMALL)
    env = checked(envs)
    rollout = env.rollout(5, break_when_any_done=False)
    assert rollout.batch_size == (4, 5)
    assert rollout["next", "terminated"].all()
    data = envs.unwrapped._task.dataset
    shown = data.images[rollout["index"].numpy()]
    np.testing.assert_array_equal(rollout["observation"].numpy(), shown)
    # What an episode ends on is its own image, not that of the next episode, which has begun in the same step.
    np.testing.assert_array_equal(rollout["next", "observation"].numpy(), shown)
    targets = data.targets[rollout["index"].reshape(-1).numpy()]
    label_maps = rollout["action"].reshape(20, 1, 8, 10).numpy().astype(np.uint8)
    expected = score_images("mean_iou", label_maps, targets, 3)
    np.testing.assert_allclose(rollout["next", "reward"].reshape(20, 1).numpy(), expected, rtol=1e-6)


def test_a_wrapped_vector_environment_rolls_out_too():
    envs = vector.FeedbackReward(vector.CoarseAction(gym.make_vec(ID, 4, **SMALL), 2), "stars:3")
    rollout = checked(envs).rollout(5, break_when_any_done=False)
    assert rollout["action"].shape == (4, 5, 4, 5)
    assert set(rollout["next", "reward"].unique().tolist()) <= {0.0, 0.5, 1.0}


@pytest.mark.parametrize("samples", [None, 2])
def test_at_pixel_level_a_rollout_has_the_mean_and_not_the_map(samples: int | None):
    envs = gym.make_vec("RSS-Shapes-PixelReward-v0", 2, samples_per_image=samples, **SMALL)
    rollout = checked(envs).rollout(3, break_when_any_done=False)
    assert "pixel_reward" not in rollout["next"].keys()  # noqa: SIM118 (a TensorDict has no such `in`)
    targets = envs.unwrapped._task.dataset.targets[rollout["index"].numpy()]
    label_maps = rollout["action"].reshape(2, 3, -1, 8, 10).numpy()
    expected = (label_maps == targets[:, :, None]).mean((2, 3, 4))
    np.testing.assert_allclose(rollout["next", "reward"][..., 0].numpy(), expected, rtol=1e-6)
