"""A sitting: the log, the questions and the learner together, for any number of raters at once."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from rss_env.errors import OptionError

from .agreement import agreements
from .answers import Answer, AnswerLog, Question, check_rater
from .learner import Learner
from .questions import Questions

REMEMBERED = 4096  # questions whose pictures can still be asked for without reading the log


class Session:
    """What the page talks to.

    Args:
        log: of the answers.
        questions: chooses them.
        learner: learns from them.
        measure: how good the policy is, numbers by name; called in the learner's thread.
        repeat: share of the questions that a rater gets because another rater has answered them.
        checks: share of the questions that are asked at random and not learned from; how many of them the policy
            foresees says how good it is where there are no masks.
        updates_per_answer: of the policy, after which it waits for more answers.
        save: keeps the policy, called in the learner's thread.
        save_every: updates from one call of it to the next.
        measure_every: answers from one measurement of the policy to the next, for its curve.
        seed: of what is repeated and checked.

    Attributes:
        curve: ``{"answers": …, "updates": …, name: value, …}`` of every measurement.
        version: changes whenever ``status`` does.
        leaving: whether pages are to be let go.
        idle: whether the learner waits for more answers.
        error: what ended the learner's thread.
    """

    def __init__(
        self,
        log: AnswerLog,
        questions: Questions,
        learner: Learner,
        measure: Callable[[], dict[str, float]],
        *,
        repeat: float = 0.1,
        checks: float = 0.0,
        updates_per_answer: int = 10,
        save: Callable[[dict[str, float]], None] = lambda metrics: None,
        save_every: int = 200,
        measure_every: int = 10,
        seed: int = 0,
    ) -> None:
        self.log, self.questions, self.learner, self.measure, self.save = log, questions, learner, measure, save
        self.repeat, self.checks, self.updates_per_answer = repeat, checks, updates_per_answer
        self.save_every, self.measure_every = save_every, measure_every
        self.random = np.random.default_rng(seed)
        self.curve: list[dict[str, float]] = []
        self.version = 0
        self.closed = self.leaving = self.idle = False
        self.error: BaseException | None = None
        self._changed = threading.Condition()
        self._asking = threading.Lock()
        self._standing: dict[int, Answer] = {}
        self._open: dict[str, tuple[Question, int]] = {}  # what each rater was shown and did not answer
        self._shown: deque[Question] = deque(maxlen=REMEMBERED)
        self._by_id: dict[str, Question] = {}
        self._measured = -1  # answers at the last measurement
        self._thread: threading.Thread | None = None
        for answer in log.answers():
            self._take(answer)
        questions.replay(list(self._standing.values()))

    # What raters do ---------------------------------------------------------------------------------------------------

    def question(self, rater: Any) -> tuple[Question, int]:
        """What a rater is asked now, and the attempt that an answer must name: the same until it is answered."""
        rater = check_rater(rater)
        with self._asking:
            if rater not in self._open:
                self._open[rater] = self.log.open_question(rater) or (self._repeated(rater) or self._new(), 0)
                self._remember(self._open[rater][0])
            return self._open[rater]

    def _repeated(self, rater: str) -> Question | None:
        """A question that another rater has answered and this one was not asked."""
        if self.random.random() >= self.repeat:
            return None
        own = self.log.answered_by(rater)
        with self._changed:
            others = {a.question.id: a.question for a in self._standing.values() if "skip" not in a.answer}
        left = [question for name, question in others.items() if name not in own]
        return left[int(self.random.integers(len(left)))] if left else None

    def _new(self) -> Question:
        question = self.questions.next(self.learner.updates, check=bool(self.random.random() < self.checks))
        self.log.ask(question)
        return question

    def _remember(self, question: Question) -> None:
        if question.id not in self._by_id:
            if len(self._shown) == REMEMBERED:
                self._by_id.pop(self._shown[0].id, None)
            self._shown.append(question)
            self._by_id[question.id] = question

    def find(self, identifier: str) -> Question | None:
        """A question that was asked, by its id."""
        return self._by_id.get(identifier) or self.log.question(identifier)

    def answer(self, identifier: str, rater: Any, answer: Any, seconds: Any, attempt: int) -> Answer:
        """Takes an answer, which is on the disk when this returns.

        Raises:
            OptionError: there is no such question, or the answer does not fit it.
        """
        rater = check_rater(rater)
        question = self.find(identifier)
        if question is None:
            raise OptionError(f"There is no question {identifier!r}.")
        taken, new = self.log.add(question, rater, answer, seconds, attempt)
        with self._asking:
            if rater in self._open and self._open[rater][0].id == identifier:
                del self._open[rater]
        if new:
            self._take(taken)
        return taken

    def undo(self, rater: Any) -> Answer | None:
        """Takes back the last answer of a rater, whose question comes next again; None if there is none."""
        rater = check_rater(rater)
        undone = self.log.undo(rater)
        if undone is not None:
            with self._asking:
                self._open[rater] = (undone.question, undone.attempt + 1)
                self._remember(undone.question)
            with self._changed:
                self._standing.pop(undone.number, None)
                self.learner.remove(undone)
                self._say()
        return undone

    def _take(self, answer: Answer) -> None:
        with self._changed:
            self._standing[answer.number] = answer
            if answer.question.chosen != "check":
                self.learner.add(answer)
            self._say()

    def _say(self) -> None:
        self.version += 1
        self._changed.notify_all()

    # What they see ----------------------------------------------------------------------------------------------------

    def standing(self) -> list[Answer]:
        """The answers that were not taken back, in order."""
        with self._changed:
            return [self._standing[number] for number in sorted(self._standing)]

    def status(self) -> dict[str, Any]:
        """Answers, time an answer, the policy's curve and the agreement of the raters; JSON-serialisable."""
        standing = self.standing()
        raters: dict[str, dict[str, Any]] = {}
        for answer in standing:
            of = raters.setdefault(answer.rater, {"answers": 0, "skips": 0, "seconds": 0.0, "queries": 0})
            of["answers"] += 1
            of["skips"] += "skip" in answer.answer
            of["queries"] += 0 if "skip" in answer.answer else len(answer.question.label_maps)
            of["seconds"] += answer.seconds
        for of in raters.values():
            of["seconds"] = round(of["seconds"] / of["answers"], 2)
        return {
            "answers": len(standing),
            "queries": sum(of["queries"] for of in raters.values()),
            "raters": raters,
            "updates": self.learner.updates,
            "wanted": self.wanted(),
            "curve": self.curve,
            "agreement": [vars(both) for both in agreements(standing)],
            "version": self.version,
            "error": None if self.error is None else str(self.error),
        }

    def foreseen(self) -> float | None:
        """Share of the checks' answers that the policy would have given; None without checks."""
        checks = [a for a in self.standing() if a.question.chosen == "check"]
        told = [same for answer in checks if (same := self.learner.foresees(answer)) is not None]
        return sum(told) / len(told) if told else None

    # Learning ---------------------------------------------------------------------------------------------------------

    def wanted(self) -> int:
        """Updates that the answers so far are worth."""
        return self.updates_per_answer * len(self.learner)

    @property
    def caught_up(self) -> bool:
        """Whether all answers so far were learned from and measured; ``idle`` may be from before the last came."""
        return self.learner.updates >= self.wanted() and self.idle

    def start(self) -> None:
        """Starts to learn, in a thread."""
        self._thread = threading.Thread(None, self._run, "learner", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the update at hand, and keeps the policy."""
        with self._changed:
            self.closed = self.leaving = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            if self.error is None and len(self.learner):
                self._measure()

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    self.idle = self.learner.updates >= self.wanted()
                    self._changed.wait_for(lambda: self.closed or self.learner.updates < self.wanted())
                    self.idle = False
                    if self.closed:
                        return
                metrics = self.learner.update()
                rounds = len(self._standing) // self.measure_every
                caught_up = self.learner.updates >= self.wanted()
                is_due = rounds > self._measured // self.measure_every and (caught_up or self._measured < 0)
                if is_due or self.learner.updates % self.save_every == 0:
                    self._measure(metrics)
        except BaseException as error:
            self.error = error
            raise
        finally:
            with self._changed:
                self._say()

    def _measure(self, metrics: dict[str, float] | None = None) -> None:
        """Measures and keeps the policy."""
        began = time.perf_counter()
        answers = len(self._standing)
        measured = {"answers": answers, "updates": self.learner.updates} | self.measure()
        share = self.foreseen()
        if share is not None:
            measured["val/foreseen"] = share
        measured = {name: value for name, value in measured.items() if math.isfinite(value)}
        self.curve.append(measured)
        self._measured = answers
        self.save((metrics or {}) | measured | {"time/measuring": time.perf_counter() - began})
        with self._changed:
            self._say()
