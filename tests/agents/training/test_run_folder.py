from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from agents.errors import CheckpointError, RunFolderError
from agents.likelihood import Likelihood
from agents.networks.unet import UNet
from agents.training.loop import train
from agents.training.run_folder import RunFolder
from tests.datasets.plain_user import as_plain_user

ROOT = Path(__file__).parents[3]


def new_folder(path: Path, keep: int = 2) -> RunFolder:
    folder = RunFolder(path, keep)
    folder.create({"algorithm": "a test"})
    return folder


def save(folder: RunFolder, step: int, memories: Sequence[Path] = (), **state: Any) -> Path:
    return folder.save_checkpoint(step, UNet(2, 8), {}, {"step": step, **state}, memories)


def test_config_holds_the_algorithm_and_its_arguments(finished_run: Path) -> None:
    config = json.loads((finished_run / "config.json").read_text())
    assert config["algorithm"] == "Likelihood"
    assert config["env_id"] == "RSS-Shapes-ImageReward-v0"
    assert config["image_size"] == [16, 24]
    assert (config["steps"], config["samples_per_image"], config["learning_rate"]) == (6, 3, 1e-3)
    assert (config["temperature"], config["replay"], config["regions"]) == (2.0, 128, [12, 6, 3, 1])
    assert (config["network"], config["network_options"]) == ("unet", {"width": 8})


def test_metrics_have_a_row_for_every_logged_step_and_every_evaluation(finished_run: Path) -> None:
    rows = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "train/loss" in row] == [2, 4, 6]
    assert [row["step"] for row in rows if "val/miou" in row] == [3, 6]
    train = next(row for row in rows if row["step"] == 4)
    assert {"reward/mean", "reward/best", "reward/std", "policy/entropy", "train/grad_norm"} <= train.keys()
    assert {"likelihood/explained", "likelihood/offset", "replay/visits", "policy/advantage_scale"} <= train.keys()
    assert (train["time/reward_queries"], train["time/images"]) == (4 * 2 * 3, 4 * 2)
    assert all(math.isfinite(value) for row in rows for value in row.values())


def test_tensorboard_shows_the_same_numbers_and_a_picture(finished_run: Path) -> None:
    events = EventAccumulator(str(finished_run)).Reload()
    rows = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    names = {name for row in rows for name in row} - {"step"}
    assert set(events.Tags()["scalars"]) == names
    for name in names:
        logged = [(row["step"], np.float32(row[name])) for row in rows if name in row]
        assert [(event.step, np.float32(event.value)) for event in events.Scalars(name)] == logged
    pictures = events.Images("val/label_maps")
    assert [picture.step for picture in pictures] == [3, 6]
    assert (pictures[0].height, pictures[0].width) == (2 * 16, 6 * 24)


def test_a_checkpoint_is_described_weights_and_a_state_that_runs_no_code_when_loaded(finished_run: Path) -> None:
    checkpoint = RunFolder(finished_run).latest_checkpoint()
    assert checkpoint == finished_run / "checkpoints" / "step-00000006"
    assert sorted(file.name for file in checkpoint.iterdir()) == ["SHA256SUMS", "state.pt", "weights.safetensors"]
    with safe_open(checkpoint / "weights.safetensors", framework="pt") as weights:
        described = json.loads(weights.metadata()["policy"])
    assert described["class_names"] == ["background", "disk", "square"]
    assert np.array(described["palette"]).shape == (3, 3)
    assert (described["image_size"], described["resize"]) == ([16, 24], "pad")
    assert len(described["class_shares"]) == 3
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    assert state.keys() == {
        "step",
        "seconds",
        "reward_queries",
        "visits",
        "shares",
        "measured",
        "optimiser",
        "generators",
        "network_generators",
        "device",
        "algorithm",
    }
    assert (state["step"], state["reward_queries"], len(state["generators"])) == (6, 6 * 2 * 3, 1)


def test_two_checkpoints_of_a_run_stay(finished_run: Path) -> None:
    stored = sorted(path.name for path in (finished_run / "checkpoints").iterdir())
    assert stored == ["step-00000005", "step-00000006"]  # there was one a step


@pytest.mark.parametrize("keep", [1, 3])
def test_only_the_newest_checkpoints_stay(tmp_path: Path, keep: int) -> None:
    folder = new_folder(tmp_path / "run", keep)
    for step in (1, 5, 9, 10, 100):
        saved = save(folder, step)
        assert saved == folder.latest_checkpoint()
    stored = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert stored == [f"step-{step:08d}" for step in (1, 5, 9, 10, 100)][-keep:]


def test_the_same_step_saved_again_replaces_its_checkpoint(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "run")
    save(folder, 3, mark="old")
    state = folder.read_state(save(folder, 3, mark="new"))
    assert state["mark"] == "new"


