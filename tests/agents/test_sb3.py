"""The dense policy and its training by Stable-Baselines3's own loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO

from agents.checksums import check_folder
from agents.errors import CheckpointError
from agents.networks.sb3_policy import DensePolicy, PixelCategorical, PixelRolloutBuffer, distinct
from agents.sb3 import GroupBaseline, SB3Arguments, make_envs, predict_label_maps, train_sb3
from rss_env.errors import OptionError
from rss_env.integrations.sb3 import SegmentationVecEnv

TINY: dict[str, Any] = {
    "image_size": (16, 17),
    "env_kwargs": {"num_images": 8, "num_classes": 3},
    "images": 2,
    "samples_per_image": 4,
    "network_options": {"width": 8},
    "progress": False,
}


def draw_logits(shape: tuple[int, ...] = (2, 4, 3, 5)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_log_probabilities_and_entropy_are_those_of_torchs_categorical() -> None:
    logits = draw_logits()
    oracle = torch.distributions.Categorical(logits=logits.permute(0, 2, 3, 1).reshape(2, 15, 4))
    maps = oracle.sample()
    one, many = PixelCategorical(logits), PixelCategorical(logits, pixel_ratio=True)
    torch.testing.assert_close(many.log_prob(maps), oracle.log_prob(maps))
    torch.testing.assert_close(one.log_prob(maps), oracle.log_prob(maps).sum(dim=1))
    torch.testing.assert_close(one.entropy(), oracle.entropy().mean(dim=1))
    assert torch.equal(one.mode(), logits.flatten(2).argmax(dim=1))


def test_label_maps_follow_the_distribution() -> None:
    # 20,000 draws of 15 pixels: no frequency is off by more than 6 standard deviations, which a right sampler exceeds
    # with a probability below 10^-6 over all of them.
    torch.manual_seed(0)
    logits = draw_logits((1, 4, 3, 5))
    distribution = PixelCategorical(logits.expand(20_000, -1, -1, -1))
    drawn = torch.nn.functional.one_hot(distribution.sample(), 4).float().mean(dim=0)  # (15, 4)
    p = logits.flatten(2).softmax(dim=1)[0].T
    assert ((drawn - p).abs() <= 6 * (p * (1 - p) / 20_000).sqrt()).all()


def test_the_different_images_of_a_batch_and_whose_each_is() -> None:
    images = torch.randint(0, 256, (3, 4, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = images[torch.tensor([1, 0, 1, 2, 0, 1])]
    found, rows = distinct(batch.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1))  # in any memory format
    assert rows.tolist() == [0, 1, 0, 2, 1, 0]
    assert torch.equal(found, images[torch.tensor([1, 0, 2])])


def dense_policy(ratio: str, **options: Any) -> DensePolicy:
    """A policy for images of 4×5 pixels and 3 classes."""
    torch.manual_seed(0)
    images, label_maps = spaces.Box(0, 255, (4, 5, 3), np.uint8), spaces.MultiDiscrete([3] * 20)
    return DensePolicy(images, label_maps, lambda _: 1e-3, pixel_ratio=ratio == "pixel", **options)


@pytest.mark.parametrize("ratio", ["image", "pixel"])
def test_an_image_that_is_shown_several_times_is_seen_once_and_nothing_else_changes(ratio: str) -> None:
    once, apart = dense_policy(ratio), dense_policy(ratio)
    apart.once = False
    seen: list[int] = []
    once.network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    images = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    batch = images[torch.tensor([0, 1, 0, 0, 1])]
    outputs = []
    for policy in (once, apart):
        torch.manual_seed(2)
        label_maps, values, log_probs = policy(batch)
        again, log_probs_again, entropy = policy.evaluate_actions(batch, label_maps)
        most_probable = policy(batch, deterministic=True)[0]
        weights = torch.arange(1.0, 6.0)  # each copy pulls at the weights by itself
        pull = log_probs_again.reshape(5, -1).sum(1) + entropy + again[:, 0]
        (weights * pull).sum().backward()
        gradients = [weight.grad for weight in policy.parameters()]
        outputs.append([label_maps, values, log_probs, again, log_probs_again, entropy, most_probable, *gradients])
    assert seen == [2, 2, 2]
    assert torch.equal(outputs[0][0], outputs[1][0])  # the draws, bit by bit
    assert (outputs[0][0][0] != outputs[0][0][2]).any()  # copies of an image have draws of their own
    for one, other in zip(*outputs, strict=True):
        largest = float(other.detach().abs().max())  # gradients sum such parts in an order that the processor chooses
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * max(1.0, largest))


def test_a_network_whose_copies_of_an_image_differ_sees_all_of_them() -> None:
    policy = dense_policy("pixel", network="tests.agents.test_sb3:WithDropout")
    seen: list[int] = []
    policy.network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    policy(torch.zeros((3, 4, 5, 3), dtype=torch.uint8))
    assert seen == [3]


class WithDropout(torch.nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head, self.dropout = torch.nn.Conv2d(3, num_classes, 1), torch.nn.Dropout()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(images.permute(0, 3, 1, 2).float()))


@pytest.mark.parametrize("algo", [PPO, A2C])
@pytest.mark.parametrize("ratio", ["image", "pixel"])
def test_sb3_trains_saves_and_loads_the_dense_policy(algo: Any, ratio: str, tmp_path: Path) -> None:
    arguments = SB3Arguments(algo=algo.__name__.lower(), ratio=ratio, **TINY)  # type: ignore[arg-type]
    arguments.reward_queries, arguments.run_dir = 32, str(tmp_path / "run")
    model, evaluation = train_sb3(arguments)
    assert model.num_timesteps == 32
    assert evaluation.images == 8
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["val/miou"] == evaluation.miou
    assert rows[-1]["time/reward_queries"] == 32
    assert rows[-1]["time/seconds"] > 0
    check_folder(tmp_path / "run", ["model.zip"])
    check_folder(tmp_path / "run" / "checkpoints", ["rl_model_8_steps.zip", "rl_model_32_steps.zip"])
    again = algo.load(tmp_path / "run" / "model.zip")
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 17, 3), np.uint8)
    label_maps = predict_label_maps(again, images)
    assert label_maps.shape == (3, 16, 17)
    assert np.array_equal(label_maps, predict_label_maps(model, images))
    assert again.policy.pixel_ratio == (ratio == "pixel")


def test_a_model_to_start_from_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    shared = TINY | {"reward_queries": 8}
    train_sb3(SB3Arguments(run_dir=str(tmp_path / "run"), **shared))
    model, other = tmp_path / "run" / "model.zip", tmp_path / "other.zip"
    train_sb3(SB3Arguments(run_dir=str(tmp_path / "again"), resume=str(model), **shared))
    other.write_bytes(model.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"other\.zip is no SB3 model of this kind, or is damaged"):
        train_sb3(SB3Arguments(run_dir=str(tmp_path / "third"), resume=str(other), **shared))
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.zip is damaged: it does not fit its checksum"):
        train_sb3(SB3Arguments(run_dir=str(tmp_path / "third"), resume=str(model), **shared))
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize("group_baseline", [False, True])
def test_the_mean_score_of_all_label_maps_since_the_last_evaluation_is_logged(
    group_baseline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []

    class Recorded(SegmentationVecEnv):
        def step_wait(self) -> Any:
            result = super().step_wait()
            given.extend(result[1])
            return result

    monkeypatch.setattr("agents.sb3.SegmentationVecEnv", Recorded)
    arguments = SB3Arguments(**TINY | {"evaluations": 2, "group_baseline": group_baseline})  # type: ignore[arg-type]
    arguments.reward_queries, arguments.run_dir = 32, str(tmp_path / "run")
    train_sb3(arguments)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(given) == 32
    assert [row["time/reward_queries"] for row in rows] == [16, 32]
    assert [row["reward/mean"] for row in rows] == pytest.approx([np.mean(given[:16]), np.mean(given[16:])], rel=1e-6)


def test_the_first_ratio_is_one_and_each_pixel_has_its_own(tmp_path: Path) -> None:
    envs = SegmentationVecEnv("RSS-Shapes-ImageReward-v0", 4, image_size=(16, 17), num_images=8)
    model = PPO(
        DensePolicy,
        envs,
        n_steps=1,
        batch_size=4,
        n_epochs=1,
        policy_kwargs={"network_options": {"width": 8}, "pixel_ratio": True},
        rollout_buffer_class=PixelRolloutBuffer,
    )
    model.learn(4)
    assert model.logger.name_to_value["train/clip_fraction"] == 0  # old and new policy are the same
    assert abs(model.logger.name_to_value["train/approx_kl"]) < 1e-6
    batch = next(iter(model.rollout_buffer.get(4)))
    assert batch.old_log_prob.shape == (4, 16 * 17)
    assert batch.advantages.shape == (4, 1)


def test_the_images_of_a_group_are_the_same_and_rewards_are_compared_within_it() -> None:
    envs = make_envs(SB3Arguments(**TINY))
    assert isinstance(envs, GroupBaseline)
    images = envs.reset()
    for _ in range(3):
        assert isinstance(images, np.ndarray)
        grouped = images.reshape(2, 4, 16, 17, 3)
        assert (grouped == grouped[:, :1]).all()
        label_maps = np.random.default_rng(0).integers(0, 3, (8, 16 * 17))
        images, rewards, _, infos = envs.step(label_maps)
        scores = np.array([info["episode"]["r"] for info in infos]).reshape(2, 4)
        expected = [[scores[b, k] - np.delete(scores[b], k).mean() for k in range(4)] for b in range(2)]
        np.testing.assert_allclose(rewards.reshape(2, 4), expected, atol=1e-6)


def test_the_stock_policy_trains_on_images_that_it_can_take(tmp_path: Path) -> None:
    shared = TINY | {"image_size": (36, 36), "policy": "stock", "reward_queries": 16}
    _, evaluation = train_sb3(SB3Arguments(run_dir=str(tmp_path / "run"), **shared))
    assert evaluation.images == 8
    with pytest.raises(OptionError, match=r"36×36 on, got 16×17"):
        train_sb3(SB3Arguments(run_dir=str(tmp_path / "small"), **TINY | {"policy": "stock"}))


def test_an_action_space_that_is_no_label_map_is_refused() -> None:
    space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="flat label map of 16×16"):
        DensePolicy(space, spaces.MultiDiscrete([3] * 100), lambda _: 1e-3)
    with pytest.raises(ValueError, match="flat label map"):
        DensePolicy(space, spaces.Discrete(3), lambda _: 1e-3)


def test_the_dense_policy_learns_easy_shapes(tmp_path: Path) -> None:
    arguments = SB3Arguments(
        image_size=(16, 16),
        env_kwargs={"difficulty": "easy", "num_classes": 2},
        reward_queries=6400,
        network_options={"width": 8},
        evaluations=1,
        progress=False,
        run_dir=str(tmp_path / "run"),
    )
    _, evaluation = train_sb3(arguments)
    constant = gym.make_vec("RSS-Shapes-ImageReward-v0", 1, image_size=(16, 16), difficulty="easy", num_classes=2)
    assert constant is not None
    assert evaluation.miou > 0.6  # all background is below 0.5 whatever the images


def scores_given(**arguments: Any) -> np.ndarray:
    """The rewards of two steps of random label maps, (2, 8)."""
    envs = make_envs(SB3Arguments(**TINY | {"group_baseline": False} | arguments))
    envs.reset()
    draw = np.random.default_rng(0)
    return np.stack([envs.step(draw.integers(0, 3, (8, 16 * 17)))[1] for _ in range(2)])


def test_the_environments_have_the_reward_and_the_options_that_are_asked_for() -> None:
    plain = scores_given(reward="pixel_accuracy")
    np.testing.assert_allclose(scores_given(reward="tests.rewards.own:agreement"), plain, rtol=1e-6)
    own = scores_given(reward="tests.rewards.own:agreement_of_all", reward_options={"scale": 2, "shift": 1})
    np.testing.assert_allclose(own, 2 * plain + 1, rtol=1e-6)
    assert (scores_given(reward_options={"class_weights": [0, 1, 1]}) != scores_given()).all()


@pytest.mark.parametrize("kind", ["noise", "delay", "preference"])
def test_feedback_that_needs_one_label_map_trains(kind: str, tmp_path: Path) -> None:
    arguments = SB3Arguments(**TINY, wrap=(kind,), reward_queries=16, run_dir=str(tmp_path / "run"))
    if kind == "preference":
        with pytest.raises(OptionError, match="A preference compares the samples of an image"):
            train_sb3(arguments)
        return
    train_sb3(arguments)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["reward"], config["reward_options"], config["wrap"]) == (None, {}, [kind])
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite(rows[-1]["reward/mean"])
    assert kind != "delay" or rows[-1]["reward/mean"] == 0  # two episodes of each environment, of four that are paid


def test_feedback_stacks_around_the_scores() -> None:
    assert set(scores_given(wrap=("noise:0.1", "stars:3")).ravel().tolist()) <= {0.0, 0.5, 1.0}


def test_reward_options_that_are_no_dict_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"reward_options must be a JSON object, got \[1\]"):
        train_sb3(SB3Arguments(**TINY, reward_options=[1], run_dir=str(tmp_path / "run")))  # type: ignore[arg-type]
