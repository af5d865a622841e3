"""What the README shows must run as printed, and its tables must be those of the committed results."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.tables import fill
from tests.trees import dataset_kwargs

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_readme_code_runs_as_printed(snippet, tmp_path):
    (tmp_path / "data").symlink_to(dataset_kwargs("VOC", tmp_path / "tree")["root"])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", snippet], cwd=tmp_path, capture_output=True, text=True, env=_environment()
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_readme_voc_code_runs_on_real_photos(real_data, tmp_path):
    (snippet,) = (s for s in SNIPPETS if "RSS-VOC-ImageReward-v0" in s)
    (tmp_path / "data").symlink_to(real_data / "voc2012_layout_sample")
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, env=_environment()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mean score") == 3


def test_readme_tables_are_those_of_the_committed_results():
    assert fill(README) == README, "run python -m benchmarks.tables"


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # the package imports some of its commands
def test_readme_commands_name_existing_modules_and_options(monkeypatch, capsys):
    commands = re.findall(r"^ {4}python -m (agents\.\S+ .*?)(?:  +#.*)?$", README, flags=re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        module, *words = shlex.split(command)
        monkeypatch.setattr(sys, "argv", [module, "--help"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        assert not ended.value.code
        shown = capsys.readouterr().out
        for word in words:
            if word.startswith("--"):
                assert word in shown, f"{module} has no {word}"


def _environment() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": str(ROOT)}
