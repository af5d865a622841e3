"""``get_attr``, ``set_attr`` and ``call`` mean what they mean in Gymnasium's SyncVectorEnv."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from rss_env import wrappers
from rss_env.errors import OptionError
from rss_env.wrappers import vector as twins
from tests.extras import by_name, needs_torch, tensor

ID = "RSS-Shapes-ImageReward-v0"
SMALL: dict[str, Any] = {"image_size": (8, 10), "num_classes": 3, "num_images": 8}
NATIVE: dict[str, dict[str, Any]] = {"NumPy": {}, "torch": {"device": "cpu"}}
every_native = pytest.mark.parametrize("native", by_name(NATIVE))


def sync(wrap: Any = None, **options: Any) -> gym.vector.VectorEnv:
    return gym.make_vec(
        ID,
        3,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        wrappers=[wrap] if wrap else [],
        **SMALL,
        **options,
    )


def run(envs: Any, steps: int = 2) -> Any:
    """The same environment after some steps."""
    envs.reset(seed=3)
    for seed in range(steps):
        envs.step(np.random.default_rng(seed).integers(0, 3, envs.action_space.shape))
    return envs


def own(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata without what SyncVectorEnv of Gymnasium before 1.4 writes into that of its first environment."""
    return {key: value for key, value in metadata.items() if key != "autoreset_mode"}


@every_native
@pytest.mark.parametrize("options", [{}, {"samples_per_image": 2, "render_mode": "rgb_array"}])
def test_a_sub_environment_has_what_a_single_environment_has(native: dict[str, Any], options: dict[str, Any]):
    ours, theirs = run(gym.make_vec(ID, 3, **SMALL, **native, **options)), run(sync(**options))
    for name in ("action_space", "observation_space", "render_mode", "reward_queries"):
        assert ours.get_attr(name) == ours.call(name) == theirs.get_attr(name)
    assert sum(ours.get_attr("reward_queries")) == ours.unwrapped.reward_queries > 0
    device = {"device": "cpu"} if native else {}
    assert ours.get_attr("metadata") == tuple(own(each) | device for each in theirs.get_attr("metadata"))
    assert [spec.id for spec in ours.get_attr("spec")] == [spec.id for spec in theirs.get_attr("spec")]


@every_native
def test_call_calls_a_method_of_each(native: dict[str, Any]):
    options = {"render_mode": "rgb_array", "order": "sequential"}
    ours = run(gym.make_vec(ID, 3, **SMALL, **native, **options))
    pictures = ours.call("render")
    assert len(pictures) == 3
    for picture, expected in zip(pictures, ours.render(), strict=True):
        np.testing.assert_array_equal(picture, expected)
    with pytest.warns(UserWarning, match="render_mode='rgb_array'"):
        assert gym.make_vec(ID, 3, **SMALL, **native).call("render") == (None,) * 3
    ours.set_attr("shout", [lambda word, b=b: word * b for b in range(3)])
    assert ours.call("shout", "a") == ("", "a", "aa")


@every_native
@pytest.mark.parametrize("values", [7, "text", (1, 2, 3), ["a", None, 2.5], {"a": 1}, None])
def test_set_attr_gives_each_its_value_of_a_list_or_all_the_same(native: dict[str, Any], values: Any):
    ours, theirs = gym.make_vec(ID, 3, **SMALL, **native), sync()
    for envs in (ours, theirs):
        envs.set_attr("note", values)
    assert ours.get_attr("note") == theirs.get_attr("note")


@every_native
def test_an_array_is_the_value_of_all(native: dict[str, Any]):
    envs = gym.make_vec(ID, 3, **SMALL, **native)
    value = np.arange(3)
    envs.set_attr("note", value)
    assert all(each is value for each in envs.get_attr("note"))


