"""What the agents' tests share: one torch thread, a small finished run, and a way to run a command in-process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import Likelihood
from agents.training.algorithm import Algorithm
from agents.training.command import run_command, train_command
from agents.training.loop import train

ENV_KWARGS: dict[str, Any] = {"difficulty": "easy", "num_classes": 3, "num_images": 12}


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Several workers share the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs the main function of a command, or the training command of an algorithm, with these words."""

    def run(main: Callable[[], int] | type[Algorithm], *words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command((lambda: train_command(main)) if isinstance(main, type) else main)
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run of six steps; tests only read it."""
    folder = tmp_path_factory.mktemp("runs") / "likelihood"
    result = train(
        "RSS-Shapes-ImageReward-v0",
        Likelihood(samples_per_image=3),
        network_options={"width": 8},
        image_size=(16, 24),
        env_kwargs=ENV_KWARGS,
        steps=6,
        batch_size=2,
        run_dir=str(folder),
        checkpoint_every=1,
        log_every=2,
        eval_every=3,
        progress=False,
    )
    assert result.finished
    return folder
