from __future__ import annotations

import _thread
import signal
from pathlib import Path
from threading import Thread

import pytest

from benchmarks.executors.node import OnNode
from benchmarks.processes import Processes
from tests.benchmarks.executors.work import Counting


def test_a_call_that_is_interrupted_tells_its_process_to_stop_though_a_worker_blocks_that(tmp_path: Path) -> None:
    counting = Counting(tmp_path, steps=5000)

    def interrupt() -> None:
        counting.wait_for_steps(0)
        _thread.interrupt_main()

    def call(processes: Processes) -> None:
        counting.work(0, processes)

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # as Ray has it
    try:
        Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            OnNode(call)()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert "KeyboardInterrupt" in (tmp_path / "runs" / "logs" / "0.txt").read_text()  # which a kill does not leave
