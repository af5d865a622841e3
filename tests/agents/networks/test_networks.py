"""Anybody's network, named as ``module:factory``, is a policy like those of the table."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import agents
from agents import Likelihood, Supervised, evaluate, load_policy, predict, predict_label_maps
from agents.errors import CheckpointError
from agents.networks import make_network, name_of
from agents.networks.checkpoints import save_policy
from agents.training.loop import Result
from rss_env.errors import OptionError

CPU = torch.device("cpu")
MODULE = "rss_networks_of_a_test"
SOURCE = """
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self, num_classes, hidden, dropout):
        super().__init__()
        self.enter = nn.Conv2d(3, hidden, 3, padding=1)
        self.norm = nn.BatchNorm2d(hidden)
        self.drop = nn.Dropout(dropout)
        self.leave = nn.Conv2d(hidden, num_classes, 1)

    def forward(self, images):
        x = images.permute(0, 3, 1, 2).float() / 255
        return self.leave(self.drop(torch.relu(self.norm(self.enter(x)))))


class Tied(Small):
    def __init__(self, num_classes, hidden=4):
        super().__init__(num_classes, hidden, 0.0)
        self.again = nn.Conv2d(3, hidden, 3, padding=1)
        self.again.weight = self.enter.weight

    def forward(self, images):
        x = images.permute(0, 3, 1, 2).float() / 255
        return self.leave(torch.relu(self.norm(self.enter(x)) + self.again(1 - x)))


class Remembering(Small):
    # keeps the ramp that it makes in its first pass

    def __init__(self, num_classes):
        super().__init__(num_classes, 4, 0.0)
        self.ramp = None

    def forward(self, images):
        if self.ramp is None:
            self.ramp = torch.linspace(0.5, 1, images.shape[2])
        return super().forward(images) * self.ramp


class Misshapen(Small):
    def __init__(self, num_classes, give):
        super().__init__(num_classes, 4, 0.0)
        self.give = give

    def forward(self, images):
        logits = super().forward(images)
        return {
            "one class more": torch.cat([logits, logits[:, :1]], 1),
            "half the size": logits[:, :, ::2, ::2],
            "channels last": logits.movedim(1, -1),
            "labels": logits.argmax(1),
            "integers": logits.long(),
            "a dict": {"out": logits},
        }[self.give]


def small(num_classes, hidden=4, dropout=0.2):
    return Small(num_classes, hidden, dropout)


def no_options(num_classes):
    return Small(num_classes, 4, 0.0)


def no_module(num_classes):
    return "a string"


