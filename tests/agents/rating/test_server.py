"""The HTTP interface: raters at once, answers that count once, undo, and everything that is refused."""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from PIL import Image

from agents.rating.security import COOKIE, LARGEST, Guard
from tests.agents.rating.conftest import SIZE, Served

A, B, SAME = {"order": [[0], [1]]}, {"order": [[1], [0]]}, {"order": [[0, 1]]}


def said(served: Served) -> list[tuple[str, Any]]:
    return [(answer.rater, answer.answer) for answer in served.session.log.answers()]


def test_a_question_is_the_same_until_it_is_answered(serve: Callable[..., Served]) -> None:
    served = serve()
    first = served.question()
    assert first["kind"] == "pair"
    assert len(first["options"]) == 2
    assert served.question() == first
    other = served.question("bob")
    assert other["id"] != first["id"]
    assert served.answer(first, A).status_code == 200
    assert served.question()["id"] not in (first["id"], other["id"])
    assert served.question("bob") == other


def test_an_answer_that_is_sent_twice_counts_once_and_the_first_one_stands(serve: Callable[..., Served]) -> None:
    served = serve()
    question = served.question()
    first, again, changed = (served.answer(question, answer).json() for answer in (A, A, B))
    assert first == again == changed
    assert said(served) == [("ann", A)]


def test_undo_brings_the_question_back_and_keeps_both_rows(serve: Callable[..., Served]) -> None:
    served = serve()
    question = served.question()
    number = served.answer(question, A).json()["number"]
    assert served.post("/api/undo", rater="bob").json() == {"undone": None}
    assert served.post("/api/undo", rater="ann").json() == {"undone": number}
    assert said(served) == []
    again = served.question()
    assert (again["id"], again["attempt"]) == (question["id"], 1)
    assert served.answer(again, B).status_code == 200
    assert said(served) == [("ann", B)]
    lines = [json.loads(line) for line in served.get("/api/answers.jsonl").text.splitlines()]
    assert [(line["answer"], line["undone"]) for line in lines] == [(A, True), (B, False)]


def test_raters_who_get_the_same_question_are_compared(serve: Callable[..., Served]) -> None:
    served = serve(repeat=0.999)
    for answers in ((A, A), (B, B), (A, B)):
        question = served.question("ann")
        served.answer(question, answers[0], "ann")
        repeated = served.question("bob")
        assert repeated["id"] == question["id"]
        served.answer(repeated, answers[1], "bob")
    (agreement,) = served.get("/api/status").json()["agreement"]
    assert (agreement["first"], agreement["second"], agreement["questions"]) == ("ann", "bob", 3)
    assert agreement["equal"] == pytest.approx(2 / 3)
    assert agreement["kappa"] == pytest.approx(0.4)


def test_status_counts_label_maps_skips_and_seconds(serve: Callable[..., Served]) -> None:
    served = serve(kinds=("stars",), scope="whole")
    served.answer(served.question(), {"stars": [1, 2, None, 5]}, seconds=2)
    served.answer(served.question(), {"skip": True}, seconds=4)
    status = served.get("/api/status").json()
    assert status["raters"] == {"ann": {"answers": 2, "skips": 1, "seconds": 3.0, "queries": 4}}
    assert (status["answers"], status["wanted"], status["classes"]) == (2, 1, ["dark", "bright"])


def test_events_bring_the_status_whenever_it_changes(serve: Callable[..., Served]) -> None:
    served = serve()
    with served.get("/api/events", stream=True) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines(chunk_size=1)
        seen = [json.loads(next(lines)[6:])["answers"]]
        served.answer(served.question(), A)
        while len(seen) < 2:
            line = next(lines)
            if line.startswith(b"data: "):
                seen.append(json.loads(line[6:])["answers"])
    assert seen == [0, 1]


def test_pictures_have_the_size_of_the_photo(serve: Callable[..., Served]) -> None:
    served = serve()
    question = served.question()
    addresses = [
        question["photo"],
        question["part"],
        *(question["options"][1][kind] for kind in ("overlay", "outline")),
    ]
    addresses.append("/pictures/held-out/0.jpg")
    for address in addresses:
        picture = Image.open(io.BytesIO(served.get(address).content))
        assert picture.size == tuple(reversed(question["size"])), address
    assert question["size"][0] % SIZE[0] == 0
    colours = {Image.open(io.BytesIO(served.get(f"/pictures/legend/{c}.png").content)).getpixel((0, 1)) for c in (0, 1)}
    assert len(colours) == 2


