"""A run folder that was damaged gives the numbers of the undamaged one or a clear error, never other numbers."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from agents import Likelihood, evaluate, predict
from agents.checksums import add_checksums
from agents.errors import CheckpointError, RunFolderError
from agents.networks.checkpoints import load_policy
from agents.training.algorithm import Algorithm
from agents.training.loop import train
from agents.training.run_folder import RunFolder
from tests.agents.training.test_resume import interrupted

ENV_IDS = {"image": "RSS-Shapes-ImageReward-v0", "pixel": "RSS-Shapes-PixelReward-v0"}
SHARED: dict[str, Any] = {
    "image_size": (16, 16),
    "env_kwargs": {"num_images": 4, "num_classes": 3},
    "network_options": {"width": 8},
    "steps": 6,
    "batch_size": 2,
    "checkpoint_every": 2,
    "log_every": 1,
    "eval_every": 0,
    "progress": False,
}
DAMAGES = range(int(os.environ.get("RSS_TEST_DAMAGES", "10")))  # for each level, each seen by three commands
OLDER, NEWEST = "step-00000004", "step-00000005"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of runs that were stopped after step 5 of 6, with checkpoints of steps 4 and 5; tests only copy them."""
    folder = tmp_path_factory.mktemp("runs")
    for level, env_id in ENV_IDS.items():
        train(env_id, interrupted(Likelihood(samples_per_image=3), 5), run_dir=str(folder / level), **SHARED)
    colours = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(colours).save(folder / "photo.png")
    return folder


@pytest.fixture
def run(runs: Path, tmp_path: Path) -> Path:
    """A copy of the image-level run."""
    return Path(shutil.copytree(runs / "image", tmp_path / "run"))


def resume(run_dir: Path, algorithm: Algorithm | None = None, **arguments: Any) -> Any:
    given = SHARED | {"env_id": ENV_IDS["image"], "run_dir": str(run_dir), "resume": True} | arguments
    return train(algorithm=algorithm or Likelihood(samples_per_image=3), **given)


def flip(file: Path) -> Path:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return file


