"""A wrong value of a benchmark is one line, before anything is measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tyro

from agents import sb3
from agents.training.command import run_command
from benchmarks import agent_step, demo, kernels, sb3_update, throughput, throughput_stages
from benchmarks.capabilities import __main__ as capabilities
from benchmarks.capabilities import report as capabilities_report
from benchmarks.convergence import __main__ as convergence
from benchmarks.convergence import plots
from benchmarks.leaderboard import report
from benchmarks.results_file import RESULTS
from benchmarks.speed import throughput_plot

Main = Callable[[], int | None]


def run(
    main: Main, words: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["command", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert isinstance(ended.value.code, int)
    captured = capsys.readouterr()
    assert captured.out == ""
    return ended.value.code, captured.err


@pytest.mark.parametrize(
    ("main", "words", "said"),
    [
        (sb3.main, ["--seed", -1], "seed must be at least 0, got -1."),
        (sb3.main, ["--reward-queries", 0], "reward_queries must be at least 1, got 0."),
        (sb3.main, ["--learning-rate", "nan"], "learning_rate must be positive, got nan."),
        (sb3.main, ["--network-options", '{"width": 12}'], "The width of the U-Net must be a multiple of 8, got 12."),
        (sb3.main, ["--resume", "no.zip"], "--resume no.zip: there is no such file."),
        (agent_step.main, ["--steps", 0], "steps must be at least 1, got 0."),
        (agent_step.main, ["--samples-per-image", 8, 1], "samples_per_image must be at least 2, got 1."),
        (capabilities.main, ["--parallel", 0], "parallel must be at least 1, got 0."),
        (capabilities.main, ["--seeds", -1], "seeds must be at least 0, got -1."),
        (convergence.main, ["--parallel", 0], "parallel must be at least 1, got 0."),
        (convergence.main, ["--seeds"], "seeds must be at least 0, got none."),
        (demo.main, ["--steps", 0], "steps must be at least 1, got 0."),
        (kernels.main, ["--repeats", 0], "repeats must be at least 1, got 0."),
        (sb3_update.main, ["--sides", 0], "sides must be at least 1, got 0."),
        (throughput.main, ["--num-envs"], "num_envs must be at least 1, got none."),
        (throughput.main, ["--turn-ms", "inf"], "turn_ms must be positive, got inf."),
        (throughput_stages.main, ["--steps", 0], "steps must be at least 1, got 0."),
    ],
)
def test_a_wrong_value_is_named(
    main: Main, words: list[object], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(main, words, monkeypatch, capsys) == (2, f"error: {said}\n")


@pytest.mark.parametrize(
    "main", [agent_step.main, kernels.main, sb3_update.main, throughput.main, throughput_stages.main]
)
def test_results_that_cannot_be_written_end_a_benchmark_before_it_begins(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "rows.csv"
    code, said = run(main, ["--out", out], monkeypatch, capsys)
    assert code == 2
    assert said.startswith(f"error: cannot write {out}: ")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("draw", "module"),
    [
        (plots.main, "benchmarks.convergence"),
        (capabilities_report.main, "benchmarks.capabilities"),
        (report.main, "benchmarks.leaderboard"),
        (throughput_plot.plot, "benchmarks.throughput"),
    ],
)
def test_a_picture_of_no_or_of_other_results_is_refused(
    draw: Callable[..., object],
    module: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"a\n\xff")
    for path, said in (
        (tmp_path / "no.csv", f"holds no results yet; python -m {module} writes them."),
        (tmp_path / "bytes.csv", "cannot be read as CSV"),
        (RESULTS / "kernels.csv", "holds other results: it has no column"),
    ):
        words = [path] if draw in (plots.main, capabilities_report.main) else ["--results", path]
        code, error = run(lambda: print(tyro.cli(draw)), words, monkeypatch, capsys)
        assert code == 2
        assert error.startswith(f"error: {path} {said}")
        assert len(error.splitlines()) == 1


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert run(interrupted, [], monkeypatch, capsys) == (130, "interrupted\n")
