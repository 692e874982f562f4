"""One queue and one thread that computes: tasks block on futures or await them, the engine takes what is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from harness.errors import EngineError
from harness.records import Completion, Request

LINGER_S = 0.001
"""The queue is taken when nothing new has come for this long: requests that trickle in share a batch."""
MAX_LINGER_S = 0.02
CLOSED = "the engine was closed before this request was answered"
LOST = "the engine did not answer this request"


class Queued(NamedTuple):
    """A request on its way."""

    request: Request
    future: Future[Completion]
    queued_s: float
    """time.perf_counter() when it came in."""

    def fail(self, problem: EngineError) -> None:
        if not self.future.done():
            self.future.set_exception(problem)


class RequestQueue:
    """Feeds everything that is queued to one function, in a thread of its own.

    Args:
        compute: answers (or fails) every request it is given; must look at `closed` between batches and return.
        prepare: called once in the thread before anything else.
    """

    def __init__(self, compute: Callable[[list[Queued]], None], prepare: Callable[[], None]) -> None:
        self.closed = False
        self._worked: tuple[float, float | None] = (0.0, None)
        """Seconds of work that is done, and since when there is work in progress."""
        self._compute = compute
        self._prepare = prepare
        self._waiting: list[Queued] = []
        self._taken: list[Queued] = []
        """What is being computed."""
        self._changed = threading.Condition()
        self._busy = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def busy_s(self) -> float:
        """Seconds in which there was work, that in progress included: its last answers come before its end."""
        done_s, since_s = self._worked
        return done_s if since_s is None else done_s + time.perf_counter() - since_s

    def put(self, requests: Sequence[Request], problem_of: Callable[[Request], str | None]) -> list[Queued]:
        """Queue requests; one with a problem fails at once. Raises: EngineError: the queue is closed."""
        now = time.perf_counter()
        queued = [Queued(request, Future(), now) for request in requests]
        with self._changed:
            if self.closed:
                raise EngineError("the engine is closed")
            for item in queued:
                problem = problem_of(item.request)
                if problem is None:
                    self._waiting.append(item)
                else:
                    item.fail(EngineError(problem))
            self._changed.notify_all()
        return queued

    def join(self, least: int, most: int, wanted: Callable[[Request], bool]) -> list[Queued]:
        """Requests that came in meanwhile, for the batch that is being computed; called in its thread.

        Returns: nothing where fewer than `least` wait, or any that is not wanted: it would wait for ever.
        """
        with self._changed:
            if len(self._waiting) < max(1, least) or not all(wanted(item.request) for item in self._waiting):
                return []
            joined, self._waiting = self._waiting[:most], self._waiting[most:]
            self._taken += joined
        return joined

    def drain(self) -> None:
        """Wait until everything queued is answered."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or not (self._waiting or self._busy))

    def close(self) -> None:
        """Stop after the batch in flight; what is left fails."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        self._thread.join(timeout=60)

    def _take(self) -> list[Queued]:
        """Wait for requests, and a moment longer for those that arrive one by one."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.closed or bool(self._waiting))
            deadline = time.perf_counter() + MAX_LINGER_S
            size = -1
            while not self.closed and size != len(self._waiting) and time.perf_counter() < deadline:
                size = len(self._waiting)
                self._changed.wait(LINGER_S)
            self._taken, self._waiting = self._waiting, []
            self._busy = True
        return list(self._taken)

    def _work(self) -> None:
        self._prepare()
        while not self.closed:
            taken = self._take()
            self._worked = (self.busy_s, time.perf_counter())
            try:
                self._compute(taken)
            except Exception as exc:  # noqa: BLE001  a thread that dies would leave every waiting task hanging
                _fail(self._taken, f"{type(exc).__name__}: {exc}")
            self._worked = (self.busy_s, None)
            _fail(self._taken, CLOSED if self.closed else LOST)
        _fail(self._waiting, CLOSED)


def _fail(queued: Iterable[Queued], problem: str) -> None:
    for item in queued:
        item.fail(EngineError(problem))
