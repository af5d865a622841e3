from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.processes import ROOT, Processes
from tests.benchmarks.alive import children_of, end_within

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows who started whom in /proc")

# A child in its group, one in a session of its own, and a daemon that has lost its parent; then what the words say.
TREE = """
import os, signal, sys, time

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

for kind in ("child", "session", "daemon"):
    if os.fork() == 0:
        if kind != "child":
            os.setsid()
        if kind == "daemon" and os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say(os.getpid())
        time.sleep(60)
        os._exit(0)
say(os.getpid())
until = time.monotonic() + 60
while len(open(sys.argv[1]).read().split()) < 4 and time.monotonic() < until:
    time.sleep(0.01)
if sys.argv[2] == "signal":
    os.kill(os.getpid(), int(sys.argv[3]))
elif sys.argv[2] == "exit":
    sys.exit(int(sys.argv[3]))
elif sys.argv[2] == "stop":
    os.kill(os.getppid(), signal.SIGSTOP)
elif sys.argv[2] == "bomb":
    for _ in range(300):
        if os.fork() == 0:
            os.setsid()
            time.sleep(0.02)
            if os.fork():
                os._exit(0)
            time.sleep(60)
            os._exit(0)
        time.sleep(0.005)
say("waiting")
time.sleep(1000)
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "process_tree_for_tests.py").write_text(TREE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    return tmp_path / "log.txt"


def wait_for(log: Path, words: int) -> list[str]:
    until = time.monotonic() + 60
    while len(log.read_text().split() if log.exists() else []) < words:
        assert time.monotonic() < until
        time.sleep(0.02)
    return [word for word in log.read_text().split() if word.isdecimal()]


@pytest.mark.parametrize(("words", "code"), [(["exit", "0"], 0), (["exit", "7"], 7), (["signal", "11"], -11)])
def test_all_ends_with_the_module_and_its_exit_code_is_passed_on(tree: Path, words: list[str], code: int) -> None:
    processes = Processes()
    process = processes.start("process_tree_for_tests", [str(tree), *words], tree)
    try:
        assert process.wait(60) == code
    finally:
        processes.end(process)
    assert len(pids := wait_for(tree, 4)) == 4
    assert end_within(pids, seconds=1)


@pytest.mark.parametrize("word", ["wait", "stop", "bomb"])
def test_ending_a_process_ends_all(tree: Path, word: str) -> None:
    processes = Processes()
    process = processes.start("process_tree_for_tests", [str(tree), word], tree)
    pids = wait_for(tree, 4 if word == "bomb" else 5)
    if word == "bomb":
        time.sleep(0.5)
    assert processes.end(process) == -signal.SIGKILL
    assert end_within(pids, seconds=1)
    assert str(tree) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


def test_all_end_with_a_benchmark_that_is_killed(tree: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom benchmarks.processes import Processes\n"
        "Processes().start('process_tree_for_tests', [sys.argv[1], 'wait'], Path(sys.argv[1]))\ntime.sleep(1000)"
    )
    benchmark = subprocess.Popen([sys.executable, "-c", code, str(tree)], cwd=ROOT)
    try:
        pids = wait_for(tree, 5)
    finally:
        benchmark.kill()
    assert end_within(pids, seconds=10)
    benchmark.wait()


def test_a_process_that_is_terminated_ends_with_all(tree: Path) -> None:
    processes = Processes()
    process = processes.start("process_tree_for_tests", [str(tree), "wait"], tree)
    pids = wait_for(tree, 5)
    process.terminate()
    assert process.wait(20) == -signal.SIGTERM
    assert end_within(pids, seconds=1)
    processes.end(process)


def test_the_module_ends_though_what_leads_its_tree_is_killed(tmp_path: Path) -> None:
    processes = Processes()
    process = processes.start("http.server", ["0"], tmp_path / "log.txt")
    until = time.monotonic() + 60
    while not (module := children_of(process.pid)):
        assert time.monotonic() < until
        time.sleep(0.02)
    try:
        os.kill(process.pid, signal.SIGKILL)
        assert end_within(module, seconds=10)
    finally:
        with suppress(ProcessLookupError):
            os.kill(int(module[0]), signal.SIGKILL)
        processes.end(process)
