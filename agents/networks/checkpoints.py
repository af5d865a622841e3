"""Weights on disk: one safetensors file whose metadata says how to make the network again and how to use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from rss_env.errors import OptionError

from ..errors import CheckpointError
from . import make_network


def save_policy(path: Path, network: nn.Module, description: dict[str, Any]) -> None:
    """Writes the weights as safetensors.

    Args:
        path: the file.
        network: the policy.
        description: ``network``, ``network_options`` and ``num_classes``, with which ``make_network`` makes it again,
            and what else a user of the weights needs; JSON-serialisable; kept as metadata.
    """
    save_model(network, str(path), metadata={"policy": json.dumps(description)})


def load_policy(path: str | Path, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """Loads a policy and its description.

    Args:
        path: a run folder (its newest checkpoint), a checkpoint folder, or a ``.safetensors`` file.
        device: where the policy goes.

    Raises:
        CheckpointError: nothing there, not a checkpoint of this project, or its network cannot be made again.
    """
    file = find_weights(Path(path))
    description = read_description(file)
    try:
        network = make_network(description["network"], description["num_classes"], description["network_options"])
    except OptionError as error:
        raise CheckpointError(f"The network of {file} cannot be made again: {error}") from error
    load_weights(network, file)
    return network.to(device), description


def read_description(file: Path) -> dict[str, Any]:
    """The description that ``save_policy`` stored with the weights.

    Raises:
        CheckpointError: the file cannot be read, or has none.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"Cannot read the weights {file}: {error}.") from error
    if "policy" not in metadata:
        raise CheckpointError(f"{file} has no description of its policy; it was not written by this project.")
    return json.loads(metadata["policy"])


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
        raise CheckpointError(f"The weights in {file} are not those of this network: {error}") from error


def find_weights(path: Path) -> Path:
    """The ``.safetensors`` file that a run folder, a checkpoint folder or the file itself stands for."""
    if path.is_dir():
        candidates = [path / "weights.safetensors", *sorted(path.glob("checkpoints/step-*/weights.safetensors"))]
        found = [candidate for candidate in candidates if candidate.is_file()]
        if not found:
            raise CheckpointError(
                f"{path} holds no checkpoint: expected weights.safetensors or checkpoints/step-*/weights.safetensors."
            )
        return found[-1]
    if not path.is_file():
        raise CheckpointError(f"No checkpoint at {path}.")
    return path


def check_classes(description: dict[str, Any], num_classes: int, source: str | Path) -> None:
    """Raises ``CheckpointError`` if the policy was made for another number of classes."""
    if description["num_classes"] != num_classes:
        raise CheckpointError(
            f"{source} holds a policy for {description['num_classes']} classes, but the environment has {num_classes}."
        )


def predict_label_maps(network: nn.Module, images: np.ndarray, device: torch.device) -> np.ndarray:
    """The policy's most probable label maps.

    Args:
        network: the policy, in any mode; it is put into evaluation mode for the pass and back again.
        images: uint8 (B, H, W, 3).
        device: where the policy is.

    Returns:
        uint8 (B, H, W).
    """
    was_training = network.training
    network.eval()
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        logits = network(torch.from_numpy(images).to(device))
    network.train(was_training)
    return logits.argmax(1).to(torch.uint8).cpu().numpy()
