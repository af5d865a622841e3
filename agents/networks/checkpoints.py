"""Weights on disk: one safetensors file whose metadata says how to make the network again and how to use it.

Next to the weights of a checkpoint lies a list of checksums, which loading a run folder or a checkpoint folder needs. A
``.safetensors`` file that is given by itself is compared with its checksum if there is such a list.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from rss_env.errors import OptionError

from ..checksums import check_file
from ..errors import CheckpointError
from . import make_network
from .balance import as_trained, balanced
from .tiles import tiled_logits

WEIGHTS = "weights.safetensors"
BEST = "best"  # the folder of a run's best policy, next to its checkpoints
EXPORTED = "model.safetensors"  # the same file in an exported folder, where others look for it
NEEDED = ("network", "network_options", "num_classes")  # in every description
VALID: dict[str, Callable[[Any], bool]] = {
    "network": lambda value: isinstance(value, str),
    "network_options": lambda value: isinstance(value, dict),
    "num_classes": lambda value: isinstance(value, int) and value > 0,
    "class_names": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "palette": lambda value: isinstance(value, list) and all(_are_integers(colour, 3, 0, 255) for colour in value),
    "image_size": lambda value: _are_integers(value, 2, 1),
    "resize": lambda value: value in ("pad", "crop", "stretch"),
    "training": lambda value: isinstance(value, dict),
    "class_shares": lambda value: isinstance(value, list) and all(_is_number(share, 1.0) for share in value),
    "balance": lambda value: _is_number(value, math.inf),
}


def save_policy(path: Path, network: nn.Module, description: dict[str, Any]) -> None:
    """Writes the weights as safetensors.

    Args:
        path: the file.
        network: the policy; of a ``Balanced`` one the weights as they were trained.
        description: ``network``, ``network_options`` and ``num_classes``, with which ``make_network`` makes it again,
            and what else a user of the weights needs; JSON-serialisable; kept as metadata. If the network has
            ``stored_options``, they take the place of ``network_options``: a pretrained network is made again without
            the weights that it started with.
    """
    description = description_to_store(network, description)
    path.touch()
    mode = path.stat().st_mode  # as the umask has it; safetensors makes a file of its own that only its owner may read
    save_model(as_trained(network), str(path), metadata={"policy": json.dumps(description)})
    path.chmod(mode)


def description_to_store(network: nn.Module, description: dict[str, Any]) -> dict[str, Any]:
    """The description with the options that make the network again, if they are not those that it was made with."""
    own = getattr(as_trained(network), "stored_options", None)
    return description if own is None else description | {"network_options": own}


def load_policy(
    path: str | Path, device: torch.device, balance: float | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Loads a policy and its description.

    Args:
        path: a run folder (its best policy if it keeps one, otherwise its newest checkpoint), a checkpoint folder, a
            ``.safetensors`` file, or an exported folder.
        device: where the policy goes.
        balance: how much rare classes are favoured; see ``balance``. None: as the description says, by default not.

    Raises:
        CheckpointError: nothing there, damaged, not a checkpoint of this project, or its network cannot be made again.
        OptionError: ``balance`` is negative, or the checkpoint does not say how frequent classes are.
    """
    file = find_weights(Path(path))
    check_file(file, required=Path(path).is_dir())
    description = read_description(file)
    balance = balance if balance is None else float(balance)
    try:
        network = make_network(description["network"], description["num_classes"], description["network_options"])
    except (OptionError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"The network of {file} cannot be made again: {error}") from error
    load_weights(network, file)
    network = balanced(network, description, balance).to(device)
    return network, description if balance is None else description | {"balance": balance}


def load_start(network: nn.Module, path: str | Path, num_classes: int, class_names: Sequence[str]) -> None:
    """Puts the weights of another run into a network.

    Args:
        network: of the same kind as the one that was saved.
        path: as for ``load_policy``.
        num_classes: C of the environment.
        class_names: its classes.

    Raises:
        CheckpointError: nothing there, damaged, or the weights of other classes or of another network.
    """
    file = find_weights(Path(path))
    check_file(file, required=Path(path).is_dir())
    check_classes(read_description(file), num_classes, path, class_names)
    load_weights(network, file)


