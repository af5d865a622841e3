"""A job of two machines, which here are two launchers: Gloo on the CPU."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors.torch import load_file

from agents.training.run_folder import RunFolder
from tests.agents.training.two_machines import ALGORITHMS, STEPS, run

ROOT = Path(__file__).parents[3]


def launch(machine: int, port: int, name: str, run_dir: Path) -> subprocess.Popen[str]:
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nnodes=2",
        "--nproc-per-node=1",
        f"--node-rank={machine}",
    ]
    words += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1", "--rdzv-id=job"]
    return subprocess.Popen(
        [*words, "-m", "tests.agents.training.two_machines", name, str(run_dir)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("name", ALGORITHMS)
def test_two_machines_do_what_one_process_does_with_their_label_maps(name: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    two, one, other = (tmp_path / folder for folder in ("two", "one", "other"))
    machines = [launch(machine, port, name, two) for machine in range(2)]
    try:
        for machine in machines:
            output, _ = machine.communicate(timeout=400)
            assert machine.returncode == 0, output
    finally:
        for machine in machines:
            with suppress(ProcessLookupError):
                os.killpg(machine.pid, signal.SIGTERM)  # on which a launcher ends its workers
    run(name, one, as_two=True)
    run(name, other)  # with label maps of its own

    weights = {path: load_file(path / f"checkpoints/step-{STEPS:08}/weights.safetensors") for path in (two, one, other)}

    def distance(path: Path) -> float:
        pairs = [(weights[path][key].double(), weights[two][key].double()) for key in weights[two]]
        return sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5

    assert distance(one) < 0.02 * distance(other)  # rounding, which Adam divides by gradients that may be small
    for key in ("reward/mean", "time/reward_queries"):
        together, alone = ([row[key] for row in RunFolder(path).read_metrics() if key in row] for path in (two, one))
        assert together == pytest.approx(alone, rel=1e-2)
        assert len(together) == STEPS