def test_a_failed_write_leaves_the_checkpoints_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_folder(tmp_path / "run")
    before = save(folder, 3)

    def full_disk(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(RunFolderError, match=r"Cannot write a checkpoint to .*; is the disk full\? No space"):
        save(folder, 4)
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == [before]


def test_rewinding_drops_a_half_written_line_later_rows_and_unfinished_checkpoints(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "run")
    rows = [{"step": 2, "a": 1.0}, {"step": 4, "a": 0.1 + 0.2}, {"step": 4, "b": 2.0}, {"step": 6, "a": 3.0}]
    for row in rows:
        folder.log(row["step"], {name: value for name, value in row.items() if name != "step"})  # type: ignore[arg-type]
    folder.close()
    kept = save(folder, 4)
    unfinished = kept.parent / ".writing-abc"
    unfinished.mkdir()
    (unfinished / "weights.safetensors").write_bytes(b"half")
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"step": 8, "a": 4.')

    assert folder.read_metrics() == rows
    folder.rewind(4)
    folder.close()
    assert [json.loads(line) for line in metrics.read_text().splitlines()] == rows[:3]
    assert metrics.read_text().endswith("\n")
    assert list(kept.parent.iterdir()) == [kept]


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    new_folder(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"already holds a run\. Continue it with --resume"):
        RunFolder(tmp_path / "run").create({})
    assert RunFolder(tmp_path / "run").read_config() == {"algorithm": "a test"}


def test_what_processes_remember_becomes_a_part_of_the_next_checkpoint(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "run")
    written = [folder.write_memory(rank, {"of": torch.tensor(rank)}) for rank in (0, 2)]
    assert folder.write_memory(1, {}) is None  # has nothing to remember
    first = save(folder, 3, [file for file in written if file is not None])
    assert [int(memory["of"]) for _, memory in folder.read_memories(first, range(4))] == [0, 2]
    assert [int(memory["of"]) for _, memory in folder.read_memories(first, [2])] == [2]
    assert list(folder.read_memories(first, [1])) == []
    second = save(folder, 4)  # without a memory
    assert list(folder.read_memories(second, range(4))) == []
    assert sorted(path.name for path in second.parent.iterdir()) == ["step-00000003", "step-00000004"]


def test_a_memory_that_no_checkpoint_took_is_dropped(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "run")
    kept = save(folder, 4)
    folder.write_memory(0, {"of": torch.tensor(0)})
    folder.rewind(4)
    folder.close()
    assert list(kept.parent.iterdir()) == [kept]
    assert list(folder.read_memories(save(folder, 5), [0])) == []


def test_memories_are_in_the_checkpoints_of_a_run_until_it_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {
        "image_size": (8, 9), "env_kwargs": {"num_images": 4}, "steps": 4, "batch_size": 2,
        "network_options": {"width": 8}, "run_dir": str(tmp_path / "run"), "checkpoint_every": 2, "eval_every": 0,
        "progress": False,
    }  # fmt: skip
    before: list[torch.Tensor] = []

    def forget(folder: RunFolder) -> None:
        for _, memory in folder.read_memories(folder.path / "checkpoints" / "step-00000002", [0]):
            before.append(memory["scores"])
        forget_memories(folder)

    forget_memories = RunFolder.forget_memories
    monkeypatch.setattr(RunFolder, "forget_memories", forget)
    assert train("RSS-Shapes-ImageReward-v0", Likelihood(samples_per_image=3), **arguments).finished
    assert [memory.shape for memory in before] == [(2 * 2, 3)]  # every visit: none is too old yet
    assert not list(tmp_path.rglob("*memory*"))


@pytest.mark.parametrize("limit", [4_000, 200_000], ids=["memory", "weights"])
def test_a_disk_that_takes_no_more_is_an_error_that_says_so(tmp_path: Path, limit: int) -> None:
    words = "--image-size 16 16 --steps 3 --batch-size 2 --samples-per-image 8 --checkpoint-every 2"
    words += f" --env-id RSS-Shapes-ImageReward-v0 --no-progress --run-dir {tmp_path / 'run'}"
    words += ' --env-kwargs {"num_images":16}'  # few enough to be drawn without the cache
    # No file may grow beyond the limit, which the writers are told as they are told that a disk is full.
    limited = (
        "import resource, signal; from agents import Likelihood; from agents.training import command; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
        "command.run_command(lambda: command.train_command(Likelihood))"
    )
    ended = subprocess.run([sys.executable, "-c", limited, *words.split()], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        f"error: Cannot write a checkpoint to {tmp_path / 'run' / 'checkpoints'}; is the disk"
    )
    assert "Traceback" not in ended.stderr
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_a_damaged_memory_is_named(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "run")
    file = folder.write_memory(0, {"of": torch.arange(1000)})
    assert file is not None
    memory = save(folder, 3, [file]) / "memory-0.pt"
    memory.write_bytes(memory.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"Cannot read .*memory-0\.pt: .*Delete .*step-00000003 to resume"):
        list(folder.read_memories(memory.parent, [0]))


@pytest.mark.parametrize("damage", ["missing", "empty", "half", "other"])
def test_a_damaged_state_is_named(tmp_path: Path, damage: str) -> None:
    folder = new_folder(tmp_path / "run")
    state = save(folder, 3, more=torch.arange(1000)) / "state.pt"
    whole = state.read_bytes()
    state.unlink()
    if damage != "missing":
        state.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "other": b"not a state"}[damage])
    with pytest.raises(CheckpointError, match=r"Cannot read .*state\.pt: .*Delete .*step-00000003 to resume"):
        folder.read_state(state.parent)


