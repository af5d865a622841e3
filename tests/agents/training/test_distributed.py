"""Two processes train as one: Gloo on the CPU."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from agents.errors import JobError
from agents.likelihood import Likelihood
from agents.supervised import Supervised
from agents.training.distributed import Job
from agents.training.feedback import Feedback
from agents.training.loop import Result, train
from agents.training.run_folder import RunFolder

ROOT = Path(__file__).parents[3]
ENV_ID = "RSS-Shapes-ImageReward-v0"
SAMPLES, BATCH = 3, 4
SHARED: dict[str, Any] = {
    "image_size": (16, 16),
    "env_kwargs": {"num_images": 16},
    "augment": "flip",
    "batch_size": BATCH,
    "network_options": {"width": 8},
    "log_every": 1,
    "progress": False,
}
SEVERAL: dict[str, dict[str, Any]] = {  # what both one process and two do in this module
    "supervised": {"steps": 4, "accumulation_steps": 1},
    "accumulating": {"steps": 2, "accumulation_steps": 2},
}


class Watched:
    """Notes which images an algorithm is shown, and may interrupt it in the middle of a step."""

    interrupt: int | None = None

    def observe(self, logits: torch.Tensor, feedback: Feedback) -> Any:
        self.shown = [*getattr(self, "shown", []), list(zip(feedback.index, feedback.flipped, strict=True))]
        if len(self.shown) == self.interrupt:
            signal.raise_signal(signal.SIGINT)
        return super().observe(logits, feedback)  # type: ignore[misc]


class WatchedSupervised(Watched, Supervised):
    pass


class WatchedLikelihood(Watched, Likelihood):
    pass


def run_supervised(run_dir: Path, **arguments: Any) -> tuple[Result, list[list[tuple[int, bool]]]]:
    algorithm = WatchedSupervised()
    return train(ENV_ID, algorithm, run_dir=str(run_dir), **SHARED | arguments), algorithm.shown


def run_likelihood(run_dir: Path, interrupt: int | None = None, **arguments: Any) -> tuple[Result, WatchedLikelihood]:
    algorithm = WatchedLikelihood(samples_per_image=SAMPLES)
    algorithm.interrupt = interrupt
    return train(ENV_ID, algorithm, run_dir=str(run_dir), **SHARED | arguments), algorithm


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


# Two processes that this module starts


def use_the_job(job: Job) -> dict[str, Any]:
    """What the methods of a started job give in this process."""
    found: dict[str, Any] = {
        "any": [job.any(flag) for flag in (False, job.rank == 1, True)],
        "sum": job.sum(job.rank + 0.1),
        "mean": job.mean({"b": float(job.rank), "a": 10.0 + job.rank}),
        "broadcast": job.broadcast({"from": job.rank}),
        "gather": job.gather(torch.tensor([job.rank, 7])),
        "on_main": job.on_main(lambda: f"by {job.rank}"),
    }

    def fail() -> None:
        raise ValueError("no room")

    try:
        job.on_main(fail)
    except (ValueError, JobError) as error:
        found["failure"] = f"{type(error).__name__}: {error}"
    found["after the failure"] = job.sum(1)
    return found


def fail_at_two(step: int, called: list[int]) -> None:
    called.append(step)
    if step == 2:
        raise RuntimeError("no connection")


def run_process(rank: int, folder: str, ports: Sequence[int]) -> None:
    """What each of two processes does; its findings go into a file."""
    torch.set_num_threads(1)
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
    runs, found = Path(folder), dict[str, Any]()
    remaining = iter(ports)
    found["still averaging"] = []
    destroy = distributed.destroy_process_group

    def count_and_destroy() -> None:
        found["still averaging"].append(sum(isinstance(each, DistributedDataParallel) for each in gc.get_objects()))
        destroy()

    distributed.destroy_process_group = count_and_destroy

    os.environ["MASTER_PORT"] = str(next(remaining))
    job = Job()
    job.start(torch.device("cpu"))
    found["job"] = use_the_job(job)
    job.close()
    for name, arguments in SEVERAL.items():
        os.environ["MASTER_PORT"] = str(next(remaining))
        _, found[name] = run_supervised(runs / name, **arguments)
    os.environ["MASTER_PORT"] = str(next(remaining))
    # Only the second process gets the Ctrl-C.
    result, recording = run_likelihood(runs / "interrupted", 3 if rank == 1 else None, steps=6, checkpoint_every=9)
    found["interrupted"] = recording.shown
    found["result"] = [result.step, result.finished, result.reward_queries]
    os.environ["MASTER_PORT"] = str(next(remaining))
    found["called"] = []
    try:
        run_supervised(runs / "failing", steps=6, callbacks=[lambda step, _: fail_at_two(step, found["called"])])
    except (RuntimeError, JobError) as error:
        found["raised"] = f"{type(error).__name__}: {error}"
    torch.save(found, runs / f"found-{rank}.pt")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of what two processes did together, and what each found."""
    folder = tmp_path_factory.mktemp("pair")
    multiprocessing.spawn(run_process, args=(str(folder), free_ports(3 + len(SEVERAL))), nprocs=2)
    return folder, [torch.load(folder / f"found-{rank}.pt", weights_only=True) for rank in range(2)]


