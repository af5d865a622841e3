"""How the torch vector env is made, remade from its spec, copied, wrapped and closed."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers.vector import TransformAction, TransformObservation, TransformReward

import rss_env
from rss_env import SegmentationVectorEnv
from rss_env.errors import OptionError
from rss_env.torch_vector import TorchSegmentationVectorEnv
from tests.env.torch_pair import MAP, PATHS, assert_same, on_path, pair, random_maps, run_alike
from tests.trees import dataset_kwargs

ROOT = Path(__file__).parents[2]
ENV_ID = "RSS-Shapes-ImageReward-v0"
SMALL: dict[str, Any] = {"image_size": MAP, "num_images": 6}

# Made


def test_make_vec_gives_tensors_where_a_device_is_named_and_arrays_where_none_is():
    with_device = gym.make_vec(ENV_ID, num_envs=2, device="cpu", **SMALL)
    assert type(with_device.unwrapped) is TorchSegmentationVectorEnv
    assert with_device.unwrapped.device == torch.device("cpu")  # type: ignore[attr-defined]
    assert type(gym.make_vec(ENV_ID, num_envs=2, device=None, **SMALL).unwrapped) is SegmentationVectorEnv


def test_the_device_may_be_given_as_torchs_own_object():
    assert gym.make_vec(ENV_ID, device=torch.device("cpu"), **SMALL).unwrapped.device == torch.device("cpu")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("cuda:99", "CUDA|device"),  # no such card, or torch without CUDA
        ("nonsense", "device type"),
        ("", "empty"),
        ("meta", "no data"),
        (1.5, "device"),
        ([], "device"),
    ],
)
def test_a_device_that_is_not_here_is_an_error_that_names_one_that_is(device: Any, reason: str):
    with pytest.raises(OptionError, match=rf"device=.* cannot be used here \(device='cpu' can\): .*({reason})"):
        gym.make_vec(ENV_ID, device=device, **SMALL)


@pytest.mark.parametrize("cache", ["disk", None, "Device"])
def test_an_unknown_cache_is_an_error_that_lists_the_valid_ones(cache: Any):
    with pytest.raises(OptionError, match=rf"Unknown cache {cache!r}; valid: device, host\."):
        gym.make_vec(ENV_ID, device="cpu", cache=cache, **SMALL)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cache", ["device", "host"])
@pytest.mark.parametrize("dataset", ["Shapes", "VOC"])
def test_both_caches_give_the_same(path: str, cache: str, dataset: str, tmp_path: Path):
    with on_path(path):
        data = dataset_kwargs(dataset, tmp_path)
        run_alike(*pair(cache=cache, dataset=dataset, level="pixel", augment="flip", expose_target=True, **data))


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
@pytest.mark.parametrize("cache", ["device", "host"])
def test_a_cache_without_a_device_is_an_error_that_says_so(make: Callable, cache: str):
    with pytest.raises(OptionError, match=rf"cache='{cache}' is for tensors: .*cache= goes with device="):
        make(ENV_ID, cache=cache, **SMALL)


def test_a_device_for_a_single_environment_is_an_error_that_names_make_vec():
    with pytest.raises(OptionError, match=r"device=.cpu. is for tensors: gym\.make_vec\(id, device=\.\.\.\)"):
        gym.make(ENV_ID, device="cpu", **SMALL)


def test_other_wrong_options_are_the_errors_they_are_without_a_device():
    with pytest.raises(
        TypeError, match=r"TorchSegmentationVectorEnv.* unexpected keyword argument 'colour'; .* cache,"
    ):
        gym.make_vec(ENV_ID, device="cpu", colour="grey", **SMALL)
    with pytest.raises(OptionError, match="Unknown autoreset_mode"):
        gym.make_vec(ENV_ID, device="cpu", autoreset_mode="never", **SMALL)


@pytest.mark.parametrize("env_id", rss_env.ENV_IDS)
def test_the_spec_round_trips_through_json(env_id: str, tmp_path: Path):
    data = dataset_kwargs(gym.spec(env_id).kwargs["dataset"], tmp_path)
    options = {"image_size": list(MAP), "num_envs": 2, "cache": "host", "expose_target": True, **data}
    envs = gym.make_vec(env_id, device="cpu", **json.loads(json.dumps(options)))
    assert envs.spec is not None
    again = gym.make_vec(EnvSpec.from_json(envs.spec.to_json()))
    assert type(again.unwrapped) is TorchSegmentationVectorEnv
    assert again.spec is not None
    assert again.spec.kwargs == envs.spec.kwargs
    twin = gym.make_vec(env_id, **{key: value for key, value in options.items() if key != "cache"})
    run_alike(again.unwrapped, twin.unwrapped)  # type: ignore[arg-type]


RUN = "import sys, gymnasium as gym, rss_env; env_id = 'RSS-Shapes-ImageReward-v0'; small = {'num_images': 2}; "


def run(code: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "error", "-c", RUN + code]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


def test_torch_is_imported_where_a_device_is_named_and_nowhere_else():
    code = (
        "envs = gym.make_vec(env_id, num_envs=2, **small); envs.reset(seed=0); envs.step(envs.action_space.sample()); "
        "gym.make(env_id, **small).reset(); print('torch' in sys.modules); "
        "gym.make_vec(env_id, device='cpu', **small); print('torch' in sys.modules)"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "True"]


def test_a_device_without_torch_is_an_error_that_tells_how_to_install_it():
    done = run("sys.modules['torch'] = None; gym.make_vec(env_id, device='cpu', **small)")
    assert done.returncode == 1
    assert "OptionError: device='cpu' needs torch: pip install 'rss-env[torch]'." in done.stderr


# Copied

HOWS = {"deepcopy": copy.deepcopy, "pickle": lambda env: pickle.loads(pickle.dumps(env))}
every_how = pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
every_path = pytest.mark.parametrize("path", PATHS)
EVERYTHING: dict[str, Any] = {"level": "pixel", "samples_per_image": 2, "expose_target": True, "augment": "flip"}


@every_how
@every_path
@pytest.mark.parametrize("dataset", ["Shapes", "VOC"])
def test_a_copy_and_the_original_go_on_alike_and_do_not_disturb_each_other(
    how: Callable, path: str, dataset: str, tmp_path: Path
):
    with on_path(path):
        options = {"dataset": dataset, "render_mode": "rgb_array", **EVERYTHING, **dataset_kwargs(dataset, tmp_path)}
        envs, twin = pair(**options)
        run_alike(envs, twin)
        copied, copied_twin = how(envs), how(twin)
        assert copied.reward_queries == envs.reward_queries
        assert copied.device == envs.device
        for ours, theirs, shift in ((copied, copied_twin, 0), (envs, twin, 1)):
            for seed in range(3):
                np.testing.assert_array_equal(ours.render(), theirs.render())
                maps = random_maps(theirs, seed + shift)
                assert_same(ours.step(torch.from_numpy(maps)), theirs.step(maps))
        copied.close()
        envs.close()


@every_how
def test_the_copy_of_a_task_scores_alike(how: Callable):
    task = pair(**EVERYTHING)[0]._task
    indices, flipped = np.array([3, 0, 3]), np.array([True, False, False])
    label_maps = torch.from_numpy(np.random.default_rng(0).integers(0, 5, (3, 2, *MAP), np.uint8))
    for one in (task, how(task)):
        rewards, details = one.score(label_maps, indices, flipped)
        expected, told = pair(**EVERYTHING)[1]._task.score(label_maps.numpy(), indices, flipped)
        assert_same((rewards, details), (expected, told))


def test_a_pickle_holds_no_image_and_no_tensor():
    envs, _ = pair(image_size=(8, 8))
    envs.reset(seed=0)
    envs.step(torch.zeros(3, 8, 8, dtype=torch.uint8))
    sent = pickle.dumps(envs)
    data = envs._task.dataset
    assert data.targets is not None
    assert data.images[0].tobytes() not in sent
    assert data.targets[0].tobytes() not in sent
    assert b"_rebuild_tensor" not in sent
    assert b"_rebuild_tensor" in pickle.dumps(torch.zeros(1))


def test_on_the_host_the_data_set_is_not_copied():
    envs, _ = pair()
    for one in (envs._task, copy.deepcopy(envs)._task):
        assert one.on_host
        assert one._images.data_ptr() == envs._task.dataset.images.ctypes.data


# Wrapped and closed


def test_gymnasiums_wrappers_of_rewards_actions_and_observations_take_tensors():
    envs, twin = pair(autoreset_mode="Disabled")
    channels_first = gym.spaces.Box(0, 255, (3, *MAP), np.uint8)
    wrapped = TransformReward(envs, lambda rewards: 2 * rewards)
    wrapped = TransformAction(wrapped, lambda scores: scores.argmax(1))
    wrapped = TransformObservation(wrapped, lambda i: i.permute(0, 3, 1, 2), single_observation_space=channels_first)
    images, _ = wrapped.reset(seed=0)
    np.testing.assert_array_equal(images.numpy(), twin.reset(seed=0)[0].transpose(0, 3, 1, 2))
    scores = torch.rand(3, 5, *MAP, generator=torch.Generator().manual_seed(0))
    rewards = wrapped.step(scores)[1]
    np.testing.assert_array_equal(rewards.numpy(), 2 * twin.step(scores.argmax(1).numpy())[1])


@every_path
def test_closing_twice_is_closing_once(path: str):
    with on_path(path):
        envs, _ = pair()
        assert not envs.closed
        for _ in range(2):
            envs.close()
            assert envs.closed


def test_closing_an_environment_never_reset_or_through_a_wrapper_works():
    envs, _ = pair()
    TransformReward(envs, abs).close()
    assert envs.closed
