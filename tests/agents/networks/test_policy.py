"""A policy from Python: photos in, label maps, probabilities and pictures of the photo's size out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from agents import Policy, export, load, push
from agents.errors import CheckpointError
from agents.networks import name_of
from agents.networks import policy as policies
from agents.networks.checkpoints import load_policy, predict_label_maps, save_policy
from agents.networks.efficientnet import EfficientNetLite0
from agents.networks.unet import UNet
from rss_env import rendering
from rss_env.errors import DatasetError, OptionError
from rss_env.evaluation import evaluate
from tests.agents.conftest import ENV_KWARGS

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
DESCRIBED = {"network": "unet", "network_options": {"width": 8}, "num_classes": 3}
PHOTOS = RNG.integers(0, 256, (3, 20, 50, 3), dtype=np.uint8)  # trained at 16 × 24


@pytest.fixture(scope="module")
def policy(finished_run: Path) -> Policy:
    return load(finished_run)


class FixedPadding(torch.nn.Module):
    """A network whose padding a tracer cannot follow."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.unet = UNet(num_classes, 8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height = int(images.shape[1])
        x = torch.nn.functional.pad(images, (0, 0, 0, 0, 0, -height % 32))
        return self.unet(x)[:, :, :height]


def policy_of(network: torch.nn.Module) -> Policy:
    described = {"network": name_of(type(network)), "network_options": {}, "num_classes": 3, "resize": "pad"}
    return Policy(network.eval(), described | {"image_size": [32, 48], "palette": [[0, 0, 0]] * 3})


@pytest.fixture(scope="module")
def fixed_padding() -> Policy:
    return policy_of(FixedPadding(3))


def test_every_form_of_a_photo_gives_the_same_label_map_of_its_size(policy: Policy, tmp_path: Path) -> None:
    photo = PHOTOS[0]
    Image.fromarray(photo).save(tmp_path / "photo.png")
    expected = policy.predict(photo)
    assert (expected.dtype, expected.shape) == (np.uint8, (20, 50))
    assert len(np.unique(expected)) > 1
    for form in (Image.fromarray(photo), Image.fromarray(photo).convert("RGBA"), tmp_path / "photo.png"):
        np.testing.assert_array_equal(policy.predict(form), expected)
    np.testing.assert_array_equal(policy.predict(str(tmp_path / "photo.png")), expected)
    assert policy.network.training is False


def test_a_photo_turned_by_its_camera_is_turned_upright(policy: Policy, tmp_path: Path) -> None:
    turned = Image.fromarray(PHOTOS[0])
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        np.testing.assert_array_equal(policy.predict(image), policy.predict(tmp_path / "turned.png"))
        assert policy.predict(image).shape == (50, 20)


def test_a_batch_is_its_photos_one_by_one(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    one_by_one = [np.stack([get(photo) for photo in PHOTOS]) for get in (policy.predict, policy.probabilities)]
    monkeypatch.setattr(policies, "CHUNK", 2)
    np.testing.assert_array_equal(policy.predict(PHOTOS), one_by_one[0])
    np.testing.assert_allclose(policy.probabilities(PHOTOS), one_by_one[1], atol=1e-6)
    assert policy.predict(PHOTOS[:0]).shape == (0, 20, 50)


def test_probabilities_add_up_to_one_and_are_largest_at_the_predicted_class(policy: Policy) -> None:
    probabilities = policy.probabilities(PHOTOS[0])
    assert (probabilities.dtype, probabilities.shape) == (np.float32, (3, 20, 50))
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(probabilities.argmax(0), policy.predict(PHOTOS[0]))


def test_photos_of_the_training_size_are_given_to_the_network_as_they_are(policy: Policy, finished_run: Path) -> None:
    network, description = load_policy(finished_run, CPU)
    photos = RNG.integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    np.testing.assert_array_equal(policy.predict(photos), predict_label_maps(network, photos, CPU))
    assert policy.description == description
    assert policy.class_names == ["background", "disk", "square"]
    np.testing.assert_array_equal(policy.palette, description["palette"])
    assert repr(policy) == "Policy(unet, 16×24 pixels, 3 classes: background, disk, square)"


def test_an_overlay_is_the_prediction_laid_over_the_photo(policy: Policy) -> None:
    expected = rendering.overlay(PHOTOS[0], policy.predict(PHOTOS[0]), policy.palette, 0.3)
    np.testing.assert_array_equal(policy.overlay(PHOTOS[0], 0.3), expected)
    np.testing.assert_array_equal(policy.overlay(PHOTOS, 0.3)[0], expected)


def test_a_policy_can_be_evaluated(policy: Policy, finished_run: Path) -> None:
    rows = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    result = evaluate(policy.predict, "RSS-Shapes-ImageReward-v0", image_size=(16, 24), **ENV_KWARGS)
    assert result.miou == [row["val/miou"] for row in rows if "val/miou" in row][-1]
    assert policy.description["training"]["validation"] == result.metrics


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((20, 50, 3), np.float32),
        np.zeros((20, 50), np.uint8),
        np.zeros((20, 50, 4), np.uint8),
        np.zeros((0, 50, 3), np.uint8),
        Image.new("I;16", (50, 20)),
    ],
)
def test_what_is_no_photo_is_refused(policy: Policy, wrong: Any) -> None:
    with pytest.raises(OptionError, match=r"^image "):
        policy.predict(wrong)