def test_an_overlay_shows_the_classes_of_its_label_map(serve: Callable[..., Served]) -> None:
    served = serve()
    question = served.question()
    label_map = served.session.find(question["id"]).label_maps[0]
    shown = np.asarray(Image.open(io.BytesIO(served.get(question["options"][0]["overlay"]).content)))
    scale = question["size"][0] // SIZE[0]
    labels = Image.open(io.BytesIO(served.get(question["options"][0]["labels"]).content))
    np.testing.assert_array_equal(np.asarray(labels), label_map)
    part = np.asarray(Image.open(io.BytesIO(served.get(question["part_labels"]).content)))
    np.testing.assert_array_equal(part == 1, served.session.find(question["id"]).part)
    first = label_map.repeat(scale, 0).repeat(scale, 1) == 0
    np.testing.assert_array_equal(shown[..., 3] < 255, first)


WRONG = [
    ({"order": [[0]]}, 1.0),
    ({"order": [[0], [0]]}, 1.0),
    ({"order": [[0], [2]]}, 1.0),
    ({"order": [[0], [True]]}, 1.0),
    ({"stars": [1, 2]}, 1.0),
    ({"skip": False}, 1.0),
    ({"skip": True, "order": [[0], [1]]}, 1.0),
    ("better", 1.0),
    (None, 1.0),
    (A, -1.0),
    (A, 1e9),
    (A, None),
    (A, "1"),
    (A, True),
]


def test_answers_that_do_not_fit_are_refused_and_leave_no_trace(serve: Callable[..., Served]) -> None:
    served = serve()
    question = served.question()
    for answer, seconds in WRONG:
        refused = served.answer(question, answer, seconds=seconds)
        assert refused.status_code == 422, (answer, seconds)
        assert refused.json()["error"]
    assert served.answer(question | {"id": "nothing"}, A).status_code == 422
    assert served.answer(question | {"attempt": 1}, A).status_code == 422
    assert served.answer(question | {"attempt": "0"}, A).status_code == 422
    for rater in ("", " ", "x" * 65, "a\0b", None, 3, ["ann"]):
        assert served.post("/api/question", rater=rater).status_code == 422, rater
        assert served.answer(question, A, rater).status_code == 422, rater
    assert said(served) == []


def raw(served: Served, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> int:
    """The status of a request with exactly these headers."""
    connection = http.client.HTTPConnection(urlsplit(served.address).netloc, timeout=20)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    status = connection.getresponse().status
    connection.close()
    return status


def test_another_page_can_neither_post_nor_read(serve: Callable[..., Served]) -> None:
    served = serve()
    question = served.question()
    content = {"rater": "ann", "question": question["id"], "attempt": 0, "answer": A, "seconds": 1}
    body = json.dumps(content).encode()
    host = urlsplit(served.address).netloc
    good = {"Host": host, "Content-Type": "application/json", "Content-Length": str(len(body))}

    def post(**changed: str | None) -> int:
        headers = {k: v for k, v in (good | {k.replace("_", "-"): v for k, v in changed.items()}).items() if v}
        return raw(served, "POST", "/api/answer", headers, body)

    assert post(Origin="http://evil.example") == 403
    assert post(Origin="null") == 403
    assert post(Origin=f"https://{host}") == 403
    assert post(Sec_Fetch_Site="cross-site") == 403
    assert post(Sec_Fetch_Site="same-site") == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None):
        assert post(Content_Type=kind) == 415
    assert post(Host="evil.example") == 421  # a name that was made to lead here
    assert post(Host=f"evil.example:{urlsplit(served.address).port}") == 421
    assert post(Host=None) in (400, 421)
    assert raw(served, "GET", question["photo"], {"Host": host, "Sec-Fetch-Site": "cross-site"}) == 403
    assert raw(served, "GET", "/api/status", {"Host": "evil.example"}) == 421
    assert raw(served, "GET", "/", {"Host": host, "Sec-Fetch-Site": "cross-site"}) == 200  # a link
    assert raw(served, "OPTIONS", "/api/answer", good | {"Origin": "http://evil.example"}, body) == 403
    assert said(served) == []
    assert post(Origin=f"http://{host}", Sec_Fetch_Site="same-origin") == 200
    assert said(served) == [("ann", A)]