def test_nothing_averages_gradients_any_more_when_a_job_is_closed(pair: Any) -> None:
    # Where it does, also through an error's traceback, torch may wait for itself: seen once in many runs.
    for found in pair[1]:
        assert found["still averaging"] == [0] * (3 + len(SEVERAL))


def test_the_processes_of_a_job_agree(pair: Any) -> None:
    for rank, found in enumerate(one["job"] for one in pair[1]):
        assert found["any"] == [False, True, True]
        assert found["sum"] == pytest.approx(1.2)
        assert found["mean"] == {"a": 10.5, "b": 0.5}
        assert found["broadcast"] == {"from": 0}
        assert [tensor.tolist() for tensor in found["gather"]] == [[0, 7], [1, 7]]
        assert found["on_main"] == (None if rank else "by 0")
        assert found["failure"] == (
            "JobError: process 0 failed: ValueError: no room" if rank else "ValueError: no room"
        )
        assert found["after the failure"] == 2


def test_an_error_in_a_callback_of_process_0_ends_both_with_a_checkpoint(pair: Any) -> None:
    folder, found = pair
    assert [one["called"] for one in found] == [[1, 2], []]
    raised = ["RuntimeError: no connection", "JobError: process 0 failed: RuntimeError: no connection"]
    assert [one["raised"] for one in found] == raised
    checkpoint, said = RunFolder(folder / "failing").latest_whole_checkpoint()
    assert (checkpoint, said) == (folder / "failing" / "checkpoints" / "step-00000002", None)


def test_a_process_alone_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    job = Job()
    device = torch.device("cpu")
    assert (job.rank, job.size, job.is_main, job.start(device)) == (0, 1, True, device)
    assert (job.any(False), job.any(True), job.sum(2.5), job.broadcast("x"), job.on_main(lambda: 7)) == (
        (False, True, 2.5, "x", 7)
    )
    assert job.mean({"a": 1.5}) == {"a": 1.5}
    assert [tensor.tolist() for tensor in job.gather(torch.tensor([3]))] == [[3]]
    job.close()


