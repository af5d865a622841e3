"""Wrappers of the feedback: their formulas, their twins for vector environments, and that no clean score gets out."""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

import rss_env  # noqa: F401  (registers the ids)
from rss_env import wrappers
from rss_env.errors import OptionError
from rss_env.wrappers import feedback
from rss_env.wrappers import vector as twins

ID = "RSS-Shapes-ImageReward-v0"
K = 4
SMALL: dict[str, Any] = {"image_size": (8, 10), "num_classes": 3, "num_images": 8, "samples_per_image": K}
WRAPPERS: dict[str, dict[str, Any]] = {
    "NoisyReward": {"std": 0.2},
    "StarReward": {"stars": 4},
    "ThresholdReward": {"threshold": 0.2},
    "DelayedReward": {"episodes": 3},
    "BaselineReward": {"decay": 0.5, "initial": 0.1},
    "PreferenceReward": {"temperature": 0.05},
    "ShapedReward": {"shape": "log", "scale": 2.0, "shift": 1.0, "epsilon": 0.01},
}
every_wrapper = pytest.mark.parametrize("name", WRAPPERS)


def wrap(name: str, env: Any) -> Any:
    module = twins if isinstance(env.unwrapped, gym.vector.VectorEnv) else wrappers
    return getattr(module, name)(env, **WRAPPERS[name])


def action(seed: int, *batch: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, (*batch, K, 8, 10))


def test_every_wrapper_has_a_twin_and_is_tested_here():
    feedback_wrappers = {name for name in wrappers.__all__ if name.endswith("Reward")}
    assert feedback_wrappers == set(WRAPPERS)
    assert set(twins.__all__) == set(wrappers.__all__)


# Formulas

SCORES = np.array([[0.0, 0.1, 0.25, 0.6, 1.0]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (feedback.Stars(5), [0, 0, 0.25, 0.5, 1]),
        (feedback.Stars(2), [0, 0, 0, 1, 1]),
        (feedback.Stars(3), [0, 0, 0, 0.5, 1]),  # halves round to even: 0.25 is half way between 0 and 0.5
        (feedback.Threshold(0.25), [0, 0, 1, 1, 1]),
        (feedback.Preference(0), [0, 0.25, 0.5, 0.75, 1]),
        (feedback.Shaping("affine", -2.0, 1.0, 1.0, 0.1), [1, 0.8, 0.5, -0.2, -1]),
        (feedback.Shaping("power", 1.0, 0.0, 2.0, 0.1), [0, 0.01, 0.0625, 0.36, 1]),
        (feedback.Shaping("log", 1.0, 0.0, 1.0, 0.2), [math.log(s) for s in (0.2, 0.2, 0.25, 0.6, 1)]),
        (feedback.Shaping("logit", 1.0, 0.0, 1.0, 0.2), [math.log(s / (1 - s)) for s in (0.2, 0.2, 0.25, 0.6, 0.8)]),
        (feedback.Noise(0.0), SCORES[0]),
        (feedback.Baseline(1.0, 0.0), SCORES[0]),
        (feedback.Delay(1), [0.39] * 5),
    ],
    ids=lambda kind: type(kind).__name__,
)
def test_what_becomes_of_scores(kind: feedback.Feedback, expected: list[float]):
    before = SCORES.copy()
    for scores in (SCORES, torch.from_numpy(SCORES)):
        kind.restart(0)
        given = kind(scores)
        assert type(given) is type(scores)
        np.testing.assert_allclose(np.asarray(given), [expected], rtol=1e-12)
    np.testing.assert_array_equal(SCORES, before)


OUTSIDE = np.array([[-0.4, 0.6, 1.3]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (feedback.Stars(5), [0, 0.5, 1]),
        (feedback.Threshold(0.0), [0, 1, 1]),
        (feedback.Shaping("power", 1.0, 0.0, 2.0, 0.1), [0, 0.36, 1.69]),
        (feedback.Shaping("log", 1.0, 0.0, 1.0, 0.1), [math.log(0.1), math.log(0.6), math.log(1.3)]),
        (feedback.Shaping("logit", 1.0, 0.0, 1.0, 0.1), [math.log(1 / 9), math.log(1.5), math.log(9)]),
    ],
    ids=lambda kind: type(kind).__name__,
)
@pytest.mark.parametrize("array", [np.asarray, torch.from_numpy])
def test_scores_that_noise_put_outside_0_to_1_give_finite_rewards(
    kind: feedback.Feedback, expected: list[float], array: Any
):
    np.testing.assert_allclose(np.asarray(kind(array(OUTSIDE))), [expected], rtol=1e-12)


