"""What the tests of rating share: a folder of photos without masks, and a server in a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import uvicorn
from PIL import Image

from agents.rate import RateArguments, Rating, make_session
from agents.rating.server import Server
from agents.rating.session import Session

SIZE = (16, 24)


def write_photos(root: Path, count: int = 12) -> Path:
    """Photos of bright and dark patches, the last quarter to validate on."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "splits").mkdir()
    names = [f"{number:02}" for number in range(count)]
    for name in names:
        patches = rng.integers(0, 2, (4, 6)).repeat(8, 0).repeat(8, 1)
        pixels = 60 + 130 * patches[..., None] + rng.integers(-20, 20, (32, 48, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / f"{name}.png")
    (root / "splits" / "train.txt").write_text("\n".join(names[: count * 3 // 4]))
    (root / "splits" / "val.txt").write_text("\n".join(names[count * 3 // 4 :]))
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


@pytest.fixture
def arguments(photos: Path, tmp_path: Path) -> Callable[..., RateArguments]:
    """Arguments of a small run on the photos."""

    def make(**given: Any) -> RateArguments:
        own: dict[str, Any] = {
            "root": str(photos),
            "classes": "dark,bright",
            "image_size": SIZE,
            "side": 8,
            "checks": 0.0,
        }
        own |= {"network_options": {"width": 8}, "updates_per_answer": 1, "run_dir": str(tmp_path / "run")}
        args = RateArguments(**own | given)
        args.check()
        return args

    return make


@dataclass
class Served:
    """A server that runs, and how to ask it."""

    address: str
    session: Session

    def post(self, path: str, **content: Any) -> requests.Response:
        return requests.post(self.address + path, json=content, timeout=20)

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.address + path, timeout=20, **options)

    def question(self, rater: str = "ann") -> dict[str, Any]:
        return self.post("/api/question", rater=rater).json()

    def answer(self, question: dict[str, Any], answer: Any, rater: str = "ann", seconds: float = 1.0) -> Any:
        named = {"question": question["id"], "attempt": question["attempt"]}
        return self.post("/api/answer", rater=rater, answer=answer, seconds=seconds, **named)


@pytest.fixture
def serve(arguments: Callable[..., RateArguments], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Served]]:
    """Serves a run with small pictures, without its learner's thread unless ``learn`` is given."""
    monkeypatch.setattr("agents.rating.photos.SHOWN", 192)
    with contextlib.ExitStack() as stack:

        def begin(learn: bool = False, token: str | None = None, anywhere: bool = False, **given: Any) -> Served:
            rating = Rating(arguments(**given))
            rating.open_folder()
            stack.callback(rating.folder.close)
            session = make_session(rating)
            stack.callback(session.log.close)
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = listening.getsockname()[1]
            hosts = None if anywhere else [f"127.0.0.1:{port}", f"localhost:{port}"]
            app = Server(session, rating.photos, rating.held_out, rating.class_names, rating.palette, hosts, token).app
            server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
            thread.start()
            if learn:
                session.start()

            def stop() -> None:
                session.stop()
                server.should_exit = True
                thread.join(20)

            stack.callback(stop)
            while not server.started:
                time.sleep(0.01)
            return Served(f"http://127.0.0.1:{port}", session)

        yield begin
