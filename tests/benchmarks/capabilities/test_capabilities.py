from __future__ import annotations

import itertools
import pickle
import runpy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agents import RSS, Likelihood, Supervised, sb3
from agents.training.command import parse_command
from agents.training.loop import fit
from agents.training.run_folder import RunFolder
from benchmarks.capabilities import __main__ as capabilities
from benchmarks.capabilities import report, runs
from benchmarks.capabilities.experiments import ENV_ID, Experiment, Setting, experiments, settings, suite
from benchmarks.capabilities.runs import AGENTS, BOUND, KEY, Run, Work, zero_of
from benchmarks.memory import PeakMemory
from benchmarks.processes import Processes
from benchmarks.results_file import add_rows, read_rows, update_rows
from benchmarks.training_runs import RunFailed
from rss_env.errors import OptionError
from rss_env.evaluation import evaluate

TINY = Setting(side=8, samples=2, visits=1, steps=2, batch=2)
ALGORITHMS: dict[str, Any] = {BOUND: Supervised, "likelihood": Likelihood, "rss": RSS}


# The experiments ------------------------------------------------------------------------------------------------------


def test_every_experiment_changes_one_thing_and_begins_with_what_is_easiest() -> None:
    base = Setting()
    for experiment in experiments():
        varied = {"formula": "reward", "noise": "wrap", "stars": "wrap", "preference": "wrap", "drift": "wrap"}
        name = {"pixels": "side"}.get(experiment.name, varied.get(experiment.name, experiment.name))
        values = [getattr(setting, name) for _, setting in experiment.difficulties]
        assert [replace(setting, **{name: getattr(base, name)}) for _, setting in experiment.difficulties] == [base] * 4
        assert len(set(values)) == 4
        if name not in ("wrap", "reward"):
            assert getattr(base, name) in values
            assert values == sorted(values, reverse=name in ("samples", "visits"))


def test_images_are_as_many_as_the_visits_ask_for() -> None:
    for setting in settings(suite(quick=False)):
        assert setting.data["num_images"] * setting.visits == setting.steps * setting.batch


def test_the_quick_suite_is_a_small_part_of_the_full_one() -> None:
    full, quick = (suite(quick) for quick in (False, True))
    assert [each.name for each in quick] == [each.name for each in full]
    assert sum(each.cost for each in settings(quick)) < 0.1 * sum(each.cost for each in settings(full))


@pytest.mark.parametrize("setting", settings(suite(quick=True)), ids=lambda setting: f"{setting}"[8:-1])
def test_every_setting_can_be_trained_on(setting: Setting, tmp_path: Path) -> None:
    small = replace(setting, side=min(setting.side, 12), steps=2, batch=2)
    agent = "likelihood" if small.visits == 1 or small.wrap.startswith("noise") else "rss"
    run = Run("full", agent, AGENTS[agent], small, seed=3)
    command = parse_command(ALGORITHMS[agent], [*run.words[1:], "--run-dir", str(tmp_path), "--no-progress"])
    result = fit(command.run, command.algorithm)
    assert result.reward_queries == 2 * 2 * small.samples
    assert zero_of(small) < 1
    assert command.run.seed == 3


def test_every_run_of_the_full_suite_has_a_command_that_its_module_takes() -> None:
    for run in capabilities.runs_of(capabilities.CapabilitiesArguments(agents=("rss",), seeds=(1,))):
        command = parse_command(ALGORITHMS[run.agent], [*run.words[1:], "--run-dir", "unused"])
        assert (command.run.steps, command.run.batch_size) == (run.setting.steps, run.setting.batch)
        assert command.run.wrap == ((run.setting.wrap,) if run.setting.wrap else ())
        assert run.agent == BOUND or command.algorithm.samples_per_image == run.setting.samples


def test_sb3_gets_as_many_queries_as_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_baselines3", reason="needs Stable-Baselines3")
    setting = replace(TINY, wrap="drift:-0.5,0.5,2")
    run = Run("full", "sb3 ppo", AGENTS["sb3 ppo"], setting, 1)
    words = [run.words[0], "--run-dir", str(tmp_path / "run"), "--no-progress", *run.words[1:]]
    monkeypatch.setattr("sys.argv", words)
    sb3.main()
    assert RunFolder(tmp_path / "run").read_metrics()[-1]["time/reward_queries"] == 2 * 2 * 2


