"""Entries that make mistakes, and entries that attack: what each of them does is its status, and no other suffers."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from benchmarks.leaderboard import judge as judging
from tests.benchmarks.alive import end_within
from tests.benchmarks.leaderboard.trials import REPORT, judge_body

MIB = 1 << 20
PRINTED = f"printed more than {judging.MAX_PRINTED >> 20} MiB"
TARGETS = "asked for targets: a data set of its own"
OF_ENTRIES = "is a connection to the judge and cannot be copied or pickled"
DAEMON = """
    import os, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            print(os.getpid(), flush=True)
            time.sleep(60)
        os._exit(0)
    os.wait()
    time.sleep(0.2)
"""

MISTAKES = {
    "raises": ("raise ValueError('out of ideas')", r"raised ValueError: out of ideas \(my_entry.py, line 5\)"),
    "raises deep in a library": (
        "np.zeros(3).reshape(2)",
        r"raised ValueError: cannot reshape .*\(my_entry.py, line 5",
    ),
    "raises what cannot be printed": (
        """
        class Silent(Exception):
            def __str__(self):
                raise ValueError
        raise Silent
        """,
        r"raised .*Silent: <exception str\(\) failed>",
    ),
    "raises a megabyte": ("raise ValueError('moon ' * 1_000_000)", "raised ValueError: moon moon"),
    "raises what would clear the screen": ("raise ValueError('a\\x1b[2Jb\\nc')", r"raised ValueError: a \[2Jb c"),
    "raises in its report": ("trial.report(lambda images: 1 / 0)", "raised ZeroDivisionError: division by zero"),
    "calls sys.exit": ("import sys; sys.exit(0)", r"raised SystemExit: 0 \(my_entry.py, line 5\)"),
    "exits": ("import os; os._exit(3)", r"its process died \(exit code 3\)"),
    "crashes": ("import os; os.kill(os.getpid(), 11)", r"its process died \(SIGSEGV\)"),
    "kills itself": ("import os; os.kill(os.getpid(), 9)", r"its process died \(SIGKILL\)"),
    "ends by a signal without a name": ("import os; os.kill(os.getpid(), 40)", r"its process died \(signal 40\)"),
    "forks and dies": (
        """
        import os, time
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(5)
        """,
        r"its process died \(exit code 5\)",
    ),
    "reports nothing": ("trial.make_envs()", r"never called trial.report\(\)"),
    "returns None": ("trial.report(lambda images: None)", r"raised .*InvalidAction: .*dtype, got object"),
    "has no rate": (f"trial.learning_rate = 'fast'; {REPORT}", "report: trial.learning_rate must be a positive number"),
    "wrong report": ("trial.report(lambda images: np.zeros((1, 2, 3), np.uint8))", "invalid label maps in report: "),
    "returns floats": (
        "envs = trial.make_envs(2); envs.reset(); envs.step(np.full((2, 16, 16), np.nan))",
        "invalid label maps: .*dtype, got float64",
    ),
    "returns an object": (
        "envs = trial.make_envs(2); envs.reset(); envs.step(None)",
        "raised .*InvalidAction: A label map must have an integer dtype, got object",
    ),
    "wrong shape": (
        "envs = trial.make_envs(2); envs.reset(seed=0); envs.step(np.zeros((2, 16, 15), np.uint8))",
        "invalid label maps: .*shape",
    ),
    "far too large": (
        "envs = trial.make_envs(2); envs.reset(seed=0); envs.step(np.zeros((2, 999, 999), np.uint8))",
        r"sent what is no message: uint8 \(2, 999, 999\), which is more than 1,081,344 bytes",
    ),
    "wrong class": (
        "envs = trial.make_envs(2); envs.reset(seed=0); envs.step(np.full((2, 16, 16), 3, np.uint8))",
        "invalid label maps: .*3",
    ),
    "negative class": (
        "envs = trial.make_envs(2); envs.reset(); envs.step(np.full((2, 16, 16), -1))",
        "invalid label maps: .*from -1",
    ),
    "no reset": ("trial.make_envs(2).step(np.zeros((2, 16, 16), np.uint8))", "invalid label maps: Call reset"),
    "no environment": ("trial.ask('step', np.zeros((2, 16, 16), np.uint8))", r"step\(\) before make_envs"),
    "too many environments": ("trial.make_envs(97)", "make_envs: a step would cost 97 queries of 96"),
    "no number of environments": (
        "trial.make_envs(2.5)",
        "make_envs: num_envs must be an integer of at least 1, got 2.5",
    ),
    "augments as it likes": ("trial.make_envs(2, augment=['moon'])", "make_envs: .*augment"),
    "reset with nonsense": ("trial.make_envs(2).reset(seed='moon')", "reset: "),
    "reset with an object": ("trial.make_envs(2).reset(seed=object())", "raised TypeError: A object cannot be sent"),
    "copies its environment": (
        "import copy; copy.copy(trial.make_envs(2))",
        f"raised TypeError: TrialEnvs {OF_ENTRIES}",
    ),
    "deep-copies its environment": (
        "import copy; copy.deepcopy({'envs': trial.make_envs(2)})",
        f"raised TypeError: TrialEnvs {OF_ENTRIES}",
    ),
    "pickles its environment": (
        "import pickle; pickle.dumps(trial.make_envs(2))",
        f"raised TypeError: TrialEnvs {OF_ENTRIES}",
    ),
    "gives the trial to a worker": (
        "import multiprocessing as mp; mp.get_context('spawn').Process(target=print, args=(trial,)).start()",
        f"raised TypeError: Trial {OF_ENTRIES}",
    ),
    "reports within predict": (
        "trial.report(lambda images: trial.report(lambda images: 1 / 0))",
        "raised RuntimeError: predict cannot use the trial or its environment",
    ),
    "learns within predict": (
        "envs = trial.make_envs(2); trial.report(lambda images: envs.reset()[0])",
        "raised RuntimeError: predict cannot use the trial or its environment",
    ),
}

QUESTIONS = {
    "asks for the task": ("envs = trial.make_envs(2); envs.unwrapped._task.dataset.targets", r"asked .*: envs._task"),
    "asks for the data set": ("trial.make_envs(2).dataset", r"asked for targets: envs.dataset"),
    "asks for the environments": ("trial.make_envs(2).envs[0]", r"asked for targets: envs.envs"),
    "asks for the targets": ("trial.make_envs(2).targets", r"asked for targets: envs.targets"),
    "asks within predict": (
        "envs = trial.make_envs(2); trial.report(lambda images: envs.targets)",
        "asked for targets: envs.targets",
    ),
    "asks with an option": (
        "trial.ask('make', {'num_envs': 2, 'samples_per_image': None, 'expose_target': True})",
        "asked for targets: expose_target",
    ),
    "reset for the target": (
        "trial.make_envs(2).reset(options={'expose_target': True})",
        "reset: Unknown reset option 'expose_target'",
    ),
    "looks into the infos": ("trial.make_envs(2).reset(seed=0)[1]['target']", "raised KeyError: 'target'"),
    "catches the end": (
        f"""
        envs = trial.make_envs(2)
        try:
            envs._task
        except BaseException:
            pass
        {REPORT}
        """,
        "asked for targets: envs._task",
    ),
    "makes its own": (
        """
        import gymnasium as gym, rss_env
        gym.make_vec("RSS-Shapes-ImageReward-v0", num_envs=1, expose_target=True)
        """,
        TARGETS,
    ),
    "loads a data set": ("from rss_env.datasets import load_dataset; load_dataset('Shapes')", TARGETS),
    "takes the generator": (
        "from rss_env.datasets import DATASETS; DATASETS['Shapes'].generate('val', (16, 16))",
        TARGETS,
    ),
    "evaluates by itself": (
        """
        from rss_env.evaluation import evaluate
        evaluate(lambda images: np.zeros(images.shape[:3], np.uint8), "RSS-Shapes-ImageReward-v0")
        """,
        TARGETS,
    ),
    "reloads the generator": (
        """
        import importlib, rss_env.datasets.shapes as shapes
        importlib.reload(shapes)
        shapes.draw_scene(np.random.default_rng([0, 1 << 30]), (16, 16), 3, shapes.DIFFICULTIES["medium"])
        """,
        TARGETS,
    ),
    "imports the generator again": (
        """
        import sys
        for name in [name for name in sys.modules if name.startswith("rss_env")]:
            del sys.modules[name]
        import rss_env.datasets.shapes
        """,
        TARGETS,
    ),
    "runs the generator's file": ("import runpy; runpy.run_module('rss_env.datasets.shapes')", TARGETS),
    "draws by itself": ("from rss_env.datasets.shapes import draw_scene; draw_scene(None, (16, 16), 3, None)", TARGETS),
    "opens a folder": (
        """
        from rss_env.datasets import cache, folder
        cache.load_cached(folder.locate("/", "val"), (16, 16), "pad")
        """,
        TARGETS,
    ),
    "opens the cache": ("from rss_env.datasets import cache; cache.load_cached(None, (16, 16), 'pad')", TARGETS),
    "reads a mask": ("from rss_env.datasets.decode import read_mask; read_mask('mask.png')", TARGETS),
    "opens a data set in a worker": (
        """
        import multiprocessing
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            from rss_env.datasets import load_dataset
            import gymnasium as gym
            pool.apply(gym.make, ("RSS-Shapes-ImageReward-v0",))
        """,
        "raised PermissionError: An entry may not open a data set",
    ),
}

MESSAGES = {
    "a pickle": (
        """
        import pickle, pathlib
        class Opened:
            def __reduce__(self):
                return print, ("the judge ran this",)
        trial._channel._stream.sendall(pickle.dumps(Opened()))
        trial._channel.receive()
        """,
        "sent what is no message: a head of",
    ),
    "a pickle as multiprocessing sends it": (
        """
        import os
        from multiprocessing.connection import Connection
        Connection(os.dup(trial._channel._stream.fileno())).send(os.getpid)
        trial._channel.receive()
        """,
        "sent what is no message: a head that is not JSON of a message",
    ),
    "bytes": ("trial._channel._stream.sendall(bytes(1000)); trial._channel.receive()", "sent what is no message: "),
    "a head without end": (
        "trial._channel._stream.sendall(b'\\xff' * 4); trial._channel.receive()",
        "sent .* head of 4,29",
    ),
    "deep JSON": (
        """
        trial._channel._stream.setblocking(True)
        trial._channel._stream.sendall((10**6).to_bytes(4, 'big') + b'[' * 10**6)
        trial._channel.receive()
        """,
        "sent what is no message: a head that is not JSON of a message",
    ),
    "a kind that is a number": ("trial.ask(3)", "sent what is no message: a head that is not JSON of a message"),
    "an unknown kind": ("trial.ask('moon')", "sent an unknown message 'moon'"),
    "an array of objects": (
        """
        head = b'{"kind": "step", "value": {"__array__": 0}, "arrays": [["object", [2]]]}'
        trial._channel._stream.sendall(len(head).to_bytes(4, "big") + head + bytes(16))
        trial._channel.receive()
        """,
        "sent what is no message: a head that is not JSON of a message",
    ),
    "an array of a petabyte": (
        """
        head = b'{"kind": "step", "value": {"__array__": 0}, "arrays": [["uint8", [1125899906, 1000000]]]}'
        trial._channel._stream.sendall(len(head).to_bytes(4, "big") + head)
        trial._channel.receive()
        """,
        "sent what is no message: uint8 .*, which is more than",
    ),
    "label maps as a list": (
        "envs = trial.make_envs(2); envs.reset(); trial.ask('step', np.zeros((2, 16, 16), int).tolist())",
        "sent a step without label maps",
    ),
    "a step in place of a report": (
        "trial.ask('report'); trial.ask('step', np.zeros((16, 16, 16), np.uint8))",
        "sent 'step' in place of label maps",
    ),
    "no array in a report": ("trial.ask('report'); trial.ask('label maps', [])", "sent 'label maps' in place of label"),
    "the end of its socket": (
        "trial._channel._stream.close(); import time; time.sleep(1000)",
        "closed the pipe to the judge",
    ),
}

DELAYS = {
    "sleeps": ("import time; time.sleep(1000)", "over its time of 0.6 s"),
    "never comes to an end": ("while True: pass", "over its time of 0.6 s"),
    "never comes to an end and catches everything": (
        """
        while True:
            try:
                while True: pass
            except BaseException:
                pass
        """,
        "over its time of 0.6 s",
    ),
    "stops itself": ("import os; os.kill(os.getpid(), 19)", "over its time of 0.6 s"),
    "stops what ends it": ("import os; os.kill(os.getppid(), 19); os.kill(os.getpid(), 19)", "over its time of 0.6 s"),
    "stops within a message": (
        "trial._channel._stream.sendall(bytes(2)); import os; os.kill(os.getpid(), 19)",
        "over its time of 0.6 s",
    ),
    "sends half a head": (
        "trial._channel._stream.sendall(bytes([0, 0, 9, 9]) + b'{'); import time; time.sleep(1000)",
        "over its time of 0.6 s",
    ),
    "sends half an array": (
        """
        import time
        head = b'{"kind": "step", "value": {"__array__": 0}, "arrays": [["uint8", [999]]]}'
        trial._channel._stream.sendall(len(head).to_bytes(4, "big") + head + bytes(9))
        time.sleep(1000)
        """,
        "over its time of 0.6 s",
    ),
    "sends slowly": (
        """
        import time
        for byte in bytes(1000):
            trial._channel._stream.send(bytes([byte, 0]) if byte else b"\\0\\0\\0")
            time.sleep(0.1)
        """,
        "over its time of 0.6 s|sent what is no message",
    ),
    "never reads": (
        """
        import time
        envs = trial.make_envs(96)
        for _ in range(40):
            trial._channel.send("reset", (0, None))
        time.sleep(1000)
        """,
        "over its time of 0.6 s",
    ),
    "never answers a report": ("trial.tell('report'); import time; time.sleep(1000)", "over the 0.6 s of its reports"),
    "sleeps in its report": (
        "import time; trial.report(lambda images: time.sleep(1000))",
        "over the 0.6 s of its reports",
    ),
    "resets for ever": ("envs = trial.make_envs(96)\nwhile True: envs.reset()", "over (its time of|the) 0.6 s"),
    "reports for ever": (f"while True: {REPORT}", "reported more than 3 times"),
    "prints for ever": ("while True: print('moon' * 10000)", PRINTED),
}

STARTED = {
    "a child": (
        """
        import os, time
        child = os.fork()
        if child == 0:
            time.sleep(1000)
        print(child)
        """,
        "ok",
    ),
    "a child in a process group of its own": (
        """
        import subprocess, sys
        print(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True).pid)
        """,
        "ok",
    ),
    "a daemon": (DAEMON, "ok"),
    "a daemon, and raises": (DAEMON + "    raise ValueError", "raised ValueError"),
    "a daemon, and dies": (DAEMON + "    os._exit(1)", "its process died"),
    "a daemon, and hangs": (DAEMON + "    time.sleep(1000)", "over its time of 2 s"),
    "a daemon, and leaves its own group": (
        DAEMON + "    print(os.getpid(), flush=True); os.setsid(); time.sleep(1000)",
        "over",
    ),
    "a daemon that leaves the environment behind": (
        """
        import subprocess, sys, time
        code = "import os, time; os.fork() and os._exit(0); os.setsid(); print(os.getpid(), flush=1); time.sleep(1000)"
        subprocess.run([sys.executable, "-c", code], env={})
        time.sleep(0.2)
        """,
        "ok",
    ),
    "itself, after what watches it was killed": (
        "import os, time; print(os.getpid(), flush=True); os.kill(os.getppid(), 9); time.sleep(1000)",
        r"its process died \(SIGKILL\)",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_the_status(tmp_path: Path, name: str) -> None:
    body, status = MISTAKES[name]
    assert re.match(status, judge_body(tmp_path, body).status)


@pytest.mark.parametrize("name", QUESTIONS)
def test_asking_for_targets_is_the_status(tmp_path: Path, name: str) -> None:
    body, status = QUESTIONS[name]
    assert re.match(status, judge_body(tmp_path, body).status)


@pytest.mark.parametrize("name", MESSAGES)
def test_what_is_no_message_ends_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(judging, "DYING", 0.5)
    body, status = MESSAGES[name]
    assert re.match(status, judge_body(tmp_path, body).status)


@pytest.mark.parametrize("name", DELAYS)
def test_nothing_that_an_entry_does_or_leaves_undone_holds_up_the_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(judging, "REPORTING", 0.6)
    monkeypatch.setattr(judging, "MAX_REPORTS", 3)
    body, status = DELAYS[name]
    seconds = 60 if name in ("prints for ever", "reports for ever") else 0.6
    verdict = judge_body(tmp_path, body, seconds=seconds)
    assert re.match(status, verdict.status)
    assert verdict.seconds < 10
    assert (tmp_path / "log.txt").stat().st_size <= judging.MAX_PRINTED


@pytest.mark.parametrize("name", STARTED)
def test_whatever_an_entry_starts_ends_with_it(tmp_path: Path, name: str) -> None:
    body, status = STARTED[name]
    verdict = judge_body(tmp_path, textwrap.dedent(body) + f"\n{REPORT}", seconds=2 if "over" in status else 60)
    assert re.match(status, verdict.status)
    started = [word for word in (tmp_path / "log.txt").read_text().split() if word.isdecimal()]
    assert started
    assert end_within(started, seconds=5)