anonymous = lambda num_classes: Small(num_classes, 4, 0.0)
constant = 3
"""
ENV_KWARGS = {"difficulty": "easy", "num_classes": 3, "num_images": 4}
ARGUMENTS: dict[str, Any] = {
    "image_size": (16, 24),
    "env_kwargs": ENV_KWARGS,
    "batch_size": 2,
    "steps": 3,
    "checkpoint_every": 1,
    "log_every": 1,
    "progress": False,
}
WORDS: list[Any] = ["--image-size", 16, 24, "--env-kwargs", json.dumps(ENV_KWARGS), "--batch-size", 2, "--no-progress"]
WORDS += ["--steps", 3, "--checkpoint-every", 1, "--log-every", 1]


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module with networks that this project knows nothing of; it is forgotten after the test."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / f"{MODULE}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    yield importlib.import_module(MODULE)
    sys.modules.pop(MODULE, None)


def train_small(run_dir: Path, network: Any, **arguments: Any) -> Result:
    return agents.train(
        "RSS-Shapes-ImageReward-v0", Supervised(), network=network, run_dir=str(run_dir), **(ARGUMENTS | arguments)
    )


def stored_description(run_dir: Path) -> dict[str, Any]:
    return load_policy(run_dir, CPU)[1]


def assert_same_weights(network: nn.Module, other: nn.Module) -> None:
    weights, others = network.state_dict(), other.state_dict()
    assert weights.keys() == others.keys()
    assert not [name for name in weights if not torch.equal(weights[name], others[name])]


@pytest.mark.parametrize("by_name", [False, True], ids=["factory", "name"])
def test_a_factory_trains_and_the_checkpoint_makes_it_again(networks: Any, tmp_path: Path, by_name: bool) -> None:
    network = f"{MODULE}:small" if by_name else networks.small
    result = train_small(tmp_path / "run", network, network_options={"hidden": 6})
    assert result.finished
    assert isinstance(result.network, networks.Small)
    torch.manual_seed(1)
    first = networks.small(3, hidden=6)
    moved = [
        not torch.equal(now, then) for now, then in zip(result.network.parameters(), first.parameters(), strict=True)
    ]
    assert all(moved)
    assert result.network.norm.num_batches_tracked == 3  # once a step: neither the check nor a validation counts
    loaded, description = load_policy(tmp_path / "run", CPU)
    assert_same_weights(loaded, result.network)
    assert description["network"] == f"{MODULE}:small"
    assert description["network_options"] == {"hidden": 6}
    assert description["num_classes"] == 3


def test_the_command_line_trains_the_same_network_as_python(
    command: Callable[..., Any], networks: Any, tmp_path: Path
) -> None:
    words = ["--network", f"{MODULE}:small", "--network-options", '{"hidden": 6, "dropout": 0.5}']
    outcome = command(Supervised, *WORDS, *words, "--run-dir", tmp_path / "command")
    assert (outcome.code, outcome.err) == (0, "")
    result = train_small(tmp_path / "python", networks.small, network_options={"hidden": 6, "dropout": 0.5})
    loaded, description = load_policy(tmp_path / "command", CPU)
    assert_same_weights(loaded, result.network)
    assert description == stored_description(tmp_path / "python")


def test_a_factory_learns_from_scores_with_several_micro_batches(networks: Any, tmp_path: Path) -> None:
    options = {"network": networks.small, "accumulation_steps": 2, "run_dir": str(tmp_path / "run")}
    result = agents.train("RSS-Shapes-ImageReward-v0", Likelihood(samples_per_image=3), **(ARGUMENTS | options))
    assert result.finished
    assert all(weights.isfinite().all() for weights in result.network.state_dict().values())


def test_a_network_that_keeps_what_its_first_pass_made_trains(networks: Any, tmp_path: Path) -> None:
    assert train_small(tmp_path / "run", networks.Remembering).finished


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_resumed_run_ends_like_one_that_was_never_stopped(
    command: Callable[..., Any], networks: Any, tmp_path: Path, dropout: float
) -> None:
    options: dict[str, Any] = {"network_options": {"dropout": dropout}, "steps": 4}
    whole = train_small(tmp_path / "whole", networks.small, **options)
    stopped = tmp_path / "stopped"
    train_small(stopped, networks.small, **options)
    shutil.rmtree(stopped / "checkpoints" / "step-00000004")  # as if it had been stopped after step 3
    assert [path.name for path in stopped.glob("checkpoints/step-*")] == ["step-00000003"]
    outcome = command(Supervised, "--run-dir", stopped, "--resume")
    assert (outcome.code, outcome.err) == (0, "")
    assert (stopped / "checkpoints" / "step-00000004").is_dir()
    assert_same_weights(load_policy(stopped, CPU)[0], whole.network)  # running means of the normalisation included


def test_resuming_with_another_network_is_refused(command: Callable[..., Any], networks: Any, tmp_path: Path) -> None:
    train_small(tmp_path / "run", networks.small)
    outcome = command(Supervised, "--run-dir", tmp_path / "run", "--resume", "--network", f"{MODULE}:no_options")
    assert outcome.code == 2
    assert f"network '{MODULE}:small' -> '{MODULE}:no_options'" in outcome.err
    outcome = command(Supervised, "--run-dir", tmp_path / "run", "--resume", "--network-options", '{"hidden": 8}')
    assert outcome.code == 2
    assert "network_options {} -> {'hidden': 8}" in outcome.err


def test_evaluate_measures_it_as_training_did(command: Callable[..., Any], networks: Any, tmp_path: Path) -> None:
    result = train_small(tmp_path / "run", networks.small, network_options={"dropout": 0.9})
    assert result.evaluation is not None
    outcome = command(evaluate.main, tmp_path / "run", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    measured = json.loads(outcome.out)
    assert measured["miou"] == result.evaluation.miou
    assert measured["pixel_accuracy"] == result.evaluation.pixel_accuracy


def test_predict_segments_a_photo_without_dropout(command: Callable[..., Any], networks: Any, tmp_path: Path) -> None:
    result = train_small(tmp_path / "run", networks.small, network_options={"dropout": 0.9})
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    outcome = command(
        predict.main, tmp_path / "run", tmp_path / "photo.png", "--out", tmp_path / "out", "--no-progress"
    )
    assert (outcome.code, outcome.err) == (0, "")
    with torch.inference_mode():
        expected = result.network.eval()(torch.from_numpy(pixels[None])).argmax(1)[0].numpy()
    with Image.open(tmp_path / "out" / "photo.png") as label_map:
        np.testing.assert_array_equal(np.asarray(label_map), expected)


def test_label_maps_are_predicted_without_dropout_and_leave_the_network_as_it_was(networks: Any) -> None:
    network = networks.small(3, dropout=0.9).train()
    before = {name: weights.clone() for name, weights in network.state_dict().items()}
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    first, second = (predict_label_maps(network, images, CPU) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert network.training
    assert network.norm.training
    assert not [name for name, weights in network.state_dict().items() if not torch.equal(weights, before[name])]


def test_tied_weights_stay_tied(networks: Any, tmp_path: Path) -> None:
    network, file = networks.Tied(3), tmp_path / "weights.safetensors"
    save_policy(file, network, {"network": f"{MODULE}:Tied", "network_options": {}, "num_classes": 3})
    assert sum(name in load_file(file) for name in ("enter.weight", "again.weight")) == 1
    loaded, _ = load_policy(file, CPU)
    assert loaded.enter.weight is loaded.again.weight
    assert_same_weights(loaded, network)


def test_a_run_with_tied_weights_resumes(command: Callable[..., Any], networks: Any, tmp_path: Path) -> None:
    train_small(tmp_path / "run", networks.Tied)
    before, _ = load_policy(tmp_path / "run", CPU)
    outcome = command(Supervised, "--run-dir", tmp_path / "run", "--resume", "--steps", 5)
    assert (outcome.code, outcome.err) == (0, "")
    after, _ = load_policy(tmp_path / "run", CPU)
    assert after.enter.weight is after.again.weight
    assert not torch.equal(after.enter.weight, before.enter.weight)


# What is wrong with a network ----------------------------------------------------------------------------------------


def test_a_factory_that_cannot_be_imported_again_is_refused(networks: Any, tmp_path: Path) -> None:
    def local(num_classes: int) -> nn.Module:
        return networks.small(num_classes)

    for factory in (lambda num_classes: networks.small(num_classes), local, networks.anonymous, networks.small(3)):
        with pytest.raises(OptionError, match="imported again") as raised:
            train_small(tmp_path / "run", factory)
        assert repr(factory) in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_a_factory_is_named_by_its_module(networks: Any) -> None:
    assert name_of(networks.small) == f"{MODULE}:small"
    assert name_of(networks.Small) == f"{MODULE}:Small"
    assert name_of("unet") == "unet"


WRONG: list[tuple[str, dict[str, Any], list[str]]] = [
    ("deeplab", {}, ["unet", "module:factory"]),
    ("", {}, ["unet", "module:factory"]),
    (f"{MODULE}:", {}, ["unet", "module:factory"]),
    (":small", {}, ["unet", "module:factory"]),
    ("rss_no_such_module:small", {}, ["cannot be imported", "rss_no_such_module"]),
    (f"{MODULE}.deeper:small", {}, ["cannot be imported", f"{MODULE}.deeper"]),
    (".relative:small", {}, []),
    (f"{MODULE}:large", {}, [MODULE, "has no 'large'"]),
    (f"{MODULE}:constant", {}, ["must be callable", "int"]),
    (f"{MODULE}:no_module", {}, ["must be a torch.nn.Module", "str"]),
    ("builtins:dict", {}, []),
    (f"{MODULE}:small", {"depth": 3}, ["depth", "its options: hidden, dropout"]),
    (f"{MODULE}:no_options", {"depth": 3}, ["depth", "its options: none"]),
    (f"{MODULE}:Misshapen", {}, ["give"]),
    *(
        (f"{MODULE}:Misshapen", {"give": give}, ["uint8 (1, 16, 24, 3)", "float (1, 3, 16, 24)", came])
        for give, came in {
            "one class more": "torch.float32 (1, 4, 16, 24)",
            "half the size": "torch.float32 (1, 3, 8, 12)",
            "channels last": "torch.float32 (1, 16, 24, 3)",
            "labels": "torch.int64 (1, 16, 24)",
            "integers": "torch.int64 (1, 3, 16, 24)",
            "a dict": "dict",
        }.items()
    ),
]


@pytest.mark.parametrize(
    ("name", "options", "fragments"), WRONG, ids=[f"{name} {json.dumps(options)}" for name, options, _ in WRONG]
)
@pytest.mark.usefixtures("networks")
def test_a_wrong_network_is_named_in_one_line_and_leaves_no_run_behind(
    command: Callable[..., Any], tmp_path: Path, name: str, options: dict[str, Any], fragments: list[str]
) -> None:
    with pytest.raises(OptionError) as raised:
        train_small(tmp_path / "run", name, network_options=options)
    words = ["--network", name, "--network-options", json.dumps(options), "--run-dir", tmp_path / "run"]
    outcome = command(Supervised, *WORDS, *words)
    assert (outcome.code, outcome.err, outcome.out) == (2, f"error: {raised.value}\n", "")
    assert len(outcome.err.splitlines()) == 1
    for fragment in (repr(name), *fragments):
        assert fragment in outcome.err
    assert not (tmp_path / "run").exists()


def test_options_that_cannot_be_stored_are_refused_before_there_is_a_run(networks: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="network_options"):
        train_small(tmp_path / "run", networks.small, network_options={"hidden": np.int64(4)})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("error", ["AttributeError", "NameError"])
def test_an_error_inside_a_module_is_not_taken_for_a_missing_factory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    (tmp_path / f"rss_raises_{error.lower()}.py").write_text(f"raise {error}('of the module itself')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Exception, match="of the module itself"):
        make_network(f"rss_raises_{error.lower()}:make", 3)


@pytest.mark.parametrize("gone", ["module", "factory", "option"])
def test_a_checkpoint_whose_network_is_gone_says_so(
    command: Callable[..., Any], networks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    result = train_small(tmp_path / "run", networks.small, network_options={"hidden": 6})
    if gone == "module":
        (tmp_path / "modules" / f"{MODULE}.py").unlink()
        monkeypatch.delitem(sys.modules, MODULE)
        importlib.invalidate_caches()
    elif gone == "factory":
        monkeypatch.delattr(networks, "small")
    else:
        monkeypatch.setattr(networks, "small", networks.no_options)
    said = {"module": "cannot be imported", "factory": "has no 'small'", "option": "hidden"}[gone]
    with pytest.raises(CheckpointError) as raised:
        load_policy(tmp_path / "run", CPU)
    for main, words in (
        (evaluate.main, [tmp_path / "run"]),
        (predict.main, [tmp_path / "run", "photo.png", "--out", tmp_path / "out"]),
    ):
        outcome = command(main, *words)
        assert (outcome.code, outcome.err, outcome.out) == (2, f"error: {raised.value}\n", "")
        assert len(outcome.err.splitlines()) == 1
    for fragment in (f"'{MODULE}:small'", str(result.checkpoint / "weights.safetensors"), said):
        assert fragment in str(raised.value)
    outcome = command(Supervised, "--run-dir", tmp_path / "run", "--resume", "--steps", 5)
    assert outcome.code == 2
    assert f"'{MODULE}:small'" in outcome.err
    assert said in outcome.err
    assert not (tmp_path / "out").exists()
