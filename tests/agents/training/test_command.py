"""How commands end when their output cannot be written, or when they are told to stop."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest
import tyro

from agents.training.command import run_command

ROOT = Path(__file__).parents[3]


def print_much() -> int:
    for line in range(100_000):
        print("line", line)
    return 0


def ends(main: Callable[[], int | None]) -> object:
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    return ended.value.code


@pytest.fixture
def left() -> Iterator[TextIO]:
    """A pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        yield pipe


def test_a_reader_that_leaves_ends_a_command_without_a_word(
    left: TextIO, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", left)
    assert ends(print_much) == 141
    assert capsys.readouterr().err == ""


def test_so_does_one_that_leaves_when_the_last_line_is_still_in_the_buffer(
    left: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", left)
    assert ends(lambda: print("a line")) == 141


def test_help_and_wrong_words_end_as_tyro_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(lambda: tyro.cli(int, args=["--help"])) == 0
    assert ends(lambda: tyro.cli(int, args=["moon"])) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert ends(print_much) == 2
    assert capsys.readouterr().err == "error: No space left on device\n"


def test_letters_that_an_output_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert ends(lambda: print("runs/löwe-\udcff")) is None
    assert out.buffer.getvalue() == b"runs/l\\xf6we-\\udcff\n"  # type: ignore[attr-defined]


def test_sigterm_ends_a_command_as_ctrl_c_does(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGTERM, signal.SIGINT):
        assert ends(lambda number=number: signal.raise_signal(number)) == 130
        assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_closed_output_goes_nowhere_and_its_place_is_not_taken_by_a_file(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom agents.training.command import run_command\n"
        "def main():\n    file = open('file', 'w')\n    print('x', flush=True)\n"
        "    print('x', file=sys.stderr, flush=True)\n    os.write(1, b'x')\n    assert file.fileno() > 2\n"
        "run_command(main)"
    )
    words = ["bash", "-c", '"$0" -c "$1" >&- 2>&-', sys.executable, script]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run(words, cwd=tmp_path, env=environment, timeout=120).returncode == 0
    assert (tmp_path / "file").read_bytes() == b""
