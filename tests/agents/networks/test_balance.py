"""Rare classes at less than even odds: what it does to label maps, and that it stays with a policy wherever it goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from agents import Likelihood, Supervised, export, load, predict
from agents import evaluate as evaluate_command
from agents.checksums import CHECKSUMS, add_checksums
from agents.errors import CheckpointError
from agents.networks.balance import LEAST, SLOW, Balanced, Shares
from agents.networks.checkpoints import load_policy, predict_label_maps, predict_logits, save_policy
from agents.networks.unet import UNet
from agents.training.loop import LOOK_EVERY
from agents.training.run_folder import STATE, RunFolder
from rss_env.errors import OptionError
from tests.agents.training.test_resume import run

CPU = torch.device("cpu")
SHARES = [0.9, 0.06, 0.04]
DESCRIBED = {"network": "unet", "network_options": {"width": 8}, "num_classes": 3, "class_shares": SHARES}
PHOTOS = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)


class Fixed(nn.Module):
    """The same logits whatever the images."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images), -1, -1, -1)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_policy(tmp_path / "weights.safetensors", UNet(3, 8), DESCRIBED)
    return tmp_path / "weights.safetensors"


def mean_iou(label_maps: np.ndarray, p: np.ndarray) -> float:
    """Of label maps (N,) and targets of which a share p[c, i] has class c at pixel i."""
    ious = []
    for c, chance in enumerate(p):
        chosen = label_maps == c
        ious.append(chance[chosen].sum() / (chosen.sum() + chance[~chosen].sum()))
    return float(np.mean(ious))


def test_a_rare_class_that_is_likely_nowhere_is_worth_its_pixels_to_the_mean_iou() -> None:
    p = np.full((2, 10), [[1.0], [0.0]])
    p[:, 0] = 0.6, 0.4  # a tenth of the pixels is of the rare class in two of five images
    network = Fixed(torch.tensor(p).clamp(min=1e-9).log().float().view(1, 2, 1, 10))
    images = np.zeros((1, 1, 10, 3), np.uint8)
    plain = predict_label_maps(network, images, CPU).ravel()
    balanced = predict_label_maps(Balanced(network, p.mean(axis=1).tolist(), 0.5), images, CPU).ravel()
    assert plain.tolist() == [0] * 10
    assert balanced.tolist() == [1] + [0] * 9
    assert mean_iou(plain, p) == pytest.approx(0.48)
    assert mean_iou(balanced, p) == pytest.approx((9 / 9.6 + 0.4) / 2)


def test_logits_are_less_by_a_part_of_the_logs_of_the_shares(stored: Path) -> None:
    plain, balanced = (load_policy(stored, CPU, balance)[0] for balance in (None, 0.7))
    found = predict_logits(balanced, PHOTOS, CPU) - predict_logits(plain, PHOTOS, CPU)
    expected = (-0.7 * np.log(SHARES))[:, None, None]
    np.testing.assert_allclose(found.numpy(), np.broadcast_to(expected, found.shape), rtol=1e-4)


def test_with_a_balance_of_one_a_policy_that_sees_nothing_in_images_has_no_preference() -> None:
    logits = torch.tensor(SHARES).log().view(1, 3, 1, 1)
    found = Balanced(Fixed(logits), SHARES, 1.0)(torch.zeros(2, 1, 1, 3))
    np.testing.assert_allclose(found.numpy(), 0, atol=1e-6)


def test_a_class_without_a_share_has_the_least_one() -> None:
    found = Balanced(Fixed(torch.zeros(1, 2, 1, 1)), [1.0, 0.0], 0.5)(torch.zeros(1, 1, 1, 3))
    np.testing.assert_allclose(found.ravel().numpy(), [0, -0.5 * np.log(LEAST)], rtol=1e-6)


def test_what_is_stored_of_a_balanced_network_are_the_weights_as_they_were_trained(stored: Path) -> None:
    network, description = load_policy(stored, CPU, 0.5)
    assert isinstance(network, Balanced)
    assert description == DESCRIBED | {"balance": 0.5}
    save_policy(stored.parent / "again.safetensors", network, description)
    again, kept = load_policy(stored.parent / "again.safetensors", CPU)
    assert kept == description
    for name, weights in load_policy(stored, CPU)[0].state_dict().items():
        assert torch.equal(weights, load_policy(stored.parent / "again.safetensors", CPU, 0.0)[0].state_dict()[name])
    torch.testing.assert_close(predict_logits(again, PHOTOS, CPU), predict_logits(network, PHOTOS, CPU))
    assert isinstance(load_policy(stored.parent / "again.safetensors", CPU, 0)[0], UNet)  # what is given goes first


