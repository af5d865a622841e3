"""The command: learning while answers come, replay from a log, resuming, and what the rest of the agents reads."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from agents import evaluate, load, predict, rate
from agents.rate import RateArguments, Rating, add_answers
from agents.rating.answers import export_lines, read_answers
from tests.agents.rating.conftest import Served

ROOT = Path(__file__).parents[3]


def judge(served: Served, question: dict[str, Any]) -> dict[str, Any]:
    """What somebody answers who knows bright from dark."""
    asked = served.session.find(question["id"])
    assert asked is not None
    image = served.session.learner.images[served.session.questions.index[asked.image]]
    part = np.ones(image.shape[:2], bool) if asked.part is None else asked.part
    shares = [float(((image.mean(axis=2) > 128) == label_map)[part].mean()) for label_map in asked.label_maps]
    if asked.kind == "stars":
        return {"stars": [1 + round(4 * share) for share in shares]}
    return {"order": [[int(k)] for k in np.argsort([-share for share in shares], kind="stable")]}


def accuracy(learner: Any, images: np.ndarray) -> float:
    return float((learner.label_maps(images) == (images.mean(axis=3) > 128)).mean())


def sit(served: Served, answers: int) -> None:
    for _ in range(answers):
        question = served.question()
        assert served.answer(question, judge(served, question)).status_code == 200


def wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_the_policy_learns_while_somebody_rates(serve: Callable[..., Served]) -> None:
    served = serve(learn=True, kinds=("pair", "stars"), updates_per_answer=6, checks=0.2)
    session = served.session
    before = accuracy(session.learner, session.learner.images)
    sit(served, 18)
    learned = len(session.learner)
    assert 0 < learned < 18  # some are checks
    wait(lambda: session.learner.updates == 6 * learned and len(session.curve) > 1)
    after = accuracy(session.learner, session.learner.images)
    assert after > max(before, 0.5) + 0.2
    assert session.curve[-1]["answers"] > session.curve[0]["answers"]
    assert 0 <= session.curve[-1]["val/foreseen"] <= 1
    assert served.get("/api/status").json()["wanted"] == 6 * learned


def test_caught_up_means_that_the_last_answer_was_learned_from(serve: Callable[..., Served]) -> None:
    served = serve(learn=True, updates_per_answer=2, checks=0.0)
    for number in range(1, 8):
        sit(served, 1)
        wait(lambda: served.session.caught_up)  # at once after an answer, when the learner may not have woken yet
        assert served.session.learner.updates == 2 * number


def test_an_answer_that_was_taken_back_is_not_learned_from(serve: Callable[..., Served]) -> None:
    served = serve()
    sit(served, 3)
    served.post("/api/undo", rater="ann")
    assert len(served.session.learner) == 2
    served.answer(served.question(), {"skip": True})
    assert len(served.session.learner) == 2


def test_the_log_replays_to_the_same_policy(
    serve: Callable[..., Served], arguments: Callable[..., RateArguments], tmp_path: Path
) -> None:
    served = serve(kinds=("pair", "stars", "ranking"))
    sit(served, 6)
    served.post("/api/undo", rater="ann")
    online = served.session.learner
    lines = tmp_path / "answers.jsonl"
    lines.write_text(served.get("/api/answers.jsonl").text)
    weights = []
    for source in (None, lines, tmp_path / "run" / "answers.sqlite"):
        learner = online
        if source is not None:
            learner = Rating(arguments(run_dir=str(tmp_path / "other"))).learner
            assert add_answers(learner, read_answers(source), str(source)) == 5
        for _ in range(3):
            learner.update()
        weights.append(torch.cat([value.flatten() for value in learner.policy.state_dict().values()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)
    torch.testing.assert_close(weights[0], weights[2], rtol=0, atol=0)


def words(args: RateArguments, **more: Any) -> list[str]:
    """The command line of arguments."""
    given: dict[str, Any] = {
        "root": args.root,
        "classes": args.classes,
        "network-options": json.dumps(args.network_options),
        "updates-per-answer": args.updates_per_answer,
        "side": args.side,
        "run-dir": args.run_dir,
    }
    line = ["--image-size", *map(str, args.image_size)]
    for name, value in (given | more).items():
        line += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return line


def test_a_policy_trained_from_a_log_is_used_as_any_other(
    serve: Callable[..., Served],
    arguments: Callable[..., RateArguments],
    command: Callable[..., Any],
    tmp_path: Path,
    photos: Path,
) -> None:
    served = serve()
    sit(served, 8)
    lines, out = tmp_path / "answers.jsonl", tmp_path / "offline"
    lines.write_text("".join(export_lines(served.session.log.answers())))
    args = arguments(run_dir=str(out), updates_per_answer=3)
    outcome = command(rate.main, *words(args, answers=lines), "--no-progress")
    assert (outcome.code, outcome.err) == (0, "")
    assert "8 answers learned from in 24 updates" in outcome.out
    policy = load(out)
    assert policy.class_names == ["dark", "bright"]
    assert policy.description["training"]["answers"] == 8
    shown = np.stack([np.asarray(Image.open(path)) for path in sorted((photos / "images").iterdir())])
    shares = policy.probabilities(shown).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(policy.description["class_shares"], shares, atol=0.02)  # of photos of other sizes
    assert load(out, balance=0.5).predict(photos / "images" / "00.png").shape == (32, 48)
    label_map = policy.predict(photos / "images" / "00.png")
    assert label_map.shape == (32, 48)
    assert len(np.unique(policy.palette, axis=0)) == 2
    predicted = command(predict.main, out, photos / "images" / "00.png", "--out", tmp_path / "predicted")
    assert predicted.code == 0
    measured = command(evaluate.main, out)
    assert measured.code == 2
    assert "People rated the label maps of this run" in measured.err
    row = json.loads((out / "metrics.jsonl").read_text())
    assert row["time/answers"] == 8


def write_masks(photos: Path) -> None:
    """Masks of bright and dark."""
    (photos / "masks").mkdir()
    for path in (photos / "images").iterdir():
        bright = np.asarray(Image.open(path)).mean(axis=2) > 128
        Image.fromarray(bright.astype(np.uint8)).save(photos / "masks" / path.name)


def test_with_masks_the_policy_is_measured(
    serve: Callable[..., Served], photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    write_masks(photos)
    served = serve(learn=True, checks=None)
    sit(served, 2)
    wait(lambda: len(served.session.curve) > 0)
    served.session.stop()
    miou = max(point["val/miou"] for point in served.session.curve)
    assert 0 <= miou <= 1
    assert served.session.checks == 0
    measured = command(evaluate.main, tmp_path / "run", "--json")
    assert json.loads(measured.out)["miou"] == pytest.approx(miou, abs=1e-6)


def test_the_best_policy_is_kept_next_to_the_last(
    arguments: Callable[..., RateArguments],
    photos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_masks(photos)
    rating = Rating(arguments())
    rating.open_folder()
    weight = next(rating.learner.policy.parameters())
    for updates, miou in ((1, 0.5), (2, 0.7), (3, 0.6)):
        rating.learner.updates = updates
        weight.data.fill_(updates)
        rating.save({"val/miou": miou})
    rating.save({"train/loss": 1.0})  # not measured
    rating.report()
    rating.folder.close()
    assert "best: miou 0.700, the best" in capsys.readouterr().out
    run = Path(rating.args.run_dir)
    assert load(run).description["training"]["step"] == 2
    assert next(load(run).network.parameters()).unique().tolist() == [2]
    assert load(run / "checkpoints" / "step-00000003").description["training"]["step"] == 3

    again = Rating(arguments(resume=True))
    again.open_folder()
    assert next(again.learner.policy.parameters()).unique().tolist() == [3]  # it goes on from the last one
    again.learner.updates = 4
    for miou, best in ((0.65, 2), (0.8, 4)):
        again.save({"val/miou": miou})
        assert load(run).description["training"]["step"] == best
    again.folder.close()
    other = Rating(arguments(resume=True, network_options={"width": 16}))
    other.open_folder()
    other.save({"val/miou": 0.1})
    other.folder.close()
    assert load(run).description["network_options"] == {"width": 16}
    assert load(run / "before-1").description["training"]["step"] == 4


class Running:
    """The command in a process of its own."""

    def __init__(self, line: list[str]) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agents.rate", *line, "--port", "0"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        if first.startswith("Another network"):
            first = self.process.stdout.readline()
        found = re.match(r"http://127\.0\.0\.1:\d+", first)
        assert found, first + self.process.communicate()[1]
        self.address = found[0]

    def post(self, path: str, **content: Any) -> Any:
        return requests.post(self.address + path, json=content, timeout=60).json()

    def end(self, with_signal: int) -> tuple[int, str, str]:
        self.process.send_signal(with_signal)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


def test_a_killed_sitting_goes_on_and_ctrl_c_ends_it(arguments: Callable[..., RateArguments], tmp_path: Path) -> None:
    args = arguments()
    first = Running(words(args))
    numbers = []
    for _ in range(3):
        question = first.post("/api/question", rater="ann")
        said = {"question": question["id"], "attempt": 0, "answer": {"order": [[0], [1]]}, "seconds": 1}
        numbers.append(first.post("/api/answer", rater="ann", **said)["number"])
    shown = first.post("/api/question", rater="ann")  # and not answered before the kill
    wait(lambda: any((Path(args.run_dir) / "checkpoints").glob("step-*/SHA256SUMS")))
    first.end(signal.SIGKILL)
    log = Path(args.run_dir) / "answers.sqlite"
    assert [answer.number for answer in read_answers(log)] == numbers == [1, 2, 3]

    second = Running(["--run-dir", args.run_dir, "--resume", "--network-options", '{"width": 16}'])
    late = {"question": shown["id"], "attempt": 0, "answer": {"order": [[1], [0]]}, "seconds": 1}
    assert second.post("/api/answer", rater="ann", **late)["number"] == 4
    status = requests.get(second.address + "/api/status", timeout=60).json()
    assert status["raters"]["ann"]["answers"] == 4
    with requests.get(second.address + "/api/events", stream=True, timeout=60):  # a page is open
        code, out, err = second.end(signal.SIGINT)
    assert (code, err) == (0, "")
    assert "4 answers learned from" in out
    assert load(Path(args.run_dir) / "before-1").description["network_options"] == {"width": 8}
    assert load(args.run_dir).description["network_options"] == {"width": 16}
    assert len(read_answers(log)) == 4


def test_the_same_network_goes_on_where_it_was(arguments: Callable[..., RateArguments], serve: Callable[..., Served]):
    served = serve(learn=True, updates_per_answer=3)
    sit(served, 3)
    wait(lambda: served.session.learner.updates == 9)
    served.session.stop()
    served.session.log.close()
    own = served.session.learner
    rating = Rating(arguments(resume=True))
    rating.folder = type(rating.folder)(rating.folder.path)
    state = rating.folder.read_state(rating.folder.latest_checkpoint())
    rating.learner.load_state_dict(state["learner"])
    assert rating.learner.updates == 9
    for one, other in zip(own.network.parameters(), rating.learner.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"classes": "dark"}, "classes must be two different names"),
    ({"classes": "dark,dark"}, "classes must be two different names"),
    ({"answers": "nothing.jsonl"}, "Cannot read the answers in nothing.jsonl"),
    ({"lapse": 1.0}, "lapse must be at least 0 and less than 1"),
    ({"port": 70000}, "port must be 0 to 65535"),
    ({"side": 1}, "side must be at least 2"),
    ({"token": "short"}, "A token must have at least 8 characters"),
    ({"host": "256.1.1.1"}, "Cannot listen on 256.1.1.1"),
    ({"resume": True}, "holds no run"),
    ({"root": "/nowhere"}, "/nowhere"),
]


@pytest.mark.parametrize(("changed", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_is_wrong_is_one_line(
    arguments: Callable[..., RateArguments], command: Callable[..., Any], changed: dict[str, Any], said: str
) -> None:
    outcome = command(rate.main, *words(arguments(), **{"port": 0} | changed))
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.startswith("error: ")


def test_a_host_that_others_reach_needs_a_token(
    arguments: Callable[..., RateArguments], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import uvicorn

    seen: list[Any] = []

    def run(self: Any, sockets: Any) -> None:
        seen.append(self.config.app)

    monkeypatch.setattr(uvicorn.Server, "run", run)
    for number, host in enumerate(("0.0.0.0", "127.0.0.1", "localhost")):
        args = arguments(host=host, port=0, run_dir=f"{arguments().run_dir}-{number}")
        assert rate.serve(args) == 0
        address = capsys.readouterr().out.splitlines()[0]
        assert ("?token=" in address) == (host == "0.0.0.0")
    assert seen[0].hosts is None
    assert len(seen[0].token) > 16
    assert seen[1].token is None
    assert {host.rpartition(":")[0] for host in seen[2].hosts} == {"localhost", "127.0.0.1", "[::1]"}