@every_native
def test_counters_and_render_mode_can_be_set(native: dict[str, Any]):
    envs = run(gym.make_vec(ID, 3, **SMALL, **native))
    envs.set_attr("reward_queries", 0)
    assert envs.reward_queries == 0
    run(envs)
    assert envs.get_attr("reward_queries") == (2, 2, 2)
    envs.set_attr("render_mode", "rgb_array")
    run(envs)
    assert len(envs.render()) == 3
    with pytest.raises(OptionError, match=r"share render_mode: set_attr\(\) needs one value for all"):
        envs.set_attr("render_mode", ["rgb_array", None, None])
    with pytest.raises(OptionError, match="Unknown render_mode 'human'"):
        envs.set_attr("render_mode", "human")


@every_native
def test_what_is_not_there_or_cannot_be_set_is_an_error(native: dict[str, Any]):
    envs, theirs = gym.make_vec(ID, 3, **SMALL, **native), sync()
    for each in (envs, theirs):
        with pytest.raises(AttributeError, match="nothing_has_this"):
            each.get_attr("nothing_has_this")
        with pytest.raises(AttributeError, match="num_envs"):
            each.get_attr("num_envs")
        with pytest.raises(ValueError, match="2"):
            each.set_attr("note", [1, 2])
    for name in ("reset", "step", "close"):
        with pytest.raises(AttributeError, match=r"reset\(\), step\(\) and close\(\) are the vector environment's"):
            envs.call(name)
    for name in ("action_space", "metadata", "step"):
        with pytest.raises(AttributeError, match=f"{name} of a sub-environment cannot be set"):
            envs.set_attr(name, 1)


@every_native
@pytest.mark.parametrize(
    ("single", "twin"),
    [
        (wrappers.FlattenAction, twins.FlattenAction),
        (lambda e: wrappers.CoarseAction(e, 2), lambda e: twins.CoarseAction(e, 2)),
        (lambda e: wrappers.FeedbackReward(e, "stars:3"), lambda e: twins.FeedbackReward(e, "stars:3")),
        (
            lambda e: wrappers.FeedbackReward(wrappers.CoarseAction(e, 2), "stars:3"),
            lambda e: twins.FeedbackReward(RecordEpisodeStatistics(twins.CoarseAction(e, 2)), "stars:3"),
        ),
    ],
    ids=["flat", "coarse", "feedback", "a stack with one of Gymnasium's"],
)
def test_wrappers_have_them_too(native: dict[str, Any], single: Any, twin: Any):
    ours, theirs = twin(gym.make_vec(ID, 3, **SMALL, **native)), sync(single)
    device = {"device": "cpu"} if native else {}
    for name in ("action_space", "observation_space", "reward_queries", "render_mode"):
        assert ours.get_attr(name) == theirs.get_attr(name)
    assert ours.get_attr("metadata") == tuple(own(each) | device for each in theirs.get_attr("metadata"))
    for envs in (ours, theirs):
        envs.set_attr("note", [1, 2, 3])
    assert ours.get_attr("note") == theirs.get_attr("note") == (1, 2, 3)
    assert ours.unwrapped.get_attr("note") == (1, 2, 3)


def test_attributes_of_wrappers_are_read_and_set_where_they_are():
    inner = twins.CoarseAction(gym.make_vec(ID, 3, **SMALL), 2)
    envs = twins.FeedbackReward(inner, "stars:3")
    theirs = sync(lambda e: wrappers.FeedbackReward(wrappers.CoarseAction(e, 2), "stars:3"))
    assert envs.get_attr("cell") == theirs.get_attr("cell") == (2, 2, 2)
    envs.set_attr("cell", 4)
    assert inner.cell == 4
    with pytest.raises(OptionError, match="share cell"):
        envs.set_attr("cell", [1, 2, 3])
    assert envs.get_attr("kind") == (wrappers.Stars(3),) * 3
    with pytest.raises(AttributeError, match="kind"):
        inner.get_attr("kind")


@needs_torch
def test_label_maps_in_tensors_are_counted_too():
    envs = twins.FeedbackReward(gym.make_vec(ID, 3, **SMALL, device="cpu"), "stars:3")
    envs.reset(seed=0)
    envs.step(tensor(np.zeros((3, 8, 10), np.uint8)))
    assert envs.get_attr("reward_queries") == (1, 1, 1)
