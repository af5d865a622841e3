"""Imperfect feedback: the formulas, single and vector environments, and that no clean score gets out."""

from __future__ import annotations

import copy
import functools
import json
import math
import pickle
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from hypothesis import given
from hypothesis import strategies as st

import rss_env  # noqa: F401  (registers the ids)
from rss_env import wrappers
from rss_env.errors import OptionError
from rss_env.wrappers import (
    Baseline,
    Delay,
    Draws,
    Drift,
    Feedback,
    FeedbackReward,
    Noise,
    Preference,
    Shaping,
    Stars,
    Threshold,
    as_feedback,
)
from rss_env.wrappers import vector as twins
from rss_env.wrappers.feedback import KINDS, SHAPES
from rss_env.wrappers.feedback_reward import Channel
from tests.extras import ON_TORCH, needs_torch, tensor, tensors

ID = "RSS-Shapes-ImageReward-v0"
K = 4
SMALL: dict[str, Any] = {"image_size": (8, 10), "num_classes": 3, "num_images": 8, "samples_per_image": K}


@dataclass
class Fatigue(Feedback):
    """A kind of somebody's own: every episode's scores count less, and tremble."""

    factor: float = 0.5

    def __call__(self, scores: Any, memory: dict[str, Any], draws: Draws) -> Any:
        memory["strength"] = self.factor * memory.get("strength", 1.0)
        return memory["strength"] * scores + 1e-3 * draws.uniform(scores)


KINDS_IN_ENVS: dict[str, Feedback] = {
    "noise": Noise(0.2),
    "stars": Stars(4),
    "threshold": Threshold(0.2),
    "delay": Delay(3),
    "baseline": Baseline(0.5, 0.1),
    "drift": Drift(-0.2, 0.5, 4),
    "preference": Preference(0.05),
    "shaping": Shaping("log", scale=2.0, shift=1.0, epsilon=0.01),
    "own": Fatigue(0.7),
}
every_kind = pytest.mark.parametrize("name", KINDS_IN_ENVS)
DRAWING = {"noise", "preference", "own"}


def wrap(env: Any, kind: Any) -> Any:
    module = twins if isinstance(env.unwrapped, gym.vector.VectorEnv) else wrappers
    return module.FeedbackReward(env, kind)


def channel(kind: Feedback, seed: int, layer: int = 0) -> Channel:
    """The kind, seeded as a wrapper of it is."""
    seeded = Channel(kind, layer)
    seeded.restart(seed)
    return seeded


def action(seed: int, *batch: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, (*batch, K, 8, 10))


def test_every_kind_is_public_and_tested_here():
    tested = {type(kind) for kind in KINDS_IN_ENVS.values()} - {Fatigue}
    assert set(KINDS.values()) == tested
    assert {kind.__name__ for kind in tested} <= set(wrappers.__all__)


# Formulas

SCORES = np.array([[0.0, 0.1, 0.25, 0.6, 1.0]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Stars(5), [0, 0, 0.25, 0.5, 1]),
        (Stars(2), [0, 0, 0, 1, 1]),
        (Stars(3), [0, 0, 0, 0.5, 1]),  # halves round to even: 0.25 is half way between 0 and 0.5
        (Threshold(0.25), [0, 0, 1, 1, 1]),
        (Preference(0), [0, 0.25, 0.5, 0.75, 1]),
        (Shaping("affine", -2.0, 1.0, 1.0, 0.1), [1, 0.8, 0.5, -0.2, -1]),
        (Shaping("power", 1.0, 0.0, 2.0, 0.1), [0, 0.01, 0.0625, 0.36, 1]),
        (Shaping("log", 1.0, 0.0, 1.0, 0.2), [math.log(s) for s in (0.2, 0.2, 0.25, 0.6, 1)]),
        (Shaping("logit", 1.0, 0.0, 1.0, 0.2), [math.log(s / (1 - s)) for s in (0.2, 0.2, 0.25, 0.6, 0.8)]),
        (Noise(0.0), SCORES[0]),
        (Baseline(1.0, 0.0), SCORES[0]),
        (Drift(-0.5, 0.5, 10), 0.95 * SCORES[0] - 0.05),  # a tenth of the way
        (Delay(1), [0.39] * 5),
    ],
    ids=lambda kind: type(kind).__name__,
)
@pytest.mark.parametrize("array", [np.asarray, tensor])
def test_what_becomes_of_scores(kind: Feedback, expected: list[float], array: Any):
    before = SCORES.copy()
    scores = array(SCORES)
    given = channel(kind, 0)(scores)
    assert type(given) is type(scores)
    np.testing.assert_allclose(np.asarray(given), [expected], rtol=1e-12)
    np.testing.assert_array_equal(SCORES, before)