@pytest.mark.parametrize("name", sorted(SEVERAL))
def test_two_processes_show_the_images_of_one_and_end_with_its_weights(pair: Any, tmp_path: Path, name: str) -> None:
    folder, found = pair
    alone, shown = run_supervised(tmp_path / "run", **SEVERAL[name])
    assert [first + second for first, second in zip(found[0][name], found[1][name], strict=True)] == shown
    assert found[0][name] != found[1][name]
    assert any(flipped for step in shown for _, flipped in step)

    weights = load_file(alone.checkpoint / "weights.safetensors")
    together = load_file(folder / name / "checkpoints" / alone.checkpoint.name / "weights.safetensors")
    assert weights.keys() == together.keys()
    # Rounding alone may part the two runs, which Adam divides by gradients that may be small.
    difference = max(float((weights[key] - together[key]).abs().max()) for key in weights)
    assert difference < 5e-5

    half, _ = run_supervised(tmp_path / "half", **SEVERAL[name] | {"batch_size": BATCH // 2})
    other = load_file(half.checkpoint / "weights.safetensors")  # of the first process, had it been alone
    assert max(float((weights[key] - other[key]).abs().max()) for key in weights) > 1e-3


def test_the_loss_of_two_processes_is_that_of_all_their_images(pair: Any, tmp_path: Path) -> None:
    run_supervised(tmp_path / "run", **SEVERAL["supervised"])
    alone, together = (RunFolder(path).read_metrics() for path in (tmp_path / "run", pair[0] / "supervised"))
    for name in ("train/loss", "train/grad_norm", "train/pixel_accuracy", "val/miou", "time/images"):
        values, others = ([row[name] for row in rows if name in row] for rows in (alone, together))
        assert len(values) == (1 if name == "val/miou" else 4)
        assert values == pytest.approx(others, rel=1e-3)


def test_a_signal_to_one_process_stops_both_with_a_checkpoint_that_one_alone_continues(pair: Any) -> None:
    folder, found = pair
    assert [one["result"] for one in found] == [[3, False, 3 * BATCH * SAMPLES]] * 2
    checkpoint = folder / "interrupted" / "checkpoints" / "step-00000003"
    assert sorted(path.name for path in checkpoint.iterdir()) == [
        "SHA256SUMS",
        "memory-0.pt",
        "memory-1.pt",
        "state.pt",
        "weights.safetensors",
    ]
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    assert len(state["generators"]) == 2
    assert not torch.equal(*state["generators"])
    memories = [torch.load(checkpoint / f"memory-{rank}.pt", weights_only=True) for rank in range(2)]
    for memory, one in zip(memories, found, strict=True):  # each remembers what it showed
        assert memory["index"].tolist() == [index for step in one["interrupted"] for index, _ in step]
        assert len(memory["label_maps"]) == 3 * BATCH // 2
        assert memory["shape"].tolist() == [SAMPLES, 16, 16]

    result, recording = run_likelihood(folder / "interrupted", steps=6, resume=True)
    shown = recording.shown
    assert (result.step, result.finished, result.reward_queries) == (6, True, 6 * BATCH * SAMPLES)
    rows = RunFolder(folder / "interrupted").read_metrics()
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2, 3, 4, 5, 6]
    queries = [row["time/reward_queries"] for row in rows if "train/loss" in row]
    assert queries == [step * BATCH * SAMPLES for step in range(1, 7)]
    assert len(recording.memory()["index"]) == 6 * BATCH  # of both processes, and what followed
    # The first replay after the change draws on what both had remembered.
    indices = [index for memory in memories for index in memory["index"].tolist()]
    first = next(row for row in rows if row["step"] == 4)
    assert first["replay/visits"] == sum(indices.count(index) for index, _ in shown[0]) / BATCH

    _, whole = run_likelihood(folder / "whole", steps=6)
    together = [first + second for first, second in zip(*(one["interrupted"] for one in found), strict=True)]
    assert together + shown == whole.shown


# Commands


def launch(*words: object, processes: int = 2) -> list[str]:
    return [
        *(sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"),
        *("--master-addr=127.0.0.1", f"--master-port={free_ports(1)[0]}", "-m", "agents.likelihood"),
        *map(str, words),
    ]


class Started:
    """A job that was launched; what it prints goes into a file, which no process that is left behind can hold up."""

    def __init__(self, *words: object) -> None:
        handle, name = tempfile.mkstemp()
        self.output = Path(name)
        with os.fdopen(handle, "wb") as output:
            self.process = subprocess.Popen(
                launch(*words),
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.output.read_text()

    def end(self) -> None:
        """Kills the launcher and its workers, which lead process groups of their own."""
        left = [self.process.pid, *workers_of(self.process.pid)] if self.process.poll() is None else []
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()

    def finish(self, seconds: float = 240) -> tuple[int, str]:
        """Exit code and output of the job; one that hangs is ended and fails the test."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            pytest.fail(f"the job did not end within {seconds:.0f} s:\n{self.said()}")
        output = self.said()
        self.output.unlink()
        return self.process.returncode, output


WORDS = ["--image-size", 16, 16, "--env-kwargs", json.dumps(SHARED["env_kwargs"]), "--batch-size", BATCH]
WORDS += ["--network-options", '{"width": 8}', "--samples-per-image", SAMPLES, "--log-every", 1, "--no-progress"]


def test_two_processes_continue_the_run_of_one_and_refuse_to_write_over_it(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    run_dir = tmp_path / "run"
    assert command(Likelihood, *WORDS, "--steps", 2, "--run-dir", run_dir).code == 0
    code, output = Started("--resume", "--run-dir", run_dir, "--steps", 5).finish()
    assert code == 0, output
    assert output.count("reward queries") == 1
    assert f"{5 * BATCH * SAMPLES} reward queries" in output
    rows = RunFolder(run_dir).read_metrics()
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2, 3, 4, 5]
    assert [row["time/reward_queries"] for row in rows if "train/loss" in row] == [
        step * BATCH * SAMPLES for step in range(1, 6)
    ]
    assert all(np.isfinite(value) for row in rows for value in row.values())
    checkpoint = RunFolder(run_dir).latest_checkpoint()
    assert checkpoint is not None
    assert checkpoint.name == "step-00000005"
    assert not list(checkpoint.glob("memory-*"))  # a finished run needs none
    assert not list((run_dir / "checkpoints").glob(".*"))

    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    code, output = Started(*WORDS, "--run-dir", run_dir).finish()
    assert code != 0
    assert f"error: {run_dir} already holds a run. Continue it with --resume" in output
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


def test_a_wrong_env_id_ends_the_job_with_its_message(tmp_path: Path) -> None:
    code, output = Started(*WORDS, "--env-id", "RSS-Moon-ImageReward-v0", "--run-dir", tmp_path / "run").finish()
    assert code != 0
    assert "error: Unknown env_id 'RSS-Moon-ImageReward-v0'" in output
    assert not (tmp_path / "run").exists()


def workers_of(launcher: int) -> list[int]:
    """Process ids of the launcher's workers, rank 0 first."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    ranks: dict[int, int] = {}
    for child in map(int, children):
        words = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ranks |= {int(word[5:]): child for word in words if word.startswith(b"RANK=")}
    return [ranks[rank] for rank in sorted(ranks)]


def wait_for_step(job: Started, run_dir: Path, step: int) -> None:
    metrics, deadline = run_dir / "metrics.jsonl", time.monotonic() + 240
    while not metrics.exists() or metrics.read_text().count("train/loss") < step:
        if job.process.poll() is not None or time.monotonic() > deadline:
            job.end()
            pytest.fail(f"The job did not come to step {step}:\n{job.said()}")
        time.sleep(0.02)


needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the workers in /proc")


@needs_proc
def test_a_killed_launcher_ends_its_workers_with_a_checkpoint(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    job = Started(*WORDS, "--steps", 100_000, "--checkpoint-every", 50_000, "--run-dir", run_dir)
    wait_for_step(job, run_dir, 2)
    workers = workers_of(job.process.pid)
    job.process.kill()
    job.process.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers):
        if time.monotonic() > deadline:
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            pytest.fail(f"The workers went on without their launcher:\n{job.said()}")
        time.sleep(0.1)
    checkpoint = RunFolder(run_dir).latest_checkpoint()
    assert checkpoint is not None, job.said()
    assert RunFolder(run_dir).read_metrics()[-1]["step"] == int(checkpoint.name.removeprefix("step-"))
    job.output.unlink()


@needs_proc
def test_a_killed_process_ends_the_job_which_can_be_continued(tmp_path: Path, command: Callable[..., Any]) -> None:
    run_dir = tmp_path / "run"
    job = Started(*WORDS, "--steps", 100_000, "--checkpoint-every", 3, "--run-dir", run_dir)
    wait_for_step(job, run_dir, 8)
    workers = workers_of(job.process.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    code, output = job.finish()
    assert code != 0
    assert "error in process 0: another process of this job is gone" in output
    assert f"--run-dir {run_dir} --resume" in output

    checkpoint = RunFolder(run_dir).latest_checkpoint()
    assert checkpoint is not None
    step = int(checkpoint.name.removeprefix("step-"))
    assert step % 3 == 0
    outcome = command(Likelihood, "--resume", "--run-dir", run_dir, "--steps", step + 2, "--no-progress")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"{(step + 2) * BATCH * SAMPLES:,} reward queries" in outcome.out
