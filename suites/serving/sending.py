"""Send requests as a load wants it: as many at a time as there are slots, or when they are due.

A thread of its own sends, so that nothing the caller does with an answer delays the next request.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

from harness.records import Completion

T = TypeVar("T")
Send = Callable[[T], Future[Completion]]


@dataclass(frozen=True)
class Sent(Generic[T]):
    """A request that was answered, or failed. Times are of time.perf_counter()."""

    what: T
    future: Future[Completion]
    scheduled_s: float
    sent_s: float


@dataclass
class Sender(Generic[T]):
    """Sends in the order given. Args: slots: requests in flight at most; None: no limit.
    due_s: seconds after the start, per request; None: as soon as a slot is free.
    """

    send: Send[T]
    slots: int | None
    due_s: Sequence[float] | None = None

    def run(self, whats: Sequence[T]) -> Iterator[Sent[T]]:
        """Yield requests as they are answered. Raises: what sending raised; what is in flight is left to itself."""
        self._left = deque(whats)
        self._stopped = False
        self._freed: SimpleQueue[float] = SimpleQueue()
        self._done: SimpleQueue[Sent[T] | BaseException] = SimpleQueue()
        for _ in range(min(len(whats), self.slots or len(whats))):
            self._freed.put(0.0)
        thread = threading.Thread(target=self._send_all, name="load", daemon=True)
        thread.start()
        try:
            for _ in whats:
                sent = self._done.get()
                if isinstance(sent, BaseException):
                    raise sent
                yield sent
        finally:
            self._stopped = True
            self._freed.put(0.0)
            thread.join()

    def _send_all(self) -> None:
        start_s = time.perf_counter()
        try:
            for number in range(len(self._left)):
                free_s = max(start_s, self._freed.get())
                due_s = free_s if self.due_s is None else start_s + self.due_s[number]
                self._sleep_until(due_s)
                if self._stopped:
                    return
                self._send_one(self._left.popleft(), due_s)
        except BaseException as exc:  # noqa: BLE001  carried to the caller's thread
            self._done.put(exc)

    def _sleep_until(self, at_s: float) -> None:
        """In short naps, so that a stopped sender ends soon."""
        while not self._stopped and (left_s := at_s - time.perf_counter()) > 0:
            time.sleep(min(left_s, 0.2))

    def _send_one(self, what: T, due_s: float) -> None:
        sent_s = time.perf_counter()
        future = self.send(what)
        sent = Sent(what, future, due_s, sent_s)
        future.add_done_callback(lambda _: self._answered(sent))

    def _answered(self, sent: Sent[T]) -> None:
        self._freed.put(time.perf_counter())
        self._done.put(sent)
