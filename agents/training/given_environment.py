"""What an environment that somebody made says about the run that trains on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from os import PathLike, fspath
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker

from rss_env.errors import OptionError
from rss_env.wrappers import Feedback, FeedbackReward, as_feedback
from rss_env.wrappers import vector as twins

from .arguments import ENV_ARGUMENTS, TrainArguments

CARRIED = ENV_ARGUMENTS & {known.name for known in fields(TrainArguments)} - {"order"}


def arguments_of(env: gym.Env | VectorEnv) -> tuple[dict[str, Any], int | None]:
    """Reads an environment's ``spec`` and its feedback wrappers.

    Args:
        env: as ``gym.make`` or ``gym.make_vec`` made it; it is neither stepped nor closed.

    Returns:
        The fields of ``TrainArguments`` that make a run's environment like it, and its ``samples_per_image``, which is
        the algorithm's to choose. What is for looking or for other loops, such as ``render_mode``, ``order``
        and ``autoreset_mode``, is left out.

    Raises:
        OptionError: it is no environment, was not made by its id, or has a wrapper that a run cannot have.
    """
    if not isinstance(env, gym.Env | VectorEnv):
        raise OptionError(f"env_id must be the id of an environment, or one of gym.make or gym.make_vec; got {env!r}.")
    if env.spec is None:
        raise OptionError(
            f"{env} was not made by gym.make or gym.make_vec, so its arguments are not known: pass its id."
        )
    arguments: dict[str, Any] = {"env_id": env.spec.id, "env_kwargs": {}}
    for name, value in env.spec.kwargs.items():
        if name == "device":
            value = None if value is None else str(value).partition(":")[0]
        elif isinstance(value, PathLike):
            value = fspath(value)
        if name in CARRIED and value is not None:
            arguments[name] = value
        elif name not in ENV_ARGUMENTS | {"vectorization_mode"}:
            arguments["env_kwargs"][name] = value
    if isinstance(env, VectorEnv):
        arguments["batch_size"] = env.num_envs
    arguments["wrap"] = _wrap(env)
    return arguments, env.spec.kwargs.get("samples_per_image")


def _wrap(env: Any) -> tuple[str, ...]:
    """The feedback around an environment as ``TrainArguments.wrap`` has it, the inner one first."""
    kinds: list[str] = []
    while isinstance(env, gym.Wrapper | VectorWrapper):
        if isinstance(env, FeedbackReward | twins.FeedbackReward):
            kinds.insert(0, _as_text(env.kind))
        elif not isinstance(env, OrderEnforcing | PassiveEnvChecker):
            raise OptionError(
                f"The environment has the wrapper {type(env).__name__}, which a run cannot put around its own: pass "
                "the environment without it, or write a loop of your own (docs/your_algorithm.md)."
            )
        env = env.env
    return tuple(kinds)


def _as_text(kind: Feedback) -> str:
    """A kind of feedback such as ``"stars:stars=5"``."""
    described: Mapping[str, Any] = kind.to_dict()
    values = [f"{name}={json.dumps(value)}" for name, value in described.items() if name != "kind"]
    text = f"{described['kind']}:{','.join(values)}" if values else described["kind"]
    try:
        same = as_feedback(text) == kind
    except OptionError:
        same = False
    if not same:
        raise OptionError(f"The feedback {kind} cannot be written as text; pass the environment without it and wrap=….")
    return text
