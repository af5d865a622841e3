"""A U-Net on an encoder of timm (https://huggingface.co/docs/timm): ``pip install 'rss-env[timm]'``."""

from __future__ import annotations

from typing import Any

import torch

from .decoder import Decoder
from .fine_tuning import FineTuned, check_options
from .libraries import errors_of, import_library, make_preprocessing


class TimmUNet(FineTuned):
    """The project's decoder on the features of an encoder of timm.

    Args:
        num_classes: C.
        encoder_name: a model of timm that gives features, such as ``"resnet18"`` or ``"convnext_atto.d2_in1k"``.
        pretrained: start with timm's weights of it.
        frozen: the encoder keeps its weights, and its pass keeps nothing for a backward pass.
        encoder_lr: factor of the learning rate for the encoder, > 0.
        width: channels of the decoder's finest level, a multiple of 8.
        preprocessing: arguments of ``Preprocessing``; default: timm's of this model.
        **options: further arguments of ``timm.create_model``, such as ``img_size``.

    Raises:
        OptionError: timm is not installed or cannot make the encoder, or an option is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        encoder_name: str,
        pretrained: bool = True,
        frozen: bool = False,
        encoder_lr: float = 0.1,
        width: int = 32,
        preprocessing: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        check_options(encoder_lr, pretrained=pretrained, frozen=frozen)
        timm = import_library("timm", "timm")
        super().__init__()
        with errors_of("timm"):
            self.encoder = timm.create_model(encoder_name, pretrained=pretrained, features_only=True, **options)
            channels = self.encoder.feature_info.channels()
        self.channels_last = getattr(self.encoder, "output_fmt", "NCHW") == "NHWC"
        self.decoder = Decoder(channels, num_classes, width)
        if preprocessing is None:
            known = self.encoder.pretrained_cfg
            preprocessing = {name: [255 * value for value in known[name]] for name in ("mean", "std")}
        self.preprocessing = make_preprocessing(preprocessing)
        self.start_fine_tuning("encoder", frozen, encoder_lr)
        self.stored_options = options | {
            "encoder_name": encoder_name,
            "pretrained": False,
            "frozen": frozen,
            "encoder_lr": encoder_lr,
            "width": width,
            "preprocessing": preprocessing,
        }

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images, uint8 (B, H, W, 3) -> logits, float (B, C, H, W): the contract of ``agents.networks``."""
        features = self.encoder(self.preprocessing(images))
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        return self.decoder(features, images.shape[1:3])
