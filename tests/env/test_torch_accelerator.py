"""On an accelerator nobody waits for the device, and everything is where it belongs; said without having one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.error import InvalidAction
from gymnasium.vector import AutoresetMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from rss_env import SegmentationVectorEnv, torch_task
from rss_env.errors import OptionError
from rss_env.rewards import LEVELS, REWARDS
from rss_env.torch_task import TorchSegmentationTask
from rss_env.torch_vector import TorchSegmentationVectorEnv
from tests.env.torch_pair import MAP, assert_same, on_path, pair, random_maps

MODES = [mode.value for mode in AutoresetMode]
REWARD_LEVELS = [(name, level) for name in REWARDS for level in LEVELS if REWARDS[name].has_level(level)]
WEIGHTS = {"reward_options": {"class_weights": [1.0, 2.0, 0.5, 1.0, 0.7]}}
EVERYTHING: dict[str, Any] = {"samples_per_image": 2, "expose_target": True, "augment": "flip"}
CROPPED: dict[str, Any] = {"augment": "flip,crop", "crop_size": (24, 28)}

# The CPU, treated as an accelerator


@pytest.fixture
def accelerated() -> Iterator[None]:
    with on_path("as on an accelerator"):
        yield


class NoWaiting(TorchDispatchMode):
    """Fails on what makes the host wait for values: except those of ``arrived``, which are on the host already."""

    WAITING = ("_local_scalar_dense", "nonzero", "item", "masked_select", "is_nonzero", "equal", "bincount")

    def __init__(self, arrived: torch.Tensor) -> None:
        super().__init__()
        self.arrived = arrived.data_ptr()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        if args and isinstance(args[0], torch.Tensor) and args[0].data_ptr() == self.arrived:
            return func(*args, **(kwargs or {}))
        assert name not in self.WAITING, f"{name} waits for the device"
        assert "unique" not in name, f"{name} waits for the device"
        if name in ("index", "index_put", "index_put_"):
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"a mask in {name} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "wait",
    [
        lambda t: t.max().item(),
        lambda t: t[t > 1],
        lambda t: bool(t.any()),
        torch.unique,
        lambda t: t.masked_select(t > 1),
        lambda t: torch.equal(t, t + 1),
        lambda t: t.index_put_((t > 1,), torch.tensor(0)),
        lambda t: t.tolist()[0] if t.max() > 1 else 0,
    ],
)
def test_the_guard_against_waiting_can_fail(wait: Any):
    with pytest.raises(AssertionError, match="waits"), NoWaiting(torch.zeros(())):
        wait(torch.arange(4))


@pytest.mark.usefixtures("accelerated")
@pytest.mark.parametrize(("reward", "level"), REWARD_LEVELS)
@pytest.mark.parametrize("cache", ["device", "host"])
def test_no_step_and_no_reset_waits_and_all_agrees_with_numpy(reward: str, level: str, cache: str):
    for mode, own in itertools.product(MODES, ({}, WEIGHTS if "class_weights" in REWARDS[reward].options else {})):
        options = {"reward": reward, "level": level, "autoreset_mode": mode, **EVERYTHING, **own}
        envs, twin = pair(**options, cache=cache)
        outcomes = []
        for call in range(4):
            maps = random_maps(twin, call)
            tensor = torch.from_numpy(maps).to(torch.uint8)
            if call == 0:  # the weights reach the device once
                outcomes.append((envs.reset(seed=5), twin.reset(seed=5)))
                outcomes.append((envs.step(tensor), twin.step(maps)))
            with NoWaiting(envs._task._outside_known):
                outcomes.append((envs.reset(), twin.reset()))
                outcomes.append((envs.step(tensor), twin.step(maps)))
        for ours, theirs in outcomes:
            assert_same(ours, theirs)


@pytest.mark.usefixtures("accelerated")
def test_wrong_labels_not_yet_heard_of_are_heard_by_close():
    envs, _ = pair()
    envs.reset(seed=0)
    envs.step(torch.full((3, *MAP), 5))
    envs._task._outside_known.zero_()  # as long as the device is behind
    envs._task.check_earlier()
    with pytest.raises(InvalidAction, match="of an earlier step"):
        envs.close()
    envs.close()


@pytest.mark.usefixtures("accelerated")
def test_wrong_labels_of_several_steps_are_heard_once():
    envs, twin = pair()
    envs.reset(seed=0)
    for _ in range(3):
        envs.step(torch.full((3, *MAP), -1))
        envs._task._outside_known.zero_()  # as long as the device is behind
    envs.step(torch.zeros(3, *MAP, dtype=torch.uint8))  # with it comes the news of all before
    with pytest.raises(InvalidAction, match="of an earlier step"):
        envs.reset(seed=0)
    assert_same(envs.reset(seed=0), twin.reset(seed=0))
    envs.close()


# A pretended accelerator: tensors on the device "meta" have a shape and a dtype but no values


class OneDevice(TorchDispatchMode):
    """Fails on operations over several devices, but for copies for which nobody waits."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__.split(".")[0]
        if name == "copy_" and args[0].device != args[1].device:
            assert kwargs.get("non_blocking", len(args) > 2 and args[2]), "copy_ waits for the device"
            return args[0]  # no values come back from this device
        given = [leaf.device for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        assert len(set(given)) <= 1, f"{name} mixes devices"
        result = func(*args, **kwargs)
        if name == "_to_copy" and result.device != given[0]:
            assert kwargs.get("non_blocking"), "_to_copy waits for the device"
            assert result.device == META, f"{name} brings values to the host"
        return result


META = torch.device("meta")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda t: t + torch.zeros(3),
        lambda t: t[torch.tensor([0, 1])],
        lambda t: torch.zeros(3).copy_(t),
        lambda t: torch.zeros(3).to(META),
    ],
)
def test_the_guard_of_the_device_can_fail(wrong: Any):
    with pytest.raises(AssertionError, match=r"mixes devices|waits for the device"), OneDevice():
        wrong(torch.zeros(3, device=META))


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_task, "_check_device", torch.device)