OUTSIDE = np.array([[-0.4, 0.6, 1.3]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Stars(5), [0, 0.5, 1]),
        (Threshold(0.0), [0, 1, 1]),
        (Shaping("power", 1.0, 0.0, 2.0, 0.1), [0, 0.36, 1.69]),
        (Shaping("log", 1.0, 0.0, 1.0, 0.1), [math.log(0.1), math.log(0.6), math.log(1.3)]),
        (Shaping("logit", 1.0, 0.0, 1.0, 0.1), [math.log(1 / 9), math.log(1.5), math.log(9)]),
    ],
    ids=lambda kind: type(kind).__name__,
)
@pytest.mark.parametrize("array", [np.asarray, tensor])
def test_scores_that_noise_put_outside_0_to_1_give_finite_rewards(kind: Feedback, expected: list[float], array: Any):
    np.testing.assert_allclose(np.asarray(channel(kind, 0)(array(OUTSIDE))), [expected], rtol=1e-12)


VARIANTS = [
    Noise(0.1),
    Stars(3),
    Threshold(0.5),
    Delay(2),
    Baseline(0.9, 0.0),
    Drift(1.0, 0.0, 1),
    Preference(0.0),
    Preference(0.1),
    *[Shaping(shape, 2.0, 1.0, 0.5, 0.1) for shape in SHAPES],
]


