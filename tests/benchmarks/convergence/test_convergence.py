from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agents import RSS, Likelihood, Supervised
from agents.training.command import parse_command
from benchmarks.convergence import __main__ as convergence
from benchmarks.convergence import plots, results
from benchmarks.convergence.suites import ABLATION, METHODS, SUITES, TITLES, Spec, ablation
from benchmarks.results_file import RESULTS, add_rows, read_rows, update_rows
from rss_env.errors import OptionError

TINY = Spec("shapes", "image", "replay", 2, 1, (16, 16), 4, batch_size=2, evaluations=2)


@pytest.mark.parametrize("suite", SUITES)
def test_every_run_of_every_suite_has_a_command_that_its_module_takes(suite: str) -> None:
    specs = SUITES[suite]((1, 2))
    assert len({spec.key for spec in specs}) == len({spec.name for spec in specs}) == len(specs)
    for spec in specs:
        module, *words = spec.command("camvid")
        algorithm: Any = {"agents.supervised": Supervised, "agents.rss": RSS, "agents.likelihood": Likelihood}[module]
        command = parse_command(algorithm, [*words, "--run-dir", "unused"])
        if spec.samples:
            assert command.algorithm.samples_per_image == spec.samples
        assert (command.run.steps, command.run.seed, command.run.image_size) == (spec.steps, spec.seed, spec.image_size)
        assert command.run.augment == "none"
        assert ("Pixel" in command.run.env_id) == (spec.level == "pixel")


def test_the_ablation_has_every_method_at_the_levels_it_has_a_meaning_at_and_every_method_has_a_title() -> None:
    runs = {(spec.dataset, spec.level, spec.method) for spec in ablation((1, 2, 3))}
    wanted = {(d, level, method) for d in ("shapes", "camvid") for level in ("image", "pixel") for method in ABLATION}
    wanted -= {(d, "pixel", "regions") for d in ("shapes", "camvid")}
    assert wanted <= runs
    assert set(TITLES) == set(METHODS)
    assert sum(spec.cost for spec in ablation((1,), quick=True)) < sum(spec.cost for spec in ablation((1,))) / 5


def test_camvid_needs_a_folder() -> None:
    with pytest.raises(OptionError, match="--camvid"):
        replace(TINY, dataset="camvid").command(None)