# Zero -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("imbalance", [1.0, 1000.0])
def test_zero_is_what_the_best_constant_reaches(imbalance: float) -> None:
    setting = Setting(side=16, imbalance=imbalance, visits=100, steps=200)  # 16 images: the last class may be missing
    options: dict[str, Any] = {"image_size": (16, 16)} | setting.data

    def miou(label: int) -> float | None:
        return evaluate(lambda images: np.full(images.shape[:3], label, np.uint8), ENV_ID, **options).miou

    assert zero_of(setting) == pytest.approx(max(filter(None, map(miou, range(setting.classes)))))


def test_random_label_maps_reach_no_more_than_zero_and_all_of_it_where_constants_are_worse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting = Setting(side=16, classes=2, visits=50)  # 64 images
    rng, options = np.random.default_rng(0), {"image_size": (16, 16)} | setting.data
    random = evaluate(lambda images: rng.integers(0, 2, images.shape[:3]), ENV_ID, **options).miou
    assert random is not None
    assert random < zero_of(setting) + 1e-3

    class Balanced:  # half of the pixels of each class: a constant reaches 1/4, random label maps 1/3
        targets = np.arange(64).reshape(1, 8, 8) % 2

    monkeypatch.setattr(runs, "load_dataset", lambda *_, **__: Balanced)
    assert zero_of(setting) == pytest.approx(1 / 3)


# Running --------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # as this process has imported the agents
def test_a_suite_is_run_resumed_where_it_stopped_and_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[str] = []

    def train(command: Sequence[str], folder: Path, processes: Processes, memory: PeakMemory) -> None:
        """As the real one, in this process; a preference is refused, as by an agent that cannot take it."""
        trained.append(folder.name)
        if "preference" in folder.name:
            raise RunFailed("stopped with exit code 2: A preference compares the samples of an image.")
        words = ["--run-dir", str(folder), "--no-progress", *command[1:]]
        with monkeypatch.context() as patched:
            patched.setattr("sys.argv", [command[0], *words, *["--resume"] * (folder / "config.json").exists()])
            with pytest.raises(SystemExit) as ended:
                runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        assert not ended.value.code
        memory.mebibytes = 300.0

    noise, preference = (replace(TINY, wrap=wrap) for wrap in ("noise:0.1", "preference:0"))
    tiny = [Experiment("noise", "Noise.", "std", (("0", TINY), ("0.1", noise)))]
    tiny.append(Experiment("preference", "Preferences.", "temperature", (("0", preference),)))
    for module in (capabilities, report):
        monkeypatch.setattr(module, "suite", lambda quick: tiny)
    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(runs, "zero_of", lambda setting: 0.0)  # the true one is out of reach in two steps
    out = tmp_path / "out.csv"
    words = ["capabilities", "--agents", "mine=agents.rss --cells 2 1", "--seeds", "1", "--parallel", "1"]
    monkeypatch.setattr("sys.argv", [*words, "--run-dir", str(tmp_path / "runs"), "--out", str(out)])
    capabilities.main()
    rows = read_rows(out)
    assert [(row["agent"], row["wrap"], row["status"][:12]) for row in rows] == [
        (BOUND, "", "ok"),
        ("mine", "", "ok"),
        ("mine", "noise:0.1", "ok"),
        ("mine", "preference:0", "A preference"),
    ]
    for row in rows[:3]:
        assert float(row["peak_mib"]) == 300
        assert float(row["learning_rate"]) == 2e-3
        assert int(row["reward_queries"]) == (4 if row["agent"] == BOUND else 8)
        assert {"device", "commit", "torch", "seconds", "zero"} <= row.keys()
    assert "refused" in (tmp_path / "out.mine.md").read_text()
    assert "cells" in RunFolder(next((tmp_path / "runs").glob("full-mine*"))).config_path.read_text()

    trained.clear()
    capabilities.main()
    assert read_rows(out) == rows
    assert ["preference" in name for name in trained] == [True]  # what was refused is tried again, nothing else

    update_rows(out, lambda held: [row for row in held if row["wrap"] != "noise:0.1"])  # it was stopped before that row
    trained.clear()
    capabilities.main()
    assert sorted("noise" in name for name in trained) == [False, True]
    assert sorted(read_rows(out), key=str) == sorted(rows, key=str)
    capsys.readouterr()


