"""How the pretrained part of a network learns: not at all, or at a learning rate of its own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rss_env.errors import OptionError


class FineTuned(nn.Module):
    """A network with a pretrained part, a submodule.

    The statistics, scales and shifts of the part's batch normalisation stay as they came, in training too: the policy
    that samples is the one that is evaluated, and a few images a step do not spoil them.

    Attributes:
        learning_rate_factors: see ``parameter_groups``.
        stored_options: those that make the network again without its first weights; ``save_policy`` stores them.
    """

    learning_rate_factors: dict[str, float]
    stored_options: dict[str, Any]

    def start_fine_tuning(self, part: str, frozen: bool, factor: float) -> None:
        """To be called once all submodules are there.

        Args:
            part: name of the submodule, such as ``"encoder"``.
            frozen: it never changes, and its forward pass keeps nothing for a backward pass.
            factor: of the learning rate, for the part.
        """
        self.part, self.frozen = part, frozen
        self.learning_rate_factors = {part: factor}
        for module in self.get_submodule(part).modules():
            if frozen or isinstance(module, _BatchNorm):
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> FineTuned:
        """Training mode for all but the batch normalisation of the part, or but the whole part if it is frozen."""
        super().train(mode)
        for module in self.get_submodule(self.part).modules():
            if self.frozen or isinstance(module, _BatchNorm):
                module.training = False
        return self


def check_options(encoder_lr: float, **switches: bool) -> None:
    """Raises ``OptionError`` that names an option of a pretrained network that has a wrong value."""
    for name, switch in switches.items():
        if not isinstance(switch, bool):
            raise OptionError(f"{name} must be true or false, got {switch!r}.")
    if isinstance(encoder_lr, bool) or not isinstance(encoder_lr, (int, float)) or not 0 < encoder_lr < math.inf:
        raise OptionError(f"encoder_lr must be positive, got {encoder_lr!r}; frozen=True keeps the encoder as it is.")


def make_optimiser(
    network: nn.Module, learning_rate: float, weight_decay: float, fused: bool | None = None
) -> tuple[torch.optim.AdamW, list[float]]:
    """AdamW with a group for each of ``parameter_groups``, and the factors of their learning rates in that order."""
    groups = parameter_groups(network)
    optimiser = torch.optim.AdamW(
        [{"params": parameters} for parameters, _ in groups], lr=learning_rate, weight_decay=weight_decay, fused=fused
    )
    return optimiser, [factor for _, factor in groups]


def parameter_groups(network: nn.Module) -> list[tuple[list[nn.Parameter], float]]:
    """The parameters of a network, each once, with the factor of their learning rate.

    Args:
        network: its attribute ``learning_rate_factors``, if it has one, maps names of submodules or parameters to
            factors, such as ``{"encoder": 0.1}``. The last that fits a parameter holds; without one it is 1.

    Raises:
        OptionError: no parameter has such a name, or a factor is not positive.
    """
    factors = {"": 1.0} | getattr(network, "learning_rate_factors", {})
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in factors}
    named = set()
    for parameter_name, parameter in network.named_parameters():
        fitting = [name for name in factors if not name or f"{parameter_name}.".startswith(f"{name}.")]
        named.update(fitting)
        groups[fitting[-1]].append(parameter)
    for name, factor in factors.items():
        if name and name not in named:
            raise OptionError(f"learning_rate_factors: the network has no parameters called {name!r}.")
        if not 0 < factor < math.inf:
            raise OptionError(f"learning_rate_factors: the factor of {name!r} must be positive, got {factor}.")
    return [(groups[name], factors[name]) for name in factors if groups[name]]
