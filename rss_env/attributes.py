"""``get_attr``, ``set_attr`` and ``call`` of vector environments whose sub-environments are no objects of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rss_env.errors import OptionError

SINGLE = {"action_space": "single_action_space", "observation_space": "single_observation_space"}
"""What a sub-environment has under another name than the vector environment."""


class PartAttributes:
    """Attributes of the B sub-environments, with the meaning that they have in Gymnasium's ``SyncVectorEnv``."""

    num_envs: int

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """The attribute of each sub-environment, B values; of a method, what it returns.

        Raises:
            AttributeError: sub-environments have no such attribute.
        """
        return self.call(name)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """What a method of each sub-environment returns, B values; of any other attribute, its value.

        Raises:
            AttributeError: sub-environments have no such attribute.
        """
        raise NotImplementedError

    def set_attr(self, name: str, values: Any) -> None:
        """Sets an attribute of the sub-environments.

        Args:
            name: of the attribute.
            values: a list or tuple of B values, one for each sub-environment; anything else is the value of all.

        Raises:
            OptionError: another number of values, or different ones for an attribute that all share.
            AttributeError: the attribute follows from the arguments of the environment.
        """
        given = list(values) if isinstance(values, (list, tuple)) else [values] * self.num_envs
        if len(given) != self.num_envs:
            raise OptionError(f"values must be one value or a list of {self.num_envs}, got {len(given)}.")
        self._set_parts(name, given)

    def _set_parts(self, name: str, values: list[Any]) -> None:
        raise NotImplementedError


def same(name: str, values: Sequence[Any]) -> Any:
    """The one value of an attribute that all sub-environments share.

    Raises:
        OptionError: the values differ.
    """
    if any(value is not values[0] and value != values[0] for value in values):
        raise OptionError(f"The sub-environments share {name}: set_attr() needs one value for all, got {values!r}.")
    return values[0]


def part_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a sub-environment, which has no autoreset mode."""
    return {key: value for key, value in metadata.items() if key != "autoreset_mode"}