def test_a_file_that_is_no_photo_is_named(policy: Policy, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"missing\.jpg"):
        policy.predict(tmp_path / "missing.jpg")


@pytest.mark.parametrize(("old", "new"), [(7, 20), (20, 7), (1, 5), (24, 24), (13, 256)])
def test_enlarging_is_what_pillow_does(old: int, new: int) -> None:
    label_map = RNG.integers(0, 256, (old, 2 * old), dtype=np.uint8)
    expected = Image.fromarray(label_map).resize((3 * new, new), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(policies._enlarge(label_map[None], (new, 3 * new))[0], np.asarray(expected))


# Export ---------------------------------------------------------------------------------------------------------------


def logits(policy: Policy, images: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return policy.network(torch.from_numpy(images))


def test_torchscript_gives_the_logits_for_images_of_any_size(policy: Policy, tmp_path: Path) -> None:
    written = policy.export(tmp_path / "new" / "policy.pt", "torchscript")
    assert str(written) == f"{tmp_path}/new/policy.pt: takes images of any size"
    described = {"policy.json": ""}
    loaded = torch.jit.load(str(written.path), _extra_files=described)
    torch.testing.assert_close(loaded(torch.from_numpy(PHOTOS)), logits(policy, PHOTOS), rtol=1e-4, atol=1e-5)
    assert json.loads(described["policy.json"]) == policy.description


def test_a_network_that_cannot_be_traced_for_any_size_takes_one_only(fixed_padding: Policy, tmp_path: Path) -> None:
    written = fixed_padding.export(tmp_path / "policy.pt", "torchscript")
    assert str(written).endswith("takes images of 32×48 pixels only")
    loaded, images = torch.jit.load(str(written.path)), RNG.integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    torch.testing.assert_close(loaded(torch.from_numpy(images)), logits(fixed_padding, images), rtol=1e-4, atol=1e-5)
    with pytest.raises(torch.jit.Error, match="wrong height"):
        loaded(torch.from_numpy(PHOTOS))


@pytest.mark.parametrize("name", ["unet", "efficientnet", "fixed padding"])
def test_onnx_gives_the_logits(policy: Policy, fixed_padding: Policy, name: str, tmp_path: Path) -> None:
    onnx, runtime = (
        pytest.importorskip(name, reason=f"needs {name}: pip install 'rss-env[export]'")
        for name in ("onnx", "onnxruntime")
    )
    efficientnet = policy_of(EfficientNetLite0(3, pretrained=False, width=8))
    exported = {"unet": policy, "efficientnet": efficientnet, "fixed padding": fixed_padding}[name]
    any_size = name != "fixed padding"
    written = exported.export(tmp_path / "policy.onnx", "onnx")
    assert written.sizes == ("any" if any_size else (32, 48))
    session = runtime.InferenceSession(str(written.path), providers=["CPUExecutionProvider"])
    images = RNG.integers(0, 256, (2, *((61, 98) if any_size else (32, 48)), 3), dtype=np.uint8)
    (given,) = session.run(["logits"], {"images": images})
    np.testing.assert_allclose(given, logits(exported, images), rtol=1e-3, atol=1e-4)
    (stored,) = [entry.value for entry in onnx.load(str(written.path)).metadata_props if entry.key == "policy"]
    assert json.loads(stored) == exported.description
    if not any_size:
        with pytest.raises(Exception, match="invalid dimensions"):
            session.run(None, {"images": PHOTOS})


def test_without_its_libraries_onnx_is_one_line(
    command: Callable[..., Any], finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    outcome = command(export.main, finished_run, "--format", "onnx", "--out", tmp_path / "policy.onnx")
    assert outcome.code == 2
    assert outcome.err.startswith("error: The library onnx: ")
    assert outcome.err.endswith("pip install 'rss-env[export]'.\n")
    assert outcome.err.count("\n") == 1


def test_an_exported_folder_is_loaded_again_and_says_what_it_is(
    command: Callable[..., Any], policy: Policy, finished_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shapes"
    outcome = command(export.main, finished_run, "--out", folder)
    assert (outcome.code, outcome.out) == (0, f"{folder}: takes images of any size\n")
    again = load(folder)
    assert again.description == policy.description == json.loads((folder / "config.json").read_text())
    np.testing.assert_array_equal(again.predict(PHOTOS), policy.predict(PHOTOS))
    front, card = (folder / "README.md").read_text().removeprefix("---\n").split("\n---\n")
    assert "library_name: rss-env\npipeline_tag: image-segmentation\ntags:\n- semantic-segmentation\n" in front
    assert card.startswith("\n# shapes\n")
    validation = policy.description["training"]["validation"]
    for row in (
        "| environment | RSS-Shapes-ImageReward-v0 |",
        "| algorithm | Likelihood |",
        "| reward | mean_iou |",
        "| steps | 6 |",
        "| label maps scored | 36 |",
        "| image size | 16×24, pad |",
        f"| validation miou | {validation['miou']:.4f} |",
        "| 1 | disk |",
    ):
        assert f"\n{row}\n" in card
    twice = command(export.main, folder, "--out", folder)
    assert (twice.code, twice.err) == (2, f"error: {folder} exists; export to a new folder.\n")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(CheckpointError, match="is damaged"):
        load(folder)


@pytest.mark.parametrize(("name", "format"), [("a", "onyx"), ("weights.safetensors", "torchscript"), ("", "onnx")])
def test_formats_and_names_that_do_not_go_are_refused(policy: Policy, name: str, format: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="format"):
        policy.export(tmp_path / name, format)
    assert not list(tmp_path.iterdir())


# The hub --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for huggingface_hub that keeps repositories in a folder."""
    root = tmp_path / "hub"
    root.mkdir()

    def upload_folder(*, repo_id: str, folder_path: str, commit_message: str) -> None:
        for file in Path(folder_path).iterdir():
            (root / repo_id / file.name).write_bytes(file.read_bytes())

    def snapshot_download(repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        if not (root / repo_id).is_dir():
            raise OSError(f"404: {repo_id}\nnot found")
        assert {file.name for file in (root / repo_id).iterdir()} - {"README.md"} == set(allow_patterns)
        library.revisions.append(revision)
        return str(root / repo_id)

    def create_repo(repo_id: str, *, private: bool, exist_ok: bool) -> None:
        (root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    library = SimpleNamespace(create_repo=create_repo, snapshot_download=snapshot_download, revisions=[], root=root)
    library.upload_folder = upload_folder
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)  # type: ignore[arg-type]
    return library


def test_a_policy_that_is_pushed_can_be_loaded_from_the_hub(policy: Policy, hub: SimpleNamespace) -> None:
    assert push(policy, "me/shapes") == "hub:me/shapes"
    for name in ("hub:me/shapes", "hub:me/shapes@v1"):
        np.testing.assert_array_equal(load(name).predict(PHOTOS), policy.predict(PHOTOS))
    assert hub.revisions == [None, "v1"]
    assert "\n# shapes\n" in (hub.root / "me" / "shapes" / "README.md").read_text()


def test_a_model_that_is_not_there_is_one_line(hub: SimpleNamespace) -> None:
    with pytest.raises(CheckpointError, match=r"^Cannot fetch hub:me/none: 404: me/none not found$"):
        load("hub:me/none")


def test_code_that_a_model_of_the_hub_names_is_not_run(
    hub: SimpleNamespace, fixed_padding: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(fixed_padding, "me/own")
    with pytest.raises(CheckpointError, match=r"code of its own, .*:FixedPadding', which is not run unseen") as raised:
        load("hub:me/own")
    assert str(raised.value).endswith(str(hub.root / "me" / "own"))
    assert isinstance(load(hub.root / "me" / "own"), Policy)


def test_without_its_library_the_hub_is_one_line(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for act in (lambda: load("hub:me/shapes"), lambda: push(policy, "me/shapes")):
        with pytest.raises(OptionError, match=r"^The library huggingface_hub: .*pip install 'rss-env\[hub\]'\.$"):
            act()


def test_weights_without_what_photos_need_are_refused(tmp_path: Path) -> None:
    save_policy(tmp_path / "w.safetensors", UNet(3, 8), DESCRIBED)
    with pytest.raises(CheckpointError, match="palette"):
        load(tmp_path / "w.safetensors")
