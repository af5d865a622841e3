"""What the agents' tests share: one torch thread, a small finished run, and a way to run a command in-process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from agents.arguments import run_command
from agents.rss import RSSArguments, train_rss

ENV_KWARGS = {"difficulty": "easy", "num_classes": 3, "num_images": 12}


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
    """Runs the main function of a command with these words on its command line."""

    def run(main: Callable[[], int], *words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command(main)
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run of six steps; tests only read it."""
    folder = tmp_path_factory.mktemp("runs") / "rss"
    result = train_rss(
        RSSArguments(
            image_size=(16, 24),
            env_kwargs=json.dumps(ENV_KWARGS),
            steps=6,
            batch_size=2,
            samples_per_image=3,
            width=8,
            run_dir=str(folder),
            checkpoint_every=1,
            log_every=2,
            eval_every=3,
            progress=False,
        )
    )
    assert result.finished
    return folder
