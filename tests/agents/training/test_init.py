"""A run that starts from the weights of another one, and the command of two such runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from agents import RSS, Supervised
from agents.errors import CheckpointError, RunFolderError
from agents.networks.checkpoints import find_checkpoints
from agents.reward_tuning import main
from agents.training.loop import Result, train
from agents.training.run_folder import RunFolder
from tests.agents.training.test_resume import as_words, interrupted

SHARED: dict[str, Any] = {
    "image_size": (16, 16),
    "env_kwargs": {"num_images": 4, "num_classes": 3},
    "network_options": {"width": 8},
    "batch_size": 2,
    "log_every": 1,
    "eval_every": 1,
    "progress": False,
}
ENV_ID = "RSS-Shapes-ImageReward-v0"


def run(run_dir: Path, algorithm: Any = None, **arguments: Any) -> Result:
    algorithm = algorithm or RSS(samples_per_image=2)
    return train(ENV_ID, algorithm, run_dir=str(run_dir), **SHARED | {"steps": 1} | arguments)


def weights_of(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(find_checkpoints(run_dir)[-1] / "weights.safetensors")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    run(folder, Supervised(), steps=2, seed=7)
    return folder


def start_of(run_dir: Path, **arguments: Any) -> dict[str, torch.Tensor]:
    """The weights after one step that hardly moves them."""
    run(run_dir, RSS(samples_per_image=2, learning_rate=1e-12), weight_decay=0.0, **arguments)
    return weights_of(run_dir)


def test_a_run_starts_with_the_weights_of_another(first: Path, tmp_path: Path) -> None:
    for number, place in enumerate((first, find_checkpoints(first)[-1] / "weights.safetensors")):
        found = start_of(tmp_path / str(number), init=place)
        for name, weights in weights_of(first).items():
            torch.testing.assert_close(found[name], weights, atol=1e-9, rtol=0)
    fresh = start_of(tmp_path / "fresh")
    assert any((fresh[name] - weights).abs().max() > 1e-3 for name, weights in weights_of(first).items())


def test_nothing_but_the_weights_is_taken_over(first: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "second", init=first)
    assert (result.step, result.reward_queries) == (1, 4)
    rows = RunFolder(tmp_path / "second").read_metrics()
    assert [row["step"] for row in rows if "reward/mean" in row] == [1]
    assert RunFolder(tmp_path / "second").read_config()["init"] == str(first)


def test_a_resumed_run_goes_on_from_its_own_weights_and_needs_the_others_no_more(first: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(first, tmp_path / "copied"))
    run(tmp_path / "whole", steps=4, init=copied)
    half = run(tmp_path / "half", interrupted(RSS(samples_per_image=2), 2), steps=4, init=copied)
    assert not half.finished
    shutil.rmtree(copied)
    assert run(tmp_path / "half", steps=4, init=copied, resume=True).finished
    whole = weights_of(tmp_path / "whole")
    assert all(torch.equal(weights, whole[name]) for name, weights in weights_of(tmp_path / "half").items())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"env_kwargs": {"num_images": 4, "num_classes": 4}}, "for 3 classes, but the environment has 4"),
        ({"network_options": {"width": 16}}, "are not those of this network"),
        ({"init": "nothing"}, "No checkpoint at nothing"),
    ],
    ids=["classes", "network", "nothing"],
)
def test_weights_that_do_not_fit_are_refused_before_the_run_folder_is_made(
    changed: dict[str, Any], said: str, first: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=said):
        run(tmp_path / "second", **{"init": first} | changed)
    assert not (tmp_path / "second").exists()


def test_damaged_weights_are_refused(first: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(first, tmp_path / "copied"))
    file = find_checkpoints(copied)[-1] / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="does not fit its checksum"):
        run(tmp_path / "second", init=copied)


TUNING = {"label_steps": 3, "steps": 2, "samples_per_image": 2} | SHARED


def test_reward_tuning_begins_where_cross_entropy_ended(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = [*as_words(TUNING | {"learning_rate": 1e-12, "weight_decay": 0.0}), "--run-dir", str(folder)]
    assert main(words) == 0
    labels = RunFolder(folder / "labels")
    assert (labels.read_config()["algorithm"], labels.read_metrics()[-1]["step"]) == ("Supervised", 3)
    for name, weights in weights_of(folder).items():
        torch.testing.assert_close(weights, weights_of(folder / "labels")[name], atol=1e-9, rtol=0)
    rows = RunFolder(folder).read_metrics()
    queries = [row["time/reward_queries"] for row in rows if "time/reward_queries" in row]
    assert queries == [4, 8]  # those of the second stage
    with pytest.raises(RunFolderError, match="already holds a run"):
        main(words)
    assert main([*words, "--resume"]) == 0


def test_reward_tuning_goes_on_with_the_first_stage_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def words(name: str) -> list[str]:
        return [*as_words(TUNING), "--run-dir", str(tmp_path / name)]

    assert main(words("whole")) == 0
    with monkeypatch.context() as patched:
        patched.setattr("agents.reward_tuning.Supervised", lambda **given: interrupted(Supervised(**given), 2))
        assert main(words("half")) == 130
    assert not (tmp_path / "half" / "config.json").exists()
    assert main(words("half")) == 0
    whole = weights_of(tmp_path / "whole")
    assert all(torch.equal(weights, whole[name]) for name, weights in weights_of(tmp_path / "half").items())
