"""Callbacks see a run as its folder has it, can end it, and cannot damage it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agents import Callback, Likelihood, Result, StopTraining, train
from agents.callbacks import Tracker, Trackio, WandB
from agents.networks.checkpoints import find_checkpoints
from rss_env.errors import OptionError
from rss_env.evaluation import Evaluation


def small_run(run_dir: Path, **arguments: Any) -> Result:
    options = {"image_size": (16, 16), "env_kwargs": {"num_images": 4}, "network_options": {"width": 8}}
    often = {"log_every": 1, "eval_every": 2, "checkpoint_every": 2}
    given = options | often | {"steps": 3, "batch_size": 2, "progress": False} | arguments
    return train("RSS-Shapes-ImageReward-v0", Likelihood(samples_per_image=2), run_dir=run_dir, **given)


class Recording(Callback):
    """Notes every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def on_start(self, config: dict[str, Any], step: int) -> None:
        self.calls.append(("start", config, step))

    def on_log(self, step: int, metrics: dict[str, float]) -> None:
        self.calls.append(("log", step, metrics))

    def on_evaluation(self, step: int, evaluation: Evaluation, picture: np.ndarray) -> None:
        self.calls.append(("evaluation", step, evaluation, picture))

    def on_checkpoint(self, path: Path) -> None:
        assert path.is_dir()
        self.calls.append(("checkpoint", path))

    def on_end(self, result: Result | None) -> None:
        self.calls.append(("end", result))


class Failing(Callback):
    """Raises an error in one of its methods."""

    def __init__(self, method: str, error: Exception) -> None:
        def fail(*_: Any) -> None:
            raise error

        setattr(self, method, fail)


def stop(step: int, metrics: dict[str, float]) -> None:
    raise StopTraining


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    run_dir, recording, rows = tmp_path_factory.mktemp("runs") / "run", Recording(), []
    library = SimpleNamespace(calls=[], Image=lambda picture: picture)
    for name in ("init", "log", "finish"):
        setattr(library, name, lambda *args, of=name, **named: library.calls.append((of, args, named)))
    tracker = Tracker(library, project="mine", group="small")
    result = small_run(run_dir, callbacks=[recording, lambda *row: rows.append(row), tracker])
    return SimpleNamespace(run_dir=run_dir, calls=recording.calls, rows=rows, result=result, tracked=library.calls)


def test_callbacks_are_called_in_the_order_of_the_run(recorded: SimpleNamespace) -> None:
    assert [call[0] for call in recorded.calls] == (
        ["start", "log", "log", "evaluation", "checkpoint", "log", "evaluation", "checkpoint", "end"]
    )
    config = json.loads((recorded.run_dir / "config.json").read_text())
    config.pop("sha256")
    assert json.loads(json.dumps(recorded.calls[0][1])) == config
    assert recorded.calls[0][2] == 0
    assert recorded.calls[-1][1] is recorded.result
    assert [call[1] for call in recorded.calls if call[0] == "checkpoint"] == find_checkpoints(recorded.run_dir)