ON_HOST = {f"{mask}{name}" for name in ("index", "flipped", "crop") for mask in ("", "_")}
HOST = torch.device("cpu")


def assert_same_form(ours: Any, theirs: Any, device: torch.device = META) -> None:
    """The same keys, shapes and dtypes, ours on the pretended device but for what always is on the host."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same_form(ours[key], theirs[key], HOST if key in ON_HOST else META)
    elif isinstance(theirs, tuple):
        for mine, other in zip(ours, theirs, strict=True):
            assert_same_form(mine, other)
    else:
        other = np.stack(list(theirs)) if theirs.dtype == object else theirs
        assert ours.device == device
        assert (tuple(ours.shape), str(ours.dtype)) == (other.shape, f"torch.{other.dtype}")


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize(("reward", "level"), REWARD_LEVELS)
@pytest.mark.parametrize("cache", ["device", "host"])
@pytest.mark.parametrize("mode", MODES)
def test_no_devices_mix_no_copy_waits_and_all_is_where_it_belongs(reward: str, level: str, cache: str, mode: str):
    options = {"num_envs": 3, "image_size": MAP, "num_images": 6, "autoreset_mode": mode, **EVERYTHING}
    options |= {"reward": reward, "level": level} | (WEIGHTS if "class_weights" in REWARDS[reward].options else {})
    envs, twin = TorchSegmentationVectorEnv(device="meta", cache=cache, **options), SegmentationVectorEnv(**options)
    assert envs.device == META
    assert envs._task._images.device.type == ("meta" if cache == "device" else "cpu")
    envs.reset(seed=0)
    twin.reset(seed=0)
    maps = random_maps(twin)
    on_the_device = [torch.zeros(maps.shape, dtype=dtype, device=META) for dtype in (torch.uint8, torch.int64)]
    for action in (maps, torch.from_numpy(maps), *on_the_device):
        with OneDevice():
            assert_same_form(envs.reset(), twin.reset())
            assert_same_form(envs.step(action), twin.step(maps))


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("augment", ["flip,crop", "flip,crop,scale"])
@pytest.mark.parametrize("cache", ["device", "host"])
def test_no_devices_mix_and_no_copy_waits_for_crops(augment: str, cache: str):
    options = {"num_envs": 3, "image_size": MAP, "num_images": 6, **EVERYTHING, **CROPPED, "augment": augment}
    envs, twin = TorchSegmentationVectorEnv(device="meta", cache=cache, **options), SegmentationVectorEnv(**options)
    envs.reset(seed=0)
    twin.reset(seed=0)
    maps = random_maps(twin)
    with OneDevice():
        assert_same_form(envs.reset(), twin.reset())
        assert_same_form(envs.step(torch.zeros(maps.shape, dtype=torch.uint8, device=META)), twin.step(maps))


@pytest.mark.usefixtures("pretended")
def test_labels_on_the_host_are_checked_at_once():
    envs = TorchSegmentationVectorEnv(device="meta", num_envs=3, image_size=MAP, num_images=6)
    envs.reset(seed=0)
    wrong = np.full((3, *MAP), 5)
    for action in (wrong, torch.from_numpy(wrong)):
        with pytest.raises(InvalidAction, match=r"holds classes 0\.\.4, got values from 5 to 5"):
            envs.step(action)
    assert envs.reward_queries == 0


@pytest.mark.usefixtures("accelerated")
def test_an_array_that_changes_in_place_is_sent_again():
    task = pair()[0]._task
    indices = np.array([1, 4])
    first = task.send(indices)
    assert task.send(indices.copy()) is first
    indices[0] = 3
    assert task.send(indices).tolist() == [3, 4]
    assert first.tolist() == [1, 4]


# A genuine CUDA device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("cache", ["device", "host"])
@pytest.mark.parametrize("augment", [{}, CROPPED, CROPPED | {"augment": "flip,crop,scale"}])
def test_on_cuda_no_step_waits_and_all_agrees_with_numpy(level: str, cache: str, augment: dict[str, Any]):
    options = {"num_envs": 3, "level": level, "image_size": MAP, "num_images": 6, **EVERYTHING, **augment}
    envs, twin = TorchSegmentationVectorEnv(device="cuda", cache=cache, **options), SegmentationVectorEnv(**options)
    ours, theirs = [envs.reset(seed=0)], [twin.reset(seed=0)]
    all_maps = [random_maps(twin, seed) for seed in range(5)]
    actions = [*all_maps[:2], *(torch.from_numpy(maps).cuda() for maps in all_maps[2:])]
    for number, (action, maps) in enumerate(zip(actions, all_maps, strict=True)):
        if number:  # with the first step the constants of a reward reach the device
            torch.cuda.set_sync_debug_mode("error")
        try:
            ours += [envs.step(action), envs.reset()]  # type: ignore[list-item]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        theirs += [twin.step(maps), twin.reset()]  # type: ignore[list-item]
    for _, infos in ours[::2]:
        assert infos["index"].is_cpu
        assert infos["flipped"].is_cpu
        assert infos["target"].is_cuda
    assert_same(tree_map_only(torch.Tensor, torch.Tensor.cpu, tuple(ours)), tuple(theirs))
    envs.step(torch.full(envs.action_space.shape, 5, device="cuda"))
    with pytest.raises(InvalidAction, match="of an earlier step"):
        envs.close()


# Memory


def test_a_data_set_larger_than_the_devices_memory_is_an_error_that_tells_the_way_out(monkeypatch: pytest.MonkeyPatch):
    task = TorchSegmentationTask("Shapes", "image", device="cpu", image_size=(128, 256), num_images=8)
    needed = 8 * 128 * 256 * 4
    task.device = torch.device("cuda", 1)
    memory = {"free": 0, "reserved": 0, "allocated": 0}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (memory["free"], needed))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: memory["reserved"])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: memory["allocated"])
    for enough in ((needed, 0, 0), (needed - 100, 200, 100), (0, needed, 0)):
        memory.update(zip(memory, enough, strict=True))
        task._check_memory()
    for too_little in ((needed - 1, 0, 0), (needed - 101, 200, 100), (0, needed, 1)):
        memory.update(zip(memory, too_little, strict=True))
        with pytest.raises(OptionError, match=r"Shapes takes 0\.0 GiB .* cuda:1 has 0\.0 GiB free\. Pass cache='host'"):
            task._check_memory()


@pytest.mark.usefixtures("accelerated")
def test_only_what_is_kept_on_the_device_must_fit_into_its_memory(monkeypatch: pytest.MonkeyPatch):
    def refuse(task: TorchSegmentationTask) -> None:
        raise OptionError("too large")

    monkeypatch.setattr(TorchSegmentationTask, "_check_memory", refuse)
    pair(cache="host")
    with pytest.raises(OptionError, match="too large"):
        pair(cache="device")
