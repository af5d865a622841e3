"""Whatever is passed to an environment, it works or raises an error of this package that names the argument.

A run draws cases from a seed: an environment, single, vector or torch, with wrappers, made with arguments some of which
are wrong, and then calls of ``reset`` and ``step`` with more of them. ``python -m tests.env.test_fuzz 10000 SEED`` runs
many.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rss_env import SegmentationEnv, SegmentationVectorEnv, wrappers
from rss_env.errors import DatasetError, InvalidAction, OptionError, ResetNeeded
from rss_env.evaluation import evaluate
from rss_env.torch_vector import TorchSegmentationVectorEnv
from rss_env.wrappers import vector as twins

KINDS: dict[str, Any] = {
    "single": SegmentationEnv,
    "vector": SegmentationVectorEnv,
    "torch": TorchSegmentationVectorEnv,
}
MAP, CLASSES, IMAGES, ENVS = (8, 10), 3, 4, 2
ODD: tuple[Any, ...] = (
    None, True, False, np.True_, 0, 1, 2, 3, -1, -(10**22), 12345678901234567890123, 1 << 63, 1.0, 2.5, -0.5,
    math.nan, math.inf, -math.inf, np.float64(1), np.nan, np.int64(2), np.uint8(3), np.int64(-1), 1j,
    "", "False", "True", "1", "image", "random", "flip", "rgb_array", "none", "nan", b"image", "\0", "x" * 300,
    (), [], {}, set(), [1], [1, 2], (8, 10), (8.0, 10), (True, 10), [[1], [2, 3]], [None, 1], ["a", "b"], {"index": 1},
    {"a": 1}, {1: 2}, {8, 10}, range(2), slice(None), object(), object, len, Path("nowhere"), Ellipsis,
    np.zeros(0), np.zeros(2), np.arange(2), np.array(1), np.array("image"), np.array(["image", "x"]),
    np.array([True, False]), np.array([None, 1]), np.array([8, 10]), np.full(2, np.nan),
    torch.tensor(1), torch.tensor([0, 1]), torch.tensor(math.nan), torch.zeros(2, requires_grad=True),
    torch.zeros(2).bfloat16(),
)  # fmt: skip
ARGUMENTS: dict[str, tuple[Any, ...]] = {  # with right values that an environment is made with
    "dataset": ("Shapes",),
    "level": ("image", "pixel"),
    "root": (None,),
    "split": ("train", "val"),
    "image_size": (MAP, list(MAP), np.array(MAP)),
    "resize": ("pad", "crop", "stretch"),
    "augment": ("none", "flip"),
    "crop_size": (None,),
    "scale_range": ((0.5, 2.0), [1, 1]),
    "reward": (None, "pixel_accuracy"),
    "reward_options": (None, {}, {"class_weights": [1, 2, 3]}),
    "order": ("random", "sequential"),
    "samples_per_image": (None, 1, 2),
    "expose_target": (False, True),
    "render_mode": (None, "rgb_array"),
}
OF_VECTORS: dict[str, tuple[Any, ...]] = {"autoreset_mode": ("SameStep", "NextStep", "Disabled")}
OF_TENSORS: dict[str, tuple[Any, ...]] = {"cache": ("device", "host")}
FEEDBACK: dict[str, tuple[str, ...]] = {
    "Noise": ("std",),
    "Stars": ("stars",),
    "Threshold": ("threshold",),
    "Delay": ("episodes",),
    "Baseline": ("decay", "initial"),
    "Drift": ("offset", "gain", "episodes"),
    "Preference": ("temperature",),
    "Shaping": ("shape", "scale", "shift", "exponent", "epsilon"),
}
KNOWN = (OptionError, InvalidAction, ResetNeeded, DatasetError)
NAMES = {"dataset": "data set", "reward_options": "of reward"}  # what messages call these arguments


class Fuzz:
    """Draws cases from a generator and counts how they end."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.outcomes: Counter[str] = Counter()

    def choose(self, values: Any) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def attempt(self, case: str, call: Callable[[], Any], *words: str) -> Any:
        """The result of a call, None after an error, which must be a known one whose message has one of the words."""
        try:
            result = call()
        except KNOWN as error:
            self.outcomes[type(error).__name__] += 1
            said = str(error)
            assert not words or any(word in said for word in words), f"{case}: {said!r} names none of {words}"
            return None
        except Exception as error:
            raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error
        self.outcomes["success"] += 1
        return result

    def make(self) -> tuple[Any, str]:
        """An environment, or None if it was refused, and what it is."""
        kind = self.choose(list(KINDS))
        valid = ARGUMENTS | (OF_VECTORS if kind != "single" else {}) | (OF_TENSORS if kind == "torch" else {})
        options = {name: self.choose(values) for name, values in valid.items() if self.rng.random() < 0.3}
        wrong = ""
        if self.rng.random() < 0.5:
            wrong = self.choose([*valid, "no_such_argument", *(("num_envs", "device") if kind == "torch" else ())])
            options[wrong] = self.choose(ODD)
        fixed = {"image_size": MAP, "num_classes": CLASSES, "num_images": IMAGES}
        if kind != "single":
            fixed["num_envs"] = ENVS
        call = lambda: KINDS[kind](**fixed | options)  # noqa: E731
        case = f"{kind} {options}"
        env = self.attempt(case, call, *([wrong, NAMES.get(wrong, wrong), "samples_per_image"] if wrong else []))
        if wrong == "expose_target" and env is not None:
            assert isinstance(options[wrong], (bool, np.bool_)), case
            assert env.metadata["expose_target"] is bool(options[wrong])
        return env, case

    def wrap(self, env: Any, case: str) -> tuple[Any, str]:
        """The environment, sometimes in a wrapper with an argument that may be wrong."""
        module = twins if hasattr(env, "num_envs") else wrappers
        draw = self.rng.random()
        if draw < 0.15:
            wrapped = self.attempt(case, lambda: module.FlattenAction(env))
        elif draw < 0.3:
            cell = self.choose((2, 4, 1, *ODD))
            case = f"{case} CoarseAction({cell!r})"
            if len(getattr(env, "single_action_space", env.action_space).shape) == 1:
                return env, case  # flat already, which is a TypeError
            wrapped = self.attempt(case, lambda: module.CoarseAction(env, cell), "cell")
        elif draw < 0.6:
            name = self.choose(list(FEEDBACK))
            argument = self.choose(FEEDBACK[name])
            value = self.choose(ODD)
            case = f"{case} {name}({argument}={value!r})"
            kind = self.attempt(case, lambda: getattr(wrappers, name)(**{argument: value}), argument)
            given = kind if kind is not None else value
            wrapped = self.attempt(case, lambda: module.FeedbackReward(env, given))
        else:
            return env, case
        return (env, case) if wrapped is None else (wrapped, case)

    def reset(self, env: Any, case: str) -> None:
        seed = self.choose((None, 1, *ODD))
        options = self.choose(
            (
                None,
                *ODD,
                *({name: self.choose(ODD)} for name in ("index", "episode", "images", "reset_mask", "x")),
            )
        )
        words = ["seed", "reset"]
        self.attempt(
            f"{case} reset(seed={seed!r}, options={options!r})", lambda: env.reset(seed=seed, options=options), *words
        )

    def step(self, env: Any, case: str) -> None:
        space = env.action_space
        draw = self.rng.random()
        right = self.rng.integers(0, CLASSES, space.shape)
        good = draw < 0.4
        if good:
            action: Any = self.choose((right, right.astype(np.uint8), right.tolist(), torch.from_numpy(right)))
        elif draw < 0.7:
            action = self.choose(ODD)
        else:
            bad = right.astype(self.choose((np.int64, np.int8, np.float32, np.float64, object, np.uint64)))
            place = tuple(int(self.rng.integers(n)) for n in bad.shape)
            kinds: tuple[Any, ...] = (CLASSES, 100) + ((-1,) if bad.dtype != np.uint64 else ())
            kinds += (math.nan, math.inf) if bad.dtype.kind == "f" else ()
            bad[place] = self.choose(kinds)
            wrong_shapes: tuple[Any, ...] = (bad, bad[None], bad[..., :-1], bad.T if bad.T.shape != bad.shape else bad)
            action = self.choose(wrong_shapes)
            action = (
                torch.from_numpy(action.copy()) if action.dtype.kind in "if" and self.rng.random() < 0.3 else action
            )
        inner = env.unwrapped
        before = inner.reward_queries
        running = np.asarray(inner._running).all() and bool(np.any(getattr(inner, "_keyed", False)))
        case = f"{case} step({action!r:.200})"
        result = self.attempt(case, lambda: env.step(action))
        counted = inner.reward_queries - before
        if result is None:
            assert counted == 0, f"{case}: an error counted {counted} queries"
            assert not (good and running), f"{case}: a right label map was refused"
        elif running:
            array = np.asarray(action)
            assert array.dtype.kind in "iu", f"{case}: accepted"
            assert array.shape == space.shape, f"{case}: accepted"
            assert 0 <= array.min() <= array.max() < CLASSES, f"{case}: accepted"
            samples = inner.metadata["samples_per_image"] or 1
            assert counted == samples * getattr(inner, "num_envs", 1), case
            assert np.isfinite(np.asarray(result[1])).all(), case
        else:
            assert counted == 0  # the step of NEXT_STEP mode that only begins new episodes

    def evaluate(self) -> None:
        name = self.choose(("split", "batch_size", "limit", "image_size", "order", "no_such_argument"))
        value = self.choose(ODD)
        options = {"image_size": MAP, "num_classes": CLASSES, "num_images": IMAGES, name: value}
        predicted = self.choose((np.zeros(1, int), None))
        predict = (lambda x: np.zeros(x.shape[:3], int)) if predicted is not None else (lambda x: self.choose(ODD))
        words = [name] if predicted is not None else []
        self.attempt(
            f"evaluate({name}={value!r})", lambda: evaluate(predict, "RSS-Shapes-ImageReward-v0", **options), *words
        )

    def run(self, cases: int) -> Counter[str]:
        """Goes on until at least that many calls were tried."""
        while self.outcomes.total() < cases:
            env, case = self.make()
            if env is None:
                continue
            for _ in range(int(self.rng.integers(3))):
                env, case = self.wrap(env, case)
            for _ in range(8):
                if self.rng.random() < 0.3:
                    self.reset(env, case)
                else:
                    self.step(env, case)
                    if env.unwrapped.metadata.get("autoreset_mode") is None or self.rng.random() < 0.5:
                        self.attempt(case, env.reset)
            if self.rng.random() < 0.1:
                self.evaluate()
        return self.outcomes


@pytest.mark.parametrize("seed", range(1, 4))
def test_every_call_works_or_raises_a_known_error_that_names_the_argument(seed: int):
    outcomes = Fuzz(seed).run(400)
    assert outcomes["success"] > 100
    assert {"OptionError", "InvalidAction", "UnknownArgumentError"} <= set(outcomes)


if __name__ == "__main__":
    print(dict(Fuzz(int(sys.argv[2]) if len(sys.argv) > 2 else 0).run(int(sys.argv[1]))))
