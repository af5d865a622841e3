"""The networks that can be a policy, and the contract that any other one keeps.

A network is a ``torch.nn.Module`` that turns the images of an environment into logits:

    uint8 (B, H, W, 3), RGB  ->  float (B, C, H, W)

Normalising the images is its own business. It is made by a factory, called as ``factory(num_classes=C, **options)``:
one of the table ``NETWORKS``, or anybody's, named as ``module:factory``. The name and the options, which must be
JSON-serialisable, are stored in every checkpoint, so that the network can be made again.

    python -m agents.likelihood --network efficientnet_lite0 --network-options '{"frozen": true}'
    python -m agents.likelihood --network my_networks:deeplab --network-options '{"pretrained": true}'

Two attributes of a network are optional: ``learning_rate_factors`` of its parts (``fine_tuning.parameter_groups``) and
``stored_options``, which make it again from a checkpoint (``checkpoints.save_policy``). Networks of other libraries are
adapters, files of this folder with a line in ``NETWORKS``; the libraries are imported when they are asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from rss_env.errors import OptionError
from rss_env.named import find_callable

Factory = Callable[..., nn.Module]
NETWORKS = {  # imported when they are asked for
    "unet": f"{__name__}.unet:UNet",
    "efficientnet_lite0": f"{__name__}.efficientnet:EfficientNetLite0",
    "smp": f"{__name__}.smp:SmpNetwork",
    "timm": f"{__name__}.timm:TimmUNet",
    "transformers": f"{__name__}.transformers:TransformersNetwork",
}


def make_network(name: str, num_classes: int, options: dict[str, Any] | None = None) -> nn.Module:
    """Makes a network.

    Args:
        name: key of ``NETWORKS``, or ``module:factory``.
        num_classes: C.
        options: further arguments of the factory.

    Raises:
        OptionError: there is no such network, it does not take these options, or what the factory gives is no module.

    Example:
        >>> make_network("unet", 5, {"width": 8})(torch.zeros(1, 32, 48, 3, dtype=torch.uint8)).shape
        torch.Size([1, 5, 32, 48])
    """
    if options and "num_classes" in options:
        raise OptionError(f"The network {name!r}: num_classes is the environment's, {num_classes}; leave it out.")
    factory, given = find_factory(name), {"num_classes": num_classes} | (options or {})
    try:
        signature = inspect.signature(factory)
    except ValueError as error:  # a built-in type has none
        raise OptionError(f"The network {name!r}: {error}.") from None
    try:
        signature.bind(**given)
    except TypeError as error:
        own = [key for key in signature.parameters if key != "num_classes"]
        raise OptionError(f"The network {name!r}: {error}; its options: {', '.join(own) or 'none'}.") from None
    network = factory(**given)
    if not isinstance(network, nn.Module):
        raise OptionError(f"The network {name!r} must be a torch.nn.Module, got {type(network).__name__}.")
    return network


def find_factory(name: str) -> Factory:
    """The factory of a network by its name; see ``make_network``."""
    place = NETWORKS.get(name, name)
    if not all(place.partition(":")):
        raise OptionError(f"Unknown network {name!r}; valid: {', '.join(NETWORKS)}, or module:factory.")
    return find_callable("network", place)


def name_of(network: str | Factory) -> str:
    """The name under which a checkpoint finds a network again: itself, or ``module:factory`` of a factory."""
    if isinstance(network, str):
        return network
    module, attribute = getattr(network, "__module__", None), getattr(network, "__qualname__", "<locals>")
    if module is None or "<" in attribute or "." in attribute:
        raise OptionError(
            f"A network is given by its name, or by a factory that can be imported again: a function or class at the "
            f"top of a module, called as factory(num_classes=C, **options). Got {network!r}."
        )
    return f"{module}:{attribute}"


def check_network(network: nn.Module, name: str, image_size: tuple[int, int], num_classes: int) -> None:
    """Raises ``OptionError`` if a network does not keep the contract; costs one forward pass of one image."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    was_training = network.training
    with torch.no_grad():  # no inference mode: what the network keeps of its first pass may be trained with
        logits = network.eval()(torch.zeros((1, *image_size, 3), dtype=torch.uint8, device=device))
    network.train(was_training)
    expected = (1, num_classes, *image_size)
    if not isinstance(logits, torch.Tensor) or not logits.is_floating_point() or tuple(logits.shape) != expected:
        came = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise OptionError(
            f"The network {name!r} must turn images uint8 {(1, *image_size, 3)} into logits, float {expected}; "
            f"it gave {came}."
        )