def test_a_suite_is_run_resumed_where_it_stopped_and_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = [TINY, replace(TINY, method="cross_entropy", samples=0)]
    monkeypatch.setitem(SUITES, "headline", lambda seeds: specs)
    out = tmp_path / "out.csv"
    words = ["--run-dir", str(tmp_path / "runs"), "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["convergence", *words])
    convergence.main()
    rows = read_rows(out)
    assert [(row["method"], row["step"]) for row in sorted(rows, key=lambda row: (row["method"], row["step"]))] == [
        ("cross_entropy", "2"),
        ("cross_entropy", "4"),
        ("replay", "2"),
        ("replay", "4"),
    ]
    assert {row["reward_queries"] for row in rows if row["method"] == "replay"} == {"8", "16"}
    assert {row["reward_queries"] for row in rows if row["method"] == "cross_entropy"} == {"0"}
    assert "100.0%" in capsys.readouterr().out
    assert (tmp_path / "out.label_maps.png").exists()

    with monkeypatch.context() as patched:
        patched.setattr(convergence, "train", lambda *_: pytest.fail("a run in the results file was run again"))
        convergence.main()
    assert read_rows(out) == rows

    # Without its last row a run counts as missing; its run folder gives all rows back, each once and with its old time.
    update_rows(out, lambda rows: [row for row in rows if (row["method"], row["step"]) != ("replay", "4")])
    convergence.main()
    by_method = lambda row: (row["method"], row["step"])  # noqa: E731
    assert sorted(read_rows(out), key=by_method) == sorted(rows, key=by_method)


def made_up_rows() -> list[dict[str, Any]]:
    rows = []
    for method, samples, final in (("cross_entropy", 0, 0.5), ("replay", 8, 0.45), ("replay", 32, 0.48)):
        for seed in (1, 2, 3):
            spec = replace(TINY, method=method, samples=samples, seed=seed)
            for step in (2, 4):
                value = final * step / 4 + 0.01 * (seed - 2)
                point = {"step": step, "reward_queries": 10 * samples * step, "seconds": 2.0 * step, "val_miou": value}
                rows.append(spec.columns | point | {"val_pixel_accuracy": 0.9})
    return rows


def test_tables_give_mean_range_and_share_of_cross_entropy(tmp_path: Path) -> None:
    add_rows(tmp_path / "rows.csv", made_up_rows(), list(TINY.columns))
    lines = results.final_tables(tmp_path / "rows.csv")["shapes", "image"]
    assert [line[1:6] for line in lines[1:]] == [
        ["", "3", "0.500 (0.490–0.510)", "100.0%", "0"],
        ["8", "3", "0.450 (0.440–0.460)", "90.0%", "320"],
        ["32", "3", "0.480 (0.470–0.490)", "96.0%", "1,280"],
    ]


def test_plots_are_written_and_curves_of_one_method_are_told_apart_by_k(tmp_path: Path) -> None:
    add_rows(tmp_path / "rows.csv", made_up_rows(), list(TINY.columns))
    files = plots.plot(tmp_path / "rows.csv")
    for file in files:
        with Image.open(file) as picture:
            assert np.asarray(picture).std() > 10  # something is drawn
    groups = results.read_panels(tmp_path / "rows.csv")["shapes", "image"]
    titles = [results.title_with_k(group, groups) for group in groups]
    assert titles[0] == TITLES["cross_entropy"]
    assert titles[1:] == [f"{TITLES['replay']}, K = {k}" for k in (8, 32)]


def test_cross_entropy_alone_has_a_panel_too(tmp_path: Path) -> None:
    rows = [row for row in made_up_rows() if row["method"] == "cross_entropy"]
    add_rows(tmp_path / "rows.csv", rows, list(TINY.columns))
    assert results.read_panels(tmp_path / "rows.csv").keys() == {("shapes", "image")}
    assert all(file.exists() for file in plots.plot(tmp_path / "rows.csv"))


def test_quick_is_for_the_ablation_and_an_empty_choice_is_an_error() -> None:
    with pytest.raises(OptionError, match="--quick"):
        convergence.runs_of(convergence.ConvergenceArguments(suite="queries", quick=True))
    with pytest.raises(OptionError, match="no runs on voc"):
        convergence.runs_of(convergence.ConvergenceArguments(suite="queries", datasets=("voc",)))
    nothing = convergence.ConvergenceArguments(suite="queries", methods=("regions",), samples_per_image=(3, 5))
    with pytest.raises(OptionError, match="no runs of regions with K = 3, 5 on shapes, camvid"):
        convergence.runs_of(nothing)
    with pytest.raises(OptionError, match="Unknown method 'region'; valid: cross_entropy"):
        convergence.runs_of(convergence.ConvergenceArguments(suite="queries", methods=("region",)))


def test_methods_and_samples_choose_runs_of_a_suite() -> None:
    args = convergence.ConvergenceArguments(suite="queries", methods=("regions", "replay"), samples_per_image=(2, 16))
    chosen = [(spec.method, spec.samples, spec.seed) for spec in convergence.runs_of(args)]
    assert sorted(chosen) == [
        (method, samples, seed)
        for method, samples in (("regions", 2), ("replay", 2), ("replay", 16))
        for seed in (1, 2, 3)
    ]


def test_a_results_file_elsewhere_shows_the_committed_rows_of_the_headline(tmp_path: Path) -> None:
    copy = tmp_path / "queries.csv"
    copy.write_bytes((RESULTS / copy.name).read_bytes())
    assert results.final_tables(copy) == results.final_tables(RESULTS / copy.name)
    (tmp_path / "headline.csv").write_text((RESULTS / "headline.csv").read_text().splitlines()[0] + "\n")
    assert "cross_entropy" not in {method for method, _ in results.read_panels(copy)["camvid", "image"]}  # its own
