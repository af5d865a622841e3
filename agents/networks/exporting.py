"""A policy for other programs: TorchScript, ONNX, or a folder that the Hugging Face hub shows as a model.

TorchScript and ONNX hold the network only, uint8 (B, H, W, 3) -> logits, float32 (B, C, H, W), and the description of
the policy as metadata, under the name ``policy.json`` and ``policy``. Bringing photos to the scale of the training
images, ``image_size`` and ``resize`` of the description, is up to the program.
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from rss_env.errors import OptionError

from ..checksums import add_checksums
from .checkpoints import EXPORTED, description_to_store, predict_logits, save_policy
from .libraries import import_library, one_line

if TYPE_CHECKING:
    from .policy import Policy

CPU = torch.device("cpu")
Network = Callable[[torch.Tensor], torch.Tensor]
OPSET = 17
TOLERANCE = 1e-3  # of the logits, relative to the largest


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file or folder.
        sizes: what images it takes: ``"any"`` size, or only those of ``(height, width)``.
    """

    path: Path
    sizes: Literal["any"] | tuple[int, int] = "any"

    def __str__(self) -> str:
        if self.sizes == "any":
            return f"{self.path}: takes images of any size"
        height, width = self.sizes
        return f"{self.path}: takes images of {height}×{width} pixels only"


def export(policy: Policy, path: Path, format: str) -> Exported:
    """Writes a policy for other programs.

    Args:
        policy: it stays as it is, where it is.
        path: the file, or the folder of ``"folder"``, which must be empty or missing.
        format: ``"torchscript"``, ``"onnx"`` (needs the libraries ``onnx`` and ``onnxruntime``) or ``"folder"``.

    Returns:
        What was written. It was run on random images of several sizes and gave the logits of the policy; where that
        holds for the training's ``image_size`` only, it takes no other size.

    Raises:
        OptionError: no such format, a library is missing, the folder is not empty, or the network cannot be exported.
    """
    if format not in FORMATS:
        raise OptionError(f"Unknown format {format!r}; valid: {', '.join(FORMATS)}.")
    if path.suffix == ".safetensors" or (format != "folder" and path.is_dir()):
        kind = "folder" if format == "folder" else "file"
        raise OptionError(f"{path} cannot hold a policy of format {format}; name a new {kind}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return FORMATS[format](policy, path)


def to_torchscript(policy: Policy, path: Path) -> Exported:
    """Writes what ``torch.jit.load`` loads, in Python or C++."""
    network, (height, width) = _on_cpu(policy), policy.description["image_size"]
    with _quietly():
        try:
            traced = torch.jit.trace(network, _random_images(2, height, width), check_trace=False)
        except Exception as error:  # whatever a network's code raises
            raise OptionError(f"The network cannot be traced for TorchScript: {_line(error)}") from error
        takes_any = _takes_any_size(network, traced, height, width)
        written = traced if takes_any else torch.jit.script(_OneSize(traced, height, width))
        _check(network, written, height, width)
        written.save(str(path), _extra_files={"policy.json": json.dumps(policy.description)})
    return Exported(path, "any" if takes_any else (height, width))


def to_onnx(policy: Policy, path: Path) -> Exported:
    """Writes an ONNX file with the input ``images`` and the output ``logits``."""
    onnx, runtime = (import_library(name, "export") for name in ("onnx", "onnxruntime"))
    network, (height, width) = _on_cpu(policy), policy.description["image_size"]
    any_size = {"images": {0: "batch", 1: "height", 2: "width"}, "logits": {0: "batch", 2: "height", 3: "width"}}

    def write(axes: dict[str, dict[int, str]]) -> bytes:
        with _quietly(), tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "model.onnx")
            try:  # the exporter that traces: the other one takes minutes to find that networks take any size
                torch.onnx.export(
                    network,
                    (_random_images(2, height, width),),
                    file,
                    dynamo=False,
                    input_names=list(axes)[:1],
                    output_names=list(axes)[1:],
                    dynamic_axes=axes,
                    opset_version=OPSET,
                )
            except Exception as error:  # an operation that ONNX lacks, or whatever a network's code raises
                raise OptionError(f"The network cannot be exported to ONNX: {_line(error)}") from error
            model = onnx.load(file)
        onnx.helper.set_model_props(model, {"policy": json.dumps(policy.description)})
        onnx.checker.check_model(model)
        return model.SerializeToString()

    def run(model: bytes) -> Callable[[torch.Tensor], torch.Tensor]:
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # a size that is not taken is found here, not reported
        session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    model = write(any_size)
    takes_any = _takes_any_size(network, run(model), height, width)
    if not takes_any:
        model = write({name: {0: "batch"} for name in any_size})
        _check(network, run(model), height, width)
    path.write_bytes(model)
    return Exported(path, "any" if takes_any else (height, width))