@pytest.mark.parametrize("balance", [-0.1, float("nan"), float("inf")])
def test_a_balance_out_of_range_is_refused(stored: Path, balance: float) -> None:
    with pytest.raises(OptionError, match="balance must be a number from 0 on"):
        load_policy(stored, CPU, balance)


def test_without_shares_there_is_no_balance(tmp_path: Path) -> None:
    described = {key: value for key, value in DESCRIBED.items() if key != "class_shares"}
    save_policy(tmp_path / "old.safetensors", UNet(3, 8), described)
    with pytest.raises(OptionError, match="says how frequent its policy finds each class"):
        load_policy(tmp_path / "old.safetensors", CPU, 0.5)
    assert isinstance(load_policy(tmp_path / "old.safetensors", CPU, 0.0)[0], UNet)


@pytest.mark.parametrize("damage", [{"class_shares": [0.5, "x"]}, {"class_shares": [2.0]}, {"balance": -1}])
def test_a_description_with_wrong_numbers_is_damaged(tmp_path: Path, damage: dict[str, Any]) -> None:
    save_policy(tmp_path / "weights.safetensors", UNet(3, 8), DESCRIBED | damage)
    with pytest.raises(CheckpointError, match=f"wrong '{next(iter(damage))}'"):
        load_policy(tmp_path / "weights.safetensors", CPU)


def test_shares_of_another_number_of_classes_are_damage(tmp_path: Path) -> None:
    save_policy(tmp_path / "weights.safetensors", UNet(3, 8), DESCRIBED | {"class_shares": [0.5, 0.5]})
    with pytest.raises(CheckpointError, match="class_shares of 2 classes; its policy has 3"):
        load_policy(tmp_path / "weights.safetensors", CPU, 0.5)


def test_a_balance_without_shares_is_damage_where_nobody_asked_for_one(tmp_path: Path) -> None:
    described = {key: value for key, value in DESCRIBED.items() if key != "class_shares"} | {"balance": 0.5}
    save_policy(tmp_path / "weights.safetensors", UNet(3, 8), described)
    with pytest.raises(CheckpointError, match="a balance but no class_shares"):
        load_policy(tmp_path / "weights.safetensors", CPU)


def test_tiles_are_balanced_alike(stored: Path) -> None:
    plain, balanced = (predict_logits(load_policy(stored, CPU, tau)[0], PHOTOS, CPU, (8, 12)) for tau in (0, 0.5))
    expected = (-0.5 * np.log(SHARES))[:, None, None]
    np.testing.assert_allclose((balanced - plain).numpy(), np.broadcast_to(expected, plain.shape), rtol=1e-4)


def test_a_training_that_starts_from_a_balanced_policy_has_its_weights_and_no_balance(
    uneven_run: Path, tmp_path: Path
) -> None:
    load(uneven_run, balance=0.5).export(tmp_path / "policy", "folder")
    starts = {"plain": uneven_run, "balanced": tmp_path / "policy"}
    ends = [run(Supervised(), tmp_path / name, None, steps=2, init=str(start)) for name, start in starts.items()]
    assert "balance" not in ends[1].policy.description
    for one, other in zip(*(end.network.parameters() for end in ends), strict=True):
        assert torch.equal(one, other)


def test_processes_share_out_what_they_found() -> None:
    class Job:
        size = 2

        def mean(self, metrics: dict[str, float]) -> dict[str, float]:
            return {name: (value + 0.5) / 2 for name, value in metrics.items()}

    shares = Shares()
    shares.share_out(Job())  # type: ignore[arg-type]
    assert shares.mean is None
    shares.look([torch.tensor([0.9, 0.1]).log().view(1, 2, 1, 1)])
    shares.share_out(Job())  # type: ignore[arg-type]
    assert shares.description["class_shares"] == pytest.approx([0.7, 0.3])


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    stopped = run(Supervised(), tmp_path / "run", 3, steps=6)
    state = RunFolder(tmp_path / "run").read_state(stopped.checkpoint)
    del state["shares"]
    torch.save(state, stopped.checkpoint / STATE)
    (stopped.checkpoint / CHECKSUMS).unlink()
    add_checksums([file for file in stopped.checkpoint.iterdir() if file.is_file()])
    resumed = run(Supervised(), tmp_path / "run", None, steps=6, resume=True)
    assert resumed.finished
    assert sum(resumed.policy.description["class_shares"]) == pytest.approx(1, abs=1e-4)


