"""The search over bounds: its commands are those of losses and scores; its table has a column for a learning rate."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest

from agents.likelihood import Likelihood
from agents.supervised import Supervised
from agents.training.command import parse_command
from benchmarks import search_bounds
from benchmarks.leaderboard.own_entries import COMMANDS
from benchmarks.results_file import RESULTS, read_rows
from benchmarks.search_bounds import LOSSES, RSS_FACTOR, bounds_table, case_of
from benchmarks.tasks import CAMVID, SHAPES_32, VOC, Setting
from rss_env.errors import OptionError


@pytest.mark.parametrize("loss", LOSSES)
def test_a_case_trains_with_its_loss_as_long_as_the_leaderboard_does(loss: str) -> None:
    case = case_of(Setting(SHAPES_32), loss, 4e-3, "[:64]", 2)
    assert case.columns["learning_rate"] == "0.004"
    command = parse_command(Supervised, [*case.command[1:], "--run-dir", "run"])
    algorithm, run = command.algorithm, command.run
    assert (algorithm.learning_rate, run.split, run.seed, run.steps) == (4e-3, "train[:64]", 2, 1000)
    assert algorithm.loss_name.replace("soft_iou", "soft IoU").replace("_", "-") == loss.partition(" +")[0]
    assert (algorithm.cross_entropy_share == 0.5) == ("+ cross" in loss)
    for task, size, split in ((CAMVID, (48, 64), "train"), (VOC, (64, 64), "trainaug")):
        photos = replace(task, options={"root": "data/photos"})
        words = case_of(Setting(photos), loss, 4e-3, "", 2).command
        run = parse_command(Supervised, [*words[1:], "--run-dir", "run"]).run
        assert (run.root, run.image_size, run.steps, run.split) == ("data/photos", size, 1000, split)


def test_scores_are_searched_at_the_same_peaks_with_the_leaderboard_s_queries() -> None:
    words = case_of(Setting(SHAPES_32), "RSS", 4e-3, "", 2).command
    command = parse_command(Likelihood, [*words[1:], "--run-dir", "run"])
    algorithm, run = command.algorithm, command.run
    assert words[0] == "agents.likelihood"
    assert isinstance(algorithm, Likelihood)
    assert algorithm.regions  # with which the peak is twice the flag's
    assert algorithm.learning_rate * RSS_FACTOR == 4e-3  # as cross-entropy has it
    assert run.steps * run.batch_size * algorithm.samples_per_image == SHAPES_32.budgets["small"]


def test_the_table_has_the_mean_over_the_seeds(tmp_path: Path) -> None:
    lines = ["data,steps,method,labelled,learning_rate,seed,val_miou", "shapes-32,9,lovasz,train,0.004,1,0.5"]
    lines += ["shapes-32,9,lovasz,train,0.001,1,0.25", "shapes-32,9,lovasz,train,0.001,2,0.5"]
    (tmp_path / "search.csv").write_text("\n".join([*lines, ""]))
    head, line = bounds_table(tmp_path / "search.csv")
    assert head == ["data", "steps", "labelled", "method", "seeds", "0.001", "0.004"]
    assert line == ["shapes-32", "9", "train", "lovasz", "1–2", "0.375", "0.500"]


def test_an_unknown_method_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["search_bounds", "--methods", "dice"])
    with pytest.raises(OptionError, match=r"methods must be some of cross-entropy, lovasz, .* got dice"):
        search_bounds.main()


@pytest.mark.parametrize(("method", "default"), [("cross-entropy", Supervised().learning_rate), ("RSS", 2e-3)])
def test_no_rate_of_the_search_is_better_by_a_hundredth_than_the_leaderboard_s(method: str, default: float) -> None:
    found: dict[str, dict[float, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in read_rows(RESULTS / "records" / "search_bounds.csv", ["data", "method", "learning_rate", "val_miou"]):
        if row["method"] == method and row["labelled"] == "train":
            found[row["data"]][float(row["learning_rate"])][row["seed"]] = float(row["val_miou"])
    assert {"shapes-32", "shapes-64", "camvid"} <= set(found)
    for task, rates in found.items():
        own = COMMANDS[method].learning_rates.get(task, default / (RSS_FACTOR if method == "RSS" else 1))
        chosen = rates[own * (RSS_FACTOR if method == "RSS" else 1)]
        for rate, values in rates.items():
            seeds = set(values) & set(chosen)
            assert len(seeds) >= 2, (task, rate)
            assert mean(values[seed] - chosen[seed] for seed in seeds) < 0.01, (task, rate)