def weights_of(run_dir: Path) -> dict[str, bytes]:
    stored = load_file(run_dir / "checkpoints" / "step-00000006" / "weights.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in stored.items()}


# Random damage


def damage(rng: random.Random, run_dir: Path) -> str:
    """Damages one file, or swaps two; says what it did."""
    files = sorted(file for file in run_dir.rglob("*") if file.is_file() and "events" not in file.name)
    kind, file = rng.choice(["flip", "cut", "zero", "append", "delete", "swap"]), rng.choice(files)
    data = bytearray(file.read_bytes())
    at = rng.randrange(max(1, len(data)))
    if kind == "delete":
        file.unlink()
    elif kind == "swap":
        other = rng.choice([one for one in files if one != file])
        file.write_bytes(other.read_bytes())
        other.write_bytes(data)
        return f"{file} swapped with {other}"
    else:
        if kind == "flip" and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del data[at:]
        elif kind == "zero":
            data[at : at + 16] = bytes(len(data[at : at + 16]))
        else:
            data += rng.randbytes(16)
        file.write_bytes(data)
    return f"{file}: {kind} at {at}"


def outcomes(command: Callable[..., Any], photo: Path, run_dir: Path) -> dict[str, tuple[Any, Any]]:
    """How each command ends on a run folder, and what it gives if it ends well; resuming, which writes, is the last."""
    out = photo.parent / "out"
    found = {}
    ended = command(evaluate.main, run_dir, "--json")
    found["evaluate"] = ended, ended.out
    ended = command(predict.main, run_dir, photo, "--out", out, "--no-progress")
    found["predict"] = ended, ended.code == 0 and (out / "photo.png").read_bytes()
    ended = command(Likelihood, "--resume", "--run-dir", run_dir, "--no-progress")
    found["resume"] = ended, ended.code == 0 and (ended.out.partition("queries")[0], weights_of(run_dir))
    return found


@pytest.mark.parametrize("level", sorted(ENV_IDS))
def test_random_damage_ends_in_the_right_numbers_or_a_clear_error(
    runs: Path, level: str, tmp_path: Path, command: Callable[..., Any]
) -> None:
    photo = Path(shutil.copy(runs / "photo.png", tmp_path))
    expected = outcomes(command, photo, Path(shutil.copytree(runs / level, tmp_path / "whole")))
    assert [ended.code for ended, _ in expected.values()] == [0, 0, 0]
    errors = 0
    for seed in DAMAGES:
        run_dir = Path(shutil.copytree(runs / level, tmp_path / str(seed)))
        done = damage(random.Random(seed), run_dir)
        for name, (ended, given) in outcomes(command, photo, run_dir).items():
            assert len(ended.err.splitlines()) == (ended.code != 0) or (name == "resume" and "Going on" in ended.err), (
                done
            )
            if ended.code == 0:
                assert given == expected[name][1], done
            else:
                assert ended.code == 2, done
                assert ended.err.startswith("error: "), done
                errors += 1
        shutil.rmtree(run_dir)
    assert errors > 0


# Checkpoints


@pytest.mark.parametrize("name", ["weights.safetensors", "state.pt", "memory-0.pt", "SHA256SUMS"])
def test_resuming_goes_back_to_the_checkpoint_before_a_damaged_one_and_says_so(
    run: Path, runs: Path, tmp_path: Path, name: str, command: Callable[..., Any]
) -> None:
    damaged = flip(run / "checkpoints" / NEWEST / name)
    ended = command(Likelihood, "--resume", "--run-dir", run, "--no-progress")
    assert ended.code == 0
    assert len(ended.err.splitlines()) == 1
    assert str(damaged.parent) in ended.err
    assert ended.err.endswith(f"Going on from {OLDER}.\n")
    whole = Path(shutil.copytree(runs / "image", tmp_path / "whole"))
    assert resume(whole).finished
    assert weights_of(run) == weights_of(whole)
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == [OLDER, "step-00000006"]


def test_a_damaged_checkpoint_that_is_the_only_one_is_an_error(run: Path, command: Callable[..., Any]) -> None:
    shutil.rmtree(run / "checkpoints" / OLDER)
    damaged = flip(run / "checkpoints" / NEWEST / "state.pt")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    ended = command(Likelihood, "--resume", "--run-dir", run)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {damaged} is damaged")
    assert ended.err.endswith("No checkpoint is whole. Restore a copy, or start again in another --run-dir.\n")
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == {path: data for path, data in before.items() if path.name != ".lock"}


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_the_policy_of_an_older_checkpoint_is_never_taken_for_that_of_a_damaged_one(
    run: Path, damage: str, command: Callable[..., Any], runs: Path
) -> None:
    weights = run / "checkpoints" / NEWEST / "weights.safetensors"
    if damage == "missing":
        weights.unlink()
    else:
        flip(weights)
    for main, words in ((evaluate.main, []), (predict.main, [runs / "photo.png", "--out", run / "out"])):
        ended = command(main, run, *words)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith(f"error: {weights} is {'missing' if damage == 'missing' else 'damaged'}")
        assert ended.err.endswith("Restore a copy of it, or use another checkpoint.\n")
        assert len(ended.err.splitlines()) == 1
        assert command(main, run / "checkpoints" / OLDER, *words).code == 0  # which has to be asked for


def test_weights_by_themselves_are_compared_with_a_checksum_if_there_is_one(run: Path, tmp_path: Path) -> None:
    weights = run / "checkpoints" / NEWEST / "weights.safetensors"
    moved = Path(shutil.copy(weights, tmp_path))
    load_policy(moved, torch.device("cpu"))
    load_policy(weights, torch.device("cpu"))
    flip(weights)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is damaged"):
        load_policy(weights, torch.device("cpu"))


def without(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda held: {name: value for name, value in held.items() if name != key}


def changed(key: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda held: held | {key: change(held[key])}


def rewrite(run_dir: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes what a file of the newest checkpoint holds, and its checksum with it."""
    folder = run_dir / "checkpoints" / NEWEST
    torch.save(change(torch.load(folder / name, weights_only=True)), folder / name)
    (folder / "SHA256SUMS").unlink()
    add_checksums(sorted(folder.iterdir()))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("memory-0.pt", changed("num_classes", lambda value: value + 1), "of 4 classes, not of 3"),
        ("memory-0.pt", changed("shape", lambda value: value + 8), "no packed label maps"),
        ("memory-0.pt", changed("label_maps", lambda value: value[:, :-1].clone()), "no packed label maps"),
        ("memory-0.pt", changed("label_maps", lambda value: value.long()), "no packed label maps"),
        ("memory-0.pt", changed("label_maps", lambda value: value.fill_(-1)), r"number 4294967295.* 0\.\.3486784400"),
        ("memory-0.pt", without("scores"), "KeyError: 'scores'"),
        ("memory-0.pt", lambda held: [held], "TypeError"),
        ("state.pt", without("step"), "KeyError: 'step'"),
        ("state.pt", lambda held: held | {"step": "five"}, "ValueError"),
        ("state.pt", lambda held: held | {"optimiser": {}}, "KeyError"),
        ("state.pt", lambda held: held | {"algorithm": {}}, "KeyError: 'noise'"),
        ("state.pt", lambda held: held | {"generators": [torch.zeros(3)]}, "TypeError"),
    ],
)
def test_contents_that_a_run_cannot_go_on_from_are_named_with_their_file(
    run: Path, name: str, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    rewrite(run, name, change)
    with pytest.raises(CheckpointError, match=rf"{NEWEST}/{name} does not hold what this run needs .*{said}"):
        resume(run)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed("known", lambda value: value.fill_(3)), r"known classes must be uint8, 0\.\.2 or 255"),
        (changed("known", lambda value: value.long()), "known classes must be uint8"),
        (changed("excluded", lambda value: value.repeat(1, 2, 1, 1)), "excluded classes must be 3 bits"),
    ],
)
def test_classes_of_pixels_that_there_cannot_be_are_named_with_their_file(
    runs: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    run_dir = Path(shutil.copytree(runs / "pixel", tmp_path / "run"))
    rewrite(run_dir, "memory-0.pt", change)
    with pytest.raises(CheckpointError, match=rf"memory-0\.pt does not hold what this run needs .*{said}"):
        resume(run_dir, env_id=ENV_IDS["pixel"])


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("{", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("3", "is no JSON object"),
        ('{"network": "unet", "network_options": {}}', "has no 'num_classes'"),
        ('{"network": 3, "network_options": {}, "num_classes": 3}', "wrong 'network': 3"),
        ('{"network": "unet", "network_options": [], "num_classes": 3}', "wrong 'network_options'"),
        ('{"network": "unet", "network_options": {}, "num_classes": "3"}', "wrong 'num_classes'"),
        ('{"network": "unet", "network_options": {"width": "8"}, "num_classes": 3}', "cannot be made again"),
        ('{"network": "unet", "network_options": {}, "num_classes": 3, "palette": [[0, 0, 300]]}', "wrong 'palette'"),
        ('{"network": "unet", "network_options": {}, "num_classes": 3, "image_size": 16}', "wrong 'image_size'"),
        ('{"network": "unet", "network_options": {}, "num_classes": 3, "resize": "no"}', "wrong 'resize'"),
        ('{"network": "unet", "network_options": {"width": 8}, "num_classes": 3}', "has no 'palette'"),
    ],
)
def test_a_description_that_no_policy_can_be_made_from_is_an_error(
    run: Path, tmp_path: Path, policy: str, said: str, command: Callable[..., Any]
) -> None:
    file = tmp_path / "mine.safetensors"
    save_file(load_file(run / "checkpoints" / NEWEST / "weights.safetensors"), file, metadata={"policy": policy})
    ended = command(predict.main, file, "photo.png", "--out", tmp_path / "out")
    assert ended.code == 2
    assert said in ended.err
    assert str(file) in ended.err
    assert len(ended.err.splitlines()) == 1


# config.json and metrics.jsonl


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"num_images": 4', '"num_images": 6', "does not fit its checksum"),
        ('"split": "train"', '"split": "trbin"', "does not fit its checksum"),
        ("{", "[", "is damaged"),
        ("RSS-", "\xff", "is damaged"),
    ],
)
def test_a_damaged_config_is_an_error(run: Path, old: str, new: str, said: str, command: Callable[..., Any]) -> None:
    config = run / "config.json"
    config.write_bytes(config.read_bytes().replace(old.encode(), new.encode("latin-1"), 1))
    for main, words in ((evaluate.main, [run]), (Likelihood, ["--resume", "--run-dir", run])):
        ended = command(main, *words)
        assert (ended.code, ended.out) == (2, "")
        assert str(config) in ended.err
        assert said in ended.err
        assert len(ended.err.splitlines()) == 1


def test_an_edited_config_without_a_checksum_is_taken_if_its_types_are_right(
    run: Path, command: Callable[..., Any]
) -> None:
    config = json.loads((run / "config.json").read_text())
    del config["sha256"]
    (run / "config.json").write_text(json.dumps(config))
    assert command(evaluate.main, run).code == 0
    for key, value in (("image_size", "16"), ("env_kwargs", 3), ("root", 7), ("env_id", None)):
        (run / "config.json").write_text(json.dumps(config | {key: value}))
        for main, words in ((evaluate.main, [run]), (Likelihood, ["--resume", "--run-dir", run])):
            ended = command(main, *words)
            assert ended.code == 2
            assert f"config.json is damaged: {key} cannot be {value!r}" in ended.err


@pytest.mark.parametrize(
    "line", [b"\xff\xfe", b'{"step": 2, "tra', b"[1]", b'{"a": 1.0}', b'{"step": 2, "a": "b"}', b"3"]
)
def test_a_damaged_line_of_the_metrics_loses_that_line_only(run: Path, line: bytes) -> None:
    file = run / "metrics.jsonl"
    lines = file.read_bytes().splitlines()
    whole = RunFolder(run).read_metrics()
    assert [row["step"] for row in whole] == [1, 2, 3, 4, 5]
    lines[1] = line
    file.write_bytes(b"\n".join(lines) + b"\n")
    assert RunFolder(run).read_metrics() == [whole[0], *whole[2:]]
    assert resume(run).finished
    assert RunFolder(run).read_metrics()[:4] == [whole[0], *whole[2:]]


# From Python


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"batch_size": 3}, "batch_size 2 -> 3"),
        ({"env_kwargs": {"num_images": 5}}, "env_kwargs"),
        ({"algorithm": Likelihood(samples_per_image=4)}, "samples_per_image 3 -> 4"),
    ],
)
def test_a_run_resumed_from_python_refuses_arguments_that_make_it_another(
    run: Path, arguments: dict[str, Any], said: str
) -> None:
    before = (run / "config.json").read_bytes()
    with pytest.raises(RunFolderError, match=said):
        resume(run, **arguments)
    assert (run / "config.json").read_bytes() == before


def test_a_run_that_is_not_there_cannot_be_resumed_from_python(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="holds no run"):
        resume(tmp_path / "run")
    assert not (tmp_path / "run").exists()
