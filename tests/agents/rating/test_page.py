"""The page in a real browser: a whole sitting of 20 answers with keys, mouse and a reload, and what the log says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.agents.rating.conftest import Served


class Rater:
    """Somebody at the page; errors, messages and requests to other servers fail the test."""

    def __init__(self, browser: Any, served: Served, **options: Any) -> None:
        self.served, self.wrong = served, []
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda r: r.url.startswith(served.address) or self.wrong.append(r.url))
        self.page.goto(served.address)

    def sign_in(self, name: str = "Ann") -> None:
        self.page.get_by_label("Your name").fill(name)
        self.page.keyboard.press("Enter")
        self.ready()

    def ready(self, after: str = "") -> None:
        """Waits for the next question."""
        self.page.wait_for_selector(f'#asking[data-question]:not([data-question="{after}"])')
        self.page.wait_for_selector("body:not([aria-busy])")

    @property
    def shown(self) -> str:
        return self.page.get_attribute("#asking", "data-question")

    def act(self, act: Callable[[], Any]) -> str:
        """Does something that brings another question; returns the id of the one that was there."""
        before = self.shown
        act()
        self.ready(before)
        return before.rpartition("-")[0]

    def key(self, key: str) -> str:
        return self.act(lambda: self.page.keyboard.press(key))

    def click(self, name: str) -> str:
        return self.act(lambda: self.page.get_by_role("button", name=name).first.click())

    def order(self) -> list[int]:
        return [int(card.get_attribute("data-k")) for card in self.page.locator(".option").all()]

    def leave(self) -> None:
        self.context.close()
        assert not self.wrong


def test_a_sitting_of_twenty_answers(browser: Any, serve: Callable[..., Served]) -> None:
    served = serve(kinds=("pair", "stars", "ranking"), scope="whole", learn=True)
    rater = Rater(browser, served)
    rater.sign_in()
    page, expected = rater.page, []
    while len(expected) < 20:
        kind = page.get_attribute("#asking", "class").split()[0]
        number = len(expected)
        if number == 9:  # in the middle; what was asked is asked again
            before = rater.shown
            page.reload()
            rater.ready()
            assert rater.shown == before
        if number in (5, 12) and not expected[-1][2]:  # take the last one back, and answer it otherwise
            identifier, _, _ = expected.pop()
            (rater.key if number == 5 else rater.click)("z" if number == 5 else "undo")
            assert rater.shown == f"{identifier}-1"
            said: Any = {"skip": True}
            asked = rater.key("s") if number == 5 else rater.click("skip")
            expected.append((asked, said, True))
            continue
        if kind == "of-pair":
            said, act = (
                ({"order": [[0], [1]]}, lambda: rater.key("ArrowLeft")),
                ({"order": [[1], [0]]}, lambda: rater.click("B is better")),
                ({"order": [[0, 1]]}, lambda: rater.key("=")),
                ({"order": [[1], [0]]}, lambda: rater.key("ArrowRight")),
            )[number // 3 % 4]
            asked = act()
        elif kind == "of-stars":
            for key in "314":
                page.keyboard.press(key)
            page.get_by_role("group", name="stars of D").get_by_role("button", name="5 of 5 stars").click()
            said = {"stars": [3, 1, 4, 5]}
            asked = rater.key("Enter") if number % 2 else rater.click("Send")
        else:
            first, last = page.locator('.option[data-k="0"] .stack'), page.locator('.option[data-k="3"] .stack')
            if number % 2:
                last.drag_to(first)  # D is the best
                page.locator('.option[data-k="1"]').focus()
                page.keyboard.press("Shift+ArrowLeft")  # B before A
                page.keyboard.press("=")  # as good as D
                assert rater.order() == [3, 1, 0, 2]
                said = {"order": [[3, 1], [0], [2]]}
            else:
                page.get_by_role("button", name="A is worse").click()
                assert rater.order() == [1, 0, 2, 3]
                said = {"order": [[1], [0], [2], [3]]}
            asked = rater.click("Send")
        expected.append((asked, said, False))
    status = page.locator("#counts").text_content()
    log = served.session.log.answers()
    assert [(answer.question.id, answer.answer) for answer in log] == [(asked, said) for asked, said, _ in expected]
    assert {answer.rater for answer in log} == {"Ann"}
    assert all(0 < answer.seconds < 60 for answer in log)
    assert len(served.session.log.answers(undone=True)) == 22
    page.wait_for_selector("#counts dd:text-is('20')")
    assert "seconds an answer" in status
    rater.leave()


def test_label_maps_can_be_hidden_faded_and_outlined(browser: Any, serve: Callable[..., Served]) -> None:
    rater = Rater(browser, serve())
    rater.sign_in()
    page = rater.page
    style = "([selector, name]) => getComputedStyle(document.querySelector(selector))[name]"
    assert page.evaluate(style, [".overlay", "opacity"]) == "0.55"
    page.keyboard.press("]")
    assert page.evaluate(style, [".overlay", "opacity"]) == "0.65"
    page.keyboard.press("o")
    assert page.evaluate(style, [".overlay", "opacity"]) == "0"
    page.get_by_role("button", name="outlines").click()
    assert page.evaluate(style, [".outline", "display"]) == "none"
    page.keyboard.press("?")
    assert page.get_by_role("table", name="Keys").is_visible()
    assert page.locator("#legend li").all_text_contents() == ["dark", "bright"]
    assert page.locator(".stack img").count() == 2 + 4 + 4
    loaded = "[...document.images].filter((image) => image.loading !== 'lazy').every((image) => image.naturalWidth > 0)"
    page.wait_for_timeout(300)
    assert page.evaluate(loaded)
    rater.leave()


def test_a_name_is_shown_as_it_is_written(browser: Any, serve: Callable[..., Served]) -> None:
    served = serve()
    rater = Rater(browser, served)
    name = "<img src=x onerror=alert(1)>"
    rater.sign_in(name)
    assert rater.page.locator("#name").text_content() == name
    rater.key("ArrowLeft")
    assert served.session.log.answers()[0].rater == name
    rater.leave()


def test_an_answer_is_sent_again_when_its_acknowledgement_is_lost(browser: Any, serve: Callable[..., Served]) -> None:
    served = serve()
    rater = Rater(browser, served)
    rater.sign_in()
    lost: list[str] = []

    def lose(route: Any) -> None:
        if lost:
            route.continue_()
            return
        route.fetch()  # the server has it
        lost.append(route.request.url)
        route.abort()

    rater.page.route("**/api/answer", lose)
    rater.key("ArrowLeft")
    assert len(lost) == 1
    assert len(served.session.log.answers(undone=True)) == 1
    rater.wrong = [said for said in rater.wrong if "ERR_FAILED" not in said]
    rater.leave()


@pytest.mark.parametrize("kind", ["pair", "stars", "ranking"])
def test_a_phone_has_room_for_everything(browser: Any, serve: Callable[..., Served], kind: str) -> None:
    rater = Rater(
        browser,
        serve(kinds=(kind,), scope="whole"),
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
    )
    rater.page.get_by_label("Your name").fill("Ann")
    rater.page.get_by_role("button", name="Begin").tap()
    rater.ready()
    page = rater.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in page.locator("#answers button, .stars button, .moves button").all():
        assert button.bounding_box()["height"] >= 40
    if kind == "stars":
        for letter in "ABCD":
            page.get_by_role("group", name=f"stars of {letter}").get_by_role("button", name="2 of 5 stars").tap()
    name = {"pair": "A is better"}.get(kind, "Send")
    rater.act(lambda: page.get_by_role("button", name=name).tap())
    assert len(rater.served.session.log.answers()) == 1
    rater.leave()