def test_callbacks_get_what_the_run_folder_has(recorded: SimpleNamespace) -> None:
    stored: dict[int, dict[str, float]] = {}
    for line in (recorded.run_dir / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        stored.setdefault(row["step"], {}).update(row)
    logged = [call[1:] for call in recorded.calls if call[0] == "log"]
    assert logged == recorded.rows
    assert [step for step, _ in logged] == [1, 2, 3]
    for step, metrics in logged:
        assert metrics.items() <= stored[step].items()
        assert "train/loss" in metrics
    evaluations = [call[1:] for call in recorded.calls if call[0] == "evaluation"]
    for step, evaluation, picture in evaluations:
        assert evaluation.miou == stored[step]["val/miou"]
        with Image.open(recorded.run_dir / "pictures" / f"val-label_maps-step-{step:08d}.png") as written:
            np.testing.assert_array_equal(picture, np.asarray(written))
    assert evaluations[-1][1] == recorded.result.evaluation


def test_a_result_has_the_curves_the_folder_and_the_policy(recorded: SimpleNamespace) -> None:
    result = recorded.result
    assert result.run_dir == recorded.run_dir
    assert result.curves["train/loss"] == {step: metrics["train/loss"] for step, metrics in recorded.rows}
    assert list(result.curves["val/miou"]) == [2, 3]
    assert result.curves["val/miou"][3] == result.evaluation.miou
    assert "step" not in result.curves
    assert repr(result) == (
        f"Result(finished after step 3; {result.evaluation}; 12 label maps scored in {result.seconds:.1f} s; "
        f"{recorded.run_dir}/checkpoints/step-00000003)"
    )
    assert result.network is result.policy.network
    assert result.policy.description["training"] == {
        "env_id": "RSS-Shapes-ImageReward-v0",
        "algorithm": "Likelihood",
        "reward": "mean_iou",
        "wrap": [],
        "step": 3,
        "reward_queries": 12,
        "validation": result.evaluation.metrics,
    }


def test_a_tracker_gets_the_arguments_the_numbers_and_the_pictures(recorded: SimpleNamespace) -> None:
    (first, _, begun), *logged, last = recorded.tracked
    assert first == "init"
    assert begun == {"project": "mine", "group": "small", "name": "run", "config": recorded.calls[0][1]}
    curves: dict[str, dict[int, float]] = {}
    for name, (numbers,), named in logged:
        assert name == "log"
        for key, value in numbers.items():
            curves.setdefault(key, {})[named["step"]] = value
    assert [picture.shape for picture in curves.pop("val/label_maps").values()] == [(32, 64, 3)] * 2
    assert curves == recorded.result.curves
    assert last == ("finish", (), {})


@pytest.mark.parametrize("tracker", [WandB, Trackio])
def test_a_tracker_that_is_not_installed_is_one_line(tracker: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, tracker.__name__.lower(), None)
    with pytest.raises(OptionError, match=f"^The tracker {tracker.__name__.lower()} cannot be imported: .*pip install"):
        tracker("project")


def test_a_tracker_of_another_interface_is_refused() -> None:
    with pytest.raises(OptionError, match=r"'json' cannot track a run: it has no init\(\)"):
        Tracker("json")


def test_a_callback_that_stops_the_run_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    recording = Recording()
    stopped = small_run(tmp_path, callbacks=[stop, recording])
    assert (stopped.step, stopped.finished, stopped.evaluation) == (1, False, None)
    assert [call[0] for call in recording.calls] == ["start", "log", "checkpoint", "end"]
    assert [path.name for path in find_checkpoints(tmp_path)] == ["step-00000001"]
    assert repr(stopped).startswith("Result(stopped after step 1; 4 label maps")
    resumed = Recording()
    result = small_run(tmp_path, resume=True, callbacks=[resumed])
    assert (result.step, result.finished) == (3, True)
    assert (resumed.calls[0][2], resumed.calls[1][1]) == (1, 2)


def test_a_run_that_stops_at_an_evaluation_ends_with_it(tmp_path: Path) -> None:
    result = small_run(tmp_path, callbacks=[Failing("on_evaluation", StopTraining())])
    assert (result.step, result.finished) == (2, False)
    assert result.evaluation is not None
    assert result.evaluation.miou == result.curves["val/miou"][2]


@pytest.mark.parametrize(
    ("method", "step"), [("on_start", 0), ("on_log", 1), ("on_evaluation", 2), ("on_checkpoint", 2), ("on_end", 3)]
)
def test_an_error_in_a_callback_is_raised_after_a_checkpoint(tmp_path: Path, method: str, step: int) -> None:
    error, recording = RuntimeError("no connection"), Recording()
    with pytest.raises(RuntimeError, match="no connection") as raised:
        small_run(tmp_path, callbacks=[Failing(method, error), recording])
    assert raised.value is error
    assert raised.traceback[-1].name == "fail"
    assert find_checkpoints(tmp_path)[-1].name == f"step-{step:08d}"
    if method == "on_start":
        assert recording.calls == []
    else:
        assert recording.calls[-1][0] == "end"
        assert (recording.calls[-1][1] is None) == (method != "on_end")


def test_callbacks_learn_that_a_run_ends_with_an_error_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording()
    monkeypatch.setattr("agents.training.loop._check_finite", Failing("on_log", FloatingPointError("nan")).on_log)
    with pytest.raises(FloatingPointError, match="nan"):
        small_run(tmp_path, callbacks=[recording])
    assert [call[0] for call in recording.calls] == ["start", "end"]
    assert recording.calls[-1] == ("end", None)


@pytest.mark.parametrize("callbacks", [Recording(), [Recording], [3], print])
def test_what_is_no_callback_is_refused(tmp_path: Path, callbacks: Any) -> None:
    with pytest.raises(OptionError, match="callback"):
        small_run(tmp_path, callbacks=callbacks)
    assert not list(tmp_path.iterdir())


def test_without_progress_a_run_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    small_run(tmp_path, steps=1)
    assert capfd.readouterr() == ("", "")
