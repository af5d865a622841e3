"""A trained network with what it takes to use it on photos: ``agents.load("runs/voc").predict("photo.jpg")``."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn

from rss_env import rendering
from rss_env.datasets.decode import read_image
from rss_env.errors import OptionError

from ..errors import CheckpointError
from . import NETWORKS
from .checkpoints import (
    check_description,
    find_weights,
    load_policy,
    predict_label_maps,
    predict_logits,
    read_description,
)
from .exporting import Exported, export
from .hub import HUB, fetch

Photo = np.ndarray | Image.Image | str | PathLike[str]
CHUNK = 16  # photos of a batch in one forward pass
USED = ("palette", "image_size", "resize")  # of the description, next to what the network needs


class Policy:
    """A trained network and the description that is stored with its weights.

    Photos are brought to the scale of the training images, whatever their size, and what comes back has the photo's
    size: every pixel gets what the network gave the pixel that it lies in.

    Args:
        network: uint8 (B, H, W, 3) -> logits (B, C, H, W).
        description: as in a checkpoint: ``class_names``, ``palette``, ``image_size``, ``resize``, how the network is
            made again, and how it was trained.

    Attributes:
        network: the ``torch.nn.Module``.
        description: what its checkpoint says about it.
    """

    def __init__(self, network: nn.Module, description: dict[str, Any]) -> None:
        self.network, self.description = network, description

    @property
    def class_names(self) -> list[str]:
        """C names."""
        unnamed = [f"class {number}" for number in range(self.description["num_classes"])]
        return list(self.description.get("class_names", unnamed))

    @property
    def palette(self) -> np.ndarray:
        """The colour of each class, uint8 (C, 3)."""
        return np.array(self.description["palette"], np.uint8)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next((parameter.device for parameter in self.network.parameters()), torch.device("cpu"))

    def predict(self, image: Photo, tile: tuple[int, int] | None = None) -> np.ndarray:
        """The most probable class of every pixel.

        Args:
            image: a photo: uint8 (H, W, 3), a PIL image, or the path of a file; or photos of one size, uint8
                (B, H, W, 3).
            tile: height and width of overlapping tiles that the network is given instead of whole photos.

        Returns:
            uint8 (H, W), or (B, H, W).

        Raises:
            OptionError: an array of another type or shape.
            DatasetError: the file cannot be read as a photo.
        """
        photos, one = _read(image)
        label_maps = np.empty(photos.shape[:3], np.uint8)
        for chunk in _chunks(len(photos)):
            seen = self._scale(photos[chunk])
            found = predict_label_maps(self.network, seen, self.device, tile)
            label_maps[chunk] = _enlarge(found, photos.shape[1:3])
        return label_maps[0] if one else label_maps

    def probabilities(self, image: Photo) -> np.ndarray:
        """The probability of each class at every pixel; their maximum is where ``predict`` has it.

        With a balance they are those of the adjusted logits, which say how much a class is worth choosing.

        Args:
            image: as for ``predict``.

        Returns:
            float32 (C, H, W), or (B, C, H, W).
        """
        photos, one = _read(image)
        probabilities = np.empty((len(photos), len(self.class_names), *photos.shape[1:3]), np.float32)
        for chunk in _chunks(len(photos)):
            found = predict_probabilities(self.network, self._scale(photos[chunk]), self.device)
            probabilities[chunk] = _enlarge(found, photos.shape[1:3])
        return probabilities[0] if one else probabilities

    def overlay(self, image: Photo, opacity: float = 0.5) -> np.ndarray:
        """The predicted label map laid over the photo in the colours of the classes.

        Args:
            image: as for ``predict``.
            opacity: of the label map, 0..1.

        Returns:
            uint8 (H, W, 3), or (B, H, W, 3).
        """
        photos, one = _read(image)
        laid = rendering.overlay(photos, self.predict(photos), self.palette, opacity)
        return laid[0] if one else laid

    def export(self, path: str | PathLike[str], format: str) -> Exported:
        """Writes the policy for other programs; see ``agents.networks.exporting.export``."""
        return export(self, Path(path), format)

    def _scale(self, photos: np.ndarray) -> np.ndarray:
        """Photos at the scale of the training images; nothing is padded or cut, as the network takes any size."""
        (height, width), resize = self.description["image_size"], self.description["resize"]
        given_height, given_width = photos.shape[1:3]
        size = (width, height)
        if resize != "stretch":
            choose = min if resize == "pad" else max
            scale = choose(width / given_width, height / given_height)
            size = (max(1, round(given_width * scale)), max(1, round(given_height * scale)))
        return np.stack([np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BILINEAR)) for p in photos])

    def __repr__(self) -> str:
        height, width = self.description["image_size"]
        names = self.class_names
        listed = ", ".join(names[:5]) + ", …" * (len(names) > 5)
        return f"Policy({self.description['network']}, {height}×{width} pixels, {len(names)} classes: {listed})"


def load(path: str | PathLike[str], device: str | torch.device = "cpu", balance: float | None = None) -> Policy:
    """Loads a trained policy.

    Args:
        path: a run folder (its newest checkpoint), a checkpoint folder, a ``.safetensors`` file, an exported folder, or
            ``"hub:USER/NAME"`` of the Hugging Face hub, with ``"@REVISION"`` at its end if wanted.
        device: where the policy goes.
        balance: how much rare classes are favoured, 0 or more; 0.5 is better than 0 for the mean IoU (see
            docs/python.md). ``Policy.probabilities`` and exports have it as well. None: as it was exported, or 0.

    Raises:
        CheckpointError: nothing there, damaged, not of this project, or its network cannot be made again. From the hub
            only networks of ``agents.networks.NETWORKS`` are loaded: the name of another one says which code to run.
        OptionError: ``hub:`` without the library ``huggingface_hub``; a ``balance`` that is negative, or of a
            checkpoint that does not say how frequent its policy finds each class.

    Example::

        policy = load("runs/voc")
        label_map = policy.predict("photo.jpg")  # uint8 (H, W)
    """
    from_hub = isinstance(path, str) and path.startswith(HUB)
    folder = fetch(str(path)) if from_hub else Path(path)
    if from_hub:
        name = read_description(find_weights(folder))["network"]
        if name not in NETWORKS:
            raise CheckpointError(
                f"The network of {path} is code of its own, {name!r}, which is not run unseen. If you trust it, load "
                f"its folder: {folder}"
            )
    network, description = load_policy(folder, torch.device(device), balance)
    check_description(description, USED, folder)
    return Policy(network.eval(), description)


def predict_probabilities(network: nn.Module, images: np.ndarray, device: torch.device) -> np.ndarray:
    """The policy's probabilities, as ``predict_label_maps``; uint8 (B, H, W, 3) -> float32 (B, C, H, W)."""
    return predict_logits(network, images, device).float().softmax(1).cpu().numpy()