KINDS = [
    feedback.Noise(0.1),
    feedback.Stars(3),
    feedback.Threshold(0.5),
    feedback.Delay(2),
    feedback.Baseline(0.9, 0.0),
    feedback.Preference(0.0),
    feedback.Preference(0.1),
    *[feedback.Shaping(shape, 2.0, 1.0, 0.5, 0.1) for shape in feedback.SHAPES],
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("array", [np.asarray, torch.from_numpy])
def test_a_score_that_is_not_a_number_gives_no_number(kind: feedback.Feedback, array: Any):
    kind.restart(0)
    given = np.asarray(kind(array(np.array([[np.nan, 0.5], [0.2, 0.4]]))))
    assert np.isnan(given[0, 0])
    assert np.isfinite(given[1]).all()


def test_a_delay_pays_the_sum_of_n_episodes_with_the_last():
    kind = feedback.Delay(3)
    episodes = np.arange(14.0).reshape(7, 2, 1) / 10
    given = [kind(scores)[:, 0].tolist() for scores in episodes]
    nothing = [0.0, 0.0]
    expected = [nothing, nothing, episodes[:3].sum(0)[:, 0], nothing, nothing, episodes[3:6].sum(0)[:, 0], nothing]
    np.testing.assert_allclose(given, np.array([list(e) for e in expected]))


def test_a_baseline_follows_each_environments_own_scores():
    kind = feedback.Baseline(decay=0.75, initial=0.5)
    first, second = np.array([[0.2, 0.4], [1.0, 1.0]]), np.array([[0.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(kind(first), first - 0.5)
    np.testing.assert_allclose(kind(second), second - [[0.75 * 0.5 + 0.25 * 0.3], [0.75 * 0.5 + 0.25 * 1.0]])
    kind.restart(0)
    np.testing.assert_allclose(kind(first), first - 0.5)


@pytest.mark.parametrize("array", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("kind", [feedback.Noise(1.0), feedback.Preference(1.0)], ids=lambda kind: type(kind).__name__)
def test_draws_follow_the_seed_and_the_layer(kind: feedback.Feedback, array: Any):
    def draws(seed: int, layer: int) -> list[float]:
        kind.restart(seed, layer)
        return [x for _ in range(2) for x in np.asarray(kind(array(np.linspace(0, 1, 20).reshape(2, 10)))).ravel()]

    seen = [draws(seed, layer) for seed in (0, 1) for layer in (0, 1, 2)]
    assert all(a != b for i, a in enumerate(seen) for b in seen[:i])
    assert seen[0][:20] != seen[0][20:]
    assert draws(1, 1) == seen[4]


def test_noise_is_not_what_an_agent_of_the_same_seed_draws():
    kind = feedback.Noise(1.0)
    kind.restart(3)
    assert not np.isin(kind(np.zeros((1, 9))), np.random.default_rng(3).standard_normal(100)).any()


@pytest.mark.parametrize("how", [copy.deepcopy, lambda kind: pickle.loads(pickle.dumps(kind))], ids=["copy", "pickle"])
@every_wrapper
@pytest.mark.parametrize("array", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("begun", [False, True])
def test_a_copy_goes_on_as_the_original_does(how: Any, name: str, array: Any, begun: bool):
    kind = wrap(name, gym.make(ID, **SMALL)).feedback
    scores = [array(s) for s in np.random.default_rng(0).random((6, 2, K))]
    if begun:
        kind(scores[0])
    twin = how(kind)
    for s in scores:
        np.testing.assert_array_equal(np.asarray(twin(s)), np.asarray(kind(s)))


@given(st.lists(st.sampled_from([0.0, 0.2, 0.2, 0.5, 1.0]), min_size=2, max_size=9))
@settings(deadline=None)
def test_preferences_are_shares_of_comparisons_won(scores: list[float]):
    given = feedback.Preference(0)(np.array([scores]))[0]
    for k, score in enumerate(scores):
        others = [other for j, other in enumerate(scores) if j != k]
        won = sum(1.0 if score > other else 0.5 if score == other else 0.0 for other in others)
        assert given[k] == pytest.approx(won / len(others))
    drawn = feedback.Preference(0.3)(np.array([scores]))[0]
    assert drawn.sum() == pytest.approx(len(scores) / 2)
    np.testing.assert_allclose(drawn * (len(scores) - 1), np.round(drawn * (len(scores) - 1)))


@pytest.mark.parametrize("array", [np.asarray, torch.from_numpy])
def test_drawn_preferences_follow_bradley_and_terry(array: Any):
    kind = feedback.Preference(0.25)
    kind.restart(0)
    draws = 40_000
    wins = float(kind(array(np.tile([0.1, 0.4], (draws, 1))))[:, 0].mean())
    chance = 1 / (1 + math.exp(0.3 / 0.25))
    # Five standard deviations: a false alarm in less than one of a million seeds, and the seed is fixed.
    assert abs(wins - chance) < 5 * math.sqrt(chance * (1 - chance) / draws)


@pytest.mark.parametrize("array", [np.asarray, torch.from_numpy])
def test_noise_has_the_mean_and_the_spread_it_says(array: Any):
    kind = feedback.Noise(0.3)
    kind.restart(0)
    given = np.asarray(kind(array(np.full((200, 200), 0.7))))
    assert abs(given.mean() - 0.7) < 5 * 0.3 / 200
    assert abs(given.std() - 0.3) < 5 * 0.3 / (200 * math.sqrt(2))


# In environments


@every_wrapper
def test_the_reward_is_the_mean_of_the_scores_given_and_the_clean_ones_are_nowhere(name: str):
    clean, wrapped = gym.make(ID, **SMALL), wrap(name, gym.make(ID, **SMALL))
    kind = copy.deepcopy(wrapped.feedback)
    kind.restart(7)
    clean.reset(seed=7)
    image, _ = wrapped.reset(seed=7)
    np.testing.assert_array_equal(image, clean.reset(seed=7)[0])
    for episode in range(7):
        true = clean.step(action(episode))[4]["scores"]
        _, reward, terminated, truncated, info = wrapped.step(action(episode))
        np.testing.assert_array_equal(info["scores"], kind(true[None])[0])
        assert reward == pytest.approx(info["scores"].mean())
        assert type(reward) is float
        assert (terminated, truncated) == (True, False)
        assert set(info) == {"index", "scores"}
        assert not np.array_equal(info["scores"], true)
        clean.reset()
        wrapped.reset()


@every_wrapper
def test_without_samples_the_reward_itself_is_changed(name: str):
    options = SMALL | {"samples_per_image": None}
    if name == "PreferenceReward":
        for make in (gym.make, gym.make_vec):
            with pytest.raises(OptionError, match="PreferenceReward compares the samples of an image"):
                wrap(name, make(ID, **options))
        return
    clean, wrapped = gym.make(ID, **options), wrap(name, gym.make(ID, **options))
    kind = copy.deepcopy(wrapped.feedback)
    kind.restart(7)
    clean.reset(seed=7)
    wrapped.reset(seed=7)
    reward = clean.step(action(0)[0])[1]
    _, given, _, _, info = wrapped.step(action(0)[0])
    assert given == pytest.approx(kind(np.array([[reward]])).item())
    assert "scores" not in info


@every_wrapper
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_vector_environment_of_one_gives_what_the_single_one_gives(name: str, mode: AutoresetMode):
    single = wrap(name, gym.make(ID, **SMALL))
    envs = wrap(name, gym.make_vec(ID, 1, autoreset_mode=mode, **SMALL))
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


@every_wrapper
@pytest.mark.parametrize("vectorization", [{}, {"device": "cpu"}, {"vectorization_mode": "sync"}])
def test_it_wraps_every_kind_of_vector_environment(name: str, vectorization: dict[str, Any]):
    options = SMALL | vectorization
    if "vectorization_mode" in vectorization:
        options["vector_kwargs"] = {"autoreset_mode": AutoresetMode.SAME_STEP}
    clean, wrapped = gym.make_vec(ID, 3, **options), wrap(name, gym.make_vec(ID, 3, **options))
    kind = copy.deepcopy(wrapped.feedback)
    kind.restart(5)
    clean.reset(seed=5)
    wrapped.reset(seed=5)
    for step in range(4):
        true = clean.step(action(step, 3))[4]["final_info"]["scores"]
        _, rewards, _, _, infos = wrapped.step(action(step, 3))
        given = infos["final_info"]["scores"]
        assert type(given) is type(true)
        np.testing.assert_array_equal(np.asarray(given), np.asarray(kind(true)))
        np.testing.assert_allclose(np.asarray(rewards), np.asarray(given).mean(1))
        assert "scores" not in infos


@every_wrapper
def test_seeded_runs_repeat_and_others_differ(name: str):
    def run(seed: int) -> list[float]:
        env = wrap(name, gym.make(ID, **SMALL))
        rewards = []
        for episode in range(5):
            env.reset(seed=seed if episode == 0 else None, options={"index": 0})
            rewards.append(env.step(action(episode))[4]["scores"].tolist())
        return rewards

    assert run(1) == run(1)
    if name in ("NoisyReward", "PreferenceReward"):
        assert run(1) != run(2)
    else:
        assert run(1) == run(2)


@every_wrapper
def test_a_wrapped_environment_is_made_again_from_json(name: str):
    env = wrap(name, gym.make(ID, **SMALL))
    assert env.spec is not None
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    spec = copy.deepcopy(gym.spec(ID))
    spec.additional_wrappers = (getattr(wrappers, name).wrapper_spec(**WRAPPERS[name]),)
    by_hand = gym.make(spec, **SMALL)
    for other in (again, by_hand):
        assert type(other) is type(env)
        env.reset(seed=2)
        other.reset(seed=2)
        np.testing.assert_array_equal(other.step(action(0))[4]["scores"], env.step(action(0))[4]["scores"])
    sync = gym.make_vec(
        ID,
        2,
        vectorization_mode="sync",
        wrappers=[lambda inner: wrap(name, inner)],
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **SMALL,
    )
    sync.reset(seed=2)
    env.reset(seed=2)
    scores = sync.step(action(0, 2))[4]["final_info"]["scores"]
    np.testing.assert_array_equal(scores[0], env.step(action(0, 2)[0])[4]["scores"])


@every_wrapper
def test_the_arguments_of_a_twin_are_recorded_as_json(name: str):
    envs = wrap(name, gym.make_vec(ID, 2, **SMALL))
    recorded = json.loads(json.dumps(envs._saved_kwargs))
    assert recorded.items() >= WRAPPERS[name].items()


@every_wrapper
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_gymnasiums_checker_accepts_it(name: str):
    env = gym.make(ID, **SMALL)
    check_env(wrap(name, env), skip_render_check=True)


def test_wrappers_stack_the_inner_one_first():
    scores = gym.make(ID, **SMALL)
    noisy_stars = wrappers.NoisyReward(wrappers.StarReward(gym.make(ID, **SMALL)), std=1e-3)
    stars_of_noise = wrappers.StarReward(wrappers.NoisyReward(gym.make(ID, **SMALL), std=0.3))
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


@every_wrapper
def test_pixel_level_environments_are_refused(name: str):
    pixel = "RSS-Shapes-PixelReward-v0"
    for make in (gym.make, gym.make_vec):
        with pytest.raises(OptionError, match=f"{name} is for image-level rewards"):
            wrap(name, make(pixel, **SMALL))
    for mode in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):  # whose levels are known only from what they give
        many = gym.make_vec(pixel, 2, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **SMALL)
        envs = wrap(name, many)
        envs.reset(seed=0)
        with pytest.raises(OptionError, match=f"{name} is for image-level rewards"):
            envs.step(action(0, 2))


@every_wrapper
@pytest.mark.parametrize("vectorization", [None, {}, {"device": "cpu"}])
def test_a_copied_environment_goes_on_as_the_original_does(name: str, vectorization: dict[str, Any] | None):
    env = wrap(name, gym.make(ID, **SMALL) if vectorization is None else gym.make_vec(ID, 2, **SMALL, **vectorization))
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
    clean, same = gym.make(ID, **options), wrappers.ShapedReward(gym.make(ID, **options))
    label_maps = np.random.default_rng(0).integers(0, 3, (samples, 8, 10))
    for env in (clean, same):
        env.reset(seed=0)
    assert same.step(label_maps)[1] == clean.step(label_maps)[1] > 0


@pytest.mark.parametrize("name", ["StarReward", "ThresholdReward", "DelayedReward", "BaselineReward"])
def test_feedback_without_chance_is_the_same_in_torch_and_numpy(name: str):
    tensors, arrays = (wrap(name, gym.make_vec(ID, 3, **SMALL, **options)) for options in ({"device": "cpu"}, {}))
    for envs in (tensors, arrays):
        envs.reset(seed=0)
    for step in range(4):
        given, expected = (envs.step(action(step, 3))[1] for envs in (tensors, arrays))
        assert given.dtype == torch.float64
        np.testing.assert_array_equal(given, expected)


def test_stacked_noises_are_independent():
    clean, once = gym.make(ID, **SMALL), wrappers.NoisyReward(gym.make(ID, **SMALL), std=1.0)
    twice = wrappers.NoisyReward(wrappers.NoisyReward(gym.make(ID, **SMALL), std=1.0), std=1.0)
    stacked_twins = twins.NoisyReward(twins.NoisyReward(gym.make_vec(ID, 1, **SMALL), std=1.0), std=1.0)
    for env in (clean, once, twice, stacked_twins):
        env.reset(seed=4)
    true, one, two = (env.step(action(0))[4]["scores"] for env in (clean, once, twice))
    inner, outer = one - true, two - one
    assert (np.abs(inner - outer) > 1e-6).all()
    np.testing.assert_array_equal(stacked_twins.step(action(0, 1))[4]["final_info"]["scores"][0], two)


def test_numpy_numbers_are_recorded_as_plain_ones():
    env = wrappers.NoisyReward(gym.make(ID, **SMALL), std=np.float32(0.5))
    env = wrappers.CoarseAction(wrappers.StarReward(env, stars=np.int64(3)), np.int64(2))
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.cell == 2
    assert again.env.feedback.stars == 3
    assert again.env.env.feedback.std == 0.5


@pytest.mark.parametrize("seed", [[5, 6], [None, 5], np.array([5, 6]), np.int64(5), torch.tensor([5, 6])], ids=repr)
def test_the_first_seed_of_several_seeds_the_noise(seed: Any):
    envs = twins.NoisyReward(gym.make_vec(ID, 2, device="cpu", **SMALL), std=1.0)
    expected = feedback.Noise(1.0)
    expected.restart(5)
    clean = gym.make_vec(ID, 2, device="cpu", **SMALL)
    for env in (envs, clean):
        env.reset(seed=seed, options={"index": 0})
    given, true = (env.step(action(0, 2))[4]["final_info"]["scores"] for env in (envs, clean))
    np.testing.assert_array_equal(given, expected(true))


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
def test_a_refused_reset_changes_no_memory(make: Any):
    env = wrap("BaselineReward", make(ID, **SMALL))
    env.reset(seed=0)
    env.step(np.zeros(env.action_space.shape, int))
    before = env.feedback._baseline
    with pytest.raises(gym.error.Error):
        env.reset(seed=-1)
    assert env.feedback._baseline is before


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("NoisyReward", {"std": -1}, "std must be a finite number of at least 0, got -1."),
        ("NoisyReward", {"std": float("nan")}, "std must be a finite number of at least 0, got nan."),
        ("StarReward", {"stars": 1}, "stars must be an integer of at least 2, got 1."),
        ("StarReward", {"stars": 2.5}, "got 2.5."),
        ("ThresholdReward", {"threshold": "half"}, "threshold must be a finite number, got 'half'."),
        ("DelayedReward", {"episodes": 0}, "episodes must be an integer of at least 1, got 0."),
        ("BaselineReward", {"decay": 1.5}, "decay must be a finite number from 0 to 1, got 1.5."),
        ("BaselineReward", {"initial": True}, "initial must be a finite number, got True."),
        ("PreferenceReward", {"temperature": -0.1}, "temperature must be a finite number of at least 0, got -0.1."),
        ("ShapedReward", {"shape": "cubic"}, "Unknown shape 'cubic'; valid: affine, power, log, logit."),
        ("ShapedReward", {"shape": "log", "epsilon": 0}, "shape='log' needs an epsilon above 0"),
        ("ShapedReward", {"epsilon": 0.6}, "epsilon must be a finite number from 0 to 0.5, got 0.6."),
        ("ShapedReward", {"exponent": -1}, "exponent must be a finite number of at least 0, got -1."),
    ],
)
def test_wrong_arguments_are_errors_that_say_what_is_right(name: str, arguments: dict[str, Any], message: str):
    for module, make in ((wrappers, gym.make), (twins, gym.make_vec)):
        with pytest.raises(OptionError) as caught:
            getattr(module, name)(make(ID, **SMALL), **arguments)
        assert message in str(caught.value)