@pytest.mark.parametrize("module", ["no_such_module", "agents.no_such", "no_such.module"])
def test_an_agent_that_is_not_there_is_refused_before_the_first_run(module: str) -> None:
    capabilities.check_modules([Run("full", "rss", "agents.rss --cells 2", TINY, 1)])
    with pytest.raises(OptionError, match=f"no module '{module}', which 'mine' names"):
        capabilities.check_modules([Run("full", "mine", f"{module} --flag", TINY, 1)])


def test_an_error_of_another_kind_ends_the_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: Any, **__: Any) -> None:
        raise RunFailed("stopped with exit code 1: a traceback")

    monkeypatch.setattr(runs, "train", train)
    with pytest.raises(OptionError, match="exit code 1: a traceback"):
        Work(str(tmp_path), {})(Run("full", "rss", "agents.rss", TINY, 1), Processes())


def test_a_run_and_its_work_can_be_sent_to_another_machine() -> None:
    run, work = Run("full", "rss", "agents.rss", TINY, 1), Work("runs", {"commit": "abc"})
    assert pickle.loads(pickle.dumps((run, work))) == (run, work)
    assert work.folder(run) == Path("runs") / run.name


def test_every_run_has_a_folder_of_its_own() -> None:
    made = capabilities.runs_of(capabilities.CapabilitiesArguments(agents=tuple(list(AGENTS)[1:])))
    made += capabilities.runs_of(capabilities.CapabilitiesArguments(quick=True))
    assert len({run.name for run in made}) == len({run.key for run in made}) == len(made)
    assert not any(set(" :/") & set(run.name) for run in made)
    bound = [run for run in made if run.agent == BOUND and run.size == "full" and run.seed == 1]
    assert len(bound) == 13  # settings that differ only in the feedback share one


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("unknown",), "Unknown agent 'unknown'; valid: cross-entropy, likelihood, rss, sb3 ppo, sb3 a2c, or NAME="),
        (("rss=agents.rss",), "an agent of your own is NAME=MODULE FLAGS, with a name of its own"),
        (("mine= ",), "an agent of your own is NAME=MODULE FLAGS"),
        (("rss", "rss"), "names 'rss' twice"),
    ],
)
def test_a_wrong_agent_is_named(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        capabilities.commands_of(words)


def test_a_quick_run_is_of_one_agent_unless_others_are_named() -> None:
    for arguments, agents in (
        ({"quick": True}, [BOUND, "likelihood"]),
        ({}, [BOUND, "likelihood", "rss"]),
        ({"quick": True, "agents": ("rss",)}, [BOUND, "rss"]),
    ):
        made = capabilities.runs_of(capabilities.CapabilitiesArguments(**arguments))
        assert list(dict.fromkeys(run.agent for run in made)) == agents


def test_an_agent_of_another_command_needs_another_name(tmp_path: Path) -> None:
    run = Run("full", "mine", "agents.rss", TINY, 1)
    row = run.columns | {"status": "ok", "val_miou": 1, "zero": 0, "command": "agents.likelihood"}
    add_rows(tmp_path / "out.csv", [row], KEY)
    with pytest.raises(OptionError, match=r"holds 'mine' as 'agents\.likelihood'; give the agent another name"):
        capabilities.run_missing(capabilities.CapabilitiesArguments(), [run], tmp_path / "out.csv")


# The report -----------------------------------------------------------------------------------------------------------


def write_rows(path: Path, without: str = "") -> None:
    """Made-up results of two seeds: cross-entropy reaches zero + 0.5, "good" three quarters of that, "bad" loses."""
    rows = []
    for setting, seed in itertools.product(settings(suite(quick=True)), (1, 2)):
        zero = 0.1 + 0.01 * setting.classes
        for agent, share in ((BOUND, 1.0), ("good", 0.75 + 0.1 * (seed - 1.5)), ("bad", -0.2 if setting.wrap else 0.5)):
            run = Run("quick", agent, f"agents.{agent}", setting.of_bound if agent == BOUND else setting, seed)
            refused = agent == "bad" and setting.wrap.startswith("preference")
            about = {"status": "It refuses." if refused else "ok", "val_miou": "" if refused else zero + 0.5 * share}
            about |= {"zero": zero, "command": run.command, "seconds": 6.0, "peak_mib": 500}
            about |= {"device": "a CPU", "torch": "2", "commit": "abc"}
            if agent != without:
                rows.append(run.columns | about)
    add_rows(path, rows, KEY)


def test_the_radar_is_drawn_from_normalised_scores(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv")
    results = report.read(tmp_path / "rows.csv")
    assert list(results.scores) == ["good", "bad"]
    assert report.radar_values(results, "good") == pytest.approx([0.75] * 10)
    # Its scores are half of cross-entropy's without feedback, and below 0, drawn as 0, with it.
    assert report.radar_values(results, "bad") == pytest.approx([0.5] * 5 + [0] * 3 + [0.5] + [0])
    np.testing.assert_allclose(results.matrix("good"), [[0.7] * 18, [0.8] * 18])
    preference = results.experiments[7]
    np.testing.assert_allclose(results.experiment("bad", preference), np.zeros((2, 2)))  # what it refuses counts as 0


def test_tables_and_pages_say_so(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv")
    results = report.read(tmp_path / "rows.csv")
    summary = {line[0]: line[1:] for line in report.summary_table(results)}
    assert summary["pixels"] == ["0.75 (0.70–0.80)", "0.50 (0.50–0.50)"]
    assert summary["drift"] == ["0.75 (0.70–0.80)", "-0.20 (-0.20–-0.20)"]
    lines = report.agent_table(results, "bad")
    assert len({len(line) for line in lines}) == 1
    assert [line[-2] for line in lines[:3]] == ["mIoU that is 1", "0.64", "0.62, 0.69"]  # of 4 classes, of 2 and 9
    assert lines[8][:2] == ["preference (temperature)", "0.0: 0.00 (refused)"]
    files = report.write(tmp_path / "rows.csv")
    text = (tmp_path / "rows.bad.md").read_text()
    assert "# What bad can do" in text
    assert "rows.bad.png" in text
    assert "- It refuses." in text
    assert all(experiment.tests in text for experiment in results.experiments)
    assert "refuse" not in (tmp_path / "rows.good.md").read_text().replace("was refused or diverged counts", "")
    for file in files:
        if file.suffix == ".png":
            with Image.open(file) as picture:
                assert np.asarray(picture).std() > 10  # something is drawn


def test_an_agent_that_lacks_runs_is_left_out_and_none_is_an_error(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv")
    update_rows(
        tmp_path / "rows.csv", lambda rows: [row for row in rows if (row["agent"], row["side"]) != ("bad", "8")]
    )
    assert list(report.read(tmp_path / "rows.csv").scores) == ["good"]
    begun = [row | {"size": "full"} for row in read_rows(tmp_path / "rows.csv")[:9]]
    update_rows(tmp_path / "rows.csv", lambda rows: [*rows, *begun])  # the full size is not done yet
    assert report.read(tmp_path / "rows.csv").size == "quick"

    write_rows(tmp_path / "none.csv", without=BOUND)
    with pytest.raises(OptionError, match="holds no agent with all its runs"):
        report.read(tmp_path / "none.csv")


def test_a_yardstick_that_was_refused_is_none(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv")
    update_rows(tmp_path / "rows.csv", lambda rows: [row | {"status": "no", "val_miou": ""} for row in rows])
    with pytest.raises(OptionError, match="holds no agent with all its runs"):
        report.read(tmp_path / "rows.csv")


def test_a_yardstick_that_has_learned_nothing_is_none(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv")
    update_rows(tmp_path / "rows.csv", lambda rows: [row | {"val_miou": "0.1"} for row in rows])
    with pytest.raises(OptionError, match=r"cross-entropy reaches 0\.100 and nothing 0\.140: train longer.*side=8"):
        report.read(tmp_path / "rows.csv")
