"""The wall: no agent but the bounds reads a target."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

AGENTS = Path(__file__).parents[2] / "agents"
SEES_TARGETS = {"supervised.py", "weak_labels.py"}  # the bounds: pixel labels, image tags
# Where targets, or what needs them, can be had; decoding a photo of the user's own is no target.
CLOSED = ("rss_env.datasets", "rss_env.metrics", "rss_env.rewards")
OPEN = {("rss_env.datasets.decode", "read_image")}
KEYS = {"target", "targets", "_task"}


def breaches(source: str) -> Iterator[str]:
    """What in the source of a module reads targets, or could."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value in KEYS or "expose_target" in node.value:
                yield f"line {node.lineno}: {node.value!r}"
        elif isinstance(node, ast.Attribute) and node.attr in KEYS | {"expose_target", "datasets"}:
            yield f"line {node.lineno}: .{node.attr}"
        elif isinstance(node, ast.keyword) and node.arg in KEYS | {"expose_target"}:
            yield f"line {node.value.lineno}: {node.arg}="
        elif isinstance(node, ast.Import):
            yield from (f"line {node.lineno}: import {alias.name}" for alias in node.names if closed(alias.name))
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = (node.module or "", alias.name)
                if whole not in OPEN and (
                    closed(whole[0]) or closed(".".join(whole)) or alias.name == "ConfusionMatrix"
                ):
                    yield f"line {node.lineno}: from {whole[0]} import {whole[1]}"


def closed(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in CLOSED)


def test_only_the_bounds_read_targets() -> None:
    files = sorted(AGENTS.rglob("*.py"))
    expected = {
        "rss.py",
        "likelihood.py",
        "loop.py",
        "feedback.py",
        "validation.py",
        "evidence.py",
        "visits.py",
        "predict.py",
    }
    assert expected | SEES_TARGETS <= {file.name for file in files}
    found = {str(file.relative_to(AGENTS)): list(breaches(file.read_text())) for file in files}
    assert all(found.pop(name) for name in sorted(SEES_TARGETS))
    assert not {name: lines for name, lines in found.items() if lines}


@pytest.mark.parametrize(
    "source",
    [
        'target = infos["target"]',
        'target = infos["final_info"].get("target")',
        'envs = gym.make_vec("RSS-VOC-ImageReward-v0", expose_target=True)',
        'options = {"expose_target": True}',
        "options = json.loads('{\"expose_target\": true}')",
        "envs.unwrapped._task.expose_target = True",
        "task = envs.unwrapped._task",
        "task = getattr(envs.unwrapped, '_task')",
        'labels = getattr(data, "targets")',
        "from rss_env.datasets import load_dataset",
        "from rss_env.datasets.decode import read_mask",
        "from rss_env import datasets",
        "import rss_env.datasets as d",
        "import rss_env\nrss_env.datasets.load_dataset",
        "from rss_env.metrics import ConfusionMatrix",
        "from rss_env.evaluation import ConfusionMatrix",
        "labels = SegmentationTask(name, level).targets(index, flipped)",
        "from rss_env.rewards import score_images",
    ],
)
def test_a_breach_of_the_wall_would_be_found(source: str) -> None:
    assert list(breaches(source))


@pytest.mark.parametrize(
    "source",
    [
        "target = start + (end - start) * progress",
        'metrics = {"policy/entropy_target": target}',
        "from rss_env.datasets.decode import read_image",
        "from rss_env.evaluation import Evaluation, evaluate",
        'names = envs.metadata["class_names"]',
    ],
)
def test_what_reads_no_target_is_allowed(source: str) -> None:
    assert not list(breaches(source))