def _read(image: Photo) -> tuple[np.ndarray, bool]:
    """Photos, uint8 (B, H, W, 3), and whether it was a single one."""
    if isinstance(image, str | PathLike):
        image = read_image(Path(image))
    elif isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):
            raise OptionError(f"image has Pillow mode {image.mode!r}; a photo must have 8 bits per channel.")
        image = ImageOps.exif_transpose(image).convert("RGBA").convert("RGB")  # a palette may be partly transparent
    photos = np.asarray(image)
    if photos.dtype != np.uint8 or photos.ndim not in (3, 4) or photos.shape[-1] != 3 or 0 in photos.shape[-3:]:
        raise OptionError(
            "image must be a photo, uint8 (H, W, 3), photos of one size, uint8 (B, H, W, 3), a PIL image or a path; "
            f"got {photos.dtype} {photos.shape}."
        )
    return (photos[None], True) if photos.ndim == 3 else (photos, False)


def _chunks(count: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]


def _enlarge(maps: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The nearest values at another size, as Pillow has them; (..., h, w) -> (..., H, W)."""
    rows, columns = (_nearest(old, new) for old, new in zip(maps.shape[-2:], size, strict=True))
    return maps[..., rows[:, None], columns]


def _nearest(old: int, new: int) -> np.ndarray:
    """Which of ``old`` pixels in a row each of ``new`` ones lies in, (new,)."""
    numbers = Image.fromarray(np.arange(old, dtype=np.int32)[None])
    return np.asarray(numbers.resize((new, 1), Image.Resampling.NEAREST))[0]