def test_shares_are_a_running_mean_that_forgets() -> None:
    shares, generator = Shares(), torch.Generator().manual_seed(0)
    assert shares.description == {}
    looks = torch.randn(100, 2, 3, 4, 5, generator=generator)
    expected = np.zeros(3)
    for number, logits in enumerate(looks):
        shares.look(logits.chunk(2))
        weight = max(SLOW, 2 / (number + 2))
        expected = (1 - weight) * expected + weight * logits.softmax(dim=1).mean(dim=(0, 2, 3)).numpy()
    np.testing.assert_allclose(shares.description["class_shares"], expected, atol=2e-6)
    assert sum(shares.description["class_shares"]) == pytest.approx(1, abs=1e-5)
    again = Shares()
    again.load_state_dict(shares.state_dict(), CPU)
    for one in (shares, again):
        one.look([looks[0]])
    assert again.description == shares.description


def test_a_checkpoint_holds_the_shares_of_its_policy_and_a_resumed_run_the_same(tmp_path: Path) -> None:
    steps = 2 * LOOK_EVERY + 4
    whole = run(Supervised(), tmp_path / "whole", None, steps=steps)
    stopped = run(Supervised(), tmp_path / "stopped", LOOK_EVERY + 3, steps=steps)
    assert not stopped.finished
    resumed = run(Supervised(), tmp_path / "stopped", None, steps=steps, resume=True)
    kept = load_policy(tmp_path / "whole", CPU)[1]["class_shares"]
    assert kept == whole.policy.description["class_shares"] == resumed.policy.description["class_shares"]
    assert kept != stopped.policy.description["class_shares"]
    assert sum(kept) == pytest.approx(1, abs=1e-4)


@pytest.fixture(scope="module")
def uneven_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training on images that are mostly background."""
    folder = tmp_path_factory.mktemp("runs") / "uneven"
    run(Likelihood(samples_per_image=4), folder, None, steps=12, eval_every=12)
    return folder


def test_commands_balance(command: Callable[..., Any], uneven_run: Path, tmp_path: Path) -> None:
    measured = [
        json.loads(command(evaluate_command.main, uneven_run, "--json", *words).out)
        for words in ((), ("--balance", "0"), ("--balance", "3"))
    ]
    assert measured[0] == measured[1] != measured[2]
    Image.fromarray(PHOTOS[0]).save(tmp_path / "photo.png")
    for balance, folder in ((0, "plain"), (3, "balanced")):
        words = (uneven_run, tmp_path / "photo.png", "--out", tmp_path / folder, "--balance", balance)
        assert command(predict.main, *words).code == 0
        found = np.asarray(Image.open(tmp_path / folder / "photo.png"))
        np.testing.assert_array_equal(found, load(uneven_run, balance=balance).predict(PHOTOS[0]))
    assert (tmp_path / "plain" / "photo.png").read_bytes() != (tmp_path / "balanced" / "photo.png").read_bytes()
    ended = command(predict.main, uneven_run, tmp_path / "photo.png", "--balance", "-1")
    assert (ended.code, ended.err) == (2, "error: balance must be a number from 0 on, got -1.0.\n")


def test_what_is_exported_is_balanced(command: Callable[..., Any], uneven_run: Path, tmp_path: Path) -> None:
    policy = load(uneven_run, balance=3)
    expected = policy.predict(PHOTOS)
    assert (expected != load(uneven_run).predict(PHOTOS)).any()
    for format, file in (("folder", "policy"), ("torchscript", "policy.pt")):
        assert (
            command(export.main, uneven_run, "--format", format, "--out", tmp_path / file, "--balance", "3").code == 0
        )
    np.testing.assert_array_equal(load(tmp_path / "policy").predict(PHOTOS), expected)
    card = (tmp_path / "policy" / "README.md").read_text()
    assert "| balance | 3.0 |" in card
    assert "| validation miou, without the balance | " in card
    scripted = torch.jit.load(str(tmp_path / "policy.pt"))
    shown = PHOTOS[:, :16, :17]
    found = scripted(torch.from_numpy(shown)).argmax(dim=1).numpy()
    np.testing.assert_array_equal(found, predict_label_maps(policy.network, shown, CPU))
