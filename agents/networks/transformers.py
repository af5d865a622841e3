"""Segmentation networks of transformers, the library: ``pip install 'rss-env[transformers]'``."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from rss_env.errors import OptionError

from .fine_tuning import FineTuned, check_options
from .libraries import IMAGENET, errors_of, import_library, make_preprocessing
from .padding import pad

FILES = {"cache_dir", "local_files_only", "revision", "subfolder"}  # options that say where a model's files are


class TransformersNetwork(FineTuned):
    """A network of ``AutoModelForSemanticSegmentation``, such as SegFormer; any image size works.

    Its last layer is a new one for C classes. A checkpoint holds its configuration, so that neither the hub nor the
    folder is needed to make it again.

    Args:
        num_classes: C.
        model: name on the hub, or a folder.
        frozen: the encoder keeps its weights, and its pass keeps nothing for a backward pass.
        encoder_lr: factor of the learning rate for the encoder, > 0.
        preprocessing: arguments of ``Preprocessing``; default: that of the model's image processor, or ImageNet's.
        config: a whole configuration, instead of a model: random weights.
        **options: ``revision``, ``subfolder``, ``cache_dir``, ``local_files_only``, or values of the configuration.

    Raises:
        OptionError: transformers is not installed or cannot make the network, or an option is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        model: str = "",
        frozen: bool = False,
        encoder_lr: float = 0.1,
        preprocessing: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        check_options(encoder_lr, frozen=frozen)
        if bool(model) == bool(config):
            raise OptionError("The network transformers needs the option model: a name on the hub, or a folder.")
        library = import_library("transformers", "transformers")
        super().__init__()
        with errors_of("transformers"):
            if config:
                if options:
                    raise ValueError(f"next to config there is no {next(iter(options))!r}")
                made = library.AutoConfig.for_model(**config)
                self.model = library.AutoModelForSemanticSegmentation.from_config(made).float()
            else:
                files = {name: value for name, value in options.items() if name in FILES}
                made = _read_config(library, model, options, num_classes)
                self.model = library.AutoModelForSemanticSegmentation.from_pretrained(
                    model, config=made, ignore_mismatched_sizes=True, **files
                ).float()
                preprocessing = preprocessing or _read_preprocessing(library, model, files)
            encoder = _encoder_of(self.model)
        preprocessing = preprocessing or IMAGENET
        self.preprocessing = make_preprocessing(preprocessing)
        self.start_fine_tuning(f"model.{encoder}", frozen, encoder_lr)
        self.stored_options = {
            "frozen": frozen,
            "encoder_lr": encoder_lr,
            "preprocessing": preprocessing,
            "config": {name: value for name, value in made.to_dict().items() if name != "_name_or_path"},
        }

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images, uint8 (B, H, W, 3) -> logits, float (B, C, H, W): the contract of ``agents.networks``."""
        height, width = images.shape[1:3]
        x = pad(self.preprocessing(images))
        logits = self.model(pixel_values=x).logits
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)[:, :, :height, :width]


def _encoder_of(model: Any) -> str:
    """Name of the submodule that is not the segmentation's own."""
    for name in (model.base_model_prefix, "backbone"):
        if isinstance(getattr(model, name, None), nn.Module):
            return name
    raise LookupError(f"where the encoder of {type(model).__name__} is, is not known")


def _read_config(library: Any, model: str, options: dict[str, Any], num_classes: int) -> Any:
    """The configuration of a model, with the options and without heads whose logits nobody sees."""
    if "trust_remote_code" in options:  # loading a checkpoint must not run what somebody put on the hub
        raise ValueError("trust_remote_code: a checkpoint could not make it again; write module:factory")
    config, left = library.AutoConfig.from_pretrained(model, return_unused_kwargs=True, **options)
    unknown = sorted(left.keys() - FILES)
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}")
    config.num_labels = num_classes
    if hasattr(config, "use_auxiliary_head"):
        config.use_auxiliary_head = False
    return config


def _read_preprocessing(library: Any, model: str, files: dict[str, Any]) -> dict[str, Any] | None:
    """What the image processor of a model does to the pixels; None if the model has none."""
    names = ("preprocessor_config.json", "processor_config.json")
    cached_file = library.utils.cached_file
    if not any(cached_file(model, name, _raise_exceptions_for_missing_entries=False, **files) for name in names):
        return None
    processor = library.AutoImageProcessor.from_pretrained(model, **files)
    scale = processor.rescale_factor if processor.do_rescale else 1
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0] * 3, [1] * 3)
    return {
        "mean": [value / scale for value in mean],
        "std": [value / scale for value in std],
        "bgr": bool(getattr(processor, "do_flip_channel_order", False)),
    }
