"""Networks of segmentation_models_pytorch (https://smp.readthedocs.io): ``pip install 'rss-env[smp]'``."""

from __future__ import annotations

from typing import Any

import torch

from .fine_tuning import FineTuned, check_options
from .libraries import IMAGENET, errors_of, import_library, make_preprocessing
from .padding import pad


class SmpNetwork(FineTuned):
    """A network of ``segmentation_models_pytorch.create_model``; any image size works.

    Args:
        num_classes: C.
        arch: its architecture, such as ``"unet"`` or ``"fpn"``.
        encoder_name: its encoder, such as ``"resnet18"``.
        encoder_weights: what the encoder starts with, such as ``"imagenet"``; None: random weights.
        frozen: the encoder keeps its weights, and its pass keeps nothing for a backward pass.
        encoder_lr: factor of the learning rate for the encoder, > 0.
        preprocessing: arguments of ``Preprocessing``; default: that of the encoder's weights.
        **options: further arguments of ``create_model``.

    Raises:
        OptionError: the library is not installed or cannot make the network, or an option is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        arch: str = "unet",
        encoder_name: str = "resnet34",
        encoder_weights: str | None = "imagenet",
        frozen: bool = False,
        encoder_lr: float = 0.1,
        preprocessing: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        check_options(encoder_lr, frozen=frozen)
        smp = import_library("segmentation_models_pytorch", "smp")
        super().__init__()
        with errors_of("segmentation_models_pytorch"):
            self.model = smp.create_model(
                arch, encoder_name=encoder_name, encoder_weights=encoder_weights, classes=num_classes, **options
            )
            if preprocessing is None and encoder_weights is not None:
                preprocessing = _pixel_values(smp.encoders.get_preprocessing_params(encoder_name, encoder_weights))
        preprocessing = preprocessing or IMAGENET
        self.preprocessing = make_preprocessing(preprocessing)
        self.start_fine_tuning("model.encoder", frozen, encoder_lr)
        self.stored_options = options | {
            "arch": arch,
            "encoder_name": encoder_name,
            "encoder_weights": None,
            "frozen": frozen,
            "encoder_lr": encoder_lr,
            "preprocessing": preprocessing,
        }

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images, uint8 (B, H, W, 3) -> logits, float (B, C, H, W): the contract of ``agents.networks``."""
        height, width = images.shape[1:3]
        return self.model(pad(self.preprocessing(images)))[:, :, :height, :width]


def _pixel_values(known: dict[str, Any]) -> dict[str, Any]:
    """The library's preprocessing, for pixels from 0 to 255."""
    scale = 255 if known["input_range"][-1] == 1 else 1
    values = {name: [scale * value for value in known[name]] for name in ("mean", "std")}
    return values | {"bgr": known["input_space"] == "BGR"}
