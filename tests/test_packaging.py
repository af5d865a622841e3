"""The wheel holds the suite and the agents, works without the optional libraries, and its docstrings run."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import rss_env
from tests.extras import AGENTS, CLI, RATE, SB3
from tests.once import once

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    name.removesuffix(".__init__")
    for folder in ("rss_env", "agents")
    for name in (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / folder).rglob("*.py"))
)
OPTIONAL = {*AGENTS, *CLI, *RATE, *SB3, "triton"}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the hook that every installer calls."""
    backend = pytest.importorskip("hatchling.build", reason="needs hatchling: pip install 'rss-env[dev]'")

    def build(folder: Path) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(ROOT)
            return folder / backend.build_wheel(str(folder))

    return once(tmp_path_factory, "wheel", build)


def test_the_wheel_holds_the_suite_and_the_agents(wheel: Path):
    info = f"rss_env-{rss_env.__version__}.dist-info"
    assert wheel.name == f"rss_env-{rss_env.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"rss_env", "rss_agents", info}
    suite = {path.relative_to(ROOT).as_posix() for path in (ROOT / "rss_env").rglob("*.py")}
    agents = {f"rss_{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "agents").rglob("*.py")}
    page = {f"rss_agents/rating/page/{name}" for name in ("index.html", "page.css", "page.js")}
    held = {name for name in names if not name.startswith(info)}
    assert held == suite | agents | page | {"rss_env/py.typed"}
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


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an empty environment with the wheel in it; libraries come from the environment of the tests."""
    pytest.importorskip("torch", reason="needs torch: pip install 'rss-env[agents]'")

    def install(folder: Path) -> Path:
        venv.create(folder, with_pip=False)
        python = folder / "bin" / "python"
        (site,) = folder.glob("lib/python*/site-packages")
        options = ["--python", str(python), "install", "--no-deps", "--no-index"]
        done = subprocess.run([sys.executable, "-m", "pip", *options, str(wheel)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        libraries = sysconfig.get_path("purelib")
        (site / "libraries.pth").write_text(f"import sys; sys.path.append({libraries!r})\n")  # without its .pth files
        return python

    return once(tmp_path_factory, "installed", install)


# In a new folder Numba would compile everything again, which takes longer than the rest and shows nothing of the wheel.
UNCOMPILED = {"OMP_NUM_THREADS": "1", "RSS_COUNTS": "numpy", "RSS_OPS": "torch"}


def run_installed(python: Path, folder: Path, *words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), *words], cwd=folder, env=environment | UNCOMPILED, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_installed_wheel_trains_and_evaluates(installed: Path, tmp_path: Path):
    small = ["--image-size", "16", "16", "--steps", "5", "--batch-size", "2", "--samples-per-image", "4"]
    run_installed(installed, tmp_path, "-m", "rss_agents.likelihood", *small, "--run-dir", "run", "--no-progress")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["time/reward_queries"] == 5 * 2 * 4
    found = run_installed(installed, tmp_path, "-m", "rss_agents.evaluate", "run", "--json")
    assert json.loads(found)["images"] == 128


ANYBODYS_LOOP = """
import importlib.util
import torch
import rss_agents
from rss_agents.ops import policy_gradient, sample_label_maps
from rss_agents.plugins import CellSchedule, SyncAN, pair_advantages

assert importlib.util.find_spec("agents") is None
assert "site-packages" in rss_agents.__file__
logits = torch.zeros(2, 3, 8, 8, requires_grad=True)
target = torch.randint(3, (2, 1, 8, 8), generator=torch.Generator().manual_seed(0))
optimiser, scale = torch.optim.Adam([logits], lr=0.1), SyncAN()
for step in range(150):
    side = CellSchedule((2, 1)).side(step / 150)
    label_maps = sample_label_maps(logits, 8, step, cell=side)
    scores = (label_maps == target).float().mean(dim=(2, 3))
    advantages = pair_advantages(scores, label_maps)
    scale.add(advantages)
    loss, entropy = policy_gradient(logits, label_maps, (advantages / scale.finish()).float())
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
print((logits.argmax(1, keepdim=True) == target).float().mean().item())
"""


def test_the_plug_ins_of_the_installed_wheel_work_in_anybodys_loop(installed: Path, tmp_path: Path):
    assert float(run_installed(installed, tmp_path, "-c", ANYBODYS_LOOP)) > 0.6


def test_the_agents_can_be_imported_under_both_names(installed: Path, tmp_path: Path):
    code = (
        f"import sys; sys.path.append({str(ROOT)!r})\n"
        "import torch, agents.ops, rss_agents.ops\n"
        "logits = torch.zeros(1, 3, 4, 4)\n"
        "drawn = [package.ops.sample_label_maps(logits, 2, seed=1) for package in (agents, rss_agents, agents)]\n"
        "print(all(torch.equal(drawn[0], other) for other in drawn))"
    )
    assert run_installed(installed, tmp_path, "-c", code) == "True\n"


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
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        pytest.skip(f"{name} needs {error.name}: pip install 'rss-env[dev]'")
    shown = Path(module.__file__ or "").read_text().count(">>> ")
    failed, attempted = doctest.testmod(module, extraglobs={"gym": gymnasium, "np": np})
    assert failed == 0
    assert attempted == shown


def source_of(name: str) -> Path:
    path = ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def test_some_docstrings_have_examples():
    with_examples = [name for name in MODULES if ">>> " in source_of(name).read_text()]
    assert {"rss_env.env", "rss_env.vector", "rss_env.rewards", "rss_env.metrics"} <= set(with_examples)
