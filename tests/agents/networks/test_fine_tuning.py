"""The learning rates of the parts of a network, anybody's too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from agents.networks.fine_tuning import FineTuned, parameter_groups
from rss_env.errors import OptionError


class Parts(nn.Module):
    """1x1 convolutions, called encoder, encoder_2 and head, and a scale."""

    def __init__(self, factors: dict[str, float] | None = None) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
        self.encoder_2 = nn.Conv2d(3, 3, 1)
        self.head = nn.Conv2d(3, 2, 1)
        self.scale = nn.Parameter(torch.ones(()))
        if factors is not None:
            self.learning_rate_factors = factors


def factors_of(network: nn.Module) -> dict[str, float]:
    names = {parameter: name for name, parameter in network.named_parameters()}
    return {names[parameter]: factor for parameters, factor in parameter_groups(network) for parameter in parameters}


def test_a_network_without_factors_has_one_group_in_the_order_of_its_parameters() -> None:
    network = Parts()
    ((parameters, factor),) = parameter_groups(network)
    assert factor == 1
    assert [id(parameter) for parameter in parameters] == [id(parameter) for parameter in network.parameters()]


def test_a_factor_holds_below_its_name_and_nowhere_else() -> None:
    factors = factors_of(Parts({"encoder": 0.1, "encoder.1": 0.5, "scale": 2}))
    assert factors == {
        "encoder.0.weight": 0.1,
        "encoder.0.bias": 0.1,
        "encoder.1.weight": 0.5,
        "encoder.1.bias": 0.5,
        "encoder_2.weight": 1,
        "encoder_2.bias": 1,
        "head.weight": 1,
        "head.bias": 1,
        "scale": 2,
    }


def test_tied_parameters_are_in_one_group() -> None:
    network = Parts({"encoder": 0.1})
    network.encoder_2.weight = network.encoder[0].weight
    assert factors_of(network)["encoder.0.weight"] == 0.1
    assert sum(len(parameters) for parameters, _ in parameter_groups(network)) == len(list(network.parameters()))


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ({"decoder": 0.1}, "no parameters called 'decoder'"),
        ({"enc": 0.1}, "no parameters called 'enc'"),
        ({"encoder": 0.0}, "'encoder' must be positive, got 0.0"),
        ({"encoder": float("nan")}, "'encoder' must be positive, got nan"),
        ({"encoder": float("inf")}, "'encoder' must be positive, got inf"),
    ],
)
def test_a_wrong_factor_is_refused(factors: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match="learning_rate_factors") as raised:
        parameter_groups(Parts(factors))
    assert said in str(raised.value)


class Normalised(FineTuned):
    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.decoder = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
        self.start_fine_tuning("encoder", frozen, 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))


@pytest.mark.parametrize("frozen", [False, True])
def test_the_batch_normalisation_of_the_pretrained_part_stays_in_training_and_that_of_the_rest_does_not(
    frozen: bool,
) -> None:
    network = Normalised(frozen)
    assert network.encoder[2].training is not frozen
    for mode in (False, True):
        network.train(mode)
        assert not network.encoder[1].training
        assert network.encoder[2].training is (mode and not frozen)
        assert network.decoder[0].training is mode
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    network(torch.randn(4, 3, 5, 5)).square().sum().backward()
    optimiser.step()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    learning = set() if frozen else {"encoder.0.weight", "encoder.0.bias"}
    assert moved == learning | {name for name in before if name.startswith("decoder.")}
