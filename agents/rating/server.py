"""The server of the page: questions, answers and progress as JSON, pictures as PNG and JPEG.

    GET  /                                    the page; /page.js, /page.css
    POST /api/question   {"rater"}            what is asked now, the same until it is answered
    POST /api/answer     {"rater", "question", "attempt", "answer", "seconds"}
    POST /api/undo       {"rater"}            takes the last answer back
    GET  /api/status                          answers, seconds an answer, the policy's curve, agreement of the raters
    GET  /api/events                          the same as server-sent events, whenever it changes
    GET  /api/answers.jsonl                   the log as JSON lines
    GET  /pictures/…                          photos, label maps, outlines, held-out photos with the policy's label map

An answer is acknowledged once it is on the disk. The same answer may be sent again: the first one stands.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from rss_env.errors import JudgeError, OptionError

from . import pictures
from .answers import Question, export_lines
from .photos import Photos
from .security import LARGEST, Guard
from .session import Session

FILES = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
KEPT = "private, max-age=86400, immutable"  # of pictures that never change
POLL = 0.3  # seconds
HELD_OUT = 6  # photos


class Server:
    """The application, an ASGI one.

    Args:
        session: what raters do and see.
        photos: that are rated.
        held_out: photos on which the policy is shown; None: none.
        class_names: C names.
        palette: uint8 (C, 3), their colours.
        hosts: see ``security.Guard``.
        token: see there.

    Attributes:
        app: the application.
    """

    def __init__(
        self,
        session: Session,
        photos: Photos,
        held_out: Photos | None,
        class_names: Sequence[str],
        palette: np.ndarray,
        hosts: Sequence[str] | None,
        token: str | None = None,
    ) -> None:
        self.session, self.photos, self.held_out = session, photos, held_out
        self.class_names, self.palette = list(class_names), palette
        routes = [Route(path, self._file(*file)) for path, file in FILES.items()]
        routes += [
            Route("/api/question", self.question, methods=["POST"]),
            Route("/api/answer", self.answer, methods=["POST"]),
            Route("/api/undo", self.undo, methods=["POST"]),
            Route("/api/status", self.status),
            Route("/api/events", self.events),
            Route("/api/answers.jsonl", self.export),
            Route("/pictures/photo/{number:int}.jpg", self.photo),
            Route("/pictures/question/{id}/{name}.png", self.picture),
            Route("/pictures/legend/{number:int}.png", self.legend),
            Route("/pictures/held-out/{number:int}.jpg", self.prediction),
        ]
        self.app: ASGIApp = Guard(Starlette(routes=routes), hosts, token)

    @staticmethod
    def _file(name: str, kind: str) -> Callable[[Request], Response]:
        content = (importlib.resources.files(__package__) / "page" / name).read_bytes()

        def file(_: Request) -> Response:
            return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

        return file

    # What raters do ---------------------------------------------------------------------------------------------------

    async def question(self, request: Request) -> Response:
        """What a rater is asked now."""
        return await self._act(request, lambda given: self._describe(*self.session.question(given.get("rater"))))

    async def answer(self, request: Request) -> Response:
        """Takes an answer."""

        def act(given: dict[str, Any]) -> dict[str, Any]:
            identifier, attempt = given.get("question"), given.get("attempt", 0)
            if not isinstance(identifier, str) or type(attempt) is not int:
                raise OptionError("question must be the id of a question, attempt a number.")
            said = given.get("answer"), given.get("seconds")
            taken = self.session.answer(identifier, given.get("rater"), *said, attempt)
            return {"number": taken.number, "question": identifier, "answer": dict(taken.answer)}

        return await self._act(request, act)

    async def undo(self, request: Request) -> Response:
        """Takes the last answer of a rater back."""

        def act(given: dict[str, Any]) -> dict[str, Any]:
            undone = self.session.undo(given.get("rater"))
            return {"undone": None if undone is None else undone.number}

        return await self._act(request, act)

    async def _act(self, request: Request, act: Callable[[dict[str, Any]], dict[str, Any]]) -> Response:
        """Does something with the JSON object that was posted; an error is one line of JSON."""
        try:
            body = await _body(request)
            given = json.loads(body)
            if not isinstance(given, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError):
            return JSONResponse({"error": "What is posted must be a JSON object."}, 400)
        except ClientDisconnect:
            return Response(status_code=400)
        try:
            return JSONResponse(await run_in_threadpool(act, given))
        except OptionError as error:
            return JSONResponse({"error": str(error)}, 422)
        except JudgeError as error:  # the disk is full, or the log damaged
            return JSONResponse({"error": str(error)}, 503)

    def _describe(self, question: Question, attempt: int) -> dict[str, Any]:
        """A question as the page gets it."""
        number = self.session.questions.index.get(question.image)
        if number is None:
            raise OptionError(f"The photo of question {question.id} is no longer there.")
        place = f"/pictures/question/{question.id}"
        options = []
        for k, label_map in enumerate(question.label_maps):
            inside = np.unique(label_map if question.part is None else label_map[question.part])
            options.append(
                {
                    "overlay": f"{place}/overlay-{k}.png",
                    "outline": f"{place}/outline-{k}.png",
                    "labels": f"{place}/labels-{k}.png",
                    "classes": [self.class_names[c] for c in inside.tolist()],
                }
            )
        return {
            "id": question.id,
            "attempt": attempt,
            "kind": question.kind,
            "photo": f"/pictures/photo/{number}.jpg",
            "size": [side * self.photos.scale for side in question.label_maps.shape[1:]],
            "part": None if question.part is None else f"{place}/part.png",
            "part_labels": None if question.part is None else f"{place}/labels-part.png",
            "options": options,
        }

    # What they see ----------------------------------------------------------------------------------------------------

    def _status(self) -> dict[str, Any]:
        held_out = 0 if self.held_out is None else min(HELD_OUT, len(self.held_out))
        return self.session.status() | {
            "classes": self.class_names,
            "photos": len(self.photos),
            "held_out": held_out,
        }

    async def status(self, request: Request) -> Response:
        """Progress."""
        return JSONResponse(await run_in_threadpool(self._status))

    async def events(self, request: Request) -> Response:
        """Progress whenever it changes, as server-sent events."""

        async def stream() -> AsyncIterator[str]:
            seen, waited = -1, 0.0
            while not self.session.leaving:
                if self.session.version != seen:
                    status = await run_in_threadpool(self._status)
                    seen, waited = status["version"], 0.0
                    yield f"data: {json.dumps(status)}\n\n"
                elif waited > 15:
                    waited = 0.0
                    yield ": still here\n\n"
                await asyncio.sleep(POLL)
                waited += POLL

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def export(self, request: Request) -> Response:
        """The log as JSON lines."""
        answers = await run_in_threadpool(lambda: self.session.log.answers(undone=True))
        headers = {"Content-Disposition": 'attachment; filename="answers.jsonl"'}
        return StreamingResponse(export_lines(answers), media_type="application/jsonl", headers=headers)

    async def photo(self, request: Request) -> Response:
        """A photo by its number."""
        number = request.path_params["number"]
        if number >= len(self.photos):
            return _missing()
        return await _picture(lambda: pictures.jpeg(self.photos.shown(number)), "image/jpeg", KEPT)

    async def picture(self, request: Request) -> Response:
        """Overlay, outline or numbers of a label map of a question, or the outline of the part that it is about."""
        question = await run_in_threadpool(self.session.find, request.path_params["id"])
        kind, _, place = request.path_params["name"].partition("-")
        if question is None:
            return _missing()
        scale = self.photos.scale
        if (part := question.part) is not None and (kind, place) == ("part", ""):
            return await _picture(lambda: pictures.mark(part, scale), "image/png", KEPT)
        if part is not None and (kind, place) == ("labels", "part"):
            return await _picture(lambda: pictures.png(part.astype(np.uint8)), "image/png", KEPT)
        if not (place.isascii() and place.isdigit() and int(place) < len(question.label_maps)):
            return _missing()
        label_map = question.label_maps[int(place)]
        if kind == "overlay":
            return await _picture(lambda: pictures.overlay(label_map, self.palette, scale), "image/png", KEPT)
        if kind == "labels":
            return await _picture(lambda: pictures.png(label_map), "image/png", KEPT)
        if kind == "outline":
            return await _picture(lambda: pictures.outline(label_map, scale), "image/png", KEPT)
        return _missing()

    async def legend(self, request: Request) -> Response:
        """Colour and pattern of a class."""
        number = request.path_params["number"]
        if number >= len(self.class_names):
            return _missing()
        return await _picture(lambda: pictures.swatch(number, self.palette), "image/png", KEPT)

    async def prediction(self, request: Request) -> Response:
        """A held-out photo under the policy's label map of now."""
        number = request.path_params["number"]
        if self.held_out is None or number >= min(HELD_OUT, len(self.held_out)):
            return _missing()
        held_out = self.held_out

        def draw() -> bytes:
            label_map = self.session.learner.label_maps(held_out.images[[number]])[0]
            return pictures.predicted(held_out.shown(number), label_map, self.palette, held_out.scale)

        return await _picture(draw, "image/jpeg", "no-store")


async def _picture(draw: Callable[[], bytes], kind: str, kept: str) -> Response:
    return Response(await run_in_threadpool(draw), media_type=kind, headers={"Cache-Control": kept})


def _missing() -> Response:
    return JSONResponse({"error": "There is no such picture."}, 404)


async def _body(request: Request) -> bytes:
    """What was posted, of which the guard has seen that it says to be small."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST:
            raise ValueError("too large")
    return body