def to_folder(policy: Policy, path: Path) -> Exported:
    """Writes the weights, their description and a model card: what ``agents.load`` loads and ``agents.push`` pushes."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise OptionError(f"{path} exists; export to a new folder.")
    path.mkdir(exist_ok=True)
    try:
        save_policy(path / EXPORTED, policy.network, policy.description)
        config = json.dumps(description_to_store(policy.network, policy.description), indent=2, ensure_ascii=False)
        (path / "config.json").write_text(config + "\n", encoding="utf-8")
        (path / "README.md").write_text(model_card(policy, path.resolve().name), encoding="utf-8")
        add_checksums([path / EXPORTED])
    except BaseException:
        shutil.rmtree(path)
        raise
    return Exported(path)


FORMATS: dict[str, Callable[[Policy, Path], Exported]] = {
    "torchscript": to_torchscript,
    "onnx": to_onnx,
    "folder": to_folder,
}


def model_card(policy: Policy, name: str) -> str:
    """The README.md of a model: metadata for the hub, how to use it, its classes and how it was trained.

    Args:
        policy: the model.
        name: of the model.
    """
    described = policy.description
    training: dict[str, Any] = described.get("training", {})
    height, width = described["image_size"]
    how = {
        "environment": training.get("env_id"),
        "algorithm": training.get("algorithm"),
        "reward": training.get("reward"),
        "feedback": ", ".join(training.get("wrap", ())),
        "steps": training.get("step"),
        "label maps scored": training.get("reward_queries"),
        "network": described["network"],
        "image size": f"{height}×{width}, {described['resize']}",
        "balance": described.get("balance"),
    }
    validation: dict[str, float] = training.get("validation", {})
    plain = ", without the balance" if described.get("balance") else ""
    how |= {f"validation {key}{plain}": f"{value:.4f}" for key, value in validation.items()}
    rows = [(key, f"{value:,}" if isinstance(value, int) else str(value)) for key, value in how.items() if value]
    front = ["library_name: rss-env", "pipeline_tag: image-segmentation", "tags:"]
    front += [f"- {tag}" for tag in ("semantic-segmentation", "reinforcement-learning", "rss-env")]
    return "\n".join(
        [
            *("---", *front, "---", ""),
            f"# {_text(name)}",
            "",
            f"Semantic segmentation into {len(policy.class_names)} classes, trained with rss-env.",
            "",
            *("```python", "from rss_agents import load  # in a checkout: from agents import load", ""),
            *('policy = load("PATH")  # this folder, or "hub:USER/NAME"', 'label_map = policy.predict("photo.jpg")'),
            *("```", "", "## Training", "", *_table(("", ""), rows), ""),
            *("## Classes", "", *_table(("label", "class"), list(enumerate(policy.class_names))), ""),
        ]
    )


def _table(heading: tuple[str, str], rows: Iterable[tuple[Any, Any]]) -> list[str]:
    return [f"| {a} | {b} |" for a, b in (heading, ("---", "---"), *((_text(a), _text(b)) for a, b in rows))]


def _text(value: Any) -> str:
    """A value as one line of Markdown."""
    return " ".join(str(value).replace("|", "\\|").split())


def _on_cpu(policy: Policy) -> nn.Module:
    """A copy of the network, which the exporters may change."""
    network = copy.deepcopy(policy.network).to(CPU).eval()
    network.__dict__.pop("_compiled_call_impl", None)
    return network.requires_grad_(False)


def _random_images(count: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8))


def _takes_any_size(network: nn.Module, exported: Network, height: int, width: int) -> bool:
    """Whether what was exported gives the network's logits for random images of several sizes."""
    # An amount of padding, or another number that depends on the size, may have become fixed: these sizes show it.
    sizes = [(height, width), (height + 13, width + 6), (height + 45, width + 102), (2 * height + 32, width + 32)]
    return all(_agree(network, exported, 2, *size) for size in sizes)


def _check(network: nn.Module, exported: Network, height: int, width: int) -> None:
    if not _agree(network, exported, 1, height, width):
        raise OptionError("The network gives other logits when it is exported, so nothing was written.")


def _agree(network: nn.Module, exported: Network, *shape: int) -> bool:
    images = _random_images(*shape)
    expected = predict_logits(network, images.numpy(), CPU)
    try:
        with torch.no_grad():
            given = exported(images)
    except Exception:  # a size that it does not take, in whatever words its library says so
        return False
    return given.shape == expected.shape and bool((given - expected).abs().max() <= TOLERANCE * expected.abs().max())


@contextmanager
def _quietly() -> Iterator[None]:
    """Without gradients, and without warnings: torch calls its tracer old, and names numbers that become fixed."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


class _OneSize(nn.Module):
    """A network that refuses images of another size than the one that it is right for."""

    def __init__(self, network: nn.Module, height: int, width: int) -> None:
        super().__init__()
        self.network, self.height, self.width = network, height, width

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.size(1) == self.height, "wrong height of the images"
        assert images.size(2) == self.width, "wrong width of the images"
        return self.network(images)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error):.200}"
