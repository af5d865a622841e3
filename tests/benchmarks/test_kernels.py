from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import kernels
from benchmarks.results_file import read_rows
from benchmarks.speed import batched_torch
from rss_env.errors import OptionError

SIZE = (2, 6, 4, 5, 7)


def test_batched_torch_does_what_the_operations_do() -> None:
    torch.manual_seed(0)
    for name, case in kernels.cases(SIZE, torch.device("cpu")).items():
        result, batched = case.run(), case.batched()
        if name == "draw":  # other random numbers
            assert batched.shape == result.shape
            assert batched.dtype == torch.uint8
            continue
        for ours, theirs in zip(*((r if isinstance(r, tuple) else (r,)) for r in (result, batched)), strict=True):
            torch.testing.assert_close(ours.flatten(), theirs.flatten(), rtol=1e-5, atol=1e-6)


def test_the_bytes_of_the_policy_gradient_are_logits_and_labels_in_and_the_gradient_out() -> None:
    batch, samples, classes, height, width = SIZE
    moved = {name: case.moved for name, case in kernels.cases(SIZE, torch.device("cpu")).items()}
    pixels = batch * height * width
    assert moved["policy_gradient"] == 2 * 4 * classes * pixels + samples * pixels
    assert moved["draw"] == 4 * classes * pixels + samples * pixels


def test_batched_draws_have_the_softmax_as_their_frequencies() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, -1.0])[None, :, None, None].expand(1, 3, 10, 10)
    drawn = batched_torch.sample_label_maps(logits, 200)  # 20,000 draws: 6 standard deviations are 0.02
    frequency = torch.bincount(drawn.flatten().long(), minlength=3) / drawn.numel()
    assert torch.allclose(frequency, logits[0, :, 0, 0].softmax(0), atol=0.022)


def test_the_command_writes_every_operation_and_their_sum_against_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "kernels.csv"
    words = ["--sizes", "2x6x4x8x8", "--repeats", "1", "--no-compiled", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["kernels", *words])
    monkeypatch.setattr(kernels, "copy_bandwidth", lambda device, repeats: 1e10)
    kernels.main()
    rows = read_rows(out)
    assert [row["operation"] for row in rows] == [
        *("draw", "count", "policy_gradient", "soft_counts", "class_credit"),
        "draw + count + policy_gradient",
    ]
    assert float(rows[-1]["ms"]) == pytest.approx(sum(float(row["ms"]) for row in rows[:3]), abs=1e-3)
    assert float(rows[-1]["network_ms"]) > 0
    assert capsys.readouterr().out.count("2×6×4×8×8") == 6


@pytest.mark.parametrize("text", ["8x32x5x48", "8x32x5x48x0", "8,32,5,48,48", "axbxcxdxe"])
def test_a_wrong_size_is_an_error_that_shows_the_form(text: str) -> None:
    with pytest.raises(OptionError, match="B×K×C×H×W"):
        kernels.parse_size(text)
