"""Slow callables as the reward: many calls at a time, each with a time-out and retries, and a log of their answers."""

from __future__ import annotations

import functools
import heapq
import inspect
import json
import math
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rss_env.arguments import is_count
from rss_env.errors import JudgeError, OptionError
from rss_env.named import name_of
from rss_env.rewards.arrays import Array
from rss_env.rewards.given import as_score

_jitter = random.Random()  # of its own, so that no one else's draws change


def concurrent(judge: Callable[..., Any] | None = None, /, **settings: Any) -> Any:
    """Marks a slow callable, whose calls then run at the same time; a decorator, with settings or without.

    The callable is called as ``judge(image, label_map, target, **reward_options)``, each call in a thread of its own. A
    coroutine function runs on an event loop instead.

    Args:
        judge: the callable.
        **settings: those of ``Concurrent``.

    Raises:
        OptionError: a setting is out of range.

    Example:
        >>> @concurrent(workers=8, timeout=10)
        ... def judge(image, label_map, target):
        ...     time.sleep(0.01)  # a call over the network
        ...     return float((label_map == target).mean())
    """
    return functools.partial(Concurrent, **settings) if judge is None else Concurrent(judge, **settings)


class Concurrent:
    """A callable whose calls run at the same time; called by itself, it is the callable.

    Args:
        judge: called as ``judge(image, label_map, target, **reward_options)``; a function or a coroutine function.
        workers: most calls at a time.
        timeout: seconds after which a call has failed; None for no limit. Nothing ends a thread from outside: a call
            that never returns keeps its thread, which does not hold up the exit of the interpreter.
        retries: further tries of a call that failed, that is raised an exception or took too long.
        backoff: seconds before the first further try; twice as many before each one after it, less up to a half that is
            drawn at random.
        answers: file that logs the answers, on a local disk; see ``rss_env.rewards.answers``. None for no log.
        name: what the log knows the callable by, to be changed when the callable changes; None for
            ``module:function``.

    Raises:
        OptionError: an argument is out of range, or the callable is batched.
    """

    def __init__(
        self,
        judge: Callable[..., Any],
        *,
        workers: int = 32,
        timeout: float | None = 60.0,
        retries: int = 2,
        backoff: float = 1.0,
        answers: str | Path | None = None,
        name: str | None = None,
    ) -> None:
        if not callable(judge) or isinstance(judge, Concurrent):
            raise OptionError(f"concurrent takes a function or another callable, got {judge!r}.")
        for setting, value, least in (("workers", workers, 1), ("retries", retries, 0)):
            if not is_count(value, least):
                raise OptionError(f"{setting} must be an integer of at least {least}, got {value!r}.")
        if timeout is not None and not (_is_seconds(timeout) and timeout > 0):
            raise OptionError(f"timeout must be None or a positive number of seconds, got {timeout!r}.")
        if not _is_seconds(backoff):
            raise OptionError(f"backoff must be a number of seconds of at least 0, got {backoff!r}.")
        if answers is not None and name is None and not _is_named(judge):
            raise OptionError(
                f"answers needs name=..., what the log knows {judge!r} by: only a function at the top of a module "
                "has a name that says which it is."
            )
        functools.update_wrapper(self, judge)
        self.judge = judge
        self.workers, self.timeout, self.retries, self.backoff = int(workers), timeout, int(retries), backoff
        self.answers = None if answers is None else Path(answers)
        self.name = name or name_of(self)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.judge(*args, **options)

    def __repr__(self) -> str:
        return f"concurrent({self.judge!r})"

    def __reduce__(self) -> Any:
        # Where the callable's name now means this object, as after @concurrent, it is pickled by its name: the callable
        # itself can no longer be found.
        module, name = getattr(self, "__module__", None), getattr(self, "__qualname__", "")
        if getattr(sys.modules.get(module or ""), name, None) is self:
            return name
        settings = {key: getattr(self, key) for key in ("workers", "timeout", "retries", "backoff", "answers", "name")}
        return functools.partial(Concurrent, self.judge, **settings), ()

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raises ``OptionError`` if these ``reward_options`` cannot be part of the answers log."""
        if self.answers is not None:
            _digest_options(options)

    def scores(
        self,
        images: Array,
        label_maps: Array,
        targets: Array | None,
        indices: np.ndarray,
        options: Mapping[str, Any],
    ) -> list[float]:
        """The scores of B·K label maps, image by image; arguments as for ``CallableReward.score``.

        Raises:
            OptionError: the callable gave something other than a finite number.
            JudgeError: a call failed at every try, or the answers log cannot be used.
        """
        batch, samples = label_maps.shape[:2]
        _wait_for(images)
        queries = [
            (images[b], label_maps[b][k], None if targets is None else targets[b])
            for b in range(batch)
            for k in range(samples)
        ]
        judge = functools.partial(self.judge, **options)

        def read(number: int, given: Any) -> float:
            return as_score(given, int(indices[number // samples]), number % samples)

        def fail(number: int, tries: int, error: BaseException) -> JudgeError:
            said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            often = "" if tries == 1 else f" {tries} times"
            return JudgeError(
                f"The reward {self.name} failed{often} for image {indices[number // samples]}, sample "
                f"{number % samples}: {' '.join(said.split())[:500]}."
            )

        scores: dict[int, float] = {}
        with self._open_log() as log:
            if log is not None:
                keys = log.keys(self.name, _digest_options(options), images, label_maps, targets)
                scores = log.find(keys)

            def keep(found: dict[int, float]) -> None:
                if log is not None:
                    log.add({keys[number]: score for number, score in found.items()})
                scores.update(found)

            asked = [number for number in range(len(queries)) if number not in scores]
            _Round(self, judge, queries, read, fail, keep).ask(asked, drain=log is not None)
        return [scores[number] for number in range(len(queries))]

    def _open_log(self) -> Any:
        if self.answers is None:
            return nullcontext()
        from rss_env.rewards.answers import Answers

        return Answers(self.answers)


@dataclass(eq=False)
class _Call:
    """A try of a query that is running."""

    number: int
    tries: int
    deadline: float
    cancel: Callable[[], Any] = field(default=lambda: None)


class _Round:
    """The calls of one step.

    Only the thread that asks decides what happens; the others report to its queue.

    Args:
        settings: of the calls.
        judge: called with a query.
        queries: arguments of every call.
        read: (number of a query, what was given) -> its score; raises ``OptionError`` if that is none.
        fail: (number of a query, tries, last error) -> the error to raise.
        keep: is given scores by the number of their query, before anyone sees them.
    """

    def __init__(
        self,
        settings: Concurrent,
        judge: Callable[..., Any],
        queries: Sequence[tuple[Any, ...]],
        read: Callable[[int, Any], float],
        fail: Callable[[int, int, BaseException], JudgeError],
        keep: Callable[[dict[int, float]], None],
    ) -> None:
        self.settings, self.judge, self.queries = settings, judge, queries
        self.read, self.fail, self.keep = read, fail, keep
        self.start = _start_task if is_asynchronous(settings.judge) else _start_thread
        self.reports: queue.SimpleQueue[tuple[_Call, Any, BaseException | None]] = queue.SimpleQueue()
        self.waiting: list[tuple[float, int, int]] = []  # a heap of (when, number of the query, tries before)
        self.running: list[_Call] = []  # the oldest first
        self.found: dict[int, float] = {}  # scores that are not kept yet
        self.failure: Exception | None = None

    def ask(self, numbers: Iterable[int], drain: bool) -> None:
        """Asks queries until all are answered.

        Args:
            numbers: of the queries.
            drain: after a failure, wait for the answers of the calls that run, as they are worth keeping.
        """
        self.waiting = [(0.0, number, 0) for number in numbers]  # in order, which is a heap
        try:
            while self.waiting or self.running:
                self._start_due()
                self._take_reports()
                self._give_up_late()
                if self.failure is not None and not drain:
                    break
        finally:  # also after Ctrl-C
            self._take_all()
            self._keep_found()
            for call in self.running:
                call.cancel()
        if self.failure is not None:
            raise self.failure

    def _start_due(self) -> None:
        while self.waiting and len(self.running) < self.settings.workers and self.waiting[0][0] <= time.monotonic():
            _, number, tries = heapq.heappop(self.waiting)
            limit = math.inf if self.settings.timeout is None else self.settings.timeout
            call = _Call(number, tries + 1, time.monotonic() + limit)
            self.running.append(call)
            call.cancel = self.start(self.judge, self.queries[number], functools.partial(self._report, call))

    def _report(self, call: _Call, given: Any, error: BaseException | None) -> None:
        self.reports.put((call, given, error))

    def _take_reports(self) -> None:
        """Waits for the first report, or until there is something else to do, and takes all that there are."""
        until = min((call.deadline for call in self.running), default=math.inf)
        if self.waiting and len(self.running) < self.settings.workers:
            until = min(until, self.waiting[0][0])
        wait = until - time.monotonic()
        with suppress(queue.Empty):
            self._take(
                *self.reports.get(timeout=None if wait == math.inf else min(max(wait, 0), threading.TIMEOUT_MAX))
            )
        self._take_all()
        self._keep_found()

    def _take_all(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._take(*self.reports.get_nowait())

    def _keep_found(self) -> None:
        if self.found:
            self.keep(self.found)
            self.found = {}

    def _take(self, call: _Call, given: Any, error: BaseException | None) -> None:
        if call not in self.running:  # it was given up
            return
        self.running.remove(call)
        if error is not None:
            self._try_again(call, error)
            return
        try:
            self.found[call.number] = self.read(call.number, given)
        except OptionError as wrong:
            self._end(wrong)

    def _give_up_late(self) -> None:
        now = time.monotonic()
        for call in [call for call in self.running if call.deadline <= now]:
            self.running.remove(call)
            call.cancel()
            self._try_again(call, TimeoutError(f"no answer within {self.settings.timeout:g} s"))

    def _try_again(self, call: _Call, error: BaseException) -> None:
        if call.tries > self.settings.retries or not isinstance(error, Exception):
            failure = self.fail(call.number, call.tries, error)
            failure.__cause__ = error
            self._end(failure)
        elif self.failure is None:
            pause = self.settings.backoff * 2 ** (call.tries - 1) * _jitter.uniform(0.5, 1)
            heapq.heappush(self.waiting, (time.monotonic() + pause, call.number, call.tries))

    def _end(self, failure: Exception) -> None:
        """Asks nothing more; of several failures the first counts."""
        self.failure = self.failure or failure
        self.waiting.clear()


def _is_named(judge: Callable[..., Any]) -> bool:
    return inspect.isfunction(judge) and "<" not in judge.__qualname__


def is_asynchronous(judge: Any) -> bool:
    """Whether a callable is a coroutine function, or an object that is called like one."""
    judge = judge.func if isinstance(judge, functools.partial) else judge
    return inspect.iscoroutinefunction(judge) or inspect.iscoroutinefunction(getattr(judge, "__call__", None))  # noqa: B004


def _start_thread(judge: Callable[..., Any], query: tuple[Any, ...], report: Callable[..., None]) -> Callable[[], Any]:
    """Starts a call in a thread that does not hold up the exit of the interpreter, unlike those of an executor."""

    def call() -> None:
        try:
            given = judge(*query)
        except BaseException as error:  # whatever it is, the asking thread must not wait for ever
            report(None, error)
        else:
            report(given, None)

    threading.Thread(target=call, name="rss-judge", daemon=True).start()
    return lambda: None


def _start_task(judge: Callable[..., Any], query: tuple[Any, ...], report: Callable[..., None]) -> Callable[[], Any]:
    """Starts a call on the event loop of this process."""
    import asyncio

    async def call() -> None:
        try:
            given = await judge(*query)
        except asyncio.CancelledError as error:
            report(None, error)
            raise
        except Exception as error:
            report(None, error)
        else:
            report(given, None)

    return asyncio.run_coroutine_threadsafe(call(), _event_loop()).cancel


_loops: dict[int, Any] = {}  # by process: a forked one has not got the thread


def _event_loop() -> Any:
    """An event loop in a thread of its own, for all steps, as clients of network services belong to one loop.

    The caller may have an event loop that runs already, as in a notebook, and Ctrl-C reaches the caller at once.
    """
    import asyncio
    import os

    if os.getpid() not in _loops:
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="rss-judges", daemon=True).start()
        _loops[os.getpid()] = loop
    return _loops[os.getpid()]


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _digest_options(options: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(options), sort_keys=True)
    except (TypeError, ValueError) as error:
        raise OptionError(f"With an answers log reward_options must be JSON values: {error}.") from None


def _wait_for(images: Array) -> None:
    """Waits for a CUDA device, whose stream other threads do not share."""
    if not isinstance(images, np.ndarray) and images.is_cuda:
        sys.modules["torch"].cuda.current_stream(images.device).synchronize()