def test_the_browser_is_told_to_load_nothing_from_elsewhere(serve: Callable[..., Served]) -> None:
    served = serve()
    for path in ("/", "/page.js", "/api/status", "/nothing"):
        headers = served.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
    page = served.get("/").text
    assert "://" not in page
    assert "<script>" not in page
    assert "style=" not in page


def test_without_the_token_nothing_is_given(serve: Callable[..., Served]) -> None:
    served = serve(token="a long secret", anywhere=True)
    closed = ("/", "/page.js", "/api/status", "/api/events", "/api/answers.jsonl", "/pictures/photo/0.jpg", "/nothing")
    for path in closed:
        assert served.get(path).status_code == 401, path
    assert served.post("/api/question", rater="ann").status_code == 401
    assert served.get("/?token=a+wrong+secret").status_code == 401
    assert served.get("/api/status?token=a+long+secret").status_code == 401  # addresses get written down
    bearer = {"Authorization": "Bearer a long secret"}
    assert served.get("/api/status", headers=bearer).status_code == 200
    assert served.get("/api/status", headers={"Authorization": "Bearer a long"}).status_code == 401
    opened = served.get("/?token=a+long+secret", allow_redirects=False)
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    assert "HttpOnly" in opened.headers["set-cookie"]
    assert "samesite=strict" in opened.headers["set-cookie"].lower()
    browser = requests.Session()
    assert browser.get(f"{served.address}/?token=a+long+secret", timeout=20).status_code == 200
    assert COOKIE in browser.cookies
    posted = browser.post(f"{served.address}/api/question", json={"rater": "ann"}, timeout=20)
    assert posted.status_code == 200


def test_a_server_for_any_host_needs_a_token() -> None:
    with pytest.raises(ValueError, match="token"):
        Guard(lambda *_: None, None, None)  # type: ignore[arg-type, return-value]


PATHS = [
    "/pictures/photo/../../splits/train.txt",
    "/pictures/photo/%2e%2e%2f%2e%2e%2fsplits%2ftrain.txt",
    "/pictures/photo/..%2f..%2fimages%2f00.png.jpg",
    "/pictures/photo/-1.jpg",
    "/pictures/photo/99.jpg",
    "/pictures/photo/1e0.jpg",
    "/pictures/question/../part.png",
    "/pictures/question/%2e%2e/part.png",
    "/pictures/legend/2.png",
    "/pictures/held-out/99.jpg",
    "/page/../answers.py",
    "/..%2fanswers.py",
    "//etc/passwd",
    "/etc/passwd",
    "/page.py",
    "/index.html%00.js",
]


def test_no_path_leads_out_of_the_photos(serve: Callable[..., Served]) -> None:
    served = serve()
    host = {"Host": urlsplit(served.address).netloc}
    for path in PATHS:
        assert raw(served, "GET", path, host) == 404, path
    question = served.question()["id"]
    for name in ("overlay-2", "overlay--1", "overlay-", "overlay-²", "part-0", "else-0", "overlay-0-0"):
        assert served.get(f"/pictures/question/{question}/{name}.png").status_code == 404, name


def test_what_is_large_or_no_object_is_refused(serve: Callable[..., Served]) -> None:
    served = serve()
    json_type = {"Host": urlsplit(served.address).netloc, "Content-Type": "application/json"}
    large = json_type | {"Content-Length": str(LARGEST + 1)}
    assert raw(served, "POST", "/api/question", large) == 413
    assert raw(served, "POST", "/api/question", json_type | {"Transfer-Encoding": "chunked"}, b"0\r\n\r\n") == 413
    assert served.get(f"/pictures/{'x' * 9000}").status_code == 414
    for body in (b"", b"[]", b"1", b"{", b"\xff", b'{"rater": "ann"' + b"}" * 3, b"[" * 30_000):
        length = {"Content-Length": str(len(body))}
        assert raw(served, "POST", "/api/question", json_type | length, body) == 400, body[:20]


def test_photos_at_the_top_of_a_folder_are_found(serve: Callable[..., Served], photos: Any) -> None:
    served = serve(root=str(photos / "images"), split="all", val_split="all")
    assert served.get("/api/status").json()["photos"] == 12