def read_description(file: Path) -> dict[str, Any]:
    """The description that ``save_policy`` stored with the weights.

    Raises:
        CheckpointError: the file cannot be read, or has none that a policy can be made from.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"Cannot read the weights {file}: {error}.") from error
    if "policy" not in metadata:
        raise CheckpointError(f"{file} has no description of its policy; it was not written by this project.")
    try:
        description = json.loads(metadata["policy"])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"The description of the policy in {file} is damaged: {error}.") from error
    if not isinstance(description, dict):
        raise CheckpointError(f"The description of the policy in {file} is damaged: it is no JSON object.")
    check_description(description, NEEDED, file)
    return description


def check_description(description: dict[str, Any], needed: Iterable[str], file: str | Path) -> None:
    """Raises ``CheckpointError`` that names the first key of a description that is missing or has a wrong value."""
    for key in needed:
        if key not in description:
            raise CheckpointError(f"The description of the policy in {file} has no {key!r}.")
    for key, valid in VALID.items():
        if key in description and not valid(description[key]):
            shown = repr(description[key])
            raise CheckpointError(f"The description of the policy in {file} has a wrong {key!r}: {shown:.80}.")


def _is_number(value: Any, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most and value < math.inf


def _are_integers(value: Any, number: int, least: int, most: float = math.inf) -> bool:
    return (
        isinstance(value, list)
        and len(value) == number
        and all(isinstance(integer, int) and least <= integer <= most for integer in value)
    )


def load_weights(network: nn.Module, file: Path) -> None:
    """Puts stored weights into a network.

    Raises:
        CheckpointError: the file cannot be read, or holds the weights of another network.
    """
    try:
        load_model(network, file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"Cannot read the weights {file}: {error}.") from error
    except RuntimeError as error:
        said = textwrap.shorten(str(error).partition(":")[2] or str(error), 300, placeholder=" …")  # one line a weight
        raise CheckpointError(f"The weights in {file} are not those of this network: {said}") from error


def find_weights(path: Path) -> Path:
    """The ``.safetensors`` file of a run (best or newest), of a checkpoint or exported folder, or itself.

    Raises:
        CheckpointError: there is none.
    """
    if path.is_dir():
        best = path / "checkpoints" / BEST / WEIGHTS
        if best.is_file():
            return best
        checkpoints = find_checkpoints(path)
        if checkpoints:
            return checkpoints[-1] / WEIGHTS
        for name in (WEIGHTS, EXPORTED):
            if (path / name).is_file():
                return path / name
        raise CheckpointError(
            f"{path} holds no checkpoint: expected {WEIGHTS}, checkpoints/step-*/{WEIGHTS} or {EXPORTED}."
        )
    if not path.is_file():
        raise CheckpointError(f"No checkpoint at {path}.")
    return path


def find_checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoint folders of a run folder, oldest first."""
    return sorted((run_dir / "checkpoints").glob("step-" + 8 * "[0-9]"))


def check_classes(
    description: dict[str, Any], num_classes: int, source: str | Path, class_names: Sequence[str] | None = None
) -> None:
    """Raises ``CheckpointError`` if the policy was made for another number of classes, or for others by name."""
    if description["num_classes"] != num_classes:
        raise CheckpointError(
            f"{source} holds a policy for {description['num_classes']} classes, but the environment has {num_classes}."
        )
    for number, (own, other) in enumerate(zip(description.get("class_names", ()), class_names or (), strict=False)):
        if own != other and not {own, other} & {f"class {number}"}:  # which is no name
            raise CheckpointError(
                f"{source} holds a policy for other classes: its class {number} is {own!r}, the environment's "
                f"{other!r}."
            )


def predict_label_maps(
    network: nn.Module, images: np.ndarray, device: torch.device, tile: tuple[int, int] | None = None
) -> np.ndarray:
    """The policy's most probable label maps.

    Args:
        network: the policy, in any mode; it is put into evaluation mode for the pass and back again.
        images: uint8 (B, H, W, 3).
        device: where the policy is.
        tile: height and width of overlapping tiles that the network is given instead of whole images; see ``tiles``.

    Returns:
        uint8 (B, H, W).
    """
    return predict_logits(network, images, device, tile).argmax(1).to(torch.uint8).cpu().numpy()


def predict_logits(
    network: nn.Module, images: np.ndarray, device: torch.device, tile: tuple[int, int] | None = None
) -> torch.Tensor:
    """The policy's logits, (B, C, H, W), as ``predict_label_maps`` takes them."""
    was_training = network.training
    network.eval()
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        on_device = torch.from_numpy(images).to(device)
        logits: torch.Tensor = network(on_device) if tile is None else tiled_logits(network, on_device, tile)
    network.train(was_training)
    return logits
