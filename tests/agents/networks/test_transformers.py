"""Networks of transformers, tried on a tiny SegFormer with random weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import agents
from agents import Supervised, load_policy
from agents.errors import CheckpointError
from agents.networks import make_network
from agents.networks.checkpoints import save_policy
from agents.networks.libraries import IMAGENET
from rss_env.errors import OptionError

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'rss-env[transformers]'")
CPU = torch.device("cpu")
SIZES = {"depths": [1] * 4, "hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2]}
PROCESSOR = {"image_processor_type": "SegformerImageProcessor", "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2] * 3}


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """No bars, no reports of layers that are new."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity(before)
    transformers.logging.enable_progress_bar()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved SegFormer for four classes."""
    torch.manual_seed(0)
    config = transformers.SegformerConfig(num_labels=4, decoder_hidden_size=16, **SIZES)
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(tmp_path / "segformer")
    return tmp_path / "segformer"


def make(num_classes: int, folder: Path, **options: Any) -> Any:
    return make_network("transformers", num_classes, {"model": str(folder)} | options)


def draw_images(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))


def test_its_logits_are_the_models_own_at_the_size_of_the_image(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    network, images = make(4, folder).eval(), draw_images(2, 64, 96)
    model = transformers.SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    x = (images / 255 - torch.tensor(PROCESSOR["image_mean"])) / torch.tensor(PROCESSOR["image_std"])
    with torch.no_grad():
        coarse = model(pixel_values=x.permute(0, 3, 1, 2)).logits
        logits = network(images)
    assert coarse.shape == (2, 4, 16, 24)
    expected = F.interpolate(coarse, scale_factor=4, mode="bilinear", align_corners=False)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (16, 24), (33, 47), (70, 31)])
def test_any_image_size_works(folder: Path, size: tuple[int, int]) -> None:
    network = make(3, folder).eval()
    with torch.no_grad():
        assert network(draw_images(2, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_the_preprocessing_is_that_of_the_model_or_imagenets(folder: Path, name: str) -> None:
    assert make(3, folder).stored_options["preprocessing"] == IMAGENET
    stored = PROCESSOR if name.startswith("pre") else {"image_processor": PROCESSOR}
    (folder / name).write_text(json.dumps(stored))
    preprocessing = make(3, folder).stored_options["preprocessing"]
    assert preprocessing["mean"] == pytest.approx([127.5, 102, 76.5])
    assert preprocessing["std"] == pytest.approx([51] * 3)
    assert preprocessing["bgr"] is False
    own = {"mean": [1, 2, 3], "std": [4, 5, 6]}
    assert make(3, folder, preprocessing=own).stored_options["preprocessing"] == own


def test_a_model_with_blue_first_gets_blue_first(folder: Path) -> None:
    stored = {"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": True, "do_rescale": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(stored))
    network = make(3, folder)
    pixel = torch.tensor([255, 51, 0], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert network.preprocessing(pixel).flatten().tolist() == pytest.approx([0, 0.2, 1])


def test_all_but_the_last_layer_keeps_the_models_weights(folder: Path) -> None:
    network = make(7, folder)
    model = transformers.SegformerForSemanticSegmentation.from_pretrained(folder)
    mine, stored = network.model.state_dict(), model.state_dict()
    new = {name for name in stored if not torch.equal(mine[name], stored[name])}
    assert new == {"decode_head.classifier.weight", "decode_head.classifier.bias"}
    assert mine["decode_head.classifier.weight"].shape[0] == 7


@pytest.mark.parametrize("frozen", [False, True])
def test_a_checkpoint_needs_no_model_folder(folder: Path, tmp_path: Path, frozen: bool) -> None:
    options = {"model": str(folder), "frozen": frozen, "encoder_lr": 0.5, "classifier_dropout_prob": 0.3}
    result = agents.train(
        "RSS-Shapes-ImageReward-v0",
        Supervised(),
        network="transformers",
        network_options=options,
        image_size=(16, 24),
        env_kwargs={"difficulty": "easy", "num_classes": 3, "num_images": 4},
        batch_size=2,
        steps=2,
        progress=False,
        run_dir=str(tmp_path / "run"),
    )
    first = transformers.SegformerForSemanticSegmentation.from_pretrained(folder).segformer
    pairs = zip(first.parameters(), result.network.model.segformer.parameters(), strict=True)
    moved = [not torch.equal(then, now) for then, now in pairs]
    assert any(moved) is not frozen
    shutil.rmtree(folder)
    loaded, description = load_policy(tmp_path / "run", CPU)
    images = draw_images(2, 16, 24)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(images), result.network.eval()(images))
    assert loaded.model.config.classifier_dropout_prob == 0.3
    assert loaded.model.config.num_labels == 3
    assert "model" not in description["network_options"]
    assert str(folder) not in json.dumps(description)


def test_a_checkpoint_with_another_configuration_is_refused(folder: Path, tmp_path: Path) -> None:
    network = make(3, folder)
    network.stored_options["config"]["hidden_sizes"] = [8, 8, 16, 32]
    description = {"network": "transformers", "network_options": {}, "num_classes": 3}
    save_policy(tmp_path / "weights.safetensors", network, description)
    with pytest.raises(CheckpointError, match="not those of this network") as raised:
        load_policy(tmp_path / "weights.safetensors", CPU)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs the option model"),
        ({"model": "no/such/folder"}, "no/such/folder"),
        ({"model": "{folder}", "config": {"model_type": "segformer"}}, "needs the option model"),
        ({"model": "{folder}", "depth": 3}, "unknown option 'depth'"),
        ({"model": "{folder}", "trust_remote_code": True}, "trust_remote_code"),
        ({"model": "{bert}"}, "BertConfig"),
        ({"model": "{folder}", "encoder_lr": 0}, "encoder_lr"),
        ({"model": "{folder}", "preprocessing": {"mean": [0, 0, 0], "std": [1, 0, 1]}}, "std is out of range"),
        ({"model": "{folder}", "preprocessing": {"mean": [0, 0], "std": [1, 1, 1]}}, "mean must be three numbers"),
        ({"model": "{folder}", "preprocessing": {"scale": 2}}, "preprocessing must have mean, std"),
        ({"config": {"model_type": "no_such_type"}}, "no_such_type"),
    ],
)
def test_a_wrong_option_is_named_in_one_line(
    command: Callable[..., Any], folder: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    transformers.BertConfig(num_hidden_layers=1).save_pretrained(tmp_path / "bert")
    words = json.dumps(options).replace("{folder}", str(folder)).replace("{bert}", str(tmp_path / "bert"))
    with pytest.raises(OptionError) as raised:
        make_network("transformers", 3, json.loads(words))
    assert said in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
