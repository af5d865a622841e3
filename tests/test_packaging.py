"""The wheel holds the suite alone, works without the optional libraries, and its docstrings run."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import os
import pkgutil
import subprocess
import sys
import zipfile
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import rss_env

ROOT = Path(__file__).parents[1]
MODULES = ["rss_env", *(module.name for module in pkgutil.walk_packages(rss_env.__path__, "rss_env."))]
if importlib.util.find_spec("triton") is None:  # it does not exist for every platform
    MODULES.remove("rss_env.rewards.count_triton")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_suite_alone(wheel: Path):
    info = f"rss_env-{rss_env.__version__}.dist-info"
    assert wheel.name == f"rss_env-{rss_env.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"rss_env", info}
    package = {name for name in names if name.startswith("rss_env/")}
    source = {path.relative_to(ROOT).as_posix() for path in (ROOT / "rss_env").rglob("*.py")}
    assert package == source | {"rss_env/py.typed"}
    assert f"{info}/licenses/LICENSE" in names


def test_the_wheel_requires_no_more_than_gymnasium_numpy_and_pillow(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"rss_env-{rss_env.__version__}.dist-info/METADATA").decode()
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    names = {line.split()[1].split(">")[0].split("=")[0] for line in required}
    assert names == {"gymnasium", "numpy", "pillow"}


WITHOUT_EXTRAS = """
import sys
absent = "torch stable_baselines3 tyro tqdm tensorboard safetensors sklearn scipy rich pooch numba docstring_parser"
for name in [*absent.split(), "triton"]:
    sys.modules[name] = None  # importing it raises ImportError

import gymnasium as gym
import numpy as np
import rss_env
from rss_env.evaluation import evaluate
from rss_env.wrappers import FlattenAction

options = {"image_size": (40, 48), "num_images": 4}
for env_id in ("RSS-Shapes-ImageReward-v0", "RSS-Shapes-PixelReward-v0"):
    env = gym.make(env_id, render_mode="rgb_array", **options)
    env.reset(seed=0)
    assert 0 <= env.step(env.action_space.sample())[1] <= 1
    assert env.render().shape[2] == 3
    assert FlattenAction(env).action_space.shape == (1920,)
    assert evaluate(lambda images: images[..., 0] % 5, env_id, **options).images == 4
    envs = gym.make_vec(env_id, num_envs=2, samples_per_image=3, **options)
    images, _ = envs.reset(seed=0)
    assert images.shape == (2, 40, 48, 3)
    assert envs.step(envs.action_space.sample())[1].shape == (2,)
print(rss_env.__file__)
"""


def test_the_unpacked_wheel_runs_without_the_optional_libraries(wheel: Path, tmp_path: Path):
    unpacked, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_EXTRAS],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == unpacked / "rss_env" / "__init__.py"


def test_gymnasium_finds_an_id_by_its_module(tmp_path: Path):
    code = 'import gymnasium; print(gymnasium.make("rss_env:RSS-Shapes-ImageReward-v0", num_images=2).spec.id)'
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "RSS-Shapes-ImageReward-v0"), done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str):
    module = importlib.import_module(name)
    shown = Path(module.__file__ or "").read_text().count(">>> ")
    failed, attempted = doctest.testmod(module, extraglobs={"gym": gymnasium, "np": np})
    assert failed == 0
    assert attempted == shown


def test_some_docstrings_have_examples():
    with_examples = [
        name for name in MODULES if ">>> " in Path(importlib.import_module(name).__file__ or "").read_text()
    ]
    assert {"rss_env.env", "rss_env.vector", "rss_env.rewards", "rss_env.metrics"} <= set(with_examples)