class RunsCode:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_state_that_would_run_code_is_refused(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "run")
    checkpoint = save(folder, 3, trap=RunsCode(tmp_path / "trapped"))
    with pytest.raises(CheckpointError, match=r"Cannot read .*state\.pt"):
        folder.read_state(checkpoint)
    assert not (tmp_path / "trapped").exists()
    torch.load(checkpoint / "state.pt", weights_only=False)
    assert (tmp_path / "trapped").exists()  # so the trap was a real one


# Modes, locks and streams


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_and_folders_have_the_modes_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        folder = new_folder(tmp_path / "run")
        memory = folder.write_memory(0, {"of": torch.tensor(0)})
        assert memory is not None
        folder.log(1, {"a": 1.0})
        folder.log_picture(1, "a", np.zeros((2, 2, 3), np.uint8))
        save(folder, 1, [memory])
        save(folder, 1)
        folder.rewind(1)
        folder.close()
    finally:
        os.umask(before)
    written = list((tmp_path / "run").rglob("*"))
    assert {"config.json", "metrics.jsonl", ".lock", "weights.safetensors", "SHA256SUMS"} <= {p.name for p in written}
    for path in [tmp_path / "run", *written]:
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path


SMALL = "--image-size 16 16 --batch-size 2 --samples-per-image 3 --no-progress --log-every 1 --checkpoint-every 1000"
SMALL += ' --env-kwargs {"num_images":4} --network-options {"width":8} --steps 100000'


def test_a_running_run_is_refused_to_others_and_ends_on_sigterm_as_on_ctrl_c(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    run_dir, words = tmp_path / "run", [sys.executable, "-m", "agents.likelihood", *SMALL.split()]
    process = subprocess.Popen(
        [*words, "--run-dir", str(run_dir)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with process:
        deadline = time.monotonic() + 120
        while not (run_dir / "metrics.jsonl").exists() or not RunFolder(run_dir).read_metrics():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"The run did not start:\n{process.communicate()[0]}")
            time.sleep(0.02)
        refused = command(Likelihood, "--run-dir", run_dir, "--resume")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (
        f"error: Another process is writing {run_dir}. Wait until it has ended, or choose another --run-dir.\n"
    )
    checkpoint = RunFolder(run_dir).latest_checkpoint()
    assert process.returncode == 130
    assert checkpoint is not None
    step = int(checkpoint.name.removeprefix("step-"))
    assert step == RunFolder(run_dir).read_metrics()[-1]["step"]  # nothing is lost
    assert output == f"Stopped after step {step} of 100000; continue with --run-dir {run_dir} --resume\n"


def test_a_lock_ends_with_the_process_that_was_killed(tmp_path: Path) -> None:
    script = "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(flush=True); input()"
    words = [sys.executable, "-c", script, str(tmp_path / ".lock")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(RunFolderError, match="Another process is writing"):
                RunFolder(tmp_path).create({})
        finally:
            process.kill()
    folder = new_folder(tmp_path)
    folder.close()


def test_a_run_that_failed_lets_go_of_its_folder(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "run")
    with pytest.raises(RunFolderError, match="already holds a run"):
        RunFolder(tmp_path / "run").create({})
    with pytest.raises(RunFolderError, match="Another process is writing"):
        RunFolder(tmp_path / "run").lock()
    folder.close()
    again = RunFolder(tmp_path / "run")
    again.lock()
    again.close()


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    run_dir = tmp_path / "closed" / "run"
    new_folder(run_dir).close()
    (run_dir / ".lock").unlink()
    for path in (run_dir, run_dir.parent):
        path.chmod(0o555)
    try:
        for attempt in (RunFolder(run_dir).lock, lambda: RunFolder(run_dir.parent / "other").create({})):
            with pytest.raises(RunFolderError, match=r"Cannot write the run folder .* Permission denied"):
                as_plain_user(attempt)
    finally:
        for path in (run_dir.parent, run_dir):
            path.chmod(0o755)


def test_a_name_that_is_no_utf_8_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"l\\udcf6we' is no valid UTF-8"):
        RunFolder(os.fsdecode(bytes(tmp_path) + b"/l\xf6we")).create({})
    assert list(tmp_path.iterdir()) == []