@pytest.mark.parametrize("kind", VARIANTS, ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("array", [np.asarray, tensor])
def test_a_score_that_is_not_a_number_gives_no_number(kind: Feedback, array: Any):
    given = np.asarray(channel(kind, 0)(array(np.array([[np.nan, 0.5], [0.2, 0.4]]))))
    assert np.isnan(given[0, 0])
    assert np.isfinite(given[1]).all()


def test_a_delay_pays_the_sum_of_n_episodes_with_the_last():
    delay = channel(Delay(3), 0)
    episodes = np.arange(14.0).reshape(7, 2, 1) / 10
    given = [delay(scores)[:, 0].tolist() for scores in episodes]
    nothing = [0.0, 0.0]
    expected = [nothing, nothing, episodes[:3].sum(0)[:, 0], nothing, nothing, episodes[3:6].sum(0)[:, 0], nothing]
    np.testing.assert_allclose(given, np.array([list(e) for e in expected]))


def test_a_baseline_follows_each_environments_own_scores():
    baseline = channel(Baseline(decay=0.75, initial=0.5), 0)
    first, second = np.array([[0.2, 0.4], [1.0, 1.0]]), np.array([[0.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(baseline(first), first - 0.5)
    np.testing.assert_allclose(baseline(second), second - [[0.75 * 0.5 + 0.25 * 0.3], [0.75 * 0.5 + 0.25 * 1.0]])
    baseline.restart(0)
    np.testing.assert_allclose(baseline(first), first - 0.5)


@pytest.mark.parametrize("array", [np.asarray, tensor])
def test_a_drift_moves_in_equal_steps_and_then_stays(array: Any):
    drift = channel(Drift(offset=-0.6, gain=0.4, episodes=3), 0)
    scores = np.array([[0.0, 0.5], [1.0, 0.25]])
    for gain, offset in ((0.8, -0.2), (0.6, -0.4), (0.4, -0.6), (0.4, -0.6)):
        np.testing.assert_allclose(np.asarray(drift(array(scores))), gain * scores + offset, atol=1e-12)
    drift.restart(0)
    np.testing.assert_allclose(np.asarray(drift(array(scores))), 0.8 * scores - 0.2, atol=1e-12)


@pytest.mark.parametrize("array", [np.asarray, tensor])
@pytest.mark.parametrize("kind", [Noise(1.0), Preference(1.0)], ids=lambda kind: type(kind).__name__)
def test_draws_follow_the_seed_and_the_layer(kind: Feedback, array: Any):
    def draws(seed: int, layer: int) -> list[float]:
        seeded = channel(kind, seed, layer)
        return [x for _ in range(2) for x in np.asarray(seeded(array(np.linspace(0, 1, 20).reshape(2, 10)))).ravel()]

    seen = [draws(seed, layer) for seed in (0, 1) for layer in (0, 1, 2)]
    assert all(a != b for i, a in enumerate(seen) for b in seen[:i])
    assert seen[0][:20] != seen[0][20:]
    assert draws(1, 1) == seen[4]


def test_noise_is_not_what_an_agent_of_the_same_seed_draws():
    noise = channel(Noise(1.0), 3)
    assert not np.isin(noise(np.zeros((1, 9))), np.random.default_rng(3).standard_normal(100)).any()


@pytest.mark.parametrize("how", [copy.deepcopy, lambda kind: pickle.loads(pickle.dumps(kind))], ids=["copy", "pickle"])
@every_kind
@pytest.mark.parametrize("array", [np.asarray, tensor])
@pytest.mark.parametrize("begun", [False, True])
def test_a_copy_goes_on_as_the_original_does(how: Any, name: str, array: Any, begun: bool):
    original = channel(KINDS_IN_ENVS[name], 0)
    scores = [array(s) for s in np.random.default_rng(0).random((6, 2, K))]
    if begun:
        original(scores[0])
    twin = how(original)
    for s in scores:
        np.testing.assert_array_equal(np.asarray(twin(s)), np.asarray(original(s)))


@given(st.lists(st.sampled_from([0.0, 0.2, 0.2, 0.5, 1.0]), min_size=2, max_size=9))
def test_preferences_are_shares_of_comparisons_won(scores: list[float]):
    given = channel(Preference(0), 0)(np.array([scores]))[0]
    for k, score in enumerate(scores):
        others = [other for j, other in enumerate(scores) if j != k]
        won = sum(1.0 if score > other else 0.5 if score == other else 0.0 for other in others)
        assert given[k] == pytest.approx(won / len(others))
    drawn = channel(Preference(0.3), 0)(np.array([scores]))[0]
    assert drawn.sum() == pytest.approx(len(scores) / 2)
    np.testing.assert_allclose(drawn * (len(scores) - 1), np.round(drawn * (len(scores) - 1)))


@pytest.mark.parametrize("array", [np.asarray, tensor])
def test_drawn_preferences_follow_bradley_and_terry(array: Any):
    preference = channel(Preference(0.25), 0)
    draws = 40_000
    wins = float(preference(array(np.tile([0.1, 0.4], (draws, 1))))[:, 0].mean())
    chance = 1 / (1 + math.exp(0.3 / 0.25))
    # Five standard deviations: a false alarm in less than one of a million seeds, and the seed is fixed.
    assert abs(wins - chance) < 5 * math.sqrt(chance * (1 - chance) / draws)


@pytest.mark.parametrize("array", [np.asarray, tensor])
def test_noise_has_the_mean_and_the_spread_it_says(array: Any):
    noise = channel(Noise(0.3), 0)
    given = np.asarray(noise(array(np.full((200, 200), 0.7))))
    assert abs(given.mean() - 0.7) < 5 * 0.3 / 200
    assert abs(given.std() - 0.3) < 5 * 0.3 / (200 * math.sqrt(2))


# In environments


@every_kind
def test_the_reward_is_the_mean_of_the_scores_given_and_the_clean_ones_are_nowhere(name: str):
    clean, wrapped = gym.make(ID, **SMALL), wrap(gym.make(ID, **SMALL), KINDS_IN_ENVS[name])
    expected = channel(KINDS_IN_ENVS[name], 7)
    clean.reset(seed=7)
    image, _ = wrapped.reset(seed=7)
    np.testing.assert_array_equal(image, clean.reset(seed=7)[0])
    for episode in range(7):
        true = clean.step(action(episode))[4]["scores"]
        _, reward, terminated, truncated, info = wrapped.step(action(episode))
        np.testing.assert_array_equal(info["scores"], expected(true[None])[0])
        assert reward == pytest.approx(info["scores"].mean())
        assert type(reward) is float
        assert (terminated, truncated) == (True, False)
        assert set(info) == {"index", "scores"}
        assert not np.array_equal(info["scores"], true)
        clean.reset()
        wrapped.reset()


@every_kind
def test_without_samples_the_reward_itself_is_changed(name: str):
    options = SMALL | {"samples_per_image": None}
    if name == "preference":
        for make in (gym.make, gym.make_vec):
            with pytest.raises(OptionError, match="A preference compares the samples of an image"):
                wrap(make(ID, **options), KINDS_IN_ENVS[name])
        return
    clean, wrapped = gym.make(ID, **options), wrap(gym.make(ID, **options), KINDS_IN_ENVS[name])
    expected = channel(KINDS_IN_ENVS[name], 7)
    clean.reset(seed=7)
    wrapped.reset(seed=7)
    reward = clean.step(action(0)[0])[1]
    _, given, _, _, info = wrapped.step(action(0)[0])
    assert given == pytest.approx(expected(np.array([[reward]])).item())
    assert "scores" not in info


@every_kind
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_vector_environment_of_one_gives_what_the_single_one_gives(name: str, mode: AutoresetMode):
    single = wrap(gym.make(ID, **SMALL), KINDS_IN_ENVS[name])
    envs = wrap(gym.make_vec(ID, 1, autoreset_mode=mode, **SMALL), KINDS_IN_ENVS[name])
    single.reset(seed=3)
    envs.reset(seed=3)
    for episode in range(8):
        _, reward, _, _, info = single.step(action(episode))
        _, rewards, terminated, _, infos = envs.step(action(episode, 1))
        assert terminated.all()
        np.testing.assert_array_equal(rewards, [reward])
        given = infos["final_info"] if mode is AutoresetMode.SAME_STEP else infos
        np.testing.assert_array_equal(given["scores"][0], info["scores"])
        single.reset()
        if mode is AutoresetMode.NEXT_STEP:  # a step that only begins the next episode counts as nothing
            _, rewards, terminated, _, infos = envs.step(action(99, 1))
            assert (rewards == 0).all()
            assert not terminated.any()
            assert "scores" not in infos
        elif mode is AutoresetMode.DISABLED:
            envs.reset(options={"reset_mask": np.array([True])})


@every_kind
@pytest.mark.parametrize("vectorization", [{}, ON_TORCH, {"vectorization_mode": "sync"}])
def test_it_wraps_every_kind_of_vector_environment(name: str, vectorization: dict[str, Any]):
    options = SMALL | vectorization
    if "vectorization_mode" in vectorization:
        options["vector_kwargs"] = {"autoreset_mode": AutoresetMode.SAME_STEP}
    clean, wrapped = gym.make_vec(ID, 3, **options), wrap(gym.make_vec(ID, 3, **options), KINDS_IN_ENVS[name])
    expected = channel(KINDS_IN_ENVS[name], 5)
    clean.reset(seed=5)
    wrapped.reset(seed=5)
    for step in range(4):
        true = clean.step(action(step, 3))[4]["final_info"]["scores"]
        _, rewards, _, _, infos = wrapped.step(action(step, 3))
        given = infos["final_info"]["scores"]
        assert type(given) is type(true)
        np.testing.assert_array_equal(np.asarray(given), np.asarray(expected(true)))
        np.testing.assert_allclose(np.asarray(rewards), np.asarray(given).mean(1))
        assert "scores" not in infos


@every_kind
def test_seeded_runs_repeat_and_others_differ(name: str):
    def run(seed: int) -> list[float]:
        env = wrap(gym.make(ID, **SMALL), KINDS_IN_ENVS[name])
        rewards = []
        for episode in range(5):
            env.reset(seed=seed if episode == 0 else None, options={"index": 0})
            rewards.append(env.step(action(episode))[4]["scores"].tolist())
        return rewards

    assert run(1) == run(1)
    if name in DRAWING:
        assert run(1) != run(2)
    else:
        assert run(1) == run(2)


@every_kind
def test_a_wrapped_environment_is_made_again_from_json(name: str):
    env = wrap(gym.make(ID, **SMALL), KINDS_IN_ENVS[name])
    assert env.spec is not None
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    spec = copy.deepcopy(gym.spec(ID))
    spec.additional_wrappers = (FeedbackReward.wrapper_spec(kind=KINDS_IN_ENVS[name].to_dict()),)
    by_hand = gym.make(spec, **SMALL)
    for other in (again, by_hand):
        assert type(other) is type(env)
        assert other.kind == env.kind
        env.reset(seed=2)
        other.reset(seed=2)
        np.testing.assert_array_equal(other.step(action(0))[4]["scores"], env.step(action(0))[4]["scores"])
    sync = gym.make_vec(
        ID,
        2,
        vectorization_mode="sync",
        wrappers=[lambda inner: wrap(inner, KINDS_IN_ENVS[name])],
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **SMALL,
    )
    sync.reset(seed=2)
    env.reset(seed=2)
    scores = sync.step(action(0, 2))[4]["final_info"]["scores"]
    np.testing.assert_array_equal(scores[0], env.step(action(0, 2)[0])[4]["scores"])


@every_kind
def test_the_arguments_of_a_twin_are_recorded_as_json(name: str):
    envs = wrap(gym.make_vec(ID, 2, **SMALL), KINDS_IN_ENVS[name])
    recorded = json.loads(json.dumps(envs._saved_kwargs))
    assert as_feedback(recorded["kind"]) == KINDS_IN_ENVS[name]


@every_kind
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_gymnasiums_checker_accepts_it(name: str):
    env = gym.make(ID, **SMALL)
    check_env(wrap(env, KINDS_IN_ENVS[name]), skip_render_check=True)


def test_wrappers_stack_the_inner_one_first():
    scores = gym.make(ID, **SMALL)
    noisy_stars = wrap(wrap(gym.make(ID, **SMALL), Stars(5)), Noise(1e-3))
    stars_of_noise = wrap(wrap(gym.make(ID, **SMALL), Noise(0.3)), Stars(5))
    for env in (scores, noisy_stars, stars_of_noise):
        env.reset(seed=0)
    true = scores.step(action(0))[4]["scores"]
    near = noisy_stars.step(action(0))[4]["scores"]
    stars = np.round(true * 4) / 4
    assert (near != stars).all()
    np.testing.assert_allclose(near, stars, atol=0.01)
    for episode in range(5):
        levels = stars_of_noise.step(action(episode))[4]["scores"] * 4
        assert set(levels.tolist()) <= {0, 1, 2, 3, 4}
        stars_of_noise.reset()


@every_kind
def test_pixel_level_environments_are_refused(name: str):
    pixel = "RSS-Shapes-PixelReward-v0"
    sync = functools.partial(gym.make_vec, vectorization_mode="sync")
    for make in (gym.make, gym.make_vec, sync):
        with pytest.raises(OptionError, match="FeedbackReward is for image-level rewards"):
            wrap(make(pixel, **SMALL), KINDS_IN_ENVS[name])


@every_kind
@pytest.mark.parametrize("vectorization", [None, {}, ON_TORCH])
def test_a_copied_environment_goes_on_as_the_original_does(name: str, vectorization: dict[str, Any] | None):
    env = gym.make(ID, **SMALL) if vectorization is None else gym.make_vec(ID, 2, **SMALL, **vectorization)
    env = wrap(env, KINDS_IN_ENVS[name])
    batch = () if vectorization is None else (2,)
    env.reset(seed=0)
    env.step(action(0, *batch))
    twin = copy.deepcopy(env)
    for episode in range(3):
        for each in (env, twin):
            each.reset()
        first, second = (np.asarray(each.step(action(episode, *batch))[1]) for each in (env, twin))
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("samples", [1, 7, 9])
def test_feedback_that_changes_nothing_leaves_the_reward_bit_for_bit(samples: int):
    options = SMALL | {"samples_per_image": samples}
    clean, same = gym.make(ID, **options), wrap(gym.make(ID, **options), Shaping())
    label_maps = np.random.default_rng(0).integers(0, 3, (samples, 8, 10))
    for env in (clean, same):
        env.reset(seed=0)
    assert same.step(label_maps)[1] == clean.step(label_maps)[1] > 0


@needs_torch
@pytest.mark.parametrize("name", ["stars", "threshold", "delay", "baseline"])
def test_feedback_without_chance_is_the_same_in_torch_and_numpy(name: str):
    tensors, arrays = (
        wrap(gym.make_vec(ID, 3, **SMALL, **options), KINDS_IN_ENVS[name]) for options in ({"device": "cpu"}, {})
    )
    for envs in (tensors, arrays):
        envs.reset(seed=0)
    for step in range(4):
        given, expected = (envs.step(action(step, 3))[1] for envs in (tensors, arrays))
        assert str(given.dtype) == "torch.float64"
        np.testing.assert_array_equal(given, expected)


def test_stacked_noises_are_independent():
    clean, once = gym.make(ID, **SMALL), wrap(gym.make(ID, **SMALL), Noise(1.0))
    twice = wrap(wrap(gym.make(ID, **SMALL), Noise(1.0)), Noise(1.0))
    stacked_twins = wrap(wrap(gym.make_vec(ID, 1, **SMALL), Noise(1.0)), Noise(1.0))
    for env in (clean, once, twice, stacked_twins):
        env.reset(seed=4)
    true, one, two = (env.step(action(0))[4]["scores"] for env in (clean, once, twice))
    inner, outer = one - true, two - one
    assert (np.abs(inner - outer) > 1e-6).all()
    np.testing.assert_array_equal(stacked_twins.step(action(0, 1))[4]["final_info"]["scores"][0], two)


def test_numpy_numbers_are_recorded_as_plain_ones():
    env = wrap(gym.make(ID, **SMALL), Noise(np.float32(0.5)))  # type: ignore[arg-type]
    env = wrap(wrap(env, Stars(np.int64(3))), Fatigue(np.float64(0.25)))  # type: ignore[arg-type]
    env = wrappers.CoarseAction(env, np.int64(2))  # type: ignore[arg-type]
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.cell == 2
    assert again.env.kind == Fatigue(0.25)
    assert again.env.env.kind == Stars(3)
    assert again.env.env.env.kind == Noise(0.5)


@needs_torch
@pytest.mark.parametrize(
    "seed", [[5, 6], [None, 5], np.array([5, 6]), np.int64(5), *tensors(np.array([5, 6]))], ids=repr
)
def test_the_first_seed_of_several_seeds_the_noise(seed: Any):
    envs = wrap(gym.make_vec(ID, 2, device="cpu", **SMALL), Noise(1.0))
    expected = channel(Noise(1.0), 5)
    clean = gym.make_vec(ID, 2, device="cpu", **SMALL)
    for env in (envs, clean):
        env.reset(seed=seed, options={"index": 0})
    given, true = (env.step(action(0, 2))[4]["final_info"]["scores"] for env in (envs, clean))
    np.testing.assert_array_equal(given, expected(true))


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
def test_a_refused_reset_changes_no_memory(make: Any):
    refused, other = (wrap(make(ID, **SMALL), Baseline()) for _ in range(2))
    label_maps = np.zeros(refused.action_space.shape, int)
    for env in (refused, other):
        env.reset(seed=0)
        env.step(label_maps)
    with pytest.raises(OptionError):
        refused.reset(seed=-1)
    for env in (refused, other):
        env.reset(options={"index": 0})
    reward = refused.step(label_maps)[1]
    assert reward == other.step(label_maps)[1]
    other.reset(seed=0, options={"index": 0})
    assert reward < other.step(label_maps)[1]  # which has forgotten the first episode


def test_environments_that_share_a_kind_share_neither_memory_nor_draws():
    for kind in (Delay(2), Noise(1.0)):
        first, second, only = (wrap(gym.make(ID, **SMALL), kind) for _ in range(3))
        given: dict[int, list[float]] = {id(env): [] for env in (first, second, only)}
        for env in (first, second, only):
            env.reset(seed=0)
        for episode in range(3):
            for env in (first, second) if episode < 2 else (first, only, only, only):
                given[id(env)].append(env.step(action(len(given[id(env)])))[1])
                env.reset()
        assert given[id(first)] == given[id(only)]
        assert given[id(second)] == given[id(only)][:2]


# The forms of a kind


@pytest.mark.parametrize(
    ("kind", "recorded", "text"),
    [
        (Noise(0.1), {"kind": "noise", "std": 0.1}, "noise:0.1"),
        (Noise(), {"kind": "noise", "std": 0.05}, "noise"),
        (Stars(3), {"kind": "stars", "stars": 3}, "stars:3"),
        (Stars(3), {"kind": "stars", "stars": 3}, "stars:stars=3"),
        (Threshold(1), {"kind": "threshold", "threshold": 1.0}, "threshold:1"),
        (Delay(2), {"kind": "delay", "episodes": 2}, "delay:2"),
        (Baseline(0.5, -1), {"kind": "baseline", "decay": 0.5, "initial": -1.0}, "baseline:0.5,initial=-1"),
        (Drift(1, 0.5), {"kind": "drift", "offset": 1.0, "gain": 0.5, "episodes": 1000}, "drift:1,gain=0.5"),
        (Preference(1e-2), {"kind": "preference", "temperature": 0.01}, "preference:1e-2"),
        (
            Shaping("log", epsilon=0.1),
            {"kind": "shaping", "shape": "log", "scale": 1.0, "shift": 0.0, "exponent": 1.0, "epsilon": 0.1},
            "shaping:log, epsilon=0.1",
        ),
        (Fatigue(0.25), {"kind": f"{__name__}:Fatigue", "factor": 0.25}, f"{__name__}:Fatigue:0.25"),
        (Fatigue(), {"kind": f"{__name__}:Fatigue", "factor": 0.5}, f"{__name__}:Fatigue"),
    ],
    ids=str,
)
def test_a_kind_a_dict_and_a_text_mean_the_same(kind: Feedback, recorded: dict[str, Any], text: str):
    assert kind.to_dict() == recorded
    assert json.loads(json.dumps(recorded)) == recorded
    for form in (kind, recorded, text):
        for make in (gym.make, gym.make_vec):
            env = wrap(make(ID, **SMALL), form)
            assert env.kind == kind
            assert env._saved_kwargs == {"kind": recorded}


def test_a_kind_of_ones_own_must_be_a_dataclass():
    class Silence(Fatigue):
        def __init__(self, loudness: float) -> None:
            self.loudness = loudness

    with pytest.raises(OptionError, match="Silence must be a dataclass"):
        wrap(gym.make(ID, **SMALL), Silence(0.0))


def test_a_kind_that_only_one_function_knows_works_but_is_not_made_again():
    @dataclass
    class Half(Feedback):
        def __call__(self, scores: Any, memory: dict[str, Any], draws: Draws) -> Any:
            return 0.5 * scores

    clean, env = gym.make(ID, **SMALL), wrap(gym.make(ID, **SMALL), Half())
    clean.reset(seed=0)
    env.reset(seed=0)
    assert env.step(action(0))[1] == clean.step(action(0))[1] / 2
    with pytest.raises(OptionError, match=r"Unknown kind of feedback '.*<locals>\.Half'"):
        gym.make(env.spec)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("noise:-1", "std must be a finite number of at least 0, got -1."),
        ("noise:NaN", "std must be a finite number of at least 0, got nan."),
        ("noise:much", "std must be a finite number of at least 0, got 'much'."),
        ("stars:1", "stars must be an integer of at least 2, got 1."),
        ("stars:2.5", "got 2.5."),
        ("threshold:half", "threshold must be a finite number, got 'half'."),
        ("delay:0", "episodes must be an integer of at least 1, got 0."),
        ("baseline:1.5", "decay must be a finite number from 0 to 1, got 1.5."),
        ("baseline:initial=true", "initial must be a finite number, got True."),
        ("preference:-0.1", "temperature must be a finite number of at least 0, got -0.1."),
        ("shaping:cubic", "Unknown shape 'cubic'; valid: affine, power, log, logit."),
        ("shaping:log,epsilon=0", "shape='log' needs an epsilon above 0"),
        ("shaping:epsilon=0.6", "epsilon must be a finite number from 0 to 0.5, got 0.6."),
        ("shaping:exponent=-1", "exponent must be a finite number of at least 0, got -1."),
        ("noise:0.1,std=0.2", "Feedback 'noise' takes no 'std' here; its arguments, in order: std."),
        ("noise:sigma=0.2", "Feedback 'noise' takes no 'sigma' here; its arguments, in order: std."),
        ({"kind": "noise", "sigma": 0.2}, "Feedback 'noise' takes no 'sigma' here; its arguments, in order: std."),
        ("baseline:0.1,0.2,0.3", "Feedback 'baseline' takes no 3 arguments; its arguments, in order: decay, initial."),
        (
            "star:5",
            "Unknown kind of feedback 'star:5' (The feedback 'star:5' cannot be imported: No module named 'star'.); ",
        ),
        (".star:5", "Unknown kind of feedback '.star:5' ("),
        ("", "Unknown kind of feedback ''; valid: noise, "),
        ("json:loads", "Unknown kind of feedback 'json:loads'; valid: noise, "),
        ({"kind": "no_such_module:Kind"}, "or MODULE:CLASS of your own, which derives from rss_env.wrappers.Feedback."),
        ({"stars": 5}, "A kind of feedback is such as Stars(3), {'kind': 'stars', 'stars': 3} or 'stars:3', got {"),
        (Stars, "got <class 'rss_env.wrappers.feedback.Stars'>; names: noise, stars, "),
        (5, "got 5; names: noise, "),
    ],
)
def test_wrong_kinds_and_arguments_are_errors_that_say_what_is_right(kind: Any, message: str):
    for make in (gym.make, gym.make_vec):
        with pytest.raises(OptionError) as caught:
            wrap(make(ID, **SMALL), kind)
        assert message in str(caught.value)


@every_kind
@pytest.mark.parametrize("vectorization", [None, {}, ON_TORCH])
def test_the_metadata_names_the_reward_only_where_it_is_given_up_to_noise_or_rounding(
    name: str, vectorization: dict[str, Any] | None
):
    options: dict[str, Any] = {"reward_options": {"classes": "target"}, **SMALL}
    env = gym.make(ID, **options) if vectorization is None else gym.make_vec(ID, 2, **options, **vectorization)
    clean = env.metadata
    given = wrap(env, KINDS_IN_ENVS[name]).metadata
    if name in ("noise", "stars"):
        assert (given["reward"], given["reward_options"]) == ("mean_iou", {"classes": "target"})
    else:
        assert (given["reward"], given["reward_options"]) == (None, {})
    differing = {key for key in given if key not in clean or given[key] != clean[key]}
    assert differing <= {"reward", "reward_options", "reward_stars"}
    assert env.metadata["reward"] == "mean_iou"


@pytest.mark.parametrize("inner", ["threshold", "shaping", "own"])
def test_noise_and_stars_do_not_bring_the_name_of_the_reward_back(inner: str):
    env = wrap(wrap(gym.make(ID, **SMALL), KINDS_IN_ENVS[inner]), Stars(4))
    assert (env.metadata["reward"], env.metadata["reward_stars"]) == (None, 4)
    assert wrap(env, Noise()).metadata["reward"] is None


def test_the_metadata_tells_how_many_stars_the_scores_have():
    env = wrap(gym.make(ID, **SMALL), Stars(4))
    assert env.metadata == env.env.metadata | {"reward_stars": 4}
    assert "reward_stars" not in env.unwrapped.metadata
    assert wrap(env, Stars(3)).metadata["reward_stars"] == 3
    assert wrap(env, Noise()).metadata == env.unwrapped.metadata  # noisy stars are none
